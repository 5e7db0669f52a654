//! The promises of a scanout: frames coalesce, tokens are answered exactly once, nothing allocates.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::device::FLIP_GRACE;
use super::presenter::{Attached, GATE_PATIENCE, RETRY};
use super::*;
use crate::cursor::Cursor;
use crate::frame::{Frame, Job};
use crate::monitor::Presence;
use crate::picture::{Picture, PictureLayout, PixelFormat, Rect};
use crate::testing::{Pixels, allocations};

const SIZE: (u32, u32) = (100, 80);
const DRAWN: Frame = Frame {
    copied: true,
    presented: true,
};

/// A scanout and the tokens it has answered.
struct Bench {
    scanout: Scanout,
    answered: Arc<Mutex<Vec<u64>>>,
}

impl Bench {
    fn new() -> Bench {
        let answered = Arc::new(Mutex::new(Vec::with_capacity(100_000)));
        let log = answered.clone();
        let events: Events = Arc::new(move |event| match event {
            DisplayEvent::FlushDone(FlushToken(token)) => log.lock().unwrap().push(token),
            other => panic!("unexpected {other:?}"),
        });
        Bench {
            scanout: Scanout::new(SIZE, events),
            answered,
        }
    }

    /// With a picture, whose first frame has been drawn.
    fn showing(gate: Gate) -> (Bench, Job) {
        let bench = Bench::new();
        bench.scanout.set_picture(Some(picture()));
        // Detached by hand where a test needs it.
        std::mem::forget(bench.scanout.attach(gate));
        let mut job = bench.scanout.job();
        assert_eq!(bench.scanout.next(&mut job), Next::Draw);
        assert_eq!(job.damage.rects(), [Rect::whole(SIZE.0, SIZE.1)]);
        bench.scanout.finish(&mut job, DRAWN);
        (bench, job)
    }

    fn flush(&self, rect: Rect, token: u64) {
        self.scanout.flush(rect, Some(FlushToken(token)));
    }

    fn answered(&self) -> Vec<u64> {
        self.answered.lock().unwrap().clone()
    }
}

fn picture() -> Picture {
    let (width, height) = SIZE;
    let layout = PictureLayout {
        offset: 0,
        stride: width * 4,
        width,
        height,
        format: PixelFormat::B8G8R8X8,
    };
    Picture::new(Pixels::zeroed((width * height * 4) as usize), layout).unwrap()
}

fn rect(x: u32, y: u32) -> Rect {
    Rect {
        x,
        y,
        width: 10,
        height: 10,
    }
}

#[test]
fn a_flush_that_nobody_will_see_is_answered_at_once() {
    let bench = Bench::new();
    bench.flush(rect(0, 0), 1);
    bench.scanout.set_picture(Some(picture()));
    bench.flush(rect(0, 0), 2);
    assert_eq!(bench.answered(), [1, 2], "no presenter");
    let (bench, _job) = Bench::showing(Gate::Free);
    bench.flush(
        Rect {
            x: u32::MAX,
            y: 0,
            width: u32::MAX,
            height: 1,
        },
        3,
    );
    bench.flush(Rect::default(), 4);
    assert_eq!(bench.answered(), [3, 4], "nothing inside the picture");
    bench.scanout.set_visible(false);
    bench.flush(rect(0, 0), 5);
    assert_eq!(bench.answered(), [3, 4, 5], "hidden");
}

#[test]
fn flushes_between_two_frames_become_one_and_are_answered_after_it() {
    let (bench, mut job) = Bench::showing(Gate::Free);
    bench.flush(rect(0, 0), 1);
    bench.scanout.flush(rect(50, 50), None);
    bench.flush(rect(0, 60), 2);
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    assert_eq!(job.damage.rects(), [rect(0, 0), rect(50, 50), rect(0, 60)]);
    assert!(job.present);
    bench.flush(rect(1, 1), 3);
    assert_eq!(bench.answered(), [], "still being read");
    bench.scanout.finish(&mut job, DRAWN);
    assert_eq!(bench.answered(), [1, 2]);
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    assert_eq!(job.damage.rects(), [rect(1, 1)]);
    bench.scanout.finish(&mut job, DRAWN);
    assert_eq!(bench.answered(), [1, 2, 3]);
}

#[test]
fn a_presenter_that_ends_answers_what_it_owes() {
    let (bench, mut job) = Bench::showing(Gate::Free);
    bench.flush(rect(0, 0), 1);
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    bench.flush(rect(0, 0), 2);
    drop(job);
    assert_eq!(bench.answered(), [1]);
    drop(Attached(&bench.scanout));
    assert_eq!(bench.answered(), [1, 2]);
    bench.flush(rect(0, 0), 3);
    assert_eq!(bench.answered(), [1, 2, 3]);
}

#[test]
fn an_unplugged_monitor_ends_its_presenter_and_a_plugged_one_may_have_another() {
    let (bench, mut job) = Bench::showing(Gate::Free);
    let (reply, answer) = mpsc::sync_channel(1);
    bench.scanout.request_shot(reply);
    assert!(bench.scanout.set_presence(Presence::Unplugged));
    assert!(!bench.scanout.set_presence(Presence::Unplugged), "no news");
    assert_eq!(bench.scanout.next(&mut job), Next::Stop);
    drop(Attached(&bench.scanout));
    let ended = Err(mpsc::RecvTimeoutError::Disconnected);
    assert_eq!(answer.recv_timeout(Duration::ZERO).map(|_| ()), ended);
    bench.flush(rect(0, 0), 1);
    assert_eq!(bench.answered(), [1], "nobody will see it");
    assert!(bench.scanout.set_presence(Presence::Shown));
    let _attached = bench.scanout.attach(Gate::Free);
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    assert_eq!(
        job.damage.rects(),
        [Rect::whole(SIZE.0, SIZE.1)],
        "the picture of now"
    );
}

#[test]
fn hiding_a_window_lets_the_guest_go_on_and_showing_it_draws_what_was_missed() {
    let (bench, mut job) = Bench::showing(Gate::Free);
    bench.flush(rect(0, 0), 1);
    bench.scanout.set_visible(false);
    assert_eq!(bench.answered(), [1]);
    bench.flush(rect(30, 30), 2);
    assert_eq!(bench.answered(), [1, 2]);
    bench.scanout.set_visible(true);
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    assert_eq!(job.damage.rects(), [rect(0, 0), rect(30, 30)]);
}

#[test]
fn a_page_flip_and_its_flush_are_one_frame() {
    let (bench, mut job) = Bench::showing(Gate::Free);
    let started = Instant::now();
    thread::scope(|scope| {
        assert!(
            !bench.scanout.set_picture(Some(picture())),
            "the mode is the same"
        );
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(2));
            bench.flush(rect(0, 0), 1);
        });
        assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    });
    assert_eq!(job.damage.rects(), [Rect::whole(SIZE.0, SIZE.1)]);
    bench.scanout.finish(&mut job, DRAWN);
    assert_eq!(bench.answered(), [1]);
    assert!(
        started.elapsed() >= Duration::from_millis(2),
        "the flip alone made no frame"
    );
    let flipped = Instant::now();
    bench.scanout.set_picture(Some(picture()));
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    assert!(
        flipped.elapsed() >= FLIP_GRACE,
        "a flip that no flush follows is shown all the same"
    );
}

#[test]
fn a_frame_that_could_not_be_drawn_is_drawn_later_and_its_flushes_are_answered() {
    let (bench, mut job) = Bench::showing(Gate::Free);
    bench.flush(rect(20, 20), 1);
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    bench.scanout.finish(&mut job, Frame::NONE);
    assert_eq!(bench.answered(), [1]);
    let failed = Instant::now();
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    assert!(
        failed.elapsed() >= RETRY / 2,
        "not at once, or a hidden window would take a core"
    );
    assert_eq!(job.damage.rects(), [rect(20, 20)]);
}

#[test]
fn a_compositor_that_asks_for_no_frames_delays_the_guest_only_once() {
    let (bench, mut job) = Bench::showing(Gate::Open);
    bench.flush(rect(0, 0), 1);
    assert_eq!(bench.scanout.next(&mut job), Next::AskForFrame);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Silence for long enough; then a second flush, at once answered; then it asks.
            while bench.answered().is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(bench.answered(), [1]);
            bench.flush(rect(50, 0), 2);
            assert_eq!(bench.answered(), [1, 2]);
            bench.scanout.frame_wanted();
        });
        let asked = Instant::now();
        assert_eq!(bench.scanout.next(&mut job), Next::Draw);
        assert!(asked.elapsed() >= GATE_PATIENCE / 2);
    });
    assert_eq!(job.damage.rects(), [rect(0, 0), rect(50, 0)]);
    bench.scanout.finish(&mut job, DRAWN);
    bench.flush(rect(0, 0), 3);
    assert_eq!(
        bench.scanout.next(&mut job),
        Next::AskForFrame,
        "one frame for each asked"
    );
}

#[test]
fn a_cursor_moves_without_copying_pixels_and_only_when_there_is_one() {
    let (bench, mut job) = Bench::showing(Gate::Free);
    bench.scanout.move_cursor((3, 4));
    assert!(!bench.scanout.lock().dirty, "no cursor, nothing to see");
    let cursor = Cursor::new((1, 1), (0, 0), PixelFormat::B8G8R8A8, &[1; 4]).unwrap();
    bench.scanout.set_cursor(Some(Arc::new(cursor)));
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    assert_eq!(job.cursor().map(|(_, at)| at), Some((3, 4)));
    bench.scanout.finish(&mut job, DRAWN);
    bench.scanout.move_cursor((3, 4));
    assert!(!bench.scanout.lock().dirty, "it has not moved");
    bench.scanout.move_cursor((5, 4));
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    assert_eq!(job.damage.rects(), []);
    bench.scanout.finish(&mut job, DRAWN);
    bench.scanout.stop();
    assert_eq!(bench.scanout.next(&mut job), Next::Stop);
}

#[test]
fn a_screenshot_of_a_hidden_window_draws_but_does_not_present() {
    let (bench, mut job) = Bench::showing(Gate::Free);
    bench.scanout.set_visible(false);
    let (reply, answer) = mpsc::sync_channel(1);
    bench.scanout.request_shot(reply);
    assert_eq!(bench.scanout.next(&mut job), Next::Draw);
    assert!(!job.present);
    assert_eq!(job.shots.len(), 1);
    let unpresented = Frame {
        presented: false,
        ..DRAWN
    };
    bench.scanout.finish(&mut job, unpresented);
    assert!(
        answer.try_recv().unwrap().is_err(),
        "the presenter has not drawn it"
    );
    let (first, early) = mpsc::sync_channel(1);
    let (second, late) = mpsc::sync_channel(1);
    bench.scanout.request_shot(first);
    bench.scanout.stop();
    bench.scanout.request_shot(second);
    for answer in [early, late] {
        let answer = answer.recv_timeout(Duration::ZERO).map(|_| ());
        let ended = Err(mpsc::RecvTimeoutError::Disconnected);
        assert_eq!(answer, ended, "nobody waits for a display that has ended");
    }
}

#[test]
fn from_flush_to_frame_nothing_is_allocated() {
    let (bench, mut job) = Bench::showing(Gate::Free);
    let cursor = Cursor::new((1, 1), (0, 0), PixelFormat::B8G8R8A8, &[1; 4]).unwrap();
    bench.scanout.set_cursor(Some(Arc::new(cursor)));
    let pictures = [picture(), picture()];
    let before = allocations();
    for frame in 0..200u32 {
        let next = pictures[frame as usize % 2].clone();
        bench.scanout.set_picture(Some(next));
        for flush in 0..30 {
            bench.flush(rect(flush * 3, frame % 50), u64::from(frame * 30 + flush));
            bench.scanout.move_cursor((flush as i32, frame as i32));
        }
        assert!(bench.scanout.next(&mut job) == Next::Draw);
        bench.scanout.finish(&mut job, DRAWN);
    }
    assert_eq!(allocations() - before, 0);
    assert_eq!(bench.answered().len(), 6000);
}

#[test]
fn whatever_happens_every_token_is_answered_exactly_once() {
    const TOKENS: u64 = 20_000;
    let bench = Bench::new();
    bench.scanout.set_picture(Some(picture()));
    let flushing = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Presenters come and go, and fail now and then.
            let mut drawn = 0u32;
            while flushing.load(Ordering::Relaxed) {
                let _attached = bench.scanout.attach(Gate::Free);
                let mut job = bench.scanout.job();
                while bench.scanout.next(&mut job) == Next::Draw {
                    drawn += 1;
                    match drawn % 7 {
                        0 => break,
                        1 => bench.scanout.finish(&mut job, Frame::NONE),
                        _ => bench.scanout.finish(&mut job, DRAWN),
                    };
                }
            }
        });
        scope.spawn(|| {
            for step in 0.. {
                bench.scanout.set_visible(step % 3 != 0);
                thread::sleep(Duration::from_micros(50));
                if !flushing.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for token in 0..TOKENS {
            if token % 50 == 0 {
                bench.scanout.set_picture((token % 100 == 0).then(picture));
            }
            bench.flush(rect(token as u32 % 120, 0), token);
        }
        flushing.store(false, Ordering::Relaxed);
        bench.scanout.stop();
    });
    let mut answered = bench.answered();
    answered.sort_unstable();
    assert_eq!(answered, (0..TOKENS).collect::<Vec<_>>());
}
