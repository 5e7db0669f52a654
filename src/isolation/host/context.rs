//! [`IsolatedContext`]: a context that lives in a worker. Its calls are messages.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use hesper_system::budget::Charge;
use hesper_system::sync::Lock;
use hesper_venus::trace::Lane;
use hesper_venus::{Blob, BlobError, BlobRequest, ContextEvents, Error, GuestPages};

use super::worker::Worker;
use crate::contexts::VenusContext;
use crate::isolation::message::{MOST_FILES, Piece, Run, ToWorker};

/// A context in a worker.
pub(super) struct IsolatedContext {
    worker: Arc<Worker>,
    events: Arc<dyn ContextEvents>,
    lane: Lane,
    /// The resources that may be guest memory.
    guest: Mutex<HashSet<u32>>,
}

impl IsolatedContext {
    /// `lane` records its fences.
    pub(super) fn new(worker: Arc<Worker>, events: Arc<dyn ContextEvents>, lane: Lane) -> Self {
        Self {
            worker,
            events,
            lane,
            guest: Mutex::default(),
        }
    }

    fn send(&self, message: ToWorker) {
        self.worker.send(message, Charge::default(), &[]);
    }
}

impl VenusContext for IsolatedContext {
    fn submit(&self, commands: Vec<u8>, charge: Charge) {
        // Wakes the ring's thread at once. A message would wake another thread there, which would
        // wake the ring's.
        if self.worker.bells.notify(&commands, self.lane.begin()) {
            self.worker.report.count_wake();
            return;
        }
        self.worker.send(ToWorker::Submit(commands), charge, &[]);
    }

    fn fence(&self, ring: u8, fence: u64) {
        // Noted before: the worker may retire it at once.
        match self.worker.fences.push(ring, fence, self.lane.begin()) {
            true => self.send(ToWorker::Fence { ring, fence }),
            false => self.events.fence_retired(ring, fence),
        }
    }

    fn create_blob(&self, resource: u32, request: BlobRequest) {
        if self.worker.asked.push(resource, request) {
            self.send(ToWorker::CreateBlob { resource, request });
            return;
        }
        let reason = self.worker.state().lost_because.clone();
        let reason = reason.map_or_else(String::new, |reason| reason.as_ref().to_owned());
        self.events
            .blob_created(resource, Err(BlobError::Lost(reason)));
    }

    fn attach_resource(&self, resource: u32, blob: &Blob) {
        let memory = &blob.memory;
        let Some(fd) = memory.fd() else {
            // Guest memory is attached by its pages.
            log::debug!("resource {resource} cannot be attached: its memory has no descriptor");
            return;
        };
        let piece = Piece {
            offset: memory.fd_offset(),
            // It is mapped, so its size fits into 64 bits.
            size: memory.len() as u64,
            caching: blob.caching,
        };
        let attach = ToWorker::Attach {
            resource,
            memory: piece,
        };
        self.worker.send(attach, Charge::default(), &[fd]);
    }

    fn attach_guest_memory(&self, resource: u32, pages: &[GuestPages]) -> Result<(), Error> {
        let mut files: Vec<&Arc<File>> = Vec::new();
        let mut runs = Vec::with_capacity(pages.len());
        for GuestPages { file, offset, size } in pages {
            let known = files.iter().position(|one| Arc::ptr_eq(one, file));
            let place = known.unwrap_or(files.len());
            if known.is_none() {
                files.push(file);
            }
            if files.len() > MOST_FILES {
                return Err(Error::SharedMemory {
                    action: "attachment of guest memory from more than 16 files",
                    size: *size,
                    source: std::io::ErrorKind::Unsupported.into(),
                });
            }
            runs.push(Run {
                // There are few files.
                file: place as u32,
                offset: *offset,
                size: *size,
            });
        }
        self.guest.locked().insert(resource);
        let fds: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        let attach = ToWorker::AttachGuest { resource, runs };
        self.worker.send(attach, Charge::default(), &fds);
        Ok(())
    }

    fn detach_resource(&self, resource: u32) {
        let is_guest = self.guest.locked().remove(&resource);
        match is_guest {
            // The guest uses its pages for something else as soon as this returns.
            true => self
                .worker
                .ask(|ticket| ToWorker::Detach { resource, ticket }),
            false => self.send(ToWorker::Detach {
                resource,
                ticket: 0,
            }),
        }
    }
}

impl Drop for IsolatedContext {
    fn drop(&mut self) {
        // Ending the context takes time, and the guest may need its memory before.
        if !self.guest.locked().is_empty() {
            self.worker.ask(|ticket| ToWorker::GiveBack { ticket });
        }
        self.worker.end();
    }
}
