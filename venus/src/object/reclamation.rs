//! [`Reclamation`]: when an object whose id is gone may be destroyed.
//!
//! A thread of a context finds an object's handle and passes it to the driver a moment later.
//! Meanwhile another thread may destroy the object. So destroying has two steps: the id is taken
//! out of the table at once, and the driver destroys the object as soon as no thread can still have
//! the handle. This is epoch-based reclamation:
//!
//! - Every decoding thread is a [`Member`]. It says when it begins and ends a batch, and passes a
//!   *boundary* every few commands. It keeps no handle from before the boundary.
//! - An object that is taken out gets the current epoch, and the epoch advances. Once every member
//!   has passed a boundary in a later epoch, or is at rest, no thread has the handle.
//! - A member that is about to wait, or to call something slow such as a compiler, says which
//!   [`Class`]es of handles it still uses. Objects of other classes do not wait for it.
//!
//! Usually only one thread of a context is busy. Then the object is destroyed at once, and nothing
//! is locked.
//!
//! The hard thing is the order of memory accesses. A member writes its state and then reads the
//! table. Who destroys writes the table and then reads the states. Both have a sequentially
//! consistent fence in between, so at least one of them sees the other.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hesper_system::sync::{Lock, Wait};
use hesper_venus_protocol::vk;
use hesper_venus_protocol::vk::HandleType as Kind;

use super::device::Device;
use super::table::Entry;

/// Objects that may wait to be destroyed. A guest that has more waits for its other threads.
const MOST_RETIRED: usize = 1 << 16;

/// How long a wait for other threads sleeps before it looks at its flag again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Kinds of handles that threads use for long at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Fences, semaphores and query pools: what is waited for.
    Sync = 0,
    /// What pipelines are made from.
    Pipeline = 1,
    /// Buffers and images: what memory can be dedicated to.
    Resource = 2,
    /// Everything else.
    Other = 3,
}

const CLASSES: usize = 4;

impl Class {
    /// The class of a `HandleType as u32`.
    const fn of(kind: u32) -> Self {
        const SYNC: [Kind; 3] = [Kind::Fence, Kind::Semaphore, Kind::QueryPool];
        const PIPELINE: [Kind; 5] = [
            Kind::Pipeline,
            Kind::PipelineCache,
            Kind::PipelineLayout,
            Kind::RenderPass,
            Kind::ShaderModule,
        ];
        const RESOURCE: [Kind; 2] = [Kind::Buffer, Kind::Image];
        match kind {
            _ if is_among(&SYNC, kind) => Self::Sync,
            _ if is_among(&PIPELINE, kind) => Self::Pipeline,
            _ if is_among(&RESOURCE, kind) => Self::Resource,
            _ => Self::Other,
        }
    }

    const fn bit(self) -> u64 {
        1 << self as u64
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "the index is below the length, and a const function has no iterators"
)]
const fn is_among(kinds: &[Kind], kind: u32) -> bool {
    let mut at = 0;
    while at < kinds.len() {
        if kinds[at] as u32 == kind {
            return true;
        }
        at += 1;
    }
    false
}

/// Bits of a state that hold the classes. The bits above hold the epoch.
const ALL: u64 = (1 << CLASSES) - 1;

/// The state of a member at rest.
const AT_REST: u64 = 0;

/// What the driver does once no thread has the handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// Destroys the object.
    Destroy(Entry),
    /// Destroys the fence when it is signalled.
    Abandon(vk::Fence),
}

impl Last {
    const fn class(&self) -> Class {
        match self {
            Self::Destroy(entry) => Class::of(entry.kind),
            Self::Abandon(_) => Class::Sync,
        }
    }

    #[inline(always)]
    fn run(&self, device: &Device) {
        match self {
            Self::Destroy(entry) => device.destroy_now(entry),
            Self::Abandon(fence) => device.raw().abandon_fence(*fence),
        }
    }
}

/// An object that is taken out of the table, and not yet destroyed.
struct Retired {
    device: Arc<Device>,
    last: Last,
    /// The epoch in which it was taken out.
    epoch: u64,
}

#[derive(Default)]
struct Inner {
    /// The state of every member.
    members: Vec<Arc<AtomicU64>>,
    /// By class, the oldest first.
    retired: [VecDeque<Retired>; CLASSES],
    /// Threads that are destroying what was in `retired`.
    destroying: usize,
}

impl Inner {
    /// The oldest epoch in which a member uses handles of these classes.
    fn horizon(&self, classes: u64) -> u64 {
        let states = self
            .members
            .iter()
            .map(|state| state.load(Ordering::Acquire));
        let using = states.filter(|state| state & classes != 0);
        using
            .map(|state| state >> CLASSES)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// The epoch of the oldest object of these classes that waits to be destroyed.
    fn oldest(&self, classes: u64) -> u64 {
        let retired = self.retired.iter().enumerate();
        let of_classes = retired.filter(|(class, _)| classes >> class & 1 != 0);
        let oldest = of_classes.filter_map(|(_, retired)| retired.front());
        oldest
            .map(|retired| retired.epoch)
            .min()
            .unwrap_or(u64::MAX)
    }
}

/// The objects of one context that wait to be destroyed, and the threads that they wait for.
pub(crate) struct Reclamation {
    epoch: AtomicU64,
    /// Members that are in a batch.
    busy: AtomicUsize,
    /// Objects in [`Inner::retired`], and members that wait for others.
    waiting: AtomicUsize,
    inner: Mutex<Inner>,
    /// A member has passed a boundary while somebody waited.
    passed: Condvar,
}

impl Default for Reclamation {
    fn default() -> Self {
        Self {
            // A state of epoch 0 without classes would look like rest.
            epoch: AtomicU64::new(1),
            busy: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            inner: Mutex::default(),
            passed: Condvar::new(),
        }
    }
}

impl Reclamation {
    /// A new member, at rest.
    pub(crate) fn join(&self) -> Member<'_> {
        let state = Arc::new(AtomicU64::new(AT_REST));
        self.inner.locked().members.push(Arc::clone(&state));
        Member {
            of: self,
            state,
            is_busy: Cell::new(false),
        }
    }

    /// Destroys what no member can have any more.
    #[cold]
    fn reclaim(&self) {
        let mut ready = Vec::new();
        let mut inner = self.inner.locked();
        for class in [Class::Sync, Class::Pipeline, Class::Resource, Class::Other] {
            let horizon = inner.horizon(class.bit());
            let Some(retired) = inner.retired.get_mut(class as usize) else {
                continue;
            };
            let count = retired.partition_point(|retired| retired.epoch < horizon);
            ready.extend(retired.drain(..count));
        }
        if !ready.is_empty() {
            inner.destroying += 1;
            drop(inner);
            for retired in &ready {
                retired.last.run(&retired.device);
            }
            // Counted only now: who sees 0 knows that all of them are destroyed.
            self.waiting.fetch_sub(ready.len(), Ordering::AcqRel);
            // This may destroy a device.
            drop(ready);
            self.inner.locked().destroying -= 1;
        }
        // Whoever waits for this member looks again.
        self.passed.notify_all();
    }

    /// Objects that wait to be destroyed.
    #[cfg(test)]
    pub(crate) fn retired(&self) -> usize {
        self.inner.locked().retired.iter().map(VecDeque::len).sum()
    }
}

/// A decoding thread.
pub(crate) struct Member<'r> {
    of: &'r Reclamation,
    state: Arc<AtomicU64>,
    is_busy: Cell<bool>,
}

impl Member<'_> {
    /// Uses handles of these classes from now on, and none that it has found before.
    #[inline]
    fn enter(&self, classes: u64) {
        let epoch = self.of.epoch.load(Ordering::Acquire);
        self.state
            .store(epoch << CLASSES | classes, Ordering::Release);
        // Pairs with the fence in `is_alone` and `advance`.
        fence(Ordering::SeqCst);
    }

    /// Begins a batch, or continues after a wait: handles are found from now on.
    #[inline]
    pub(crate) fn begin(&self) {
        self.is_busy.set(true);
        self.of.busy.fetch_add(1, Ordering::SeqCst);
        self.enter(ALL);
    }

    /// Ends the batch, or waits for something long: no handle is kept.
    #[inline]
    pub(crate) fn end(&self) {
        if self.is_busy.replace(false) {
            self.narrow_to(AT_REST);
            self.of.busy.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Uses, of the handles that it has, only those of a class until [`Member::widen`].
    pub(crate) fn keep_only(&self, class: Class) {
        let epoch = self.state.load(Ordering::Relaxed) & !ALL;
        self.narrow_to(epoch | class.bit());
    }

    /// Finds handles of all classes again. Those from before are not used any more.
    pub(crate) fn widen(&self) {
        self.enter(ALL);
    }

    #[inline]
    fn narrow_to(&self, state: u64) {
        // Everything that was done with the handles happens before they are destroyed.
        self.state.store(state, Ordering::Release);
        // Either who retires sees this state, or this thread sees that something waits.
        fence(Ordering::SeqCst);
        if self.of.waiting.load(Ordering::Relaxed) != 0 {
            self.of.reclaim();
        }
    }

    /// Passes a boundary between commands: no handle from before is kept. Waits here if too many
    /// objects wait to be destroyed, until `stop` says that the context ends.
    #[inline]
    pub(crate) fn boundary(&self, stop: impl Fn() -> bool) {
        let waiting = self.of.waiting.load(Ordering::Relaxed);
        if waiting != 0 {
            self.pass();
        }
        if waiting > MOST_RETIRED {
            // Nobody needs the answer: a context that ends destroys everything.
            let _ = self.wait_for_others(ALL, stop);
        }
    }

    #[cold]
    fn pass(&self) {
        // Destroying may take long, so others must not wait for this member meanwhile.
        self.narrow_to(AT_REST);
        self.enter(ALL);
    }

    /// Whether no other member is in a batch. What was taken out of the table before has no user
    /// then.
    #[inline]
    fn is_alone(&self) -> bool {
        // Pairs with the fence in `enter`: a member that is not counted here has not read the table
        // yet, and will not find what was taken out.
        fence(Ordering::SeqCst);
        self.of.busy.load(Ordering::Acquire) <= 1 && self.of.waiting.load(Ordering::Acquire) == 0
    }

    /// Does the last thing with an object that was taken out of the table, once no other thread has
    /// its handle. The current command must not use handles of its own after this.
    #[inline]
    pub(crate) fn retire(&self, device: &Arc<Device>, last: Last) {
        match self.is_alone() {
            true => last.run(device),
            false => self.retire_slowly(device, last),
        }
    }

    #[cold]
    #[inline(never)]
    fn retire_slowly(&self, device: &Arc<Device>, last: Last) {
        let mut inner = self.of.inner.locked();
        // Ordered under the lock, so that the queues are sorted by epoch.
        let retired = Retired {
            device: Arc::clone(device),
            last,
            epoch: self.advance(),
        };
        if let Some(queue) = inner.retired.get_mut(last.class() as usize) {
            queue.push_back(retired);
        }
        self.of.waiting.fetch_add(1, Ordering::AcqRel);
        drop(inner);
        self.pass();
    }

    /// Begins a new epoch, and returns the one before.
    fn advance(&self) -> u64 {
        let epoch = self.of.epoch.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        epoch
    }

    /// Waits until no other thread can have the handle of anything of this class that was taken out
    /// of the table before, and all of it is destroyed that was to be. False when `stop` says that
    /// the context ends.
    ///
    /// The caller holds no lock that another member may wait for, and has no handle that another
    /// member may destroy.
    pub(crate) fn synchronize(&self, class: Class, stop: impl Fn() -> bool) -> bool {
        self.is_alone() || self.wait_for_others(class.bit(), stop)
    }

    #[cold]
    fn wait_for_others(&self, classes: u64, stop: impl Fn() -> bool) -> bool {
        // From now on, the others do not wait for this member.
        self.state.store(AT_REST, Ordering::Release);
        let epoch = self.advance();
        self.of.waiting.fetch_add(1, Ordering::AcqRel);
        let has_passed = loop {
            self.of.reclaim();
            let inner = self.of.inner.locked();
            // Pairs with the fence of members that enter.
            fence(Ordering::SeqCst);
            let is_passed = inner.horizon(classes) > epoch;
            if is_passed && inner.destroying == 0 && inner.oldest(classes) > epoch {
                break true;
            }
            if stop() {
                break false;
            }
            drop(self.of.passed.waited_for(inner, LOOK_AGAIN));
        };
        self.of.waiting.fetch_sub(1, Ordering::AcqRel);
        self.enter(ALL);
        has_passed
    }

    /// Between two looks at what this member waits for, with the handles of [`Class::Sync`] that it
    /// keeps: lets others be destroyed. False when one of its own is to be destroyed.
    pub(crate) fn look_again(&self, handles: &[u64]) -> bool {
        if self.of.waiting.load(Ordering::Acquire) == 0 {
            return true;
        }
        let inner = self.of.inner.locked();
        let mut retired = inner.retired.iter().flatten().map(|retired| retired.last);
        let mine = retired.find_map(|last| match last {
            Last::Destroy(entry) if Class::of(entry.kind) == Class::Sync => {
                handles.contains(&entry.host).then_some(false)
            }
            // The guest may wait for the old payload of a fence that was reset.
            Last::Abandon(fence) => handles.contains(&fence.0).then_some(true),
            Last::Destroy(_) => None,
        });
        if mine.is_none() {
            // All of them are still in the table, so they count as found just now. Under the lock:
            // who takes one out after this begins a later epoch.
            self.enter(Class::Sync.bit());
        }
        drop(inner);
        self.of.reclaim();
        mine != Some(false)
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.end();
        let mut inner = self.of.inner.locked();
        inner
            .members
            .retain(|state| !Arc::ptr_eq(state, &self.state));
    }
}
