//! Reads the kernel's input devices, as a display server does.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// `O_NONBLOCK` on x86 and ARM.
const NONBLOCK: i32 = 0o4000;
/// The size of `struct input_event` on 64-bit machines: two times of 8 bytes, type, code, value.
const EVENT: usize = 24;
/// How long to read events after the first one: a held key repeats without end.
const ENOUGH: Duration = Duration::from_secs(2);
/// How long to wait for the first event.
const PATIENCE: Duration = Duration::from_secs(20);

/// The open devices, by a part of their name.
#[derive(Default)]
pub(crate) struct Inputs(BTreeMap<String, File>);

/// The names of the input devices, in order.
pub(crate) fn list() -> io::Result<String> {
    let names: Vec<String> = devices()?.into_iter().map(|(name, _)| name).collect();
    Ok(names.join(", "))
}

fn devices() -> io::Result<Vec<(String, String)>> {
    let mut devices = Vec::new();
    for entry in fs::read_dir("/sys/class/input")? {
        let entry = entry?;
        let node = entry.file_name().to_string_lossy().into_owned();
        if node.starts_with("event") {
            let name = fs::read_to_string(entry.path().join("device/name"))?;
            devices.push((name.trim().to_owned(), format!("/dev/input/{node}")));
        }
    }
    devices.sort();
    Ok(devices)
}

impl Inputs {
    /// Opens the device with `part` in its name. Its events count from now on.
    pub(crate) fn open(&mut self, part: &str) -> io::Result<String> {
        let devices = devices()?;
        let (name, node) = devices
            .into_iter()
            .find(|(name, _)| name.contains(part))
            .ok_or_else(|| io::Error::other(format!("no input device is called '{part}'")))?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(NONBLOCK)
            .open(node)?;
        self.0.insert(part.to_owned(), file);
        Ok(name)
    }

    /// Waits for the first event of a device, and reads until none has come for `quiet`. Returns
    /// the events as `type:code:value`, with a `/` after each report.
    pub(crate) fn take(&mut self, part: &str, quiet: Duration) -> io::Result<String> {
        self.take_within(part, PATIENCE, quiet)
    }

    /// Does the same, but waits only `quiet` for the first event, which is not expected to come.
    pub(crate) fn rest(&mut self, part: &str, quiet: Duration) -> io::Result<String> {
        self.take_within(part, quiet, quiet)
    }

    fn take_within(&mut self, part: &str, first: Duration, quiet: Duration) -> io::Result<String> {
        let file = self
            .0
            .get_mut(part)
            .ok_or_else(|| io::Error::other(format!("'{part}' is not open")))?;
        let mut words: Vec<String> = Vec::new();
        let mut until = Instant::now() + first;
        let mut end = None;
        loop {
            let mut bytes = [0; EVENT];
            match file.read(&mut bytes) {
                Ok(EVENT) => {
                    words.push(word(&bytes));
                    let now = Instant::now();
                    until = now + quiet;
                    if now > *end.get_or_insert(now + ENOUGH) {
                        return Ok(words.join(" "));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() > until {
                        return Ok(words.join(" "));
                    }
                    sleep(Duration::from_millis(5));
                }
                Ok(count) => return Err(io::Error::other(format!("{count} bytes of an event"))),
                Err(error) => return Err(error),
            }
        }
    }
}

fn word(event: &[u8; EVENT]) -> String {
    let [.., k0, k1, c0, c1, v0, v1, v2, v3] = *event;
    let (kind, code) = (u16::from_le_bytes([k0, k1]), u16::from_le_bytes([c0, c1]));
    match (kind, code) {
        (0, 0) => "/".to_owned(),
        // SYN_DROPPED: this program was too slow, and the kernel dropped events.
        (0, 3) => "dropped".to_owned(),
        _ => format!("{kind}:{code}:{}", i32::from_le_bytes([v0, v1, v2, v3])),
    }
}
