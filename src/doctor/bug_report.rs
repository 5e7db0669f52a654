//! `hesper doctor --report`: writes a text for a bug report, with doctor's checks and what
//! developers ask first.
//!
//! The report needs no review for secrets: it names neither the machine nor its user, and user
//! names in paths are cut ([`without_homes`]).

use std::fmt::{Display, Write};
use std::path::Path;

use hesper_venus::host::{self, GpuMemory, Importable};
use hesper_venus::memory::page_size;
use hesper_venus::{Driver, WsiPolicy};

use crate::doctor::{self, ServedGpu};
use crate::limits;
use crate::platform;

/// Environment variables that change what drivers, loaders and Hesper do. A `*` at the end stands
/// for any further letters.
const VARIABLES: &[&str] = &[
    "DISPLAY",
    "DYLD_*",
    "HESPER_*",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LIBGL_*",
    "LP_*",
    "MESA_*",
    "METAL_*",
    "MTL_*",
    "MVK_*",
    "RUST_LOG",
    "VK_*",
    "WAYLAND_DISPLAY",
    "XDG_SESSION_TYPE",
];

/// Folders whose children are named after users, or after their ids.
const HOMES: &[&str] = &["/home/", "/Users/", "/run/user/"];

/// What a developer needs to know and Hesper cannot find out.
const PLEASE_ADD: &str = "\
Please add: what you did and what happened; QEMU's version and command line; the guest's system, kernel and Mesa version; Hesper's
command line and its log.
";

/// The report's text, and its checks, which are those of [`doctor::examine`].
pub(crate) fn write(driver: &Driver, qemu: Option<&Path>) -> (String, doctor::Report) {
    let mut report = Report::default();
    report.program();
    report.system();
    report.environment();
    // Hesper also raises it before it serves, and before the tests of the GPUs.
    limits::raise_descriptor_limit();
    let checked = doctor::examine(driver, qemu);
    report.heading("Checks (hesper doctor)");
    report.text.push_str(&checked.text(true));
    report.vulkan(driver, &checked.served);
    report.differences(&checked.served);
    report.text.push('\n');
    report.text.push_str(PLEASE_ADD);
    (without_homes(&report.text), checked)
}

#[derive(Default)]
struct Report {
    text: String,
}

impl Report {
    fn program(&mut self) {
        self.heading("Hesper");
        self.fact("version", env!("CARGO_PKG_VERSION"));
        self.fact(
            "commit",
            option_env!("HESPER_COMMIT").unwrap_or("not known (set HESPER_COMMIT when building)"),
        );
        let build = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        let virgl = if cfg!(feature = "virgl") {
            "with"
        } else {
            "without"
        };
        self.fact(
            "build",
            format!(
                "{build}, for {} on {}, {virgl} virgl",
                std::env::consts::OS,
                std::env::consts::ARCH
            ),
        );
        self.fact(
            "alignment of blobs (--blob-alignment)",
            format!("{} by default", page_size()),
        );
    }

    fn system(&mut self) {
        self.heading("System");
        for (name, value) in platform::facts() {
            self.fact(name, value);
        }
        self.fact("page size", page_size());
        self.fact(
            "file descriptors",
            format!(
                "{}; Hesper raises the limit as far as allowed",
                limits::descriptors()
            ),
        );
    }

    fn environment(&mut self) {
        self.heading("Environment");
        let mut variables: Vec<(String, String)> = std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .filter(|(name, _)| matters(name))
            .collect();
        variables.sort();
        for (name, value) in &variables {
            // The values can contain a machine's name.
            let value = if name.ends_with("DISPLAY") {
                "set"
            } else {
                value
            };
            self.fact(name, value);
        }
        if variables.is_empty() {
            self.line("no relevant variable is set");
        }
    }

    /// Lists the library and the memory of its GPUs. A renderer starts on those that are `served`.
    fn vulkan(&mut self, driver: &Driver, served: &[ServedGpu]) {
        self.heading("Vulkan");
        let survey = match host::survey(driver) {
            Ok(survey) => survey,
            Err(error) => return self.line(&error.to_string()),
        };
        let (major, minor, patch) = survey.library_version;
        let library = match &survey.library {
            Driver::Library(path) => path.to_string_lossy().into_owned(),
            _ => "the system's loader".to_owned(),
        };
        self.fact(
            "library (a loader, or a driver without one)",
            format!("{library}, Vulkan {major}.{minor}.{patch}"),
        );
        for (index, memory) in survey.memory.iter().enumerate() {
            let of_guests = served.iter().find(|served| served.index == index);
            self.memory(index, memory, of_guests.map(|served| &served.importable));
        }
    }

    fn memory(&mut self, gpu: usize, memory: &GpuMemory, of_guests: Option<&Importable>) {
        for (index, heap) in memory.heaps.iter().enumerate() {
            let mib = heap.size >> 20;
            self.fact(
                &format!("GPU {gpu}, heap {index}"),
                format!("{mib} MiB, {}", heap.flags),
            );
        }
        for (index, one) in memory.types.iter().enumerate() {
            let visible = match of_guests {
                Some(all) if all.types & (1 << index) != 0 => "guests can map it",
                Some(_) => "guests cannot map it",
                None => "not tried",
            };
            self.fact(
                &format!("GPU {gpu}, type {index}"),
                format!("heap {}, {}; {visible}", one.heap, one.flags),
            );
        }
        if let Some(all) = of_guests {
            self.fact(
                &format!("GPU {gpu}, alignment of imported memory"),
                all.alignment,
            );
        }
    }

    fn differences(&mut self, served: &[ServedGpu]) {
        self.heading("Extensions that differ between the driver and guests");
        if served.is_empty() {
            self.line("no GPU serves guests here");
        }
        for ServedGpu { index, gpu, .. } in served {
            for difference in host::differences(WsiPolicy::Auto, gpu) {
                let names = format!("GPU {index}, {}", difference.names.join(" "));
                self.fact(&names, difference.what);
            }
        }
    }

    fn heading(&mut self, words: &str) {
        let before = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{before}## {words}");
    }

    fn fact(&mut self, name: &str, value: impl Display) {
        self.line(&format!("{name}: {value}"));
    }

    fn line(&mut self, words: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "- {words}");
    }
}

/// Whether an environment variable is one of [`VARIABLES`].
fn matters(name: &str) -> bool {
    VARIABLES.iter().any(|known| match known.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == *known,
    })
}

/// The text without user names in paths: `/home/NAME/…` becomes `/home/-/…`.
fn without_homes(text: &str) -> String {
    HOMES.iter().fold(text.to_owned(), |text, home| {
        let mut parts = text.split(home);
        let mut cut = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part
                .find(|c: char| "/:;,\"' \n)".contains(c))
                .unwrap_or(part.len());
            let (_name, rest) = part.split_at(end);
            cut.push_str(home);
            cut.push('-');
            cut.push_str(rest);
        }
        cut
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_user_is_left_in_a_path() {
        let text = "- VK_DRIVER_FILES: /Users/ann/icd.json:/home/bob.b/icd.json:/usr/share/icd.json\n- at /run/user/1000/wayland-0 (/home/ann)\n/home/cy";
        assert_eq!(
            without_homes(text),
            "- VK_DRIVER_FILES: /Users/-/icd.json:/home/-/icd.json:/usr/share/icd.json\n- at /run/user/-/wayland-0 (/home/-)\n/home/-"
        );
        assert_eq!(without_homes("no path"), "no path");
    }

    #[test]
    fn only_relevant_variables_are_listed() {
        for name in [
            "VK_DRIVER_FILES",
            "MVK_CONFIG_LOG_LEVEL",
            "DISPLAY",
            "RUST_LOG",
        ] {
            assert!(matters(name), "{name}");
        }
        for name in [
            "HOME",
            "USER",
            "SSH_AUTH_SOCK",
            "DISPLAY_NAME",
            "AWS_SECRET_ACCESS_KEY",
        ] {
            assert!(!matters(name), "{name}");
        }
    }
}
