//! Cross-domain contexts with a real compositor: a window, a keymap, the clipboard's pipes, and how
//! a wrong or a stalled context affects others.

mod client;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use hesper_mock_frontend::eventually;
use hesper_mock_venus::VenusGuest as _;
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::Served;
use crate::guest::Guest;
use crate::support::weston::{self, Weston};
use client::{CAPSET_CROSS_DOMAIN, Client};
use hesper_test_guest::cross_domain::*;

const WIDTH: u32 = 200;
const HEIGHT: u32 = 100;

/// A window that shows its pixels.
struct Window {
    surface: u32,
    buffer: u32,
    pixels: crate::guest::Mapped,
    size: u64,
}

impl Window {
    /// Opens a window of one colour, as a program that draws with the processor does.
    #[track_caller]
    fn open(client: &mut Client, colour: [u8; 3]) -> Self {
        let compositor = client.bind("wl_compositor", 1);
        let memory = client.bind("wl_shm", 1);
        let shell = client.bind("xdg_wm_base", 1);
        let (stride, size, object) = client.image(WIDTH, HEIGHT);
        assert!(stride >= WIDTH * 4 && size >= u64::from(stride * HEIGHT));
        let pixels = client.map(object, size);
        let pool = client.id();
        let body = [pool.to_le_bytes(), (size as u32).to_le_bytes()].concat();
        client.request(memory, 0, &body, &[(pixels.resource, BLOB)]);
        // wl_shm's number of XRGB8888 is 1.
        let buffer = client.make(pool, 0, &[0, WIDTH, HEIGHT, stride, 1]);
        let surface = client.make(compositor, 0, &[]);
        let shell_surface = client.make(shell, 2, &[surface]);
        client.make(shell_surface, 1, &[]);
        client.call(surface, 6, &[]);
        let configure = client.until(shell_surface, 0);
        client.call(shell_surface, 4, &[configure.word(0)]);
        let window = Self {
            surface,
            buffer,
            pixels,
            size,
        };
        window.show(client, colour);
        window
    }

    fn show(&self, client: &mut Client, [red, green, blue]: [u8; 3]) {
        let pixels = [blue, green, red, 0].repeat(self.size as usize / 4);
        let offset = self.pixels.offset;
        client.vm.machine().window().write(offset, &pixels);
        client.call(self.surface, 1, &[self.buffer, 0, 0]);
        client.call(self.surface, 2, &[0, 0, WIDTH, HEIGHT]);
        client.call(self.surface, 6, &[]);
        client.roundtrip();
    }
}

/// How many pixels of the compositor's monitor have a colour.
fn count(weston: &Weston, colour: [u8; 3]) -> usize {
    let picture = weston.picture();
    picture.iter().filter(|pixel| **pixel == colour).count()
}

#[test]
fn a_window_of_the_guest_is_on_the_hosts_monitor() {
    let weston = Weston::start();
    let served = Served::start_near(&weston.socket());
    let vm = served.boot();
    let mut client = Client::connect(&vm, 1);
    let colour = [0x12, 0xc4, 0x56];
    assert_eq!(count(&weston, colour), 0);
    let window = Window::open(&mut client, colour);
    eventually("the window is on the monitor", || {
        count(&weston, colour) == (WIDTH * HEIGHT) as usize
    });
    // The pages are the same: the compositor reads what the guest writes later.
    let other = [0xa0, 0x0b, 0x0c];
    window.show(&mut client, other);
    eventually("the window has the other colour", || {
        count(&weston, other) == (WIDTH * HEIGHT) as usize
    });
    // The program ends, and so does its window.
    vm.machine().ok(&Request::destroy_context(1));
    eventually("the window is gone", || count(&weston, other) == 0);
    assert!(weston::SIZE[0] * weston::SIZE[1] > (WIDTH * HEIGHT) as usize);
    drop(client);
    served.leaves_nothing(vm);
}

#[test]
fn venus_and_wayland_are_offered_in_one_device_and_both_work() {
    let weston = Weston::start();
    let served = Served::start_near(&weston.socket());
    let vm = served.boot();
    for (index, id) in [(0_u32, 4), (1, 5)] {
        let body = wire::GetCapsetInfo {
            index: index.into(),
            padding: 0.into(),
        };
        let request = Request::new(wire::CMD_GET_CAPSET_INFO, &body);
        let answer = vm.machine().ask(&request);
        assert_eq!(answer.kind(), wire::RESP_OK_CAPSET_INFO);
        assert_eq!(answer.word(24), id);
    }
    let body = wire::GetCapset {
        capset_id: 5.into(),
        version: 0.into(),
    };
    let capset = vm.machine().ask(&Request::new(wire::CMD_GET_CAPSET, &body));
    // Version 1, Wayland; no dma-bufs, no memory of a GPU.
    let words = [24, 28, 32, 36].map(|offset| capset.word(offset));
    assert_eq!(words, [1, 1 << 1, 0, 0]);

    let client = Client::connect(&vm, 1);
    assert!(client.globals.iter().any(|(_, name, _)| name == "wl_shm"));
    let guest = Guest::new(&vm, 2);
    guest.renders(&guest.gpu(), 0x1234_5678);
}

#[test]
fn the_keymap_of_the_compositor_can_be_read_by_the_guest() {
    let weston = Weston::start();
    let served = Served::start_near(&weston.socket());
    let vm = served.boot();
    let mut client = Client::connect(&vm, 1);
    let seat = client.bind("wl_seat", 5);
    let keyboard = client.make(seat, 1, &[]);
    let keymap = client.until(keyboard, 0);
    let size = keymap.word(1);
    let [file] = client.descriptors[..] else {
        panic!("one descriptor comes: {:?}", client.descriptors);
    };
    assert_eq!(file.kind, BLOB);
    assert!(file.size >= size);
    let mapped = client.map(file.id, u64::from(size).next_multiple_of(4096));
    let text = vm.machine().window().read(mapped.offset, size as usize);
    assert!(text.starts_with(b"xkb_keymap"), "{:?}", &text[..20]);
    assert_eq!(text.last(), Some(&0));
    // More than the file has is refused: touching it would kill the process.
    let resource = vm.machine().resource();
    let more = Request::host_blob(1, resource, file.id.into(), 1 << 20);
    assert_ne!(vm.machine().code(&more), wire::RESP_OK_NODATA);
    client.roundtrip();
}

#[test]
fn the_clipboards_pipes_pass_in_both_directions() {
    let weston = Weston::start();
    let served = Served::start_near(&weston.socket());
    let vm = served.boot();
    let mut client = Client::connect(&vm, 1);
    let seat = client.bind("wl_seat", 5);
    let keyboard = client.make(seat, 1, &[]);
    let manager = client.bind("wl_data_device_manager", 1);
    let device = client.make(manager, 1, &[seat]);
    Window::open(&mut client, [1, 2, 3]);
    let enter = client.until_past(keyboard, 1);
    let source = client.make(manager, 0, &[]);
    client.request(source, 0, &string("text/plain"), &[]);
    client.call(device, 1, &[source, enter.word(0)]);
    let offer = client.until(device, 0).word(0);
    // The compositor's end of this pipe goes to the owner of the text, which is this test.
    client.descriptors.clear();
    let pipe = 0x8000_0001;
    client.request(offer, 1, &string("text/plain"), &[(pipe, READ_PIPE)]);
    client.until(source, 1);
    let [ours] = client.descriptors[..] else {
        panic!("one descriptor comes: {:?}", client.descriptors);
    };
    assert_eq!(ours.kind, WRITE_PIPE);
    let text = b"copied in the guest";
    let head = [ours.id, 1, text.len() as u32, 0].map(u32::to_le_bytes);
    client.submit(&command(WRITE, &[&head.concat(), &text[..]].concat()));
    while !client.pipes.iter().any(|(_, _, end)| *end) {
        client.events();
    }
    let got: Vec<u8> = client
        .pipes
        .iter()
        .flat_map(|(_, bytes, _)| bytes.clone())
        .collect();
    assert_eq!(got, text);
    assert!(client.pipes.iter().all(|(id, _, _)| *id == pipe));
}

#[test]
fn the_guest_is_told_of_wayland_only_if_that_is_asked_for() {
    let served = Served::start();
    let vm = served.boot();
    let request = Request::create_context(1, CAPSET_CROSS_DOMAIN, "");
    let code = vm.machine().code(&request);
    assert_eq!(code, wire::RESP_ERR_INVALID_PARAMETER);
    Guest::new(&vm, 2).version();
}

#[test]
fn wrong_commands_end_their_context_and_no_other() {
    let weston = Weston::start();
    let served = Served::start_near(&weston.socket());
    let vm = served.boot();
    let mut good = Client::connect(&vm, 1);
    let guest = Guest::new(&vm, 2);
    let endless = vec![POLL, 0, 0, 0, 0, 0, 0, 0];
    let unknown = command(77, &[]);
    let nowhere = command(INIT, &[0xff; 12]);
    let short = vec![INIT, 0, 20];
    let resource = command(SEND, &[&[1_u8, 0, 0, 0][..], &[1; 340]].concat());
    let wrong = [endless, unknown, nowhere, short, resource];
    for (context, wrong) in (3..).zip(wrong) {
        let mut bad = Client::new(&vm, context);
        let first = bad.submit(&wrong);
        // A broken context still answers; no chain is lost.
        let fence = bad.submit_fenced(&[], 0);
        let poll = bad.submit_fenced(&command(POLL, &[]), 1);
        for ticket in [first, fence, poll] {
            vm.machine().answer(ticket);
        }
        served.says(&format!(
            "cross-domain context {context} (\"wayland\") is lost"
        ));
        let blob = vm.machine().resource();
        let request = Request::host_blob(context, blob, 2, 4096);
        assert_ne!(vm.machine().code(&request), wire::RESP_OK_NODATA);
    }
    // If it connected twice, the library would never end.
    let mut twice = Client::connect(&vm, 20);
    twice.submit(&twice.init());
    let fence = twice.submit_fenced(&[], 0);
    vm.machine().answer(fence);
    served.says("initialised twice");
    good.roundtrip();
    guest.version();
    for context in (1..8).chain([20]) {
        vm.machine().ok(&Request::destroy_context(context));
    }
    drop((good, guest, twice));
    served.leaves_nothing(vm);
}

#[test]
fn a_compositor_that_does_not_read_stalls_its_client_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wayland-0");
    let listener = UnixListener::bind(&socket).unwrap();
    let served = Served::start_near(&socket);
    // Hesper checked whether a compositor is there.
    drop(listener.accept().unwrap());
    let vm = served.boot();
    let mut stalled = Client::new(&vm, 1);
    stalled.submit(&stalled.init());
    let (mut connection, _) = listener.accept().unwrap();
    // More than a socket holds.
    let message = [7; 4096];
    for _ in 0..400 {
        stalled.send(&message, &[]);
    }
    let open = stalled.submit_fenced(&[], 0);
    let mut other = Client::new(&vm, 2);
    other.submit(&other.init());
    let passed = other.submit_fenced(&[], 0);
    vm.machine().answer(passed);
    let guest = Guest::new(&vm, 3);
    guest.renders(&guest.gpu(), 0xabcd);
    assert!(!vm.machine().is_answered(open), "it was not stalled at all");
    // The compositor reads again, and everything is there.
    let mut bytes = vec![0; 400 * message.len()];
    connection.read_exact(&mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
    vm.machine().answer(open);
    for context in [1, 2, 3] {
        vm.machine().ok(&Request::destroy_context(context));
    }
    drop((stalled, other, guest));
    served.leaves_nothing(vm);
}

#[test]
fn what_waits_for_a_compositor_that_does_not_read_has_a_limit_and_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wayland-0");
    let listener = UnixListener::bind(&socket).unwrap();
    let served = Served::start_near(&socket);
    drop(listener.accept().unwrap());
    let vm = served.boot();
    let mut flood = Client::new(&vm, 1);
    flood.submit(&flood.init());
    let (connection, _) = listener.accept().unwrap();
    let poll = flood.submit_fenced(&command(POLL, &[]), 1);
    let megabyte = send(&[7; 60_000], &[]).repeat(17);
    for _ in 0..64 {
        let taken = flood.submit(&megabyte);
        vm.machine().answer(taken);
    }
    assert!(!vm.machine().is_answered(poll));
    for _ in 0..8 {
        let taken = flood.submit(&megabyte);
        vm.machine().answer(taken);
    }
    served.says("more than 64 MiB wait for it");
    vm.machine().answer(poll);
    vm.machine().ok(&Request::destroy_context(1));
    drop(flood);
    // Its thread is in the library until the compositor ends.
    drop((connection, listener));
    served.leaves_nothing(vm);
}

#[test]
fn a_descriptor_that_cannot_pass_ends_its_context_and_retires_its_fences() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wayland-0");
    let listener = UnixListener::bind(&socket).unwrap();
    let served = Served::start_near(&socket);
    drop(listener.accept().unwrap());
    let vm = served.boot();
    let mut client = Client::new(&vm, 1);
    client.submit(&client.init());
    let (mut connection, _) = listener.accept().unwrap();
    let first = client.submit_fenced(&command(POLL, &[]), 1);
    connection.write_all(b"a message").unwrap();
    vm.machine().answer(first);
    let poll = client.submit_fenced(&command(POLL, &[]), 1);
    // A guest must not get the reading end of a pipe.
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let readers = [reader.as_fd()];
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&readers));
    let bytes = [std::io::IoSlice::new(b"with a pipe")];
    let flags = rustix::net::SendFlags::empty();
    rustix::net::sendmsg(&connection, &bytes, &mut control, flags).unwrap();
    vm.machine().answer(poll);
    served.says("gave up the connection to the compositor");
    // Later ones do not wait.
    let later = client.submit_fenced(&command(POLL, &[]), 1);
    vm.machine().answer(later);
    vm.machine().ok(&Request::destroy_context(1));
    drop(client);
    served.leaves_nothing(vm);
}

#[test]
fn when_the_compositor_dies_its_clients_are_told_and_venus_goes_on() {
    let mut weston = Weston::start();
    let served = Served::start_near(&weston.socket());
    let vm = served.boot();
    let guest = Guest::new(&vm, 2);
    let mut client = Client::connect(&vm, 1);
    let poll = client.submit_fenced(&command(POLL, &[]), 1);
    weston.process.kill();
    // The program's wait ends, whether the library sees an end or an error.
    vm.machine().answer(poll);
    guest.version();
    vm.machine().ok(&Request::destroy_context(1));
    drop((client, guest));
    served.leaves_nothing(vm);
}
