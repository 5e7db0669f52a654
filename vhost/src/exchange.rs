//! One command on its way: what must be known to answer it.

use crate::chain::AnswerSpace;
use crate::fence::Ticket;
use crate::queue::Queue;
use crate::wire::Header;

/// One command on its way.
pub(crate) struct Exchange {
    pub(crate) header: Header,
    pub(crate) ticket: Ticket,
    /// The reset count at its arrival.
    pub(crate) epoch: u64,
    pub(crate) queue: Queue,
    pub(crate) head: u16,
    /// Where the answer goes; taken when the command is held.
    pub(crate) space: Option<AnswerSpace>,
    /// Whether the thread of the queue is still in this command, and can answer by returning.
    pub(crate) on_queue: bool,
}
