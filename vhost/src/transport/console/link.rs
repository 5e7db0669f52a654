//! The thread that owns the GPU socket.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::super::interrupt::{Interrupt, Wait};
use super::super::socket::{TransferError, receive_rest, send_all};
use super::shared::{Answer, Question, Shared};
use super::state::{Job, copy_pixels};
use super::wire::{
    self, CursorPosition, DisplayInfo, Edid, FEATURE_DMABUF2, FEATURE_EDID, Header, REPLY, Update,
    empty, request,
};
use crate::screen::{BYTES_PER_PIXEL, FlushToken, Picture, Rect, ScanoutId};

/// Limits the lines that a guest or its VM monitor can cause.
static LINES: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper_vhost");

/// The most bytes of pixels in one message. QEMU reads a message whole in its main loop, on which
/// the guest's devices depend, and allocates that much.
const MAX_PIXEL_BYTES: usize = 256 << 10;

const HEADER_BYTES: usize = size_of::<Header>();

/// Room for a header and the largest body before a payload.
const MAX_START_BYTES: usize = HEADER_BYTES + 64;

/// The socket and what its thread needs.
pub(super) struct Link {
    socket: UnixStream,
    /// Raised once, to end the thread whatever it waits for.
    stop: Arc<Interrupt>,
    /// Raised when there is something to do.
    wake: Arc<Interrupt>,
    shared: Arc<Shared>,
    features: u64,
    staging: Vec<u8>,
    tokens: Vec<FlushToken>,
}

impl Link {
    pub(super) fn new(
        socket: UnixStream,
        stop: Arc<Interrupt>,
        wake: Arc<Interrupt>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            socket,
            stop,
            wake,
            shared,
            features: 0,
            staging: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// Serves the socket until it fails or is stopped.
    pub(super) fn run(mut self) {
        match self.serve() {
            Ok(()) | Err(TransferError::Interrupted) => {}
            Err(TransferError::Closed) => {
                LINES.log(log::Level::Info, format_args!("QEMU closed the GPU socket"))
            }
            Err(error) => {
                LINES.log(
                    log::Level::Error,
                    format_args!("GPU socket: {error}; QEMU's console no longer shows this guest"),
                );
            }
        }
        {
            let mut state = self.shared.lock();
            state.link = None;
            state.asleep = false;
        }
        self.shared.answered.notify_all();
        self.shared.release(&mut self.tokens);
        self.shared.release_all();
    }

    fn serve(&mut self) -> Result<(), TransferError> {
        let offered: u64 = self.ask(request::GET_PROTOCOL_FEATURES, &[])?;
        self.features = offered & (FEATURE_EDID | FEATURE_DMABUF2);
        self.send(
            request::SET_PROTOCOL_FEATURES,
            self.features.as_bytes(),
            &[],
        )?;
        loop {
            let (question, job) = {
                let mut state = self.shared.lock();
                let question = state.question.take();
                let job = if question.is_none() {
                    state.scanouts.next_job(&mut self.staging, &mut self.tokens)
                } else {
                    None
                };
                state.asleep = question.is_none() && job.is_none();
                (question, job)
            };
            match (question, job) {
                (Some((number, question)), _) => {
                    let answer = self.answer(question)?;
                    self.shared.lock().answer = Some((number, answer));
                    self.shared.answered.notify_all();
                }
                (None, Some(job)) => self.carry_out(job)?,
                (None, None) => {
                    self.shared.release(&mut self.tokens);
                    self.sleep()?;
                }
            }
        }
    }

    /// Waits for something to do. QEMU sends nothing on its own here, so a readable socket means
    /// the end.
    fn sleep(&self) -> Result<(), TransferError> {
        let wait = self.wake.wait(self.socket.as_fd(), PollFlags::IN, None)?;
        self.wake.clear();
        if self.stop.is_raised() {
            return Err(TransferError::Interrupted);
        }
        if wait == Wait::Ready {
            let mut byte = [0u8];
            return match recv(&self.socket, &mut byte, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => Err(TransferError::Closed),
                Ok(_) => Err(unexpected("a message that nobody asked for")),
                Err(Errno::AGAIN | Errno::INTR) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
        Ok(())
    }

    fn answer(&self, question: Question) -> Result<Answer, TransferError> {
        Ok(match question {
            Question::Displays => {
                let info: DisplayInfo = self.ask(request::GET_DISPLAY_INFO, &[])?;
                Answer::Displays(Box::new(info))
            }
            Question::Edid(_) if self.features & FEATURE_EDID == 0 => Answer::Nothing,
            Question::Edid(scanout) => {
                let edid: Edid = self.ask(request::GET_EDID, scanout.as_bytes())?;
                Answer::Edid(Box::new(edid))
            }
        })
    }

    fn carry_out(&mut self, job: Job) -> Result<(), TransferError> {
        match job {
            Job::Size(size) => self.send(request::SCANOUT, size.as_bytes(), &[]),
            Job::Cursor(cursor) => {
                self.send(request::CURSOR_UPDATE, cursor.as_bytes(), &self.staging)
            }
            Job::Move { position, visible } => self.move_cursor(position, visible),
            Job::Pixels {
                scanout,
                picture,
                damage,
            } => self.send_pixels(scanout, &picture, damage),
        }
    }

    fn move_cursor(&self, position: CursorPosition, visible: bool) -> Result<(), TransferError> {
        let code = if visible {
            request::CURSOR_POS
        } else {
            request::CURSOR_POS_HIDE
        };
        self.send(code, position.as_bytes(), &[])
    }

    /// Copies the damage, releases the flush so that the guest draws on, then sends the copy in
    /// bands of rows.
    fn send_pixels(
        &mut self,
        scanout: ScanoutId,
        picture: &Picture,
        damage: Rect,
    ) -> Result<(), TransferError> {
        copy_pixels(picture, damage, &mut self.staging);
        self.shared.release(&mut self.tokens);
        let row = damage.width as usize * BYTES_PER_PIXEL as usize;
        let rows = (MAX_PIXEL_BYTES / row.max(1)).max(1);
        let mut y = damage.y;
        for band in self.staging.chunks(rows.saturating_mul(row).max(1)) {
            // At most the damage's height.
            let height = u32::try_from(band.len() / row.max(1)).unwrap_or(u32::MAX);
            let update = Update {
                scanout,
                x: damage.x,
                y,
                width: damage.width,
                height,
            };
            self.send(request::UPDATE, update.as_bytes(), band)?;
            y = y.saturating_add(height);
        }
        Ok(())
    }

    fn send(&self, request: u32, body: &[u8], payload: &[u8]) -> Result<(), TransferError> {
        let size = u32::try_from(body.len() + payload.len())
            .map_err(|_| unexpected("a message of more than 4 GiB"))?;
        let header = Header {
            request,
            flags: 0,
            size,
        };
        // The small parts are sent in one piece, so that QEMU wakes up once for a small message.
        let mut start = [0u8; MAX_START_BYTES];
        let length = HEADER_BYTES + body.len();
        let small = start
            .get_mut(..length)
            .ok_or_else(|| unexpected("a message body of more than 64 bytes"))?;
        let (head, rest) = small.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(header.as_bytes());
        rest.copy_from_slice(body);
        send_all(&self.socket, small, &self.stop)?;
        send_all(&self.socket, payload, &self.stop)
    }

    /// Sends a question and waits for the reply of its exact size.
    fn ask<T: FromBytes + IntoBytes + Immutable>(
        &self,
        request: u32,
        body: &[u8],
    ) -> Result<T, TransferError> {
        self.send(request, body, &[])?;
        let mut header: Header = empty();
        self.receive(header.as_mut_bytes())?;
        if header.request != request
            || header.flags & REPLY == 0
            || header.size as usize != size_of::<T>()
        {
            return Err(unexpected(&format!(
                "{header:?} as the reply to request {request}"
            )));
        }
        let mut reply: T = wire::empty();
        self.receive(reply.as_mut_bytes())?;
        Ok(reply)
    }

    fn receive(&self, into: &mut [u8]) -> Result<(), TransferError> {
        receive_rest(&self.socket, into, &mut 0, &self.stop)
    }
}

fn unexpected(what: &str) -> TransferError {
    TransferError::Io(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unexpected: {what}"),
    ))
}
