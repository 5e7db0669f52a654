//! [`FreedMemory`]: memory that the guest has freed, kept for its next allocations.
//!
//! Memory that the guest can map is imported by the driver, which makes all its pages and pins
//! them. That takes most of the time of `vkAllocateMemory`, and releasing them most of that of
//! `vkFreeMemory`. So the pages are kept together with the driver's `VkDeviceMemory`. The next
//! allocation of the same device, type, size and flags takes both.
//!
//! The hard thing is that nobody else may see what the program writes next. Memory stays in its
//! context, and is used again only when nobody else has its pages: no blob, no mapping of the VMM,
//! no screen, no other context (see [`SharedMemory::lent_fd`]). The guest may unmap after it has
//! freed, so this is asked when memory is taken, not when it comes.
//!
//! What is kept is charged to the context as before. It goes when the context needs the room for
//! something else, or has not needed it for [`KEPT_FOR`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hesper_system::budget::Charge;
use hesper_system::sync::Lock;
use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::vk;

use super::device::Memory;
use super::raw_device::RawDevice;
use crate::counters::{SharedTally, add, sub};
use crate::memory::SharedMemory;

/// How long memory is kept without being used. Programs that allocate again do so in the next
/// frame or the next step.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(1);

/// How often a thread that works looks for memory that was kept for too long.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How many pieces a context keeps. Taking one looks at all of them.
const MOST_PIECES: usize = 16;

/// How many bytes a context keeps. A few buffers for transfers have room; what a VM's other
/// programs may lack for a second is a thirty-second part of the usual window.
const MOST_BYTES: u64 = 256 << 20;

/// The largest memory that is kept: half of all, so that two that alternate have room.
const LARGEST: u64 = MOST_BYTES / 2;

/// Every device of Vulkan has at least so many allocations.
const LEAST_ALLOCATIONS: u64 = 4096;

/// For which allocations freed memory can be used again: those that want exactly the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    /// The driver's memory type.
    memory_type: u32,
    /// Bytes that are imported.
    size: u64,
    flags: vk::MemoryAllocateFlags,
}

impl Use {
    /// Bytes that are imported.
    pub(crate) fn size(self) -> u64 {
        self.size
    }

    /// What an allocation wants that imports `size` bytes. `None` if its memory must be its own:
    /// it asks for more than pages, or for more than is kept.
    ///
    /// # Safety
    /// The chain of `info` consists of live structs.
    pub(crate) unsafe fn of(info: &vk::MemoryAllocateInfo, size: u64) -> Option<Self> {
        const KNOWN: vk::MemoryAllocateFlags = vk::MemoryAllocateFlags::DEVICE_ADDRESS;
        // SAFETY: the caller's promise.
        let extra = unsafe { find::<vk::MemoryAllocateFlagsInfo>(info.p_next) };
        let (flags, is_plain) = match extra {
            // It must be the only struct, and a device that stands for several has masks.
            Some(extra) => {
                let is_first = std::ptr::from_ref(extra).cast() == info.p_next;
                let is_only = is_first && extra.p_next.is_null();
                (extra.flags, is_only && extra.device_mask == 0)
            }
            None => (vk::MemoryAllocateFlags::default(), info.p_next.is_null()),
        };
        let is_kept = is_plain && KNOWN.contains(flags) && size <= LARGEST;
        is_kept.then_some(Self {
            memory_type: info.memory_type_index,
            size,
            flags,
        })
    }
}

/// What the devices of a context keep together.
#[derive(Debug)]
pub(crate) struct Room {
    pieces: AtomicUsize,
    bytes: AtomicU64,
    device_memory: AtomicU64,
    /// When a thread looks for what is too old next, in milliseconds after `began`.
    next_look: AtomicU64,
    began: Instant,
    tally: SharedTally,
}

impl Room {
    /// Nothing is kept. `tally` counts what will be.
    pub(crate) fn new(tally: SharedTally) -> Self {
        Self {
            pieces: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            device_memory: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
            began: Instant::now(),
            tally,
        }
    }

    /// Whether nothing is kept.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.load(Ordering::Acquire) == 0
    }

    /// Bytes of shared memory that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the guest's device memory that are kept.
    pub(crate) fn device_memory(&self) -> u64 {
        self.device_memory.load(Ordering::Relaxed)
    }

    /// Whether it is time for somebody to look for what is too old. True for one caller only.
    #[cold]
    pub(crate) fn is_time_to_look(&self) -> bool {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = milliseconds(self.began.elapsed());
        let order = Ordering::Relaxed;
        let next = |due: u64| (due <= now).then(|| now.saturating_add(milliseconds(LOOK_EVERY)));
        self.next_look.fetch_update(order, order, next).is_ok()
    }

    /// Takes a place for memory of `bytes` bytes, if there is one.
    fn place(self: &Arc<Self>, bytes: u64, device_memory: u64) -> Option<Place> {
        let order = Ordering::AcqRel;
        let relaxed = Ordering::Relaxed;
        let one_more = |pieces: usize| (pieces < MOST_PIECES).then_some(pieces + 1);
        self.pieces.fetch_update(order, relaxed, one_more).ok()?;
        let more = |sum: u64| sum.checked_add(bytes).filter(|sum| *sum <= MOST_BYTES);
        if self.bytes.fetch_update(relaxed, relaxed, more).is_err() {
            self.pieces.fetch_sub(1, order);
            return None;
        }
        self.device_memory.fetch_add(device_memory, relaxed);
        add(&self.tally.kept_bytes, bytes);
        Some(Place {
            of: Arc::clone(self),
            bytes,
            device_memory,
        })
    }
}

/// A piece of a [`Room`], given back on drop.
#[derive(Debug)]
struct Place {
    of: Arc<Room>,
    bytes: u64,
    device_memory: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        sub(&self.of.tally.kept_bytes, self.bytes);
        let order = Ordering::Relaxed;
        self.of.device_memory.fetch_sub(self.device_memory, order);
        self.of.bytes.fetch_sub(self.bytes, order);
        self.of.pieces.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Memory that is kept. Whoever takes it out uses it again or destroys it.
#[must_use]
pub(crate) struct Kept {
    host: vk::DeviceMemory,
    shared: Arc<SharedMemory>,
    /// Its bytes of the guest's device memory.
    _charge: Charge,
    used_for: Use,
    since: Instant,
    place: Option<Place>,
}

impl Kept {
    /// The driver's memory and its pages, no longer charged to the guest's device memory.
    pub(crate) fn into_parts(self) -> (vk::DeviceMemory, Arc<SharedMemory>) {
        (self.host, self.shared)
    }

    /// Whether nobody else has the pages, or can get them.
    fn is_alone(&mut self) -> bool {
        !self.shared.is_given_away() && Arc::get_mut(&mut self.shared).is_some()
    }
}

/// The freed memory of a device, the oldest first.
pub(crate) struct FreedMemory {
    kept: Mutex<VecDeque<Kept>>,
    room: Arc<Room>,
}

impl FreedMemory {
    /// Nothing is kept. What will be takes a part of `room`.
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self {
            kept: Mutex::default(),
            room: Arc::clone(room),
        }
    }

    /// How many pieces are kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.locked().len()
    }

    /// Whether the device must not have one more allocation while so many live and all this is
    /// kept. `most` is `maxMemoryAllocationCount`.
    pub(crate) fn is_in_the_way(&self, live: usize, most: u32) -> bool {
        let all = live.saturating_add(self.len()) as u64;
        !self.room.is_empty() && all >= u64::from(most).max(LEAST_ALLOCATIONS)
    }

    /// Keeps memory that no thread uses any more, if it can be used again. Returns it if not, and
    /// what had to go for it. Both are to be destroyed.
    pub(crate) fn keep(
        &self,
        host: u64,
        memory: Memory,
        now: Instant,
    ) -> (Option<Memory>, Vec<Kept>) {
        let mut gone = Vec::new();
        let (Some(used_for), Some(shared)) = (memory.reusable, &memory.shared) else {
            return (Some(memory), gone);
        };
        let bytes = shared.len() as u64;
        if shared.is_given_away() || bytes > LARGEST {
            return (Some(memory), gone);
        }
        let charged = memory.allocated.as_ref().map_or(0, |one| one.charged());
        let mut kept = self.kept.locked();
        let place = loop {
            if let Some(place) = self.room.place(bytes, charged) {
                break place;
            }
            match kept.pop_front() {
                Some(mut oldest) => {
                    oldest.place = None;
                    gone.push(oldest);
                }
                // Other devices have it all.
                None => return (Some(memory), gone),
            }
        };
        let Memory {
            shared, allocated, ..
        } = memory;
        if let Some(shared) = shared {
            kept.push_back(Kept {
                host: vk::DeviceMemory(host),
                shared,
                _charge: allocated.map(|one| one.into_charge()).unwrap_or_default(),
                used_for,
                since: now,
                place: Some(place),
            });
        }
        (None, gone)
    }

    /// Takes out memory for an allocation, the one that was kept last.
    pub(crate) fn take(&self, wanted: Use) -> Option<Kept> {
        if self.room.is_empty() {
            return None;
        }
        let mut kept = self.kept.locked();
        let fits = |one: &mut Kept| one.used_for == wanted && one.is_alone();
        let place = kept.iter_mut().rposition(fits)?;
        kept.remove(place)
    }

    /// Takes out what is kept since before `until`; everything without it.
    pub(crate) fn take_out(&self, until: Option<Instant>) -> Vec<Kept> {
        let mut kept = self.kept.locked();
        let count = match until {
            Some(until) => kept.partition_point(|one| one.since < until),
            None => kept.len(),
        };
        kept.drain(..count).collect()
    }
}

/// Destroys memory that was kept by this device.
pub(crate) fn destroy(device: &RawDevice, kept: Vec<Kept>) {
    for one in kept {
        free(device, one.host);
        // The pages are freed after the driver has released them.
        drop(one);
    }
}

/// Destroys memory that was taken and that no allocation has got.
pub(crate) fn free(device: &RawDevice, memory: vk::DeviceMemory) {
    if let Some(function) = device.functions.free_memory {
        // SAFETY: memory of this device that no thread uses and no table has: the guest has freed
        // it, and only one caller can take it out of where it was kept.
        unsafe { function(device.handle, memory, std::ptr::null()) };
    }
}

#[cfg(test)]
#[path = "freed_memory_tests.rs"]
mod tests;
