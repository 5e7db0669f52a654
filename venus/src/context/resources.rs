//! [`Resources`]: the resources that a context may name, and their memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hesper_system::sync::SharedLock;

use crate::blob::Blob;
use crate::fatal::Fatal;

/// A resource as it was attached. Attaching it again makes another of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    resource: u32,
    serial: u64,
}

/// The resources of a context, by the front end's ids.
#[derive(Default)]
pub(crate) struct Resources {
    known: RwLock<HashMap<u32, (u64, Blob)>>,
    /// Changes with every attach and detach.
    serial: AtomicU64,
}

impl Resources {
    /// Attaches a resource.
    pub(crate) fn attach(&self, resource: u32, blob: Blob) {
        let mut resources = self.known.writing();
        let serial = self.serial.fetch_add(1, Ordering::Release);
        resources.insert(resource, (serial, blob));
    }

    /// Releases the guest's own memory behind these resources.
    pub(crate) fn give_back(&self, is_meant: impl Fn(u32) -> bool) {
        let resources = self.known.reading();
        for (_, (_, blob)) in resources
            .iter()
            .filter(|(resource, _)| is_meant(**resource))
        {
            blob.memory.give_back();
        }
    }

    /// A number that changes when a resource is attached or detached.
    pub(crate) fn serial(&self) -> u64 {
        self.serial.load(Ordering::Acquire)
    }

    /// A resource as it is attached now.
    pub(crate) fn attachment(&self, resource: u32) -> Option<Attachment> {
        let resources = self.known.reading();
        resources.get(&resource).map(|(serial, _)| Attachment {
            resource,
            serial: *serial,
        })
    }

    /// Detaches a resource, unless it was attached again since.
    pub(crate) fn detach(&self, attachment: Attachment) {
        let mut resources = self.known.writing();
        if let Entry::Occupied(entry) = resources.entry(attachment.resource)
            && entry.get().0 == attachment.serial
        {
            self.serial.fetch_add(1, Ordering::Release);
            entry.remove();
        }
    }

    /// A resource that the guest names.
    pub(crate) fn get(&self, resource: u32) -> Result<Blob, Fatal> {
        let resources = self.known.reading();
        let found = resources.get(&resource).map(|(_, blob)| blob.clone());
        found.ok_or(Fatal::NoResource(resource))
    }

    /// Detaches everything.
    pub(crate) fn clear(&self) {
        self.known.writing().clear();
    }
}
