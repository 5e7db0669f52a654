//! VMMs that break the protocol lose their connection. The server goes on.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::commands::display_info;
use crate::served::{Parts, Served};
use hesper_mock_frontend::{Machine, PATIENCE};
use hesper_vhost::wire;

fn message(request: u32, flags: u32, size: u32, body: &[u8]) -> Vec<u8> {
    [
        &request.to_ne_bytes()[..],
        &flags.to_ne_bytes(),
        &size.to_ne_bytes(),
        body,
    ]
    .concat()
}

fn request(code: u32, body: &[u8]) -> Vec<u8> {
    message(code, 1, body.len() as u32, body)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Sends `bytes` with copies of a descriptor that is no socket, then waits for the end of the
/// connection.
fn assert_ends(stream: &UnixStream, bytes: &[u8], descriptors: usize, what: &str) {
    let null = std::fs::File::open("/dev/null").unwrap();
    let fds = vec![null.as_fd(); descriptors];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptors > 0 {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    let slices = [std::io::IoSlice::new(bytes)];
    sendmsg(stream, &slices, &mut control, SendFlags::empty()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    match (&*stream).read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{what}: the connection stands: {error}"),
    }
}

#[test]
fn garbage_ends_the_connection_not_the_server() {
    let served = Served::new(Parts::default());
    let full = vec![0xff; 4096];
    let cases: &[(&str, Vec<u8>, usize)] = &[
        ("ones", full.clone(), 0),
        ("zeros", vec![0; 4096], 0),
        ("text", b"GET / HTTP/1.1\r\nHost: gpu\r\n\r\n".to_vec(), 0),
        ("unknown request", request(99, &[]), 0),
        ("wrong version", message(1, 2, 0, &[]), 0),
        ("reply instead of a request", message(1, 5, 0, &[]), 0),
        ("body where there is none", request(1, &[0; 8]), 0),
        ("oversized", message(2, 1, 1 << 30, &full), 0),
        ("short features", request(2, &[0; 4]), 0),
        ("features never offered", request(2, &[0xff; 8]), 0),
        ("queue 2", request(8, &words(&[2, 64])), 0),
        ("queue 0xffffffff", request(11, &words(&[u32::MAX, 0])), 0),
        ("queue size 3", request(8, &words(&[0, 3])), 0),
        ("queue size 64 Ki", request(8, &words(&[0, 1 << 16])), 0),
        ("queue base", request(10, &words(&[0, 1 << 16])), 0),
        ("ring without memory", request(9, &[0; 40]), 0),
        ("kick without descriptor", request(12, &[0; 8]), 0),
        ("two kicks", request(12, &[0; 8]), 2),
        ("memory without descriptor", request(5, &words(&[1; 10])), 0),
        ("regions without number", request(5, &[0; 8]), 0),
        ("33 regions", request(5, &words(&[33, 0])), 0),
        ("backend channel unasked for", request(21, &[]), 1),
        ("gpu socket without descriptor", request(33, &[]), 0),
        ("gpu socket that is none", request(33, &[]), 1),
        ("gpu sockets", request(33, &[]), 3),
        ("descriptors nobody asked for", request(1, &[]), 1),
        ("memory slots", request(36, &[]), 0),
        ("inflight", request(31, &[0; 24]), 0),
        ("log", request(6, &[0; 16]), 1),
    ];
    for (what, bytes, descriptors) in cases {
        let stream = UnixStream::connect(served.path()).unwrap();
        assert_ends(&stream, bytes, *descriptors, what);
    }
    // A header in pieces, and one that never ends.
    let mut stream = UnixStream::connect(served.path()).unwrap();
    for byte in request(1, &[]) {
        stream.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut reply = [0; 20];
    stream.read_exact(&mut reply).unwrap();
    stream.write_all(&[1, 0]).unwrap();
    drop(stream);

    let mut guest = Machine::boot(&served.path());
    assert_eq!(guest.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
}

#[test]
fn a_memory_table_that_lies_ends_the_connection() {
    let served = Served::new(Parts::default());
    let region = |guest: u64, size: u64, vmm: u64, offset: u64| {
        let mut body = words(&[1, 0]);
        for field in [guest, size, vmm, offset] {
            body.extend(field.to_ne_bytes());
        }
        request(5, &body)
    };
    for (what, bytes) in [
        ("no bytes", region(0, 0, 0, 0)),
        ("more than the file", region(0, 1 << 20, 0, 0)),
        ("wraps in the guest", region(u64::MAX - 4095, 8192, 0, 0)),
        ("wraps in the VMM", region(0, 8192, u64::MAX - 4095, 0)),
        ("wraps in the file", region(0, 8192, 0, u64::MAX - 4095)),
        ("odd offset", region(0, 4096, 0, 123)),
        ("larger than any address space", region(0, 1 << 62, 0, 0)),
    ] {
        let stream = UnixStream::connect(served.path()).unwrap();
        assert_ends(&stream, &bytes, 1, what);
    }
    let mut guest = Machine::boot(&served.path());
    assert_eq!(guest.code(&display_info()), wire::RESP_OK_DISPLAY_INFO);
}
