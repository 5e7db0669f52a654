//! Connections, resets, pauses and ends.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use hesper_vhost::transport::Server;
use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{Frontend, VhostUserFrontend};

use crate::commands::{create_2d, display_info, flush, show};
use crate::queues::Keeping;
use crate::served::{Parts, Served};
use crate::window::Files;
use hesper_mock_frontend::{Machine, PROTOCOL, eventually};
use hesper_vhost::wire;

#[test]
fn the_offer_is_what_qemu_needs() {
    for (window, shmem) in [(0, 0), (1 << 28, 1 << 22)] {
        let served = Served::new(Parts {
            window,
            ..Parts::default()
        });
        let mut frontend = Frontend::connect(served.path(), 2).unwrap();
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        for bit in [28, 29, 30, 32, 40] {
            assert_ne!(features & 1 << bit, 0, "feature bit {bit}");
        }
        assert_eq!(features & 1 << 33, 0, "no IOMMU");
        let offered = frontend.get_protocol_features().unwrap();
        assert_eq!(offered.bits(), PROTOCOL & !(1 << 22) | shmem);
        frontend.set_protocol_features(offered).unwrap();
        if window != 0 {
            let regions = frontend.get_shmem_config().unwrap();
            let sizes = regions.memory_sizes;
            assert_eq!((regions.nregions, sizes[0], sizes[1]), (1, 0, window));
        }
    }
}

/// QEMU's classic device accepts shared memory regions, but makes none.
#[test]
fn a_guest_without_a_window_is_offered_nothing_that_needs_one() {
    for is_asked in [false, true] {
        let served = Served::new(Parts {
            window: 1 << 20,
            renderers: vec![Arc::new(Files { needs_window: true })],
            ..Parts::default()
        });
        let mut frontend = Frontend::connect(served.path(), 2).unwrap();
        frontend.set_owner().unwrap();
        frontend.get_features().unwrap();
        let offered = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(offered).unwrap();
        if is_asked {
            frontend.get_shmem_config().unwrap();
        }
        // `num_capsets` (virtio-v1.4, 5.7.4).
        let flags = VhostUserConfigFlags::empty();
        let (_, capsets) = frontend.get_config(12, 4, flags, &[0; 4]).unwrap();
        assert_eq!(capsets, [u8::from(is_asked), 0, 0, 0]);
    }
}

#[test]
fn a_second_vm_on_the_same_server_starts_clean() {
    let served = Served::new(Parts::default());
    let mut first = Machine::boot(&served.path());
    let device = served.devices.recv().unwrap();
    assert_eq!(first.code(&create_2d(1, 8, 8)), wire::RESP_OK_NODATA);
    drop(first);
    let mut second = Machine::boot(&served.path());
    assert_eq!(second.code(&create_2d(1, 8, 8)), wire::RESP_OK_NODATA);
    assert!(device.upgrade().is_none(), "the first device is gone");
}

#[test]
fn a_driver_that_starts_anew_finds_a_reset_device() {
    let served = Served::new(Parts::default());
    let mut guest = Machine::boot(&served.path());
    assert_eq!(guest.code(&create_2d(1, 8, 8)), wire::RESP_OK_NODATA);
    assert_eq!(
        guest.code(&create_2d(1, 8, 8)),
        wire::RESP_ERR_INVALID_RESOURCE_ID
    );
    for _ in 0..3 {
        guest.stop();
        guest.start();
        assert_eq!(guest.code(&create_2d(1, 8, 8)), wire::RESP_OK_NODATA);
    }
}

#[test]
fn a_paused_vm_finds_its_resources_and_its_waiting_commands() {
    let served = Served::new(Parts::default());
    let mut guest = Machine::boot(&served.path());
    assert_eq!(guest.code(&create_2d(1, 8, 8)), wire::RESP_OK_NODATA);
    let bases = guest.stop();
    assert_eq!(bases, [1, 0]);
    let head = guest.offer(0, &create_2d(1, 8, 8), 64);
    std::thread::sleep(Duration::from_millis(20));
    assert!(guest.try_next(0).is_none(), "a stopped queue is left alone");
    guest.start_at(bases);
    let (answered, answer) = guest.wait(0).unwrap();
    assert_eq!(
        (answered, answer.kind()),
        (head, wire::RESP_ERR_INVALID_RESOURCE_ID),
        "the resource is still there"
    );
}

#[test]
fn a_given_descriptor_is_served_until_its_peer_hangs_up() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = Server::from_fd(theirs.into()).unwrap();
    let served = Served::run(server, Parts::default(), tempfile::tempdir().unwrap());
    let mut guest = Machine::boot_with(ours, 1 << 32);
    assert_eq!(guest.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
    drop(guest);
    served.join().unwrap();
}

#[test]
fn a_shutdown_ends_a_connection_within_100_ms() {
    let screen = Arc::new(Keeping::default());
    let served = Served::new(Parts {
        screen: screen.clone(),
        ..Parts::default()
    });
    let mut guest = Machine::boot(&served.path());
    let device = served.devices.recv().unwrap();
    show(&mut guest, 1, 64, 64);
    guest.offer(0, &flush(1, 0, 0, 64, 64).fence(1), 64);
    guest.kick(0);
    eventually("the flush is held", || !screen.0.lock().unwrap().is_empty());
    // Nobody answers the flush; a shutdown that waited for it would hang.
    served.stop.shutdown();
    served.join().unwrap();
    assert!(device.upgrade().is_none());
}

/// A VMM without memory slots sends tables.
#[test]
fn a_vmm_may_tell_of_memory_in_a_table() {
    let served = Served::new(Parts::default());
    let stream = UnixStream::connect(served.path()).unwrap();
    let mut guest = Machine::negotiate_protocol(stream, 1 << 32, PROTOCOL & !(1 << 15));
    for _ in 0..2 {
        guest.start();
        assert_eq!(guest.code(&create_2d(1, 8, 8)), wire::RESP_OK_NODATA);
        guest.stop();
    }
}
