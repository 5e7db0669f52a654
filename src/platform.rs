//! What differs between operating systems: the allocator, the kernel's memory mappings, KVM or
//! Hypervisor.framework, and facts for bug reports.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The number of heaps that the allocator may make for threads. A driver's threads rarely allocate
/// at the same time, and each further heap keeps nearly empty pages. After 100 clients of lavapipe,
/// 5 MiB stay allocated with glibc's default (eight heaps per processor), and 0.2 MiB with this
/// number.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS: i32 = 4;

/// Limits the allocator's heaps, for a process with many short-lived threads. Affects only threads
/// that start later.
pub(crate) fn limit_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` may be called at any time and takes two numbers. If it fails, nothing
    // changes.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS)
    };
}

/// Whether windows can probably open here. On Unix this depends on the environment; a Mac always
/// has a desktop.
pub(crate) fn has_desktop() -> bool {
    let named = ["WAYLAND_DISPLAY", "WAYLAND_SOCKET", "DISPLAY"];
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || named.into_iter().any(is_set)
}

/// Environment variable that is set when [`map_upwards`] has restarted this process.
#[cfg(target_os = "linux")]
const STARTED_ANEW: &str = "HESPER_MAPS_UPWARDS";

/// Makes the kernel place new mappings at growing addresses. This needs a restart: the process
/// executes the same program again, with the same arguments and the same process id. If that fails,
/// it continues unchanged.
///
/// lavapipe maps memory for each descriptor set, page after page of one file, and crashes when the
/// kernel refuses a mapping: beyond 65,530 mappings (`vm.max_map_count`) of all guests together.
/// OpenGL on Vulkan can hold 58,000 sets. With growing addresses the pages are neighbours in memory
/// as they are in the file, and the kernel joins them to one mapping.
pub(crate) fn map_upwards() {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;

        /// Queries the personality without changing it.
        const ASK: libc::c_ulong = 0xffff_ffff;
        if std::env::var_os(STARTED_ANEW).is_some() {
            return;
        }
        // SAFETY: `personality` takes a number, and this one changes nothing.
        let now = unsafe { libc::personality(ASK) };
        if now < 0 || now & libc::ADDR_COMPAT_LAYOUT != 0 {
            return;
        }
        let wanted = libc::c_ulong::from((now | libc::ADDR_COMPAT_LAYOUT).cast_unsigned());
        // SAFETY: `personality` takes a number. The flag affects only programs that this process
        // executes later.
        if unsafe { libc::personality(wanted) } < 0 {
            return;
        }
        let Ok(program) = std::env::current_exe() else {
            return;
        };
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_else(|| program.clone().into());
        let mut anew = Command::new(program);
        // `exec` returns only when it fails.
        let _ = anew
            .arg0(name)
            .args(arguments)
            .env(STARTED_ANEW, "1")
            .exec();
    }
}

/// A path that executes this program again.
///
/// # Errors
/// The system does not tell it.
pub(crate) fn own_program() -> io::Result<PathBuf> {
    /// Still names the same file when an update has replaced or removed the program.
    #[cfg(target_os = "linux")]
    const OWN: &str = "/proc/self/exe";
    #[cfg(target_os = "linux")]
    if std::fs::exists(OWN).unwrap_or(false) {
        return Ok(OWN.into());
    }
    std::env::current_exe()
}

/// Names the process, for lists of processes. At most 15 bytes.
pub(crate) fn name_process(name: &std::ffi::CStr) {
    #[cfg(target_os = "linux")]
    // SAFETY: the name ends with a zero byte. The kernel copies at most 16 bytes of it.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr())
    };
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

/// Kills this process when the thread ends that started it. On other systems than Linux, nothing
/// does this.
pub(crate) fn end_with_parent() {
    #[cfg(target_os = "linux")]
    // SAFETY: this takes numbers. If it fails, nothing changes.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)
    };
}

/// The system's hardware acceleration for VMs, or what is missing and the remedy.
#[cfg(target_os = "linux")]
pub(crate) fn acceleration() -> Result<String, (String, &'static str)> {
    let kvm = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    match kvm {
        Ok(_) => Ok("/dev/kvm can be used".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err((
            "you have no access to /dev/kvm".to_owned(),
            "usermod -aG kvm YOUR-NAME, then log in again",
        )),
        Err(error) => Err((
            format!("/dev/kvm: {error}"),
            "turn virtualisation on in the firmware's settings (VT-x, AMD-V), and load kvm_intel or kvm_amd; in a VM, ask for nested virtualisation",
        )),
    }
}

/// The system's hardware acceleration for VMs, or what is missing and the remedy.
#[cfg(not(target_os = "linux"))]
pub(crate) fn acceleration() -> Result<String, (String, &'static str)> {
    match first_line("sysctl", &["-n", "kern.hv_support"]).as_deref() {
        Some("1") => Ok("Hypervisor.framework can be used (-accel hvf)".to_owned()),
        _ => Err((
            "kern.hv_support is not 1".to_owned(),
            "this machine cannot run VMs by itself",
        )),
    }
}

/// How many memory mappings a process may have; `None` where the system does not limit them.
pub(crate) fn max_map_count() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
    text.trim().parse().ok()
}

/// Facts about the system for a bug report, as names and values. None of them identifies the
/// machine or its user.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    let known = |(name, value): (&'static str, Option<String>)| Some((name, value?));
    // Not -n, which prints the machine's name.
    let kernel = ("kernel", first_line("uname", &["-srm"]));
    [kernel]
        .into_iter()
        .chain(own_facts())
        .filter_map(known)
        .collect()
}

/// Facts that only Linux has.
#[cfg(target_os = "linux")]
fn own_facts() -> Vec<(&'static str, Option<String>)> {
    let release = std::fs::read_to_string("/etc/os-release").ok();
    let system = release.as_deref().and_then(|text| {
        let name = text
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(name.trim_matches('"').to_owned())
    });
    vec![
        ("system", system),
        (
            "memory mappings (vm.max_map_count)",
            max_map_count().map(|most| most.to_string()),
        ),
    ]
}

/// Facts that only macOS has. `kern.hv_support` is 1 on a machine that can run VMs.
#[cfg(target_os = "macos")]
fn own_facts() -> Vec<(&'static str, Option<String>)> {
    let sysctl = |name| first_line("sysctl", &["-n", name]);
    vec![
        (
            "system",
            first_line("sw_vers", &["-productVersion"]).map(|version| format!("macOS {version}")),
        ),
        ("model", sysctl("hw.model")),
        ("processor", sysctl("machdep.cpu.brand_string")),
        ("memory in bytes", sysctl("hw.memsize")),
        ("kern.hv_support", sysctl("kern.hv_support")),
        ("kern.maxfilesperproc", sysctl("kern.maxfilesperproc")),
    ]
}

/// No further facts on other systems.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn own_facts() -> Vec<(&'static str, Option<String>)> {
    Vec::new()
}

/// The first line that a system program prints; `None` if there is no such program, it fails or
/// prints nothing.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let text = output(program, arguments)?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// The output of a program; `None` if there is no such program or it fails.
pub(crate) fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = || String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(text)
}
