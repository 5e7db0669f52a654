//! The fast part of an object table: an array of slots that decoders read without a lock.
//!
//! The renderer owns the [`Slot`]s and writes them, one writer at a time. Every
//! [`Decoder`](super::Decoder) reads them through a [`Front`]. An object that is not found here
//! (another object has its slot, or the slot is being written) is looked up with
//! [`HandleMap::resolve`](super::HandleMap::resolve), which is slower.
//!
//! The difficulty is reading while another thread writes. A slot's last word holds the object's
//! label and a sequence number that changes with every write; the label is 0 while the slot is
//! being written. A reader that finds this word unchanged after it has read the other words has
//! read a single object, and never the handle of one with the type of another.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::value::Resolved;
use crate::vk::HandleType;

/// Owners must be below this, because a slot has 24 bits for them.
pub const OWNERS: u32 = 1 << 24;

/// A place for one object. A slot of all zeros is empty.
#[derive(Debug, Default)]
#[repr(align(32))]
pub struct Slot {
    id: AtomicU64,
    handle: AtomicU64,
    /// The [`label`] in the upper half (0: empty, or being written), the sequence number in the
    /// lower half.
    state: AtomicU64,
}

/// Combines owner and kind (a `HandleType as u32`) in one word, which is never 0.
#[inline(always)]
const fn label(owner: u32, kind: u32) -> u32 {
    owner_label(owner) | (kind + 1)
}

/// The owner's part of a label.
#[inline(always)]
pub(super) const fn owner_label(owner: u32) -> u32 {
    owner << 8
}

impl Slot {
    /// Stores an object of a kind, which is a `HandleType as u32`. The caller must ensure that
    /// nobody else writes at the same time. The owner must be below [`OWNERS`], and the handle must
    /// not be 0.
    #[inline]
    pub fn put(&self, id: u64, kind: u32, object: Resolved) {
        self.write(id, object.handle, label(object.owner, kind));
    }

    /// Empties the slot, under the same conditions.
    #[inline]
    pub fn clear(&self) {
        self.write(0, 0, 0);
    }

    #[inline]
    fn write(&self, id: u64, handle: u64, label: u32) {
        let sequence = (self.state.load(Ordering::Relaxed) as u32).wrapping_add(1);
        self.state.store(u64::from(sequence), Ordering::Relaxed);
        // A reader that sees a field of this write sees that state, too.
        fence(Ordering::Release);
        self.id.store(id, Ordering::Relaxed);
        self.handle.store(handle, Ordering::Relaxed);
        let state = u64::from(label) << 32 | u64::from(sequence);
        self.state.store(state, Ordering::Release);
    }

    /// The id of the object in the slot, 0 for none. Exact for the writer; other threads may read
    /// an older value.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// Kind, handle and owner of object `id`, if it is in this slot and nobody is writing.
    #[inline]
    pub fn get(&self, id: u64) -> Option<(u32, Resolved)> {
        let (label, handle) = self.read(id)?;
        let kind = (label & 0xff).checked_sub(1)?;
        let owner = label >> 8;
        Some((kind, Resolved { handle, owner }))
    }

    /// Label and handle of object `id`, both of the same object.
    #[inline(always)]
    fn read(&self, id: u64) -> Option<(u32, u64)> {
        let before = self.state.load(Ordering::Acquire);
        let found = self.id.load(Ordering::Relaxed);
        let handle = self.handle.load(Ordering::Relaxed);
        // Pairs with the fence in `write`.
        fence(Ordering::Acquire);
        let after = self.state.load(Ordering::Relaxed);
        (found == id && before == after).then_some(((before >> 32) as u32, handle))
    }
}

static NO_SLOTS: [Slot; 1] = [const {
    Slot {
        id: AtomicU64::new(0),
        handle: AtomicU64::new(0),
        state: AtomicU64::new(0),
    }
}; 1];
static NO_REMOVALS: AtomicU64 = AtomicU64::new(0);

/// A decoder's view of the slots.
#[derive(Clone, Copy, Debug)]
pub struct Front<'a> {
    first: *const Slot,
    /// The number of slots, which is a power of two, minus one.
    mask: usize,
    removals: &'a AtomicU64,
    life: PhantomData<&'a [Slot]>,
}

impl<'a> Front<'a> {
    /// A view of `slots`, in which the low bits of an object's id are its index. `removals` must be
    /// incremented for each object that is removed, before the object is destroyed. The view is
    /// empty unless the number of slots is a power of two.
    pub fn new(slots: &'a [Slot], removals: &'a AtomicU64) -> Self {
        if !slots.len().is_power_of_two() {
            return Self::empty();
        }
        Self {
            first: slots.as_ptr(),
            mask: slots.len() - 1,
            removals,
            life: PhantomData,
        }
    }

    /// A view without objects.
    pub fn empty() -> Self {
        Self {
            first: NO_SLOTS.as_ptr(),
            mask: 0,
            removals: &NO_REMOVALS,
            life: PhantomData,
        }
    }

    #[inline(always)]
    fn slot(&self, id: u64) -> &'a Slot {
        // SAFETY: there are `mask + 1` slots, which live as long as 'a, and the index is at most
        // the mask.
        unsafe { &*self.first.add(id as usize & self.mask) }
    }

    /// The handle of object `id` of the owner with this [`owner_label`].
    #[inline(always)]
    pub(super) fn find(&self, owner_label: u32, ty: HandleType, id: u64) -> Option<u64> {
        let (found, handle) = self.slot(id).read(id)?;
        (found == owner_label | label(0, ty as u32)).then_some(handle)
    }

    /// The object `id` of any owner.
    #[inline]
    pub(super) fn find_any(&self, ty: HandleType, id: u64) -> Option<Resolved> {
        let (found, resolved) = self.slot(id).get(id)?;
        (found == ty as u32).then_some(resolved)
    }

    /// How many objects have been removed so far.
    #[inline(always)]
    pub(super) fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TY: HandleType = HandleType::Buffer;

    fn resolved(handle: u64, owner: u32) -> Resolved {
        Resolved { handle, owner }
    }

    #[test]
    fn an_object_is_found_by_id_type_and_owner() {
        let slots: Vec<Slot> = std::iter::repeat_with(Slot::default).take(4).collect();
        let removals = AtomicU64::new(0);
        let front = Front::new(&slots, &removals);
        slots[1].put(5, TY as u32, resolved(50, 2));
        assert_eq!(front.find(owner_label(2), TY, 5), Some(50));
        assert_eq!(front.find(owner_label(3), TY, 5), None, "another owner's");
        assert_eq!(
            front.find(owner_label(2), HandleType::Image, 5),
            None,
            "another type"
        );
        assert_eq!(
            front.find(owner_label(2), TY, 1),
            None,
            "another id of the same slot"
        );
        assert_eq!(front.find_any(TY, 5), Some(resolved(50, 2)));
        slots[1].clear();
        assert_eq!(front.find(owner_label(2), TY, 5), None);
        assert_eq!(front.find_any(TY, 5), None);
        // An empty slot has id 0.
        for ty in [HandleType::Instance, TY] {
            assert_eq!(front.find(owner_label(0), ty, 0), None);
            assert_eq!(front.find_any(ty, 0), None);
        }
    }

    #[test]
    fn a_view_of_a_wrong_number_of_slots_is_empty() {
        let slots: Vec<Slot> = std::iter::repeat_with(Slot::default).take(3).collect();
        slots[1].put(1, TY as u32, resolved(50, 2));
        let removals = AtomicU64::new(0);
        for some in [&slots[..], &[]] {
            assert_eq!(
                Front::new(some, &removals).find(owner_label(2), TY, 1),
                None
            );
        }
    }

    #[test]
    fn a_reader_never_mixes_two_objects() {
        let slots = [Slot::default()];
        let removals = AtomicU64::new(0);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (front, mut seen) = (Front::new(&slots, &removals), 0);
                while !stop.load(Ordering::Relaxed) {
                    for (ty, owner) in [(TY, 1), (HandleType::Image, 2)] {
                        if let Some(found) = front.find_any(ty, 7) {
                            assert_eq!(found, resolved(u64::from(owner) * 10, owner));
                            seen += 1;
                        }
                    }
                }
                seen
            });
            for round in 0..200_000 {
                match round % 3 {
                    0 => slots[0].put(7, TY as u32, resolved(10, 1)),
                    1 => slots[0].put(7, HandleType::Image as u32, resolved(20, 2)),
                    _ => slots[0].clear(),
                }
            }
            stop.store(true, Ordering::Relaxed);
            let _ = reader.join().unwrap();
        });
    }
}
