//! Linux: memfd.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::fs::{
    FallocateFlags, FileType, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals,
    fstat, fstatfs, ftruncate, memfd_create,
};
use rustix::io::{Errno, Result};
use rustix::thread::{Timespec, futex};

/// Wakes all threads that sleep on a word, of all processes.
pub(crate) fn wake_word(word: &AtomicU32) {
    // It fails for no word that is mapped.
    let _ = futex::wake(word, futex::Flags::empty(), i32::MAX.cast_unsigned());
}

/// Sleeps while the word has this value, for at most so long.
pub(crate) fn wait_on_word(word: &AtomicU32, value: u32, most: Option<Duration>) {
    // A time that does not fit is as good as none.
    let most = most.and_then(|most| Timespec::try_from(most).ok());
    // Ends early for a signal, which the caller expects.
    let _ = futex::wait(word, futex::Flags::empty(), value, most.as_ref());
}

/// Returns memory that the allocator keeps to the system. A driver frees much memory when its
/// devices are destroyed, in pieces that the allocator would keep forever. Takes about a
/// millisecond.
pub(crate) fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The shared library that has the code at this address. `None` if the system does not tell.
#[cfg(target_env = "gnu")]
pub(crate) fn library_of(code: *const std::ffi::c_void) -> Option<std::path::PathBuf> {
    use std::os::unix::ffi::OsStrExt;

    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the call accepts any address, and there is room for what it finds.
    let is_known = unsafe { libc::dladdr(code, found.as_mut_ptr()) } != 0;
    // SAFETY: all zeroes are a value, too, with null for the name.
    let name = unsafe { found.assume_init() }.dli_fname;
    if !is_known || name.is_null() {
        return None;
    }
    // SAFETY: the name belongs to a loaded library. It ends with NUL.
    let name = unsafe { std::ffi::CStr::from_ptr(name) };
    Some(std::ffi::OsStr::from_bytes(name.to_bytes()).into())
}

/// Only glibc is known to tell.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn library_of(_code: *const std::ffi::c_void) -> Option<std::path::PathBuf> {
    None
}

/// How many mappings a process may have.
pub(crate) fn mappings() -> usize {
    /// The kernel's own default, for a system that hides the setting.
    const DEFAULT: usize = 65_530;
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(DEFAULT)
}

/// How many mappings this process has. `None` if the system does not tell.
pub(crate) fn count_mappings() -> Option<usize> {
    use std::io::Read;
    let mut file = std::fs::File::open("/proc/self/maps").ok()?;
    let mut buffer = [0; 16 << 10];
    let mut lines = 0;
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(lines),
            n => lines += buffer.iter().take(n).filter(|byte| **byte == b'\n').count(),
        }
    }
}

/// The unused part of a stack stays: only glibc is known to tell where a stack begins.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn release_stack() {}

/// Returns the unused part of this thread's stack to the system. A driver's compiler touches much
/// of the stack, and a sleeping thread would keep it.
#[cfg(target_env = "gnu")]
pub(crate) fn release_stack() {
    /// What the calls below need at most.
    const MARGIN: usize = 16 << 10;
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are read and destroyed only if the first call has made them.
    let is_known = unsafe {
        libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 && {
            let got = libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut size);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            got == 0
        }
    };
    // Stacks grow down on all of Linux' processors that Hesper supports: the part in use is above
    // here.
    let here = (&raw const size).addr();
    let page = rustix::param::page_size();
    let end = here.saturating_sub(MARGIN) / page * page;
    let unused = end.saturating_sub(start.addr());
    if !is_known || unused == 0 || unused > size {
        return;
    }
    // SAFETY: these pages are this thread's stack below everything in use. Nobody reads them before
    // writing.
    unsafe { libc::madvise(start, unused, libc::MADV_DONTNEED) };
}

/// Fresh zeroed memory of `size` bytes, a multiple of the page size.
///
/// Nobody who gets the descriptor can shrink it: a shrunken file would kill this process with
/// SIGBUS.
pub(crate) fn create_shared_memory(size: u64) -> Result<OwnedFd> {
    let fd = memfd_create(
        "hesper-venus",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    ftruncate(&fd, size)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Gives the pages of a memfd back to the system. They are zero from then on.
pub(crate) fn forget(fd: BorrowedFd<'_>, size: u64) {
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // An error leaves the pages as they are, which costs memory only.
    let _ = fallocate(fd, how, 0, size);
}

/// The size of a memfd that is sealed against shrinking and growing. An error for any other file.
pub(crate) fn size_of_lasting(fd: BorrowedFd<'_>) -> Result<u64> {
    /// `TMPFS_MAGIC`: the file system of memfds. Those of huge pages lie elsewhere. They may run
    /// out of pages later, and cannot be unmapped by the page.
    const TMPFS: u64 = 0x0102_1994;
    let status = fstat(fd)?;
    let is_file = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
    let is_tmpfs = is_file && u64::try_from(fstatfs(fd)?.f_type) == Ok(TMPFS);
    if !is_tmpfs || !fcntl_get_seals(fd)?.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err(Errno::PERM);
    }
    u64::try_from(status.st_size).map_err(|_| Errno::INVAL)
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Touches this much of the stack and returns it to the system. Returns the place.
    #[inline(never)]
    fn touch() -> usize {
        let mut much = [0_u8; 1 << 20];
        std::hint::black_box(&mut much).fill(7);
        much.as_ptr().addr()
    }

    /// How many of these pages are in memory.
    fn resident(start: usize, pages: usize) -> usize {
        let page = rustix::param::page_size();
        let start = start.next_multiple_of(page);
        let mut states = vec![0_u8; pages];
        // SAFETY: the vector has a byte for each page.
        let asked = unsafe {
            libc::mincore(
                std::ptr::without_provenance_mut(start),
                pages * page,
                states.as_mut_ptr(),
            )
        };
        assert_eq!(asked, 0);
        states.iter().filter(|state| **state & 1 != 0).count()
    }

    #[test]
    fn a_stack_that_was_deep_is_given_back() {
        let thread = std::thread::Builder::new().stack_size(8 << 20);
        let thread = thread.spawn(|| {
            let (start, pages) = (touch(), 200);
            assert_eq!(resident(start, pages), pages);
            let kept: Vec<u32> = (0..1000).collect();
            release_stack();
            assert_eq!(resident(start, pages), 0);
            assert!(kept.iter().copied().eq(0..1000));
            // It can be as deep again.
            touch();
        });
        thread.unwrap().join().unwrap();
    }
}
