//! The program that `tests/bench-vtest` runs after it has built everything:
//!
//! ```text
//! hesper-bench compare [--rounds N] [--driver lavapipe|null] [CASE…]
//!     Hesper, the reference renderer and no renderer, in turns.
//! hesper-bench isolation [--rounds N] [--driver lavapipe|null] [CASE…]
//!     Hesper with a process for each context, and with one process for all, in turns.
//! hesper-bench instructions PROGRAM
//!     The renderer's instructions per operation, by callgrind.
//! ```
//!
//! The result is Markdown on standard output. Progress goes to standard error.

mod callgrind;
mod instructions;
mod report;
mod rig;

use std::path::Path;
use std::process::ExitCode;

use rig::{Driver, Rig, Side};

const USAGE: &str = "usage: hesper-bench compare|isolation [--rounds N] [--driver lavapipe|null] [CASE…] | hesper-bench instructions PROGRAM";

/// The cases that are measured if the command line names none.
const CASES: [&str; 16] = [
    "start-up",
    "fence",
    "timeline",
    "fence-after-4ms",
    "reply",
    "reply-after-4ms",
    "draw",
    "draw-mixed",
    "buffer",
    "descriptor-update",
    "alloc-map-free-64k",
    "alloc-map-free-1m",
    "alloc-map-free-64m",
    "record-1-thread",
    "record-2-threads",
    "record-4-threads",
];

/// What a comparison measures.
struct Plan {
    sides: &'static [Side],
    rounds: usize,
    drivers: Vec<Driver>,
    cases: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["compare", rest @ ..] => plan(&Side::COMPARED, rest).and_then(|plan| compare(&plan)),
        ["isolation", rest @ ..] => plan(&Side::ISOLATION, rest).and_then(|plan| compare(&plan)),
        ["instructions", program] => instructions::count(Path::new(program)),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("hesper-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn plan(sides: &'static [Side], arguments: &[&str]) -> Result<Plan, String> {
    let mut plan = Plan {
        sides,
        rounds: 5,
        drivers: Driver::ALL.to_vec(),
        cases: Vec::new(),
    };
    let mut rest = arguments.iter();
    while let Some(&word) = rest.next() {
        match word {
            "--rounds" => {
                let number = rest.next().and_then(|number| number.parse().ok());
                plan.rounds = number
                    .filter(|number| *number > 0)
                    .ok_or("--rounds wants a number, 1 or more")?;
            }
            "--driver" => {
                let name = rest.next().copied().unwrap_or_default();
                let wanted = Driver::ALL
                    .into_iter()
                    .find(|driver| driver.name() == name)
                    .ok_or("--driver wants lavapipe or null")?;
                plan.drivers = vec![wanted];
            }
            option if option.starts_with('-') => {
                return Err(format!("'{option}' is not an option; {USAGE}"));
            }
            case => plan.cases.push(case.to_owned()),
        }
    }
    if plan.cases.is_empty() {
        plan.cases = CASES.map(str::to_owned).to_vec();
    }
    Ok(plan)
}

/// Measures the sides in turns, so that the machine's other load affects all sides alike.
fn compare(plan: &Plan) -> Result<String, String> {
    let mut rig = Rig::new()?;
    let load_before = load();
    let mut all = Vec::new();
    for round in 1..=plan.rounds {
        for &side in plan.sides {
            let footprint = rig.footprint(side);
            note(round, Driver::Lavapipe, side, "footprint", &footprint);
            all.push(report::Sample::footprint(side, footprint));
        }
    }
    for &driver in &plan.drivers {
        rig.start(driver, plan.sides)?;
    }
    for round in 1..=plan.rounds {
        for &driver in &plan.drivers {
            for case in &plan.cases {
                for &side in plan.sides {
                    let took = rig.measure(driver, side, case);
                    note(round, driver, side, case, &took);
                    all.push(report::Sample::case(driver, side, case, took));
                }
            }
        }
    }
    let load = format!("load average {load_before} before, {} after", load());
    Ok(report::report(plan, &all, &load))
}

/// Prints one measurement when it is done.
fn note<T: std::fmt::Display>(
    round: usize,
    driver: Driver,
    side: Side,
    case: &str,
    result: &Result<T, String>,
) {
    let (driver, side) = (driver.name(), side.name());
    match result {
        Ok(value) => eprintln!("round {round}: {driver} {case} {side}: {value}"),
        Err(problem) => eprintln!("round {round}: {driver} {case} {side} FAILED: {problem}"),
    }
}

/// The machine's load average over the last minute.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}
