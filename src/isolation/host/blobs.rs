//! Blobs: which ones a context has asked its worker for ([`Asked`]), and what must be true of the
//! answers ([`check`]).

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};

use hesper_system::budget::Charge;
use hesper_system::sync::Lock;
use hesper_venus::memory::page_size;
use hesper_venus::{Blob, BlobRequest, Lender};

use super::books::Books;
use super::untrusted;
use super::worker::Worker;
use crate::isolation::message::{Piece, ToWorker};

/// Tells a worker that this process has dropped a blob of it.
#[derive(Debug)]
pub(super) struct Loan {
    worker: Weak<Worker>,
    serial: u64,
}

impl Loan {
    /// The worker's blob of this number.
    pub(super) fn new(worker: &Arc<Worker>, serial: u64) -> Self {
        let worker = Arc::downgrade(worker);
        Self { worker, serial }
    }
}

impl Lender for Loan {
    fn returned(&self, is_given_away: bool) {
        // One that has ended needs no message.
        if let Some(worker) = self.worker.upgrade() {
            let serial = self.serial;
            let returned = ToWorker::Returned {
                serial,
                is_given_away,
            };
            worker.send(returned, Charge::default(), &[]);
        }
    }
}

/// The blobs that a worker was asked for and has not answered. The device limits how many there
/// are: each holds a descriptor of its queue.
#[derive(Debug, Default)]
pub(super) struct Asked {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    open: VecDeque<(u32, BlobRequest)>,
    is_closed: bool,
}

impl Asked {
    /// Notes a request. False when the context has ended: nobody will answer it.
    #[must_use]
    pub(super) fn push(&self, resource: u32, request: BlobRequest) -> bool {
        let mut inner = self.inner.locked();
        if !inner.is_closed {
            inner.open.push_back((resource, request));
        }
        !inner.is_closed
    }

    /// The oldest request for a resource.
    pub(super) fn get(&self, resource: u32) -> Option<BlobRequest> {
        let inner = self.inner.locked();
        let found = inner.open.iter().find(|(one, _)| *one == resource);
        found.map(|(_, request)| *request)
    }

    /// Takes the oldest request for a resource. Its caller answers it.
    pub(super) fn take(&self, resource: u32) -> Option<BlobRequest> {
        let mut inner = self.inner.locked();
        let place = inner.open.iter().position(|(one, _)| *one == resource)?;
        inner.open.remove(place).map(|(_, request)| request)
    }

    /// Takes the oldest request. When there is none, none can be pushed any more.
    pub(super) fn take_or_close(&self) -> Option<u32> {
        let mut inner = self.inner.locked();
        let next = inner.open.pop_front();
        inner.is_closed = next.is_none();
        next.map(|(resource, _)| resource)
    }
}

/// Why a blob of a worker is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The worker has broken this rule.
    Broken(String),
    /// There is too little of something.
    Short(&'static str),
}

/// Checks memory that a worker has made for `request`, charges it and maps it. The worker hears
/// when it is dropped, also if that is at once.
///
/// The whole file is charged, because the descriptor keeps all of it alive.
pub(super) fn check(
    request: &BlobRequest,
    piece: Piece,
    fd: OwnedFd,
    books: &Arc<Books>,
    loan: Loan,
) -> Result<Blob, Flaw> {
    let Piece {
        offset,
        size,
        caching,
    } = piece;
    if size < request.size || !size.is_multiple_of(page_size()) {
        let wanted = request.size;
        let what = format!("a blob of {size} bytes for a request of {wanted}");
        return Err(Flaw::Broken(what));
    }
    let whole = untrusted::file_size(&fd).map_err(Flaw::Broken)?;
    let short = |what| {
        loan.returned(false);
        Flaw::Short(what)
    };
    let held = books.hold(whole);
    let held = held.ok_or_else(|| short("shared memory, or descriptors, of the budget"))?;
    let memory = untrusted::map(fd, offset, size, Box::new(held)).map_err(Flaw::Broken)?;
    let mut memory = memory.ok_or_else(|| short("mappings of Hesper's main process"))?;
    memory.set_lender(Arc::new(loan));
    Ok(Blob {
        memory: Arc::new(memory),
        caching,
    })
}
