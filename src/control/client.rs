//! `hesper ctl`: the client of the control socket. It writes the files, because it may write where
//! its user may.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hesper_vhost::transport::check_length;

use super::{Request, TO_CLIENT, scanout_and_file};

/// How long `hesper ctl` waits for an answer. The slowest are a screenshot, which takes a second,
/// and a long trace, which takes some.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the bytes go that follow an answer.
enum Target {
    Nowhere,
    File(Wanted),
    Output,
}

/// Sends one command to the control socket at `path` and returns the text after `ok`, or the trace
/// for `trace stop -`.
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
    let (line, target) = match Request::parse(&line)? {
        Request::Screenshot(scanout, file) => (
            format!("screenshot {scanout} {TO_CLIENT}"),
            Target::File(Wanted::new("screenshot", &file)),
        ),
        // This would fill a terminal.
        Request::ScreenshotBytes(_) => {
            return Err("screenshot: a FILE.png is missing".to_owned());
        }
        Request::StopTrace(file) if file == Path::new(TO_CLIENT) => (line, Target::Output),
        Request::StopTrace(file) => {
            let mut wanted = Wanted::new("trace", &file);
            // A trace that is stopped and cannot be written is gone.
            wanted.open()?;
            (format!("trace stop {TO_CLIENT}"), Target::File(wanted))
        }
        _ => (line, Target::Nowhere),
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
    let bytes = |text: &str| {
        let size = text
            .parse()
            .map_err(|_| format!("'{text}' is not the size of a file; {NOT_OURS}"))?;
        read_file(reader, size).map_err(|error| failed(&error))
    };
    match (answer.split_once(' ').unwrap_or((answer, "")), target) {
        (("ok", text), Target::File(mut wanted)) => {
            wanted.write(&bytes(text)?)?;
            Ok(String::new())
        }
        (("ok", text), Target::Output) => {
            let text = String::from_utf8(bytes(text)?);
            text.map(|text| text.trim_end().to_owned())
                .map_err(|error| format!("the trace is no text: {error}; {NOT_OURS}"))
        }
        (("ok", text), Target::Nowhere) => Ok(text.to_owned()),
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

/// A file that is to be written. One that was opened and is not written stays as it was.
struct Wanted {
    what: &'static str,
    path: PathBuf,
    file: Option<File>,
    /// It was not there before, and has no content yet.
    is_new: bool,
}

impl Wanted {
    fn new(what: &'static str, path: &Path) -> Self {
        Self {
            what,
            path: path.to_owned(),
            file: None,
            is_new: false,
        }
    }

    /// Opens the file, and leaves its content as it is.
    fn open(&mut self) -> Result<&mut File, String> {
        let is_new = !self.path.exists();
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path);
        let file = opened.map_err(|error| self.failed(&error))?;
        self.is_new = is_new;
        Ok(self.file.insert(file))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.file.is_none() {
            self.open()?;
        }
        let write = |file: &mut File| {
            if file.metadata()?.is_file() {
                file.set_len(0)?;
            }
            file.write_all(bytes)
        };
        let written = self.file.as_mut().map_or(Ok(()), write);
        self.is_new = false;
        written.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> String {
        format!(
            "cannot write the {} to {}: {error}; check that the folder exists and is writable",
            self.what,
            self.path.display()
        )
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        if self.is_new {
            // An error leaves an empty file, which harms nobody.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Reads the file that follows an answer.
fn read_file(reader: impl Read, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(size).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
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

/// Joins `words` to a command line and makes a screenshot's relative path absolute, because the
/// running Hesper may have another working directory.
pub(super) fn absolute(words: &[String]) -> io::Result<String> {
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
