//! [`Resources`]: the resources that a context may name, and their memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use hesper_system::sync::SharedLock;

use crate::blob::{Blob, Caching};
use crate::fatal::Fatal;
use crate::memory::GuestMemory;

/// A resource as it was attached. Attaching it again makes another of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    resource: u32,
    serial: u64,
}

/// A resource.
struct Known {
    serial: u64,
    blob: Blob,
    /// Guest memory that is not given back yet.
    guest: Option<Arc<GuestMemory>>,
}

/// The resources of a context, by the front end's ids.
#[derive(Default)]
pub(crate) struct Resources {
    known: RwLock<HashMap<u32, Known>>,
    /// Changes with every attach and detach.
    serial: AtomicU64,
}

impl Resources {
    /// Attaches a resource.
    pub(crate) fn attach(&self, resource: u32, blob: Blob) {
        self.enter(resource, blob, None);
    }

    /// Attaches memory of the guest's own.
    pub(crate) fn attach_guest(&self, resource: u32, guest: Arc<GuestMemory>) {
        let blob = Blob {
            memory: Arc::clone(guest.memory()),
            caching: Caching::Cached,
        };
        self.enter(resource, blob, Some(guest));
    }

    fn enter(&self, resource: u32, blob: Blob, guest: Option<Arc<GuestMemory>>) {
        let mut resources = self.known.writing();
        let serial = self.serial.fetch_add(1, Ordering::Release);
        let known = Known {
            serial,
            blob,
            guest,
        };
        resources.insert(resource, known);
    }

    /// Lets go of the guest's own memory behind a resource. The guest has it back when no context
    /// has it attached any more.
    pub(crate) fn give_back(&self, resource: u32) {
        let mut resources = self.known.writing();
        if let Some(known) = resources.get_mut(&resource) {
            known.guest = None;
        }
    }

    /// The same for all resources.
    pub(crate) fn give_all_back(&self) {
        let mut resources = self.known.writing();
        resources.values_mut().for_each(|known| known.guest = None);
    }

    /// A number that changes when a resource is attached or detached.
    pub(crate) fn serial(&self) -> u64 {
        self.serial.load(Ordering::Acquire)
    }

    /// A resource as it is attached now.
    pub(crate) fn attachment(&self, resource: u32) -> Option<Attachment> {
        let resources = self.known.reading();
        resources.get(&resource).map(|known| Attachment {
            resource,
            serial: known.serial,
        })
    }

    /// Detaches a resource, unless it was attached again since.
    pub(crate) fn detach(&self, attachment: Attachment) {
        let mut resources = self.known.writing();
        if let Entry::Occupied(entry) = resources.entry(attachment.resource)
            && entry.get().serial == attachment.serial
        {
            self.serial.fetch_add(1, Ordering::Release);
            entry.remove();
        }
    }

    /// A resource that the guest names.
    pub(crate) fn get(&self, resource: u32) -> Result<Blob, Fatal> {
        let resources = self.known.reading();
        let found = resources.get(&resource).map(|known| known.blob.clone());
        found.ok_or(Fatal::NoResource(resource))
    }

    /// Detaches everything.
    pub(crate) fn clear(&self) {
        self.known.writing().clear();
    }
}
