//! Tests of the channel, with both ends in this process.

use std::io::Write;
use std::thread;

use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::SendFlags;

use super::*;
use crate::isolation::message::{FromWorker, Piece, ToWorker};
use hesper_venus::Caching;

fn pair() -> (Arc<UnixStream>, Arc<UnixStream>) {
    let (near, far) = UnixStream::pair().unwrap();
    (Arc::new(near), Arc::new(far))
}

/// A file with this text.
fn file(text: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.into()
}

fn text(fd: OwnedFd) -> String {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::from(fd);
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn attach(resource: u32) -> ToWorker {
    let memory = Piece {
        offset: 0,
        size: 4096,
        caching: Caching::Cached,
    };
    ToWorker::Attach { resource, memory }
}

fn next(receiver: &mut Receiver) -> (ToWorker, Vec<OwnedFd>) {
    receiver.receive().unwrap().decode().unwrap()
}

#[test]
fn each_frame_gets_its_own_descriptors() {
    let (near, far) = pair();
    let sender = Sender::new(near);
    for number in 0..100 {
        sender
            .send(&ToWorker::Fence { ring: 1, fence: 7 }, &[])
            .unwrap();
        let file = file(&number.to_string());
        sender.send(&attach(number), &[file.as_fd()]).unwrap();
    }
    sender.send(&ToWorker::End, &[]).unwrap();
    drop(sender);
    let mut receiver = Receiver::new(far, LARGEST_TO_WORKER);
    for number in 0..100 {
        assert!(matches!(next(&mut receiver).0, ToWorker::Fence { .. }));
        let (message, mut fds) = next(&mut receiver);
        assert_eq!(message, attach(number));
        let fd = fds.pop().unwrap();
        assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(text(fd), number.to_string());
    }
    assert_eq!(next(&mut receiver).0, ToWorker::End);
    assert!(matches!(receiver.receive(), Err(ReceiveError::Closed)));
}

#[test]
fn many_small_frames_come_with_one_read() {
    let (near, far) = pair();
    let sender = Sender::new(near);
    for fence in 0..50 {
        let message = ToWorker::Fence { ring: 0, fence };
        sender.send(&message, &[]).unwrap();
    }
    let mut receiver = Receiver::new(far, LARGEST_TO_WORKER);
    next(&mut receiver);
    assert!(receiver.end - receiver.begin >= 49 * (HEADER + 9));
    for fence in 1..50 {
        let message = ToWorker::Fence { ring: 0, fence };
        assert_eq!(next(&mut receiver).0, message);
    }
    assert!(receiver.try_receive().unwrap().is_none());
}

#[test]
fn batches_of_all_sizes_come_whole_between_others() {
    let (near, far) = pair();
    let sizes = [
        0,
        1,
        4096,
        BUFFER - HEADER,
        BUFFER,
        BUFFER + 1,
        300_000,
        9 << 20,
    ];
    let batch = |size: usize| {
        (0..size)
            .map(|at| (at * 31 + size) as u8)
            .collect::<Vec<_>>()
    };
    let sending = thread::spawn(move || {
        let sender = Sender::new(near);
        for size in sizes {
            sender.send(&ToWorker::Submit(batch(size)), &[]).unwrap();
            let file = file("x");
            sender.send(&attach(1), &[file.as_fd()]).unwrap();
        }
    });
    let mut receiver = Receiver::new(far, LARGEST_TO_WORKER);
    for size in sizes {
        assert_eq!(next(&mut receiver).0, ToWorker::Submit(batch(size)));
        let (message, fds) = next(&mut receiver);
        assert_eq!((message, fds.len()), (attach(1), 1));
    }
    sending.join().unwrap();
}

#[test]
fn what_a_full_socket_does_not_take_waits_and_arrives() {
    let (near, far) = pair();
    let mut outbox = Outbox::new(near);
    let mut count = 0_u32;
    // The last of these is sent in part.
    while outbox
        .send(ToWorker::Submit(vec![count as u8; 50_000]), &[])
        .unwrap()
    {
        count += 1;
    }
    assert_eq!(outbox.messages(), 1);
    assert!(outbox.bytes() <= 50_000 + HEADER);
    let file = file("kept");
    assert!(!outbox.send(attach(5), &[file.as_fd()]).unwrap());
    drop(file);
    assert!(!outbox.flush().unwrap());
    let mut receiver = Receiver::new(far, LARGEST_TO_WORKER);
    for number in 0..=count {
        let (message, _) = loop {
            if let Some(frame) = receiver.try_receive().unwrap() {
                break frame.decode::<ToWorker>().unwrap();
            }
            outbox.flush().unwrap();
        };
        assert_eq!(message, ToWorker::Submit(vec![number as u8; 50_000]));
    }
    assert!(outbox.flush().unwrap());
    assert_eq!((outbox.messages(), outbox.bytes()), (0, 0));
    let (message, mut fds) = next(&mut receiver);
    assert_eq!(message, attach(5));
    assert_eq!(text(fds.pop().unwrap()), "kept");
}

#[test]
fn a_sender_waits_for_a_slow_reader() {
    let (near, far) = pair();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let sending = thread::spawn(move || {
        let sender = Sender::new(near);
        for _ in 0..50 {
            sender
                .send(&ToWorker::Submit(vec![7; 100_000]), &[])
                .unwrap();
        }
    });
    let mut receiver = Receiver::new(far, LARGEST_TO_WORKER);
    for _ in 0..50 {
        assert_eq!(next(&mut receiver).0, ToWorker::Submit(vec![7; 100_000]));
    }
    sending.join().unwrap();
}

/// Sends these bytes with these descriptors and returns what is received.
fn received(parts: &[(&[u8], usize)]) -> ReceiveError {
    let (near, far) = pair();
    let file = file("");
    for (bytes, fds) in parts {
        let fds = vec![file.as_fd(); *fds];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        sendmsg(
            &near,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
    }
    drop(near);
    let mut receiver = Receiver::new(far, LARGEST_FROM_WORKER);
    loop {
        match receiver.receive() {
            Ok(frame) => drop(frame),
            Err(error) => return error,
        }
    }
}

#[test]
fn a_frame_that_breaks_the_rules_is_an_error() {
    let wrong = |parts: &[(&[u8], usize)]| match received(parts) {
        ReceiveError::Header { .. } => "header",
        ReceiveError::Descriptors => "descriptors",
        ReceiveError::Closed => "closed",
        _ => "other",
    };
    // A frame as it should be, and its end.
    assert_eq!(wrong(&[(&[0, 0, 0, 0, 0, 0, 44, 0], 0)]), "closed");
    assert_eq!(wrong(&[(&[0, 0, 0, 0, 1, 0, 44, 0], 1)]), "closed");
    assert_eq!(wrong(&[(&[1, 0, 0, 0, 0, 0, 44, 0], 0)]), "closed");
    assert_eq!(wrong(&[(&[1, 0, 1, 0, 0, 0, 44, 0], 0)]), "header");
    assert_eq!(wrong(&[(&[0, 0, 0, 0, 0, 0, 44, 1], 0)]), "header");
    assert_eq!(wrong(&[(&[0, 0, 0, 0, 17, 0, 44, 0], 0)]), "header");
    // Too few, too many, and more than fit.
    assert_eq!(wrong(&[(&[0, 0, 0, 0, 2, 0, 44, 0], 1)]), "descriptors");
    assert_eq!(wrong(&[(&[0, 0, 0, 0, 0, 0, 44, 0], 1)]), "descriptors");
    assert_eq!(wrong(&[(&[0, 0, 0, 0, 16, 0, 44, 0], 30)]), "descriptors");
    // Not even a header is whole.
    let many: [(&[u8], usize); 7] = [(&[0], 16); 7];
    assert_eq!(wrong(&many), "descriptors");
}

#[test]
fn a_message_that_is_too_large_is_not_sent() {
    let (near, far) = pair();
    let file = file("");
    let mut outbox = Outbox::new(near);
    let fds = vec![file.as_fd(); MOST_DESCRIPTORS + 1];
    assert!(outbox.send(attach(1), &fds).is_err());
    drop(outbox);
    let mut receiver = Receiver::new(far, LARGEST_TO_WORKER);
    assert!(matches!(receiver.receive(), Err(ReceiveError::Closed)));
}

#[test]
fn whoever_sends_to_nobody_gets_an_error_and_no_signal() {
    let (near, far) = pair();
    drop(far);
    let sender = Sender::new(near);
    assert!(sender.send(&FromWorker::Ready, &[]).is_err());
}
