//! A hundred VMs connect and disconnect, and nothing of them stays. This test has a process of its
//! own, because it counts descriptors and threads.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

#[path = "transport/commands.rs"]
#[allow(dead_code, reason = "shared with the other tests of the transport")]
mod commands;
#[path = "transport/served.rs"]
#[allow(dead_code, reason = "shared with the other tests of the transport")]
mod served;

use commands::display_info;
use hesper_mock_frontend::{Machine, eventually};
use hesper_vhost::wire;
use served::{Parts, Served};

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_hundred_reconnects_leave_no_descriptor_no_thread_and_no_device() {
    let served = Served::new(Parts {
        in_qemu: true,
        ..Parts::default()
    });
    let mut before = None;
    for round in 0..101 {
        let mut guest = Machine::boot(&served.path());
        assert_eq!(guest.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
        drop(guest);
        let device = served.devices.recv().unwrap();
        eventually("the device is dropped", || device.upgrade().is_none());
        // The first round may make things that stay for the life of the process. The device ends a
        // moment before the connection's last descriptors, so the count may include one or two of
        // them. A leak would be a hundred.
        if round == 0 {
            before = Some((count("/proc/self/fd"), count("/proc/self/task")));
            println!("descriptors and threads after the first VM: {before:?}");
        }
    }
    let (descriptors, threads) = before.unwrap();
    let mut after = (0, 0);
    eventually("no more descriptors and threads than before", || {
        after = (count("/proc/self/fd"), count("/proc/self/task"));
        after.0 <= descriptors && after.1 <= threads
    });
    println!("… and after 100 more: {after:?}");
}
