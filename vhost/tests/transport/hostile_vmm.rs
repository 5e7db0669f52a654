//! VMMs and clients that are broken or hostile: they lose their own connection, and nobody else's.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use vhost::VhostBackend;
use vhost::{VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use crate::commands::display_info;
use crate::served::{Parts, Served};
use hesper_mock_frontend::{Machine, PATIENCE, eventually};
use hesper_vhost::wire;

/// A VM can connect and is served, while the others are connected.
fn assert_serves(served: &Served) {
    let path = served.path();
    let (says, hears) = mpsc::channel();
    thread::spawn(move || {
        let mut machine = Machine::boot(&path);
        let _ = says.send(machine.code(&display_info()));
    });
    let answer = hears.recv_timeout(PATIENCE).expect("the VM is kept out");
    assert_eq!(answer, wire::RESP_OK_DISPLAY_INFO);
}

#[test]
fn a_region_longer_than_its_file_is_refused() {
    let served = Served::new(Parts::default());
    let machine = Machine::negotiate(UnixStream::connect(served.path()).unwrap(), 1 << 32);
    let file = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 0x1000).unwrap();
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: 0x10_0000,
        userspace_addr: 0x7000_0000,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    let table = machine.frontend.set_mem_table(&[region]);
    let addresses = VringConfigData {
        queue_max_size: 16,
        queue_size: 16,
        flags: 0,
        desc_table_addr: 0x7000_2000,
        used_ring_addr: 0x7000_4000,
        avail_ring_addr: 0x7000_3000,
        log_addr: None,
    };
    let rings = machine.frontend.set_vring_addr(0, &addresses);
    assert!(table.is_err() || rings.is_err());
    drop(machine);
    assert_serves(&served);
}

#[test]
fn who_says_a_part_of_a_message_keeps_no_vm_out() {
    let get_features = [1_u32, 1, 0].map(u32::to_le_bytes).concat();
    let without_its_body = [2_u32, 1, 8].map(u32::to_le_bytes).concat();
    for part in [
        &[1][..],
        &get_features[..11],
        // It speaks vhost-user, and so it is the VM, until it stops in the middle.
        &without_its_body,
    ] {
        let served = Served::new(Parts::default());
        let mut idle = UnixStream::connect(served.path()).unwrap();
        idle.write_all(part).unwrap();
        assert_serves(&served);
        drop(idle);
    }
}

#[test]
fn who_stops_in_the_middle_of_a_later_message_loses_the_connection() {
    let served = Served::new(Parts::default());
    let mut idle = UnixStream::connect(served.path()).unwrap();
    idle.write_all(&[3_u32, 1, 0].map(u32::to_le_bytes).concat())
        .unwrap();
    idle.write_all(&[1, 0, 0, 0, 1]).unwrap();
    idle.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    assert_serves(&served);
}

/// A pipe that is full, and blocks who writes.
fn full_pipe() -> (std::os::fd::OwnedFd, EventFd) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    // SAFETY: the descriptor is open, and it is handed over.
    (reader, unsafe {
        EventFd::from_raw_fd(writer.into_raw_fd())
    })
}

/// An eventfd that blocks, whose counter is full.
fn full_counter() -> EventFd {
    let event = EventFd::new(0).unwrap();
    event.write(u64::MAX - 1).unwrap();
    event
}

#[test]
fn events_that_block_do_not_keep_the_server() {
    let (_reader, pipe) = full_pipe();
    for call in [pipe, full_counter()] {
        let served = Served::new(Parts::default());
        let mut machine = Machine::boot(&served.path());
        assert_eq!(machine.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
        machine.frontend.set_vring_call(0, &call).unwrap();
        machine.frontend.set_vring_err(0, &call).unwrap();
        machine.post(&display_info());
        drop(machine);
        served.stop.shutdown();
        served.join().unwrap();
    }
}

/// A kick is readable, then somebody else reads it: a read that blocks would wait forever.
#[test]
fn a_kick_that_somebody_else_takes_does_not_stop_a_queue() {
    let served = Served::new(Parts::default());
    let mut machine = Machine::boot(&served.path());
    let own = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
    let passed = own.try_clone().unwrap();
    // SAFETY: the descriptor is open, and it is handed over.
    let kick = unsafe { EventFd::from_raw_fd(passed.into_raw_fd()) };
    machine.frontend.set_vring_kick(0, &kick).unwrap();
    let flags = || rustix::fs::fcntl_getfl(&own).unwrap();
    eventually("the kick does not block", || {
        flags().contains(rustix::fs::OFlags::NONBLOCK)
    });
    let ticket = machine.post(&display_info());
    kick.write(1).unwrap();
    eventually("the queue goes on", || machine.is_answered(ticket));
}

/// The pages that a mapping shows are gone, so touching them raises SIGBUS.
#[test]
fn a_vmm_that_shrinks_its_memory_loses_its_own_connection() {
    let served = Served::new(Parts::default());
    let mut machine = Machine::boot(&served.path());
    assert_eq!(machine.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
    let device = served.devices.recv_timeout(PATIENCE).unwrap();
    machine.shrink();
    machine.kick(0);
    eventually("the connection ends", || device.upgrade().is_none());
    assert!(machine.frontend.get_features().is_err());
    assert_serves(&served);
}
