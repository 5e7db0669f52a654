//! [`Bells`]: a page of shared memory through which another process wakes the threads of rings.
//!
//! A guest that finds a ring asleep sends `vkNotifyRingMESA`. If the renderer is a process of its
//! own, that command would wake a thread there, which would wake the ring's. The front end rings a
//! bell instead: it changes a word in this page, on which the ring's thread sleeps.
//!
//! The renderer writes which ring has which bell, and the front end looks that up. It may be wrong
//! about a ring whose id was given to another one: then it changes a word on which nobody sleeps,
//! or wakes a thread that finds nothing to do. No wake-up is lost. The guest notifies a ring that
//! it has seen asleep. A ring that took the id of another one can sleep only after the other's bell
//! was closed, and the front end looks for open bells after that.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;

use crate::context::immediate::Immediate;
use crate::error::Result;
use crate::memory::{SharedMemory, page_size};
use crate::platform;
use crate::trace::Started;

/// Bells of the page. Rings beyond that have bells that only their own process can ring.
const SLOTS: usize = 127;

/// In a bell's word: it has a ring. The other bits count.
const OPEN: u32 = 1;

/// The word of a bell that nobody has rung since it was opened.
pub(crate) const UNRUNG: u32 = OPEN;

/// The content of the page. It consists of atomics, and every value of each is valid.
#[derive(Debug)]
#[repr(C)]
struct Page {
    /// No bell behind this one was ever open.
    used: AtomicU64,
    _unused: [u64; 3],
    slots: [Slot; SLOTS],
}

const _: () = assert!(size_of::<Page>() == 4096, "the smallest page");

/// A bell.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub(crate) struct Slot {
    /// The guest's id of its ring.
    ring: AtomicU64,
    /// When it was rung, if that is recorded, for the thread to find. Else 0.
    pub(crate) rung_at: AtomicU64,
    /// [`OPEN`], and a number that changes whenever it is rung.
    word: AtomicU32,
}

impl Slot {
    /// Opens it for a ring. No thread may sleep on it. The word is [`UNRUNG`] then.
    pub(crate) fn open(&self, ring: u64) {
        self.ring.store(ring, Ordering::Relaxed);
        self.rung_at.store(0, Ordering::Relaxed);
        self.word.store(UNRUNG, Ordering::SeqCst);
    }

    /// Closes it. The word changes if it was open.
    pub(crate) fn close(&self) {
        self.word.fetch_and(!OPEN, Ordering::SeqCst);
    }

    /// The word on which the thread sleeps.
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.word
    }

    /// Notes when it is rung.
    pub(crate) fn note(&self, at: Started) {
        if at.is_recorded() {
            let order = Ordering::Relaxed;
            // The first one is the one that wakes.
            let now = at.nanoseconds();
            let _ = self.rung_at.compare_exchange(0, now, order, order);
        }
    }

    /// Changes the word, without waking anybody. False when it was closed.
    pub(crate) fn ring(&self) -> bool {
        self.word.fetch_add(2 * OPEN, Ordering::SeqCst) & OPEN != 0
    }
}

/// The bells of a renderer's rings, in a page of shared memory. Clones are the same page.
///
/// Who rings need not trust who sleeps: nothing in the page can make it wait or fail.
#[derive(Clone, Debug)]
pub struct Bells {
    memory: Arc<SharedMemory>,
    fd: Arc<OwnedFd>,
    /// Which slots have a ring, as bits. In private memory, since nobody else needs to know.
    taken: Arc<Mutex<u128>>,
}

impl Bells {
    /// Bells that nobody has, in fresh memory that cannot shrink.
    ///
    /// # Errors
    /// [`Error::SharedMemory`](crate::Error::SharedMemory) when the system has no memory,
    /// descriptors or mappings left.
    pub fn create() -> Result<Self> {
        let (memory, fd) = SharedMemory::create_to_share(page_size())?;
        Ok(Self::of(memory, fd))
    }

    /// The bells that another process has created.
    ///
    /// # Errors
    /// [`Error::SharedMemory`](crate::Error::SharedMemory) when the file is too small or cannot be
    /// mapped.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let fd = Arc::new(fd);
        let memory = SharedMemory::from_fd(Arc::clone(&fd), 0, page_size())?;
        Ok(Self::of(memory, fd))
    }

    fn of(memory: SharedMemory, fd: Arc<OwnedFd>) -> Self {
        Self {
            memory: Arc::new(memory),
            fd,
            taken: Arc::default(),
        }
    }

    /// The descriptor of the page, for the other process.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Carries out `commands` here if they are one `vkNotifyRingMESA` for a ring that has a bell.
    /// False when somebody else must carry them out. `at` is when they came, for a trace.
    #[must_use]
    pub fn notify(&self, commands: &[u8], at: Started) -> bool {
        let Some(Immediate::Notify(ring)) = Immediate::of(commands) else {
            return false;
        };
        let page = self.page();
        let used = page.used.load(Ordering::Acquire);
        let used = usize::try_from(used).unwrap_or(SLOTS);
        let is_open = |slot: &&Slot| {
            let is_open = slot.word.load(Ordering::SeqCst) & OPEN != 0;
            is_open && slot.ring.load(Ordering::Relaxed) == ring
        };
        let Some(slot) = page.slots.iter().take(used).find(is_open) else {
            return false;
        };
        slot.note(at);
        let is_rung = slot.ring();
        platform::wake_word(&slot.word);
        is_rung
    }

    /// A bell for a ring. `None` when there is none left, or when threads cannot sleep on words on
    /// this system.
    pub(crate) fn take(&self, ring: u64) -> Option<Seat> {
        if !platform::has_words() {
            return None;
        }
        let mut taken = self.taken.locked();
        let index = taken.trailing_ones() as usize;
        if index >= SLOTS {
            return None;
        }
        *taken |= 1 << index;
        drop(taken);
        let seat = Seat {
            bells: self.clone(),
            index,
        };
        let used = index as u64 + 1;
        self.page().used.fetch_max(used, Ordering::AcqRel);
        seat.slot().open(ring);
        Some(seat)
    }

    fn page(&self) -> &Page {
        // SAFETY: the mapping is a page or more, so it is large enough and aligned, and it lives as
        // long as `self`. The content consists of atomics, so others may write to it, and every
        // value is valid.
        unsafe { &*self.memory.as_ptr().cast::<Page>().cast_const() }
    }
}

/// A bell that a ring has. Others may have it when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    bells: Bells,
    /// Below [`SLOTS`].
    index: usize,
}

impl Seat {
    #[expect(
        clippy::indexing_slicing,
        reason = "the index is below the length of the array"
    )]
    pub(crate) fn slot(&self) -> &Slot {
        &self.bells.page().slots[self.index]
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.slot().close();
        *self.bells.taken.locked() &= !(1 << self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `vkNotifyRingMESA` as a guest sends it.
    fn notification(ring: u64) -> Vec<u8> {
        [190_u64, ring, 0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    #[test]
    fn only_rings_that_have_a_bell_are_notified_by_another_process() {
        let front_end = Bells::create().unwrap();
        let fd = front_end.fd().try_clone_to_owned().unwrap();
        let renderer = Bells::from_fd(fd).unwrap();
        let notify = |ring| front_end.notify(&notification(ring), Started::NOT);
        assert!(!notify(7));
        let seat = renderer.take(7).unwrap();
        let before = seat.slot().word.load(Ordering::SeqCst);
        assert!(!notify(8));
        assert_eq!(seat.slot().word.load(Ordering::SeqCst), before);
        assert!(notify(7));
        assert_ne!(seat.slot().word.load(Ordering::SeqCst), before);
        // What is not a notification alone is somebody else's.
        let two = [notification(7), notification(7)].concat();
        assert!(!front_end.notify(&two, Started::NOT));

        // The id is another ring's now.
        seat.slot().close();
        assert!(!notify(7));
        let next = renderer.take(7).unwrap();
        assert_ne!(next.index, seat.index);
        assert!(notify(7));
        drop((seat, next));
        assert!(!notify(7));
    }

    #[test]
    fn a_bell_is_anothers_when_its_ring_is_gone_and_none_is_left_at_the_end() {
        let bells = Bells::create().unwrap();
        let mut seats: Vec<Seat> = (0..).map_while(|ring| bells.take(ring)).collect();
        assert_eq!(seats.len(), SLOTS);
        let last = SLOTS as u64 - 1;
        assert!(bells.notify(&notification(last), Started::NOT));
        seats.pop();
        assert!(!bells.notify(&notification(last), Started::NOT));
        assert_eq!(bells.take(1000).unwrap().index, SLOTS - 1);
    }

    /// Whatever is in the page, who rings comes back.
    #[test]
    fn a_hostile_page_holds_up_nobody() {
        let bells = Bells::create().unwrap();
        for at in (0..4096).step_by(4) {
            let word = bells.memory.word(at).unwrap();
            word.store(u32::MAX, Ordering::Relaxed);
        }
        assert!(bells.notify(&notification(u64::MAX), Started::NOT));
        assert!(!bells.notify(&notification(1), Started::NOT));
    }
}
