//! The Khronos validation layer between Hesper and the host's driver. It reports nothing that it
//! does not report natively for the same program, except for what `expected/validation.txt` lists
//! with reasons.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use hesper_suites::differences::{ABSENT, Difference, Expected, Results};
use hesper_suites::environment::{Driver, Killed, Server, in_suites, test_client};
use hesper_suites::piglit::{self, Selection, hash};
use hesper_suites::validation;

/// One of piglit's cases in this many, without those that take seconds.
const ONE_IN: u32 = 80;

/// Runs a program, which must succeed, and returns what it printed.
#[track_caller]
fn succeed(command: &mut Command, server: Option<&Server>) -> String {
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let printed = |stream: &[u8]| String::from_utf8_lossy(stream).into_owned();
    let errors = printed(&output.stderr);
    let log = server.map(Server::log).unwrap_or_default();
    assert!(
        output.status.success(),
        "{}\n{errors}\n{log}",
        output.status
    );
    printed(&output.stdout)
}

/// Runs a program natively above the layer, and over a Hesper that is above the layer, and compares
/// what the layer reports. `run` returns what the program printed.
#[track_caller]
fn assert_no_new_errors(
    program: &str,
    run: impl Fn(Driver<'_>, &[(&str, &str)], Option<&Server>) -> String,
) {
    let folder = tempfile::tempdir().unwrap();
    let settings = validation::settings(folder.path());
    let layer = validation::variables(&settings);
    let native = validation::errors(&run(Driver::Native, &layer, None));
    let server = Server::start(&layer);
    assert_eq!(
        validation::errors(&server.log()),
        BTreeMap::new(),
        "Hesper's start"
    );
    run(Driver::Hesper(&server), &[], Some(&server));
    let hesper = validation::errors(&server.log());
    println!(
        "{program}: {} rules broken natively, {} over Hesper",
        native.len(),
        hesper.len()
    );

    let case = |rule: &String| format!("{program}: {rule}");
    let mut new = Vec::new();
    for (rule, (count, message)) in &hesper {
        if let Some((natively, _)) = native.get(rule) {
            println!("{program}: {rule}: natively {natively}, over Hesper {count} times");
            continue;
        }
        println!("{program}: {rule}: over Hesper alone, {count} times: {message}");
        new.push(Difference {
            case: case(rule),
            native: ABSENT.to_owned(),
            hesper: "said".to_owned(),
        });
    }
    let expected = Expected::parse(include_str!("../expected/validation.txt"));
    // Each rule that is listed for this program must be reported, so it counts as a case that ran.
    let ran: Results = expected
        .cases()
        .filter(|case| case.starts_with(&format!("{program}: ")))
        .map(|case| (case.to_owned(), String::new()))
        .collect();
    let wrong = expected.judge(&new, &[], &ran);
    assert!(wrong.is_empty(), "{program}:\n{}", wrong.join("\n"));
    server.assert_nothing_lost();
}

#[test]
fn our_client_breaks_no_rule_that_it_keeps_natively() {
    assert_no_new_errors("client", |driver, variables, server| {
        let mut client = driver.command(test_client());
        client.args(["run", "all"]).envs(variables.iter().copied());
        succeed(&mut client, server)
    });
}

#[test]
fn vkcube_breaks_no_rule_that_it_keeps_natively() {
    let mut screen = in_suites("Xvfb")
        .args([
            "-displayfd",
            "1",
            "-nolisten",
            "tcp",
            "-screen",
            "0",
            "640x480x24",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Killed)
        .unwrap();
    let mut number = String::new();
    let numbers = screen.0.stdout.take().unwrap();
    BufReader::new(numbers).read_line(&mut number).unwrap();
    let display = format!(":{}", number.trim());
    assert!(display.len() > 1, "Xvfb starts");
    assert_no_new_errors("vkcube", |driver, variables, server| {
        let mut cube = driver.command("vkcube");
        cube.args(["--c", "100", "--wsi", "xcb"])
            .env("DISPLAY", &display)
            .envs(variables.iter().copied());
        succeed(&mut cube, server)
    });
}

#[test]
fn piglit_breaks_no_rule_that_it_keeps_natively() {
    let mut cases = Selection::names("quick_gl", true);
    cases.retain(|case| hash(case).is_multiple_of(ONE_IN) && !piglit::is_slow(case));
    let selection = Selection {
        profile: "quick_gl",
        cases,
        isolated: true,
        jobs: 2,
        timeout: 120,
    };
    assert_no_new_errors("piglit", |driver, variables, _| {
        // Natively, zink would use descriptor buffers. The layer does not look into them, and Venus
        // has none.
        let mut all = vec![("ZINK_DESCRIPTORS", "lazy")];
        all.extend(variables);
        let run = piglit::run(driver, &selection, "validation", &all);
        println!("piglit: {} {}", driver.name(), run.totals());
        run.printed
    });
}
