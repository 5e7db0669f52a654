//! Traits of values: what can be zero, what can be copied as bytes, what is a handle.

use super::slots::Front;
use crate::vk::{HandleType, StructureType};

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("the wire format is read in place of C's layout: a little-endian 64-bit host");

/// A type whose all-zero bytes are a valid value.
///
/// # Safety
/// As said.
pub unsafe trait Zeroed: Copy {
    /// All bytes zero.
    // SAFETY: the trait promises that zero is valid.
    const ZERO: Self = unsafe { std::mem::zeroed() };
}

/// A type whose image in memory is its image on the wire.
///
/// # Safety
/// Any bytes must be a valid value, and there must be no padding.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($ty:ty)*) => {
        $(
            // SAFETY: a number.
            unsafe impl Plain for $ty {}
            // SAFETY: a number.
            unsafe impl Zeroed for $ty {}
        )*
    };
}
plain!(u8 u16 u32 u64 i8 i32 i64 f32 f64 usize);

// SAFETY: as its elements, without padding between them.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
// SAFETY: as its elements.
unsafe impl<T: Zeroed, const N: usize> Zeroed for [T; N] {}
// SAFETY: null is a valid raw pointer.
unsafe impl<T> Zeroed for *const T {}
// SAFETY: null is a valid raw pointer.
unsafe impl<T> Zeroed for *mut T {}

/// A struct with sType and pNext.
///
/// # Safety
/// It must be repr(C) and begin with a [`StructureType`] and a pointer.
pub unsafe trait Chained: Zeroed {
    /// Its sType.
    const STYPE: StructureType;
}

/// The beginning of every [`Chained`] struct.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Base {
    pub(crate) s_type: StructureType,
    pub(crate) p_next: *mut Base,
}

/// A Vulkan handle.
pub trait Handle: Zeroed {
    /// What it is of.
    const TYPE: HandleType;
    /// From the driver's value, or a guest's id.
    fn from_raw(raw: u64) -> Self;
    /// To the driver's value, or a guest's id.
    fn raw(self) -> u64;
}

/// What the renderer knows about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The driver's handle; 0 when there is no such object of that type.
    pub handle: u64,
    /// What it belongs to. All objects that one command names must have the same owner as the first.
    pub owner: u32,
}

impl Resolved {
    /// No such object.
    pub const UNKNOWN: Self = Self {
        handle: 0,
        owner: 0,
    };
}

/// How guest ids become driver handles: the renderer's object table.
pub trait HandleMap {
    /// The driver's handle of object `id` if it exists and is of type `ty`. Asked for handles that are not found in
    /// [`HandleMap::front`].
    fn resolve(&self, ty: HandleType, id: u64) -> Resolved;

    /// Whether object `id` was to be made, and the driver failed, and the guest was not told. Asked for objects that do not exist.
    fn has_failed(&self, _ty: HandleType, _id: u64) -> bool {
        false
    }

    /// The part of the table that decoders may read by themselves, as it is now.
    fn front(&self) -> Front<'_> {
        Front::empty()
    }
}

/// Takes every id for a handle: for traces, tests and fuzzers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl HandleMap for Identity {
    fn resolve(&self, _: HandleType, id: u64) -> Resolved {
        Resolved {
            handle: id,
            owner: 0,
        }
    }
}
