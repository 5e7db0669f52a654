//! Programs that end their own driver, or keep it busy for ever. Hesper must have a process for
//! each context (`--isolate=on`), or it ends with them.

use hesper_mock_venus::harmful::{ENDLESS, WILD, asking};
use hesper_mock_venus::{FATAL, Gpu, Ring, RingOptions, VenusGuest as _, shader};

use crate::client::{Attack, Client};

/// These work with any driver that computes on the CPU.
pub(crate) const ATTACKS: &[Attack] = &[
    ("crash-shader", crash_shader),
    ("endless-shader", endless_shader),
];

/// These ask the driver (`tests/drivers/crashing`), which must be that one.
pub(crate) const WITH_THE_DRIVER: &[Attack] = &[
    ("crash-driver", || crash_in_ring("hesper: crash")),
    ("abort-driver", || crash_in_ring("hesper: abort")),
    ("crash-driver-at-submit", || {
        crash("hesper: crash at submit")
    }),
    ("hang-driver", || hang("hesper: hang")),
    ("hang-driver-at-submit", || hang("hesper: hang at submit")),
    ("no-harm", no_harm),
];

const LARGE: RingOptions = RingOptions {
    buffer: 64 << 10,
    behind: 0,
    reporting_period: 0,
};

/// An address in the first page, which no process has.
const NOWHERE: [u8; 8] = 16_u64.to_le_bytes();

fn run(client: &Client, gpu: &Gpu, shader: &[u8]) -> shader::Run {
    shader::run(gpu, || client.id(), shader, NOWHERE)
}

/// The context has ended: its ring says so, its fences retire, and it gets no blobs.
fn assert_ended(client: &Client, ring: &Ring<'_, Client>) {
    ring.until("the ring is fatal", || ring.status() & FATAL != 0);
    client.attack(&[]);
    client.attack_queue(&[]);
    assert!(client.blob().is_err(), "a dead context made a blob");
}

/// A submission that ends the driver, with a fence of the queue behind it.
fn crash_at_submit(shader: &[u8]) {
    let client = Client::new();
    let gpu = client.gpu();
    let ring = Ring::new(&client, 1);
    client.attack_queue(&run(&client, &gpu, shader).whole());
    assert_ended(&client, &ring);
}

fn crash_shader() {
    crash_at_submit(WILD);
}

fn crash(text: &str) {
    crash_at_submit(&asking(text));
}

/// A command in a ring that ends the driver, with fences of both kinds behind it.
fn crash_in_ring(text: &str) {
    let client = Client::new();
    let gpu = client.gpu();
    let mut ring = Ring::with(&client, 1, LARGE);
    ring.write(&run(&client, &gpu, &asking(text)).whole());
    client.attack(&[]);
    client.attack_queue(&[]);
    assert_ended(&client, &ring);
}

/// A call of the driver that never returns. Nothing answers the program any more.
fn hang(text: &str) {
    let client = Client::new();
    let gpu = client.gpu();
    let mut ring = Ring::with(&client, 1, LARGE);
    ring.write(&run(&client, &gpu, &asking(text)).whole());
}

/// A shader that never ends, in a context that is closed.
fn endless_shader() {
    let client = Client::new();
    let gpu = client.gpu();
    client.try_submit(&run(&client, &gpu, ENDLESS).whole());
}

/// What [`crash_shader`] does, without a crash.
fn no_harm() {
    let client = Client::new();
    let gpu = client.gpu();
    let _ring = Ring::new(&client, 1);
    client.attack_queue(&run(&client, &gpu, &asking("nothing")).whole());
    client.attack(&[]);
    client.attack_queue(&[]);
    assert!(client.blob().is_ok());
}
