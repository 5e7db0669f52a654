//! Runs libvirt's daemon and client, which keep their files in a folder (`tests/env/libvirt`).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::guest::Guest;
use super::process::{Process, comes_true, environment, in_environment};
use super::programs::{self, Linked};
use super::vulkan_guest::VulkanGuest;

/// A program for the guest that turns the machine off when its power button is pressed, as a
/// desktop does.
const POWER_BUTTON: &str = r#"#!/bin/sh
modprobe button
for at in /sys/class/input/event*; do
    if grep -q 'Power Button' "$at/device/name"; then
        dd if="/dev/input/${at##*/}" of=/dev/null bs=24 count=1 2>/dev/null
        poweroff -f
    fi
done
"#;

/// A running libvirtd. All its child processes end with it.
pub struct Libvirt {
    process: Process,
    folder: PathBuf,
}

/// A domain that libvirt knows.
pub struct Domain<'a> {
    libvirt: &'a Libvirt,
    name: String,
}

impl Libvirt {
    /// Starts the daemon in `folder`, with docs/50-hesper.json, by which it finds Hesper.
    pub fn start(folder: &Path, hesper: &Path) -> Self {
        let announced = replaced(
            include_str!("../../docs/50-hesper.json"),
            "/usr/local/bin/hesper",
            hesper.to_str().unwrap(),
        );
        fs::create_dir(folder.join("vhost-user")).unwrap();
        fs::write(folder.join("vhost-user/50-hesper.json"), announced).unwrap();
        let mut command = Command::new(environment("libvirt"));
        command
            .arg(folder)
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY");
        let child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/env/libvirt starts; see tests/env/README.md");
        let mut process = Process::new("libvirtd", child);
        let socket = folder.join("run/libvirt/libvirt-sock");
        process.until("socket", || socket.exists());
        let libvirt = Self {
            process,
            folder: folder.to_owned(),
        };
        // The answer comes when libvirt's driver for QEMU is ready.
        libvirt.virsh(&["version"]);
        libvirt
    }

    /// Runs a command of virsh and returns what it printed; fails the test when it fails.
    #[track_caller]
    pub fn virsh(&self, arguments: &[&str]) -> String {
        let socket = self.folder.join("run/libvirt/libvirt-sock");
        let mut command = in_environment("virsh");
        command
            .arg("--connect")
            .arg(format!("qemu+unix:///system?socket={}", socket.display()))
            .args(arguments);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "virsh {arguments:?}: {text}{errors}\n{}",
            self.logs()
        );
        text.trim().to_owned()
    }

    /// Defines a domain from a file of docs/libvirt, with a guest that has only the test program.
    pub fn define(&self, document: &str) -> Domain<'_> {
        let program = programs::for_guest("hesper-test-guest", Linked::Statically, "forky");
        self.define_with(document, &[], &program, "exec hesper-test-guest")
    }

    /// The same with a guest that has Mesa and a shell.
    pub fn define_with_mesa(&self, document: &str) -> Domain<'_> {
        let client = programs::for_guest("hesper-test-client", Linked::Dynamically, "forky");
        let options = ["--root", "mesa"];
        self.define_with(document, &options, &client, "echo ready; exec sh")
    }

    fn define_with(&self, document: &str, options: &[&str], file: &Path, job: &str) -> Domain<'_> {
        let (_, name) = document.split_once("<name>").unwrap();
        let name = name.split('<').next().unwrap().to_owned();
        let parts = self.folder.join(&name);
        fs::create_dir(&parts).unwrap();
        let button = parts.join("power-button");
        fs::write(&button, POWER_BUTTON).unwrap();
        let mut export = Command::new(environment("guest"));
        export
            .args(options)
            .args(["--accel", "tcg", "--export"])
            .arg(&parts)
            .arg("--file")
            .arg(&button)
            .arg("--file")
            .arg(file)
            .args(["--", "sh", "-c"])
            .arg(format!("power-button </dev/null & {job}"));
        let exported = export.output().unwrap();
        assert!(exported.status.success(), "{exported:?}");
        let file = self.folder.join(format!("{name}.xml"));
        fs::write(&file, self.adapted(document, &parts)).unwrap();
        self.virsh(&["define", file.to_str().unwrap()]);
        Domain {
            libvirt: self,
            name,
        }
    }

    /// The documented domain, changed for the test: no KVM, another kernel and disk, and ports to
    /// talk to the guest.
    fn adapted(&self, document: &str, parts: &Path) -> String {
        let at = |file: &str| parts.join(file).display().to_string();
        let words = fs::read_to_string(parts.join("cmdline")).unwrap();
        let boot = format!(
            "<kernel>{}</kernel><initrd>{}</initrd><cmdline>{}</cmdline></os>",
            at("vmlinuz"),
            at("initrd"),
            words.trim()
        );
        let channel = |name: &str, kind: &str, mode: &str| {
            format!(
                "<channel type='{kind}'><source {mode} path='{}'/>\
                 <target type='virtio' name='hesper.{name}'/></channel>",
                at(name)
            )
        };
        let listen = "mode='bind'";
        let channels = [
            channel("control", "file", ""),
            channel("stdin", "unix", listen),
            channel("stdout", "unix", listen),
            channel("stderr", "file", ""),
            "</devices>".to_owned(),
        ]
        .concat();
        let console = format!(
            "<serial type='file'><source path='{}'/></serial>",
            at("console")
        );
        let mut text = document.to_owned();
        for (from, to) in [
            ("<domain type='kvm'", "<domain type='qemu'"),
            ("mode='host-passthrough'", "mode='maximum'"),
            ("<memory unit='GiB'>4<", "<memory unit='GiB'>1<"),
            ("<vcpu>4<", "<vcpu>1<"),
            ("</os>", &boot),
            ("<serial type='pty'/>", &console),
            ("</devices>", &channels),
        ] {
            text = replaced(&text, from, to);
        }
        let disk = at("root.erofs");
        if Path::new(&disk).exists() {
            text = replaced(&text, "type='qcow2'/>", "type='raw'/><readonly/>");
            replaced(&text, "/var/lib/libvirt/images/guest.qcow2", &disk)
        } else {
            let (before, rest) = text.split_once("<disk").unwrap();
            let (_, after) = rest.split_once("</disk>").unwrap();
            format!("{before}{after}")
        }
    }

    /// The names of the processes that the daemon has started.
    pub fn processes(&self) -> BTreeSet<String> {
        let own = self.process.id();
        let namespace = fs::read_link(format!("/proc/{own}/ns/pid_for_children")).unwrap();
        let all = fs::read_dir("/proc").unwrap().map_while(Result::ok);
        all.map(|process| process.path())
            .filter(|process| {
                fs::read_link(process.join("ns/pid")).is_ok_and(|its| its == namespace)
            })
            .filter_map(|process| fs::read_to_string(process.join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .filter(|name| name != "bash" && name != "libvirtd")
            .collect()
    }

    /// All sockets in the daemon's folder and all files of its /run.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map_while(Result::ok) {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_socket() || path.starts_with(self.folder.join("run")) {
                    found.insert(path);
                }
            }
        }
        found
    }

    /// Waits until the daemon has no child processes and no files but these.
    #[track_caller]
    pub fn await_only(&self, files: &BTreeSet<PathBuf>) {
        let nothing = comes_true(|| self.processes().is_empty() && self.files().is_subset(files));
        let (processes, now) = (self.processes(), self.files());
        let left: Vec<_> = now.difference(files).collect();
        assert!(nothing, "left behind: {processes:?} {left:?}");
    }

    /// The logs of the daemon and of its VMs.
    fn logs(&self) -> String {
        let machines = fs::read_dir(self.folder.join("log/qemu"));
        let machines = machines.into_iter().flatten().map_while(Result::ok);
        let files = machines.map(|file| file.path());
        files
            .chain([self.folder.join("log/libvirtd.log")])
            .map(|file| fs::read_to_string(file).unwrap_or_default())
            .collect()
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // Its child processes end with it.
        self.process.kill();
    }
}

impl Domain<'_> {
    /// Runs a command of virsh whose first argument is the domain.
    #[track_caller]
    pub fn virsh(&self, command: &str, arguments: &[&str]) -> String {
        self.libvirt
            .virsh(&[&[command, &self.name], arguments].concat())
    }

    /// Starts the domain and waits for its guest's test program.
    pub fn start(&self) -> Guest {
        self.virsh("start", &[]);
        Guest::over(self.talk(), &self.name, PathBuf::new())
    }

    /// Starts the domain and waits for its guest's shell.
    pub fn start_with_mesa(&self) -> VulkanGuest {
        self.virsh("start", &[]);
        let guest = VulkanGuest::over(self.talk(), &self.name, PathBuf::new());
        guest.wait_ready();
        guest
    }

    /// Waits until the domain is in this state, as virsh calls it.
    #[track_caller]
    pub fn await_state(&self, state: &str) {
        let right = comes_true(|| self.virsh("domstate", &[]) == state);
        assert!(right, "{}, not {state}", self.virsh("domstate", &[]));
    }

    /// A command whose standard input and output are connected to the guest's.
    fn talk(&self) -> Command {
        let parts = self.libvirt.folder.join(&self.name);
        let at = |file: &str| format!("unix-connect:{}", parts.join(file).display());
        let mut command = in_environment("socat");
        command
            .arg("-")
            .arg(format!("{}!!{}", at("stdout"), at("stdin")));
        command
    }
}

/// Makes a program for `50-hesper.json` that starts Hesper with more options, and writes Hesper's
/// log to a file. libvirt itself discards the log.
pub fn wrapper(folder: &Path, options: &str) -> PathBuf {
    let script = format!(
        "#!/bin/sh\nexec {} {options} \"$@\" 2>>{}\n",
        env!("CARGO_BIN_EXE_hesper"),
        folder.join("hesper.log").display()
    );
    let file = folder.join("hesper-for-libvirt");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

/// Replaces `from`, which the text must have once.
#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in\n{text}");
    text.replace(from, to)
}
