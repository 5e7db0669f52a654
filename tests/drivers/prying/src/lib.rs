//! A driver that is lavapipe, and that tries what a guest would try that has taken over the
//! process.
//!
//! Vulkan's loader finds it by a manifest that names the library. When the file of [`WHEN`] exists,
//! the next `vkCreateInstance` makes the attempts of [`ATTEMPTS`] on the thread that calls it: a
//! context's thread. Each one prints a line on standard error, `pry: NAME: done` or
//! `pry: NAME: ERROR`.

#![cfg(target_os = "linux")]

use std::ffi::{CStr, CString, c_char, c_long, c_void};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use ash::vk;

/// The environment variable with the path of the file whose existence starts the attempts.
pub const WHEN: &str = "HESPER_PRY_WHEN";

/// The environment variable with the attempts, separated by spaces: `NAME` or `NAME:PATH`.
pub const ATTEMPTS: &str = "HESPER_PRY";

/// The wrapped driver, by the name that the dynamic linker finds.
const WRAPPED: &CStr = c"libvulkan_lvp.so";

type Function = unsafe extern "system" fn();
type GetInstanceFunction =
    unsafe extern "system" fn(vk::Instance, *const c_char) -> Option<Function>;
type Negotiate = unsafe extern "system" fn(*mut u32) -> vk::Result;
type CreateInstance =
    unsafe extern "system" fn(*const c_void, *const c_void, *mut vk::Instance) -> vk::Result;

/// lavapipe's `vkCreateInstance`.
static CREATE: AtomicUsize = AtomicUsize::new(0);

/// A function that lavapipe's library exports; null when there is no lavapipe.
fn exported(name: &CStr) -> *mut c_void {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    // SAFETY: the name ends with NUL; lavapipe's initialisers are those of any driver.
    let open = || unsafe { libc::dlopen(WRAPPED.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    let library = *LIBRARY.get_or_init(|| open().addr()) as *mut c_void;
    if library.is_null() {
        return library;
    }
    // SAFETY: the library is open and stays so.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

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

fn pry() {
    let Some(file) = std::env::var_os(WHEN) else {
        return;
    };
    if !Path::new(&file).exists() {
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

/// The loader's entry point into the driver.
///
/// # Safety
/// The arguments are valid, as Vulkan requires: `name` ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdGetInstanceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> Option<Function> {
    let get = exported(c"vk_icdGetInstanceProcAddr");
    // SAFETY: a function of this name has this type; null is `None`.
    let get: Option<GetInstanceFunction> = unsafe { std::mem::transmute(get) };
    // SAFETY: the caller's promise.
    let (name, found) = unsafe { (CStr::from_ptr(name), get?(instance, name)?) };
    if name != c"vkCreateInstance" {
        return Some(found);
    }
    CREATE.store(found as usize, Ordering::Release);
    let ours: CreateInstance = create_instance;
    // SAFETY: a caller that asks by name casts it back to the type of that name.
    Some(unsafe { std::mem::transmute::<CreateInstance, Function>(ours) })
}

/// Which version of the interface the loader and the driver speak.
///
/// # Safety
/// `version` can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdNegotiateLoaderICDInterfaceVersion(
    version: *mut u32,
) -> vk::Result {
    let negotiate = exported(c"vk_icdNegotiateLoaderICDInterfaceVersion");
    // SAFETY: a function of this name has this type; null is `None`.
    let negotiate: Option<Negotiate> = unsafe { std::mem::transmute(negotiate) };
    match negotiate {
        // SAFETY: the caller's promise.
        Some(negotiate) => unsafe { negotiate(version) },
        None => vk::Result::ERROR_INCOMPATIBLE_DRIVER,
    }
}

/// The physical devices' functions, which are lavapipe's.
///
/// # Safety
/// The arguments are valid, as Vulkan requires: `name` ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdGetPhysicalDeviceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> Option<Function> {
    let get = exported(c"vk_icdGetPhysicalDeviceProcAddr");
    // SAFETY: a function of this name has this type; null is `None`.
    let get: Option<GetInstanceFunction> = unsafe { std::mem::transmute(get) };
    // SAFETY: the caller's promise.
    unsafe { get?(instance, name) }
}
