//! One command being handled, with what is needed to answer it.

use crate::chain::AnswerSpace;
use crate::fence::Ticket;
use crate::queue::{Queue, Taken};
use crate::wire::Header;

/// One command being handled.
pub(crate) struct Exchange {
    pub(crate) header: Header,
    pub(crate) ticket: Ticket,
    /// The reset count when it was taken from its ring.
    pub(crate) epoch: u64,
    pub(crate) queue: Queue,
    pub(crate) head: u16,
    pub(crate) taken: Taken,
    /// Where the answer goes. `None` once the command is held.
    pub(crate) space: Option<AnswerSpace>,
    /// Whether the thread of the queue is still in this command, so that it can answer by
    /// returning.
    pub(crate) on_queue: bool,
}
