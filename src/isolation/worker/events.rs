//! [`Events`]: sends what the context has done, from whichever thread has done it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;
use hesper_venus::{Blob, BlobError, ContextEvents, SharedMemory};

use super::super::message::{FromWorker, Piece, Refusal};
use super::line::Line;

/// The context's listener.
pub(super) struct Events {
    line: Arc<Line>,
    /// The rings of which the main process knows.
    rings: Mutex<HashSet<u64>>,
}

impl Events {
    pub(super) fn new(line: Arc<Line>) -> Self {
        Self {
            line,
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
            Ok(blob) => match blob.memory.fd() {
                Some(fd) => {
                    let memory = Piece {
                        offset: blob.memory.fd_offset(),
                        size: blob.memory.len() as u64,
                        caching: blob.caching,
                    };
                    let created = FromWorker::BlobCreated { resource, memory };
                    return self.line.tell(&created, &[fd]);
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
