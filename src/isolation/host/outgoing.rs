//! [`Outgoing`]: messages to a worker, sent without waiting, in order. What the socket does not
//! take waits, within the context's budget.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use hesper_system::budget::Charge;
use hesper_venus::Budget;

use super::books::Books;
use crate::isolation::channel::Outbox;
use crate::isolation::message::{SMALL_BATCH, ToWorker};

/// The messages to a worker.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// `None` when nothing is sent any more.
    outbox: Option<Outbox>,
    /// What belongs to each message of the outbox: its place, and the charge of a small batch.
    waiting: VecDeque<(Charge, Charge)>,
    /// Batches that the worker has not consumed, the oldest first: bytes that are left of each, and
    /// its charge. Small batches are not charged any more once they are sent.
    unconsumed: VecDeque<(u64, Charge)>,
    books: Arc<Books>,
    most_bytes: usize,
}

/// Why a message cannot be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many wait: so many messages, with so many bytes.
    Full(usize, usize),
    /// It cannot be sent: why.
    Failed(String),
}

impl Outgoing {
    /// Sends to this socket, within the `limits`.
    pub(super) fn new(socket: Arc<UnixStream>, books: Arc<Books>, limits: &Budget) -> Self {
        Self {
            outbox: Some(Outbox::new(socket)),
            waiting: VecDeque::new(),
            unconsumed: VecDeque::new(),
            books,
            most_bytes: limits.queued_bytes,
        }
    }

    /// Sends a message, or lets it wait. True when it is the first that waits: somebody must call
    /// [`Outgoing::flush`] when the socket can be written. `charge` is that of the message's
    /// commands.
    ///
    /// # Errors
    /// [`Refused`]. Nothing is sent any more.
    pub(super) fn send(
        &mut self,
        message: ToWorker,
        charge: Charge,
        fds: &[BorrowedFd<'_>],
    ) -> Result<bool, Refused> {
        if self.outbox.is_none() {
            return Ok(false);
        }
        let bytes = match &message {
            ToWorker::Submit(commands) => commands.len(),
            _ => 0,
        };
        let mut small = charge;
        if bytes >= SMALL_BATCH {
            // Noted before: the worker may consume them at once.
            let large = std::mem::take(&mut small);
            self.unconsumed.push_back((bytes as u64, large));
        }
        let Some(outbox) = &mut self.outbox else {
            return Ok(false);
        };
        let is_sent = outbox.send(message, fds);
        let (messages, waiting) = (outbox.messages(), outbox.bytes());
        if is_sent.map_err(|error| self.fail(&error))? {
            return Ok(false);
        }
        // A single batch may be larger.
        let is_too_much = waiting > self.most_bytes && messages > 1;
        let place = self.books.call().filter(|_| !is_too_much);
        let Some(place) = place else {
            self.close();
            return Err(Refused::Full(messages, waiting));
        };
        self.waiting.push_back((place, small));
        Ok(self.waiting.len() == 1)
    }

    fn fail(&mut self, error: &std::io::Error) -> Refused {
        self.close();
        Refused::Failed(error.to_string())
    }

    /// Sends what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// [`Refused::Failed`].
    pub(super) fn flush(&mut self) -> Result<(), Refused> {
        let Some(outbox) = &mut self.outbox else {
            return Ok(());
        };
        let flushed = outbox.flush();
        let sent = self.waiting.len().saturating_sub(outbox.messages());
        self.waiting.drain(..sent);
        flushed.map(drop).map_err(|error| self.fail(&error))
    }

    /// Whether something waits for the socket.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The worker has consumed so many bytes of large batches. False when there were not so many.
    #[must_use]
    pub(super) fn consumed(&mut self, mut bytes: u64) -> bool {
        while let Some((left, _)) = self.unconsumed.front_mut() {
            if *left > bytes {
                *left -= bytes;
                return true;
            }
            bytes -= *left;
            self.unconsumed.pop_front();
        }
        bytes == 0
    }

    /// Sends nothing any more, and frees what waits with its charges.
    pub(super) fn close(&mut self) {
        self.outbox = None;
        self.waiting = VecDeque::new();
        self.unconsumed = VecDeque::new();
    }
}
