//! [`GuestMemories`]: guest memory that contexts have attached. It is mapped once, however many
//! contexts attach the same pages.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, Weak};

use hesper_system::sync::Lock;

use super::guest_pages::{GuestPages, Mappings};
use super::host_mappings::HostMappings;
use super::shared::SharedMemory;
use crate::error::{Error, Result};

/// Pages in their order: file, offset and size. The file is the address of its `File`, which
/// [`GuestMemory`] keeps alive.
type Place = Vec<(usize, u64, u64)>;

/// Guest memory of all contexts.
#[derive(Debug)]
pub(crate) struct GuestMemories {
    known: Mutex<HashMap<Place, Weak<GuestMemory>>>,
    mappings: Arc<Mappings>,
    host_mappings: Arc<HostMappings>,
}

/// Guest memory that is attached. It is given back to the guest with the last user.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    memory: Arc<SharedMemory>,
    place: Place,
    of: Arc<GuestMemories>,
    _files: Vec<Arc<File>>,
}

impl GuestMemories {
    /// Nothing is attached. What is, takes of both kinds of mappings.
    pub(crate) fn new(mappings: Arc<Mappings>, host_mappings: Arc<HostMappings>) -> Arc<Self> {
        Arc::new(Self {
            known: Mutex::default(),
            mappings,
            host_mappings,
        })
    }

    /// Maps `pages` side by side, or finds them mapped.
    pub(crate) fn attach(self: &Arc<Self>, pages: &[GuestPages]) -> Result<Arc<GuestMemory>> {
        let place: Place = pages
            .iter()
            .map(|run| (Arc::as_ptr(&run.file).addr(), run.offset, run.size))
            .collect();
        let mut known = self.known.locked();
        if let Some(there) = known.get(&place).and_then(Weak::upgrade) {
            return Ok(there);
        }
        if !self.host_mappings.make(pages.len()) {
            return Err(Error::TooManyMappings);
        }
        let memory = SharedMemory::gather(pages, &self.mappings)?;
        let made = Arc::new(GuestMemory {
            memory: Arc::new(memory),
            place: place.clone(),
            of: Arc::clone(self),
            _files: pages.iter().map(|run| Arc::clone(&run.file)).collect(),
        });
        known.insert(place, Arc::downgrade(&made));
        Ok(made)
    }
}

impl GuestMemory {
    /// The memory.
    pub(crate) fn memory(&self) -> &Arc<SharedMemory> {
        &self.memory
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        self.memory.give_back();
        let mut known = self.of.known.locked();
        // The same pages may have been attached anew meanwhile.
        let is_gone = |there: &Weak<GuestMemory>| there.strong_count() == 0;
        if known.get(&self.place).is_some_and(is_gone) {
            known.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::page_size;

    fn guest(pages: u64) -> Arc<File> {
        let fd = crate::platform::create_shared_memory(pages * page_size()).unwrap();
        Arc::new(File::from(fd))
    }

    #[test]
    fn pages_that_many_contexts_attach_are_mapped_once_and_given_back_with_the_last() {
        let mappings = Arc::new(Mappings::new(3));
        let memories = GuestMemories::new(mappings, Arc::new(HostMappings::new(1 << 20)));
        let file = guest(4);
        let run = |offset: u64| GuestPages {
            file: Arc::clone(&file),
            offset: offset * page_size(),
            size: page_size(),
        };
        let pages = [run(2), run(0)];
        let users: Vec<_> = (0..1000)
            .map(|_| memories.attach(&pages).unwrap())
            .collect();
        let memory = Arc::clone(users[0].memory());
        assert!(users.iter().all(|user| Arc::ptr_eq(user.memory(), &memory)));
        // Other pages, and the same in another order, are other memory.
        assert!(
            memories.attach(&[run(0), run(2)]).is_err(),
            "no mappings are left"
        );
        let other = memories.attach(&[run(0)]).unwrap();
        memory.write(page_size() as usize, &[7]).unwrap();
        let mut seen = [0];
        other.memory().read(0, &mut seen).unwrap();
        assert_eq!(seen, [7]);
        let mut users = users;
        users.truncate(1);
        memory.write(page_size() as usize, &[8]).unwrap();
        other.memory().read(0, &mut seen).unwrap();
        assert_eq!(seen, [8], "somebody still has it");
        drop(users);
        memory.write(page_size() as usize, &[9]).unwrap();
        other.memory().read(0, &mut seen).unwrap();
        assert_eq!(seen, [8], "the guest has its pages back");
        drop(memory);
        assert!(memories.attach(&pages).is_ok());
        drop(other);
        assert!(memories.known.locked().is_empty());
    }
}
