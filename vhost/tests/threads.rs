//! Everything at once: the queue, the renderer's threads, the screen's thread, monitors and resets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hesper_vhost::device::{Queue, Usage};
use hesper_vhost::renderer::RendererError;
use hesper_vhost::screen::{Monitor, Rect};
use hesper_vhost::testing::{
    Chain, FakeContext, FakeRenderer, Guest, Recorder, Request, monitor, options,
};
use hesper_vhost::wire::FORMAT_B8G8R8X8;

const ROUNDS: u32 = 60;
const CONTEXTS: u32 = 3;

/// What a driver does; `n` is random.
fn request(n: u32) -> Request {
    let context = 1 + n % CONTEXTS;
    let id = 10 + n / 3 % 4;
    let all = Rect {
        x: 0,
        y: 0,
        width: 32,
        height: 32,
    };
    match n % 11 {
        0 => Request::host_blob(context, id, 0, 8192),
        1 => Request::map_blob(id, u64::from(id) * 8192),
        2 => Request::unmap_blob(id),
        3 => Request::attach(context, id),
        4 => Request::unref(id),
        5 => Request::submit(context, &[1; 8]).ring_fence((n % 3) as u8, n.into()),
        6 => Request::submit(context, &[2; 8]).fence(n.into()),
        7 => Request::flush(1, all).fence(n.into()),
        8 => Request::transfer(1, all, 0).fence(n.into()),
        9 if n.is_multiple_of(5) => Request::destroy_context(context),
        9 => Request::detach(context, id),
        _ => Request::create_context(context, 4, "threads"),
    }
}

#[test]
fn every_chain_is_answered_once_whatever_happens_at_the_same_time() {
    let screen = Arc::new(Recorder::default());
    let renderer = FakeRenderer::new();
    screen.be_slow(true);
    renderer.be_slow(true);
    let mut guest = Guest::with(
        options(),
        Arc::clone(&screen) as _,
        vec![Arc::clone(&renderer) as _],
    );
    let stop = AtomicBool::new(false);
    let device = Arc::clone(&guest.device);
    let (stop, screen, renderer) = (&stop, &screen, &renderer);
    thread::scope(|scope| {
        for context in 1..=CONTEXTS {
            scope.spawn(move || {
                let mut count = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    for call in renderer.calls(context) {
                        count += 1;
                        let reports = renderer.reports(context);
                        match call {
                            FakeContext::Fence(ring, fence) => {
                                reports.fence_retired(context, ring, fence);
                            }
                            FakeContext::Create(id, _) if count.is_multiple_of(7) => {
                                let error = RendererError::OutOfMemory("by design".into());
                                reports.blob_created(context, id, Err(error));
                            }
                            FakeContext::Create(id, request) => {
                                renderer.make_blob(context, id, request.size);
                            }
                            _ => {}
                        }
                    }
                    thread::yield_now();
                }
            });
        }
        let shown = Arc::clone(&device);
        scope.spawn(move || {
            let mut width = 100;
            while !stop.load(Ordering::Relaxed) {
                for token in screen.tokens() {
                    shown.flush_done(token);
                }
                width = 100 + (width + 1) % 100;
                shown.set_monitor(1, Monitor { width, ..monitor() });
                thread::yield_now();
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..ROUNDS {
                drive(&mut guest, round);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    guest.reset();
    screen.calls();
    assert_eq!(device.usage(), Usage::default());
}

/// The driver's life from reset to reset. Every second one ends while commands are open.
fn drive(guest: &mut Guest, round: u32) {
    guest.image(1, FORMAT_B8G8R8X8, 32, 32);
    let all = Rect {
        x: 0,
        y: 0,
        width: 32,
        height: 32,
    };
    guest.ok(&Request::set_scanout(0, 1, all));
    for step in 0..300 {
        let luck = (step + round * 1000_u32).wrapping_mul(2_654_435_761) >> 7;
        // Any answer will do; the test is that there is one.
        let _posted = guest.post(Queue::Control, &Chain::of(&request(luck)));
        guest.late();
        let deadline = Instant::now() + Duration::from_secs(20);
        while guest.open() > 20 {
            assert!(Instant::now() < deadline, "chains stay unanswered");
            thread::yield_now();
            guest.late();
        }
    }
    if round.is_multiple_of(2) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while guest.open() > 0 {
            assert!(
                Instant::now() < deadline,
                "chains stay unanswered at the end"
            );
            thread::yield_now();
            guest.late();
        }
    }
    guest.reset();
    guest.host.forget_mappings();
}
