//! Traits of values: which can be zero, which can be copied as bytes, which are handles.

use super::slots::Front;
use super::strays::Strays;
use crate::vk::{HandleType, StructureType};

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("the wire format is read in place of C's layout: a little-endian 64-bit host");

/// A type for which all-zero bytes are a valid value.
///
/// # Safety
/// All-zero bytes must be a valid value.
pub unsafe trait Zeroed: Copy {
    /// All bytes zero.
    // SAFETY: the trait guarantees that all-zero bytes are valid.
    const ZERO: Self = unsafe { std::mem::zeroed() };
}

/// A type with the same bytes in memory as on the wire.
///
/// # Safety
/// Any bytes must be a valid value, and there must be no padding.
pub unsafe trait Plain: Copy {
    /// Whether it is or has an enum.
    const HAS_ENUMS: bool = false;

    /// Replaces values that Vulkan does not have by such as it has.
    #[inline(always)]
    fn make_known(&mut self, _strays: &Strays) {}
}

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

// SAFETY: any bytes are valid elements, and there is no padding between elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {
    const HAS_ENUMS: bool = T::HAS_ENUMS;

    #[inline(always)]
    fn make_known(&mut self, strays: &Strays) {
        self.as_mut_slice()
            .iter_mut()
            .for_each(|v| v.make_known(strays));
    }
}
// SAFETY: all-zero bytes are valid elements.
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
    /// The struct's sType.
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
    /// The type of the object.
    const TYPE: HandleType;
    /// Makes a handle from the driver's value, or a guest's id.
    fn from_raw(raw: u64) -> Self;
    /// The driver's value, or a guest's id.
    fn raw(self) -> u64;
}

/// The renderer's answer about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The driver's handle; 0 when there is no such object of that type.
    pub handle: u64,
    /// The object's owner. All objects of a command must have the same owner as its first.
    pub owner: u32,
}

impl Resolved {
    /// The answer for an object that does not exist.
    pub const UNKNOWN: Self = Self {
        handle: 0,
        owner: 0,
    };
}

/// The renderer's object table, which maps guest ids to driver handles.
pub trait HandleMap {
    /// The driver's handle of object `id` if it exists and has the type `ty`. Called for handles
    /// that are not in [`HandleMap::front`].
    fn resolve(&self, ty: HandleType, id: u64) -> Resolved;

    /// Whether the guest created object `id`, the driver failed, and the guest was not told. Called
    /// for objects that do not exist.
    fn has_failed(&self, _ty: HandleType, _id: u64) -> bool {
        false
    }

    /// The part of the table that decoders may read directly, in its present state.
    fn front(&self) -> Front<'_> {
        Front::empty()
    }
}

/// Uses every id as a handle, for traces, tests and fuzzers.
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
