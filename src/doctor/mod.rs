//! `hesper doctor`: what works on this host, what does not, and what to do about it.
//!
//! Every check is one line, `ok`, `warning` or `missing`. A remedy for this system follows unless
//! the check is ok. The checks make the renderer do what a guest's first commands make it do: a
//! host that passes can serve guests.
//!
//! | file | what it checks |
//! |---|---|
//! | `vulkan` | the library, each GPU, and a renderer on it |
//! | `qemu` | the VM monitor |
//! | `system` | KVM, the desktop, the system's limits, what rutabaga needs |

pub(crate) mod bug_report;
mod qemu;
mod system;
mod vulkan;

use std::fmt::Write;
use std::path::Path;

use hesper_venus::Driver;
use hesper_venus::host::{Gpu, Importable};
use serde_json::{Value, json};

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Ok,
    /// It works, with a drawback.
    Warning,
    /// It is missing, and guests work without it.
    Missing,
    /// It is missing, and a VM needs it.
    Needed,
}

impl Mark {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing | Self::Needed => "missing",
        }
    }
}

/// The remedy for each operating system.
#[derive(Clone, Copy, Debug)]
struct Remedy {
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
    macos: &'static str,
}

impl Remedy {
    const fn everywhere(text: &'static str) -> Self {
        Self {
            debian: text,
            fedora: text,
            arch: text,
            macos: text,
        }
    }

    /// The remedies of all systems, with the systems' names.
    fn all(&self) -> [(&'static str, &'static str); 4] {
        [
            ("Debian", self.debian),
            ("Fedora", self.fedora),
            ("Arch", self.arch),
            ("macOS", self.macos),
        ]
    }

    /// The remedy for this system, or for all systems if this one is not known.
    fn here(&self, system: Option<&str>) -> String {
        let same = self.all().iter().all(|(_, text)| *text == self.debian);
        let known = self
            .all()
            .into_iter()
            .find(|(name, _)| Some(*name) == system);
        match known {
            _ if same => self.debian.to_owned(),
            Some((_, text)) => text.to_owned(),
            None => {
                let each = self.all().map(|(name, text)| format!("{name}: {text}"));
                each.join("; ")
            }
        }
    }
}

/// One check.
#[derive(Debug)]
struct Check {
    mark: Mark,
    what: String,
    remedy: Option<Remedy>,
    /// The lines that only `--verbose` lists.
    details: Vec<String>,
}

/// A GPU on which a renderer starts.
#[derive(Debug)]
pub(crate) struct ServedGpu {
    /// Its number among the host's GPUs.
    pub(crate) index: usize,
    /// What the renderer shows of it.
    pub(crate) gpu: Gpu,
    /// Which of its memory guests can map.
    pub(crate) importable: Importable,
}

/// The results of all checks.
#[derive(Debug, Default)]
pub(crate) struct Report {
    checks: Vec<Check>,
    /// The GPUs that can serve guests, by number, and which of their memory guests can map.
    pub(crate) served: Vec<ServedGpu>,
}

/// Checks this host with the Vulkan library of `driver` and with the QEMU program `qemu`.
pub(crate) fn examine(driver: &Driver, qemu: Option<&Path>) -> Report {
    let mut report = Report::default();
    report.vulkan(driver);
    report.qemu(qemu);
    report.system();
    report
}

impl Report {
    /// What a VM needs and this host lacks.
    pub(crate) fn needed(&self) -> impl Iterator<Item = &str> {
        let needed = self.checks.iter().filter(|one| one.mark == Mark::Needed);
        needed.map(|check| check.what.as_str())
    }

    /// The report's lines. With `verbose`, items are listed by name and not only counted.
    pub(crate) fn text(&self, verbose: bool) -> String {
        let system = system::family();
        let mut text = String::new();
        for check in &self.checks {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:<8} {}", check.mark.word(), check.what);
            if let Some(remedy) = &check.remedy {
                let _ = writeln!(text, "         remedy: {}", remedy.here(system));
            }
            for detail in check.details.iter().filter(|_| verbose) {
                let _ = writeln!(text, "         {detail}");
            }
        }
        text
    }

    /// The same report as a JSON object.
    pub(crate) fn json(&self) -> String {
        let checks = self.checks.iter().map(|check| {
            let remedy = check.remedy.map(|remedy| -> serde_json::Map<_, _> {
                let all = remedy.all().into_iter();
                all.map(|(name, text)| (name.to_lowercase(), text.into()))
                    .collect()
            });
            json!({
                "mark": check.mark.word(),
                "needed": check.mark == Mark::Needed,
                "what": check.what,
                "remedy": remedy,
                "details": check.details,
            })
        });
        let checks: Vec<Value> = checks.collect();
        let healthy = self.needed().next().is_none();
        format!("{:#}\n", json!({"healthy": healthy, "checks": checks}))
    }

    fn ok(&mut self, what: impl Into<String>) {
        self.add(Mark::Ok, what, None);
    }

    fn warning(&mut self, what: impl Into<String>, remedy: Remedy) {
        self.add(Mark::Warning, what, Some(remedy));
    }

    /// Adds a check that failed and that a VM can do without.
    fn missing(&mut self, what: impl Into<String>, remedy: Remedy) {
        self.add(Mark::Missing, what, Some(remedy));
    }

    /// Adds a check that failed and that a VM needs.
    fn needs(&mut self, what: impl Into<String>, remedy: Remedy) {
        self.add(Mark::Needed, what, Some(remedy));
    }

    fn add(&mut self, mark: Mark, what: impl Into<String>, remedy: Option<Remedy>) {
        self.checks.push(Check {
            mark,
            what: what.into(),
            remedy,
            details: Vec::new(),
        });
    }

    /// Gives the last check the lines that only `--verbose` lists.
    fn list(&mut self, details: Vec<String>) {
        if let Some(check) = self.checks.last_mut() {
            check.details = details;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: Remedy = Remedy {
        debian: "apt-get install it",
        fedora: "dnf install it",
        arch: "pacman -S it",
        macos: "brew install it",
    };

    #[test]
    fn a_remedy_is_for_the_system_that_this_is() {
        assert_eq!(PACKAGES.here(Some("Fedora")), "dnf install it");
        let all = PACKAGES.here(None);
        assert!(
            all.starts_with("Debian: apt-get install it; Fedora: "),
            "{all}"
        );
        assert_eq!(Remedy::everywhere("sleep").here(None), "sleep");
    }

    #[test]
    fn only_what_a_vm_needs_makes_a_host_unfit() {
        let mut report = Report::default();
        report.ok("this is here");
        report.warning("this is slow", PACKAGES);
        report.missing("no OpenGL", PACKAGES);
        report.list(vec!["GL_one".to_owned()]);
        assert_eq!(report.needed().count(), 0);
        assert!(report.json().contains("\"healthy\": true"));
        report.needs("no Vulkan", PACKAGES);
        assert_eq!(report.needed().collect::<Vec<_>>(), ["no Vulkan"]);
        let (few, all) = (report.text(false), report.text(true));
        assert!(
            few.contains("\nmissing  no Vulkan\n         remedy: "),
            "{few}"
        );
        assert!(!few.contains("GL_one") && all.contains("GL_one"), "{all}");
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["healthy"], false);
        assert_eq!(json["checks"][3]["remedy"]["arch"], "pacman -S it");
        assert_eq!(json["checks"][2]["details"][0], "GL_one");
    }
}
