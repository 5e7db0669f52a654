//! Messages as they arrive on sockets: in pieces, with descriptors, wrong.

use std::io::{IoSlice, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use zerocopy::IntoBytes;

use hesper_system::guest_memory::Owner;

use super::super::wire::{Header, MAX_BODY, MAX_FDS, NEED_REPLY, REPLY, VERSION, request};
use super::receive::{Message, ReceiveError};

fn header(request: u32, flags: u32, size: u32) -> Header {
    Header {
        request,
        flags,
        size,
    }
}

/// Sends bytes, with `descriptors` descriptors attached to the first of them.
fn send(stream: &UnixStream, bytes: &[u8], descriptors: usize) {
    let null = std::fs::File::open("/dev/null").unwrap();
    let fds = vec![null.as_fd(); descriptors];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptors > 0 {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::empty(),
    );
    assert_eq!(sent.unwrap(), bytes.len());
}

fn receive(stream: &UnixStream) -> Result<Message, ReceiveError> {
    Message::receive(stream, None)
}

#[test]
fn a_message_that_comes_in_pieces_is_whole() {
    let (near, far) = UnixStream::pair().unwrap();
    let sender = std::thread::spawn(move || {
        let head = header(request::SET_FEATURES, VERSION | NEED_REPLY, 8);
        for byte in [head.as_bytes(), &7_u64.to_ne_bytes()].concat() {
            send(&far, &[byte], 0);
            std::thread::yield_now();
        }
    });
    let message = receive(&near).unwrap();
    assert_eq!(
        message.header,
        header(request::SET_FEATURES, VERSION | NEED_REPLY, 8)
    );
    assert_eq!(message.body, 7_u64.to_ne_bytes());
    assert!(message.fds.is_empty());
    sender.join().unwrap();
    assert!(matches!(receive(&near), Err(ReceiveError::Closed)));
}

/// The rest of a message, and a message of the handshake, have deadlines.
#[test]
fn a_message_that_does_not_come_in_time_is_late() {
    let (near, far) = UnixStream::pair().unwrap();
    let soon = Duration::from_millis(10);
    let late = Message::receive(&near, Some(soon)).unwrap_err();
    assert!(late.to_string().contains("the next message"), "{late}");
    // What is there, or a peer that has gone, is no matter of time.
    send(&far, header(request::SET_OWNER, VERSION, 0).as_bytes(), 0);
    Message::receive(&near, Some(Duration::ZERO)).unwrap();
    drop(far);
    let gone = Message::receive(&near, Some(soon)).unwrap_err();
    assert!(matches!(gone, ReceiveError::Closed), "{gone}");
}

#[test]
fn descriptors_belong_to_their_message_and_are_closed_at_an_execution() {
    let (near, far) = UnixStream::pair().unwrap();
    let empty = header(request::SET_OWNER, VERSION, 0);
    send(
        &far,
        header(request::SET_MEM_TABLE, VERSION, 4).as_bytes(),
        3,
    );
    send(&far, &[1, 2, 3, 4], 0);
    // The next message is in the socket's buffer before the first is read.
    send(&far, empty.as_bytes(), 0);
    let first = receive(&near).unwrap();
    assert_eq!(
        (first.body.as_slice(), first.fds.len()),
        (&[1, 2, 3, 4][..], 3)
    );
    for fd in &first.fds {
        assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
    }
    let second = receive(&near).unwrap();
    assert_eq!((second.header, second.fds.len()), (empty, 0));
}

#[test]
fn a_message_without_its_end_is_the_end() {
    for bytes in [4, 12, 19] {
        let (near, mut far) = UnixStream::pair().unwrap();
        let head = header(request::SET_FEATURES, VERSION, 8);
        let whole = [head.as_bytes(), &7_u64.to_ne_bytes()].concat();
        far.write_all(&whole[..bytes]).unwrap();
        drop(far);
        assert!(
            matches!(receive(&near), Err(ReceiveError::Closed)),
            "{bytes}"
        );
    }
}

#[test]
fn what_is_no_request_is_refused_by_name() {
    let refused = |head: Header, descriptors| {
        let (near, far) = UnixStream::pair().unwrap();
        send(&far, head.as_bytes(), descriptors);
        receive(&near).unwrap_err().to_string()
    };
    let too_long = u32::try_from(MAX_BODY).unwrap() + 1;
    for (head, descriptors, words) in [
        (header(request::SET_OWNER, 0, 0), 0, "SET_OWNER (code 3)"),
        (header(request::SET_OWNER, 2, 0), 0, "flags 0x2"),
        (
            header(request::GET_FEATURES, VERSION | REPLY, 0),
            0,
            "no answer",
        ),
        (header(request::SET_CONFIG, VERSION, too_long), 0, "4097"),
        (
            header(request::SET_MEM_TABLE, VERSION, u32::MAX),
            0,
            "SET_MEM_TABLE",
        ),
        (
            header(99, VERSION, too_long),
            0,
            "an unknown request (code 99)",
        ),
        (
            header(request::SET_MEM_TABLE, VERSION, 8),
            MAX_FDS + 1,
            "more than 32",
        ),
    ] {
        let error = refused(head, descriptors);
        assert!(error.contains(words), "{error}");
    }
}

/// A stream of messages of any kind: each is answered or ends the connection, and the next VM is
/// served.
mod any_stream {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::super::GpuBackend;
    use super::super::super::model::{Gpu, Model};
    use super::super::serve;
    use super::*;
    use crate::device::{Device, DeviceOptions};
    use crate::screen::NoScreen;

    fn model() -> Arc<dyn Model> {
        let options = DeviceOptions {
            monitors: Vec::new(),
            host_visible_size: 1 << 20,
            blob_alignment: 4096,
        };
        Gpu::new(GpuBackend {
            device: Arc::new(Device::new(options, Arc::new(NoScreen), Vec::new())),
            host_visible_size: 1 << 20,
            console: None,
        })
    }

    #[derive(Clone, Debug)]
    struct Sent {
        code: u32,
        acknowledged: bool,
        words: Vec<u32>,
        descriptors: usize,
    }

    fn sent() -> impl Strategy<Value = Sent> {
        // Small numbers are valid queues, switches, sizes and offsets.
        let word = prop_oneof![4 => 0..4_u32, 2 => Just(64), 1 => Just(4096), 1 => any::<u32>()];
        let words = prop_oneof![
            1 => prop::collection::vec(word.clone(), 0..=20),
            2 => prop::collection::vec(word, 2),
        ];
        (0..50_u32, any::<bool>(), words, 0..3_usize).prop_map(
            |(code, acknowledged, words, descriptors)| Sent {
                code,
                acknowledged,
                words,
                descriptors,
            },
        )
    }

    fn write(stream: &UnixStream, message: &Sent, file: &File) {
        let body: Vec<u8> = message
            .words
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let flags = VERSION | if message.acknowledged { NEED_REPLY } else { 0 };
        let size = u32::try_from(body.len()).unwrap();
        let bytes = [header(message.code, flags, size).as_bytes(), &body].concat();
        let fds = vec![file.as_fd(); message.descriptors];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let slices = [IoSlice::new(&bytes)];
        // This fails once the other side has closed the connection.
        let _ = sendmsg(stream, &slices, &mut control, SendFlags::empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
        #[test]
        fn is_served_or_refused(messages in prop::collection::vec(sent(), 1..30), agreed in any::<bool>()) {
            let (near, far) = UnixStream::pair().unwrap();
            let file = tempfile::tempfile().unwrap();
            file.set_len(1 << 20).unwrap();
            let mut answers = far.try_clone().unwrap();
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                // What comes before an abortive end does not matter.
                let _ = answers.read_to_end(&mut all);
                all.len()
            });
            let server = std::thread::spawn(move || {
                let owner = Owner::new(&near).unwrap();
                serve(&near, &owner, &mut || model())
            });
            if agreed {
                // Otherwise most of what follows belongs to features that were not accepted.
                let features = crate::transport::features::protocol::OFFERED;
                for (code, value) in [(request::SET_FEATURES, 1_u64 << 30), (request::SET_PROTOCOL_FEATURES, features)] {
                    let words = [value as u32, (value >> 32) as u32].to_vec();
                    write(&far, &Sent { code, acknowledged: false, words, descriptors: 0 }, &file);
                }
            }
            for message in &messages {
                write(&far, message, &file);
            }
            far.shutdown(std::net::Shutdown::Write).unwrap();
            match server.join().unwrap() {
                Ok(()) | Err(crate::transport::Error::Protocol(_)) => {}
                Err(other) => panic!("{other}"),
            }
            drop(far);
            reader.join().unwrap();
        }
    }
}
