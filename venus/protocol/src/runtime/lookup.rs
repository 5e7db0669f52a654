//! How the decoder turns ids into handles. Most come from the table's [`Front`](super::Front),
//! without a call and without a lock.

use super::argument::Object;
use super::decoder::Decoder;
use super::error::{Reason, Result, Stopped};
use super::slots::owner_label;
use super::value::{Handle, Resolved};
use crate::vk::HandleType;

/// The first object of earlier commands. The next command is mostly for the same one.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    /// 0 for none.
    pub(super) id: u64,
    pub(super) handle: u64,
}

impl Kept {
    const NOTHING: Self = Self { id: 0, handle: 0 };
}

/// The last device and the last command buffer that commands were for. Both have the decoder's
/// current owner.
pub(super) struct Known {
    /// [`Front::removals`](super::Front::removals) when they were found. When the number has
    /// changed, they may be gone.
    removals: u64,
    device: Kept,
    /// The command buffer of a row ([`super::row`]).
    pub(super) recording: Kept,
}

impl Known {
    /// Neither.
    pub(super) const fn nothing() -> Self {
        Self {
            // Removals never reach it.
            removals: u64::MAX,
            device: Kept::NOTHING,
            recording: Kept::NOTHING,
        }
    }

    /// What is kept of objects of this type.
    #[inline(always)]
    fn of(&mut self, ty: HandleType) -> Option<&mut Kept> {
        match ty {
            HandleType::Device => Some(&mut self.device),
            HandleType::CommandBuffer => Some(&mut self.recording),
            _ => None,
        }
    }
}

impl Decoder<'_> {
    #[inline(always)]
    pub(super) fn count_lookup(&self) {
        self.lookups.set(self.lookups.get().wrapping_add(1));
    }

    /// The handle of an object that has the same owner as the command's first object. Never 0.
    #[inline(always)]
    fn resolve<H: Handle>(&self, id: u64) -> Result<H> {
        self.count_lookup();
        match self.front.find(self.owner_label, H::TYPE, id) {
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
            Resolved { handle, owner } if handle != 0 && owner == self.owner() => Ok(handle),
            _ if self.objects.has_failed(ty, id) => Err(self.fatal(Reason::Failed { ty, id })),
            _ => Err(self.fatal(Reason::Handle { ty, id })),
        }
    }

    /// Forgets kept objects that may have been removed. Called between commands.
    ///
    /// Within a command a kept object stays valid: nobody destroys it before this thread has
    /// finished with handles that it found. The same is true in a row of recorded commands, since
    /// none of them removes an object or waits.
    #[inline(always)]
    pub(super) fn forget_removed(&mut self) {
        if self.known.removals != self.front.removals() {
            self.known = Known::nothing();
        }
    }

    /// Whether the last commands were for a command buffer that nobody has removed since.
    #[inline(always)]
    pub fn is_recording(&mut self) -> bool {
        self.forget_removed();
        self.known.recording.id != 0
    }

    /// The command's first object. It must exist, and all other objects must have its owner.
    #[inline(always)]
    pub(crate) fn first_object<H: Handle>(&mut self, id: u64) -> Result<Object<H>> {
        if let Some(kept) = self.known.of(H::TYPE)
            && id == kept.id
            && id != 0
        {
            let handle = H::from_raw(kept.handle);
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
        if owner != self.owner() || removals != self.known.removals {
            self.owner_label = owner_label(owner);
            self.known = Known {
                removals,
                ..Known::nothing()
            };
        }
        if let Some(kept) = self.known.of(ty) {
            *kept = Kept { id, handle };
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
            Err(Stopped) => match self.failure().reason {
                Reason::Failed { .. } => Ok(Object {
                    id: 0,
                    handle: H::ZERO,
                }),
                _ => Err(Stopped),
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
