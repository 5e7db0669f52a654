//! Programs that harm nobody, and keep the guest as busy as attacks do. What another program loses
//! beside them, it loses to a busy machine.

use std::time::{Duration, Instant};

use hesper_mock_venus::{Ring, VenusGuest as _};

use crate::client::{Attack, Client};

pub(crate) const PROGRAMS: &[Attack] = &[
    ("harmless-spin", spin),
    ("harmless-contexts", contexts),
    ("harmless-devices", devices),
];

/// One processor of the guest is busy, and the GPU is not used.
fn spin() {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1400) {
        std::hint::spin_loop();
    }
}

/// As many contexts as the attack `garbage` makes.
fn contexts() {
    for _ in 0..50 {
        drop(Client::new());
    }
}

/// As many contexts and devices as the attack `destroyed-by-two` makes.
fn devices() {
    for _ in 0..20 {
        let client = Client::new();
        client.gpu();
        drop(Ring::new(&client, 1));
    }
}
