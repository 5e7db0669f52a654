//! One command being handled, with what is needed to answer it.

use crate::chain::AnswerSpace;
use crate::fence::Ticket;
use crate::queue::Queue;
use crate::wire::Header;

/// One command being handled.
pub(crate) struct Exchange {
    pub(crate) header: Header,
    pub(crate) ticket: Ticket,
    /// The reset count when it arrived.
    pub(crate) epoch: u64,
    pub(crate) queue: Queue,
    pub(crate) head: u16,
    /// Where the answer goes. `None` once the command is held.
    pub(crate) space: Option<AnswerSpace>,
    /// Whether the thread of the queue is still in this command, so that it can answer by
    /// returning.
    pub(crate) on_queue: bool,
}
