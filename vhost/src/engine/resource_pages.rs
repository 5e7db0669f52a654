//! The guest memory of a resource, for a renderer that writes into it.
//!
//! The pages are looked up at each write, under the state lock. A write therefore either ends
//! before the guest's driver can hear that the resource is gone, or does not happen.

use std::sync::{Arc, Weak};

use vm_memory::{GuestAddressSpace, GuestMemoryMmap};

use super::{Call, Engine};
use crate::backing::Backing;
use crate::guest_pages::{GUEST_WRITE, GuestPages, GuestRun};
use crate::renderer::ResourceId;
use crate::resource::Resource;

/// See [`GuestPages`].
pub(crate) struct ResourcePages {
    engine: Weak<Engine>,
    /// The reset count when the resource was attached.
    epoch: u64,
    resource: ResourceId,
    /// Tells this memory from memory that the resource, or another resource with its id, gets
    /// later.
    backing: Weak<Backing>,
    size: u64,
}

impl ResourcePages {
    /// The memory of `resource`, when it has any.
    pub(crate) fn of(
        call: &Call<'_>,
        id: ResourceId,
        resource: &Resource,
        size: u64,
    ) -> Option<Arc<dyn GuestPages>> {
        let backing = resource.backing.as_ref()?;
        Some(Arc::new(Self {
            engine: Weak::clone(&call.engine.me),
            epoch: call.exchange.epoch,
            resource: id,
            backing: Arc::downgrade(backing),
            size,
        }))
    }
}

impl GuestPages for ResourcePages {
    fn size(&self) -> u64 {
        self.size
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        let write = |backing: &Backing, memory: &_| backing.write(memory, offset, bytes).is_ok();
        bytes.len() <= GUEST_WRITE && self.with(write).unwrap_or(false)
    }

    fn runs(&self) -> Option<Vec<GuestRun>> {
        self.with(Backing::pages)?
    }
}

impl ResourcePages {
    /// Calls `act` under the state lock, if the resource still has this memory.
    fn with<T>(&self, act: impl FnOnce(&Backing, &GuestMemoryMmap) -> T) -> Option<T> {
        let engine = self.engine.upgrade()?;
        let memory = engine.guest_memory()?;
        let state = engine.at(self.epoch).ok()?;
        let backing = state
            .resources
            .get(&self.resource)
            .and_then(|resource| resource.backing.as_ref())
            // While the weak reference exists, the address is not used again.
            .filter(|backing| Arc::as_ptr(backing) == self.backing.as_ptr())?;
        Some(act(backing, &memory.memory()))
    }
}
