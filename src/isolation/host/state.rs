//! [`State`]: where a worker is in its life, as the device and the worker's thread see it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hesper_system::budget::Charge;
use hesper_venus::trace::{Lane, Span};
use hesper_venus::{ContextEvents, DisplayServer};

use super::fences::Fence;
use super::patience::Patience;
use crate::isolation::spawner::End;

/// How long the device waits for one worker.
const PATIENCE: Duration = Duration::from_secs(1);

/// The context that a worker is.
pub(super) struct Owner {
    /// The front end's id, for logs.
    pub(super) id: u32,
    /// The guest's name for it, for logs.
    pub(super) name: String,
    /// To what its program presents.
    pub(super) server: DisplayServer,
    /// Who hears of it.
    pub(super) events: Arc<dyn ContextEvents>,
    /// Where this process records its fences.
    pub(super) lane: Lane,
    /// One of the guest's contexts: held until the process has ended, and the device has dropped
    /// the context.
    pub(super) _place: Charge,
}

impl Owner {
    /// Reports a fence as signalled.
    pub(super) fn retire(&self, ring: u8, fence: Fence) {
        self.events.fence_retired(ring, fence.id);
        self.lane
            .end_fence(fence.sent, Span::FenceOutside, ring, fence.id);
    }
}

/// Where a worker is in its life.
pub(super) struct State {
    /// `None` while it is a spare.
    pub(super) owner: Option<Arc<Owner>>,
    /// The driver is loaded.
    pub(super) is_ready: bool,
    /// Why this process ends it before its time.
    pub(super) doom: Option<String>,
    /// When it must have ended at the latest. `None` while it is not told to end.
    pub(super) due: Option<Instant>,
    /// It is treated as gone: it becomes no context any more.
    pub(super) is_closed: bool,
    /// Why its context answers nothing any more.
    pub(super) lost_because: Option<Arc<str>>,
    /// How its process has ended.
    pub(super) end: Option<End>,
    /// Questions of the device that are not answered.
    tickets: HashSet<u32>,
    last_ticket: u32,
    /// How much longer the device waits for it.
    pub(super) patience: Patience,
}

impl Default for State {
    fn default() -> Self {
        Self {
            owner: None,
            is_ready: false,
            doom: None,
            due: None,
            is_closed: false,
            lost_because: None,
            end: None,
            tickets: HashSet::new(),
            last_ticket: 0,
            patience: Patience::new(PATIENCE, Instant::now()),
        }
    }
}

impl State {
    /// A new question.
    pub(super) fn ticket(&mut self) -> u32 {
        self.last_ticket = self.last_ticket.wrapping_add(1).max(1);
        self.tickets.insert(self.last_ticket);
        self.last_ticket
    }

    /// The worker has answered. False when nobody waits for this answer.
    #[must_use]
    pub(super) fn answered(&mut self, ticket: u32) -> bool {
        self.tickets.remove(&ticket)
    }

    /// Whether the answer is there, or not needed any more: a process that has ended holds nothing.
    pub(super) fn is_over(&self, ticket: u32) -> bool {
        self.end.is_some() || !self.tickets.contains(&ticket)
    }

    /// Whether the worker was told to end, or this process has killed it.
    pub(super) fn is_ending(&self) -> bool {
        self.due.is_some()
    }
}
