//! Which queue stands behind each of the guest's ring indices.

use std::sync::{Arc, RwLock};

use hesper_venus_protocol::vk;

use crate::object::queue::{Queue, RINGS};
use crate::sync::SharedLock;

/// The queues of a context that are bound to a ring index.
pub(crate) struct Timelines {
    queues: RwLock<[Option<Arc<Queue>>; RINGS]>,
}

impl Timelines {
    /// No ring index is bound.
    pub(crate) fn new() -> Self {
        Self {
            queues: RwLock::new([const { None }; RINGS]),
        }
    }

    /// Binds `ring` to `queue`; false when another queue has it.
    pub(crate) fn bind(&self, ring: usize, queue: &Arc<Queue>) -> bool {
        match self.queues.writing().get_mut(ring) {
            Some(slot @ None) => {
                *slot = Some(Arc::clone(queue));
                true
            }
            Some(Some(bound)) => Arc::ptr_eq(bound, queue),
            None => false,
        }
    }

    /// The queue bound to `ring`.
    pub(crate) fn queue(&self, ring: u8) -> Option<Arc<Queue>> {
        self.queues.reading().get(usize::from(ring))?.clone()
    }

    /// Unbinds the queues of a device.
    pub(crate) fn release(&self, device: vk::Device) {
        for slot in self.queues.writing().iter_mut() {
            slot.take_if(|queue| queue.is_of(device));
        }
    }

    /// Unbinds all queues.
    pub(crate) fn clear(&self) {
        self.queues
            .writing()
            .iter_mut()
            .for_each(|slot| *slot = None);
    }
}
