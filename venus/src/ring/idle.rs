//! [`Idle`]: records how a ring's thread waits for its guest, and how late it wakes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::pace::Pause;
use crate::trace::{Lane, Span, Started};

/// What the thread of a ring does while there is no work.
pub(super) struct Idle<'r> {
    lane: &'r Lane,
    /// When the guest notified, or 0.
    notified_at: &'r AtomicU64,
    /// `None` while there is work.
    kind: Option<Span>,
    since: Started,
}

impl<'r> Idle<'r> {
    pub(super) fn new(lane: &'r Lane, notified_at: &'r AtomicU64) -> Self {
        Self {
            lane,
            notified_at,
            kind: None,
            since: Started::NOT,
        }
    }

    /// There is no work, and the thread is about to make this pause. Several of one kind are one
    /// span.
    #[inline]
    pub(super) fn begin(&mut self, pause: &Pause) {
        let kind = match pause {
            Pause::Spin => Span::Spinning,
            Pause::Yield => Span::Yielding,
            Pause::Doze(_) => Span::Dozing,
            Pause::Sleep => Span::Asleep,
        };
        if self.kind != Some(kind) {
            self.change(Some(kind));
        }
    }

    /// There is work.
    #[inline]
    pub(super) fn end(&mut self) {
        if self.kind.is_some() {
            self.change(None);
        }
    }

    #[inline]
    fn change(&mut self, kind: Option<Span>) {
        let before = self.kind.take();
        if let (Some(before), true) = (before, self.since.is_recorded()) {
            self.record(before);
        }
        self.kind = kind;
        self.since = match kind {
            Some(_) => self.lane.begin(),
            None => Started::NOT,
        };
    }

    #[cold]
    #[inline(never)]
    fn record(&self, kind: Span) {
        let now = self.since.again();
        let notified = Started::at(self.notified_at.swap(0, Ordering::Relaxed));
        self.lane.end_at(self.since, now, kind);
        // Spans of one thread lie inside each other: a notification that came before the pause
        // began has woken nobody.
        if matches!(kind, Span::Dozing | Span::Asleep) && notified.is_recorded() {
            self.lane.end_at(notified.max(self.since), now, Span::Wake);
        }
    }
}
