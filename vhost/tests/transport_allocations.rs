//! The transport allocates nothing for a command. This test has a process of its own, because it
//! counts every allocation of every other thread.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

#[path = "transport/served.rs"]
#[allow(dead_code, reason = "shared with the other tests of the transport")]
mod served;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use hesper_mock_frontend::Machine;
use hesper_vhost::testing::Request;
use served::{Parts, Served};

static ELSEWHERE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread is the test's own.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !OWN.get() {
            ELSEWHERE.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_moved_cursor_costs_no_allocation() {
    OWN.set(true);
    // QEMU's console takes part, with nobody connected.
    let served = Served::new(Parts {
        in_qemu: true,
        ..Parts::default()
    });
    let mut guest = Machine::boot(&served.path());
    let mut moved = || {
        let before = ELSEWHERE.load(Ordering::Relaxed);
        for place in 0..1000 {
            guest.offer(1, &Request::move_cursor(0, place, place), 64);
            guest.kick(1);
            guest.wait(1).unwrap();
        }
        ELSEWHERE.load(Ordering::Relaxed) - before
    };
    let counts: Vec<usize> = (0..10).map(|_| moved()).collect();
    assert!(ELSEWHERE.load(Ordering::Relaxed) > 0, "the counter counts");
    // A thread may begin late and allocate for itself. What a command costs is seen every time.
    assert!(counts.contains(&0), "{counts:?}");
}
