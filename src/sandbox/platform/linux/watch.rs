//! `--sandbox=log`: says what the sandbox would refuse, and allows it.
//!
//! One thread asks the kernel for each call in question and lets it go on; another logs it. The
//! places of files are checked here, because Landlock cannot only log. This is for finding out what
//! a driver needs; it protects nothing, and it is slow.
//!
//! The difficulty: the caller waits, and may hold the allocator's locks, as `fork` does. So the
//! thread that lets callers go on allocates nothing, and waits for nobody who might.

use std::collections::{HashSet, VecDeque};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use hesper_system::sync::{Lock, Wait};
use libc::{c_int, c_long, c_ulong};

use super::super::super::places::{Place, Purpose, Role};
use super::calls::{self, Answer, BY_PATH};
use super::filter::{FilterError, watch_process};

/// The most different lines. A driver that opens a thousand files is known by then.
const MOST: usize = 200;

/// The longest path.
const LONGEST: usize = libc::PATH_MAX.cast_unsigned() as usize;

/// How many calls wait to be logged.
const WAITING: usize = 64;

/// Watches all threads from now on.
///
/// # Errors
/// The kernel cannot report calls (Linux 5.7 can), or gives no thread.
pub(super) fn start(role: Role, places: Vec<Place>) -> Result<(), FilterError> {
    // The threads are there before the filter: no call that they make may wait for themselves.
    let (sender, listener) = std::sync::mpsc::channel::<OwnedFd>();
    // Not process_vm_readv(2), which would be reported, too.
    let memory = File::open("/proc/self/mem")?;
    let calls = Arc::new(Calls::new());
    let watched = Arc::clone(&calls);
    thread::Builder::new()
        .name("sandbox watch".to_owned())
        .spawn(move || {
            if let Ok(listener) = listener.recv() {
                let watch = Watch {
                    listener,
                    memory,
                    calls: watched,
                };
                watch.run();
            }
        })?;
    let report = Report {
        places,
        seen: HashSet::new(),
    };
    thread::Builder::new()
        .name("sandbox log".to_owned())
        .spawn(move || report.run(&calls))?;
    let listener = watch_process(role)?;
    // The thread waits for it.
    let _ = sender.send(listener);
    Ok(())
}

/// A call that has gone on.
struct Call {
    data: libc::seccomp_data,
    /// Its path and how long that is; 0 without one.
    path: [u8; LONGEST],
    length: usize,
}

/// Calls that wait to be logged. Putting one there allocates nothing.
struct Calls {
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    calls: VecDeque<Call>,
    /// Calls for which there was no room.
    missed: usize,
}

impl Calls {
    fn new() -> Self {
        let queue = Queue {
            calls: VecDeque::with_capacity(WAITING),
            missed: 0,
        };
        Self {
            queue: Mutex::new(queue),
            changed: Condvar::new(),
        }
    }

    fn put(&self, call: Call) {
        let mut queue = self.queue.locked();
        match queue.calls.len() < WAITING {
            true => queue.calls.push_back(call),
            false => queue.missed += 1,
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// The next call, and how many were missed before the last one that waits.
    fn take(&self) -> (Call, usize) {
        let mut queue = self.queue.locked();
        loop {
            if let Some(call) = queue.calls.pop_front() {
                return (call, std::mem::take(&mut queue.missed));
            }
            queue = self.changed.waited(queue);
        }
    }
}

/// Lets calls go on.
struct Watch {
    listener: OwnedFd,
    memory: File,
    calls: Arc<Calls>,
}

impl Watch {
    fn run(self) {
        loop {
            match self.next() {
                Ok(notice) => {
                    let call = self.call(notice.data);
                    self.let_go_on(&notice);
                    self.calls.put(call);
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

    /// The call with its path, if it has one.
    fn call(&self, data: libc::seccomp_data) -> Call {
        let mut path = [0; LONGEST];
        let place = path_place(&data);
        let read = place
            .and_then(|place| read_path(&self.memory, argument(&data, place), &mut path))
            .map(|path| path.as_os_str().len());
        Call {
            data,
            path,
            length: read.unwrap_or(0),
        }
    }
}

/// Logs calls.
struct Report {
    places: Vec<Place>,
    /// What was logged.
    seen: HashSet<String>,
}

impl Report {
    fn run(mut self, calls: &Calls) {
        loop {
            let (call, missed) = calls.take();
            if missed > 0 {
                log::warn!(
                    "{missed} calls that the sandbox might refuse came too fast to be looked at"
                );
            }
            let path = call.path.get(..call.length).filter(|path| !path.is_empty());
            let path = path.map(|path| Path::new(std::ffi::OsStr::from_bytes(path)));
            self.report(&call.data, path);
        }
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
