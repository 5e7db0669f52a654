//! [`Lane`]: the writer's side of a trace.

use std::num::NonZeroU64;

use super::buffer::Trace;
use super::{Span, Track};
use crate::platform;

/// The number of a span that has no command.
pub(super) const NO_COMMAND: u32 = u32::MAX;

/// What one thread, or one line of fences, writes into a trace. Without a trace it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    trace: Option<Trace>,
    context: u32,
    track: Track,
}

/// When something began, if it is recorded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Started(Option<NonZeroU64>);

impl Started {
    /// What is not recorded.
    pub const NOT: Self = Self(None);

    /// Whether it is recorded.
    #[inline]
    #[must_use]
    pub fn is_recorded(self) -> bool {
        self.0.is_some()
    }

    /// The time in nanoseconds, or 0.
    pub(crate) fn nanoseconds(self) -> u64 {
        self.0.map_or(0, NonZeroU64::get)
    }

    /// Now, if this is recorded.
    pub(crate) fn again(self) -> Self {
        match self.is_recorded() {
            true => now(),
            false => self,
        }
    }

    /// A time that was kept as a number.
    pub(crate) fn at(nanoseconds: u64) -> Self {
        Self(NonZeroU64::new(nanoseconds))
    }

    /// The later one. [`Started::NOT`] is earlier than all others.
    pub(crate) fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }
}

impl Lane {
    /// A lane of this context.
    #[must_use]
    pub fn new(trace: Option<&Trace>, context: u32, track: Track) -> Self {
        Self {
            trace: trace.cloned(),
            context,
            track,
        }
    }

    /// Another lane of the same context.
    #[must_use]
    pub fn with(&self, track: Track) -> Self {
        Self {
            track,
            ..self.clone()
        }
    }

    /// The time, if a trace is being recorded.
    #[inline]
    #[must_use]
    pub fn begin(&self) -> Started {
        match &self.trace {
            Some(trace) if trace.is_on() => now(),
            _ => Started::NOT,
        }
    }

    /// Writes a span that ends now, unless its begin was not recorded.
    #[inline]
    pub fn end(&self, began: Started, span: Span, arguments: [u64; 2]) {
        if began.is_recorded() {
            self.write(self.track, began, now(), span, NO_COMMAND, arguments);
        }
    }

    /// The same for the command with this number.
    #[inline]
    pub(crate) fn end_command(&self, began: Started, span: Span, command: u32) {
        if began.is_recorded() {
            self.write(self.track, began, now(), span, command, [0; 2]);
        }
    }

    /// Writes a span that ended at a time that the caller has taken.
    pub(crate) fn end_at(&self, began: Started, ended: Started, span: Span) {
        if began.is_recorded() {
            self.write(self.track, began, ended, span, NO_COMMAND, [0; 2]);
        }
    }

    /// Writes a step of a fence that ends now.
    #[inline]
    pub fn end_fence(&self, began: Started, span: Span, ring: u8, fence: u64) {
        if began.is_recorded() {
            let track = match span {
                Span::QueueWait => Track::Queue(ring.into()),
                _ => Track::Fences(ring.into()),
            };
            let arguments = [fence, ring.into()];
            self.write(track, began, now(), span, NO_COMMAND, arguments);
        }
    }

    #[cold]
    #[inline(never)]
    fn write(
        &self,
        track: Track,
        began: Started,
        ended: Started,
        span: Span,
        command: u32,
        arguments: [u64; 2],
    ) {
        if let Some(trace) = &self.trace {
            let begin = began.nanoseconds();
            let duration = ended.nanoseconds().saturating_sub(begin);
            trace.write(
                self.context,
                track,
                span,
                command,
                [begin, duration],
                arguments,
            );
        }
    }
}

#[cold]
#[inline(never)]
fn now() -> Started {
    Started::at(platform::monotonic())
}
