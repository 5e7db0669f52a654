//! The tables of what a process for each context costs.

use std::fmt::Write;

use super::{Samples, cell, digits, failed, label, title};
use crate::Plan;
use crate::rig::{Driver, Measured, Side};

/// Adds the table of times. The differences are those of the medians.
pub(super) fn times(text: &mut String, plan: &Plan, samples: &Samples<'_>, driver: Driver) {
    let title = title(driver);
    let _ = writeln!(
        text,
        "\n| {title} | a process per context | one process | more | server CPU, a process per context | server CPU, one process | more |\n|---|--:|--:|--:|--:|--:|--:|"
    );
    let mut failures = String::new();
    for case in &plan.cases {
        let mut cells = String::new();
        for part in [elapsed, server] {
            let [on, off] = Side::ISOLATION.map(|side| samples.case(driver, side, case, part));
            let more = on.zip(off).map(|(on, off)| {
                let more = on.median - off.median;
                format!("{} ({:.0} %)", digits(more), 100.0 * more / off.median)
            });
            let _ = write!(cells, " {} | {} | {} |", cell(on), cell(off), cell(more));
        }
        let _ = writeln!(text, "| {} |{cells}", label(case));
        failed(&mut failures, plan, samples, driver, case);
    }
    text.push_str(&failures);
}

fn elapsed(took: &Measured) -> f64 {
    took.elapsed
}

fn server(took: &Measured) -> f64 {
    took.server
}

/// Adds the table of processes and memory of a server with one client.
pub(super) fn footprints(text: &mut String, samples: &Samples<'_>) {
    let _ = writeln!(
        text,
        "\n| with one client | a process per context | one process |\n|---|--:|--:|"
    );
    let mut row = |name: &str, part: &dyn Fn(&crate::rig::Footprint) -> f64| {
        let [on, off] = Side::ISOLATION.map(|side| cell(samples.footprint(side, part).map(digits)));
        let _ = writeln!(text, "| {name} | {on} | {off} |");
    };
    row("processes", &|all| all.processes);
    row("MiB of the server, PSS", &|all| all.server.pss / 1024.0);
    row("the same, anonymous memory only", &|all| {
        all.server.anonymous / 1024.0
    });
}
