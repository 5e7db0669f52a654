//! [`Departed`]: objects that the guest has destroyed, and the driver has not yet.
//!
//! They have left the [object table](super::table), so their ids are free. Until others come after
//! them, they are still found if nothing else has their id.

use std::collections::VecDeque;

use super::table::Entry;

/// How many objects of one device are kept.
pub(super) const MOST: usize = 256;

/// The departed objects of a context, by device.
#[derive(Default)]
pub(super) struct Departed {
    devices: Vec<OfDevice>,
}

/// The oldest is the first.
struct OfDevice {
    owner: u32,
    objects: VecDeque<(u64, Entry)>,
}

impl Departed {
    /// Keeps an object. Returns the one that must be destroyed instead, if there are too many. It
    /// belongs to the same device.
    pub(super) fn push(&mut self, id: u64, entry: Entry) -> Option<Entry> {
        let mut devices = self.devices.iter_mut();
        let Some(device) = devices.find(|device| device.owner == entry.owner) else {
            let mut objects = VecDeque::with_capacity(MOST);
            objects.push_back((id, entry));
            self.devices.push(OfDevice {
                owner: entry.owner,
                objects,
            });
            return None;
        };
        let oldest = match device.objects.len() < MOST {
            true => None,
            false => device.objects.pop_front(),
        };
        device.objects.push_back((id, entry));
        oldest.map(|(_, entry)| entry)
    }

    /// The object that had this id last.
    pub(super) fn find(&self, id: u64) -> Option<Entry> {
        let all = self.devices.iter().flat_map(|device| &device.objects);
        all.rev()
            .find(|(departed, _)| *departed == id)
            .map(|(_, entry)| *entry)
    }

    /// Takes out all objects of a device, which is being destroyed.
    pub(super) fn take_owned(&mut self, owner: u32) -> impl Iterator<Item = (u64, Entry)> {
        let devices = self
            .devices
            .extract_if(.., move |device| device.owner == owner);
        devices.flat_map(|device| device.objects)
    }
}
