//! Making the pages of memory before a driver imports it.
//!
//! A GPU's driver makes and pins all pages when it imports memory, one after the other, on one
//! thread. Most of that time is clearing them. Several threads clear faster. So large memory gets
//! its pages before. This takes no page that the import would not take.

use std::num::NonZero;
use std::thread;

use super::SharedMemory;

/// Smaller memory is not worth the start of threads.
const LEAST: usize = 4 << 20;

/// What one thread makes at least. A multiple of every page.
const PIECE: usize = 2 << 20;

/// How many threads make pages at most. Four took 14 ms for 64 MiB on a machine with 16 processors
/// where one took 25. Eight took 15 and sixteen 19: they wait for each other.
const MOST_THREADS: usize = 4;

/// Makes the pages of the first `bytes` bytes, if that is faster than what the driver does. Does
/// nothing when the system cannot. Errors are left to the import.
pub(crate) fn make_pages(memory: &SharedMemory, bytes: u64) {
    let bytes = usize::try_from(bytes).map_or(memory.len(), |bytes| bytes.min(memory.len()));
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = processors.min(MOST_THREADS).min(bytes / PIECE);
    if bytes < LEAST || threads < 2 {
        return;
    }
    let each = (bytes / threads).next_multiple_of(PIECE);
    thread::scope(|scope| {
        for begin in (0..bytes).step_by(each).skip(1) {
            let make = move || memory.make_pages(begin, each.min(bytes - begin));
            let builder = thread::Builder::new().name("venus-pages".to_owned());
            // Without another thread, the driver makes these pages.
            let _ = builder.stack_size(64 << 10).spawn_scoped(scope, make);
        }
        memory.make_pages(0, each.min(bytes))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_made_are_zero_and_keep_what_is_written() {
        for bytes in [
            0,
            4096,
            LEAST as u64 - 4096,
            LEAST as u64,
            37 << 20,
            u64::MAX,
        ] {
            let memory = SharedMemory::create(37 << 20).unwrap();
            let last = memory.len() - 1;
            memory.write(last, &[7]).unwrap();
            make_pages(&memory, bytes);
            let mut seen = [9; 2];
            memory.read(last - 1, &mut seen).unwrap();
            assert_eq!(seen, [0, 7], "{bytes}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn all_pages_are_there_afterwards_and_none_behind() {
        use std::os::unix::fs::MetadataExt as _;

        if thread::available_parallelism().is_ok_and(|count| count.get() == 1)
            || hesper_system::played().is_some()
        {
            return;
        }
        let memory = SharedMemory::create(64 << 20).unwrap();
        let blocks = || {
            let file = std::fs::File::from(memory.fd().unwrap().try_clone_to_owned().unwrap());
            file.metadata().unwrap().blocks() * 512
        };
        assert_eq!(blocks(), 0);
        make_pages(&memory, 21 << 20);
        assert_eq!(blocks(), 21 << 20);
    }
}
