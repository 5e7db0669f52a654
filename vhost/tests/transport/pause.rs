//! A paused VM: what waits goes on afterwards, and which memory the device accepts.
//!
//! QEMU stops the queues at a pause, and sets them up again at the same indices when it resumes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::VhostUserFrontend;

use crate::commands::{create_blob, create_context, display_info, flush, show};
use crate::queues::Keeping;
use crate::served::{Parts, Served};
use crate::window::{Asked, Files, attach};
use hesper_mock_frontend::{Machine, eventually};
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

/// A guest with a flush that the screen keeps.
fn with_a_held_flush() -> (Served, Arc<Keeping>, Machine) {
    let screen = Arc::new(Keeping::default());
    let served = Served::new(Parts {
        screen: screen.clone(),
        ..Parts::default()
    });
    let mut guest = Machine::boot(&served.path());
    show(&mut guest, 1, 64, 64);
    guest.offer(0, &flush(1, 0, 0, 64, 64).fence(1), 64);
    guest.kick(0);
    eventually("the flush is held", || !screen.0.lock().unwrap().is_empty());
    (served, screen, guest)
}

#[test]
fn a_fence_that_is_open_at_a_pause_is_answered_after_it() {
    let (served, screen, mut guest) = with_a_held_flush();
    let device = served.device();
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        let bases = guest.stop();
        shortest = shortest.min(start.elapsed());
        guest.start_at(bases);
    }
    // A stop waits for half a second if something blocks it.
    assert!(shortest < Duration::from_millis(400), "{shortest:?}");
    let bases = guest.stop();
    let token = screen.0.lock().unwrap()[0];
    device.flush_done(token);
    thread::sleep(Duration::from_millis(20));
    assert!(guest.try_next(0).is_none(), "a stopped queue is left alone");
    guest.start_at(bases);
    let (_, answer) = guest.wait(0).unwrap();
    assert_eq!(answer.kind(), wire::RESP_OK_NODATA);
    // One that is open longer than the pause.
    guest.offer(0, &flush(1, 0, 0, 64, 64).fence(2), 64);
    guest.kick(0);
    eventually("another flush is held", || {
        screen.0.lock().unwrap().len() == 2
    });
    let bases = guest.stop();
    guest.start_at(bases);
    assert_eq!(guest.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
    let token = screen.0.lock().unwrap()[1];
    device.flush_done(token);
    let (_, answer) = guest.wait(0).unwrap();
    assert_eq!(answer.kind(), wire::RESP_OK_NODATA);
}

#[test]
fn a_fence_that_is_open_at_a_reset_is_never_answered() {
    for answered_while_stopped in [true, false] {
        let (served, screen, mut guest) = with_a_held_flush();
        let device = served.device();
        guest.stop();
        let token = screen.0.lock().unwrap()[0];
        if answered_while_stopped {
            device.flush_done(token);
        }
        assert!(guest.try_next(0).is_none());
        guest.start();
        device.flush_done(token);
        assert_eq!(guest.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
        assert_eq!(device.usage().held, 0);
    }
}

/// A guest with one blob of this size, and a window.
fn with_a_blob(size: u64) -> (Served, Machine) {
    let served = Served::new(Parts {
        renderers: vec![Arc::new(Files::default())],
        window: 1 << 24,
        ..Parts::default()
    });
    let mut guest = Machine::boot(&served.path());
    assert_eq!(guest.code(&create_context()), wire::RESP_OK_NODATA);
    assert_eq!(guest.code(&create_blob(1, size)), wire::RESP_OK_NODATA);
    (served, guest)
}

/// QEMU's main loop does not serve the backend channel while it stops the queues.
#[test]
fn a_map_that_meets_a_pause_is_made_after_it() {
    let (_served, mut guest) = with_a_blob(0x4000);
    // Nobody serves the channel yet.
    let head = guest.offer(0, &Request::map_blob(1, 0x4000), 64);
    guest.kick(0);
    thread::sleep(Duration::from_millis(50));
    for _ in 0..3 {
        let start = Instant::now();
        let bases = guest.stop();
        assert!(start.elapsed() < Duration::from_millis(400));
        assert_eq!(bases[0], 3, "the map counts as taken");
        assert!(guest.try_next(0).is_none(), "it is not answered");
        guest.start_at(bases);
    }
    let vmm = attach(&mut guest);
    let (answered, answer) = guest.wait(0).unwrap();
    assert_eq!((answered, answer.kind()), (head, wire::RESP_OK_MAP_INFO));
    let map = Asked::Map {
        region: 1,
        offset: 0x4000,
        len: 0x4000,
        first: 0x5a,
    };
    assert_eq!(vmm.lock().unwrap().0, [map, Asked::Barrier]);
}

#[test]
fn a_map_that_meets_a_reset_is_given_up() {
    let (served, mut guest) = with_a_blob(0x4000);
    guest.offer(0, &Request::map_blob(1, 0x4000), 64);
    guest.kick(0);
    thread::sleep(Duration::from_millis(50));
    guest.stop();
    guest.start();
    assert_eq!(guest.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
    assert_eq!(served.device().usage().mappings, 0);
    assert!(guest.try_next(0).is_none());
}

#[test]
fn a_vm_that_goes_while_a_map_waits_is_forgotten() {
    let (served, mut guest) = with_a_blob(0x4000);
    let device = served.devices.recv().unwrap();
    guest.offer(0, &Request::map_blob(1, 0x4000), 64);
    guest.kick(0);
    thread::sleep(Duration::from_millis(50));
    guest.stop();
    drop(guest);
    let mut next = Machine::boot(&served.path());
    assert_eq!(next.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
    assert!(device.upgrade().is_none());
}

/// The memory region of a file, as QEMU sends it.
fn region(guest: u64, file: &File, size: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: guest,
        memory_size: size,
        userspace_addr: 0x6000_0000_0000 + guest,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

#[test]
fn our_own_blobs_are_declined_while_queues_run_and_accepted_at_a_start() {
    // No other test has a blob of this size, by which memory without a name is recognised.
    let (_served, mut guest) = with_a_blob(0x8000);
    let vmm = attach(&mut guest);
    assert_eq!(
        guest.code(&Request::map_blob(1, 0x10_0000)),
        wire::RESP_OK_MAP_INFO
    );
    let blob = vmm.lock().unwrap().1.take().unwrap();
    let blob_region = region(0xfc_0010_0000, &blob, 0x8000);
    let ram = tempfile::tempfile().unwrap();
    ram.set_len(1 << 20).unwrap();
    let ram_region = region(0x8000_0000, &ram, 1 << 20);

    let declined = guest.frontend.add_mem_region(&blob_region);
    assert!(declined.is_err(), "while the queues run");
    guest.frontend.add_mem_region(&ram_region).unwrap();
    guest.frontend.remove_mem_region(&ram_region).unwrap();
    assert!(guest.frontend.add_mem_region(&blob_region).is_err());
    assert_eq!(
        guest.code(&display_info()),
        wire::RESP_OK_DISPLAY_INFO,
        "no harm done"
    );

    let bases = guest.stop();
    guest.frontend.add_mem_region(&blob_region).unwrap();
    guest.start_at(bases);
    assert_eq!(guest.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
    // The guest unmaps it. The VMM removes the region. When it is mapped again, it is declined as
    // before.
    assert_eq!(guest.code(&Request::unmap_blob(1)), wire::RESP_OK_NODATA);
    guest.frontend.remove_mem_region(&blob_region).unwrap();
    assert_eq!(
        guest.code(&Request::map_blob(1, 0x10_0000)),
        wire::RESP_OK_MAP_INFO
    );
    assert!(guest.frontend.add_mem_region(&blob_region).is_err());

    // Another device of the same VM gets the region, too. By itself it knows nothing of blobs.
    let other = Served::new(Parts::default());
    let mut input = Machine::negotiate(UnixStream::connect(other.path()).unwrap(), 1 << 32);
    input.frontend.add_mem_region(&blob_region).unwrap();
    input.start();
    assert!(
        input
            .frontend
            .add_mem_region(&region(0x10_0000, &blob, 0x8000))
            .is_err()
    );

    // The VMM drops the window's mappings at a reset. Then this memory is no blob any more.
    guest.stop();
    guest.start();
    guest.frontend.add_mem_region(&blob_region).unwrap();
}
