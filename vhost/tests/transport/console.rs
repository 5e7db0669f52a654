//! The GPU socket. QEMU's end checks every byte.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::commands::{display_info, flush, set_scanout, show, transfer, update_cursor};
use crate::served::{Parts, Served};
use hesper_mock_frontend::{Machine, PATIENCE, PIXELS, word};
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

/// QEMU's end of the GPU socket.
struct Qemu(UnixStream);

impl Qemu {
    /// The next message: request and body.
    fn read(&mut self) -> (u32, Vec<u8>) {
        let mut header = [0; 12];
        self.0.read_exact(&mut header).unwrap();
        assert_eq!(word(&header, 4), 0, "flags");
        let mut body = vec![0; word(&header, 8) as usize];
        self.0.read_exact(&mut body).unwrap();
        (word(&header, 0), body)
    }

    fn expect(&mut self, request: u32) -> Vec<u8> {
        let (got, body) = self.read();
        assert_eq!(got, request);
        body
    }

    fn reply(&mut self, request: u32, body: &[u8]) {
        let mut message = [request, 4, body.len() as u32]
            .map(u32::to_ne_bytes)
            .concat();
        message.extend_from_slice(body);
        self.0.write_all(&message).unwrap();
    }

    fn handshake(&mut self, features: u64) {
        self.expect(1);
        self.reply(1, &features.to_ne_bytes());
        assert_eq!(self.expect(2), (features & 3).to_ne_bytes());
    }
}

/// Sends the GPU socket as QEMU does at DRIVER_OK. The front end cannot do that, so this writes to
/// the same socket while the front end is quiet.
fn give_socket(main: &UnixStream) -> Qemu {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [theirs.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let header = [33u32, 1, 0].map(u32::to_ne_bytes).concat();
    let slices = [std::io::IoSlice::new(&header)];
    sendmsg(main, &slices, &mut control, SendFlags::empty()).unwrap();
    Qemu(ours)
}

fn boot(in_qemu: bool) -> (Served, Machine, UnixStream) {
    let served = Served::new(Parts {
        in_qemu,
        ..Parts::default()
    });
    let stream = UnixStream::connect(served.path()).unwrap();
    let main = stream.try_clone().unwrap();
    let guest = Machine::boot_with(stream, 1 << 32);
    (served, guest, main)
}

/// `virtio_gpu_resp_display_info` with one display.
fn one_display(width: u32, height: u32) -> Vec<u8> {
    let mut info = vec![0; 408];
    for (place, value) in [(32, width), (36, height), (40, 1)] {
        info[place..place + 4].copy_from_slice(&value.to_ne_bytes());
    }
    info
}

#[test]
fn display_info_and_edid_are_those_of_qemu() {
    let (_served, mut guest, main) = boot(true);
    let mut qemu = give_socket(&main);
    qemu.handshake(3);
    let answering = std::thread::spawn(move || {
        qemu.expect(3);
        qemu.reply(3, &one_display(1111, 777));
        assert_eq!(qemu.expect(11), 0u32.to_ne_bytes());
        let mut edid = vec![0; 1056];
        edid[24] = 128;
        edid[32..160].fill(0xed);
        qemu.reply(11, &edid);
        qemu
    });
    let answer = guest.ask(&display_info());
    assert_eq!(answer.kind(), wire::RESP_OK_DISPLAY_INFO);
    assert_eq!((answer.word(32), answer.word(36)), (1111, 777));
    let answer = guest.ask(&Request::resource(wire::CMD_GET_EDID, 0));
    assert_eq!((answer.kind(), answer.word(24)), (0x1104, 128));
    assert!(answer.0[32..160].iter().all(|byte| *byte == 0xed));
    answering.join().unwrap();
}

#[test]
fn pixels_arrive_exactly_and_in_bounded_pieces() {
    let (_served, mut guest, main) = boot(true);
    let mut qemu = give_socket(&main);
    qemu.handshake(3);
    let (width, height) = (640u32, 400u32);
    let pixels: Vec<u8> = (0..width * height * 4)
        .map(|byte| (byte % 251) as u8)
        .collect();
    guest.write(PIXELS, &pixels);
    show(&mut guest, 1, width, height);
    // Its fence waits until the pixels were read, but not until QEMU takes them.
    assert_eq!(
        guest.code(&flush(1, 0, 0, width, height).fence(4)),
        wire::RESP_OK_NODATA
    );
    let scanout = qemu.expect(7);
    assert_eq!(
        [0, 4, 8].map(|place| word(&scanout, place)),
        [0, width, height]
    );
    let mut shown = Vec::new();
    let mut pieces = 0;
    while shown.len() < pixels.len() {
        let update = qemu.expect(8);
        let [scanout, x, y, w, h] = [0, 4, 8, 12, 16].map(|place| word(&update, place));
        assert_eq!((scanout, x, w), (0, 0, width));
        assert_eq!(y as usize * width as usize * 4, shown.len());
        assert_eq!(update.len(), 20 + (w * h * 4) as usize);
        assert!(update.len() <= 20 + (256 << 10));
        shown.extend_from_slice(&update[20..]);
        pieces += 1;
    }
    assert!(pieces > 1);
    assert_eq!(shown, pixels);

    // A part only.
    let flush = flush(1, 10, 20, 2, 1).fence(5);
    assert_eq!(guest.code(&flush), wire::RESP_OK_NODATA);
    let update = qemu.expect(8);
    assert_eq!(
        [0, 4, 8, 12, 16].map(|place| word(&update, place)),
        [0, 10, 20, 2, 1]
    );
    let from = (20 * width as usize + 10) * 4;
    assert_eq!(update[20..], pixels[from..from + 8]);

    assert_eq!(guest.code(&set_scanout(0, 0, 0, 0)), wire::RESP_OK_NODATA);
    let scanout = qemu.expect(7);
    assert_eq!([4, 8].map(|place| word(&scanout, place)), [0, 0]);
}

#[test]
fn the_cursor_arrives_with_image_hot_spot_and_position() {
    let (_served, mut guest, main) = boot(true);
    let mut qemu = give_socket(&main);
    qemu.handshake(3);
    let image: Vec<u8> = (0..64 * 64 * 4u32).map(|byte| (byte % 241) as u8).collect();
    guest.write(PIXELS, &image);
    // B8G8R8A8.
    let create = Request::create_2d(9, wire::FORMAT_B8G8R8A8, 64, 64);
    for command in [
        create,
        Request::attach_backing(9, &[(PIXELS, 64 * 64 * 4)]),
        transfer(9, 64, 64),
    ] {
        assert_eq!(guest.code(&command), wire::RESP_OK_NODATA);
    }
    let mut cursor = |command: &Request| {
        guest.offer(1, command, 64);
        guest.kick(1);
        guest.wait(1).unwrap();
    };
    cursor(&update_cursor(9, 100, 200, 5, 6));
    let update = qemu.expect(6);
    assert_eq!(
        [0, 4, 8, 12, 16].map(|place| word(&update, place)),
        [0, 100, 200, 5, 6]
    );
    assert_eq!(update[20..], image[..]);
    cursor(&Request::move_cursor(0, 101, 201));
    let moved = qemu.expect(4);
    assert_eq!([4, 8].map(|place| word(&moved, place)), [101, 201]);
    cursor(&update_cursor(0, 102, 202, 0, 0));
    qemu.expect(5);
}

#[test]
fn without_a_console_the_socket_is_answered_and_nothing_is_drawn() {
    let (_served, mut guest, main) = boot(false);
    let mut qemu = give_socket(&main);
    qemu.handshake(3);
    show(&mut guest, 1, 64, 64);
    assert_eq!(guest.code(&flush(1, 0, 0, 64, 64)), wire::RESP_OK_NODATA);
    qemu.0
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let error = qemu.0.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_qemu_that_takes_no_pixels_delays_neither_commands_nor_stopping() {
    let (_served, mut guest, main) = boot(true);
    let mut qemu = give_socket(&main);
    qemu.handshake(3);
    show(&mut guest, 1, 1024, 768);
    for fence in 0..20 {
        // A fenced flush is answered only when its pixels were read, at once or by the pause.
        let mut flush = flush(1, 0, 0, 1024, 768);
        if fence == 19 {
            flush = flush.fence(fence);
            guest.offer(0, &flush, 64);
            guest.kick(0);
        } else {
            assert_eq!(guest.code(&flush), wire::RESP_OK_NODATA);
        }
    }
    std::thread::sleep(Duration::from_millis(20));
    let start = Instant::now();
    let bases = guest.stop();
    assert!(start.elapsed() < Duration::from_millis(300));
    guest.start_at(bases);
    assert!(guest.wait(0).is_some(), "the held flush is answered");
}

#[test]
fn a_dead_or_wrong_socket_ends_only_the_console() {
    let (_served, mut guest, main) = boot(true);
    for _ in 0..2 {
        drop(give_socket(&main));
        show(&mut guest, 1, 64, 64);
        assert_eq!(guest.code(&flush(1, 0, 0, 64, 64)), wire::RESP_OK_NODATA);
        assert_eq!(guest.code(&Request::unref(1)), wire::RESP_OK_NODATA);
    }
    let mut wrong = give_socket(&main);
    wrong.expect(1);
    wrong.reply(99, &[0; 8]);
    assert_eq!(guest.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
    // The next socket works again, and is told what is on the screen.
    show(&mut guest, 2, 32, 16);
    assert_eq!(guest.code(&flush(2, 0, 0, 32, 16)), wire::RESP_OK_NODATA);
    let mut qemu = give_socket(&main);
    qemu.handshake(0);
    let scanout = qemu.expect(7);
    assert_eq!([4, 8].map(|place| word(&scanout, place)), [32, 16]);
    let update = qemu.expect(8);
    assert_eq!(update.len(), 20 + 32 * 16 * 4);
}
