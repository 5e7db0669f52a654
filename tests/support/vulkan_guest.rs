//! A guest with a distribution's own Mesa. A shell in it runs the commands.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::process::{PATIENCE, Process, environment, lines};
use super::programs::{self, Linked};
use super::qmp::Qmp;

/// How long a boot may take. It took more than a minute on two processors with eight other
/// programs.
const BOOT: Duration = Duration::from_secs(300);
/// The line after a command's output; the exit status follows it.
const END: &str = "hesper-exit-status ";

/// System calls of Linux on x86-64 and their arguments (`linux/kexec.h`, `linux/reboot.h`).
/// Debian's perl makes them.
const KEXEC_FILE_LOAD: u32 = 320;
const KEXEC_FILE_ON_CRASH: i32 = 2;
const REBOOT: u32 = 169;
const REBOOT_MAGIC: u32 = 0xfee1_dead;
const REBOOT_MAGIC_2: u32 = 672_274_793;
const REBOOT_KEXEC: u32 = 0x4558_4543;

/// Starts a compositor on the guest's screen, which draws with `$renderer`. The background has one
/// colour and there is no animation, so a test knows each pixel. The machine needs no keyboard.
const WESTON: &str = "\
export LIBSEAT_BACKEND=builtin WAYLAND_DISPLAY=wayland-1
printf '[core]\\nrequire-input=false\\n[shell]\\npanel-position=none\\nbackground-type=tile\\nbackground-color=0xff000000\\n' >/tmp/weston.ini
printf 'startup-animation=none\\nclose-animation=none\\nanimation=none\\n' >>/tmp/weston.ini
weston --config=/tmp/weston.ini --backend=drm --renderer=$renderer --idle-time=0 >/tmp/weston.log 2>&1 & weston=$!
for i in $(seq 600); do [ ! -S $XDG_RUNTIME_DIR/wayland-1 ] || break; sleep 0.1; done
[ -S $XDG_RUNTIME_DIR/wayland-1 ] || { cat /tmp/weston.log; false; }";

/// What QEMU may print (docs/qemu.md): a line for each blob that is refused while the device runs,
/// and one for a request that arrives while the VM stops.
const EXPECTED: [&str; 2] = [
    "vhost_set_mem_table failed: Input/output error",
    "Received unexpected msg type",
];

/// The guests of `HESPER_SUITES`, or forky. Each has the `--wsi` that its Mesa needs, and vkcube's
/// environment. Mesa before 25.2 has swapchains only on dma-bufs, and copies with the CPU only if
/// an option says so (docs/guests.md).
pub fn suites() -> Vec<(String, &'static str, &'static str)> {
    let suites = std::env::var("HESPER_SUITES").unwrap_or_else(|_| "forky".to_owned());
    let needs = |suite: &str| match suite {
        "trixie" => (suite.to_owned(), "--wsi=dmabuf", "MESA_VK_WSI_DEBUG=sw"),
        _ => (suite.to_owned(), "--wsi=software", ""),
    };
    suites.split_whitespace().map(needs).collect()
}

/// A running guest with Mesa, Vulkan tools and Wayland.
pub struct VulkanGuest {
    process: Process,
    input: ChildStdin,
    output: Receiver<String>,
    qmp: PathBuf,
}

impl VulkanGuest {
    /// Boots a guest of a suite (`tests/env/README.md`) on the Hesper that listens on `socket`.
    ///
    /// `folder` gets its sockets and logs; `name` tells several guests of one test apart.
    pub fn boot(folder: &Path, name: &str, suite: &str, socket: &Path) -> Self {
        Self::boot_with(folder, name, suite, socket, &[])
    }

    /// The same with these additional options for `tests/env/guest`.
    pub fn boot_with(
        folder: &Path,
        name: &str,
        suite: &str,
        socket: &Path,
        options: &[&str],
    ) -> Self {
        let options = [options, &["--reboot"]].concat();
        let guest = Self::start(folder, name, suite, socket, &options);
        guest.wait_ready();
        guest
    }

    /// Starts a guest with a disk to suspend to. QEMU ends when the guest switches itself off. Wait
    /// for the guest with [`Self::wait_ready`], or with [`Self::wait_resumed`] if it resumes from
    /// the disk.
    pub fn start_with_swap(
        folder: &Path,
        name: &str,
        suite: &str,
        socket: &Path,
        disk: &Path,
    ) -> Self {
        let disk = disk.to_str().expect("a test's folder is named in UTF-8");
        // Little memory makes a small image.
        let options = ["--swap", disk, "--mem", "768M"];
        Self::start(folder, name, suite, socket, &options)
    }

    fn start(folder: &Path, name: &str, suite: &str, socket: &Path, options: &[&str]) -> Self {
        let qmp = folder.join(format!("{name}.qmp"));
        let mut command = Command::new(environment("guest"));
        command
            .args(["--suite", suite, "--root", "mesa"])
            // The tests themselves notice a guest that hangs. This ends a guest that a test left
            // behind.
            .args(["--timeout", "3600", "--socket"])
            .arg(socket)
            .arg("--qmp")
            .arg(&qmp)
            .arg("--console")
            .arg(folder.join(format!("{name}.console")))
            .arg("--file")
            .arg(programs::for_guest(
                "hesper-test-client",
                Linked::Dynamically,
                suite,
            ))
            .args(options)
            .args(["--", "sh", "-c", "echo ready; exec sh"]);
        Self::over(command, name, qmp)
    }

    /// The guest whose shell `command` talks to. The shell prints `ready` at its start, and again
    /// after each reset.
    pub fn over(mut command: Command, name: &str, qmp: PathBuf) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/env/guest starts; see tests/env/README.md");
        Self {
            input: child.stdin.take().unwrap(),
            output: lines(child.stdout.take().unwrap()),
            process: Process::new(name, child),
            qmp,
        }
    }

    /// Waits for the shell to start: at boot, and again after a reset.
    pub fn wait_ready(&self) {
        while self.line("the boot", BOOT) != "ready" {}
    }

    /// Runs a command in the shell and returns its exit status and its output.
    pub fn run(&mut self, command: &str) -> (i32, String) {
        writeln!(
            self.input,
            "{{ {command}\n}} </dev/null 2>&1; printf '\\n{END}%d\\n' $?"
        )
        .expect("the guest reads");
        let mut text = String::new();
        loop {
            let line = self.line(command, PATIENCE);
            if let Some(status) = line.strip_prefix(END) {
                let status = status.parse().expect("a shell's exit status");
                return (status, text.trim_end().to_owned());
            }
            text.push_str(&line);
            text.push('\n');
        }
    }

    /// Runs a command that must succeed, and returns its output.
    #[track_caller]
    pub fn succeed(&mut self, command: &str) -> String {
        let (status, text) = self.run(command);
        assert_eq!(status, 0, "'{command}' in the guest failed:\n{text}");
        text
    }

    /// Starts weston on the guest's screen. It draws with the processor.
    #[track_caller]
    pub fn start_weston(&mut self) {
        self.start_weston_with("pixman");
    }

    /// Starts weston with one of its renderers: pixman, gl or vulkan.
    #[track_caller]
    pub fn start_weston_with(&mut self, renderer: &str) {
        self.succeed(&format!("renderer={renderer}\n{WESTON}"));
    }

    /// Ends weston, and waits for its end.
    #[track_caller]
    pub fn end_weston(&mut self) {
        self.succeed("kill $weston; wait $weston; ! [ -S $XDG_RUNTIME_DIR/wayland-1 ]");
    }

    /// Starts an X server on the guest's screen, whose root window is black.
    #[track_caller]
    pub fn start_xorg(&mut self) {
        self.succeed(
            "export DISPLAY=:0\n\
             Xorg :0 vt1 -nolisten tcp >/tmp/xorg.log 2>&1 &\n\
             for i in $(seq 600); do [ ! -S /tmp/.X11-unix/X0 ] || break; sleep 0.1; done\n\
             [ -S /tmp/.X11-unix/X0 ] || { cat /tmp/xorg.log; false; }",
        );
    }

    /// Starts vkcube on Wayland for this many frames, with `NAME=value` pairs in its environment.
    #[track_caller]
    pub fn start_cube(&mut self, variables: &str, frames: u32) {
        self.start_cube_on("wayland", variables, frames);
    }

    /// The same on a display server of this kind.
    #[track_caller]
    pub fn start_cube_on(&mut self, wsi: &str, variables: &str, frames: u32) {
        self.succeed(&format!(
            "{variables} timeout 600 vkcube --wsi {wsi} --gpu_number 0 --c {frames} >/tmp/cube.log 2>&1 & cube=$!"
        ));
    }

    /// Starts vkcube on Wayland. It turns until the guest ends.
    #[track_caller]
    pub fn start_lasting_cube(&mut self) {
        self.succeed("vkcube --wsi wayland --gpu_number 0 >/tmp/cube.log 2>&1 & cube=$!");
    }

    /// Starts a program that presents nothing. It works for these seconds, and keeps this many
    /// blobs mapped and fences open until [`Self::end_hold`].
    #[track_caller]
    pub fn start_hold(&mut self, maps: u32, seconds: u32) {
        self.succeed(&format!(
            "rm -f /tmp/go; hesper-test-client hold {maps} {seconds} /tmp/go >/tmp/hold.log 2>&1 & hold=$!\n\
             for i in $(seq 600); do ! grep -q holding /tmp/hold.log || break; sleep 0.2; done\n\
             grep holding /tmp/hold.log || {{ cat /tmp/hold.log; false; }}"
        ));
    }

    /// Ends that program. Fails the test unless all its memory and fences were right.
    #[track_caller]
    pub fn end_hold(&mut self) {
        let said = self.succeed("touch /tmp/go; wait $hold; echo $?; cat /tmp/hold.log");
        assert!(said.starts_with('0') && said.contains("done"), "{said}");
    }

    /// Waits until vkcube has drawn all frames. Fails the test if it did not.
    #[track_caller]
    pub fn await_cube(&mut self) {
        let (status, _) = self.run("wait $cube");
        let said = self.succeed("cat /tmp/cube.log");
        assert_eq!(
            status,
            0,
            "vkcube failed:\n{said}\n{}",
            self.process.errors()
        );
        assert!(
            said.contains("Virtio-GPU Venus"),
            "another GPU drew:\n{said}"
        );
    }

    /// Resets the machine, as its reset button does, and waits for the shell.
    pub fn reset(&mut self) {
        Qmp::connect(&self.qmp).run("system_reset", serde_json::json!({}));
        self.wait_ready();
    }

    /// Makes the guest's kernel panic (its command line has `panic=1`) and waits for the shell of
    /// the next start.
    pub fn crash(&mut self) {
        writeln!(self.input, "echo c >/proc/sysrq-trigger").expect("the guest reads");
        self.wait_ready();
    }

    /// Loads the guest's own kernel and initrd (`--kexec`) for [`Self::kexec`], or as a crash
    /// kernel for [`Self::crash`].
    #[track_caller]
    pub fn load_kernel(&mut self, as_crash_kernel: bool) {
        // The new kernel gets no option crashkernel=, which reserves memory for a crash kernel.
        let flags = i32::from(as_crash_kernel) * KEXEC_FILE_ON_CRASH;
        self.succeed(&format!(
            "perl -e 'open K, \"</boot/vmlinuz\" or die; open I, \"</boot/initrd\" or die; open C, \"</proc/cmdline\" or die;\n\
             $words = <C>; chomp $words; $words =~ s/crashkernel=\\S+//; $words .= \" again\\0\";\n\
             syscall({KEXEC_FILE_LOAD}, fileno K, fileno I, length $words, $words, {flags}) == 0 or die $!'"
        ));
    }

    /// Starts the loaded kernel without a reset of the machine, and waits for its shell.
    pub fn kexec(&mut self) {
        writeln!(
            self.input,
            "perl -e 'syscall({REBOOT}, {REBOOT_MAGIC}, {REBOOT_MAGIC_2}, {REBOOT_KEXEC}, 0); die $!'"
        )
        .expect("the guest reads");
        self.wait_ready();
        self.succeed("grep -q again /proc/cmdline");
    }

    /// Suspends a guest of [`Self::start_with_swap`] to its disk; it switches itself off.
    #[track_caller]
    pub fn suspend_to_disk(&mut self) {
        self.succeed(
            "grep -q /dev/vdb /proc/swaps || { mkswap /dev/vdb && busybox swapon /dev/vdb; }",
        );
        writeln!(
            self.input,
            "suspended=yes; echo shutdown >/sys/power/disk; echo disk >/sys/power/state || dmesg >&2"
        )
        .expect("the guest reads");
        self.process.wait(BOOT);
    }

    /// Waits for the shell of a guest that resumes from its disk. Fails the test if the guest has
    /// booted instead.
    #[track_caller]
    pub fn wait_resumed(&mut self) {
        writeln!(self.input, "echo suspended: $suspended").expect("the guest reads");
        let line = self.line("the resume", BOOT);
        assert_eq!(line, "suspended: yes", "{}", self.process.errors());
    }

    /// Pauses the VM for this long: QMP's `stop` and `cont`.
    pub fn pause(&self, time: Duration) {
        let mut qmp = self.qmp();
        qmp.run("stop", serde_json::json!({}));
        std::thread::sleep(time);
        qmp.run("cont", serde_json::json!({}));
    }

    /// Connects to QEMU's machine protocol (QMP).
    pub fn qmp(&self) -> Qmp {
        Qmp::connect(&self.qmp)
    }

    /// The lines that QEMU has printed and should not have printed.
    pub fn complaints(&self) -> Vec<String> {
        let said = self.process.errors();
        let lines = said.lines().filter(|line| line.contains("qemu-system"));
        lines
            .filter(|line| !EXPECTED.iter().any(|known| line.contains(known)))
            .map(str::to_owned)
            .collect()
    }

    /// Seconds of processor time that QEMU has used.
    pub fn qemu_cpu(&self) -> f64 {
        self.process.cpu_of_child("qemu")
    }

    /// Kills QEMU, as a crash does.
    pub fn kill(mut self) {
        self.process.kill();
    }

    fn line(&self, wait: &str, patience: Duration) -> String {
        self.output.recv_timeout(patience).unwrap_or_else(|error| {
            panic!(
                "the guest is silent ({error}) at: {wait}\n{}",
                self.process.errors()
            )
        })
    }
}
