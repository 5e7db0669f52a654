//! The commands of each frame allocate nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::Mutex;

use hesper_vhost::device::{Device, Outcome};
use hesper_vhost::screen::{
    CursorImage, FlushState, FlushToken, NoScreen, Picture, Rect, ScanoutId, ScanoutSink,
};
use hesper_vhost::testing::{Chain, DriverQueue, Guest, PAGE, Request, options};
use hesper_vhost::wire::FORMAT_B8G8R8X8;

/// Counts the allocations of this thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A screen that keeps the last token, without an allocation.
#[derive(Default)]
struct OneToken(Mutex<Option<FlushToken>>);

impl ScanoutSink for OneToken {
    fn set_scanout(&self, _: ScanoutId, _: Option<&Picture>) {}
    fn flush(&self, _: ScanoutId, _: Rect, done: Option<FlushToken>) -> FlushState {
        *self.0.lock().unwrap() = done;
        done.map_or(FlushState::Done, |_| FlushState::Pending)
    }
    fn set_cursor(&self, _: ScanoutId, _: Option<&CursorImage>, _: u32, _: u32) {}
    fn move_cursor(&self, _: ScanoutId, _: u32, _: u32) {}
}

/// Allocations of the device for each of `rounds` runs of a request, and the last outcome.
fn allocations(
    guest: &Guest,
    request: &Request,
    rounds: usize,
    mut handle: impl FnMut(
        &Device,
        virtio_queue::DescriptorChain<&vm_memory::GuestMemoryMmap>,
    ) -> Outcome,
) -> Vec<usize> {
    let memory = guest.memory.clone();
    let mut queue = DriverQueue::new(&memory, 0x20000, 112 << 20, 1 << 20);
    (0..rounds)
        .map(|_| {
            let chain = Chain {
                cuts: vec![24],
                ..Chain::of(request)
            };
            let (chain, _) = queue.post(&memory, &chain);
            let head = chain.head_index();
            let before = ALLOCATIONS.get();
            let _outcome = handle(&guest.device, chain);
            let used = ALLOCATIONS.get() - before;
            queue.free(head);
            used
        })
        .collect()
}

const ALL: Rect = Rect {
    x: 0,
    y: 0,
    width: 640,
    height: 480,
};

/// A guest with a scattered 2D resource 1 on scanout 0 and a scattered guest blob 2 on scanout 1.
fn guest(screen: Arc<dyn ScanoutSink>) -> Guest {
    let mut guest = Guest::with(options(), screen, Vec::new());
    let bytes = 640 * 480 * 4;
    let pages = bytes / PAGE;
    let start = guest.pages(2 * bytes);
    let entries: Vec<(u64, u32)> = (0..pages)
        .map(|page| (start + page * 2 * PAGE, PAGE as u32))
        .collect();
    guest.ok(&Request::create_2d(1, FORMAT_B8G8R8X8, 640, 480));
    guest.ok(&Request::attach_backing(1, &entries));
    guest.ok(&Request::set_scanout(0, 1, ALL));
    guest.ok(&Request::guest_blob(2, bytes, &entries));
    guest.ok(&Request::set_scanout_blob(1, 2, FORMAT_B8G8R8X8, 640, 480));
    guest
}

#[test]
fn transfers_flushes_and_cursor_moves_take_no_heap() {
    let guest = guest(Arc::new(NoScreen));
    let memory = guest.memory.clone();
    let part = Rect {
        x: 5,
        y: 6,
        width: 100,
        height: 100,
    };
    for request in [
        Request::transfer(1, ALL, 0),
        Request::transfer(1, part, 0).fence(4),
        Request::flush(1, ALL),
        Request::flush(2, part),
        Request::flush(2, part).fence(4),
    ] {
        let used = allocations(&guest, &request, 100, |device, chain| {
            device.control(&memory, chain)
        });
        assert!(
            used[1..].iter().all(|count| *count == 0),
            "{request:?}: {used:?}"
        );
    }
    let used = allocations(
        &guest,
        &Request::move_cursor(0, 3, 4),
        100,
        |device, chain| device.cursor(&memory, chain),
    );
    assert_eq!(used, [0; 100]);
}

/// A transport that keeps nothing.
struct Nowhere;

impl hesper_vhost::device::Transport for Nowhere {
    fn complete(
        &self,
        _: hesper_vhost::device::Queue,
        _: u16,
        _: hesper_vhost::device::Taken,
        _: u32,
    ) {
    }
    fn config_changed(&self) {}
    fn map(&self, _: u64, _: std::os::fd::BorrowedFd<'_>, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn unmap(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_flush_that_the_screen_holds_takes_no_heap_either() {
    let screen = Arc::new(OneToken::default());
    let mut guest = guest(Arc::clone(&screen) as _);
    let device = Device::new(options(), Arc::clone(&screen) as _, Vec::new());
    device.set_transport(Arc::new(Nowhere));
    device.set_memory(vm_memory::GuestMemoryAtomic::new(guest.memory.clone()));
    guest.device = Arc::new(device);
    let address = guest.image(1, FORMAT_B8G8R8X8, 640, 480);
    assert_ne!(address, 0);
    guest.ok(&Request::set_scanout(0, 1, ALL));
    let memory = guest.memory.clone();
    let used = allocations(
        &guest,
        &Request::flush(1, ALL).fence(9),
        100,
        |device, chain| {
            let outcome = device.control(&memory, chain);
            assert_eq!(outcome, Outcome::Held);
            let token = screen.0.lock().unwrap().take().expect("a token");
            device.flush_done(token);
            outcome
        },
    );
    assert!(used[1..].iter().all(|count| *count == 0), "{used:?}");
}
