//! [`Events`]: sends what the context has done, from whichever thread has done it. [`Lent`]: the
//! blobs that the main process has.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;
use hesper_venus::{Blob, BlobError, ContextEvents, SharedMemory};

use super::super::message::{FromWorker, Piece, Refusal};
use super::line::Line;

/// The memory of blobs that the main process has not returned, by the numbers that it was told.
/// While it is here, the renderer does not use it for another allocation.
#[derive(Default)]
pub(super) struct Lent(Mutex<OnLoan>);

#[derive(Default)]
struct OnLoan {
    memories: HashMap<u64, Arc<SharedMemory>>,
    last: u64,
}

impl Lent {
    /// Lends memory. Returns its number.
    fn lend(&self, memory: &Arc<SharedMemory>) -> u64 {
        let mut inner = self.0.locked();
        inner.last += 1;
        let serial = inner.last;
        inner.memories.insert(serial, Arc::clone(memory));
        serial
    }

    /// The main process uses it no longer. `is_given_away`: somebody else may.
    pub(super) fn returned(&self, serial: u64, is_given_away: bool) {
        let memory = self.0.locked().memories.remove(&serial);
        if let (true, Some(memory)) = (is_given_away, &memory) {
            memory.give_away();
        }
    }
}

/// The context's listener.
pub(super) struct Events {
    line: Arc<Line>,
    lent: Arc<Lent>,
    /// The rings of which the main process knows.
    rings: Mutex<HashSet<u64>>,
}

impl Events {
    pub(super) fn new(line: Arc<Line>, lent: Arc<Lent>) -> Self {
        Self {
            line,
            lent,
            rings: Mutex::default(),
        }
    }
}

impl ContextEvents for Events {
    fn fence_retired(&self, ring: u8, fence: u64) {
        self.line
            .tell(&FromWorker::FenceRetired { ring, fence }, &[]);
    }

    fn blob_created(&self, resource: u32, result: Result<Blob, BlobError>) {
        let refused = |kind, reason| FromWorker::BlobRefused {
            resource,
            kind,
            reason,
        };
        let refusal = match &result {
            Ok(blob) => match blob.memory.lent_fd() {
                Some(fd) => {
                    // Before the main process can return it.
                    let serial = self.lent.lend(&blob.memory);
                    let memory = Piece {
                        offset: blob.memory.fd_offset(),
                        size: blob.memory.len() as u64,
                        caching: blob.caching,
                    };
                    let created = FromWorker::BlobCreated {
                        resource,
                        serial,
                        memory,
                    };
                    return self.line.tell(&created, &[fd.as_fd()]);
                }
                // The renderer makes no such blob.
                None => refused(Refusal::Invalid, "its memory has no descriptor".to_owned()),
            },
            Err(BlobError::Invalid(reason)) => refused(Refusal::Invalid, reason.clone()),
            Err(BlobError::OutOfMemory(reason)) => refused(Refusal::OutOfMemory, reason.clone()),
            Err(BlobError::Lost(reason)) => refused(Refusal::Lost, reason.clone()),
        };
        self.line.tell(&refusal, &[]);
    }

    fn lost(&self, reason: &str) {
        self.line.tell(&FromWorker::Lost(reason.to_owned()), &[]);
    }

    fn ring_created(&self, ring: u64, memory: &Arc<SharedMemory>, status: usize) {
        // A ring in the guest's own memory has pages of several files. If this process crashes,
        // nobody tells that ring's reader.
        if let Some(fd) = memory.fd() {
            self.rings.locked().insert(ring);
            let status = memory.fd_offset() + status as u64;
            self.line
                .tell(&FromWorker::RingCreated { ring, status }, &[fd]);
        }
    }

    fn ring_destroyed(&self, ring: u64) {
        if self.rings.locked().remove(&ring) {
            self.line.tell(&FromWorker::RingDestroyed { ring }, &[]);
        }
    }
}
