//! Checks that QEMU is there, is new enough and has the device.

use std::path::{Path, PathBuf};

use super::{Remedy, Report};
use crate::platform::output;

/// The first version of QEMU whose generic vhost-user device has a host-visible window.
const OLDEST: (u32, u32) = (11, 1);

/// QEMU's name for that device.
const DEVICE: &str = "vhost-user-test-device-pci";

/// How to install QEMU.
const INSTALL: Remedy = Remedy {
    debian: "apt-get install qemu-system-x86 from Debian testing (or `tests/env/prepare host` in Hesper's sources)",
    fedora: "dnf install qemu-kvm; before Fedora has 11.1, build it from qemu.org",
    arch: "pacman -S qemu-system-x86",
    macos: "brew install qemu; with vhost-user as docs/macos.md says",
};

impl Report {
    /// Checks the program `named`, or the usual one for this machine's processor.
    pub(super) fn qemu(&mut self, named: Option<&Path>) {
        let usual = format!("qemu-system-{}", std::env::consts::ARCH);
        let program = named.map_or_else(|| PathBuf::from(usual), Path::to_owned);
        let name = program.display();
        let Some(printed) = output(&program, &["--version"]) else {
            return self.needs(
                format!("{name} does not start; VMs need QEMU 11.1 or newer"),
                INSTALL,
            );
        };
        let Some((major, minor)) = version(&printed) else {
            let first = printed.lines().next().unwrap_or_default();
            return self.needs(
                format!("{name} printed \"{first}\", which is not a version of QEMU"),
                INSTALL,
            );
        };
        if (major, minor) < OLDEST {
            return self.needs(
                format!("{name} is version {major}.{minor}; guests get Vulkan from 11.1 on (older ones: 2D, --display=qemu)"),
                INSTALL,
            );
        }
        let devices = output(&program, &["-device", "help"]).unwrap_or_default();
        if !devices.contains(&format!("\"{DEVICE}\"")) {
            return self.needs(
                format!("{name} {major}.{minor} has no {DEVICE}: it was built without vhost-user"),
                INSTALL,
            );
        }
        self.ok(format!("{name} {major}.{minor} has {DEVICE}"));
        self.warning(
            format!("QEMU {major}.{minor} exits when a VM that was paused is reset while 3D programs from before the pause still run"),
            Remedy::everywhere("end the guest's 3D programs before such a reset (docs/qemu.md)"),
        );
    }
}

/// The version in `QEMU emulator version 11.1.2 (…)`.
fn version(printed: &str) -> Option<(u32, u32)> {
    let (_, rest) = printed.split_once("version ")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::Mark;
    use super::*;

    #[test]
    fn a_version_is_read() {
        let printed = "QEMU emulator version 11.1.2 (Debian 1:11.1.2+ds-1)\nCopyright";
        assert_eq!(version(printed), Some((11, 1)));
        assert_eq!(version("QEMU emulator version 7.2.9"), Some((7, 2)));
        assert_eq!(version("hello"), None);
    }

    /// The result for a QEMU that prints `version` and `devices`.
    fn result_of(version: &str, devices: &str) -> (Mark, String) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        let script = format!(
            "#!/bin/sh\ncase $1 in --version) echo '{version}';; *) echo '{devices}';; esac\n"
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut report = Report::default();
        report.qemu(Some(&program));
        let first = &report.checks[0];
        (first.mark, first.what.clone())
    }

    #[test]
    fn an_old_qemu_and_one_without_the_device_fail_the_check() {
        let device = format!("name \"{DEVICE}\", bus PCI");
        let (mark, what) = result_of("QEMU emulator version 11.1.2", &device);
        assert_eq!(mark, Mark::Ok, "{what}");
        let (mark, what) = result_of("QEMU emulator version 12.0.0", &device);
        assert_eq!(mark, Mark::Ok, "{what}");
        let (mark, what) = result_of("QEMU emulator version 10.0.2", &device);
        assert_eq!(mark, Mark::Needed);
        assert!(what.contains("10.0") && what.contains("11.1"), "{what}");
        let (mark, what) = result_of("QEMU emulator version 11.1.2", "name \"virtio-gpu-pci\"");
        assert_eq!(mark, Mark::Needed);
        assert!(what.contains(DEVICE), "{what}");
        let (mark, _) = result_of("no such thing", &device);
        assert_eq!(mark, Mark::Needed);
        let mut report = Report::default();
        report.qemu(Some(Path::new("/nowhere/qemu")));
        assert_eq!(report.checks[0].mark, Mark::Needed);
    }
}
