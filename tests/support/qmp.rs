//! A client of QEMU's machine protocol (QMP).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use super::process::PATIENCE;

/// A connection to QEMU.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qmp {
    /// Connects to the socket of QEMU's option `-qmp unix:PATH,server=on,wait=off`.
    pub fn connect(path: &Path) -> Self {
        let writer = UnixStream::connect(path).expect("QEMU listens on its QMP socket");
        writer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut qmp = Self {
            reader: BufReader::new(writer.try_clone().unwrap()),
            writer,
        };
        qmp.read();
        qmp.run("qmp_capabilities", json!({}));
        qmp
    }

    /// Runs a command and returns its answer. An error fails the test.
    pub fn run(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.writer, "{request}").unwrap();
        loop {
            let mut answer = self.read();
            if answer.get("event").is_some() {
                continue;
            }
            assert!(answer.get("error").is_none(), "{command}: {answer}");
            return answer["return"].take();
        }
    }

    /// Waits for an event of this name. Returns whether it came in time.
    pub fn await_event(&mut self, name: &str) -> bool {
        let mut line = String::new();
        while self.reader.read_line(&mut line).is_ok() {
            let event: Value = serde_json::from_str(&line).expect("QMP speaks JSON");
            if event["event"] == name {
                return true;
            }
            line.clear();
        }
        false
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("QEMU answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("QMP said '{line}': {error}"))
    }
}
