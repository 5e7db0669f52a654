//! [`Report`]: a page of shared memory in which a renderer writes what it counts and what it does,
//! so that another process can read that after the renderer has crashed.
//!
//! Each thread that carries out commands has a slot, and stores the number of each command in it.
//! That costs two instructions per command, and needs neither a lock nor a message. A renderer
//! without a report writes to memory of its own in the same way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hesper_venus_protocol::COMMANDS;

use crate::counters::{Counters, SharedTally, Tally, add};
use crate::error::Result;
use crate::memory::{SharedMemory, page_size};

/// Slots of the page. Threads beyond that share the last one.
const SLOTS: usize = 62;

/// In a slot: no command is being carried out.
const NOTHING: u32 = u32::MAX;

/// How many commands [`Report::commands`] names at most.
const MOST_NAMES: usize = 4;

/// The content of the page. It consists of atomics, and every value of each is valid.
#[derive(Debug)]
#[repr(C)]
struct Page {
    tally: Tally,
    slots: [Slot; SLOTS],
}

const _: () = assert!(size_of::<Page>() == 4096, "the smallest page");

/// The number of the command that a thread carries out. It has a cache line of its own, since
/// threads write often.
#[derive(Debug)]
#[repr(C, align(64))]
struct Slot(AtomicU32);

impl Default for Page {
    fn default() -> Self {
        Self {
            tally: Tally::default(),
            slots: std::array::from_fn(|_| Slot(AtomicU32::new(NOTHING))),
        }
    }
}

/// One page of shared memory with the counters of a renderer and, for each of its threads, the
/// command that it carries out. Clones are the same page.
///
/// Who reads need not trust who writes.
#[derive(Clone, Debug)]
pub struct Report {
    memory: Arc<SharedMemory>,
    fd: Arc<OwnedFd>,
}

impl Report {
    /// An empty report in fresh memory that cannot shrink.
    ///
    /// # Errors
    /// [`Error::SharedMemory`](crate::Error::SharedMemory) when the system has no memory,
    /// descriptors or mappings left.
    pub fn create() -> Result<Self> {
        let (memory, fd) = SharedMemory::create_to_share(page_size())?;
        let memory = Arc::new(memory);
        let report = Self { memory, fd };
        for slot in &report.page().slots {
            slot.0.store(NOTHING, Ordering::Relaxed);
        }
        Ok(report)
    }

    /// The report that another process has created.
    ///
    /// # Errors
    /// [`Error::SharedMemory`](crate::Error::SharedMemory) when the file is too small or cannot be
    /// mapped.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let fd = Arc::new(fd);
        let memory = SharedMemory::from_fd(Arc::clone(&fd), 0, page_size())?;
        let memory = Arc::new(memory);
        Ok(Self { memory, fd })
    }

    /// The descriptor of the page, for the other process.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What the renderer has counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.page().tally.read()
    }

    /// Counts a ring that this process has woken, beside those that the renderer wakes.
    pub fn count_wake(&self) {
        add(&self.page().tally.wakes, 1);
    }

    /// The names of commands that are being carried out now, at most four.
    #[must_use]
    pub fn commands(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for slot in &self.page().slots {
            let number = slot.0.load(Ordering::Relaxed);
            let command = usize::try_from(number).ok();
            let command = command.and_then(|number| COMMANDS.get(number)?.as_ref());
            if let Some(command) = command
                && names.len() < MOST_NAMES
                && !names.contains(&command.name)
            {
                names.push(command.name);
            }
        }
        names
    }

    fn page(&self) -> &Page {
        // SAFETY: the mapping is a page or more, so it is large enough and aligned, and it lives as
        // long as `self`. The content consists of atomics, so others may write to it, and every
        // value is valid.
        unsafe { &*self.memory.as_ptr().cast::<Page>().cast_const() }
    }
}

/// Where a renderer writes what it counts and does.
#[derive(Debug)]
pub(crate) struct Record {
    place: Place,
    /// Which slots have a thread, as bits. In private memory, since nobody else needs to know.
    taken: AtomicU64,
}

#[derive(Debug)]
enum Place {
    Private(Box<Page>),
    Shared(Report),
}

impl Record {
    /// A record in `report`, or in private memory.
    pub(crate) fn new(report: Option<Report>) -> Arc<Self> {
        Arc::new(Self {
            place: report.map_or_else(|| Place::Private(Box::default()), Place::Shared),
            taken: AtomicU64::new(0),
        })
    }

    fn page(&self) -> &Page {
        match &self.place {
            Place::Private(page) => page,
            Place::Shared(report) => report.page(),
        }
    }

    /// The counters.
    pub(crate) fn tally(self: &Arc<Self>) -> SharedTally {
        SharedTally::inside(Arc::clone(self), |record| &record.page().tally)
    }

    /// A slot for a thread that carries out commands.
    pub(crate) fn activity(&self) -> Activity<'_> {
        let order = Ordering::Relaxed;
        let own = |taken: u64| Some(taken.trailing_ones() as usize).filter(|at| *at + 1 < SLOTS);
        let with_own = |taken: u64| own(taken).map(|at| taken | 1 << at);
        let before = self.taken.fetch_update(order, order, with_own);
        let own = before.ok().and_then(own);
        let [slots @ .., last] = &self.page().slots;
        let slot = own.and_then(|at| slots.get(at)).unwrap_or(last);
        Activity {
            slot: &slot.0,
            record: self,
            own,
        }
    }
}

/// The slot of one thread.
pub(crate) struct Activity<'r> {
    slot: &'r AtomicU32,
    record: &'r Record,
    /// `None` for the slot that threads share.
    own: Option<usize>,
}

impl Activity<'_> {
    /// The thread carries out a command of this number from now on.
    #[inline]
    pub(crate) fn begin(&self, command: u32) {
        self.slot.store(command, Ordering::Relaxed);
    }

    /// The number of the last command that has begun.
    pub(crate) fn command(&self) -> u32 {
        self.slot.load(Ordering::Relaxed)
    }

    /// The thread carries out nothing.
    #[inline]
    pub(crate) fn end(&self) {
        self.slot.store(NOTHING, Ordering::Relaxed);
    }
}

impl Drop for Activity<'_> {
    fn drop(&mut self) {
        self.end();
        if let Some(at) = self.own {
            self.record.taken.fetch_and(!(1 << at), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use hesper_venus_protocol::CommandId;

    use super::*;
    use crate::counters::add;

    const SUBMIT: u32 = CommandId::QueueSubmit2 as u32;
    const WAIT: u32 = CommandId::QueueWaitIdle as u32;

    #[test]
    fn another_process_reads_the_counters_and_what_is_carried_out() {
        let report = Report::create().unwrap();
        assert_eq!(report.counters(), Counters::default());
        assert!(report.commands().is_empty());
        // As another process has it.
        let fd = report.fd().try_clone_to_owned().unwrap();
        let record = Record::new(Some(Report::from_fd(fd).unwrap()));
        add(&record.tally().commands, 7);
        assert_eq!(report.counters().commands, 7);
        let (one, other) = (record.activity(), record.activity());
        one.begin(WAIT);
        assert_eq!(one.command(), WAIT);
        one.begin(SUBMIT);
        assert_eq!(report.commands(), ["vkQueueSubmit2"]);
        other.begin(WAIT);
        assert_eq!(report.commands(), ["vkQueueSubmit2", "vkQueueWaitIdle"]);
        one.end();
        assert_eq!(report.commands(), ["vkQueueWaitIdle"]);
        drop(other);
        assert!(report.commands().is_empty());
        // The counters outlive the renderer.
        drop(one);
        drop(record);
        assert_eq!(report.counters().commands, 7);
    }

    #[test]
    fn a_page_of_any_bytes_is_read() {
        let report = Report::create().unwrap();
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            report.memory.write(0, &[byte; 4096]).unwrap();
            let mut sum = report.counters();
            sum.add(&report.counters());
            assert!(!sum.to_json().is_empty());
            assert!(report.commands().len() <= 1, "all slots are the same");
        }
        for (number, slot) in (0..).zip(&report.page().slots) {
            slot.0.store(number, Ordering::Relaxed);
        }
        assert_eq!(report.commands().len(), MOST_NAMES);
    }

    #[test]
    fn more_threads_than_slots_share_the_last() {
        let report = Report::create().unwrap();
        let record = Record::new(Some(report.clone()));
        let mut all: Vec<Activity<'_>> = (0..SLOTS + 3).map(|_| record.activity()).collect();
        all.last().unwrap().begin(SUBMIT);
        assert_eq!(report.commands(), ["vkQueueSubmit2"]);
        all.truncate(SLOTS);
        assert!(report.commands().is_empty(), "its thread has ended");
        // A slot that is free again is taken first.
        let first = all.swap_remove(0).slot;
        assert!(std::ptr::eq(record.activity().slot, first));
        drop(all);
        assert_eq!(record.taken.load(Ordering::Relaxed), 0);
    }
}
