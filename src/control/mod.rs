//! The control socket: how a script or a person at a shell talks to a running Hesper.
//!
//! `--control=PATH` opens a unix stream socket that only its owner may use. A client writes one
//! command line and reads one answer line, `ok …` or `error …`; then it may write the next. After
//! the answer to `screenshot … -` come the bytes of a PNG, as many as the line says.
//! `hesper ctl PATH COMMAND…` is such a client. [`Request`] lists the commands.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hesper_system::{LogLimit, Peer, is_exhausted};
use hesper_vhost::transport::check_length;

use crate::cli::Size;

/// Longest command line in bytes; longer ones end the connection.
const MAX_LINE: u64 = 8192;

/// Instead of a screenshot's file: the client gets the picture.
const TO_CLIENT: &str = "-";

/// How long `hesper ctl` waits for an answer. The slowest, a screenshot, takes a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

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
            "quit" => Ok(Self::Quit),
            other => Err(format!(
                "'{other}' is not one of: screenshot [SCANOUT] FILE.png, resize SCANOUT WIDTHxHEIGHT, \
                 plug SCANOUT, unplug SCANOUT, hide, show, status, counters, quit"
            )),
        }
    }

    fn perform(self, controls: &dyn Controls) -> Result<Answer, String> {
        match self {
            Self::Screenshot(scanout, file) => controls.screenshot(scanout, &file)?,
            Self::ScreenshotBytes(scanout) => {
                let picture = controls.screenshot_bytes(scanout)?;
                return Ok(Answer {
                    text: picture.len().to_string(),
                    picture,
                });
            }
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
    picture: Vec<u8>,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self {
            text,
            picture: Vec::new(),
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
                    client.write_all(&answer.picture)?;
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

/// Sends one command to the control socket at `path` and returns the text after `ok`. A screenshot
/// is written here, because this program may write where its user may.
///
/// # Errors
/// The error that the running Hesper answered, or why it could not be asked.
pub(crate) fn ask(path: &Path, words: &[String]) -> Result<String, String> {
    check_length(path).map_err(|error| error.to_string())?;
    let line =
        absolute(words).map_err(|error| format!("cannot read the current folder: {error}"))?;
    if line.contains('\n') {
        return Err("a command must be one line".to_owned());
    }
    // A wrong command is an error even when no Hesper is listening.
    let (line, file) = match Request::parse(&line)? {
        Request::Screenshot(scanout, file) => {
            (format!("screenshot {scanout} {TO_CLIENT}"), Some(file))
        }
        // This would fill a terminal.
        Request::ScreenshotBytes(_) => {
            return Err("screenshot: a FILE.png is missing".to_owned());
        }
        _ => (line, None),
    };
    let exchange = || {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        // In one piece: the other side may answer and close after the first.
        stream.write_all(format!("{line}\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut answer = String::new();
        reader.read_line(&mut answer)?;
        Ok((answer, reader))
    };
    let asked: io::Result<(String, BufReader<UnixStream>)> = exchange();
    let failed = |error: &io::Error| format!("{}: {}", path.display(), unanswered(error));
    let (answer, reader) = asked.map_err(|error| failed(&error))?;
    let answer = answer.trim_end();
    match (answer.split_once(' ').unwrap_or((answer, "")), file) {
        (("ok", text), Some(file)) => {
            let size = text
                .parse()
                .map_err(|_| format!("'{text}' is not the size of a picture; {NOT_OURS}"))?;
            let picture = read_picture(reader, size).map_err(|error| failed(&error))?;
            std::fs::write(&file, picture).map_err(|error| {
                format!(
                    "cannot write the screenshot to {}: {error}; check that the folder exists and is writable",
                    file.display()
                )
            })?;
            Ok(String::new())
        }
        (("ok", text), None) => Ok(text.to_owned()),
        (("error", text), _) => Err(text.to_owned()),
        (("", _), _) => Err(format!(
            "{}: the other side closed the connection; {NOT_OURS}",
            path.display()
        )),
        _ => Err(format!(
            "{}: '{answer}' is not an answer of Hesper; {NOT_OURS}",
            path.display()
        )),
    }
}

/// Reads the picture that follows an answer.
fn read_picture(reader: impl Read, size: u64) -> io::Result<Vec<u8>> {
    let mut picture = Vec::new();
    reader.take(size).read_to_end(&mut picture)?;
    match picture.len() as u64 == size {
        true => Ok(picture),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The remedy when a socket gives no answer of Hesper's.
const NOT_OURS: &str =
    "name the path of a running Hesper's --control, not that of --socket-path or --input-socket";

/// The error text for a socket that does not answer.
fn unanswered(error: &io::Error) -> String {
    let remedy = "start Hesper with --control and this path";
    match error.kind() {
        io::ErrorKind::NotFound => format!("there is no such socket; {remedy}"),
        io::ErrorKind::ConnectionRefused => {
            format!("the Hesper that listened there has ended, or this is no socket; {remedy}")
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {ANSWER_TIMEOUT:?}; {NOT_OURS}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{error}; only the user who runs Hesper may use its control socket")
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            format!("the other side closed the connection; {NOT_OURS}")
        }
        _ => error.to_string(),
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

/// Joins `words` to a command line and makes a screenshot's relative path absolute, because the
/// running Hesper may have another working directory.
fn absolute(words: &[String]) -> io::Result<String> {
    let line = words.join(" ");
    let Some(rest) = line.strip_prefix("screenshot ") else {
        return Ok(line);
    };
    let (scanout, file) = scanout_and_file(rest);
    if file.is_empty() || file == TO_CLIENT {
        return Ok(line);
    }
    let file = std::path::absolute(file)?;
    Ok(format!("screenshot {scanout} {}", file.display()))
}

#[cfg(test)]
mod tests;
