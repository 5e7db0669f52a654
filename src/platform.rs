//! What differs between systems: how the allocator keeps freed memory, and where the kernel maps new one.

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
        let mut anew = std::process::Command::new(program);
        // Returns only when it fails.
        let _ = anew
            .arg0(name)
            .args(arguments)
            .env(STARTED_ANEW, "1")
            .exec();
    }
}
