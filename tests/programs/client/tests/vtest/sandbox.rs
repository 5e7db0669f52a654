//! Tests the sandbox: a driver of the tests tries what a guest would try that has taken over the
//! process.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use tempfile::TempDir;

use crate::server::{LAVAPIPE, Server, await_that, built, driver_manifest};

/// The error of a file that Landlock refuses, and of a socket of another family.
const DENIED: &str = "Permission denied";
/// The error of a call that is not for this process.
const NOT_PERMITTED: &str = "Operation not permitted";
/// The error of a call that a kernel may lack.
const NOT_THERE: &str = "Function not implemented";
const DONE: &str = "done";

/// A server with the prying driver.
struct Pried {
    server: Server,
    folder: TempDir,
}

impl Pried {
    /// Starts a server whose driver makes these attempts when [`Pried::pry`] is called. `{}` in an
    /// attempt is a folder that has nothing to do with Hesper.
    fn start(mode: &str, attempts: &str) -> Self {
        Self::with(&[&format!("--sandbox={mode}"), "--isolate=off"], attempts)
    }

    /// The same with these options.
    fn with(options: &[&str], attempts: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let manifest = path("prying.json");
        let library = built("hesper_prying_driver");
        fs::write(&manifest, driver_manifest(&library)).unwrap();
        fs::create_dir(path("outside")).unwrap();
        fs::write(path("outside/secret"), "a password").unwrap();
        let attempts = attempts.replace("{}", &path("outside"));
        let server = Server::with(
            options,
            &[
                (LAVAPIPE.0, &manifest),
                (hesper_prying_driver::WHEN, &path("now")),
                (hesper_prying_driver::ATTEMPTS, &attempts),
            ],
        );
        Self { server, folder }
    }

    /// Lets a client's first command reach the driver.
    fn pry(&self) {
        fs::write(self.folder.path().join("now"), "").unwrap();
        let mut client = self.server.client(&["submit-one"]);
        // It fails when the server ends.
        let _ = client.stderr(std::process::Stdio::null()).status().unwrap();
    }

    /// What came of an attempt.
    #[track_caller]
    fn outcome(&self, name: &str) -> String {
        let log = self.server.log();
        let start = format!("pry: {name}: ");
        let line = log.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no '{start}' in {log}"))
            .to_owned()
    }
}

/// Attempts, and the beginning of their outcome in the sandbox.
const REFUSED: [(&str, &str); 12] = [
    ("read:{}/secret", DENIED),
    ("write:{}/secret", DENIED),
    ("remove:{}/secret", DENIED),
    ("chmod:{}", NOT_PERMITTED),
    ("inet", DENIED),
    ("unix", DENIED),
    ("bind:{}/socket", DENIED),
    ("fork", NOT_PERMITTED),
    ("io_uring", NOT_THERE),
    ("signal", NOT_PERMITTED),
    ("msgget", NOT_THERE),
    ("code", DONE),
];

fn name(attempt: &str) -> &str {
    attempt.split(':').next().unwrap()
}

fn all(attempts: &[(&str, &str)]) -> String {
    let texts: Vec<_> = attempts.iter().map(|(attempt, _)| *attempt).collect();
    texts.join(" ")
}

#[test]
fn what_breaks_into_the_process_reaches_no_files_no_network_and_no_other_process() {
    let pried = Pried::start("on", &all(&REFUSED));
    pried.pry();
    for (attempt, expected) in REFUSED {
        let outcome = pried.outcome(name(attempt));
        assert!(outcome.starts_with(expected), "{attempt}: {outcome}");
    }
    let log = pried.server.log();
    assert!(log.contains("the sandbox is on: files (Landlock "), "{log}");
    // The call that no table knows a use for.
    assert!(
        log.contains("hesper: the sandbox refused the system call msgget ("),
        "{log}"
    );
    assert!(pried.folder.path().join("outside/secret").exists());
}

/// What a worker is refused besides.
const REFUSED_TO_WORKERS: [(&str, &str); 3] =
    [("pair", DENIED), ("inotify", DENIED), ("shmget", DENIED)];

#[test]
fn what_breaks_into_a_worker_reaches_even_less() {
    let attempts = [&REFUSED[..], &REFUSED_TO_WORKERS].concat();
    let pried = Pried::with(&["--sandbox=on", "--isolate=on"], &all(&attempts));
    pried.pry();
    for (attempt, expected) in attempts {
        let outcome = pried.outcome(name(attempt));
        assert!(outcome.starts_with(expected), "{attempt}: {outcome}");
    }
    assert!(pried.folder.path().join("outside/secret").exists());
    // The main process makes such calls, for its windows.
    let pried = Pried::start("on", &all(&REFUSED_TO_WORKERS));
    pried.pry();
    for (attempt, _) in REFUSED_TO_WORKERS {
        let outcome = pried.outcome(name(attempt));
        assert!(outcome.starts_with(DONE), "{attempt}: {outcome}");
    }
}

#[test]
fn a_call_that_no_driver_makes_ends_only_the_worker_that_makes_it() {
    let mut pried = Pried::with(&["--sandbox=on", "--isolate=on"], "exec:/nowhere");
    pried.pry();
    let log = pried.server.log();
    for part in [
        "hesper: the sandbox refused the system call execve (",
        "crashed with SIGABRT",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    fs::remove_file(pried.folder.path().join("now")).unwrap();
    let next = pried.server.client(&["submit-one"]).status().unwrap();
    assert!(next.success(), "{}", pried.server.log());
    let ended = pried.server.process.0.try_wait().unwrap();
    assert_eq!(ended, None);
}

#[test]
fn without_the_sandbox_all_of_it_is_possible() {
    let pried = Pried::start("off", &all(&REFUSED));
    pried.pry();
    for (attempt, _) in REFUSED {
        let outcome = pried.outcome(name(attempt));
        // The kernel refuses the null pointer of the attempt, so the call was made.
        let expected = if attempt == "io_uring" {
            "Bad address"
        } else {
            DONE
        };
        let is_policy = attempt == "io_uring" && outcome.starts_with(NOT_PERMITTED);
        assert!(
            outcome.starts_with(expected) || is_policy,
            "{attempt}: {outcome}"
        );
    }
    assert!(!pried.folder.path().join("outside/secret").exists());
}

#[test]
fn a_call_that_no_driver_makes_ends_the_process_and_is_named() {
    for (attempt, call, without) in [
        ("exec:/nowhere", "execve", "No such file"),
        ("ptrace", "ptrace", "No such process"),
        ("setuid", "setuid", DONE),
    ] {
        let mut pried = Pried::start("on", attempt);
        pried.pry();
        let status = pried.server.process.wait();
        let log = pried.server.log();
        assert_eq!(status.signal(), Some(6), "{attempt}: {log}");
        let line = format!("hesper: the sandbox refused the system call {call} (");
        assert!(log.contains(&line), "{attempt}: {log}");
        assert!(log.contains("of the thread 'venus-"), "{attempt}: {log}");

        let pried = Pried::start("off", attempt);
        pried.pry();
        let outcome = pried.outcome(name(attempt));
        assert!(outcome.starts_with(without), "{attempt}: {outcome}");
    }
}

#[test]
fn the_log_mode_names_what_the_sandbox_would_refuse_and_allows_it() {
    let attempts =
        "read:{}/secret read:/usr/share/vulkan/icd.d/lvp_icd.json inet fork exec:/nowhere";
    let pried = Pried::start("log", attempts);
    pried.pry();
    for (attempt, expected) in [
        ("read", DONE),
        ("inet", DONE),
        ("fork", DONE),
        ("exec", "No such file"),
    ] {
        let outcome = pried.outcome(attempt);
        assert!(outcome.starts_with(expected), "{attempt}: {outcome}");
    }
    let log = pried.server.log();
    let secret = pried.folder.path().join("outside/secret");
    let refused: Vec<_> = log
        .lines()
        .filter_map(|line| line.split_once("the sandbox would refuse "))
        .map(|(_, what)| what)
        .collect();
    for what in [
        &format!("openat: it reads {}", secret.display()),
        "socket (",
        "clone (",
        "execve (",
    ] {
        assert!(
            refused.iter().any(|line| line.starts_with(what)),
            "{what}: {log}"
        );
    }
    assert!(
        !refused.iter().any(|line| line.contains("lvp_icd.json")),
        "{log}"
    );
}

/// `fork` holds the allocator's locks while it waits for the log's thread.
#[test]
fn forks_beside_other_calls_go_on_in_the_log_mode() {
    const FORKS: usize = 300;
    let pried = Pried::start("log", ["inet fork"; FORKS].join(" ").as_str());
    pried.pry();
    let log = pried.server.log();
    assert_eq!(log.matches("pry: fork: done").count(), FORKS, "{log}");
}

#[test]
fn the_shader_cache_is_written_in_the_sandbox() {
    for isolate in ["--isolate=off", "--isolate=on"] {
        let caches = tempfile::tempdir().unwrap();
        let base = caches.path().to_str().unwrap();
        let options = ["--sandbox=on", isolate];
        let server = Server::with(&options, &[("MESA_SHADER_CACHE_DIR", base)]);
        let cases = server.client(&["all"]).status().unwrap();
        assert!(cases.success(), "{}", server.log());
        await_that("the cache has files", || {
            fs::read_dir(caches.path()).unwrap().count() > 0
        });
    }
}
