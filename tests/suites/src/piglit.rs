//! piglit, OpenGL's suite. It runs on zink, which draws OpenGL with Vulkan, without a display.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;

use crate::differences::{Difference, Expected, Results, Seen, differences, see, settle};
use crate::environment::{Driver, Server, complaints, in_suites, written_at};

/// Where Debian's package has its lists of cases.
const PROFILES: &str = "/usr/lib/x86_64-linux-gnu/piglit/tests";

/// How often cases that differ are run again, both ways, before they are reported.
const REPEATS: usize = 2;

/// Cases of a profile.
pub struct Selection {
    /// The profile, such as `quick_gl` or `quick_shader`.
    pub profile: &'static str,
    /// The names of the cases.
    pub cases: Vec<String>,
    /// Whether each case gets a process of its own. Otherwise the shader tests of a group share
    /// one.
    pub isolated: bool,
    /// How many cases run at a time.
    pub jobs: usize,
    /// Seconds that a case may take.
    pub timeout: u32,
}

impl Selection {
    /// The names of all cases of a profile. Without `isolated`, shader tests are named by group.
    #[must_use]
    pub fn names(profile: &str, isolated: bool) -> Vec<String> {
        let sharing = if isolated { "" } else { ".no_isolation" };
        let output = in_suites("zcat")
            .arg(format!("{PROFILES}/{profile}{sharing}.xml.gz"))
            .output()
            .unwrap();
        assert!(output.status.success(), "tests/env/prepare suites was run");
        names(&String::from_utf8(output.stdout).unwrap())
    }

    fn again(&self, cases: Vec<String>) -> Self {
        Self {
            cases,
            jobs: 1,
            timeout: 2 * self.timeout,
            ..*self
        }
    }
}

/// The names of the tests in a profile's XML, sorted. Names with a `#` are left out, because piglit
/// takes what follows it in a list for a comment.
fn names(xml: &str) -> Vec<String> {
    let tests = xml.split("<Test ").skip(1);
    let named = tests.filter_map(|test| {
        let name = test.split_once("name=\"")?.1.split_once('"')?.0;
        let plain = name
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&amp;", "&");
        (!plain.contains('#')).then_some(plain)
    });
    let mut all: Vec<String> = named.collect();
    all.sort();
    all
}

/// A hash of a name (FNV-1a). It stays the same from run to run, and when a package brings more
/// cases.
#[must_use]
pub fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Parts of the names of cases that take many seconds each. Only `tests/suites/full` runs them.
const SLOW: [&str; 15] = [
    "max-texture-size",
    "max-varyings",
    "local-id-explosion",
    "streaming-texture-leak",
    "tex-miplevel-selection",
    "tex3d-npot",
    "texture-env-combine",
    "texture_view",
    "@texelfetch",
    "texwrap",
    "gl-1.0-blend-func",
    "large-tex",
    "arb_shader_image_load_store",
    "arb_color_buffer_float",
    "-sync",
];

/// Whether a case takes long.
#[must_use]
pub fn is_slow(case: &str) -> bool {
    SLOW.iter().any(|slow| case.contains(slow))
}

/// The results of a run.
pub struct Run {
    /// Results of the cases, and of their parts as `CASE@PART`.
    pub results: Results,
    /// All that the cases printed.
    pub printed: String,
    /// When each case began and ended, in seconds since 1970.
    times: BTreeMap<String, (f64, f64)>,
    /// How long the run took, in seconds.
    pub seconds: u64,
}

impl Run {
    /// How many cases had each result, as text.
    #[must_use]
    pub fn totals(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for result in self.results.values() {
            *counts.entry(result).or_default() += 1;
        }
        let mut text = format!("{} cases in {} s:", self.results.len(), self.seconds);
        for (result, count) in counts {
            write!(text, " {result} {count}").unwrap();
        }
        text
    }

    /// The cases that ran at this time, such as that of a line in the server's log.
    fn running_at(&self, time: f64) -> Vec<&str> {
        let at = self.times.iter();
        let at = at.filter(|(_, (begin, end))| *begin <= time && time <= *end + 0.5);
        at.map(|(case, _)| case.as_str()).collect()
    }
}

/// The folder where results are kept for a person to look at: `target/tmp/suites`.
fn kept() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/test
    test.ancestors().nth(3).unwrap().join("tmp/suites")
}

/// Runs cases with these additional environment variables. `name` becomes part of the name of the
/// folder with the results.
///
/// # Panics
/// If piglit itself fails.
#[must_use]
pub fn run(
    driver: Driver<'_>,
    selection: &Selection,
    name: &str,
    variables: &[(&str, &str)],
) -> Run {
    let folder = kept().join(format!("{name}-{}", driver.name()));
    fs::create_dir_all(kept()).unwrap();
    let list = folder.with_extension("list");
    fs::write(&list, selection.cases.join("\n")).unwrap();
    let begin = Instant::now();
    let output = driver
        .command("piglit")
        .arg("run")
        .args(["--platform", "surfaceless_egl", "--all-concurrent"])
        .args(["--log-level", "quiet", "--overwrite"])
        .args(["--jobs", &selection.jobs.to_string()])
        .args(["--timeout", &selection.timeout.to_string()])
        .args(["--process-isolation", &selection.isolated.to_string()])
        .arg("--test-list")
        .arg(&list)
        .arg(selection.profile)
        .arg(&folder)
        .env("PIGLIT_COMPRESSION", "none")
        .env("MESA_LOADER_DRIVER_OVERRIDE", "zink")
        .env("GALLIUM_DRIVER", "zink")
        // zink accepts a processor as a GPU only with this.
        .env("LIBGL_ALWAYS_SOFTWARE", "1")
        // Each case compiles its shaders, as in a first run.
        .env("MESA_SHADER_CACHE_DISABLE", "1")
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "piglit: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut run = read(&folder.join("results.json"));
    run.seconds = begin.elapsed().as_secs();
    run
}

fn read(path: &Path) -> Run {
    let text = fs::read_to_string(path).unwrap();
    parse(&serde_json::from_str(&text).unwrap())
}

fn parse(results: &Value) -> Run {
    let mut run = Run {
        results: Results::new(),
        printed: String::new(),
        times: BTreeMap::new(),
        seconds: 0,
    };
    for (case, test) in results["tests"].as_object().unwrap() {
        let result = test["result"].as_str().unwrap().to_owned();
        run.results.insert(case.clone(), result);
        for (part, result) in test["subtests"].as_object().unwrap() {
            // `__type__` is not a part: it says what type of value this is.
            if part != "__type__" {
                let result = result.as_str().unwrap().to_owned();
                run.results.insert(format!("{case}@{part}"), result);
            }
        }
        for stream in ["out", "err"] {
            run.printed.push_str(test[stream].as_str().unwrap_or(""));
            run.printed.push('\n');
        }
        let time = |end: &str| test["time"][end].as_f64().unwrap_or(0.0);
        run.times.insert(case.clone(), (time("start"), time("end")));
    }
    run
}

/// The names of the cases that differ. A difference may name a part of a case.
fn cases_of(found: &[Difference], run: &Run) -> Vec<String> {
    let cases = found.iter().map(|one| {
        let mut case = one.case.as_str();
        while !run.times.contains_key(case) {
            match case.rsplit_once('@') {
                Some((whole, _)) => case = whole,
                None => break,
            }
        }
        case.to_owned()
    });
    cases.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Runs cases natively and over Hesper. Fails the test if a result differs that is not expected to,
/// or if a context was lost.
///
/// # Panics
/// If the test fails.
pub fn compare(name: &str, selection: &Selection, expected: &Expected) {
    println!(
        "{name}: {} tests of {}",
        selection.cases.len(),
        selection.profile
    );
    let native = run(Driver::Native, selection, name, &[]);
    println!("{name}: native {}", native.totals());
    // In a broken environment, everything fails natively and over Hesper alike.
    let passed = native.results.values().filter(|result| *result == "pass");
    let passed = passed.count();
    assert!(
        passed > native.results.len() / 2,
        "{name}: natively only {passed} cases pass: something is wrong with the environment"
    );
    let server = Server::start(&[]);
    let driver = Driver::Hesper(&server);
    let hesper = run(driver, selection, name, &[]);
    println!("{name}: hesper {}", hesper.totals());
    let log = server.log();
    for line in complaints(&log) {
        let running = written_at(line).map(|time| hesper.running_at(time));
        println!("{name}: {line}\n    while {running:?} ran");
    }

    let mut found = differences(&native.results, &hesper.results);
    let mut flaky = Vec::new();
    if !found.is_empty() {
        for one in &found {
            println!("{name}: differs at first: {one}");
        }
        let again = selection.again(cases_of(&found, &hesper));
        let begin = |result: fn(&Difference) -> &String| -> Seen {
            let all = found.iter();
            all.map(|one| (one.case.clone(), vec![result(one).clone()]))
                .collect()
        };
        let (mut natively, mut over) = (begin(|one| &one.native), begin(|one| &one.hesper));
        for _ in 0..REPEATS {
            let results = run(Driver::Native, &again, &format!("{name}-again"), &[]).results;
            see(&mut natively, &results);
            let results = run(driver, &again, &format!("{name}-again"), &[]).results;
            see(&mut over, &results);
        }
        (found, flaky) = settle(found, &natively, &over);
    }
    for one in &flaky {
        println!("{name}: FLAKY: {one}");
    }
    for one in &found {
        let reason = expected.reason(one).unwrap_or("NOT EXPECTED");
        println!("{name}: differs: {one} | {reason}");
    }
    server.assert_nothing_lost();
    let wrong = expected.judge(&found, &flaky, &native.results);
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    println!("{name}: 0 contexts lost");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_profile() {
        let xml = r#"<PiglitTestList count="3" name="quick_gl"><Test type="gl" name="b@x &amp; &quot;y&quot;">
            <option name="command" value="['b']" /></Test><Test type="gl" name="a"><option name="x" /></Test>
            <Test type="gl" name="c #1"></Test></PiglitTestList>"#;
        assert_eq!(names(xml), ["a", "b@x & \"y\""]);
    }

    #[test]
    fn parts_of_a_case_are_cases() {
        let json = serde_json::json!({"tests": {"a@b": {
            "result": "fail", "out": "said", "err": "", "time": {"start": 1.0, "end": 2.5},
            "subtests": {"__type__": "Subtests", "one": "pass", "two@x": "fail"},
        }}});
        let run = parse(&json);
        let results: Vec<_> = run.results.iter().collect();
        let named = |case: &str, result: &str| (case.to_owned(), result.to_owned());
        let wanted = [
            named("a@b", "fail"),
            named("a@b@one", "pass"),
            named("a@b@two@x", "fail"),
        ];
        assert!(
            results
                .iter()
                .zip(&wanted)
                .all(|(a, b)| a.0 == &b.0 && a.1 == &b.1)
        );
        assert_eq!(run.running_at(2.0), ["a@b"]);
        let one = |case: &str| Difference {
            case: case.to_owned(),
            native: String::new(),
            hesper: String::new(),
        };
        let found = [one("a@b@two@x"), one("a@b")];
        assert_eq!(cases_of(&found, &run), ["a@b"]);
    }
}
