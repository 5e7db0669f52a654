//! Windows open at the positions that they had the last time.

use std::path::Path;
use std::process::Command;

use hesper_display::{DisplayEvent, DisplayOptions, PixelFormat, Renderer, Resize};

use super::options;
use crate::harness::{Canvas, TestDisplay, with_display};
use crate::x11::{Server, press};

const SIZE: (u32, u32) = (320, 200);

/// Names the file of positions for a process that only prints what its windows report.
const ONLY_LOOK: &str = "HESPER_WINDOW_PLACES";

/// The positions of the two windows of another process.
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
        window_positions: Some(file.to_owned()),
        resize: Resize::Guest,
        ..options(Renderer::Auto, SIZE)
    }
}

/// What the window reports next: `0: 320x200 at 10,20`.
fn reported(display: &TestDisplay, scanout: usize) -> String {
    let event = display.expect(
        |event| matches!(event, DisplayEvent::MonitorChanged { scanout: number, .. } if *number == scanout),
    );
    match event {
        DisplayEvent::MonitorChanged {
            width,
            height,
            position: Some((x, y)),
            ..
        } => format!("{scanout}: {width}x{height} at {x},{y}"),
        event => panic!("{event:?}"),
    }
}

pub(super) fn restored() {
    if let Some(file) = std::env::var_os(ONLY_LOOK) {
        with_display(two_windows(Path::new(&file)), |display| {
            let mut windows = [reported(display, 0), reported(display, 1)];
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
    with_display(two_windows(&file), |display| {
        let server = Server::connect();
        reported(display, 0);
        let canvas = Canvas::new(SIZE, PixelFormat::B8G8R8X8, true);
        display
            .handle
            .set_scanout(0, Some(canvas.picture()))
            .unwrap();
        let window = server.window("Hesper — 320×200");
        server.place(window, 70, 50);
        // Without a window manager that tells, winit finds the frame of a moved window with two
        // requests. The window's size must not change between them.
        while reported(display, 0) != "0: 320x200 at 70,50" {}
        server.resize(window, 480, 330);
        let moved = "0: 480x330 at 70,50";
        while reported(display, 0) != moved {}
        display.settle();
        server.focus(window);
        // A window manager would do this. The file says so without one, too.
        press("ctrl+alt+f");
        assert!(server.asked_for_full_screen(window));
    });
    assert_eq!(looked(&file), "0: 480x330 at 70,50, 1: 320x200 at 0,0");
    // A monitor that was taken away, and a file that someone else wrote.
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("480x330 at 70,50"), "{text}");
    std::fs::write(&file, text.replace("70,50", "1300,50")).unwrap();
    assert_eq!(looked(&file), "0: 480x330 at 0,0, 1: 320x200 at 0,0");
    std::fs::write(&file, "nonsense").unwrap();
    assert_eq!(looked(&file), untouched);
}
