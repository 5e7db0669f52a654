//! Turns samples into the tables of the report.

mod isolation;

use std::fmt::{Display, Formatter, Write};

use crate::Plan;
use crate::rig::{Driver, Footprint, Measured, Memory, Side};

/// One measurement.
pub(crate) struct Sample {
    driver: Driver,
    side: Side,
    what: What,
}

enum What {
    Case(String, Option<Measured>),
    Footprint(Option<Footprint>),
}

impl Sample {
    pub(crate) fn case(
        driver: Driver,
        side: Side,
        case: &str,
        took: Result<Measured, String>,
    ) -> Self {
        let what = What::Case(case.to_owned(), took.ok());
        Self { driver, side, what }
    }

    pub(crate) fn footprint(side: Side, footprint: Result<Footprint, String>) -> Self {
        Self {
            driver: Driver::Lavapipe,
            side,
            what: What::Footprint(footprint.ok()),
        }
    }
}

/// The median; `None` if there are no values.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(*upper);
    }
    Some((upper + values.get(middle - 1)?) / 2.0)
}

/// The smallest value; `None` if there are no values.
fn least(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| !value.is_nan());
    values.into_iter().reduce(f64::min)
}

/// The result of several rounds of one measurement.
#[derive(Clone, Copy)]
pub(crate) struct Value {
    /// The median. Aims are judged by it.
    pub(crate) median: f64,
    /// The smallest value. It is nearer to the result of an idle machine.
    pub(crate) least: f64,
}

impl Value {
    fn of(values: Vec<f64>) -> Option<Self> {
        let least = least(values.clone())?;
        let median = median(values)?;
        Some(Self { median, least })
    }

    /// The value of a measurement that is the same in every run.
    pub(crate) fn exact(value: f64) -> Self {
        Self {
            median: value,
            least: value,
        }
    }
}

impl Display for Value {
    fn fmt(&self, text: &mut Formatter<'_>) -> std::fmt::Result {
        let (median, least) = (digits(self.median), digits(self.least));
        if median == least {
            return text.write_str(&median);
        }
        write!(text, "{median} ({least})")
    }
}

/// All samples, with queries by what they measure.
struct Samples<'a>(&'a [Sample]);

impl Samples<'_> {
    fn case(
        &self,
        driver: Driver,
        side: Side,
        case: &str,
        part: fn(&Measured) -> f64,
    ) -> Option<Value> {
        let of_case = |sample: &Sample| match &sample.what {
            What::Case(name, Some(took))
                if (sample.driver, sample.side) == (driver, side) && name == case =>
            {
                Some(part(took))
            }
            _ => None,
        };
        Value::of(self.0.iter().filter_map(of_case).collect())
    }

    fn footprint(&self, side: Side, part: impl Fn(&Footprint) -> f64) -> Option<f64> {
        let of_footprint = |sample: &Sample| match &sample.what {
            What::Footprint(Some(footprint)) if sample.side == side => Some(part(footprint)),
            _ => None,
        };
        median(self.0.iter().filter_map(of_footprint).collect())
    }

    /// Memory of a server with one client in MiB, without the driver's cost. `part` selects which
    /// memory.
    fn over_driver(&self, side: Side, part: fn(&Memory) -> f64) -> Option<f64> {
        let server = self.footprint(side, |all| part(&all.server))?;
        let own = self.footprint(Side::Native, |all| part(&all.client))?;
        Some((server - own) / 1024.0)
    }

    /// How many measurements of `case` failed.
    fn failures(&self, driver: Driver, side: Side, case: &str) -> usize {
        let is_one = |sample: &&Sample| {
            (sample.driver, sample.side) == (driver, side)
                && matches!(&sample.what, What::Case(name, None) if name == case)
        };
        self.0.iter().filter(is_one).count()
    }
}

/// Describes in words what the benchmark does.
fn label(case: &str) -> String {
    let known = match case {
        "start-up" => "start-up to vkCreateDevice",
        "fence" => "submit nothing, wait for its fence",
        "timeline" => "timeline semaphore, round trip",
        "fence-after-4ms" => "fence after 4 ms idle",
        "reply" => "call with a reply",
        "reply-after-4ms" => "call with a reply after 4 ms idle",
        "draw" => "draw (push 16 B, bind one set, draw)",
        "draw-mixed" => "draw, mixed (8 commands)",
        "buffer" => "create and destroy a buffer",
        "descriptor-update" => "update a descriptor set",
        "record-1-thread" => "draw, recorded by 1 thread",
        "record-2-threads" => "by 2 threads",
        "record-4-threads" => "by 4 threads",
        _ => {
            return match case.strip_prefix("alloc-map-free-") {
                Some(size) => format!("allocate, map, free {}", readable(size)),
                None => case.to_owned(),
            };
        }
    };
    known.to_owned()
}

/// Makes a size readable: `64k` becomes `64 KiB`.
fn readable(size: &str) -> String {
    match size.split_at_checked(size.len().saturating_sub(1)) {
        Some((number, "k")) => format!("{number} KiB"),
        Some((number, "m")) => format!("{number} MiB"),
        _ => size.to_owned(),
    }
}

/// Formats a value with three significant digits.
fn digits(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

fn cell(value: Option<impl Display>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

/// Writes the whole report.
pub(crate) fn report(plan: &Plan, samples: &[Sample], load: &str) -> String {
    let samples = Samples(samples);
    let mut text = format!(
        "Microseconds an operation: median (least) of {} interleaved rounds; {load}.\n",
        plan.rounds
    );
    if plan.sides == Side::ISOLATION {
        for &driver in &plan.drivers {
            isolation::times(&mut text, plan, &samples, driver);
        }
        isolation::footprints(&mut text, &samples);
        return text;
    }
    for &driver in &plan.drivers {
        times(&mut text, plan, &samples, driver);
    }
    footprints(&mut text, &samples);
    aims(&mut text, &samples);
    text
}

/// How a table names a driver.
fn title(driver: Driver) -> &'static str {
    match driver {
        Driver::Lavapipe => "lavapipe",
        Driver::Null => "null driver",
    }
}

fn times(text: &mut String, plan: &Plan, samples: &Samples<'_>, driver: Driver) {
    let title = title(driver);
    let _ = writeln!(
        text,
        "\n| {title} | native | Hesper | reference | reference : Hesper | server CPU, Hesper | server CPU, reference |\n|---|--:|--:|--:|--:|--:|--:|"
    );
    let mut failures = String::new();
    for case in &plan.cases {
        let of = |side, part: fn(&Measured) -> f64| samples.case(driver, side, case, part);
        let time = |side| of(side, |took| took.elapsed);
        let ratio = time(Side::Reference)
            .zip(time(Side::Hesper))
            .map(|(theirs, ours)| format!("{:.1}", theirs.median / ours.median));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            label(case),
            cell(time(Side::Native)),
            cell(time(Side::Hesper)),
            cell(time(Side::Reference)),
            cell(ratio),
            cell(of(Side::Hesper, |took| took.server)),
            cell(of(Side::Reference, |took| took.server)),
        );
        failed(&mut failures, plan, samples, driver, case);
    }
    text.push_str(&failures);
}

/// Adds a line for each side whose measurements of `case` failed.
fn failed(text: &mut String, plan: &Plan, samples: &Samples<'_>, driver: Driver, case: &str) {
    for &side in plan.sides {
        let count = samples.failures(driver, side, case);
        if count > 0 {
            let (rounds, side) = (plan.rounds, side.name());
            let _ = writeln!(
                text,
                "\n{count} of {rounds} measurements of {case} failed: {side}."
            );
        }
    }
}

/// Adds the table of processes and memory of a server with one client, in MiB.
fn footprints(text: &mut String, samples: &Samples<'_>) {
    let _ = writeln!(
        text,
        "\n| with one client | Hesper | reference |\n|---|--:|--:|"
    );
    let mut row = |name: &str, value: &dyn Fn(Side) -> Option<f64>| {
        let value = |side| cell(value(side).map(digits));
        let (ours, theirs) = (value(Side::Hesper), value(Side::Reference));
        let _ = writeln!(text, "| {name} | {ours} | {theirs} |");
    };
    row("processes", &|side| {
        samples.footprint(side, |all| all.processes)
    });
    row("MiB over the driver's own, PSS", &|side| {
        samples.over_driver(side, |memory| memory.pss)
    });
    row("the same, anonymous memory only", &|side| {
        samples.over_driver(side, |memory| memory.anonymous)
    });
    let own = samples.footprint(Side::Native, |all| all.client.pss / 1024.0);
    let _ = writeln!(
        text,
        "\nThe driver's own is by how much the client grows natively: {} MiB.",
        cell(own.map(digits))
    );
}

/// An aim: a measurement and its limit.
struct Aim {
    what: &'static str,
    limit: f64,
    driver: Driver,
    cases: &'static [&'static str],
    part: fn(&Measured) -> f64,
}

const AIMS: [Aim; 6] = [
    Aim {
        what: "allocate, map, free (worst size), µs",
        limit: 80.0,
        driver: Driver::Lavapipe,
        cases: &[
            "alloc-map-free-64k",
            "alloc-map-free-1m",
            "alloc-map-free-64m",
        ],
        part: |took| took.elapsed,
    },
    Aim {
        what: "call with a reply after 4 ms idle, µs",
        limit: 60.0,
        driver: Driver::Lavapipe,
        cases: &["reply-after-4ms"],
        part: |took| took.elapsed,
    },
    Aim {
        what: "call with a reply, hot, µs",
        limit: 1.0,
        driver: Driver::Lavapipe,
        cases: &["reply"],
        part: |took| took.elapsed,
    },
    Aim {
        what: "start-up to vkCreateDevice, ms",
        limit: 60.0,
        driver: Driver::Lavapipe,
        cases: &["start-up"],
        part: |took| took.elapsed / 1000.0,
    },
    Aim {
        what: "server CPU during a fence wait, µs",
        limit: 30.0,
        driver: Driver::Null,
        cases: &["fence"],
        part: |took| took.server,
    },
    Aim {
        what: "server CPU per draw, µs",
        limit: 0.05,
        driver: Driver::Null,
        cases: &["draw"],
        part: |took| took.server,
    },
];

fn aims(text: &mut String, samples: &Samples<'_>) {
    let _ = writeln!(
        text,
        "\n| aim | at most | Hesper | reference | |\n|---|--:|--:|--:|---|"
    );
    for aim in AIMS {
        let worst = |side| {
            let values = aim.cases.iter();
            values
                .filter_map(|case| samples.case(aim.driver, side, case, aim.part))
                .max_by(|one, other| one.median.total_cmp(&other.median))
        };
        verdict(
            text,
            aim.what,
            aim.limit,
            worst(Side::Hesper),
            worst(Side::Reference),
        );
    }
    let processes = |side| {
        let count = samples.footprint(side, |all| all.processes);
        count.map(Value::exact)
    };
    verdict(
        text,
        "processes",
        1.0,
        processes(Side::Hesper),
        processes(Side::Reference),
    );
    let over = |side| {
        let more = samples.over_driver(side, |memory| memory.anonymous);
        more.map(Value::exact)
    };
    verdict(
        text,
        "anonymous memory over the driver's own, MiB",
        3.0,
        over(Side::Hesper),
        over(Side::Reference),
    );
}

/// Adds one line to the table of aims, or nothing if the aim was not measured.
pub(crate) fn verdict(
    text: &mut String,
    what: &str,
    limit: f64,
    ours: Option<Value>,
    theirs: Option<Value>,
) {
    let Some(ours) = ours else { return };
    let judged = if ours.median <= limit {
        "met".to_owned()
    } else {
        let percent = (ours.median / limit - 1.0) * 100.0;
        format!("missed by {} ({percent:.0} %)", digits(ours.median - limit))
    };
    let theirs = cell(theirs);
    let _ = writeln!(text, "| {what} | {limit} | {ours} | {theirs} | {judged} |");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_what_was_measured() {
        assert_eq!(median(vec![5.0, 1.0, f64::NAN, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
        assert_eq!(least(vec![5.0, f64::NAN, 2.0]), Some(2.0));
    }

    #[test]
    fn an_aim_is_met_at_its_limit_and_missed_above_it() {
        let mut text = String::new();
        let seen = Value {
            median: 75.0,
            least: 58.0,
        };
        let exact = |value| Some(Value::exact(value));
        verdict(&mut text, "a", 60.0, exact(60.0), exact(200.0));
        verdict(&mut text, "b", 60.0, Some(seen), None);
        verdict(&mut text, "c", 60.0, None, None);
        let expected =
            "| a | 60 | 60.0 | 200 | met |\n| b | 60 | 75.0 (58.0) | – | missed by 15.0 (25 %) |\n";
        assert_eq!(text, expected);
    }
}
