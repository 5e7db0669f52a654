//! Helpers for `pNext` chains of structs.

use std::ffi::c_void;

use ash::vk;

/// Finds the first struct of type `T` in the chain.
///
/// # Safety
/// `chain` is null or a valid chain, and nobody else uses the struct that is found.
pub(crate) unsafe fn find<'a, T: vk::TaggedStructure>(chain: *const c_void) -> Option<&'a mut T> {
    let mut next = chain.cast::<vk::BaseOutStructure<'_>>().cast_mut();
    // SAFETY: the caller's promise.
    while let Some(one) = unsafe { next.as_mut() } {
        if one.s_type == T::STRUCTURE_TYPE {
            // SAFETY: the struct's type tag says that it is a `T`.
            return unsafe { next.cast::<T>().as_mut() };
        }
        next = one.p_next;
    }
    None
}

/// A struct that is hidden from a chain. Dropping the value puts it back.
pub(crate) struct Hidden {
    place: *mut *mut vk::BaseOutStructure<'static>,
    hidden: *mut vk::BaseOutStructure<'static>,
}

impl Hidden {
    /// Hides the first struct of type `T` from the chain that begins at `head`.
    ///
    /// # Safety
    /// The chain is valid and nobody else uses it until the result is dropped.
    pub(crate) unsafe fn take<T: vk::TaggedStructure>(head: &mut *const c_void) -> Option<Self> {
        let mut place = std::ptr::from_mut(head).cast::<*mut vk::BaseOutStructure<'static>>();
        loop {
            // SAFETY: the caller's promise.
            let one = unsafe { *place };
            // SAFETY: as above.
            let current = unsafe { one.as_mut() }?;
            if current.s_type == T::STRUCTURE_TYPE {
                // SAFETY: as above.
                unsafe { *place = current.p_next };
                return Some(Self { place, hidden: one });
            }
            place = &raw mut current.p_next;
        }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // SAFETY: as `take` requires, the chain is valid and nobody else uses it.
        unsafe { *self.place = self.hidden };
    }
}
