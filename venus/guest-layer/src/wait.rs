//! [`Waits`]: looks again and again for what a program waits for, and then lets the driver wait.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ash::vk;

/// How long to look at least and at most, in microseconds.
const LEAST: u32 = 50;
const MOST: u32 = 500;
/// After so many waits in a row that were longer than [`MOST`], the layer does not look any more,
/// until one is short again. A program's frame may have one or two of them among many short ones.
const LONG_WAITS: u32 = 4;
/// Looks without a yield in between: some microseconds.
const SPINS: u32 = 50;
/// A device whose last wait ended so long ago was idle. Then GPU and renderer have to wake up
/// first, and the wait is longer.
const IDLE: Duration = Duration::from_millis(3);
/// How long to look with yields when the device was idle. After that, the thread naps between two
/// looks, which takes some 70 microseconds with Linux's usual timer slack.
const EAGER: Duration = Duration::from_micros(50);
const NAP: Duration = Duration::from_micros(10);

/// What is known of the waits of a device.
#[derive(Debug)]
pub(crate) struct Waits {
    /// How long to look, in microseconds.
    patience: AtomicU32,
    /// Waits in a row that were longer than [`MOST`].
    long: AtomicU32,
    /// When the last one ended, in nanoseconds since `made`.
    ended: AtomicU64,
    made: Instant,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            patience: AtomicU32::new(LEAST),
            long: AtomicU32::new(0),
            ended: AtomicU64::new(0),
            made: Instant::now(),
        }
    }
}

/// Threads of the process that look at the moment.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// A thread that looks, until it is dropped.
struct Looking;

impl Looking {
    /// `None` when more threads than half of the processors would look, or if there is only one
    /// processor: the thread that ends the wait needs one, too.
    fn begin() -> Option<Self> {
        static MOST_THREADS: OnceLock<usize> = OnceLock::new();
        let most = *MOST_THREADS.get_or_init(|| {
            let processors = std::thread::available_parallelism();
            processors.map_or(1, std::num::NonZero::get) / 2
        });
        let one_more = |looking: usize| (looking < most).then_some(looking + 1);
        let began = LOOKING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        began.ok().map(|_| Self)
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        LOOKING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waits {
    /// Waits with `call`, which gets a timeout in nanoseconds, and returns `TIMEOUT` after it.
    pub(crate) fn wait(&self, timeout: u64, mut call: impl FnMut(u64) -> vk::Result) -> vk::Result {
        if timeout == 0 {
            return call(0);
        }
        // Most are done already.
        let first = call(0);
        if first != vk::Result::TIMEOUT {
            return first;
        }
        let begin = Instant::now();
        let result = self.look(timeout, begin, &mut call);
        let result = match result {
            vk::Result::TIMEOUT => {
                let passed = nanoseconds(begin.elapsed());
                match timeout {
                    u64::MAX => call(timeout),
                    _ => call(timeout.saturating_sub(passed)),
                }
            }
            result => result,
        };
        if result == vk::Result::SUCCESS {
            self.learn(begin.elapsed());
        }
        self.ended
            .store(nanoseconds(self.made.elapsed()), Ordering::Relaxed);
        result
    }

    /// Whether the device had nothing to wait for lately.
    fn was_idle(&self, begin: Instant) -> bool {
        let ended = Duration::from_nanos(self.ended.load(Ordering::Relaxed));
        begin.duration_since(self.made).saturating_sub(ended) > IDLE
    }

    /// Looks as long as that is likely to pay.
    fn look(
        &self,
        timeout: u64,
        begin: Instant,
        call: &mut impl FnMut(u64) -> vk::Result,
    ) -> vk::Result {
        let patience = Duration::from_micros(self.patience.load(Ordering::Relaxed).into());
        let patience = patience.min(Duration::from_nanos(timeout));
        if patience.is_zero() {
            return vk::Result::TIMEOUT;
        }
        let Some(_looking) = Looking::begin() else {
            return vk::Result::TIMEOUT;
        };
        let was_idle = self.was_idle(begin);
        let mut spins = 0;
        loop {
            let result = call(0);
            let passed = begin.elapsed();
            if result != vk::Result::TIMEOUT || passed >= patience {
                return result;
            }
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else if was_idle && passed > EAGER {
                std::thread::sleep(NAP);
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// A wait took so long.
    fn learn(&self, waited: Duration) {
        let waited = u32::try_from(waited.as_micros()).unwrap_or(u32::MAX);
        // Threads may learn at the same time. Whichever is last wins, and none is wrong for long.
        if waited > MOST {
            let long = self.long.load(Ordering::Relaxed).saturating_add(1);
            self.long.store(long, Ordering::Relaxed);
            if long >= LONG_WAITS {
                self.patience.store(0, Ordering::Relaxed);
            }
            return;
        }
        self.long.store(0, Ordering::Relaxed);
        let patience = self.patience.load(Ordering::Relaxed);
        if waited > patience {
            let more = patience.saturating_mul(2).clamp(LEAST, MOST);
            self.patience.store(more, Ordering::Relaxed);
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait for something that is done after so long. Returns how often the driver was to sleep.
    fn wait(waits: &Waits, length: Duration) -> u32 {
        let (begin, mut sleeps) = (Instant::now(), 0);
        let result = waits.wait(u64::MAX, |timeout| {
            if timeout > 0 {
                sleeps += 1;
                std::thread::sleep(length.saturating_sub(begin.elapsed()));
                return vk::Result::SUCCESS;
            }
            match begin.elapsed() >= length {
                true => vk::Result::SUCCESS,
                false => vk::Result::TIMEOUT,
            }
        });
        assert_eq!(result, vk::Result::SUCCESS);
        sleeps
    }

    #[test]
    fn it_looks_while_waits_are_short_and_not_after_long_ones() {
        let waits = Waits::default();
        assert_eq!(wait(&waits, Duration::ZERO), 0);
        for _ in 0..LONG_WAITS {
            waits.learn(Duration::from_millis(5));
        }
        assert_eq!(waits.patience.load(Ordering::Relaxed), 0);
        assert_eq!(
            wait(&waits, Duration::from_millis(2)),
            1,
            "it does not look"
        );
        for _ in 0..5 {
            waits.learn(Duration::from_micros(u64::from(MOST)));
        }
        assert_eq!(waits.patience.load(Ordering::Relaxed), MOST);
    }

    #[test]
    fn a_device_is_idle_some_time_after_its_last_wait() {
        let waits = Waits::default();
        wait(&waits, Duration::from_micros(1));
        let ended = Duration::from_nanos(waits.ended.load(Ordering::Relaxed));
        assert_ne!(ended, Duration::ZERO);
        assert!(!waits.was_idle(waits.made + ended + IDLE));
        assert!(waits.was_idle(waits.made + ended + 2 * IDLE));
    }

    #[test]
    fn results_are_the_drivers() {
        let waits = Waits::default();
        let lost = |_| vk::Result::ERROR_DEVICE_LOST;
        assert_eq!(waits.wait(7, lost), vk::Result::ERROR_DEVICE_LOST);
        let mut timeouts = Vec::new();
        let never = |timeout| {
            timeouts.push(timeout);
            vk::Result::TIMEOUT
        };
        assert_eq!(waits.wait(1_000_000, never), vk::Result::TIMEOUT);
        // The driver waits for what is left.
        let last = timeouts.pop();
        assert!(
            last.is_some_and(|last| last > 0 && last < 1_000_000),
            "{last:?}"
        );
        assert!(timeouts.iter().all(|timeout| *timeout == 0));
        let mut calls = 0;
        let zero = |timeout| {
            calls += 1;
            assert_eq!(timeout, 0);
            vk::Result::TIMEOUT
        };
        assert_eq!(waits.wait(0, zero), vk::Result::TIMEOUT);
        assert_eq!(calls, 1);
    }
}
