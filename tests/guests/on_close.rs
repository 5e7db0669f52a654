//! Closing the window of a running VM, with stock QEMU and a Linux guest: Hesper asks, and the
//! guest goes on.

use crate::support::guest::{Guest, Route};
use crate::support::hesper::Hesper;
use crate::support::picture::Picture;
use crate::support::process::{PATIENCE, comes_true};
use crate::support::xserver::XServer;
use rustix::process::Signal;
use serde_json::Value;

const ARGUMENTS: [&str; 2] = ["--size=640x400", "--hostmem=0"];

fn status(hesper: &Hesper) -> Value {
    serde_json::from_str(&hesper.control("status")).unwrap()
}

#[track_caller]
fn await_hidden(hesper: &Hesper, hidden: bool) {
    let right = || status(hesper)["windows_hidden"] == hidden;
    assert!(comes_true(right), "{}", status(hesper));
}

/// The text in the middle of the window.
fn says(hesper: &Hesper) -> String {
    let status = status(hesper);
    let says = status["monitors"][0]["says"].as_str();
    says.unwrap_or_default().to_owned()
}

/// Closes the window and waits for the question.
#[track_caller]
fn close(hesper: &Hesper, screen: &XServer) {
    screen.focus();
    screen.close_window();
    let asked = comes_true(|| says(hesper).starts_with("A VM is using this window."));
    assert!(asked, "{}", status(hesper));
}

#[test]
fn a_closed_window_asks_and_is_hidden_and_the_guest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1000, 700);
    let mut hesper = Hesper::start(folder, &ARGUMENTS, Some(&screen));
    let mut guest = Guest::boot(folder, "guest", Route::Full, &hesper.socket());
    let picture = |seed| Picture::pattern(seed, 640, 400);
    guest.run("show 0 1");
    hesper.await_picture(0, &picture(1), 0);

    close(&hesper, &screen);
    let control = folder.join("control.sock");
    let how = format!("hesper ctl {} show", control.display());
    // The text has line breaks.
    let said: String = says(&hesper).split_whitespace().collect();
    assert!(said.contains(&how.replace(' ', "")), "{}", says(&hesper));
    screen.run("xdotool", &["key", "Escape"]);
    assert!(comes_true(|| says(&hesper).is_empty()));
    hesper.await_picture(0, &picture(1), 0);

    let mut held = None;
    for round in 0..3 {
        close(&hesper, &screen);
        screen.run("xdotool", &["key", "h"]);
        await_hidden(&hesper, true);
        let seed = 2 + 2 * round;
        guest.run(&format!("show 0 {seed}"));
        hesper.await_picture(0, &picture(seed), 0);
        // Without a window, the guest's drawing waits for nothing.
        let took: u64 = guest.run("animate 0 60 60").parse().unwrap();
        assert!(took < 30_000_000, "{took} µs");
        let refused = hesper.try_control("resize 0 700x500");
        assert!(refused.contains("hidden"), "{refused}");
        if round == 1 {
            hesper.process.signal(Signal::USR2);
        } else {
            hesper.control("show");
        }
        await_hidden(&hesper, false);
        screen.await_size(640, 400);
        guest.run(&format!("show 0 {}", seed + 1));
        hesper.await_picture(0, &picture(seed + 1), 0);
        assert!(guest.run("modes 0").starts_with("640x400"));
        hesper.holds_the_same(&mut held);
    }

    // A new VM shows the window.
    hesper.control("hide");
    await_hidden(&hesper, true);
    guest.kill();
    assert!(comes_true(|| status(&hesper)["vm_connected"] == false));
    await_hidden(&hesper, true);
    let mut guest = Guest::boot(folder, "second", Route::Full, &hesper.socket());
    await_hidden(&hesper, false);
    guest.run("show 0 20");
    hesper.await_picture(0, &picture(20), 0);

    close(&hesper, &screen);
    screen.run("xdotool", &["key", "q"]);
    let status = hesper.process.wait(PATIENCE);
    assert!(status.success(), "{status}: {}", hesper.process.errors());
    let errors = hesper.process.errors();
    assert!(errors.contains(&how), "how it comes back: {errors}");
    guest.kill();
}

#[test]
fn the_question_goes_with_the_vm_and_the_close_goes_through() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1000, 700);
    let mut hesper = Hesper::start(folder, &ARGUMENTS, Some(&screen));
    let mut guest = Guest::boot(folder, "guest", Route::Full, &hesper.socket());
    guest.run("show 0 1");
    close(&hesper, &screen);
    guest.kill();
    let status = hesper.process.wait(PATIENCE);
    assert!(status.success(), "{status}: {}", hesper.process.errors());
    assert!(!hesper.socket().exists(), "the socket stays behind");
}

#[test]
fn windows_that_are_not_there_are_neither_hidden_nor_shown() {
    let folder = tempfile::tempdir().unwrap();
    let hesper = Hesper::start(folder.path(), &["--display=headless"], None);
    for command in ["hide", "show"] {
        let refused = hesper.try_control(command);
        assert_eq!(
            refused,
            "error there are no windows; start Hesper with --display=window for some"
        );
    }
    hesper.process.signal(Signal::USR2);
    let warned = || hesper.process.errors().contains("SIGUSR2 shows no window");
    assert!(comes_true(warned), "{}", hesper.process.errors());
    assert_eq!(status(&hesper)["windows_hidden"], false);
}
