//! Names the calls that the filters answer with SIGSYS.
//!
//! The handler runs on the thread that made the call, perhaps in the middle of a driver's lock. So
//! it only writes to standard error and changes its own registers.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::c_long;

use super::calls::{self, Answer};

/// `si_code` of a SIGSYS that a filter sends.
const SYS_SECCOMP: c_int = 1;

/// The part of `siginfo_t` that a SIGSYS has.
#[repr(C)]
struct SigsysInfo {
    _signal: c_int,
    _error: c_int,
    code: c_int,
    _padding: c_int,
    _address: *mut c_void,
    number: c_int,
    _architecture: u32,
}

/// The unusual calls that were named before, one bit each.
static NAMED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

/// Handles SIGSYS from now on.
///
/// # Errors
/// The system refused the handler.
pub(super) fn handle() -> io::Result<()> {
    // SAFETY: all fields of this structure may be zero.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(c_int, *const SigsysInfo, *mut libc::ucontext_t) = on_refusal;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the type of SA_SIGINFO and only does what a handler may do.
    let answer = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_refusal(_signal: c_int, info: *const SigsysInfo, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel passes a siginfo_t, which is larger than this part of it.
    let (code, number) = unsafe { ((*info).code, (*info).number) };
    if code != SYS_SECCOMP {
        die();
    }
    let call = c_long::from(number);
    let group = calls::group(call);
    match group.map(|group| group.answer) {
        Some(Answer::Unusual) => {
            if is_first(number) {
                let end = ": it fails with ENOSYS. If something does not work, please report this line; --sandbox=off allows it\n";
                say(call, end);
            }
            // SAFETY: the kernel passes the context to which it returns.
            unsafe { answer(context, -i64::from(libc::ENOSYS)) };
        }
        _ => {
            let end = ": nothing in Hesper or a driver may do this, so Hesper ends. If this was no attack, please report it; --sandbox=off allows it\n";
            say(call, end);
            die();
        }
    }
}

/// Whether a call is seen for the first time.
fn is_first(number: c_int) -> bool {
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let bit = 1 << (number % 64);
    NAMED
        .get(number / 64)
        .is_none_or(|named| named.fetch_or(bit, Ordering::Relaxed) & bit == 0)
}

/// Writes a line about a call.
fn say(call: c_long, end: &str) {
    let mut line = Line::default();
    line.push("hesper: the sandbox refused the system call ");
    line.push(calls::name(call).unwrap_or("without a name"));
    line.push(" (");
    line.push_number(call.unsigned_abs());
    line.push(") of the thread '");
    let mut name = [0_u8; 16];
    // SAFETY: the kernel writes at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    line.push_bytes(name.split(|byte| *byte == 0).next().unwrap_or_default());
    line.push("'");
    line.push(end);
    line.write();
}

/// A line of text without allocation.
struct Line {
    bytes: [u8; 384],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; 384],
            length: 0,
        }
    }
}

impl Line {
    fn push(&mut self, text: &str) {
        self.push_bytes(text.as_bytes());
    }

    fn push_bytes(&mut self, text: &[u8]) {
        let rest = self.bytes.get_mut(self.length..).unwrap_or_default();
        for (to, byte) in rest.iter_mut().zip(text) {
            *to = *byte;
            self.length += 1;
        }
    }

    fn push_number(&mut self, mut number: u64) {
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            first = place;
            if number == 0 {
                break;
            }
        }
        self.push_bytes(digits.get(first..).unwrap_or_default());
    }

    fn write(&self) {
        // SAFETY: the bytes up to the length are the array's. Nothing can be done about an error.
        let _ = unsafe { libc::write(2, self.bytes.as_ptr().cast(), self.length) };
    }
}

/// Sets the result of the call.
///
/// # Safety
/// `context` must be the one that the kernel passed to the handler.
unsafe fn answer(context: *mut libc::ucontext_t, result: i64) {
    #[cfg(target_arch = "x86_64")]
    {
        let register = usize::try_from(libc::REG_RAX).unwrap_or_default();
        // SAFETY: the caller's promise; the array has this register.
        let registers = unsafe { &mut (*context).uc_mcontext.gregs };
        if let Some(value) = registers.get_mut(register) {
            *value = result;
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: the caller's promise.
        let registers = unsafe { &mut (*context).uc_mcontext.regs };
        if let Some(value) = registers.first_mut() {
            *value = result.cast_unsigned();
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (context, result);
}

/// Ends the process as an abort does.
fn die() -> ! {
    // SAFETY: `abort` may be called at any time, also in a handler.
    unsafe { libc::abort() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_text_and_numbers_and_never_overflows() {
        let mut line = Line::default();
        line.push("call ");
        line.push_number(0);
        line.push(" ");
        line.push_number(u64::MAX);
        assert_eq!(&line.bytes[..line.length], b"call 0 18446744073709551615");
        for _ in 0..100 {
            line.push("0123456789");
        }
        assert_eq!(line.length, line.bytes.len());
    }

    #[test]
    fn an_unusual_call_is_named_once() {
        assert!(is_first(510));
        assert!(!is_first(510));
        assert!(is_first(509));
        assert!(is_first(-1), "a number that is none has no bit");
    }
}
