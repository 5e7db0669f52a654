//! The promises of a scanout: frames coalesce, tokens are answered exactly once, nothing is
//! allocated.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::device::FLIP_GRACE;
use super::presenter::{Attached, GATE_PATIENCE, RETRY};
use super::*;
use crate::cursor::Cursor;
use crate::frame::{Frame, FrameOutcome};
use crate::monitor::Presence;
use crate::picture::{Picture, PictureLayout, PixelFormat, Rect};
use crate::testing::{Pixels, allocations};

const SIZE: (u32, u32) = (100, 80);
const DRAWN: FrameOutcome = FrameOutcome {
    copied: true,
    presented: true,
};

/// A scanout, and the tokens that it has answered.
struct TestScanout {
    scanout: Scanout,
    answered: Arc<Mutex<Vec<u64>>>,
}

impl TestScanout {
    fn new() -> TestScanout {
        let answered = Arc::new(Mutex::new(Vec::with_capacity(100_000)));
        let log = answered.clone();
        let events: EventCallback = Arc::new(move |event| match event {
            DisplayEvent::FlushDone(FlushToken(token)) => log.lock().unwrap().push(token),
            other => panic!("unexpected {other:?}"),
        });
        TestScanout {
            scanout: Scanout::new(SIZE, events),
            answered,
        }
    }

    /// A scanout with a picture, whose first frame has been drawn.
    fn showing(gate: Gate) -> (TestScanout, Frame) {
        let test = TestScanout::new();
        test.scanout.set_picture(Some(picture()));
        // A test that needs it detaches the presenter by hand.
        std::mem::forget(test.scanout.attach(gate));
        let mut frame = test.scanout.new_frame();
        assert_eq!(test.scanout.next(&mut frame), Next::Draw);
        assert_eq!(frame.damage.rects(), [Rect::whole(SIZE.0, SIZE.1)]);
        test.scanout.finish(&mut frame, DRAWN);
        (test, frame)
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
    let test = TestScanout::new();
    test.flush(rect(0, 0), 1);
    test.scanout.set_picture(Some(picture()));
    test.flush(rect(0, 0), 2);
    assert_eq!(test.answered(), [1, 2], "no presenter");
    let (test, _frame) = TestScanout::showing(Gate::Free);
    test.flush(
        Rect {
            x: u32::MAX,
            y: 0,
            width: u32::MAX,
            height: 1,
        },
        3,
    );
    test.flush(Rect::default(), 4);
    assert_eq!(test.answered(), [3, 4], "nothing inside the picture");
    test.scanout.set_visible(false);
    test.flush(rect(0, 0), 5);
    assert_eq!(test.answered(), [3, 4, 5], "hidden");
}

#[test]
fn flushes_between_two_frames_become_one_and_are_answered_after_it() {
    let (test, mut frame) = TestScanout::showing(Gate::Free);
    test.flush(rect(0, 0), 1);
    test.scanout.flush(rect(50, 50), None);
    test.flush(rect(0, 60), 2);
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    assert_eq!(
        frame.damage.rects(),
        [rect(0, 0), rect(50, 50), rect(0, 60)]
    );
    assert!(frame.present);
    test.flush(rect(1, 1), 3);
    assert_eq!(test.answered(), [], "still being read");
    test.scanout.finish(&mut frame, DRAWN);
    assert_eq!(test.answered(), [1, 2]);
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    assert_eq!(frame.damage.rects(), [rect(1, 1)]);
    test.scanout.finish(&mut frame, DRAWN);
    assert_eq!(test.answered(), [1, 2, 3]);
}

#[test]
fn a_presenter_that_ends_answers_what_it_owes() {
    let (test, mut frame) = TestScanout::showing(Gate::Free);
    test.flush(rect(0, 0), 1);
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    test.flush(rect(0, 0), 2);
    drop(frame);
    assert_eq!(test.answered(), [1]);
    drop(Attached(&test.scanout));
    assert_eq!(test.answered(), [1, 2]);
    test.flush(rect(0, 0), 3);
    assert_eq!(test.answered(), [1, 2, 3]);
}

#[test]
fn an_unplugged_monitor_ends_its_presenter_and_a_plugged_one_may_have_another() {
    let (test, mut frame) = TestScanout::showing(Gate::Free);
    let (reply, answer) = mpsc::sync_channel(1);
    test.scanout.request_image(reply);
    assert!(test.scanout.set_presence(Presence::Unplugged));
    assert!(!test.scanout.set_presence(Presence::Unplugged), "no news");
    assert_eq!(test.scanout.next(&mut frame), Next::Stop);
    drop(Attached(&test.scanout));
    let ended = Err(mpsc::RecvTimeoutError::Disconnected);
    assert_eq!(answer.recv_timeout(Duration::ZERO).map(|_| ()), ended);
    test.flush(rect(0, 0), 1);
    assert_eq!(test.answered(), [1], "nobody will see it");
    assert!(test.scanout.set_presence(Presence::Shown));
    let _attached = test.scanout.attach(Gate::Free);
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    assert_eq!(
        frame.damage.rects(),
        [Rect::whole(SIZE.0, SIZE.1)],
        "the picture of now"
    );
}

#[test]
fn hiding_a_window_lets_the_guest_go_on_and_showing_it_draws_what_was_missed() {
    let (test, mut frame) = TestScanout::showing(Gate::Free);
    test.flush(rect(0, 0), 1);
    test.scanout.set_visible(false);
    assert_eq!(test.answered(), [1]);
    test.flush(rect(30, 30), 2);
    assert_eq!(test.answered(), [1, 2]);
    test.scanout.set_visible(true);
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    assert_eq!(frame.damage.rects(), [rect(0, 0), rect(30, 30)]);
}

#[test]
fn a_page_flip_and_its_flush_are_one_frame() {
    let (test, mut frame) = TestScanout::showing(Gate::Free);
    let started = Instant::now();
    thread::scope(|scope| {
        assert!(
            !test.scanout.set_picture(Some(picture())),
            "the mode is the same"
        );
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(2));
            test.flush(rect(0, 0), 1);
        });
        assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    });
    assert_eq!(frame.damage.rects(), [Rect::whole(SIZE.0, SIZE.1)]);
    test.scanout.finish(&mut frame, DRAWN);
    assert_eq!(test.answered(), [1]);
    assert!(
        started.elapsed() >= Duration::from_millis(2),
        "the flip alone made no frame"
    );
    let flipped = Instant::now();
    test.scanout.set_picture(Some(picture()));
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    assert!(
        flipped.elapsed() >= FLIP_GRACE,
        "a flip that no flush follows is shown all the same"
    );
}

#[test]
fn a_frame_that_could_not_be_drawn_is_drawn_later_and_its_flushes_are_answered() {
    let (test, mut frame) = TestScanout::showing(Gate::Free);
    test.flush(rect(20, 20), 1);
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    test.scanout.finish(&mut frame, FrameOutcome::NONE);
    assert_eq!(test.answered(), [1]);
    let failed = Instant::now();
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    assert!(
        failed.elapsed() >= RETRY / 2,
        "not at once, or a hidden window would take a core"
    );
    assert_eq!(frame.damage.rects(), [rect(20, 20)]);
}

#[test]
fn a_compositor_that_asks_for_no_frames_delays_the_guest_only_once() {
    let (test, mut frame) = TestScanout::showing(Gate::Open);
    test.flush(rect(0, 0), 1);
    assert_eq!(test.scanout.next(&mut frame), Next::AskForFrame);
    thread::scope(|scope| {
        scope.spawn(|| {
            // The compositor is silent for long enough. A second flush is answered at once. Then it
            // asks.
            while test.answered().is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(test.answered(), [1]);
            test.flush(rect(50, 0), 2);
            assert_eq!(test.answered(), [1, 2]);
            test.scanout.frame_wanted();
        });
        let asked = Instant::now();
        assert_eq!(test.scanout.next(&mut frame), Next::Draw);
        assert!(asked.elapsed() >= GATE_PATIENCE / 2);
    });
    assert_eq!(frame.damage.rects(), [rect(0, 0), rect(50, 0)]);
    test.scanout.finish(&mut frame, DRAWN);
    test.flush(rect(0, 0), 3);
    assert_eq!(
        test.scanout.next(&mut frame),
        Next::AskForFrame,
        "one frame for each asked"
    );
}

#[test]
fn a_cursor_moves_without_copying_pixels_and_only_when_there_is_one() {
    let (test, mut frame) = TestScanout::showing(Gate::Free);
    test.scanout.move_cursor((3, 4));
    assert!(!test.scanout.lock().dirty, "no cursor, nothing to see");
    let cursor = Cursor::new((1, 1), (0, 0), PixelFormat::B8G8R8A8, &[1; 4]).unwrap();
    test.scanout.set_cursor(Some(Arc::new(cursor)));
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    assert_eq!(frame.cursor().map(|(_, at)| at), Some((3, 4)));
    test.scanout.finish(&mut frame, DRAWN);
    test.scanout.move_cursor((3, 4));
    assert!(!test.scanout.lock().dirty, "it has not moved");
    test.scanout.move_cursor((5, 4));
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    assert_eq!(frame.damage.rects(), []);
    test.scanout.finish(&mut frame, DRAWN);
    test.scanout.stop();
    assert_eq!(test.scanout.next(&mut frame), Next::Stop);
}

#[test]
fn a_screenshot_of_a_hidden_window_draws_but_does_not_present() {
    let (test, mut frame) = TestScanout::showing(Gate::Free);
    test.scanout.set_visible(false);
    let (reply, answer) = mpsc::sync_channel(1);
    test.scanout.request_image(reply);
    assert_eq!(test.scanout.next(&mut frame), Next::Draw);
    assert!(!frame.present);
    assert_eq!(frame.image_replies.len(), 1);
    let unpresented = FrameOutcome {
        presented: false,
        ..DRAWN
    };
    test.scanout.finish(&mut frame, unpresented);
    assert!(
        answer.try_recv().unwrap().is_err(),
        "the presenter has not drawn it"
    );
    let (first, early) = mpsc::sync_channel(1);
    let (second, late) = mpsc::sync_channel(1);
    test.scanout.request_image(first);
    test.scanout.stop();
    test.scanout.request_image(second);
    for answer in [early, late] {
        let answer = answer.recv_timeout(Duration::ZERO).map(|_| ());
        let ended = Err(mpsc::RecvTimeoutError::Disconnected);
        assert_eq!(answer, ended, "nobody waits for a display that has ended");
    }
}

#[test]
fn from_flush_to_frame_nothing_is_allocated() {
    let (test, mut frame) = TestScanout::showing(Gate::Free);
    let cursor = Cursor::new((1, 1), (0, 0), PixelFormat::B8G8R8A8, &[1; 4]).unwrap();
    test.scanout.set_cursor(Some(Arc::new(cursor)));
    let pictures = [picture(), picture()];
    let before = allocations();
    for step in 0..200u32 {
        let next = pictures[step as usize % 2].clone();
        test.scanout.set_picture(Some(next));
        for flush in 0..30 {
            test.flush(rect(flush * 3, step % 50), u64::from(step * 30 + flush));
            test.scanout.move_cursor((flush as i32, step as i32));
        }
        assert!(test.scanout.next(&mut frame) == Next::Draw);
        test.scanout.finish(&mut frame, DRAWN);
    }
    assert_eq!(allocations() - before, 0);
    assert_eq!(test.answered().len(), 6000);
}

#[test]
fn whatever_happens_every_token_is_answered_exactly_once() {
    const TOKENS: u64 = 20_000;
    let test = TestScanout::new();
    test.scanout.set_picture(Some(picture()));
    let flushing = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Presenters come and go, and fail now and then.
            let mut drawn = 0u32;
            while flushing.load(Ordering::Relaxed) {
                let _attached = test.scanout.attach(Gate::Free);
                let mut frame = test.scanout.new_frame();
                while test.scanout.next(&mut frame) == Next::Draw {
                    drawn += 1;
                    match drawn % 7 {
                        0 => break,
                        1 => test.scanout.finish(&mut frame, FrameOutcome::NONE),
                        _ => test.scanout.finish(&mut frame, DRAWN),
                    };
                }
            }
        });
        scope.spawn(|| {
            for step in 0.. {
                test.scanout.set_visible(step % 3 != 0);
                thread::sleep(Duration::from_micros(50));
                if !flushing.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for token in 0..TOKENS {
            if token % 50 == 0 {
                test.scanout.set_picture((token % 100 == 0).then(picture));
            }
            test.flush(rect(token as u32 % 120, 0), token);
        }
        flushing.store(false, Ordering::Relaxed);
        test.scanout.stop();
    });
    let mut answered = test.answered();
    answered.sort_unstable();
    assert_eq!(answered, (0..TOKENS).collect::<Vec<_>>());
}
