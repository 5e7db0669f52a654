//! What Hesper says to a person who does something wrong: every wrong input with its exit code and
//! its message, in `tests/wrong_inputs.txt`. Whoever changes a message reads it there as a user
//! does.
//!
//! `HESPER_WRITE=1 cargo test --locked --workspace --test wrong_inputs` writes the file anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]
#![cfg(target_os = "linux")]

mod support;

use std::fmt::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use support::process::{PATIENCE, Process};
use support::programs::library::built;

/// Command lines, as a shell would take them; a variable may stand before. NULL is a driver with
/// one GPU; LONG a path of 108 bytes. `gpu.sock` and `control.sock` are those of a running Hesper,
/// `busy` and `silent` sockets of somebody else, `file` is a file.
const LINES: &str = "
hesper
hesper --bogus
hesper --socket-path=s --dispaly=qemu
hesper --socket-path=s --display=headles
hesper --socket-path=s --display=tv
hesper doctr
hesper --display=headless
hesper --socket-path=s --fd=5
hesper --fd=1
hesper --fd=999
hesper --socket-path=/nowhere/gpu.sock
hesper --socket-path=LONG
hesper --socket-path=file
hesper --socket-path=busy
hesper --socket-path=gpu.sock
hesper --socket-path=s --control=/nowhere/c
hesper --socket-path=s --control=LONG
hesper --socket-path=s --control=file
hesper --socket-path=s --control=busy
hesper --socket-path=s --input-socket=lever:/l
hesper --socket-path=s --input-socket=mouse
hesper --socket-path=s --input-socket=mouse:/nowhere/m
hesper --socket-path=s --input-socket=mouse:m --input-socket=mouse:n
hesper --socket-path=s --input-socket=mouse:m --input-socket=tablet:m
hesper --socket-path=s --display=qemu --input-socket=mouse:m
hesper --socket-path=s --size=0x0
hesper --socket-path=s --size=1280
hesper --socket-path=s --scanouts=17
hesper --socket-path=s --resize=never
hesper --socket-path=s --scaling=cubic
hesper --socket-path=s --vsync=maybe
hesper --socket-path=s --on-close=never
hesper --socket-path=s --placement=here
hesper --socket-path=s --grab-mod=alt
hesper --socket-path=s --cmd-key=meta
hesper --socket-path=s --hostmem=3G
hesper --socket-path=s --hostmem=8GB
hesper --socket-path=s --blob-alignment=5000
hesper --socket-path=s --command-memory=1K
hesper --socket-path=s --rings=3
hesper --socket-path=s --gpu-memory=1M
hesper --socket-path=s --wsi=dri
hesper --socket-path=s --record=film.mp4
hesper --socket-path=s --display=headless --record=film.y4m
hesper --socket-path=s --hostmem=0 --record=film.y4m
hesper --socket-path=s --hostmem=0 --display=window
hesper --socket-path=s --gpu=1 --hostmem=0
hesper --socket-path=s --gpu=1 --display=qemu
hesper --socket-path=s --gpu=1 --render-node=/dev/dri/renderD128
hesper --socket-path=s --driver=NULL --gpu=geforce
hesper --socket-path=s --driver=NULL --gpu=7
hesper --socket-path=s --driver=NULL --render-node=nothing
hesper --socket-path=s --driver=NULL --render-node=file
hesper --socket-path=s --driver=NULL --render-node=/dev/null
hesper --socket-path=s --driver=nothing.so
hesper --socket-path=s --driver=nothing.json
hesper --socket-path=s --driver=broken.json
hesper --socket-path=s --capsets=opengl
hesper --socket-path=s --driver=NULL --capsets=virgl
hesper --socket-path=s --driver=NULL --virgl
hesper --socket-path=s --driver=NULL --capsets=venus,cross-domain
hesper --socket-path=s --isolate=maybe
HESPER_SYSTEM=darwin hesper --socket-path=s
HESPER_ISOLATE=1 hesper --socket-path=s --driver=NULL
HESPER_ISOLATE=yes hesper vtest --socket-path=s --driver=NULL
hesper vtest
hesper vtest --socket-path=/nowhere/v --driver=NULL
hesper vtest --socket-path=busy --driver=NULL
hesper vtest --socket-path=s --driver=NULL --gpu=geforce
hesper vtest --socket-path=s --driver=nothing.so
hesper vtest --socket-path=s --driver=NULL --trace=/nowhere/t.json
hesper spawner
hesper spawner --options={}
hesper worker
hesper worker --socket-fd=1 --budget-fd=4 --options={}
hesper worker --socket-fd=998 --budget-fd=999 --options={}
hesper gpus --driver=nothing.so
hesper gpus --driver=broken.json
hesper doctor --driver=nothing.json
hesper doctor --report --json
hesper ctl
hesper ctl control.sock
hesper ctl control.sock dance
hesper ctl control.sock screenshot
hesper ctl control.sock screenshot x.jpg
hesper ctl control.sock screenshot 0 x.png
hesper ctl control.sock screenshot 9 x.png
hesper ctl control.sock resize 0
hesper ctl control.sock resize 0 0x0
hesper ctl control.sock resize zero 800x600
hesper ctl control.sock resize 9 800x600
hesper ctl control.sock plug
hesper ctl control.sock unplug 0
hesper ctl control.sock show
hesper ctl control.sock trace
hesper ctl control.sock trace stop
hesper ctl control.sock trace stop t.json
hesper ctl control.sock trace stop /nowhere/t.json
hesper ctl nothing status
hesper ctl file status
hesper ctl LONG status
hesper ctl gpu.sock status
hesper ctl closed status
";

#[test]
fn every_wrong_input_gets_the_message_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("file"), "").unwrap();
    std::fs::write(folder.join("broken.json"), "{}").unwrap();
    let _busy = UnixListener::bind(folder.join("busy")).unwrap();
    drop(UnixListener::bind(folder.join("closed")).unwrap());
    let mut hesper = running(folder);

    let mut table = String::from(
        "What is said to a person who does something wrong: the command, its exit code, its message.\n",
    );
    for line in LINES.lines().filter(|line| !line.is_empty()) {
        let (code, message) = output(folder, line);
        assert!(!message.is_empty(), "{line}: nothing is said");
        assert!(
            !message.contains(".rs:"),
            "{line}: a source file: {message}"
        );
        write!(table, "\n$ {line}\n{code}\n{message}").unwrap();
    }
    hesper.signal(rustix::process::Signal::TERM);
    assert!(hesper.wait(PATIENCE).success(), "{}", hesper.errors());

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong_inputs.txt");
    if std::env::var_os("HESPER_WRITE").is_some() {
        std::fs::write(&file, &table).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap();
    let differs = table
        .split("\n$ ")
        .zip(expected.split("\n$ "))
        .find(|(now, expected)| now != expected);
    assert_eq!(differs, None, "see the head of tests/wrong_inputs.rs");
    assert_eq!(table, expected);
}

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hesper"));
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("XDG_RUNTIME_DIR", folder)
        .env("RUST_LOG", "error");
    command
}

/// A Hesper that serves the sockets.
fn running(folder: &Path) -> Process {
    let child = program(folder)
        .args([
            "--socket-path=gpu.sock",
            "--control=control.sock",
            "--hostmem=0",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut hesper = Process::new("hesper", child);
    let answers = |folder: &Path| output(folder, "hesper ctl control.sock status").0 == 0;
    hesper.until("control socket", || answers(folder));
    hesper
}

/// The exit code of a command line, and what it says.
fn output(folder: &Path, line: &str) -> (i32, String) {
    let null = built("hesper_null_driver");
    let null = null.to_str().unwrap();
    let long = format!("{}/x", "a".repeat(106));
    let real = line.replace("NULL", null).replace("LONG", &long);
    let mut words = real.split(' ').peekable();
    let mut command = program(folder);
    while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
        command.env(name, value);
        words.next();
    }
    assert_eq!(words.next(), Some("hesper"), "{line}");
    let output = command.args(words).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    let message = message
        .replace(null, "NULL")
        .replace(&long, "LONG")
        .replace(folder.to_str().unwrap(), "FOLDER");
    (output.status.code().unwrap_or(-1), message)
}
