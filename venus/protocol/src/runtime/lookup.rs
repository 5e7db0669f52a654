//! How the decoder turns ids into handles. Most come from the table's [`Front`](super::Front),
//! without a call and without a lock.

use super::argument::Object;
use super::decoder::Decoder;
use super::error::{Reason, Result};
use super::value::{Handle, Resolved};
use crate::vk::HandleType;

/// The command buffer of the last commands. The next command is usually for the same one.
pub(super) struct Recording {
    id: u64,
    handle: u64,
    /// [`Front::removals`](super::Front::removals) when the command buffer was found, or
    /// [`Recording::NONE`]. When the number has changed, the command buffer may be gone.
    removals: u64,
}

impl Recording {
    /// A number that removals never reach.
    const NONE: u64 = u64::MAX;

    /// No command buffer.
    pub(super) const fn nothing() -> Self {
        Self {
            id: 0,
            handle: 0,
            removals: Self::NONE,
        }
    }
}

impl Decoder<'_> {
    #[inline(always)]
    fn count_lookup(&self) {
        self.lookups.set(self.lookups.get().wrapping_add(1));
    }

    /// The handle of an object that has the same owner as the command's first object. Never 0.
    #[inline(always)]
    fn resolve<H: Handle>(&self, id: u64) -> Result<H> {
        self.count_lookup();
        match self.front.find(self.owner, H::TYPE, id) {
            Some(handle) => Ok(H::from_raw(handle)),
            None => self.resolve_slowly(H::TYPE, id).map(H::from_raw),
        }
    }

    #[cold]
    #[inline(never)]
    fn resolve_slowly(&self, ty: HandleType, id: u64) -> Result<u64> {
        if id == 0 {
            return Err(self.fatal(Reason::NullHandle(ty)));
        }
        match self.objects.resolve(ty, id) {
            Resolved { handle, owner } if handle != 0 && owner == self.owner => Ok(handle),
            _ if self.objects.has_failed(ty, id) => Err(self.fatal(Reason::Failed { ty, id })),
            _ => Err(self.fatal(Reason::Handle { ty, id })),
        }
    }

    /// The command's first object. It must exist, and all other objects must have its owner.
    #[inline(always)]
    pub(crate) fn first_object<H: Handle>(&mut self, id: u64) -> Result<Object<H>> {
        let is_recording = matches!(H::TYPE, HandleType::CommandBuffer);
        if is_recording
            && id == self.recording.id
            && self.recording.removals == self.front.removals()
        {
            let handle = H::from_raw(self.recording.handle);
            return Ok(Object { id, handle });
        }
        let handle = H::from_raw(self.first(H::TYPE, id)?);
        Ok(Object { id, handle })
    }

    #[inline(never)]
    fn first(&mut self, ty: HandleType, id: u64) -> Result<u64> {
        self.count_lookup();
        // Read before the search: an object that is removed meanwhile must not count as present.
        let removals = self.front.removals();
        let Resolved { handle, owner } = match self.front.find_any(ty, id) {
            Some(found) => found,
            None => self.first_slowly(ty, id)?,
        };
        self.owner = owner;
        self.recording.removals = Recording::NONE;
        if ty == HandleType::CommandBuffer {
            self.recording = Recording {
                id,
                handle,
                removals,
            };
        }
        Ok(handle)
    }

    #[cold]
    fn first_slowly(&self, ty: HandleType, id: u64) -> Result<Resolved> {
        if id == 0 {
            return Err(self.fatal(Reason::NullHandle(ty)));
        }
        match self.objects.resolve(ty, id) {
            Resolved { handle: 0, .. } => Err(self.fatal(Reason::Handle { ty, id })),
            found => Ok(found),
        }
    }

    /// The handle of an object that may be null.
    #[inline]
    pub(crate) fn handle<H: Handle>(&self, id: u64) -> Result<H> {
        if id == 0 {
            return Ok(H::ZERO);
        }
        self.resolve(id)
    }

    /// The handle of an object that may not be null.
    #[inline]
    pub(crate) fn required_handle<H: Handle>(&self, id: u64) -> Result<H> {
        self.resolve(id)
    }

    /// A handle argument that may be null. An object that was never created counts as null, so that
    /// destroying it does nothing.
    #[inline]
    pub(crate) fn object<H: Handle>(&self, id: u64) -> Result<Object<H>> {
        match self.handle(id) {
            Ok(handle) => Ok(Object { id, handle }),
            Err(fatal) => match fatal.reason {
                Reason::Failed { .. } => Ok(Object {
                    id: 0,
                    handle: H::ZERO,
                }),
                _ => Err(fatal),
            },
        }
    }

    /// A handle argument that may not be null.
    #[inline]
    pub(crate) fn required_object<H: Handle>(&self, id: u64) -> Result<Object<H>> {
        let handle = self.resolve(id)?;
        Ok(Object { id, handle })
    }
}
