//! [`Grants`]: budgets that another process keeps.
//!
//! Contexts in processes of their own share what one guest may take. So a renderer in such a
//! process has no [`crate::GuestBudget`] of its own. It asks for what its context needs, a chunk at
//! a time.

use std::sync::Arc;

use hesper_system::budget::Source;

/// What contexts take of the host, and a guest has a budget of.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Places in tables of objects: [`crate::GuestBudget::objects`].
    Objects = 0,
    /// Threads: [`crate::GuestBudget::threads`].
    Threads = 1,
    /// Calls that wait for a context's thread: [`crate::GuestBudget::queued`].
    Calls = 2,
    /// Bytes of large commands: [`crate::GuestBudget::command_bytes`].
    CommandBytes = 3,
    /// Bytes of shared memory: [`crate::GuestBudget::shared_bytes`].
    SharedBytes = 4,
    /// Bytes of device memory: [`crate::GuestBudget::device_memory`].
    DeviceMemory = 5,
}

impl Resource {
    /// All of them, by number.
    pub const ALL: [Self; 6] = [
        Self::Objects,
        Self::Threads,
        Self::Calls,
        Self::CommandBytes,
        Self::SharedBytes,
        Self::DeviceMemory,
    ];

    /// How much each context may always have, whatever others do.
    #[must_use]
    pub fn own(self) -> u64 {
        match self {
            // Its own, a ring's, and those that watch it and a queue.
            Self::Threads => 4,
            // A context whose calls find no place is lost.
            Self::Calls => 256,
            Self::Objects | Self::CommandBytes | Self::SharedBytes | Self::DeviceMemory => 0,
        }
    }

    /// How much a renderer asks for at a time, and how much it may keep without need.
    #[must_use]
    pub fn chunk(self) -> u64 {
        match self {
            // A table grows by powers of two from 2048 on, and does not shrink.
            Self::Objects => 2048,
            // Starting a thread takes longer than asking.
            Self::Threads => 1,
            // Half of what is a context's own, since two chunks may be kept.
            Self::Calls => 128,
            // Clearing that much takes longer than asking.
            Self::CommandBytes | Self::SharedBytes | Self::DeviceMemory => 1 << 20,
        }
    }
}

impl TryFrom<u8> for Resource {
    type Error = u8;

    /// # Errors
    /// The number, if it names no resource.
    fn try_from(number: u8) -> Result<Self, u8> {
        Self::ALL.get(usize::from(number)).copied().ok_or(number)
    }
}

/// Who keeps the budgets. Any thread of a context asks, and waits for the answer.
pub trait Grants: Send + Sync + std::fmt::Debug {
    /// Asks for `amount` of `what`. The answer is at least that much, or 0 for nothing. The
    /// renderer has rounded the amount up to whole chunks ([`Resource::chunk`]). If that is
    /// refused, it asks once more for what it needs.
    fn ask(&self, what: Resource, amount: u64) -> u64;

    /// Takes back a part of what was granted.
    fn give_back(&self, what: Resource, amount: u64);

    /// How much more of `what` would be granted now. For [`Resource::SharedBytes`] that is no more
    /// than what is left of the window through which guests map memory
    /// ([`crate::RendererOptions::window`]).
    fn left(&self, what: Resource) -> u64;
}

/// One resource of [`Grants`].
#[derive(Debug)]
pub(crate) struct GrantedResource {
    grants: Arc<dyn Grants>,
    what: Resource,
}

impl GrantedResource {
    /// `what` of these grants.
    pub(crate) fn new(grants: &Arc<dyn Grants>, what: Resource) -> Arc<Self> {
        let grants = Arc::clone(grants);
        Arc::new(Self { grants, what })
    }
}

impl Source for GrantedResource {
    fn ask(&self, amount: u64) -> u64 {
        let chunks = amount.checked_next_multiple_of(self.chunk());
        let chunks = chunks.filter(|chunks| *chunks > amount);
        match chunks.map_or(0, |chunks| self.grants.ask(self.what, chunks)) {
            0 => self.grants.ask(self.what, amount),
            granted => granted,
        }
    }

    fn give_back(&self, amount: u64) {
        self.grants.give_back(self.what, amount);
    }

    fn left(&self) -> u64 {
        self.grants.left(self.what)
    }

    fn chunk(&self) -> u64 {
        self.what.chunk()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use hesper_system::budget::Pool;
    use hesper_system::sync::Lock;

    use super::*;

    #[test]
    fn numbers_name_the_resource_that_they_were_made_of() {
        for (number, resource) in (0..).zip(Resource::ALL) {
            assert_eq!(resource as u8, number);
            assert_eq!(Resource::try_from(number), Ok(resource));
        }
        assert_eq!(Resource::try_from(6), Err(6));
    }

    #[test]
    fn whole_chunks_are_asked_for_and_less_only_when_they_are_refused() {
        /// Grants what is not above the limit, and remembers what was asked.
        #[derive(Debug, Default)]
        struct Clerk(Mutex<Vec<u64>>);
        impl Grants for Clerk {
            fn ask(&self, what: Resource, amount: u64) -> u64 {
                assert_eq!(what, Resource::Calls);
                self.0.locked().push(amount);
                if amount > 300 { 0 } else { amount }
            }
            fn give_back(&self, _what: Resource, _amount: u64) {}
            fn left(&self, _what: Resource) -> u64 {
                0
            }
        }
        let clerk = Arc::new(Clerk::default());
        let grants: Arc<dyn Grants> = Arc::clone(&clerk) as _;
        let pool = Pool::from_source(GrantedResource::new(&grants, Resource::Calls));
        let one = pool.charge(1).unwrap();
        // 127 are there already.
        let more = pool.charge(128).unwrap();
        let many = pool.charge(127 + 260).unwrap();
        assert!(pool.charge(u64::MAX).is_none());
        assert_eq!(*clerk.0.locked(), [128, 128, 384, 260, u64::MAX]);
        drop((one, more, many));
    }
}
