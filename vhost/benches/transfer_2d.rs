//! `TRANSFER_TO_HOST_2D` of a 1920 × 1080 frame from scattered 4 KiB pages, compared with a plain
//! memcpy of the same bytes.
//!
//! `cargo bench -p hesper-vhost --bench transfer_2d` prints the ratio of the two, measured in
//! turns, and then divan's table of each. The aim is a ratio of 0.7 or more. With
//! `HESPER_BENCH_MIN_RATIO=0.7` in the environment, a lower one is a failure.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::BytesCount;
use hesper_vhost::device::Outcome;
use hesper_vhost::screen::{NoScreen, Rect};
use hesper_vhost::testing::{Chain, DriverQueue, FakeRenderer, Guest, PAGE, Request, options};
use hesper_vhost::wire::FORMAT_B8G8R8X8;

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;
const BYTES: usize = (WIDTH * HEIGHT * 4) as usize;

/// Where the guest's pages are.
#[derive(Clone, Copy, Debug)]
enum Pages {
    /// Every other page, in an order without a pattern.
    Scattered,
    /// One run.
    InOneRun,
}

struct Frame {
    guest: Guest,
    queue: DriverQueue,
    request: Chain,
}

impl Frame {
    fn new(pages: Pages, rect: Rect) -> Self {
        Self::with(pages, rect, false)
    }

    /// The same; if it is `drawn`, a context draws into the picture.
    fn with(pages: Pages, rect: Rect, drawn: bool) -> Self {
        let renderer = FakeRenderer::new();
        renderer.draw();
        let mut guest = Guest::with(options(), Arc::new(NoScreen), vec![renderer as _]);
        let count = (BYTES as u64).div_ceil(PAGE);
        let start = guest.pages(count * 2 * PAGE);
        let entries: Vec<(u64, u32)> = match pages {
            // 997 is a prime that does not divide the count: every page once.
            Pages::Scattered => (0..count)
                .map(|page| (start + page * 997 % count * 2 * PAGE, PAGE as u32))
                .collect(),
            Pages::InOneRun => vec![(start, BYTES as u32)],
        };
        guest.write(start, &vec![0x5a; (count * 2 * PAGE) as usize]);
        guest.ok(&Request::create_2d(1, FORMAT_B8G8R8X8, WIDTH, HEIGHT));
        guest.ok(&Request::attach_backing(1, &entries));
        if drawn {
            guest.ok(&Request::create_context(1, 4, "desktop"));
            guest.ok(&Request::attach(1, 1));
        }
        let offset = u64::from(rect.y * WIDTH + rect.x) * 4;
        Self {
            queue: DriverQueue::new(&guest.memory, 0x20000, 112 << 20, 1 << 20),
            request: Chain::of(&Request::transfer(1, rect, offset)),
            guest,
        }
    }

    /// One command, through all of the device.
    fn transfer(&mut self) {
        let (chain, _) = self.queue.post(&self.guest.memory, &self.request);
        let head = chain.head_index();
        let outcome = self.guest.device.control(&self.guest.memory, chain);
        assert_eq!(outcome, Outcome::Done { written: 24 });
        self.queue.free(head);
    }
}

const WHOLE: Rect = Rect {
    x: 0,
    y: 0,
    width: WIDTH,
    height: HEIGHT,
};

#[divan::bench(args = [Pages::Scattered, Pages::InOneRun])]
fn whole_frame(bencher: Bencher, pages: Pages) {
    let mut frame = Frame::new(pages, WHOLE);
    bencher
        .counter(BytesCount::new(BYTES))
        .bench_local(|| frame.transfer());
}

#[divan::bench(args = [Pages::Scattered, Pages::InOneRun])]
fn quarter_of_a_frame(bencher: Bencher, pages: Pages) {
    let quarter = Rect {
        x: 480,
        y: 270,
        width: 960,
        height: 540,
    };
    let mut frame = Frame::new(pages, quarter);
    bencher
        .counter(BytesCount::new(BYTES / 4))
        .bench_local(|| frame.transfer());
}

/// What a page flip costs when a GPU has drawn the picture. The guest has changed nothing.
#[divan::bench(args = [Pages::Scattered, Pages::InOneRun])]
fn whole_frame_that_a_context_has_drawn(bencher: Bencher, pages: Pages) {
    let mut frame = Frame::with(pages, WHOLE, true);
    bencher
        .counter(BytesCount::new(BYTES))
        .bench_local(|| frame.transfer());
}

#[divan::bench]
fn plain_memcpy(bencher: Bencher) {
    let from = vec![0x5a_u8; BYTES];
    let mut to = vec![0_u8; BYTES];
    bencher
        .counter(BytesCount::new(BYTES))
        .bench_local(|| black_box(&mut to).copy_from_slice(black_box(&from)));
}

/// The median of sorted values.
fn middle<T: Copy>(sorted: &[T]) -> T {
    *sorted
        .get(sorted.len() / 2)
        .unwrap_or_else(|| unreachable!("there were runs"))
}

/// The median of some runs in a row, so that each side finds the caches as it left them.
fn median_of_runs(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    middle(&times)
}

/// The speed of a whole scattered frame divided by that of a memcpy. Both are medians of runs in a
/// row, taken in turns. The result is the median of the ratios, since a busy machine spoils some.
fn ratio() -> f64 {
    let mut frame = Frame::new(Pages::Scattered, WHOLE);
    let from = vec![0x5a_u8; BYTES];
    let mut to = vec![0_u8; BYTES];
    let mut turns: Vec<(f64, Duration, Duration)> = (0..41)
        .map(|_| {
            let copy = median_of_runs(|| black_box(&mut to).copy_from_slice(black_box(&from)));
            let transfer = median_of_runs(|| frame.transfer());
            (copy.as_secs_f64() / transfer.as_secs_f64(), transfer, copy)
        })
        .collect();
    turns.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    let (ratio, transfer, copy) = middle(&turns);
    println!(
        "1920 x 1080 from scattered 4 KiB pages: {transfer:.0?}; memcpy of the same bytes: {copy:.0?}; \
         ratio {ratio:.2} (aim: 0.70 or more)"
    );
    ratio
}

fn main() {
    let ratio = ratio();
    let least = std::env::var("HESPER_BENCH_MIN_RATIO").ok();
    if let Some(least) = least.and_then(|least| least.parse::<f64>().ok())
        && ratio < least
    {
        eprintln!("the ratio is below {least}");
        std::process::exit(1);
    }
    divan::main();
}
