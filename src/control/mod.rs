//! The control socket: how a script or a person at a shell talks to a running Hesper.
//!
//! `--control=PATH` opens a unix stream socket that only its owner may use. A client writes one
//! command line and reads one answer line, `ok …` or `error …`; then it may write the next. After
//! the answers to `screenshot … -` and `trace stop -` come the bytes of a file, as many as the line
//! says.
//! `hesper ctl PATH COMMAND…` is such a client. [`Request`] lists the commands.

mod client;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hesper_system::{LogLimit, Peer, is_exhausted};

pub(crate) use client::ask;

use crate::cli::Size;

/// Longest command line in bytes; longer ones end the connection.
const MAX_LINE: u64 = 8192;

/// Instead of a file: the client gets the bytes.
const TO_CLIENT: &str = "-";

/// How long a client may take to finish its line before its connection ends.
const LINE_TIMEOUT: Duration = Duration::from_secs(60);

/// How many clients may be connected at a time. Each has a thread.
const MAX_CLIENTS: usize = 32;

/// How long to wait when there are no descriptors left.
const RETRY: Duration = Duration::from_millis(100);

/// Limits the lines about clients, which may connect as often as they like.
static CLIENTS: LogLimit = LogLimit::new("hesper");

/// The commands of the control socket, as a running Hesper performs them.
pub(crate) trait Controls: Send + Sync {
    /// Writes what `scanout` shows to `file`, a PNG.
    fn screenshot(&self, scanout: u32, file: &Path) -> Result<(), String>;
    /// What `scanout` shows, as a PNG.
    fn screenshot_bytes(&self, scanout: u32) -> Result<Vec<u8>, String>;
    /// Resizes the window of `scanout`, as a person would. Resizes the guest's monitor instead
    /// where it does not follow the window.
    fn resize(&self, scanout: u32, size: Size) -> Result<(), String>;
    /// Opens the window of `scanout` again.
    fn plug(&self, scanout: u32) -> Result<(), String>;
    /// Closes the window of `scanout`, as a person would.
    fn unplug(&self, scanout: u32) -> Result<(), String>;
    /// Shows the windows, or hides them.
    fn show(&self, shown: bool) -> Result<(), String>;
    /// The state as a JSON object on one line.
    fn status(&self) -> String;
    /// The counters as a JSON object on one line.
    fn counters(&self) -> String;
    /// Begins to record a trace of the guest's programs.
    fn start_trace(&self) -> Result<(), String>;
    /// Ends the recording. Returns the file that Perfetto reads.
    fn stop_trace(&self) -> Result<Vec<u8>, String>;
    /// Ends the program.
    fn quit(&self);
}

/// One command line.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    /// `screenshot [SCANOUT] FILE.png`: FILE is the rest of the line, an absolute path. Without
    /// SCANOUT it is the first scanout. The sandbox may forbid to write there.
    Screenshot(u32, PathBuf),
    /// `screenshot [SCANOUT] -`: the picture follows the answer, and the client writes it.
    ScreenshotBytes(u32),
    /// `resize SCANOUT WIDTHxHEIGHT`.
    Resize(u32, Size),
    /// `plug SCANOUT`.
    Plug(u32),
    /// `unplug SCANOUT`.
    Unplug(u32),
    /// `show` (true) or `hide` (false).
    Show(bool),
    /// `status`.
    Status,
    /// `counters`.
    Counters,
    /// `trace start`.
    StartTrace,
    /// `trace stop FILE`, or `trace stop -`: the trace follows the answer. Only the client writes
    /// FILE.
    StopTrace(PathBuf),
    /// `quit`.
    Quit,
}

impl Request {
    fn parse(line: &str) -> Result<Self, String> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = |scanout: &str| match scanout {
            "" => Err(format!(
                "{command}: a scanout's number, such as 0, is missing"
            )),
            other => other
                .parse::<u32>()
                .map_err(|_| format!("'{other}' is not a scanout's number")),
        };
        let scanout_and_rest = || {
            let (scanout, rest) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
            Ok::<_, String>((number(scanout)?, rest.trim()))
        };
        match command {
            "screenshot" => {
                let (scanout, file) = scanout_and_file(rest);
                if file.is_empty() {
                    return Err("screenshot: a FILE.png is missing".to_owned());
                }
                if file == TO_CLIENT {
                    return Ok(Self::ScreenshotBytes(scanout));
                }
                if !file.to_ascii_lowercase().ends_with(".png") {
                    return Err(format!(
                        "'{file}': screenshots are PNGs; name a file that ends in .png"
                    ));
                }
                if !file.starts_with('/') {
                    return Err(format!("'{file}' is not an absolute path"));
                }
                Ok(Self::Screenshot(scanout, file.into()))
            }
            "resize" => {
                let (scanout, size) = scanout_and_rest()?;
                let size = size
                    .parse()
                    .map_err(|allowed| format!("'{size}': {allowed}"))?;
                Ok(Self::Resize(scanout, size))
            }
            "plug" => Ok(Self::Plug(number(rest.trim())?)),
            "unplug" => Ok(Self::Unplug(number(rest.trim())?)),
            "show" => Ok(Self::Show(true)),
            "hide" => Ok(Self::Show(false)),
            "status" => Ok(Self::Status),
            "counters" => Ok(Self::Counters),
            "trace" => trace(rest),
            "quit" => Ok(Self::Quit),
            other => Err(format!(
                "'{other}' is not one of: screenshot [SCANOUT] FILE.png, resize SCANOUT WIDTHxHEIGHT, \
                 plug SCANOUT, unplug SCANOUT, hide, show, status, counters, trace start, \
                 trace stop FILE, quit"
            )),
        }
    }

    fn perform(self, controls: &dyn Controls) -> Result<Answer, String> {
        match self {
            Self::Screenshot(scanout, file) => controls.screenshot(scanout, &file)?,
            Self::ScreenshotBytes(scanout) => {
                return Ok(Answer::file(controls.screenshot_bytes(scanout)?));
            }
            Self::StopTrace(file) if file == Path::new(TO_CLIENT) => {
                return Ok(Answer::file(controls.stop_trace()?));
            }
            Self::StopTrace(file) => {
                return Err(format!(
                    "'{}': the sandbox allows Hesper only few folders; let `hesper ctl` write the file, or ask for `trace stop -`",
                    file.display()
                ));
            }
            Self::StartTrace => controls.start_trace()?,
            Self::Resize(scanout, size) => controls.resize(scanout, size)?,
            Self::Plug(scanout) => controls.plug(scanout)?,
            Self::Unplug(scanout) => controls.unplug(scanout)?,
            Self::Show(shown) => controls.show(shown)?,
            Self::Status => return Ok(controls.status().into()),
            Self::Counters => return Ok(controls.counters().into()),
            Self::Quit => controls.quit(),
        }
        Ok(String::new().into())
    }
}

/// An answer after `ok`.
struct Answer {
    text: String,
    /// What follows the line.
    bytes: Vec<u8>,
}

impl Answer {
    /// The answer that is followed by this file.
    fn file(bytes: Vec<u8>) -> Self {
        let text = bytes.len().to_string();
        Self { text, bytes }
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self {
            text,
            bytes: Vec::new(),
        }
    }
}

/// Answers commands on `listener` until the process ends, on threads of its own.
pub(crate) fn serve(listener: UnixListener, controls: Arc<dyn Controls>) -> io::Result<()> {
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let clients = Arc::new(());
            for client in listener.incoming() {
                let controls = Arc::clone(&controls);
                let place = Arc::clone(&clients);
                let started = client.and_then(|client| {
                    // One is the listener's own.
                    if Arc::strong_count(&place) > MAX_CLIENTS + 1 {
                        return Err(io::Error::other(format!(
                            "there are {MAX_CLIENTS} already, and {} is one too many",
                            Peer::of(&client)
                        )));
                    }
                    thread::Builder::new()
                        .name("control client".to_owned())
                        .spawn(move || {
                            answer(&client, &*controls);
                            drop(place);
                        })
                });
                if let Err(error) = started {
                    CLIENTS.warn(format_args!(
                        "cannot serve a client of the control socket: {error}"
                    ));
                    if is_exhausted(&error) {
                        // The client stays in the listener's queue: an immediate retry would spin.
                        thread::sleep(RETRY);
                    }
                }
            }
        })?;
    Ok(())
}

/// Reads from a client until a deadline. A client that sends its line byte by byte gains no time.
struct Timed<'c> {
    client: &'c UnixStream,
    deadline: Instant,
}

impl io::Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.client.set_read_timeout(Some(left))?;
        let mut client = self.client;
        client.read(into)
    }
}

fn answer(client: &UnixStream, controls: &dyn Controls) {
    let talk = || {
        client.set_write_timeout(Some(LINE_TIMEOUT))?;
        let mut reader = BufReader::new(Timed {
            client,
            deadline: Instant::now() + LINE_TIMEOUT,
        });
        // A vhost-user message starts with a number whose upper bytes are zero; text has no zeros.
        if reader.fill_buf()?.contains(&0) {
            CLIENTS.warn(format_args!(
                "a client of the control socket ({}) sent no text and was disconnected; a VM monitor needs the path of --socket-path",
                Peer::of(client)
            ));
            return Ok(());
        }
        loop {
            let mut line = String::new();
            reader.get_mut().deadline = Instant::now() + LINE_TIMEOUT;
            let size = Read::take(&mut reader, MAX_LINE).read_line(&mut line)?;
            if size == 0 || !line.ends_with('\n') {
                return Ok(());
            }
            let mut client = client;
            let request = Request::parse(line.trim());
            if request == Ok(Request::Quit) {
                // Answered first, because the process may end during `quit`.
                writeln!(client, "ok ")?;
                controls.quit();
                return Ok(());
            }
            match request.and_then(|request| request.perform(controls)) {
                Ok(answer) => {
                    writeln!(client, "ok {}", answer.text)?;
                    client.write_all(&answer.bytes)?;
                }
                Err(text) => writeln!(client, "error {text}")?,
            }
        }
    };
    let done: io::Result<()> = talk();
    if let Err(error) = done {
        log::debug!("control socket: {error}");
    }
}

/// Splits the words after `screenshot` into a scanout, 0 where none is named, and a file.
fn scanout_and_file(rest: &str) -> (u32, &str) {
    let rest = rest.trim();
    let (first, file) = rest.split_once(' ').unwrap_or((rest, ""));
    first
        .parse()
        .map_or((0, rest), |scanout| (scanout, file.trim()))
}

/// Reads the words after `trace`.
fn trace(rest: &str) -> Result<Request, String> {
    let rest = rest.trim();
    let (what, file) = rest.split_once(' ').unwrap_or((rest, ""));
    match (what, file.trim()) {
        ("start", "") => Ok(Request::StartTrace),
        ("stop", "") => Err("trace stop: a FILE is missing, such as trace.json".to_owned()),
        ("stop", file) => Ok(Request::StopTrace(file.into())),
        ("", _) => Err("trace: start or stop FILE is missing".to_owned()),
        _ => Err(format!("trace: '{rest}' is not one of: start, stop FILE")),
    }
}

#[cfg(test)]
mod tests;
