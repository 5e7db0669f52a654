//! `--sandbox=log`: says what the sandbox would refuse, and allows it.
//!
//! A thread asks the kernel for each call in question, lets it go on and logs it. The places of
//! files are checked here, because Landlock cannot only log. This is for finding out what a driver
//! needs; it protects nothing, and it is slow.
//!
//! The difficulty: the caller waits, and may hold the allocator's lock, as `fork` does. So nothing
//! is allocated or logged before the caller goes on.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use libc::{c_int, c_long, c_ulong};

use super::super::super::places::{Place, Purpose, Role};
use super::calls::{self, Answer, BY_PATH};
use super::filter::{FilterError, watch_process};

/// The most different lines. A driver that opens a thousand files is known by then.
const MOST: usize = 200;

/// The longest path.
const LONGEST: usize = libc::PATH_MAX.cast_unsigned() as usize;

/// Watches all threads from now on.
///
/// # Errors
/// The kernel cannot report calls (Linux 5.7 can), or gives no thread.
pub(super) fn start(role: Role, places: Vec<Place>) -> Result<(), FilterError> {
    // The thread is there before the filter: no call that it makes may wait for itself.
    let (sender, listener) = std::sync::mpsc::channel::<OwnedFd>();
    // Not process_vm_readv(2), which would be reported, too.
    let memory = File::open("/proc/self/mem")?;
    thread::Builder::new()
        .name("sandbox log".to_owned())
        .spawn(move || {
            if let Ok(listener) = listener.recv() {
                Watch {
                    listener,
                    memory,
                    places,
                    seen: HashSet::new(),
                }
                .run();
            }
        })?;
    let listener = watch_process(role)?;
    // The thread waits for it.
    let _ = sender.send(listener);
    Ok(())
}

struct Watch {
    listener: OwnedFd,
    memory: File,
    places: Vec<Place>,
    /// What was logged.
    seen: HashSet<String>,
}

impl Watch {
    fn run(mut self) {
        let mut path = vec![0_u8; LONGEST];
        loop {
            match self.next() {
                Ok(notice) => {
                    let path = self.path(&notice.data, &mut path);
                    self.let_go_on(&notice);
                    self.report(&notice.data, path);
                }
                // The thread that made the call has ended meanwhile, or a signal came.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
                Err(error) => {
                    return log::warn!("the sandbox does not log any more: {error}");
                }
            }
        }
    }

    /// Waits for the next call.
    fn next(&self) -> io::Result<libc::seccomp_notif> {
        // SAFETY: all fields may be zero; the kernel wants them so.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        self.control(RECEIVE, (&raw mut notice).cast())?;
        Ok(notice)
    }

    fn let_go_on(&self, notice: &libc::seccomp_notif) {
        let mut go_on = libc::seccomp_notif_resp {
            id: notice.id,
            val: 0,
            error: 0,
            flags: CONTINUE,
        };
        // An error means that the caller is gone.
        let _ = self.control(SEND, (&raw mut go_on).cast());
    }

    fn control(&self, request: c_ulong, argument: *mut libc::c_void) -> io::Result<()> {
        // SAFETY: each request is called with a pointer to its structure, which lives.
        match unsafe { libc::ioctl(self.listener.as_raw_fd(), request as _, argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The path among a call's arguments, if it has one. Allocates nothing.
    fn path<'p>(&self, call: &libc::seccomp_data, buffer: &'p mut [u8]) -> Option<&'p Path> {
        let place = path_place(call)?;
        read_path(&self.memory, argument(call, place), buffer)
    }

    /// Logs a call if the sandbox would refuse it.
    fn report(&mut self, call: &libc::seccomp_data, path: Option<&Path>) {
        if let Some(text) = self.text(call, path)
            && self.seen.len() < MOST
            && self.seen.insert(text.clone())
        {
            log::warn!("the sandbox would refuse {text}");
            if self.seen.len() == MOST {
                log::warn!("the sandbox would refuse more, which is not logged");
            }
        }
    }

    /// A line about a call; `None` if the sandbox would allow it.
    fn text(&self, call: &libc::seccomp_data, path: Option<&Path>) -> Option<String> {
        let number = c_long::from(call.nr);
        let name = calls::name(number).unwrap_or("a call");
        if let Some(place) = path_place(call) {
            let path = path?;
            let changes = !name.starts_with("open")
                || argument(call, place + 1) & u64::from(WRITES.cast_unsigned()) != 0;
            if self.allows(path, changes) {
                return None;
            }
            let what = if changes { "changes" } else { "reads" };
            return Some(format!("{name}: it {what} {}", path.display()));
        }
        let group = calls::group(number)?;
        let end = match group.answer {
            Answer::Fatal => "; it would end the process".to_owned(),
            Answer::RefuseIf(conditions, _) => {
                let arguments = conditions.iter().map(|one| argument(call, one.argument));
                let arguments: Vec<_> = arguments.map(|value| format!("{value:#x}")).collect();
                format!(" with {}", arguments.join(", "))
            }
            _ => String::new(),
        };
        Some(format!("{name} ({number}){end}; the rule: {}", group.why))
    }

    /// Whether the places allow this path.
    fn allows(&self, path: &Path, changes: bool) -> bool {
        // What does not exist is refused or not found, and neither is worth a line.
        let Ok(real) = path.canonicalize() else {
            let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
            return folder.is_none_or(|folder| !changes || self.allows(&folder, true));
        };
        self.places.iter().any(|place| {
            let fits = match place.purpose {
                Purpose::Read => !changes,
                Purpose::Write | Purpose::Device => true,
                // Only sockets are removed there, which looks like a change.
                Purpose::Sockets => changes,
            };
            let above = || {
                place
                    .path
                    .canonicalize()
                    .unwrap_or_else(|_| place.path.clone())
            };
            fits && real.starts_with(above())
        })
    }
}

/// Flags of `open` that change a file.
const WRITES: c_int = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;

/// Lets a call go on (`SECCOMP_USER_NOTIF_FLAG_CONTINUE`).
const CONTINUE: u32 = 1;

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND`: both read and write their structure.
const RECEIVE: c_ulong = request(0, size_of::<libc::seccomp_notif>());
const SEND: c_ulong = request(1, size_of::<libc::seccomp_notif_resp>());

const fn request(number: c_ulong, size: usize) -> c_ulong {
    3 << 30 | (size as c_ulong) << 16 | (b'!' as c_ulong) << 8 | number
}

/// An argument of a call.
fn argument(call: &libc::seccomp_data, place: u8) -> u64 {
    call.args.get(usize::from(place)).copied().unwrap_or(0)
}

/// The place of the path among a call's arguments, if it has one.
fn path_place(call: &libc::seccomp_data) -> Option<u8> {
    let number = c_long::from(call.nr);
    let mut by_path = BY_PATH.iter();
    let (_, place) = by_path.find(|((_, known), _)| *known == number)?;
    Some(*place)
}

/// The path at this address of the process's memory; `None` if it cannot be read. A name relative
/// to an open folder is none: it is in a place of that folder.
fn read_path<'p>(memory: &File, address: u64, buffer: &'p mut [u8]) -> Option<&'p Path> {
    let mut read = 0;
    // Reading by the file makes a wrong address an error and not a fault. A page at a time, because
    // the path may end at the end of memory.
    loop {
        let from = address.checked_add(read as u64)?;
        let to_end = usize::try_from(4096 - from % 4096).ok()?;
        let end = buffer.len().min(read + to_end);
        let part = buffer.get_mut(read..end).filter(|part| !part.is_empty())?;
        let got = memory.read_at(part, from).ok()?;
        let is_whole = part.get(..got)?.contains(&0);
        read += got;
        if is_whole || got == 0 {
            break;
        }
    }
    let path = CStr::from_bytes_until_nul(buffer.get(..read)?).ok()?;
    let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    path.is_absolute().then_some(path)
}
