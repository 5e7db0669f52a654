//! What frames cost, and what happens when drivers, servers or presenters fail.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hesper_display::{
    Cursor, DisplayOptions, Picture, PictureLayout, PixelFormat, PixelMemory, Rect, Renderer,
};

use super::{gradient, options, shot_of_size};
use crate::harness::{Canvas, allocations, with_display};

pub(super) fn frames_allocate_nothing() {
    let size = (320, 200);
    with_display(options(Renderer::Vulkan, size), |bench| {
        let cursor = Cursor::new((64, 64), (0, 0), PixelFormat::B8G8R8A8, &[9; 16384]).unwrap();
        bench.handle.set_cursor(0, Some(cursor)).unwrap();
        for importable in [true, false] {
            let buffers = [(); 2].map(|()| Canvas::new(size, PixelFormat::A8R8G8B8, importable));
            let pictures = buffers.each_ref().map(Canvas::picture);
            let frame = |step: i32| {
                let next = pictures[step as usize % 2].clone();
                bench.handle.set_scanout(0, Some(next)).unwrap();
                bench.handle.move_cursor(0, step, step).unwrap();
                bench.flush(
                    0,
                    Rect {
                        x: step as u32,
                        y: 5,
                        width: 30,
                        height: 40,
                    },
                );
            };
            // The first frames make buffers, and a channel allocates when first waited for.
            (0..10).for_each(frame);
            bench.settle();
            let before = allocations();
            (0..200).for_each(frame);
            let allocated = allocations() - before;
            assert!(allocated == 0, "{allocated} allocations in 200 frames");
        }
    });
}

/// Memory whose first reading panics.
struct Treacherous(AtomicBool);

// SAFETY: no pages are handed out.
unsafe impl PixelMemory for Treacherous {
    fn size(&self) -> usize {
        320 * 200 * 4
    }

    fn host_pages(&self) -> Option<NonNull<[u8]>> {
        None
    }

    fn read(&self, _: usize, into: &mut [u8]) {
        assert!(
            self.0.swap(true, Ordering::Relaxed),
            "this panic is part of the test"
        );
        into.fill(99);
    }
}

pub(super) fn panicking() {
    let (width, height) = (320, 200);
    with_display(options(Renderer::Auto, (width, height)), |bench| {
        let format = PixelFormat::B8G8R8X8;
        let layout = PictureLayout {
            offset: 0,
            stride: width * 4,
            width,
            height,
            format,
        };
        let memory = Arc::new(Treacherous(AtomicBool::new(false)));
        bench.screenshot(0).check(0, |_, _| [0; 3]);
        bench
            .handle
            .set_scanout(0, Some(Picture::new(memory, layout).unwrap()))
            .unwrap();
        // Answered even if its frame was the one that panicked.
        bench.flush(0, Rect::whole(width, height));
        shot_of_size(bench, 0, (width, height)).check(0, |_, _| [99; 3]);
    });
}

/// User and system time of this process.
pub(super) fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|t| t.parse::<u64>().unwrap())
        .sum();
    // Linux reports in hundredths of a second, on every machine of today.
    Duration::from_millis(ticks * 10)
}

pub(super) fn idle() {
    let options = DisplayOptions {
        overlay: true,
        ..options(Renderer::Auto, (640, 400))
    };
    with_display(options, |bench| {
        let canvas = Canvas::new((640, 400), PixelFormat::B8G8R8X8, true);
        bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
        bench.flush(0, canvas.whole());
        thread::sleep(Duration::from_millis(500));
        let before = cpu_time();
        thread::sleep(Duration::from_secs(3));
        let used = cpu_time() - before;
        assert!(
            used <= Duration::from_millis(20),
            "{used:?} of CPU in 3 s of nothing"
        );
    });
}

pub(super) fn no_driver() {
    // SAFETY: no other thread exists yet.
    unsafe {
        std::env::set_var("VK_DRIVER_FILES", "/nonexistent.json");
        std::env::set_var("VK_ICD_FILENAMES", "/nonexistent.json");
    }
    let child = std::env::var_os("HESPER_WINDOW_STRICT");
    if child.is_some() {
        with_display(options(Renderer::Vulkan, (320, 200)), |_| ());
        return;
    }
    // One event loop a process: what must fail is tried in another.
    let program = std::env::current_exe().unwrap();
    let strict = std::process::Command::new(program)
        .env("HESPER_WINDOW_STRICT", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&strict.stderr);
    assert!(!strict.status.success());
    assert!(
        said.contains("nothing can draw into window 0: Vulkan: "),
        "{said}"
    );
    assert!(said.contains("mesa-vulkan-drivers"), "{said}");
    with_display(options(Renderer::Auto, (320, 200)), |bench| {
        let canvas = Canvas::new((320, 200), PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), gradient);
        bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
        bench.flush(0, canvas.whole());
        shot_of_size(bench, 0, (320, 200)).check(0, gradient);
    });
}

pub(super) fn no_server() {
    // SAFETY: no other thread exists yet.
    unsafe {
        std::env::remove_var("DISPLAY");
        std::env::remove_var("WAYLAND_DISPLAY");
        std::env::remove_var("WAYLAND_SOCKET");
    }
    let error = hesper_display::Display::new(DisplayOptions::default(), Box::new(|_| ()))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    for part in [
        "DISPLAY is not set",
        "WAYLAND_DISPLAY is not set",
        "--display=headless",
    ] {
        assert!(error.contains(part), "{error}");
    }
}
