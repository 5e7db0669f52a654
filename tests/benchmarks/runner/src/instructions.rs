//! Counts the renderer's instructions for one operation, over the null driver.
//!
//! `venus/benches/record.rs` submits a case's operations in batches. It runs under callgrind twice,
//! with few and with many batches. The cost of one operation is the difference of the two, divided
//! by the number of extra operations, so start-up and shutdown do not count. Only the renderer's
//! threads count (the first thread is the guest's), without calls into the null driver.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::callgrind::Profile;
use crate::report::{Value, verdict};

/// The library whose instructions do not count.
const DRIVER: &str = "libhesper_null_driver";

/// The number of batches in the short and in the long run.
const ROUNDS: [u32; 2] = [10, 60];
/// The number of operations in a batch. The benchmark program uses the same number.
const BATCH: u32 = 1000;

/// A case: its name, its description, its limit, and the reference renderer's cost where it is
/// known (callgrind, virglrenderer 1.3.0).
struct Case {
    name: &'static str,
    label: &'static str,
    limit: f64,
    reference: Option<f64>,
}

const CASES: [Case; 4] = [
    Case {
        name: "draw",
        label: "draw (push constants, bind set, draw)",
        limit: 230.0,
        reference: Some(2350.0),
    },
    Case {
        name: "buffer",
        label: "create and destroy a buffer",
        limit: 430.0,
        reference: Some(3000.0),
    },
    Case {
        name: "barrier",
        label: "pipeline barrier",
        limit: 220.0,
        reference: None,
    },
    Case {
        name: "update",
        label: "update a descriptor set (one buffer)",
        limit: 220.0,
        reference: None,
    },
];

/// How many functions the report lists.
const NAMED: usize = 12;

/// Counts the instructions of all cases of `program`, the built `record` benchmark.
pub(crate) fn count(program: &Path) -> Result<String, String> {
    let mut aims = String::new();
    let mut details = String::new();
    for case in CASES {
        eprintln!("{} under callgrind …", case.name);
        let [short, long] = ROUNDS;
        let (short, long) = (
            profile(program, &case, short)?,
            profile(program, &case, long)?,
        );
        let operations = f64::from((ROUNDS[1] - ROUNDS[0]) * BATCH);
        let each = |of: fn(&Profile) -> u64| (of(&long) as f64 - of(&short) as f64) / operations;
        let own = each(|profile| profile.without(DRIVER));
        let all = each(Profile::all);
        verdict(
            &mut aims,
            case.label,
            case.limit,
            Some(Value::exact(own)),
            case.reference.map(Value::exact),
        );
        let _ = writeln!(
            details,
            "\n{}: {own:.1} instructions, {:.1} more in the null driver. By function:\n",
            case.label,
            all - own
        );
        functions(&mut details, &short, &long, operations);
    }
    Ok(format!(
        "Instructions an operation (callgrind), null driver left out.\n\n| operation | at most | Hesper | reference | |\n|---|--:|--:|--:|---|\n{aims}{details}"
    ))
}

fn functions(text: &mut String, short: &Profile, long: &Profile, operations: f64) {
    let before = short.functions(DRIVER);
    let mut all: Vec<(f64, &str)> = long
        .functions(DRIVER)
        .into_iter()
        .map(|(name, cost)| {
            let begin = before.get(name).copied().unwrap_or(0);
            ((cost as f64 - begin as f64) / operations, name)
        })
        .collect();
    all.sort_by(|one, other| other.0.total_cmp(&one.0));
    for (cost, name) in all.into_iter().take(NAMED) {
        let _ = writeln!(text, "{cost:9.1}  {name}");
    }
}

/// Runs the program and returns the sum of all its threads but the first.
fn profile(program: &Path, case: &Case, rounds: u32) -> Result<Profile, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let mut option = std::ffi::OsString::from("--callgrind-out-file=");
    option.push(folder.path().join("out"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .arg(option)
        .arg(program)
        .arg(case.name)
        .arg(format!("--rounds={rounds}"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}; install it (Debian: valgrind)"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "{} under valgrind: {}; {errors}",
            program.display(),
            output.status
        ));
    }
    let mut sum = Profile::default();
    let mut threads = 0;
    let files = fs::read_dir(folder.path()).map_err(|error| error.to_string())?;
    for file in files {
        let path = file.map_err(|error| error.to_string())?.path();
        let thread = path
            .to_str()
            .and_then(|path| path.rsplit_once('-'))
            .and_then(|(_, number)| number.parse::<u32>().ok());
        if thread.is_some_and(|thread| thread > 1) {
            let text = fs::read_to_string(&path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            sum.add(Profile::parse(&text));
            threads += 1;
        }
    }
    if threads == 0 {
        return Err("callgrind wrote nothing about threads of the renderer".to_owned());
    }
    Ok(sum)
}
