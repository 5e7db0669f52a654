//! Memory that a VM monitor shares and can take away: mappings of its files.
//!
//! A process that touches a page behind the end of its file gets SIGBUS and ends. A VM monitor can
//! shrink the file of its guest's memory at any time, so every mapping of such a file is
//! [registered](register) here. A fault in a registered range puts zero pages in the place of the
//! whole range, and breaks the connection of the monitor ([`Owner`]): it is shut down, and whoever
//! serves it finds [`Owner::is_broken`]. Every other SIGBUS goes where it went before.
//!
//! The registry is read in a signal handler, so reading takes no lock and allocates nothing. Its
//! slots are never freed. A slot is emptied before its range is unmapped, and is used again only
//! when no handler can still see what was in it.

use std::fs::Metadata;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::fault;
use crate::sync::Lock;

/// The connection whose monitor shares memory.
#[derive(Debug)]
pub struct Owner {
    is_broken: AtomicBool,
    connection: UnixStream,
}

impl Owner {
    /// The owner at the other end of `connection`, which is shut down when memory is gone.
    ///
    /// # Errors
    /// There is no descriptor left for a copy.
    pub fn new(connection: &UnixStream) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            is_broken: AtomicBool::new(false),
            connection: connection.try_clone()?,
        }))
    }

    /// Whether memory that it shares was gone when it was used.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    /// Called in a signal handler: shutting down a socket is allowed there.
    fn shut_down(&self) {
        self.is_broken.store(true, Ordering::Release);
        // Fails only when the other end has gone, which is as good.
        let _ = self.connection.shutdown(Shutdown::Both);
    }
}

/// Which file a range is of. All ranges of one file belong to the same monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file with this metadata. POSIX shared memory of macOS has no number: all of it counts as
    /// one.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A registered range; removed on drop, which must come before the range is unmapped.
#[derive(Debug)]
pub struct Registered {
    slot: &'static Slot,
    _owner: Option<Arc<Owner>>,
}

/// A range, when `end` is not 0.
#[derive(Debug)]
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    device: AtomicU64,
    inode: AtomicU64,
    owner: AtomicPtr<Owner>,
}

impl Slot {
    const fn empty() -> Self {
        Self {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            owner: AtomicPtr::new(null_mut()),
        }
    }

    fn has(&self, address: usize) -> bool {
        // The end is written last and emptied first.
        address < self.end.load(Ordering::SeqCst) && address >= self.start.load(Ordering::SeqCst)
    }

    fn is_of_the_file_of(&self, other: &Self) -> bool {
        let same = |one: &AtomicU64, other: &AtomicU64| {
            one.load(Ordering::SeqCst) == other.load(Ordering::SeqCst)
        };
        same(&self.device, &other.device) && same(&self.inode, &other.inode)
    }
}

/// Slots, and where there are more.
struct Chunk {
    slots: [Slot; 64],
    next: AtomicPtr<Chunk>,
}

impl Chunk {
    const fn empty() -> Self {
        Self {
            slots: [const { Slot::empty() }; 64],
            next: AtomicPtr::new(null_mut()),
        }
    }

    fn next(&self) -> Option<&'static Self> {
        // SAFETY: null, or a chunk that was leaked, so that it lives for ever.
        unsafe { self.next.load(Ordering::SeqCst).as_ref() }
    }
}

static FIRST: Chunk = Chunk::empty();
/// Held by who registers or removes. Not by the handler.
static WRITER: Mutex<()> = Mutex::new(());
/// How many handlers read the registry now.
static READERS: AtomicUsize = AtomicUsize::new(0);

fn slots() -> impl Iterator<Item = &'static Slot> {
    std::iter::successors(Some(&FIRST), |chunk| chunk.next()).flat_map(|chunk| &chunk.slots)
}

/// Registers `length` bytes at `start`, a mapping of the file `file`, until the returned value is
/// dropped. `owner` shares it. Without an owner, a fault breaks all owners who share that file.
pub fn register(
    start: *const u8,
    length: usize,
    file: FileId,
    owner: Option<&Arc<Owner>>,
) -> Registered {
    fault::catch();
    let _writing = WRITER.locked();
    let slot = free_slot();
    let pointer = owner.map_or(null_mut(), |owner| Arc::as_ptr(owner).cast_mut());
    slot.owner.store(pointer, Ordering::SeqCst);
    slot.device.store(file.device, Ordering::SeqCst);
    slot.inode.store(file.inode, Ordering::SeqCst);
    slot.start.store(start.addr(), Ordering::SeqCst);
    slot.end
        .store(start.addr().saturating_add(length), Ordering::SeqCst);
    Registered {
        slot,
        _owner: owner.cloned(),
    }
}

/// A slot without a range. The caller holds [`WRITER`].
fn free_slot() -> &'static Slot {
    let is_free = |slot: &&Slot| slot.end.load(Ordering::SeqCst) == 0;
    if let Some(slot) = slots().find(is_free) {
        return slot;
    }
    let chunk: &'static Chunk = Box::leak(Box::new(Chunk::empty()));
    let last = std::iter::successors(Some(&FIRST), |chunk| chunk.next()).last();
    if let Some(last) = last {
        let pointer = std::ptr::from_ref(chunk).cast_mut();
        last.next.store(pointer, Ordering::SeqCst);
    }
    let [slot, ..] = &chunk.slots;
    slot
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _writing = WRITER.locked();
        self.slot.end.store(0, Ordering::SeqCst);
        // A handler that saw the range may still use its owner.
        while READERS.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        self.slot.owner.store(null_mut(), Ordering::SeqCst);
        self.slot.start.store(0, Ordering::SeqCst);
    }
}

/// Puts zero pages in the place of the range around `address`, and breaks its owner. Returns false
/// when no range is there. Called in a signal handler.
pub(crate) fn take_fault(address: usize) -> bool {
    READERS.fetch_add(1, Ordering::SeqCst);
    let is_taken = match slots().find(|slot| slot.has(address)) {
        Some(slot) => replace(slot),
        None => false,
    };
    READERS.fetch_sub(1, Ordering::SeqCst);
    is_taken
}

fn replace(slot: &Slot) -> bool {
    let start = slot.start.load(Ordering::SeqCst);
    let length = slot.end.load(Ordering::SeqCst).saturating_sub(start);
    if !fault::put_zeros(start, length) {
        return false;
    }
    let owner = |slot: &Slot| {
        // SAFETY: the registration keeps the owner alive, and its removal waits for this reader.
        unsafe { slot.owner.load(Ordering::SeqCst).as_ref() }
    };
    match owner(slot) {
        Some(owner) => owner.shut_down(),
        None => slots()
            .filter(|other| other.end.load(Ordering::SeqCst) != 0 && other.is_of_the_file_of(slot))
            .filter_map(owner)
            .for_each(Owner::shut_down),
    }
    true
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    use super::*;

    const SIZE: usize = 1 << 16;

    /// A file, and a mapping of it.
    struct Mapped {
        file: File,
        start: *mut u8,
    }

    impl Mapped {
        fn new() -> Self {
            let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
            file.set_len(SIZE as u64).unwrap();
            Self::again(&file)
        }

        fn again(file: &File) -> Self {
            let both = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping at an address of the kernel's choice.
            let start = unsafe { mmap(null_mut(), SIZE, both, MapFlags::SHARED, file, 0) };
            Self {
                file: file.try_clone().unwrap(),
                start: start.unwrap().cast(),
            }
        }

        fn register(&self, owner: Option<&Arc<Owner>>) -> Registered {
            let id = FileId::of(&self.file.metadata().unwrap());
            register(self.start, SIZE, id, owner)
        }

        fn byte(&self, at: usize) -> u8 {
            assert!(at < SIZE);
            // SAFETY: inside the mapping; a page that is gone is what the handler is for.
            unsafe { self.start.add(at).read_volatile() }
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: mapped above, and used by nobody else.
            unsafe { munmap(self.start.cast(), SIZE) }.unwrap();
        }
    }

    fn owner() -> (Arc<Owner>, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Owner::new(&near).unwrap(), far)
    }

    #[test]
    fn memory_that_is_gone_reads_as_zeros_and_ends_its_owners_connection_alone() {
        let (ours, mut our_end) = owner();
        let (other, _other_end) = owner();
        let (memory, others) = (Mapped::new(), Mapped::new());
        let registered = memory.register(Some(&ours));
        let _others = others.register(Some(&other));
        // SAFETY: inside the mapping.
        unsafe { memory.start.write_volatile(7) };
        assert!((memory.byte(0), ours.is_broken()) == (7, false));
        ftruncate(&memory.file, 0).unwrap();
        assert_eq!(memory.byte(SIZE - 1), 0);
        assert!(ours.is_broken());
        assert_eq!(
            our_end.read(&mut [0]).unwrap(),
            0,
            "the socket is shut down"
        );
        assert!(!other.is_broken());
        drop(registered);
    }

    #[test]
    fn a_second_mapping_without_an_owner_breaks_those_who_share_the_file() {
        let ((ours, _our_end), (other, _other_end)) = (owner(), owner());
        let (memory, others) = (Mapped::new(), Mapped::new());
        let second = Mapped::again(&memory.file);
        let _registered = memory.register(Some(&ours));
        let _second = second.register(None);
        let _others = others.register(Some(&other));
        ftruncate(&memory.file, 0).unwrap();
        assert_eq!(second.byte(4096), 0);
        assert!(ours.is_broken() && !other.is_broken());
    }

    #[test]
    fn slots_are_used_again_and_there_is_always_one_more() {
        let memory = Mapped::new();
        let many: Vec<_> = (0..300).map(|_| memory.register(None)).collect();
        drop(many);
        let many: Vec<_> = (0..300).map(|_| memory.register(None)).collect();
        assert!(slots().count() < 600);
        drop(many);
    }

    /// Threads that register and remove while others fault.
    #[test]
    fn faults_and_changes_of_the_registry_go_together() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let (ours, _end) = owner();
                        let memory = Mapped::new();
                        let _registered = memory.register(Some(&ours));
                        ftruncate(&memory.file, 0).unwrap();
                        assert_eq!(memory.byte(1), 0);
                        assert!(ours.is_broken());
                    }
                });
            }
        });
    }

    const CHILD: &str = "HESPER_TEST_FAULTS";

    /// A SIGBUS elsewhere ends the process as ever. A child process tries it.
    #[test]
    fn every_other_bus_error_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            let registered = Mapped::new();
            let _registered = registered.register(None);
            let memory = Mapped::new();
            ftruncate(&memory.file, 0).unwrap();
            let _ = memory.byte(0);
            unreachable!("the fault was taken");
        }
        let name = "guest_memory::tests::every_other_bus_error_ends_the_process";
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(libc::SIGBUS));
    }
}
