use super::*;
use std::sync::atomic::Ordering;

#[test]
fn two_mappings_of_one_memory_show_the_same_bytes() {
    let one = SharedMemory::create(100).unwrap();
    let two = SharedMemory::from_fd(one.shared_fd().unwrap(), 0, page_size()).unwrap();
    one.write(96, &[1, 2, 3, 4]).unwrap();
    let mut seen = [0; 4];
    two.read(96, &mut seen).unwrap();
    assert_eq!(seen, [1, 2, 3, 4]);
    two.word(96).unwrap().store(7, Ordering::Relaxed);
    assert_eq!(one.word(96).unwrap().load(Ordering::Relaxed), 7);
}

#[test]
fn sizes_are_whole_pages_and_bounds_hold() {
    let memory = SharedMemory::create(page_size() + 1).unwrap();
    let len = memory.len();
    assert_eq!(len as u64, 2 * page_size());
    assert!(memory.read(len - 3, &mut [0; 4]).is_none());
    assert!(memory.read(usize::MAX, &mut [0; 4]).is_none());
    assert!(memory.write(len, &[1]).is_none());
    assert!(memory.word(len - 2).is_none());
    assert!(memory.word(2).is_none());
    assert!(memory.append_to(len - 1, 2, &mut Vec::new()).is_none());
}

#[test]
fn memory_for_a_driver_lies_where_the_driver_can_import_it() {
    for alignment in [page_size(), 16 << 10, 64 << 10, 2 << 20] {
        for size in [1, alignment, 3 * page_size()] {
            let memory = SharedMemory::create_aligned(size, alignment).unwrap();
            assert!((memory.as_ptr().addr() as u64).is_multiple_of(alignment));
            memory.write(memory.len() - 1, &[7]).unwrap();
            let mut seen = [0];
            let second = memory.map_again().unwrap();
            second.read(memory.len() - 1, &mut seen).unwrap();
            assert_eq!(seen, [7]);
        }
    }
    let too_large = SharedMemory::create_aligned(1 << 60, 1 << 30);
    assert!(matches!(too_large, Err(Error::SharedMemory { .. })));
}

#[test]
fn a_file_smaller_than_the_mapping_is_refused() {
    let one = SharedMemory::create(1).unwrap();
    let two = SharedMemory::from_fd(one.shared_fd().unwrap(), page_size(), page_size());
    assert!(matches!(two, Err(Error::SharedMemory { .. })));
}

/// Tells whether it was dropped.
struct Tells(Arc<AtomicU32>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn memory_of_another_process_keeps_what_it_was_given() {
    let dropped = Arc::new(AtomicU32::new(0));
    let one = SharedMemory::create(2 * page_size()).unwrap();
    let map = |offset, size| {
        let held = Box::new(Tells(Arc::clone(&dropped)));
        SharedMemory::from_untrusted(one.shared_fd().unwrap(), offset, size, held)
    };
    let two = map(page_size(), page_size()).unwrap();
    one.write(page_size() as usize, &[7]).unwrap();
    let mut seen = [0];
    two.read(0, &mut seen).unwrap();
    assert_eq!(seen, [7]);
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    drop(two);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    for (offset, size) in [
        (0, 0),
        (0, 1),
        (1, page_size()),
        (0, 3 * page_size()),
        (2 * page_size(), page_size()),
        (u64::MAX - page_size() + 1, page_size()),
        (page_size(), u64::MAX - page_size() + 1),
    ] {
        let refused = map(offset, size);
        assert!(
            matches!(refused, Err(Error::Untrusted { .. })),
            "{offset} {size}"
        );
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 8);
}

#[test]
fn a_descriptor_that_is_no_memory_is_refused() {
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let null = std::fs::File::open("/dev/zero").unwrap();
    let folder = std::fs::File::open("/").unwrap();
    for fd in [pipe, socket.into(), null.into(), folder.into()] {
        let refused = SharedMemory::from_untrusted(Arc::new(fd), 0, page_size(), Box::new(()));
        assert!(matches!(refused, Err(Error::Untrusted { .. })));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_whose_size_could_change_is_refused() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    if hesper_system::played().is_some() {
        // Nothing on Linux has a size that can be set only once.
        return;
    }
    let try_it = |flags: MemfdFlags, seals: SealFlags| {
        let fd = memfd_create("test", flags | MemfdFlags::ALLOW_SEALING).ok()?;
        ftruncate(&fd, 4 << 20).ok()?;
        fcntl_add_seals(&fd, seals).unwrap();
        let fd = Arc::new(fd);
        Some(SharedMemory::from_untrusted(fd, 0, 4 << 20, Box::new(())))
    };
    let none = MemfdFlags::empty();
    let both = SealFlags::SHRINK | SealFlags::GROW;
    assert!(try_it(none, both).unwrap().is_ok());
    assert!(try_it(none, SealFlags::empty()).unwrap().is_err());
    assert!(try_it(none, SealFlags::GROW).unwrap().is_err());
    assert!(try_it(none, SealFlags::SHRINK).unwrap().is_err());
    // It cannot be written to.
    assert!(try_it(none, both | SealFlags::WRITE).unwrap().is_err());
    // A system may have no huge pages.
    if let Some(refused) = try_it(MemfdFlags::HUGETLB, both) {
        assert!(refused.is_err());
    }
    let file = std::env::current_exe().and_then(std::fs::File::open);
    let fd = Arc::new(file.unwrap().into());
    let refused = SharedMemory::from_untrusted(fd, 0, page_size(), Box::new(()));
    assert!(refused.is_err(), "a file of a disk");
}

#[cfg(target_os = "linux")]
#[test]
fn who_has_the_descriptor_cannot_shrink_the_memory() {
    let memory = SharedMemory::create(1).unwrap();
    assert_eq!(
        rustix::fs::ftruncate(memory.fd().unwrap(), 0),
        Err(rustix::io::Errno::PERM)
    );
}
