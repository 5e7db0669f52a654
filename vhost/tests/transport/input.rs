//! Input devices behind real sockets.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use hesper_vhost::input::{Event, InputDevice, Kind, Leds};
use hesper_vhost::transport::{Error, Server, ShutdownHandle};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

use hesper_mock_frontend::{Machine, PATIENCE, eventually};

const A: u16 = 30;

/// A served keyboard.
struct Keyboard {
    folder: tempfile::TempDir,
    stop: ShutdownHandle,
    devices: Receiver<Weak<InputDevice>>,
    leds: Receiver<Leds>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Keyboard {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::bind(&folder.path().join("keyboard.sock")).unwrap();
        let stop = server.shutdown_handle();
        let (sender, devices) = channel();
        let (led_sender, leds) = channel();
        let thread = std::thread::spawn(move || {
            server.serve_input(&mut || {
                let leds = led_sender.clone();
                let on_leds = Box::new(move |now| leds.send(now).unwrap());
                let device = Arc::new(InputDevice::new(Kind::Keyboard, on_leds));
                sender.send(Arc::downgrade(&device)).unwrap();
                device
            })
        });
        Self {
            folder,
            stop,
            devices,
            leds,
            thread: Some(thread),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("keyboard.sock")
    }

    fn device(&self) -> Arc<InputDevice> {
        let device = self.devices.recv_timeout(PATIENCE).unwrap();
        device.upgrade().expect("the connection still stands")
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.stop.shutdown();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap().unwrap();
        }
    }
}

/// Puts `count` buffers of an event's size on the event queue.
fn offer(guest: &mut Machine, count: usize) {
    for _ in 0..count {
        guest.offer(0, Vec::new(), 8);
    }
    guest.kick(0);
}

#[track_caller]
fn expect(guest: &mut Machine, expected: &[Event]) {
    for event in expected {
        let (_, bytes) = guest.wait(0).expect("an event within 5 s");
        assert_eq!(Event::from_bytes(bytes.0.try_into().unwrap()), *event);
    }
    std::thread::sleep(Duration::from_millis(5));
    assert!(guest.try_next(0).is_none());
}

#[test]
fn a_guest_reads_the_config_space_and_gets_whole_reports_through_four_buffers() {
    let served = Keyboard::new();
    let mut guest = Machine::boot(&served.path());
    let device = served.device();
    // As QEMU does: the whole space is written, then read.
    let mut space = [0; 136];
    space[0] = 1;
    let flags = VhostUserConfigFlags::empty();
    guest.frontend.set_config(0, flags, &space).unwrap();
    let (_, answer) = guest.frontend.get_config(0, 136, flags, &[0; 136]).unwrap();
    assert_eq!(answer[2], 15);
    assert_eq!(&answer[8..23], b"Hesper Keyboard");

    device.report(&[Event::key(A, true)]);
    device.report(&[Event::key(A, false)]);
    device.report(&[Event::key(A, true)]);
    offer(&mut guest, 4);
    let tap = [
        Event::key(A, true),
        Event::SYN,
        Event::key(A, false),
        Event::SYN,
    ];
    expect(&mut guest, &tap);
    offer(&mut guest, 4);
    expect(&mut guest, &tap[..2]);
    // Buffers wait for an event now, instead of events for a buffer.
    device.report(&[Event::key(A, false)]);
    expect(&mut guest, &tap[2..]);

    let caps = [0x11, 0, 1, 0, 1, 0, 0, 0];
    guest.offer(1, caps, 0);
    guest.kick(1);
    guest.wait(1).expect("the status buffer comes back");
    let leds = served.leds.recv_timeout(PATIENCE).unwrap();
    assert!(leds.caps && !leds.num);
}

#[test]
fn a_paused_vm_finds_its_buffers_again_and_a_driver_that_starts_anew_a_reset_device() {
    let served = Keyboard::new();
    let mut guest = Machine::boot(&served.path());
    let device = served.device();
    offer(&mut guest, 3);
    device.report(&[Event::key(A, true)]);
    expect(&mut guest, &[Event::key(A, true), Event::SYN]);
    let bases = guest.stop();
    assert_eq!(bases, [2, 0], "the third buffer is still the guest's");
    device.report(&[Event::key(A, false)]);
    guest.start_at(bases);
    expect(&mut guest, &[Event::key(A, false)]);

    // The driver is loaded anew in the middle of that report. It never sees the rest.
    guest.stop();
    device.report(&[Event::key(A, true)]);
    guest.start();
    offer(&mut guest, 4);
    expect(&mut guest, &[Event::key(A, true), Event::SYN]);
}

#[test]
fn a_vm_that_goes_takes_its_device_and_the_next_gets_another() {
    let served = Keyboard::new();
    let first = Machine::boot(&served.path());
    let device = served.devices.recv().unwrap();
    drop(first);
    eventually("the device is dropped", || device.upgrade().is_none());
    let mut second = Machine::boot(&served.path());
    let device = served.device();
    offer(&mut second, 2);
    device.report(&[Event::key(A, true)]);
    expect(&mut second, &[Event::key(A, true), Event::SYN]);
    served.stop.shutdown();
    let thread = served.thread.as_ref().unwrap();
    eventually("the server ends", || thread.is_finished());
}
