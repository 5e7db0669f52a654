//! Looks at a message before the `vhost` crate takes it.
//!
//! The crate turns the descriptors of `SET_BACKEND_REQ_FD` and `GPU_SET_SOCKET` into proxies of its own, which
//! lack what Hesper needs (configuration changes; waits that end) and hide the descriptor. Peeking at a
//! message on a unix socket duplicates the descriptors it carries, so a descriptor of our own to the same
//! socket can be had without touching the crate's way.

use std::io::{self, IoSliceMut};
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recv, recvmsg};

/// `VHOST_USER_SET_BACKEND_REQ_FD`.
const SET_BACKEND_REQ_FD: u32 = 21;
/// `VHOST_USER_GPU_SET_SOCKET`.
const GPU_SET_SOCKET: u32 = 33;

/// Waits for the next message; returns a duplicate of the socket it carries, if it is one of the two that
/// carry one. Whether the message is right is for the crate to say.
pub(super) fn peek_request(stream: &UnixStream) -> io::Result<Option<UnixStream>> {
    let mut code = [0u8; 4];
    let length = loop {
        match recv(stream, &mut code, RecvFlags::PEEK) {
            Err(rustix::io::Errno::INTR) => {}
            result => break result?.1,
        }
    };
    // VMMs send a header whole. One that comes in pieces has no descriptor for us; the crate gets its bytes.
    if length < code.len()
        || !matches!(
            u32::from_ne_bytes(code),
            SET_BACKEND_REQ_FD | GPU_SET_SOCKET
        )
    {
        return Ok(None);
    }
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut code)],
        &mut control,
        RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(fd.map(UnixStream::from))
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read, Write};
    use std::os::fd::AsFd;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    #[test]
    fn a_peeked_descriptor_is_the_same_socket_and_the_message_stays() {
        let (near, far) = UnixStream::pair().unwrap();
        let (channel, mut vmm) = UnixStream::pair().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [channel.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let message = [SET_BACKEND_REQ_FD.to_ne_bytes(), 1u32.to_ne_bytes(), [0; 4]].concat();
        sendmsg(
            &far,
            &[IoSlice::new(&message)],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
        drop(channel);

        let mut peeked = peek_request(&near).unwrap().unwrap();
        peeked.write_all(b"hello").unwrap();
        let mut hello = [0; 5];
        vmm.read_exact(&mut hello).unwrap();
        let mut again = [0; 12];
        (&near).read_exact(&mut again).unwrap();
        assert_eq!(again[..], message[..]);

        (&far).write_all(&7u32.to_ne_bytes()).unwrap();
        assert!(peek_request(&near).unwrap().is_none());
    }
}
