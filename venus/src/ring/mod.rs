//! Rings: command buffers in shared memory that a guest fills and a thread of Hesper empties
//! (`VK_MESA_venus_protocol`, `vkCreateRingMESA`).
//!
//! [`Ring`] is what other threads see of a ring: they notify it, wait for its position, stop it.
//! [`run`] is its thread. It copies what is between head and tail, hands it to a [`Consumer`], and
//! publishes the head.
//!
//! The hard thing is to sleep without missing work. The thread sets IDLE, and then reads the tail
//! once more. The guest stores the tail, and then reads IDLE. Both are sequentially consistent, so
//! at least one of them sees the other. Publishing the head works in the same way with a thread
//! that waits for it ([`Ring::wait_seqno`]).

mod bell;
mod idle;
mod layout;
mod pace;
mod rings;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use hesper_system::sync::{Lock, Wait};

pub(crate) use bell::Bell;
use idle::Idle;
pub(crate) use layout::{Layout, Request};
use pace::{Pace, Pause, Places};
pub(crate) use rings::Rings;

use crate::bells::UNRUNG;
use crate::command_stream::RingStream;
use crate::fatal::Fatal;
use crate::platform;
use crate::trace::{Lane, Started};

/// `VK_RING_STATUS_IDLE_BIT_MESA`: the guest must notify.
const IDLE: u32 = 1;
/// `VK_RING_STATUS_FATAL_BIT_MESA`: the guest must give up.
const FATAL: u32 = 2;
/// `VK_RING_STATUS_ALIVE_BIT_MESA`: the renderer's process lives.
const ALIVE: u32 = 4;

/// Carries out the commands that a ring brings.
pub(crate) trait Consumer {
    /// Carries out all commands of the stream. Publishes the head wherever the guest may be waiting
    /// for it: after a reply, and before the consumer itself waits.
    fn consume(&mut self, stream: &RingStream<'_>) -> Result<(), Fatal>;

    /// Nothing came for [`RELEASE_AFTER`]: memory that is held for the next commands can be
    /// released.
    fn idle(&mut self);
}

/// When a guest has taken a ring's memory, it must destroy the ring within this time.
const SOON: Duration = Duration::from_millis(200);

/// A ring that has slept so long releases the memory for its commands.
const RELEASE_AFTER: Duration = Duration::from_secs(1);

/// A ring as other threads see it.
pub(crate) struct Ring {
    layout: Layout,
    idle_timeout: Duration,
    /// How often ALIVE must be set, if the guest watches it.
    pub(crate) monitor_period: Option<Duration>,
    bell: Bell,
    stopping: AtomicBool,
    /// Somebody is in [`Ring::wait_seqno`].
    has_waiter: AtomicBool,
    head_moved: (Mutex<()>, Condvar),
    virtqueue_seqno: AtomicU64,
    /// The head that was published last, or what no head is.
    published: AtomicU64,
    /// What its thread records.
    lane: Lane,
}

impl Ring {
    /// A ring whose thread does not run yet.
    pub(crate) fn new(
        layout: Layout,
        idle_timeout: Duration,
        monitor_period: Option<Duration>,
        bell: Bell,
        lane: Lane,
    ) -> Self {
        let ring = Self {
            layout,
            idle_timeout,
            monitor_period,
            bell,
            stopping: AtomicBool::new(false),
            has_waiter: AtomicBool::new(false),
            head_moved: (Mutex::new(()), Condvar::new()),
            virtqueue_seqno: AtomicU64::new(0),
            published: AtomicU64::new(u64::MAX),
            lane,
        };
        ring.set_alive();
        ring
    }

    /// Wakes the thread: `vkNotifyRingMESA`.
    pub(crate) fn notify(&self) {
        self.bell.ring(self.lane.begin());
    }

    /// What its thread records.
    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Ends the thread, soon.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.bell.close();
        drop(self.head_moved.0.locked());
        self.head_moved.1.notify_all();
    }

    /// Tells the guest that its context is lost, and ends the thread.
    pub(crate) fn fail(&self) {
        if let Some(status) = self.layout.status() {
            status.fetch_or(FATAL, Ordering::SeqCst);
        }
        self.stop();
    }

    /// Tells the guest that this process lives.
    pub(crate) fn set_alive(&self) {
        if let Some(status) = self.layout.status() {
            status.fetch_or(ALIVE, Ordering::SeqCst);
        }
    }

    /// Writes a word of the extra region: `vkWriteRingExtraMESA`.
    pub(crate) fn write_extra(&self, offset: usize, value: u32) -> Result<(), Fatal> {
        let word = self.layout.extra(offset).ok_or(Fatal::RingExtra(offset))?;
        word.store(value, Ordering::Release);
        Ok(())
    }

    /// Waits until the ring has consumed everything up to `seqno`, or ends: `vkWaitRingSeqnoMESA`.
    pub(crate) fn wait_seqno(&self, seqno: u32) {
        let mut guard = self.head_moved.0.locked();
        self.has_waiter.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while !self.has_reached(seqno) && !self.stopping.load(Ordering::Acquire) {
            guard = self.head_moved.1.waited(guard);
        }
        self.has_waiter.store(false, Ordering::Relaxed);
    }

    /// Whether everything up to `seqno` is consumed. Positions wrap at 2^32.
    pub(crate) fn has_reached(&self, seqno: u32) -> bool {
        let head = self
            .layout
            .head()
            .map_or(0, |head| head.load(Ordering::Acquire));
        head.wrapping_sub(seqno).cast_signed() >= 0
    }

    /// Lets the ring pass [`Ring::wait_virtqueue`] up to `seqno`: `vkSubmitVirtqueueSeqnoMESA`.
    pub(crate) fn submit_virtqueue(&self, seqno: u64) {
        self.virtqueue_seqno.fetch_max(seqno, Ordering::AcqRel);
        self.bell.ring(Started::NOT);
    }

    /// Called by the ring's own thread: waits for [`Ring::submit_virtqueue`] or the end of the
    /// ring.
    pub(crate) fn wait_virtqueue(&self, seqno: u64) {
        loop {
            let seen = self.bell.seen();
            if self.virtqueue_seqno.load(Ordering::Acquire) >= seqno
                || self.stopping.load(Ordering::Acquire)
            {
                return;
            }
            self.bell.wait(seen, None);
        }
    }

    /// Called by the ring's own thread: everything up to `head` is carried out.
    pub(crate) fn publish(&self, head: u32) {
        if self.stopping.load(Ordering::Relaxed) {
            // The memory may be another ring's by now.
            return;
        }
        // The end of a batch whose last command had a reply. This thread alone publishes.
        if self.published.load(Ordering::Relaxed) == u64::from(head) {
            return;
        }
        self.published.store(head.into(), Ordering::Relaxed);
        if let Some(word) = self.layout.head() {
            word.store(head, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        if self.has_waiter.load(Ordering::Relaxed) {
            drop(self.head_moved.0.locked());
            self.head_moved.1.notify_all();
        }
    }

    fn tail(&self) -> u32 {
        self.layout
            .tail()
            .map_or(0, |tail| tail.load(Ordering::Acquire))
    }

    /// Sleeps with IDLE set until there is work, the bell is another than `rung`, or the ring ends.
    /// Calls `release` once if that takes long.
    fn sleep(&self, head: u32, rung: u32, release: impl FnOnce()) {
        let (Some(status), Some(tail)) = (self.layout.status(), self.layout.tail()) else {
            return;
        };
        status.fetch_or(IDLE, Ordering::SeqCst);
        let begin = Instant::now();
        let mut release = Some(release);
        while tail.load(Ordering::SeqCst) == head
            && self.bell.seen() == rung
            && !self.stopping.load(Ordering::Acquire)
        {
            let slept = begin.elapsed();
            match RELEASE_AFTER
                .checked_sub(slept)
                .filter(|left| !left.is_zero())
            {
                Some(left) if release.is_some() => self.bell.wait(rung, Some(left)),
                _ => match release.take() {
                    Some(release) => release(),
                    None => self.bell.wait(rung, None),
                },
            }
        }
        if !self.stopping.load(Ordering::Acquire) {
            status.fetch_and(!IDLE, Ordering::SeqCst);
        }
    }

    /// Whether the ring is destroyed soon. The guest destroys it behind other calls, and may use
    /// the memory for another ring before this thread knows.
    #[cold]
    fn ends_soon(&self) -> bool {
        let begin = Instant::now();
        loop {
            let seen = self.bell.seen();
            if self.stopping.load(Ordering::Acquire) {
                return true;
            }
            match SOON.checked_sub(begin.elapsed()) {
                Some(left) => self.bell.wait(seen, Some(left)),
                None => return false,
            }
        }
    }
}

/// The ring's thread. Runs until [`Ring::stop`], or until the consumer fails.
pub(crate) fn run(ring: &Ring, consumer: &mut impl Consumer) -> Result<(), Fatal> {
    ring.bell.is_mine();
    let mut rung = UNRUNG;
    let mut pace = Pace::new(ring.idle_timeout, Places::of_process());
    let mut idle = Idle::new(&ring.lane, ring.bell.rung_at());
    let mut head = ring
        .layout
        .head()
        .map_or(0, |head| head.load(Ordering::Acquire));
    while !ring.stopping.load(Ordering::Acquire) {
        let tail = ring.tail();
        if tail != head {
            let Some(stream) = RingStream::new(&ring.layout, head, tail) else {
                match ring.ends_soon() {
                    true => break,
                    false => return Err(Fatal::RingTail { head, tail }),
                }
            };
            idle.end();
            consumer.consume(&stream)?;
            head = tail;
            ring.publish(head);
            pace.worked(Instant::now);
            continue;
        }
        let seen = ring.bell.seen();
        if seen != rung {
            rung = seen;
            pace.notified(Instant::now());
        }
        let pause = pace.next(Instant::now);
        idle.begin(&pause);
        match pause {
            Pause::Spin => std::hint::spin_loop(),
            Pause::Yield => std::thread::yield_now(),
            Pause::Doze(time) => ring.bell.wait(rung, Some(time)),
            Pause::Sleep => ring.sleep(head, rung, || {
                consumer.idle();
                platform::release_stack();
            }),
        }
    }
    idle.end();
    Ok(())
}

#[cfg(test)]
mod tests;
