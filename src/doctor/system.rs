//! Checks KVM, the desktop, the system's limits, and what rutabaga needs.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::{Remedy, Report};
use crate::limits;
use crate::platform;
use crate::rutabaga;
use crate::sandbox;

/// Enough descriptors for many guest programs: every blob of a guest needs one.
const DESCRIPTORS: u64 = 65_536;

/// Enough memory mappings for many guest programs. Linux's old default is 65,530; newer
/// distributions allow a million.
const MAPPINGS: u64 = 262_144;

/// This system's name in [`Remedy`].
pub(super) fn family() -> Option<&'static str> {
    if cfg!(target_os = "macos") {
        return Some("macOS");
    }
    family_of(&std::fs::read_to_string("/etc/os-release").ok()?)
}

/// The same for the text of os-release(5). The system's own name is tried before those of its
/// relatives.
fn family_of(release: &str) -> Option<&'static str> {
    let value = |name: &str| {
        let mut lines = release.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
    };
    let names = format!("{} {}", value("ID="), value("ID_LIKE="));
    let names = names.replace('"', " ");
    names.split_whitespace().find_map(|name| match name {
        "debian" | "ubuntu" => Some("Debian"),
        "fedora" | "rhel" | "centos" => Some("Fedora"),
        "arch" => Some("Arch"),
        _ => None,
    })
}

impl Report {
    pub(super) fn system(&mut self) {
        self.acceleration();
        self.desktop();
        self.limits();
        self.sandbox();
        match rutabaga::virgl() {
            Ok(_) => self.ok("virglrenderer starts (OpenGL, --capsets=venus,virgl)"),
            Err(missing) => self.missing(
                format!("no OpenGL by virglrenderer (--capsets=venus,virgl): {missing}"),
                Remedy {
                    debian: "apt-get install libvirglrenderer-dev, and build Hesper with --features virgl; guests have OpenGL by zink without it",
                    fedora: "dnf install virglrenderer-devel, and build Hesper with --features virgl; guests have OpenGL by zink without it",
                    arch: "pacman -S virglrenderer, and build Hesper with --features virgl; guests have OpenGL by zink without it",
                    macos: "guests have OpenGL by zink",
                },
            ),
        }
        match rutabaga::cross_domain() {
            Ok(_) => self.ok("the Wayland compositor answers (--capsets=venus,cross-domain)"),
            Err(missing) => self.missing(
                format!("no windows of guest programs on this desktop (--capsets=venus,cross-domain): {missing}"),
                Remedy::everywhere("start Hesper in a Wayland session, if these are wanted"),
            ),
        }
    }

    fn sandbox(&mut self) {
        match sandbox::state() {
            Ok(what) => self.ok(what),
            Err(missing) => self.warning(
                format!("the sandbox lacks a part of it: {missing}"),
                Remedy {
                    macos: "there is no other remedy than to run only guests that you trust",
                    ..Remedy::everywhere("run a kernel of Linux 6.12 or newer with Landlock and seccomp; in a container, allow the calls landlock_create_ruleset, landlock_add_rule, landlock_restrict_self and seccomp")
                },
            ),
        }
    }

    fn acceleration(&mut self) {
        match platform::acceleration() {
            Ok(what) => self.ok(what),
            Err((what, remedy)) => self.warning(
                format!("{what}: VMs are emulated and slow"),
                Remedy::everywhere(remedy),
            ),
        }
    }

    fn desktop(&mut self) {
        if !platform::has_desktop() {
            return self.warning(
                "no desktop (WAYLAND_DISPLAY and DISPLAY are not set): no windows, --display=headless",
                Remedy::everywhere("start Hesper in a desktop session, or set one of them"),
            );
        }
        match server() {
            Some(socket) if UnixStream::connect(&socket).is_err() => self.warning(
                format!(
                    "no display server answers on {}: no windows",
                    socket.display()
                ),
                Remedy::everywhere("set WAYLAND_DISPLAY or DISPLAY to those of a running desktop"),
            ),
            _ => self.ok("there is a desktop for windows"),
        }
    }

    fn limits(&mut self) {
        if let Some(most) = platform::max_map_count() {
            let what = format!("a process may have {most} memory mappings (vm.max_map_count)");
            match most >= MAPPINGS {
                true => self.ok(what),
                false => self.warning(
                    format!("{what}: guests with many programs may run out"),
                    Remedy::everywhere("sysctl vm.max_map_count=1048576, and a file in /etc/sysctl.d for the next start"),
                ),
            }
        }
        limits::raise_descriptor_limit();
        let what = format!("Hesper may have {} descriptors", limits::descriptors());
        match limits::descriptors_now().is_none_or(|now| now >= DESCRIPTORS) {
            true => self.ok(what),
            false => self.warning(
                format!("{what}: guests may run out of memory objects"),
                Remedy {
                    macos: "sysctl kern.maxfilesperproc=245760",
                    ..Remedy::everywhere("raise the hard limit: \"* hard nofile 524288\" in /etc/security/limits.conf, or LimitNOFILE=524288 in the systemd unit")
                },
            ),
        }
    }
}

/// The socket of the display server on which windows would open; `None` if it has no path.
fn server() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var(name)
            .ok()
            .filter(|value: &String| !value.is_empty())
    };
    if variable("WAYLAND_SOCKET").is_some() {
        return None;
    }
    if let Some(name) = variable("WAYLAND_DISPLAY") {
        // `join` keeps an absolute name as it is.
        return Some(PathBuf::from(variable("XDG_RUNTIME_DIR")?).join(name));
    }
    let display = variable("DISPLAY")?;
    let number = display.strip_prefix(':')?.split('.').next()?;
    Some(format!("/tmp/.X11-unix/X{number}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_known_by_its_name_or_its_kin() {
        for (release, family) in [
            ("ID=debian\nVERSION_ID=\"12\"\n", Some("Debian")),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some("Debian")),
            (
                "NAME=Rocky\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                Some("Fedora"),
            ),
            ("ID=manjaro\nID_LIKE=arch\n", Some("Arch")),
            ("ID=nixos\n", None),
            ("", None),
        ] {
            assert_eq!(family_of(release), family, "{release}");
        }
    }
}
