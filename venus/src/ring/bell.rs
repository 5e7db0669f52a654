//! [`Bell`]: wakes the thread of a ring.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use crate::bells::{Bells, Seat, Slot};
use crate::platform;
use crate::trace::Started;

/// Wakes the thread of a ring. Where the system has such words, the thread sleeps on a word that
/// others change, and perhaps another process ([`Bells`]). Else it parks.
#[derive(Debug)]
pub(crate) struct Bell {
    place: Place,
    thread: OnceLock<Thread>,
}

#[derive(Debug)]
enum Place {
    Own(Slot),
    Shared(Seat),
}

impl Bell {
    /// A bell for the ring with this id, one of `bells` if there is one left.
    pub(crate) fn new(bells: Option<&Bells>, ring: u64) -> Self {
        let place = match bells.and_then(|bells| bells.take(ring)) {
            Some(seat) => Place::Shared(seat),
            None => {
                let slot = Slot::default();
                slot.open(ring);
                Place::Own(slot)
            }
        };
        Self {
            place,
            thread: OnceLock::new(),
        }
    }

    fn slot(&self) -> &Slot {
        match &self.place {
            Place::Own(slot) => slot,
            Place::Shared(seat) => seat.slot(),
        }
    }

    fn word(&self) -> &AtomicU32 {
        self.slot().word()
    }

    /// Says that this thread is the one to wake. A second one would be a bug of the caller; the
    /// first one is still woken then.
    pub(crate) fn is_mine(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    /// [`UNRUNG`](crate::bells::UNRUNG), and another number each time somebody has rung.
    pub(crate) fn seen(&self) -> u32 {
        self.word().load(Ordering::SeqCst)
    }

    /// When somebody rang first since this was 0, in nanoseconds, if that is recorded.
    pub(crate) fn rung_at(&self) -> &AtomicU64 {
        &self.slot().rung_at
    }

    /// Wakes the thread, or lets its next sleep end at once. `at` is for a trace.
    pub(crate) fn ring(&self, at: Started) {
        self.slot().note(at);
        self.slot().ring();
        self.wake();
    }

    /// The same for the last time.
    pub(crate) fn close(&self) {
        self.slot().close();
        self.wake();
    }

    fn wake(&self) {
        if platform::has_words() {
            platform::wake_word(self.word());
        } else if let Some(thread) = self.thread.get() {
            // Before the thread is known here, it has not looked at anything, so nothing is missed.
            thread.unpark();
        }
    }

    /// Sleeps for so long at most, unless [`Bell::seen`] is another number than `seen`. May also
    /// end early.
    pub(crate) fn wait(&self, seen: u32, most: Option<Duration>) {
        if platform::has_words() {
            platform::wait_on_word(self.word(), seen, most);
        } else if self.seen() == seen {
            match most {
                Some(most) => std::thread::park_timeout(most),
                None => std::thread::park(),
            }
        }
    }
}
