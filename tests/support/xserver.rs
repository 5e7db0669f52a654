//! Xvfb, an X server without a monitor.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use x11rb::protocol::xproto::{ClientMessageEvent, ConnectionExt, EventMask, InputFocus};

use super::picture::Picture;
use super::process::{PATIENCE, Process, comes_true, in_environment};

/// A running Xvfb.
pub struct XServer {
    process: Process,
    display: String,
}

impl XServer {
    /// Starts a server with one screen of this size.
    pub fn start(width: u32, height: u32) -> Self {
        let mut child = in_environment("Xvfb")
            .args(["-displayfd", "1", "-nolisten", "tcp", "-screen", "0"])
            .arg(format!("{width}x{height}x24"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/env/run starts; see tests/env/README.md");
        let mut number = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let process = Process::new("Xvfb", child);
        output.read_line(&mut number).unwrap();
        let number = number.trim();
        assert!(
            !number.is_empty(),
            "Xvfb did not start: {}",
            process.errors()
        );
        Self {
            display: format!(":{number}"),
            process,
        }
    }

    /// What DISPLAY must be for this server.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// A command in the environment that connects to this server.
    pub fn client(&self, program: &str) -> Command {
        let mut command = in_environment(program);
        command.env("DISPLAY", &self.display);
        command
    }

    /// Runs a client to its end and returns its output. Fails the test if the client fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.client(program).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {text}{errors}"
        );
        text
    }

    /// The id of Hesper's window. Waits until there is one.
    pub fn window(&self) -> String {
        let search = ["search", "--sync", "--onlyvisible", "--class", "hesper"];
        self.run("xdotool", &search).trim().to_owned()
    }

    /// Closes Hesper's window as a window manager does when a person clicks its close button.
    pub fn close_window(&self) {
        self.close(self.window().parse().unwrap());
    }

    /// The same for the window whose title begins with `title`.
    pub fn close_window_titled(&self, title: &str) {
        let title = format!("^{}", title.replace('(', "\\(").replace(')', "\\)"));
        let search = ["search", "--sync", "--onlyvisible", "--name", &title];
        self.close(self.run("xdotool", &search).trim().parse().unwrap());
    }

    fn close(&self, window: u32) {
        let (server, _) = x11rb::connect(Some(&self.display)).unwrap();
        let atom = |name: &str| {
            let cookie = server.intern_atom(false, name.as_bytes()).unwrap();
            cookie.reply().unwrap().atom
        };
        let data = [atom("WM_DELETE_WINDOW"), x11rb::CURRENT_TIME, 0, 0, 0];
        let message = ClientMessageEvent::new(32, window, atom("WM_PROTOCOLS"), data);
        let sent = server.send_event(false, window, EventMask::NO_EVENT, message);
        sent.unwrap().check().unwrap();
    }

    /// Gives Hesper's window the keyboard focus.
    pub fn focus(&self) {
        self.run("xdotool", &["windowfocus", "--sync", &self.window()]);
    }

    /// Takes the keyboard focus away from every window.
    pub fn unfocus(&self) {
        let (server, _) = x11rb::connect(Some(&self.display)).unwrap();
        let nobody = server.set_input_focus(InputFocus::NONE, x11rb::NONE, x11rb::CURRENT_TIME);
        nobody.unwrap().check().unwrap();
    }

    /// Waits until Hesper's window has this size.
    pub fn await_size(&self, width: u32, height: u32) {
        let right = format!("WIDTH={width}\nHEIGHT={height}\n");
        self.until(&right, || {
            let geometry = ["getwindowgeometry", "--shell", &self.window()];
            self.run("xdotool", &geometry).contains(&right)
        });
    }

    /// Waits until the title of Hesper's window contains `text`, or does not if `there` is false.
    pub fn await_title(&self, text: &str, there: bool) {
        self.until(text, || self.title().contains(text) == there);
    }

    fn until(&self, what: &str, right: impl Fn() -> bool) {
        if !comes_true(right) {
            panic!(
                "not within {PATIENCE:?}: {what}; the title is {}",
                self.title()
            );
        }
    }

    /// The title of Hesper's window.
    pub fn title(&self) -> String {
        self.run("xdotool", &["getwindowname", &self.window()])
    }

    /// What Hesper's window shows, by the X server.
    pub fn window_picture(&self, folder: &Path) -> Picture {
        self.import(&self.window(), &folder.join("window.png"))
    }

    /// What the whole screen shows.
    pub fn picture(&self, folder: &Path) -> Picture {
        let file = folder.join("screen.png");
        self.import("root", &file)
    }

    /// Waits until the screen's picture is `right`.
    pub fn await_picture(&self, folder: &Path, what: &str, right: impl Fn(&Picture) -> bool) {
        let shown = comes_true(|| right(&self.picture(folder)));
        assert!(shown, "the X screen shows no {what}");
    }

    fn import(&self, window: &str, file: &Path) -> Picture {
        // png24 writes three colours even if the picture is grey.
        self.run(
            "import",
            &["-window", window, &format!("png24:{}", file.display())],
        );
        Picture::read(file)
    }
}
