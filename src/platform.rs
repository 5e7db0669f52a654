//! What differs between systems: how the allocator keeps freed memory, where the kernel maps new one, and what there is to tell
//! of the machine.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// Heaps that threads share. A driver's threads rarely allocate at the same time; each heap more keeps pages that hold next to
/// nothing: with glibc's own limit, eight per processor, 100 clients of lavapipe leave 5 MiB, with this one 0.2 MiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS: i32 = 4;

/// Keeps the memory of a process with many short-lived threads together. Works only for threads that come after.
pub(crate) fn limit_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time; where it fails nothing changes, and only memory is lost.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS)
    };
}

/// Whether windows can be expected to open here. On Unix the environment says so; a Mac has a desktop.
pub(crate) fn has_desktop() -> bool {
    let named = ["WAYLAND_DISPLAY", "WAYLAND_SOCKET", "DISPLAY"];
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || named.into_iter().any(is_set)
}

/// Environment variable: this process was started anew by [`map_upwards`].
#[cfg(target_os = "linux")]
const STARTED_ANEW: &str = "HESPER_MAPS_UPWARDS";

/// Has the kernel map memory upwards, which takes a start anew: this process becomes the same program once more, with the same
/// arguments and the same number. Where that fails it goes on as it is.
///
/// lavapipe maps memory for each descriptor set, page after page of one file, and dies where the kernel refuses: beyond
/// 65,530 mappings (`vm.max_map_count`), which are those of all guests together. OpenGL on Vulkan holds 58,000 sets at times.
/// Mapped upwards, one page lies behind the other in memory as it does in the file, and the kernel makes one mapping of them.
pub(crate) fn map_upwards() {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;

        /// Asks for the personality without changing it.
        const ASK: libc::c_ulong = 0xffff_ffff;
        if std::env::var_os(STARTED_ANEW).is_some() {
            return;
        }
        // SAFETY: takes a number; nothing of this process changes.
        let now = unsafe { libc::personality(ASK) };
        if now < 0 || now & libc::ADDR_COMPAT_LAYOUT != 0 {
            return;
        }
        let wanted = libc::c_ulong::from((now | libc::ADDR_COMPAT_LAYOUT).cast_unsigned());
        // SAFETY: takes a number, and changes what the next program of this process gets.
        if unsafe { libc::personality(wanted) } < 0 {
            return;
        }
        let Ok(program) = std::env::current_exe() else {
            return;
        };
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_else(|| program.clone().into());
        let mut anew = Command::new(program);
        // Returns only when it fails.
        let _ = anew
            .arg0(name)
            .args(arguments)
            .env(STARTED_ANEW, "1")
            .exec();
    }
}

/// What makes VMs fast here, or what is missing and the remedy.
#[cfg(target_os = "linux")]
pub(crate) fn acceleration() -> Result<String, (String, &'static str)> {
    let kvm = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    match kvm {
        Ok(_) => Ok("/dev/kvm can be used".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err((
            "/dev/kvm may not be used by you".to_owned(),
            "usermod -aG kvm YOUR-NAME, and log in anew",
        )),
        Err(error) => Err((
            format!("/dev/kvm: {error}"),
            "turn virtualisation on in the firmware's settings (VT-x, AMD-V), and load kvm_intel or kvm_amd; in a VM, ask for nested virtualisation",
        )),
    }
}

/// What makes VMs fast here, or what is missing and the remedy.
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

/// How many memory mappings a process may have, where the system counts them.
pub(crate) fn max_map_count() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
    text.trim().parse().ok()
}

/// Facts of the system for a bug report, as names and values. None of them identifies the machine or its user.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    let known = |(name, value): (&'static str, Option<String>)| Some((name, value?));
    // Not -n, which is the machine's name.
    let kernel = ("kernel", first_line("uname", &["-srm"]));
    [kernel]
        .into_iter()
        .chain(own_facts())
        .filter_map(known)
        .collect()
}

/// What only Linux has.
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

/// What only macOS has: `kern.hv_support` is whether it can run VMs.
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

/// Other systems tell nothing more.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn own_facts() -> Vec<(&'static str, Option<String>)> {
    Vec::new()
}

/// The first line that a program of the system prints; `None` if there is no such program, it fails or prints nothing.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let text = output(program, arguments)?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// What a program prints; `None` if there is no such program or it fails.
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
