//! Structs that the driver must not see but the reply must hold. They are taken out of a chain
//! before the call, and put back after it.
//!
//! A guest reads the structs of a reply in the order of its own chain, so they go back to their old
//! places.

use std::marker::PhantomData;

use ash::vk::BaseOutStructure;
use hesper_venus_protocol::runtime::Chained;

/// A struct that was taken out of a chain.
pub(super) struct Detached<T> {
    /// How many structs come before it in the chain, the head included.
    place: usize,
    link: *mut BaseOutStructure<'static>,
    kind: PhantomData<T>,
}

impl<T: Chained> Detached<T> {
    /// Takes the first `T` out of the chain of `head`.
    ///
    /// # Safety
    /// `head` and its chain must be valid structs that nobody else uses, and live as long as the
    /// result.
    pub(super) unsafe fn take<H: Chained>(head: &mut H) -> Option<Self> {
        let mut before = std::ptr::from_mut(head).cast::<BaseOutStructure<'static>>();
        let mut place = 1;
        loop {
            // SAFETY: a valid struct, as the caller promises; all of them begin like this one.
            let link = unsafe { (*before).p_next };
            if link.is_null() {
                return None;
            }
            // SAFETY: as above.
            let BaseOutStructure { s_type, p_next, .. } = unsafe { *link };
            if s_type.as_raw() == T::STYPE.0 {
                // SAFETY: as above, and ours to change.
                unsafe { (*before).p_next = p_next };
                return Some(Self {
                    place,
                    link,
                    kind: PhantomData,
                });
            }
            before = link;
            place += 1;
        }
    }

    /// Puts it back. Several structs are put back in the opposite order of taking them.
    ///
    /// # Safety
    /// `head` must be the one it was taken from, and its chain must hold the same structs as then.
    pub(super) unsafe fn put_back<H: Chained>(self, head: &mut H) -> &mut T {
        let mut before = std::ptr::from_mut(head).cast::<BaseOutStructure<'static>>();
        for _ in 1..self.place {
            // SAFETY: the chain is as long as it was, as the caller promises.
            before = unsafe { (*before).p_next };
        }
        // SAFETY: valid structs, ours to change; `take` saw by its sType that this one is a T.
        unsafe {
            (*self.link).p_next = (*before).p_next;
            (*before).p_next = self.link;
            &mut *self.link.cast::<T>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hesper_venus_protocol::vk;

    /// The sTypes of a chain.
    fn order(head: &vk::FormatProperties2) -> Vec<vk::StructureType> {
        let mut next: *const BaseOutStructure<'_> = head.p_next.cast();
        let mut order = Vec::new();
        while !next.is_null() {
            // SAFETY: the tests below chain structs that live on their stack.
            let link = unsafe { *next };
            order.push(vk::StructureType(link.s_type.as_raw()));
            next = link.p_next;
        }
        order
    }

    #[test]
    fn structs_return_to_their_places() {
        let mut last = vk::DrmFormatModifierPropertiesList2EXT::default();
        let mut middle = vk::FormatProperties3 {
            p_next: (&raw mut last).cast(),
            ..Default::default()
        };
        let mut first = vk::DrmFormatModifierPropertiesListEXT {
            p_next: (&raw mut middle).cast(),
            ..Default::default()
        };
        let mut head = vk::FormatProperties2 {
            p_next: (&raw mut first).cast(),
            ..Default::default()
        };
        let before = order(&head);
        assert_eq!(before.len(), 3);
        // SAFETY: every struct of the chain lives until the end of the test, and nothing else uses
        // it meanwhile.
        let one = unsafe { Detached::<vk::DrmFormatModifierPropertiesListEXT>::take(&mut head) };
        // SAFETY: as above.
        let two = unsafe { Detached::<vk::DrmFormatModifierPropertiesList2EXT>::take(&mut head) };
        assert_eq!(order(&head), [vk::FormatProperties3::STYPE]);
        // SAFETY: as above; it was taken from this chain.
        let two = unsafe { two.unwrap().put_back(&mut head) };
        two.drm_format_modifier_count = 5;
        // SAFETY: as above; it was taken from this chain.
        unsafe { one.unwrap().put_back(&mut head) };
        assert_eq!(order(&head), before);
        assert_eq!(last.drm_format_modifier_count, 5);
    }

    #[test]
    fn what_is_not_there_is_not_taken() {
        let mut only = vk::FormatProperties3::default();
        let mut head = vk::FormatProperties2 {
            p_next: (&raw mut only).cast(),
            ..Default::default()
        };
        // SAFETY: the chain lives until the end of the test.
        let taken = unsafe { Detached::<vk::DrmFormatModifierPropertiesListEXT>::take(&mut head) };
        assert!(taken.is_none());
        assert_eq!(order(&head).len(), 1);
    }
}
