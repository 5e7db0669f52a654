//! [`Incoming`]: what a worker has sent. Questions about budgets are answered here at once; other
//! messages wait in an inbox for the worker's thread.
//!
//! Any thread may read. The device waits for some answers ([`FromWorker::Detached`]), and the
//! worker's thread may be inside of the device then, so whoever waits reads, too.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use hesper_venus::Resource;

use super::books::Books;
use crate::isolation::channel::{LARGEST_FROM_WORKER, Outbox, ReceiveError, Receiver};
use crate::isolation::message::{Budget, FromWorker};

/// The most messages that wait in the inbox.
const MOST: usize = 4096;
/// How many messages are read at a time.
pub(super) const BATCH: usize = 64;
/// The largest message about budgets.
const LARGEST_QUESTION: usize = 16;

/// Why nothing more is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The worker has closed its socket.
    Gone,
    /// It has broken this rule.
    Broken(String),
}

/// A message and its descriptors.
pub(super) type Letter = (FromWorker, Vec<OwnedFd>);

/// The receiving side of a worker's two sockets.
pub(super) struct Incoming {
    control: Receiver,
    questions: Receiver,
    answers: Outbox,
    inbox: VecDeque<Letter>,
    stop: Option<Stop>,
    /// The worker asks for nothing any more.
    is_silent: bool,
    books: Arc<Books>,
}

/// Which sockets can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readable {
    /// That for messages.
    pub(super) control: bool,
    /// That for questions about budgets.
    pub(super) questions: bool,
}

impl Readable {
    /// Perhaps both.
    pub(super) const ALL: Self = Self {
        control: true,
        questions: true,
    };
}

/// What an [`Incoming::read`] has brought.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Messages and questions.
    pub(super) count: usize,
    /// The tickets of [`FromWorker::Detached`].
    pub(super) answered: Vec<u32>,
}

impl Incoming {
    /// Nothing has come yet. `books` answer the questions about budgets.
    pub(super) fn new(
        control: Arc<UnixStream>,
        budget: Arc<UnixStream>,
        books: Arc<Books>,
    ) -> Self {
        Self {
            control: Receiver::new(control, LARGEST_FROM_WORKER),
            questions: Receiver::new(Arc::clone(&budget), LARGEST_QUESTION),
            answers: Outbox::new(budget),
            inbox: VecDeque::new(),
            stop: None,
            is_silent: false,
            books,
        }
    }

    /// Reads some of what has come, without waiting. There may be more when it is a whole
    /// [`BATCH`].
    pub(super) fn read(&mut self, what: Readable) -> News {
        let mut news = News::default();
        while what.control && news.count < BATCH && self.inbox.len() < MOST && self.stop.is_none() {
            match self.letter() {
                Ok(Some((FromWorker::Detached { ticket }, _))) => news.answered.push(ticket),
                Ok(Some(letter)) => self.inbox.push_back(letter),
                Ok(None) => break,
                Err(stop) => self.stop = Some(stop),
            }
            news.count += 1;
        }
        let mut questions = 0;
        while what.questions && questions < BATCH && self.stop.is_none() && !self.is_silent {
            match self.question() {
                Ok(true) => questions += 1,
                Ok(false) => break,
                // What it sent before is still to be read, and its other socket ends, too.
                Err(Stop::Gone) => self.is_silent = true,
                Err(broken) => self.stop = Some(broken),
            }
        }
        news.count += questions;
        news
    }

    fn letter(&mut self) -> Result<Option<Letter>, Stop> {
        let Some(frame) = self.control.try_receive().map_err(stop)? else {
            return Ok(None);
        };
        frame.decode().map(Some).map_err(broken)
    }

    /// Answers a question. False when there is none.
    fn question(&mut self) -> Result<bool, Stop> {
        let Some(frame) = self.questions.try_receive().map_err(stop)? else {
            return Ok(false);
        };
        let (question, _) = frame.decode().map_err(broken)?;
        let resource = |pool: u8| {
            Resource::try_from(pool).map_err(|_| broken(format!("a question about pool {pool}")))
        };
        let amount = match question {
            Budget::Ask { pool, amount } => self.books.ask(resource(pool)?, amount),
            Budget::Left { pool } => self.books.left(resource(pool)?),
            Budget::GiveBack { pool, amount } => {
                return match self.books.give_back(resource(pool)?, amount) {
                    true => Ok(true),
                    false => Err(broken(format!("{amount} of pool {pool} that it has not"))),
                };
            }
            Budget::Granted { .. } => return Err(broken("an answer to no question")),
        };
        // A worker waits for an answer before it asks again, so there is always room.
        match self.answers.send(Budget::Granted { amount }, &[]) {
            Ok(true) => Ok(true),
            Ok(false) => Err(broken("questions, whose answers it does not read")),
            Err(_) => Err(Stop::Gone),
        }
    }

    /// The oldest message.
    pub(super) fn next(&mut self) -> Option<Letter> {
        self.inbox.pop_front()
    }

    /// Whether the socket for questions is open.
    pub(super) fn asks(&self) -> bool {
        !self.is_silent
    }

    /// Why nothing more comes, when the inbox is empty.
    pub(super) fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref().filter(|_| self.inbox.is_empty())
    }
}

fn broken(what: impl std::fmt::Display) -> Stop {
    Stop::Broken(what.to_string())
}

fn stop(error: ReceiveError) -> Stop {
    match error {
        ReceiveError::Closed => Stop::Gone,
        other => broken(other),
    }
}
