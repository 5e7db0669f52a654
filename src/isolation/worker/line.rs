//! [`Line`]: sends to the main process. All threads of the worker use it.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::super::channel::Sender;
use super::super::message::FromWorker;

/// The sending end of the control socket.
#[derive(Debug)]
pub(super) struct Line(Sender);

impl Line {
    pub(super) fn new(socket: Arc<UnixStream>) -> Self {
        Self(Sender::new(socket))
    }

    /// Sends a message. Ends the process when the main process is gone: nobody needs it any more.
    pub(super) fn tell(&self, message: &FromWorker, fds: &[BorrowedFd<'_>]) {
        if self.0.send(message, fds).is_err() {
            end_process(1);
        }
    }
}

/// Ends the process at once, with all threads, whatever they do.
pub(super) fn end_process(status: i32) -> ! {
    // SAFETY: the call takes a number and does not return. It runs nothing of this program or of
    // drivers.
    unsafe { libc::_exit(status) }
}
