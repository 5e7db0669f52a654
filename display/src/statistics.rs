//! Frame statistics: how many frames there were, and how long the guest's changes took to reach the
//! window.
//!
//! [`FrameStatistics`] counts for one scanout, across all of its windows. A latency begins with the
//! first flush that a frame shows. It ends when the window system has taken the frame and the GPU
//! has drawn it.

use std::time::{Duration, Instant};

/// The number of latency classes. Class n counts latencies below 2^n · 125 µs, the last one all
/// longer ones.
pub const LATENCY_CLASSES: usize = 14;

/// Upper end of the first class, in microseconds.
const FIRST_CLASS_US: u128 = 125;

/// How often the overlay's figures are updated.
const OVERLAY_EVERY: Duration = Duration::from_millis(500);

/// What became of a scanout's flushes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameStatistics {
    /// Flushes of the guest.
    pub flushes: u64,
    /// Flushes that no frame was going to show: hidden, unplugged, headless, outside the picture.
    pub unseen: u64,
    /// Frames that the window system has taken.
    pub presented: u64,
    /// Latencies of frames by class. Class n counts those below 2^n · 125 µs and not below half of
    /// that; the last class counts all longer ones.
    pub latency: [u64; LATENCY_CLASSES],
}

impl FrameStatistics {
    pub(crate) fn note_latency(&mut self, latency: Duration) {
        let class = (latency.as_micros() / FIRST_CLASS_US)
            .checked_ilog2()
            .map_or(0, |log| log as usize + 1);
        if let Some(count) = self.latency.get_mut(class.min(LATENCY_CLASSES - 1)) {
            *count += 1;
        }
    }

    /// The upper end of a latency class in microseconds; `None` for the last class, which has none.
    #[must_use]
    pub fn latency_below_us(class: usize) -> Option<u64> {
        (class + 1 < LATENCY_CLASSES).then(|| (FIRST_CLASS_US as u64) << class)
    }
}

/// Measures the latest frames for the overlay.
pub(crate) struct Meter {
    since: Instant,
    frames: u32,
    drawing: Duration,
    latency: Duration,
    /// Frames that had a latency.
    flushed: u32,
}

impl Meter {
    pub(crate) fn new(now: Instant) -> Meter {
        Meter {
            since: now,
            frames: 0,
            drawing: Duration::ZERO,
            latency: Duration::ZERO,
            flushed: 0,
        }
    }

    /// A frame was presented.
    pub(crate) fn note(&mut self, drawing: Duration, latency: Option<Duration>) {
        self.frames += 1;
        self.drawing += drawing;
        self.latency += latency.unwrap_or_default();
        self.flushed += u32::from(latency.is_some());
    }

    /// The overlay's line of figures, when it is time for new ones: frames per second, the time to
    /// draw one, and the time from flush to window.
    pub(crate) fn figures(&mut self, now: Instant) -> Option<String> {
        let time = now.saturating_duration_since(self.since);
        if time < OVERLAY_EVERY || self.frames == 0 {
            return None;
        }
        let ms = |sum: Duration, count: u32| sum.as_secs_f64() * 1e3 / f64::from(count.max(1));
        let figures = format!(
            "{:.1} frames/s, drawn in {:.1} ms, {:.1} ms after their flush",
            f64::from(self.frames) / time.as_secs_f64(),
            ms(self.drawing, self.frames),
            ms(self.latency, self.flushed),
        );
        *self = Meter::new(now);
        Some(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_has_its_class() {
        let class = |us: u64| {
            let mut frames = FrameStatistics::default();
            frames.note_latency(Duration::from_micros(us));
            frames.latency.iter().position(|count| *count == 1)
        };
        for (us, expected) in [
            (0, 0),
            (124, 0),
            (125, 1),
            (249, 1),
            (250, 2),
            (16_000, 8),
            (511_999, 12),
            (512_000, 13),
            (u64::MAX, 13),
        ] {
            assert_eq!(class(us), Some(expected), "{us} µs");
            let below = FrameStatistics::latency_below_us(expected);
            assert!(below.is_none_or(|below| us < below), "{us} µs");
        }
    }

    #[test]
    fn figures_come_twice_a_second_while_there_are_frames() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = Meter::new(start);
        assert_eq!(meter.figures(at(700)), None, "no frame");
        for _ in 0..30 {
            meter.note(Duration::from_millis(2), Some(Duration::from_millis(5)));
        }
        meter.note(Duration::from_millis(2), None);
        assert_eq!(meter.figures(at(499)), None);
        let figures = meter.figures(at(1000)).unwrap();
        assert_eq!(
            figures,
            "31.0 frames/s, drawn in 2.0 ms, 5.0 ms after their flush"
        );
        assert_eq!(meter.figures(at(1600)), None);
    }
}
