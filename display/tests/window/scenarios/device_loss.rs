//! What outlives a window's parts: the picture its surface and its GPU, the place its process.

use std::path::{Path, PathBuf};
use std::process::Command;

use hesper_display::{DisplayEvent, DisplayOptions, PixelFormat, Renderer, Resize};
use hesper_losing_driver::{SURFACE_VARIABLE, VARIABLE};

use super::{gradient, options, shot_of_size};
use crate::harness::{Bench, Canvas, Color, with_display};
use crate::x11::{Server, press};

const SIZE: (u32, u32) = (320, 200);

/// Has Vulkan's loader take the driver that loses what it is told to lose, and that alone.
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

/// Shows a new picture until the window has it, whoever draws.
fn shows(bench: &Bench, colour: impl Fn(u32, u32) -> Color) {
    let canvas = Canvas::new(SIZE, PixelFormat::B8G8R8X8, true);
    canvas.draw(canvas.whole(), &colour);
    bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
    // Answered even if this is the frame in which something is lost.
    bench.flush(0, canvas.whole());
    let shot = || {
        let folder = tempfile::tempdir().unwrap();
        bench.handle.screenshot(0, &folder.path().join("shot.png"))
    };
    // A screenshot may be lost with the frame that it was part of.
    while shot().is_err() {}
    shot_of_size(bench, 0, SIZE).check(0, colour);
}

pub(super) fn device_lost() {
    let folder = tempfile::tempdir().unwrap();
    let loss = with_losing_driver(folder.path(), VARIABLE);
    with_display(options(Renderer::Auto, SIZE), |bench| {
        shows(bench, gradient);
        for turned in [|x, y| gradient(y, x), |x, y| gradient(x + 1, y)] {
            std::fs::write(&loss, "").unwrap();
            let canvas = Canvas::new(SIZE, PixelFormat::B8G8R8X8, true);
            bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
            bench.flush(0, canvas.whole());
            std::fs::remove_file(&loss).unwrap();
            shows(bench, turned);
        }
        // The GPU does not come back: the CPU draws.
        std::fs::write(&loss, "").unwrap();
        shows(bench, gradient);
        shows(bench, |x, y| gradient(y, x));
    });
}

pub(super) fn surface_lost() {
    let folder = tempfile::tempdir().unwrap();
    let loss = with_losing_driver(folder.path(), SURFACE_VARIABLE);
    with_display(options(Renderer::Vulkan, SIZE), |bench| {
        shows(bench, gradient);
        for what in ["surface", "out of date", "surface"] {
            std::fs::write(&loss, what).unwrap();
            shows(bench, |x, y| gradient(y, x));
            assert!(!loss.exists(), "nobody asked for an image");
            shows(bench, gradient);
        }
    });
}

/// Set for a process that only says what its windows are told: the file with their places.
const ONLY_LOOK: &str = "HESPER_WINDOW_PLACES";

/// Where the two windows of another process are.
fn looked(file: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(ONLY_LOOK, file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    said.trim().to_owned()
}

fn two_windows(file: &Path) -> DisplayOptions {
    DisplayOptions {
        scanouts: 2,
        places: Some(file.to_owned()),
        resize: Resize::Guest,
        ..options(Renderer::Auto, SIZE)
    }
}

/// What the next window to settle is told: `0: 320x200 at 10,20`.
fn told(bench: &Bench, scanout: usize) -> String {
    let event = bench.expect(
        |event| matches!(event, DisplayEvent::Settled { scanout: number, .. } if *number == scanout),
    );
    match event {
        DisplayEvent::Settled {
            width,
            height,
            position: Some((x, y)),
            ..
        } => format!("{scanout}: {width}x{height} at {x},{y}"),
        event => panic!("{event:?}"),
    }
}

pub(super) fn places() {
    if let Some(file) = std::env::var_os(ONLY_LOOK) {
        with_display(two_windows(Path::new(&file)), |bench| {
            let mut windows = [told(bench, 0), told(bench, 1)];
            windows.sort();
            println!("{}", windows.join(", "));
        });
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state/vm");
    let untouched = "0: 320x200 at 0,0, 1: 320x200 at 0,0";
    assert_eq!(looked(&file), untouched);
    assert!(!file.exists(), "nobody has moved anything");
    with_display(two_windows(&file), |bench| {
        let server = Server::connect();
        told(bench, 0);
        let canvas = Canvas::new(SIZE, PixelFormat::B8G8R8X8, true);
        bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
        let window = server.window("Hesper — 320×200");
        server.place(window, 70, 50);
        // Without a window manager that tells, winit measures a moved window's frame by two questions, between which
        // its size must not change.
        while told(bench, 0) != "0: 320x200 at 70,50" {}
        server.resize(window, 480, 330);
        let moved = "0: 480x330 at 70,50";
        while told(bench, 0) != moved {}
        bench.settle();
        server.focus(window);
        // A window manager would do what is asked; the file says it all the same.
        press("ctrl+alt+f");
        assert!(server.asked_for_full_screen(window));
    });
    assert_eq!(looked(&file), "0: 480x330 at 70,50, 1: 320x200 at 0,0");
    // A monitor that was taken away, and a file that somebody else wrote.
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("480x330 at 70,50"), "{text}");
    std::fs::write(&file, text.replace("70,50", "1300,50")).unwrap();
    assert_eq!(looked(&file), "0: 480x330 at 0,0, 1: 320x200 at 0,0");
    std::fs::write(&file, "nonsense").unwrap();
    assert_eq!(looked(&file), untouched);
}
