//! What happens when drivers, servers or presenters fail.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hesper_display::{
    DisplayOptions, Picture, PictureLayout, PixelFormat, PixelMemory, Rect, Renderer,
};

use super::{gradient, options, shot_of_size};
use crate::harness::{Canvas, with_display};

/// Memory that panics when it is first read.
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
    with_display(options(Renderer::Auto, (width, height)), |display| {
        let format = PixelFormat::B8G8R8X8;
        let layout = PictureLayout {
            offset: 0,
            stride: width * 4,
            width,
            height,
            format,
        };
        let memory = Arc::new(Treacherous(AtomicBool::new(false)));
        display.screenshot(0).check(0, |_, _| [0; 3]);
        display
            .handle
            .set_scanout(0, Some(Picture::new(memory, layout).unwrap()))
            .unwrap();
        // This is answered even if its frame was the one that panicked.
        display.flush(0, Rect::whole(width, height));
        shot_of_size(display, 0, (width, height)).check(0, |_, _| [99; 3]);
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
    // A process can have only one event loop: the failing display runs in another process.
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
    with_display(options(Renderer::Auto, (320, 200)), |display| {
        let canvas = Canvas::new((320, 200), PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), gradient);
        display.show(0, &canvas);
        shot_of_size(display, 0, (320, 200)).check(0, gradient);
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
