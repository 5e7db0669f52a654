//! Tests of the backend channel, with a VMM that is a socket.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::*;

const OPTIONS: ChannelOptions = ChannelOptions {
    window: 1 << 20,
    replies: true,
    shmem: true,
    barrier: true,
    slots: true,
};

fn pair() -> (Arc<BackendChannel>, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (Arc::new(BackendChannel::new(near, OPTIONS).unwrap()), far)
}

/// Reads one request of the backend.
fn read(vmm: &mut UnixStream) -> (u32, Vec<u8>) {
    let mut header = [0; HEADER_BYTES];
    vmm.read_exact(&mut header).unwrap();
    let header = Header::read_from_bytes(&header).unwrap();
    let mut body = vec![0; header.size as usize];
    vmm.read_exact(&mut body).unwrap();
    (header.request, body)
}

fn answer(vmm: &mut UnixStream, request: u32, value: u64) {
    let header = Header {
        request,
        flags: VERSION | REPLY,
        size: 8,
    };
    vmm.write_all(header.as_bytes()).unwrap();
    vmm.write_all(&value.to_ne_bytes()).unwrap();
}

#[test]
fn map_returns_after_the_answer_to_the_barrier() {
    let (channel, mut vmm) = pair();
    let caller = std::thread::spawn(move || {
        let file = tempfile::tempfile().unwrap();
        channel.map(0x1000, file.as_fd(), 0, 0x2000)
    });
    let (code, body) = read(&mut vmm);
    assert_eq!(code, request::SHMEM_MAP);
    let map = MemoryMap::read_from_bytes(&body).unwrap();
    assert_eq!(
        (map.region, map.window_offset, map.len),
        (1, 0x1000, 0x2000)
    );
    answer(&mut vmm, code, 0);
    let (code, _) = read(&mut vmm);
    assert_eq!(code, request::SHARED_OBJECT_REMOVE);
    std::thread::sleep(Duration::from_millis(20));
    assert!(!caller.is_finished(), "the mapping may not be live yet");
    answer(&mut vmm, code, 1);
    caller.join().unwrap().unwrap();
}

#[test]
fn a_bad_range_is_refused_without_asking_the_vmm() {
    let (channel, vmm) = pair();
    vmm.set_nonblocking(true).unwrap();
    // Makes a request that should not be sent fail instead of waiting.
    channel.interrupt();
    let file = tempfile::tempfile().unwrap();
    for (offset, fd_offset, len) in [
        (1, 0, 0x1000),
        (0, 0, 0),
        (0, 0, 0x800),
        (0, 3, 0x1000),
        (0, 0, (1 << 20) + 0x1000),
        (1 << 20, 0, 0x1000),
        (!0xfff, 0, 0x1000),
        (0, !0xfff, 0x1000),
    ] {
        let error = channel.map(offset, file.as_fd(), fd_offset, len);
        assert!(
            matches!(&error, Err(AskError::Failed(error)) if error.kind() == io::ErrorKind::InvalidInput),
            "{error:?}"
        );
    }
    let mut byte = [0];
    assert_eq!(
        (&vmm).read(&mut byte).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
}

#[test]
fn an_interrupted_map_is_abandoned_and_undone_before_the_next_request() {
    let (channel, mut vmm) = pair();
    let caller = {
        let channel = channel.clone();
        std::thread::spawn(move || {
            let file = tempfile::tempfile().unwrap();
            channel.map(0x3000, file.as_fd(), 0, 0x1000)
        })
    };
    let (map_code, _) = read(&mut vmm);
    // Otherwise the caller waits for the answer, which comes below.
    channel.interrupt();
    caller.join().unwrap().unwrap_err();
    channel.resume();

    // The VMM reads the abandoned request only now.
    answer(&mut vmm, map_code, 0);
    let caller = std::thread::spawn(move || channel.unmap(0x8000, 0x1000));
    let (code, body) = read(&mut vmm);
    assert_eq!(code, request::SHMEM_UNMAP);
    let undone = MemoryMap::read_from_bytes(&body).unwrap();
    assert_eq!((undone.window_offset, undone.len), (0x3000, 0x1000));
    answer(&mut vmm, code, 0);
    let (code, body) = read(&mut vmm);
    let wanted = MemoryMap::read_from_bytes(&body).unwrap();
    assert_eq!((code, wanted.window_offset), (request::SHMEM_UNMAP, 0x8000));
    answer(&mut vmm, code, 0);
    caller.join().unwrap().unwrap();
}

#[test]
fn a_config_change_is_sent_while_a_request_waits() {
    let (channel, mut vmm) = pair();
    let caller = {
        let channel = channel.clone();
        std::thread::spawn(move || channel.unmap(0, 0x1000))
    };
    let (code, _) = read(&mut vmm);
    channel.config_changed().unwrap();
    assert_eq!(read(&mut vmm), (request::CONFIG_CHANGE, vec![]));
    answer(&mut vmm, code, 0);
    caller.join().unwrap().unwrap();
}

/// QEMU would end by a segmentation fault if it read the request after it has stopped the device.
#[test]
fn a_request_that_the_vmm_has_not_begun_to_read_is_void_after_a_stop() {
    let (channel, mut vmm) = pair();
    if is_all_taken(&channel.socket).is_none() {
        return; // nothing to be done about it on such a system
    }
    for _ in 0..3 {
        let caller = {
            let channel = channel.clone();
            std::thread::spawn(move || {
                let file = tempfile::tempfile().unwrap();
                channel.map(0x3000, file.as_fd(), 0, 0x1000)
            })
        };
        // Wait until its first byte is there, and no more.
        while is_all_taken(&channel.socket) == Some(true) {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(5));
        channel.interrupt();
        assert!(matches!(caller.join().unwrap(), Err(AskError::Stopped)));
        channel.resume();
        let mut header = [0; HEADER_BYTES];
        vmm.read_exact(&mut header).unwrap();
        let header = Header::read_from_bytes(&header).unwrap();
        assert!(header.request > 0xff, "{header:?}");
        assert_eq!((header.flags, header.size), (VERSION, 0));
    }
    assert!(channel.maps().is_empty());
    let caller = std::thread::spawn(move || channel.unmap(0, 0x1000));
    let (code, _) = read(&mut vmm);
    assert_eq!(code, request::SHMEM_UNMAP, "the channel works");
    answer(&mut vmm, code, 0);
    caller.join().unwrap().unwrap();
}

#[test]
fn no_more_is_mapped_than_the_vmm_has_room_for() {
    let (channel, mut vmm) = pair();
    let caller = std::thread::spawn(move || {
        let file = tempfile::tempfile().unwrap();
        for map in 0..MAX_MAPS as u64 {
            // The window of this test has 256 pages. The offsets only have to differ.
            channel
                .maps()
                .insert(map, MappedBlob::new(file.as_fd(), 0, 0x1000).unwrap());
        }
        let refused = channel.map(0, file.as_fd(), 0, 0x1000);
        assert!(
            matches!(&refused, Err(AskError::Failed(error)) if error.to_string().contains("480 blobs")),
            "{refused:?}"
        );
        channel.forget_maps();
        channel.map(0, file.as_fd(), 0, 0x1000)
    });
    for value in [0, 1] {
        let (code, _) = read(&mut vmm);
        answer(&mut vmm, code, value);
    }
    caller.join().unwrap().unwrap();
}

#[test]
fn a_wrong_answer_breaks_the_channel_for_good() {
    let (channel, mut vmm) = pair();
    let caller = {
        let channel = channel.clone();
        std::thread::spawn(move || channel.unmap(0, 0x1000))
    };
    read(&mut vmm);
    answer(&mut vmm, 77, 0);
    caller.join().unwrap().unwrap_err();
    answer(&mut vmm, request::SHMEM_UNMAP, 0);
    channel.unmap(0, 0x1000).unwrap_err();
}
