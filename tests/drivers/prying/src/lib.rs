//! A driver that is lavapipe, and that tries what a guest would try that has taken over the
//! process.
//!
//! Vulkan's loader finds it by a manifest that names the library. When the file of [`WHEN`] exists,
//! the next `vkCreateInstance` of a context's thread makes the attempts of [`ATTEMPTS`]. Hesper
//! also makes instances when it loads the driver, before it is confined; these do not count. Each
//! one prints a line on standard error, `pry: NAME: done` or `pry: NAME: ERROR`.

#![cfg(target_os = "linux")]

#[path = "../../lavapipe.rs"]
mod lavapipe;

use std::ffi::{CStr, CString, c_long, c_void};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use ash::vk;

use lavapipe::Function;

/// The environment variable with the path of the file whose existence starts the attempts.
pub const WHEN: &str = "HESPER_PRY_WHEN";

/// The environment variable with the attempts, separated by spaces: `NAME` or `NAME:PATH`.
pub const ATTEMPTS: &str = "HESPER_PRY";

type CreateInstance =
    unsafe extern "system" fn(*const c_void, *const c_void, *mut vk::Instance) -> vk::Result;

/// lavapipe's `vkCreateInstance`.
static CREATE: AtomicUsize = AtomicUsize::new(0);

/// Makes one attempt.
fn attempt(name: &str, path: &str) -> io::Result<()> {
    match name {
        "read" => File::open(path).map(drop),
        "write" => OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map(drop),
        "remove" => std::fs::remove_file(path),
        "chmod" => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)),
        "inet" => socket(libc::AF_INET),
        "unix" => socket(libc::AF_UNIX),
        "pair" => std::os::unix::net::UnixStream::pair().map(drop),
        "inotify" => call(libc::SYS_inotify_init1, [0, 0, 0]),
        "shmget" => call(libc::SYS_shmget, [0, 4096, 0o600]),
        "bind" => std::os::unix::net::UnixListener::bind(path).map(drop),
        "fork" => fork(),
        "thread" => std::thread::Builder::new()
            .spawn(|| ())
            .map(|thread| drop(thread.join())),
        "code" => code(),
        "io_uring" => call(libc::SYS_io_uring_setup, [0, 0, 0]),
        "signal" => call(libc::SYS_kill, [1, 0, 0]),
        "msgget" => call(libc::SYS_msgget, [0, 0, 0]),
        // PTRACE_PEEKUSER of a process that does not exist.
        "ptrace" => call(libc::SYS_ptrace, [3, 0, 0]),
        "setuid" => {
            // SAFETY: this takes no arguments.
            let own = unsafe { libc::getuid() };
            call(libc::SYS_setuid, [own.into(), 0, 0])
        }
        "exec" => {
            let path = CString::new(path)?;
            let address = c_long::try_from(path.as_ptr().addr()).map_err(io::Error::other)?;
            call(libc::SYS_execve, [address, 0, 0])
        }
        _ => Err(io::Error::other("there is no such attempt")),
    }
}

/// Makes a system call.
fn call(number: c_long, arguments: [c_long; 3]) -> io::Result<()> {
    let [first, second, third] = arguments;
    // SAFETY: the attempts pass numbers, null pointers and a path that ends with NUL.
    match unsafe { libc::syscall(number, first, second, third) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn socket(family: i32) -> io::Result<()> {
    // SAFETY: this takes numbers.
    let socket = unsafe { libc::socket(family, libc::SOCK_STREAM, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened here.
    unsafe { libc::close(socket) };
    Ok(())
}

fn fork() -> io::Result<()> {
    // SAFETY: the child only ends.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: this is the child.
        0 => unsafe { libc::_exit(0) },
        _ => {
            let mut status = 0;
            // SAFETY: `status` lives.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            Ok(())
        }
    }
}

/// Makes memory executable, as drivers do that compile shaders.
fn code() -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping touches nothing else.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page is this function's own.
    let (made, _) = unsafe {
        let made = libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC);
        (made, libc::munmap(page, 4096))
    };
    match made {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the calling thread is a context's.
fn is_of_context() -> bool {
    let mut name = [0_u8; 16];
    // SAFETY: the kernel writes at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name.starts_with(b"venus-")
}

fn pry() {
    let Some(file) = std::env::var_os(WHEN) else {
        return;
    };
    if !Path::new(&file).exists() || !is_of_context() {
        return;
    }
    let attempts = std::env::var(ATTEMPTS).unwrap_or_default();
    for text in attempts.split(' ') {
        let (name, path) = text.split_once(':').unwrap_or((text, ""));
        let line = match attempt(name, path) {
            Ok(()) => format!("pry: {name}: done\n"),
            Err(error) => format!("pry: {name}: {error}\n"),
        };
        // Nothing can be done about an error.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

unsafe extern "system" fn create_instance(
    info: *const c_void,
    allocator: *const c_void,
    instance: *mut vk::Instance,
) -> vk::Result {
    pry();
    let create = CREATE.load(Ordering::Acquire);
    if create == 0 {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    }
    // SAFETY: the address is that of lavapipe's function of this type.
    let create = unsafe { std::mem::transmute::<usize, CreateInstance>(create) };
    // SAFETY: the caller's promise about the arguments.
    unsafe { create(info, allocator, instance) }
}

/// The replacement for `found`, which is lavapipe's function of that name; `found` itself if there
/// is none.
fn replace(name: &CStr, found: Option<Function>) -> Option<Function> {
    let found = found?;
    if name != c"vkCreateInstance" {
        return Some(found);
    }
    CREATE.store(found as usize, Ordering::Release);
    let ours: CreateInstance = create_instance;
    // SAFETY: a caller that asks by name casts it back to the type of that name.
    Some(unsafe { std::mem::transmute::<CreateInstance, Function>(ours) })
}
