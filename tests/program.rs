//! The program's contract without a VM: arguments, exit codes, signals (vhost-user.rst, "Backend
//! program conventions").

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod support;

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use support::hesper::Hesper;
use support::process::{PATIENCE, Process, comes_true};
use support::programs::library::built;
use support::xserver::XServer;

fn hesper() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hesper"));
    command
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .env_remove("RUST_LOG");
    command
}

fn output(arguments: &[&str]) -> Output {
    hesper().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn capabilities_are_printed_whatever_else_is_asked() {
    let output = output(&[
        "--socket-path",
        "/nowhere/gpu.sock",
        "--bogus",
        "--print-capabilities",
    ]);
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["type"], "gpu");
    let features = json["features"].as_array().unwrap();
    assert_eq!(features.contains(&"virgl".into()), cfg!(feature = "virgl"));
    if !Path::new("/dev/dri").exists() {
        assert!(!features.contains(&"render-node".into()), "{json}");
    }
}

#[test]
fn a_wrong_value_ends_with_2_and_one_line() {
    let output = output(&["--socket-path=s", "--display=tv"]);
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(
        message.contains("tv") && message.contains("auto, window, qemu, headless"),
        "{message}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn a_system_that_is_not_known_ends_with_2_and_one_line() {
    for arguments in [
        &["--socket-path=/nowhere/gpu.sock"][..],
        &["doctor"],
        &["vtest", "--socket-path=/nowhere/vtest.sock"],
    ] {
        let output = hesper()
            .args(arguments)
            .env("HESPER_SYSTEM", "darwin")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let error = text(&output.stderr);
        assert!(error.contains("HESPER_SYSTEM=\"darwin\""), "{error}");
        assert!(error.contains("posix, macos"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn what_cannot_be_opened_is_named_with_a_remedy() {
    for (arguments, named) in [
        (
            ["--socket-path=/nowhere/gpu.sock", "--display=headless"],
            "/nowhere/gpu.sock",
        ),
        (["--fd=999", "--display=headless"], "--fd=999"),
    ] {
        let output = output(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stderr).contains(named),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_window_that_is_asked_for_is_refused_without_a_desktop() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gpu.sock");
    let mut command = hesper();
    let command = command.arg("--display=window").arg("--socket-path");
    let output = command.arg(&socket).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains("DISPLAY") && message.contains("--display=headless"),
        "{message}"
    );
    assert!(!message.contains(".rs:"), "a source file: {message}");
    assert!(!socket.exists(), "the socket stays behind");
}

#[test]
fn without_a_desktop_it_serves_all_the_same_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there, as after a session that has ended.
    let variables = [("DISPLAY", ":4711")];
    for variables in [&[][..], &variables] {
        let mut hesper = Hesper::start_in(folder.path(), &["--hostmem=0"], None, None, variables);
        hesper.control("status");
        let shown = "shown in QEMU's console if its device has one, else nowhere";
        assert!(
            comes_true(|| hesper.process.errors().contains(shown)),
            "{}",
            hesper.process.errors()
        );
        hesper.control("quit");
        assert!(hesper.process.wait(PATIENCE).success());
    }
}

#[test]
fn sigterm_ends_it_quickly_and_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let mut hesper = Hesper::start(folder.path(), &["--display=headless"], None);
    let _vm = UnixStream::connect(hesper.socket()).unwrap();
    let start = Instant::now();
    hesper.process.signal(Signal::TERM);
    let status = hesper.process.wait(PATIENCE);
    assert!(status.success(), "{status}: {}", hesper.process.errors());
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "took {:?}",
        start.elapsed()
    );
    assert!(!hesper.socket().exists(), "the socket stays behind");
}

#[test]
fn no_socket_stays_behind_however_it_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let screen = XServer::start(800, 600);
    let sockets = || -> Vec<_> {
        let entries = std::fs::read_dir(folder.path())
            .unwrap()
            .map(Result::unwrap);
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".sock")).collect()
    };
    let inputs = ["keyboard", "tablet", "mouse", "touch"].map(|kind| {
        let socket = folder.path().join(format!("{kind}.sock"));
        format!("--input-socket={kind}:{}", socket.display())
    });
    let mut arguments = vec!["--hostmem=0"];
    arguments.extend(inputs.iter().map(String::as_str));
    let ends: [fn(&Hesper, &XServer); 4] = [
        |hesper, _| hesper.process.signal(Signal::TERM),
        |hesper, _| hesper.process.signal(Signal::INT),
        |hesper, _| drop(hesper.control("quit")),
        |_, screen| screen.close_window(),
    ];
    for (way, end) in ends.iter().enumerate() {
        let mut hesper = Hesper::start(folder.path(), &arguments, Some(&screen));
        assert_eq!(sockets().len(), 6, "{:?}", sockets());
        end(&hesper, &screen);
        let status = hesper.process.wait(PATIENCE);
        assert!(status.success(), "{status}: {}", hesper.process.errors());
        assert!(sockets().is_empty(), "way {way} leaves {:?}", sockets());
    }
}

#[test]
fn a_given_descriptor_is_served_until_its_peer_hangs_up() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let inherited: OwnedFd = theirs.into();
    rustix::io::fcntl_setfd(inherited.as_fd(), rustix::io::FdFlags::empty()).unwrap();
    let child = hesper()
        .args([
            "--display=headless",
            &format!("--fd={}", inherited.as_raw_fd()),
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(inherited);
    let mut process = Process::new("hesper", child);
    // VHOST_USER_GET_FEATURES, version 1, no body: the answer shows that the descriptor is served.
    let request = [1u32, 1, 0].map(u32::to_le_bytes).concat();
    std::io::Write::write_all(&mut &ours, &request).unwrap();
    let mut answer = [0u8; 20];
    (&ours).read_exact(&mut answer).unwrap();
    let features = u64::from_le_bytes(answer[12..].try_into().unwrap());
    assert_ne!(features & (1 << 32), 0, "VIRTIO_F_VERSION_1 is offered");
    drop(ours);
    assert!(process.wait(PATIENCE).success(), "{}", process.errors());
}

#[test]
fn a_script_can_ask_the_control_socket() {
    let folder = tempfile::tempdir().unwrap();
    let mut hesper = Hesper::start(folder.path(), &["--display=headless", "--scanouts=2"], None);
    let status: serde_json::Value = serde_json::from_str(&hesper.control("status")).unwrap();
    assert_eq!(status["vm_connected"], false);
    assert_eq!(status["monitors"][1]["width"], 1280);
    let refused = hesper.try_control("screenshot 0 /nowhere/shot.png");
    assert!(
        refused.starts_with("error scanout 0 shows nothing"),
        "{refused}"
    );
    let refused = hesper.try_control("resize 2 800x600");
    assert!(refused.contains("scanout 2 does not exist"), "{refused}");
    hesper.control("quit");
    assert!(hesper.process.wait(PATIENCE).success());
}

#[test]
fn a_report_is_whole_without_vulkan_and_names_nobody() {
    let output = hesper()
        .args(["doctor", "--report"])
        .env("HOME", "/home/somebody")
        .env("USER", "somebody")
        .env("VK_DRIVER_FILES", "/home/somebody/nothing.json")
        .env_remove("VK_ICD_FILENAMES")
        .output()
        .unwrap();
    // Guests would get no Vulkan.
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout);
    let version = concat!("- version: ", env!("CARGO_PKG_VERSION"), "\n");
    let architecture = std::env::consts::ARCH;
    for part in [
        version,
        architecture,
        "- commit: ",
        "- kernel: ",
        "- page size: ",
        "- file descriptors: ",
        "- VK_DRIVER_FILES: /home/-/nothing.json\n",
        "missing  Vulkan does not load: ",
        "remedy: ",
        "no GPU serves guests here",
        "Please add: ",
    ] {
        assert!(report.contains(part), "{part:?} is missing in:\n{report}");
    }
    assert!(!report.contains("somebody"), "{report}");
}

/// A field of /proc/…/status of each thread, such as `Seccomp`.
fn of_threads(hesper: &Hesper, field: &str) -> Vec<(String, String)> {
    let folder = format!("/proc/{}/task", hesper.process.id());
    let texts = std::fs::read_dir(folder).unwrap().filter_map(|task| {
        // A thread may have ended.
        std::fs::read_to_string(task.ok()?.path().join("status")).ok()
    });
    let value = |text: &str, field: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap().trim().to_owned()
    };
    texts
        .map(|text| (value(&text, "Name"), value(&text, field)))
        .collect()
}

#[test]
fn its_files_are_its_users_alone_and_no_core_is_dumped_unless_asked() {
    for (arguments, may_dump) in [
        (&["--display=headless", "--hostmem=0"][..], false),
        (&["--display=headless", "--hostmem=0", "--core-dumps"], true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let hesper = Hesper::start(folder.path(), arguments, None);
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", hesper.process.id()));
        let limits = limits.unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let soft = line.unwrap().split_whitespace().nth(4).unwrap();
        let own = rustix::process::getrlimit(rustix::process::Resource::Core).current;
        let own = own.map_or("unlimited".to_owned(), |own| own.to_string());
        match may_dump {
            true => assert_eq!(soft, own, "{limits}"),
            // Not even to a program: the kernel takes 1 as "none" and 0 as "no file".
            false => assert!(
                ["0", "1"].contains(&soft) && (own == "0" || soft == "1"),
                "{limits}"
            ),
        }
        for (thread, umask) in of_threads(&hesper, "Umask") {
            assert_eq!(umask, "0077", "{thread}");
        }
    }
}

#[test]
fn every_thread_is_confined_when_a_vm_can_connect() {
    let screen = XServer::start(800, 600);
    for (mode, filters) in [("on", "2"), ("off", "0")] {
        let folder = tempfile::tempdir().unwrap();
        let mode = format!("--sandbox={mode}");
        let keyboard = format!("keyboard:{}/keyboard.sock", folder.path().display());
        let arguments = [&*mode, "--hostmem=0", "--input-socket", &keyboard];
        let hesper = Hesper::start(folder.path(), &arguments, Some(&screen));
        hesper.control("status");
        let _vm = UnixStream::connect(hesper.socket()).unwrap();
        for (thread, value) in of_threads(&hesper, "NoNewPrivs") {
            assert_eq!(value, "1", "{mode}: {thread}");
        }
        // A thread gets its name a moment after its start.
        let has_named = || {
            let threads = of_threads(&hesper, "Seccomp");
            threads.iter().any(|(name, _)| name == "vhost-user")
        };
        assert!(comes_true(has_named), "{mode}");
        let threads = of_threads(&hesper, "Seccomp");
        for (thread, value) in &threads {
            assert_eq!(value, filters, "{mode}: {thread}");
        }
        // A thread that serves an input device has more filters than others.
        let is_stricter = || {
            let counts = of_threads(&hesper, "Seccomp_filters");
            let count = |start: &str| {
                let found = counts.iter().find(|(name, _)| name.starts_with(start));
                found.map(|(_, count)| count.parse::<u32>().unwrap())
            };
            let (input, control) = (count("vhost-user keyb"), count("control"));
            input
                .zip(control)
                .is_some_and(|(input, control)| input > control)
        };
        assert!(filters == "0" || comes_true(is_stricter));
    }
}

/// A Hesper that offers Vulkan, on the null driver.
fn with_vulkan(folder: &Path, arguments: &[&str]) -> Hesper {
    let driver = format!("--driver={}", built("hesper_null_driver").display());
    let arguments = [&["--display=headless", &*driver], arguments].concat();
    Hesper::start(folder, &arguments, None)
}

/// The spawner and the spare worker of a Hesper, when they have names.
fn spawner_and_worker(hesper: &Hesper) -> Option<(u32, u32)> {
    let named = |name: &str| {
        let all = hesper.process.descendants().into_iter();
        let mut found = all.filter(|id| of_process(*id, "comm") == name);
        found.next()
    };
    Some((named("hesper-spawner")?, named("hesper-worker")?))
}

/// A file of a process in /proc; empty if there is no such process.
fn of_process(id: u32, file: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{id}/{file}"));
    text.unwrap_or_default().trim().to_owned()
}

#[test]
fn a_worker_waits_confined_as_hesper_is_and_all_end_with_it() {
    for (signal, arguments) in [
        (Signal::TERM, &["--sandbox=on"][..]),
        (Signal::KILL, &["--sandbox=on", "--isolate=on"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut hesper = with_vulkan(folder.path(), arguments);
        let log = served_log(&hesper);
        assert!(log.contains("run in processes of their own"), "{log}");
        assert!(comes_true(|| spawner_and_worker(&hesper).is_some()));
        let (spawner, worker) = spawner_and_worker(&hesper).unwrap();
        // Set once the driver is loaded.
        let is_sealed = || of_process(worker, "status").contains("Seccomp:\t2");
        assert!(comes_true(is_sealed), "{}", of_process(worker, "status"));
        let own = hesper.process.id();
        for id in [spawner, worker] {
            for line in ["Umask:\t0077", "NoNewPrivs:\t1"] {
                assert!(of_process(id, "status").contains(line), "{id}: {line}");
            }
            // Memory is mapped upwards there, too.
            assert_eq!(
                of_process(id, "personality"),
                of_process(own, "personality")
            );
            let limits = |id| of_process(id, "limits");
            assert_eq!(limits(id), limits(own));
        }
        // Signals for all that are called so do not end them.
        for id in [spawner, worker] {
            let id = Pid::from_raw(id as i32).unwrap();
            for signal in [Signal::INT, Signal::TERM, Signal::USR1, Signal::USR2] {
                rustix::process::kill_process(id, signal).unwrap();
            }
        }
        assert_eq!(spawner_and_worker(&hesper), Some((spawner, worker)));

        hesper.process.signal(signal);
        hesper.process.wait(PATIENCE);
        for id in [spawner, worker] {
            assert!(comes_true(|| of_process(id, "comm").is_empty()), "{id}");
        }
    }
}

/// The log of a Hesper that has done all that it does before it serves.
fn served_log(hesper: &Hesper) -> String {
    let log = || hesper.process.errors();
    assert!(comes_true(|| log().contains("serving ")), "{}", log());
    log()
}

#[test]
fn there_are_no_other_processes_without_isolation_or_vulkan() {
    for (arguments, variable) in [
        (&["--isolate=off"][..], "on"),
        (&["--hostmem=0"], "on"),
        (&[], "off"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let driver = format!("--driver={}", built("hesper_null_driver").display());
        let arguments = [&["--display=headless", &*driver], arguments].concat();
        let variables = [("HESPER_ISOLATE", variable)];
        let hesper = Hesper::start_in(folder.path(), &arguments, None, None, &variables);
        let log = served_log(&hesper);
        assert_eq!(hesper.process.descendants(), [0; 0], "{arguments:?}");
        assert!(!log.contains("processes of their own"), "{log}");
    }
}
