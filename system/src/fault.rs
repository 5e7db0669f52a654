//! SIGBUS: the handler, and the pages that it puts in the place of those that are gone.
//!
//! Everything here that runs in the handler is a system call or an atomic access.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::{Once, OnceLock};

use crate::guest_memory::take_fault;

/// Whom a SIGBUS went to before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Catches SIGBUS from now on. Only the first call has an effect.
pub(crate) fn catch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: asks for the present action, and has room for it.
        if unsafe { libc::sigaction(libc::SIGBUS, null(), previous.as_mut_ptr()) } != 0 {
            log::warn!(
                "SIGBUS cannot be caught: a VM monitor that shrinks its guest's memory ends this process"
            );
            return;
        }
        // SAFETY: the call has filled it.
        let previous = unsafe { previous.assume_init() };
        // Before the handler can need it.
        let _ = PREVIOUS.set(previous);
        // SAFETY: all zeros is a valid action: the default one, with an empty mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and does only what a
        // handler may.
        if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) } != 0 {
            log::warn!(
                "SIGBUS cannot be caught: a VM monitor that shrinks its guest's memory ends this process"
            );
        }
    });
}

extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes a valid record.
    let is_fault = unsafe { (*info).si_code } > 0;
    // SAFETY: a fault has an address; others are not asked.
    if is_fault && keep_errno(|| take_fault(unsafe { (*info).si_addr() }.addr())) {
        return;
    }
    pass_on(signal, info, context, is_fault);
}

/// Calls the previous handler, or does what the system does without one.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, is_fault: bool) {
    let previous = PREVIOUS.get();
    let handler = previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    match handler {
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: both may be called in a handler. A fault happens again when this returns, and
            // another signal is raised again: with the default action it ends the process.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                if !is_fault {
                    libc::raise(signal);
                }
            }
        }
        _ if previous.is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0) => {
            // SAFETY: SA_SIGINFO says that the handler has this signature.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        _ => {
            // SAFETY: without SA_SIGINFO a handler has this signature.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// Maps zero pages over a range of this process. Returns false when the system refuses.
pub(crate) fn put_zeros(start: usize, length: usize) -> bool {
    let place = std::ptr::with_exposed_provenance_mut::<c_void>(start);
    // SAFETY: the range is a mapping of shared memory that is registered, so it is ours as long as
    // the registration stands, and nobody has references into it.
    let mapped = unsafe {
        libc::mmap(
            place,
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    mapped == place
}

/// Runs `work` without a change of `errno`, as a handler must.
fn keep_errno<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(target_os = "linux")]
    // SAFETY: the pointer is this thread's own `errno`.
    let place = unsafe { libc::__errno_location() };
    #[cfg(target_vendor = "apple")]
    // SAFETY: the pointer is this thread's own `errno`.
    let place = unsafe { libc::__error() };
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    // SAFETY: as above.
    let before = unsafe { *place };
    let result = work();
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    // SAFETY: as above.
    unsafe {
        *place = before;
    }
    result
}
