//! [`Trace`]: the shared memory of a trace.
//!
//! A writer takes the next place by an atomic addition, fills it, and stores the number of the
//! recording last. So a reader finds whole records only. When all places are taken, further records
//! are counted and lost.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;

use super::{Event, Span, Track, command_name};
use crate::error::Result;
use crate::memory::SharedMemory;
use crate::platform;

/// Bytes of a trace. A page that was never written costs nothing.
const SIZE: u64 = 16 << 20;

/// How many records a trace holds.
const PLACES: usize = (SIZE as usize - 2 * 64) / size_of::<Record>();

/// How many names of contexts are remembered.
const MOST_NAMES: usize = 4096;

/// Something on a cache line of its own, since threads write often.
#[derive(Debug)]
#[repr(C, align(64))]
struct Line<T>(T);

/// The content. It consists of atomics, and every value of each is valid.
#[derive(Debug)]
#[repr(C)]
struct Content {
    /// The number of the recording; 0 while there is none.
    recording: Line<AtomicU32>,
    /// The next place. Beyond [`PLACES`] it counts what was lost.
    next: Line<AtomicU64>,
    records: [Record; PLACES],
}

const _: () = assert!(
    size_of::<Content>() as u64 <= SIZE,
    "the whole content fits"
);

#[derive(Debug)]
#[repr(C)]
struct Record {
    /// The recording that it belongs to. Stored last.
    recording: AtomicU32,
    /// [`Span`], and the kind of the [`Track`] above 8 bits.
    kinds: AtomicU32,
    command: AtomicU32,
    context: AtomicU32,
    /// The number of the track.
    number: AtomicU64,
    /// Begin and duration.
    time: [AtomicU64; 2],
    arguments: [AtomicU64; 2],
}

/// The names of contexts in this process, by their ids.
#[derive(Debug, Default)]
struct Names(BTreeMap<u32, Name>);

#[derive(Debug)]
struct Name {
    text: String,
    /// Contexts with this id that live. The guest uses an id again before the last one has ended.
    alive: usize,
}

/// What only this process knows of a trace.
#[derive(Debug)]
struct Inner {
    memory: SharedMemory,
    fd: Arc<OwnedFd>,
    /// The number of the recording and when it began, if there is one. The memory may say something
    /// else, because a writer may want to harm this process.
    current: Mutex<Option<(u32, u64)>>,
    last: AtomicU32,
    names: Mutex<Names>,
}

/// The memory in which a renderer records what its threads do. Clones are the same memory.
///
/// Records are kept until it is full: some 290,000. Who reads need not trust who writes.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Inner>);

/// What was recorded.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The records, in no order.
    pub events: Vec<Event>,
    /// How many did not fit, or cannot be read.
    pub lost: u64,
    /// When the recording began, in nanoseconds of the system's monotonic clock.
    pub began: u64,
    /// The names of the contexts of this process.
    pub names: BTreeMap<u32, String>,
}

impl Trace {
    /// An empty trace, which records nothing yet, in fresh memory that cannot shrink.
    ///
    /// # Errors
    /// [`Error::SharedMemory`](crate::Error::SharedMemory) when the system has no memory,
    /// descriptors or mappings left.
    pub fn create() -> Result<Self> {
        let (memory, fd) = SharedMemory::create_to_share(SIZE)?;
        Ok(Self::new(memory, fd))
    }

    /// The trace that another process has created.
    ///
    /// # Errors
    /// [`Error::SharedMemory`](crate::Error::SharedMemory) when the file is too small or cannot be
    /// mapped.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let fd = Arc::new(fd);
        let memory = SharedMemory::from_fd(Arc::clone(&fd), 0, SIZE)?;
        Ok(Self::new(memory, fd))
    }

    fn new(memory: SharedMemory, fd: Arc<OwnedFd>) -> Self {
        Self(Arc::new(Inner {
            memory,
            fd,
            current: Mutex::default(),
            last: AtomicU32::new(0),
            names: Mutex::default(),
        }))
    }

    /// The descriptor of the memory, for the other process.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    /// Begins to record. False when it does already.
    #[must_use]
    pub fn start(&self) -> bool {
        let mut current = self.0.current.locked();
        if current.is_some() {
            return false;
        }
        // Never 0.
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) % (u32::MAX - 1) + 1;
        *current = Some((number, platform::monotonic()));
        let content = self.content();
        content.next.0.store(0, Ordering::Relaxed);
        content.recording.0.store(number, Ordering::Release);
        true
    }

    /// Ends the recording, and returns the first `most` records of it. `None` when there is none.
    ///
    /// A span that has not ended is not recorded.
    #[must_use]
    pub fn stop(&self, most: usize) -> Option<Recorded> {
        let mut current = self.0.current.locked();
        let (number, began) = current.take()?;
        let content = self.content();
        content.recording.0.store(0, Ordering::Relaxed);
        let taken = content.next.0.load(Ordering::Relaxed);
        let count = usize::try_from(taken).unwrap_or(usize::MAX);
        let records = content.records.iter().take(count.min(most));
        let events: Vec<Event> = records.filter_map(|record| record.read(number)).collect();
        // Pages that a trace has used need not stay.
        platform::forget(self.fd(), SIZE);
        Some(Recorded {
            lost: taken.saturating_sub(events.len() as u64),
            events,
            began,
            names: self.0.names.locked().at_end_of_recording(),
        })
    }

    /// Remembers the name of a context, for who reads the trace.
    pub(crate) fn name(&self, context: u32, name: &str) {
        let is_recorded = self.0.current.locked().is_some();
        self.0.names.locked().enter(context, name, is_recorded);
    }

    /// The context has ended. Its name is forgotten, unless a recording may have its id.
    pub(crate) fn has_ended(&self, context: u32) {
        let is_recorded = self.0.current.locked().is_some();
        self.0.names.locked().leave(context, is_recorded);
    }

    /// Whether something is recorded, as the writers see it.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.content().recording.0.load(Ordering::Relaxed) != 0
    }

    /// Writes a record, if something is recorded.
    pub(super) fn write(
        &self,
        context: u32,
        track: Track,
        span: Span,
        command: u32,
        time: [u64; 2],
        arguments: [u64; 2],
    ) {
        let content = self.content();
        let recording = content.recording.0.load(Ordering::Acquire);
        if recording == 0 {
            return;
        }
        let place = content.next.0.fetch_add(1, Ordering::Relaxed);
        let place = usize::try_from(place).ok();
        let Some(record) = place.and_then(|place| content.records.get(place)) else {
            return;
        };
        let (kind, number) = track.to_numbers();
        let order = Ordering::Relaxed;
        record.kinds.store(span as u32 | kind << 8, order);
        record.command.store(command, order);
        record.context.store(context, order);
        record.number.store(number, order);
        let [begin, duration] = &record.time;
        let [first, second] = &record.arguments;
        begin.store(time[0], order);
        duration.store(time[1], order);
        first.store(arguments[0], order);
        second.store(arguments[1], order);
        record.recording.store(recording, Ordering::Release);
    }

    #[inline]
    fn content(&self) -> &Content {
        // SAFETY: the mapping has `SIZE` bytes or more, so it is large enough and aligned, and it
        // lives as long as `self`. The content consists of atomics, so others may write to it, and
        // every value is valid.
        unsafe { &*self.0.memory.as_ptr().cast::<Content>().cast_const() }
    }

    /// How many places were taken since the last start.
    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.content().next.0.load(Ordering::Relaxed)
    }

    /// Fills all of it with this byte, as a hostile writer may.
    #[cfg(test)]
    pub(super) fn fill(&self, byte: u8) {
        let bytes = vec![byte; SIZE as usize];
        assert!(self.0.memory.write(0, &bytes).is_some());
    }

    /// Stores these words in all records, as a hostile writer may, and takes all places.
    #[cfg(test)]
    pub(super) fn fill_records(&self, kinds: u32, command: u32, word: u64) {
        let content = self.content();
        let order = Ordering::Relaxed;
        for record in &content.records {
            record.kinds.store(kinds, order);
            record.command.store(command, order);
            record.context.store(word as u32, order);
            record.number.store(word, order);
            for number in record.time.iter().chain(&record.arguments) {
                number.store(word, order);
            }
            let recording = content.recording.0.load(order);
            record.recording.store(recording, Ordering::Release);
        }
        content.next.0.store(u64::MAX, order);
    }

    /// How many records it holds.
    #[cfg(test)]
    pub(super) const PLACES: usize = PLACES;
}

impl Record {
    /// The event, if the record belongs to this recording and is one.
    fn read(&self, recording: u32) -> Option<Event> {
        if self.recording.load(Ordering::Acquire) != recording {
            return None;
        }
        let order = Ordering::Relaxed;
        let kinds = self.kinds.load(order);
        let span = Span::from_number(kinds & 0xff)?;
        let track = Track::from_numbers(kinds >> 8, self.number.load(order))?;
        let [begin, duration] = &self.time;
        let [first, second] = &self.arguments;
        Some(Event {
            span,
            track,
            context: self.context.load(order),
            command: command_name(self.command.load(order)),
            begin: begin.load(order),
            duration: duration.load(order),
            arguments: [first.load(order), second.load(order)],
        })
    }
}

impl Names {
    fn enter(&mut self, context: u32, text: &str, is_recorded: bool) {
        if let Some(known) = self.0.get_mut(&context) {
            known.text = match is_recorded && known.text != text {
                true => format!("{}, then {text}", first_words(&known.text)),
                false => text.to_owned(),
            };
            known.alive += 1;
        } else if self.0.len() < MOST_NAMES {
            let text = text.to_owned();
            self.0.insert(context, Name { text, alive: 1 });
        }
    }

    fn leave(&mut self, context: u32, is_recorded: bool) {
        if let Some(known) = self.0.get_mut(&context) {
            known.alive = known.alive.saturating_sub(1);
            if known.alive == 0 && !is_recorded {
                self.0.remove(&context);
            }
        }
    }

    fn at_end_of_recording(&mut self) -> BTreeMap<u32, String> {
        let names = self.0.iter();
        let names = names.map(|(id, name)| (*id, name.text.clone())).collect();
        self.0.retain(|_, name| name.alive > 0);
        names
    }
}

/// The text, cut off where it is long: a guest may make contexts with one id in a loop.
fn first_words(text: &str) -> String {
    const LONGEST: usize = 200;
    text.chars().take(LONGEST).collect()
}
