//! What happens when a window's surface is lost, or the GPU that draws it.

use std::path::{Path, PathBuf};

use hesper_display::{PixelFormat, Renderer};
use hesper_losing_driver::{SURFACE_VARIABLE, VARIABLE};

use super::{gradient, options, shot_of_size};
use crate::harness::{Canvas, Color, TestDisplay, with_display};

const SIZE: (u32, u32) = (320, 200);

/// Makes Vulkan's loader use only the driver that loses what it is told to lose.
fn with_losing_driver(folder: &Path, variable: &str) -> PathBuf {
    // Cargo builds it beside this program.
    let program = std::env::current_exe().unwrap();
    let library = program.parent().unwrap().join("libhesper_losing_driver.so");
    assert!(library.exists(), "no {}", library.display());
    let manifest = folder.join("losing.json");
    let text = format!(
        r#"{{"file_format_version": "1.0.0", "ICD": {{"library_path": {library:?}, "api_version": "1.4.0"}}}}"#
    );
    std::fs::write(&manifest, text).unwrap();
    let loss = folder.join("loss");
    // SAFETY: no other thread exists yet.
    unsafe {
        std::env::set_var("VK_DRIVER_FILES", &manifest);
        std::env::set_var("VK_ICD_FILENAMES", &manifest);
        std::env::set_var(variable, &loss);
    }
    loss
}

/// Shows a new picture until the window has it, whatever draws it.
fn shows(display: &TestDisplay, colour: impl Fn(u32, u32) -> Color) {
    let canvas = Canvas::new(SIZE, PixelFormat::B8G8R8X8, true);
    canvas.draw(canvas.whole(), &colour);
    display
        .handle
        .set_scanout(0, Some(canvas.picture()))
        .unwrap();
    // This is answered even if something is lost in this frame.
    display.flush(0, canvas.whole());
    let shot = || {
        let folder = tempfile::tempdir().unwrap();
        display
            .handle
            .screenshot(0, &folder.path().join("shot.png"))
    };
    // A screenshot may be lost together with its frame.
    while shot().is_err() {}
    shot_of_size(display, 0, SIZE).check(0, colour);
}

pub(super) fn device_lost() {
    let folder = tempfile::tempdir().unwrap();
    let loss = with_losing_driver(folder.path(), VARIABLE);
    with_display(options(Renderer::Auto, SIZE), |display| {
        shows(display, gradient);
        for turned in [|x, y| gradient(y, x), |x, y| gradient(x + 1, y)] {
            std::fs::write(&loss, "").unwrap();
            let canvas = Canvas::new(SIZE, PixelFormat::B8G8R8X8, true);
            display.show(0, &canvas);
            std::fs::remove_file(&loss).unwrap();
            shows(display, turned);
        }
        // This time the GPU does not come back: the CPU draws.
        std::fs::write(&loss, "").unwrap();
        shows(display, gradient);
        shows(display, |x, y| gradient(y, x));
    });
}

pub(super) fn surface_lost() {
    let folder = tempfile::tempdir().unwrap();
    let loss = with_losing_driver(folder.path(), SURFACE_VARIABLE);
    with_display(options(Renderer::Vulkan, SIZE), |display| {
        shows(display, gradient);
        for what in ["surface", "out of date", "surface"] {
            std::fs::write(&loss, what).unwrap();
            shows(display, |x, y| gradient(y, x));
            assert!(!loss.exists(), "nobody asked for an image");
            shows(display, gradient);
        }
    });
}
