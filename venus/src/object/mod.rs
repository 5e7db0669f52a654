//! The guest's objects: the table that finds them, and a file for each kind that needs more than
//! its handle.
//!
//! Every object belongs to an owner: physical devices to an instance, everything else to a device.
//! The table holds each object's handle and owner. What else is known is in [`instance::Instance`]
//! and [`device::Device`], which destroy what is left when they are destroyed.

pub(crate) mod cache_seal;
pub(crate) mod declarable;
mod departed;
pub(crate) mod device;
pub(crate) mod facts;
pub(crate) mod failed_ids;
pub(crate) mod freed_memory;
pub(crate) mod host_copy;
pub(crate) mod instance;
pub(crate) mod mirrors;
pub(crate) mod physical_device;
pub(crate) mod pools;
pub(crate) mod queue;
pub(crate) mod raw_device;
pub(crate) mod reclamation;
pub(crate) mod shader_groups;
pub(crate) mod shared_objects;
pub(crate) mod sync_files;
pub(crate) mod table;
pub(crate) mod teardown;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, RwLock};

use hesper_system::share::Share;
use hesper_system::sync::SharedLock;
use hesper_venus_protocol::runtime::{Handle, OWNERS, Object};

use crate::counters::{SharedTally, add, sub};
use crate::fatal::Fatal;
use device::Device;
use failed_ids::FailedIds;
use instance::Instance;
use reclamation::Reclamation;
use table::{Entry, Refused, Table};

/// What objects belong to.
#[derive(Clone)]
pub(crate) enum Domain {
    /// Physical devices.
    Instance(Arc<Instance>),
    /// Everything that a device makes.
    Device(Arc<Device>),
}

impl Domain {
    /// Set when it is removed. No object is entered after that.
    fn is_gone(&self) -> &AtomicBool {
        match self {
            Self::Instance(instance) => &instance.is_gone,
            Self::Device(device) => &device.is_gone,
        }
    }
}

/// All objects of a context.
pub(crate) struct Objects {
    /// Ids to handles.
    pub(crate) table: Table,
    /// Ids of objects that were never made.
    pub(crate) failed: FailedIds,
    /// Objects that are taken out and not yet destroyed.
    pub(crate) reclamation: Reclamation,
    domains: RwLock<HashMap<u32, Domain>>,
    last_owner: AtomicU32,
    tally: SharedTally,
}

impl Objects {
    /// An empty set for at most `limit` objects, with places of a share of the guest's. `tally`
    /// counts those that live.
    pub(crate) fn new(limit: usize, places: &Arc<Share>, tally: SharedTally) -> Self {
        Self {
            table: Table::within(limit, places),
            failed: FailedIds::default(),
            reclamation: Reclamation::default(),
            tally,
            domains: RwLock::default(),
            last_owner: AtomicU32::new(0),
        }
    }

    /// A new ordinal for a [`Domain`]. In its life, a context can have as many as the table has
    /// room for.
    pub(crate) fn new_owner(&self) -> Result<u32, Fatal> {
        let next = |last: u32| last.checked_add(1).filter(|owner| *owner < OWNERS);
        let last = self
            .last_owner
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        last.map(|last| last + 1).map_err(|_| Fatal::TooManyObjects)
    }

    /// Makes a domain known, and enters its own object.
    pub(crate) fn insert_domain<H: Handle>(
        &self,
        owner: u32,
        id: u64,
        handle: H,
        domain: Domain,
    ) -> Result<(), Fatal> {
        // Insert the domain first: whoever finds the object must find its domain.
        self.domains.writing().insert(owner, domain.clone());
        let inserted = self.insert(owner, id, handle, domain.is_gone());
        if inserted.is_err() {
            self.domains.writing().remove(&owner);
        }
        inserted
    }

    /// The domain with this ordinal.
    fn domain(&self, owner: u32) -> Option<Domain> {
        self.domains.reading().get(&owner).cloned()
    }

    /// The device with this ordinal.
    pub(crate) fn device(&self, owner: u32) -> Option<Arc<Device>> {
        match self.domain(owner)? {
            Domain::Device(device) => Some(device),
            Domain::Instance(_) => None,
        }
    }

    /// The instance with this ordinal.
    pub(crate) fn instance(&self, owner: u32) -> Option<Arc<Instance>> {
        match self.domain(owner)? {
            Domain::Instance(instance) => Some(instance),
            Domain::Device(_) => None,
        }
    }

    /// All devices.
    pub(crate) fn devices(&self) -> Vec<Arc<Device>> {
        let domains = self.domains.reading();
        let devices = domains.values().filter_map(|domain| match domain {
            Domain::Device(device) => Some(Arc::clone(device)),
            Domain::Instance(_) => None,
        });
        devices.collect()
    }

    /// Removes a device and everything it owns. It is destroyed as soon as no thread uses it.
    pub(crate) fn remove_device(&self, owner: u32) {
        if let Some(device) = self.hide_device(owner) {
            self.retire_hidden(&device);
        }
    }

    /// The first step of removing a device: nobody finds it any more. Its objects are still there.
    pub(crate) fn hide_device(&self, owner: u32) -> Option<Arc<Device>> {
        match self.domains.writing().remove(&owner)? {
            Domain::Device(device) => Some(device),
            Domain::Instance(_) => None,
        }
    }

    /// The second step: the device takes over what it owns.
    pub(crate) fn retire_hidden(&self, device: &Device) {
        device.is_gone.store(true, Ordering::Release);
        device.retire(self.remove_owned(device.owner));
    }

    /// Removes an instance, its physical devices and devices.
    pub(crate) fn remove_instance(&self, owner: u32) {
        for device in self.devices() {
            if device.instance().owner == owner {
                self.remove_device(device.owner);
            }
        }
        let domain = self.domains.writing().remove(&owner);
        if let Some(domain) = domain {
            domain.is_gone().store(true, Ordering::Release);
        }
        self.remove_owned(owner);
    }

    /// Forgets and destroys everything.
    pub(crate) fn clear(&self) {
        for device in self.devices() {
            self.remove_device(device.owner);
        }
        let instances: Vec<u32> = self.domains.reading().keys().copied().collect();
        for owner in instances {
            self.remove_instance(owner);
        }
    }

    fn remove_owned(&self, owner: u32) -> Vec<(u64, Entry)> {
        let (removed, live) = self.table.remove_owned(owner);
        sub(&self.tally.objects, live as u64);
        removed
    }

    /// Enters an object, unless its owner `is_gone`. Other threads may use it before this returns,
    /// so everything else about it must be known.
    #[inline]
    pub(crate) fn insert<H: Handle>(
        &self,
        owner: u32,
        id: u64,
        handle: H,
        is_gone: &AtomicBool,
    ) -> Result<(), Fatal> {
        let entry = Entry {
            host: handle.raw(),
            kind: H::TYPE as u32,
            owner,
        };
        self.table
            .insert(id, entry, is_gone)
            .map_err(|refused| match refused {
                Refused::IdTaken => Fatal::IdTaken(id),
                Refused::TooMany => Fatal::TooManyObjects,
                Refused::NoOwner => Fatal::OwnerGone(id),
            })?;
        add(&self.tally.objects, 1);
        Ok(())
    }

    /// The guest's id of an object of `owner`, by a slow search.
    pub(crate) fn id_of<H: Handle>(&self, owner: u32, handle: H) -> Option<u64> {
        self.table.id_of(Entry {
            host: handle.raw(),
            kind: H::TYPE as u32,
            owner,
        })
    }

    /// Takes exactly this object out. False when another thread was faster. Only the caller that
    /// gets true may destroy it.
    #[inline]
    pub(crate) fn remove_exactly<H: Handle>(&self, object: Object<H>) -> bool {
        let removed = self
            .table
            .remove_exactly(object.id, H::TYPE as u32, object.handle.raw());
        sub(&self.tally.objects, u64::from(removed));
        removed
    }

    /// The same for an object that is destroyed late ([`Table::depart`]).
    pub(crate) fn depart<H: Handle>(&self, owner: u32, object: Object<H>) -> Option<Option<Entry>> {
        let entry = Entry {
            host: object.handle.raw(),
            kind: H::TYPE as u32,
            owner,
        };
        let oldest = self.table.depart(object.id, entry)?;
        sub(&self.tally.objects, 1);
        Some(oldest)
    }

    /// Takes an object out. `None` when another thread was faster.
    #[inline]
    pub(crate) fn remove<H: Handle>(&self, id: u64) -> Option<H> {
        let entry = self.table.remove(id, H::TYPE as u32)?;
        sub(&self.tally.objects, 1);
        Some(H::from_raw(entry.host))
    }
}
