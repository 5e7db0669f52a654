//! The types of commands' arguments: arrays, strings and objects.
//!
//! A pointer to one value is a plain reference. All types are laid out as the schema reads them:
//! [`Array`] and [`Objects`] begin with pointer and length.

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr;

use super::value::Handle;

/// An array argument: a slice that may be null.
#[repr(C)]
pub struct Array<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

impl<'a, T> Array<'a, T> {
    /// No array: a null pointer.
    pub const NULL: Self = Self {
        start: ptr::null_mut(),
        len: 0,
        life: PhantomData,
    };

    /// The pointer for the driver: null or the first element.
    pub fn as_ptr(&self) -> *const T {
        self.start
    }

    /// The pointer for the driver to write to: null or the first element.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.start
    }

    /// A pointer that is never null. The length does not depend on it, so that asking for it alone
    /// costs nothing.
    #[inline]
    fn start_or_dangling(&self) -> *mut T {
        match self.start.is_null() {
            true => ptr::dangling_mut(),
            false => self.start,
        }
    }

    /// The pointer alone, for a struct member.
    pub(crate) fn into_raw(self) -> *mut T {
        self.start
    }

    /// Whether the pointer is null; an empty array need not be.
    pub fn is_null(&self) -> bool {
        self.start.is_null()
    }

    /// The first `n` elements, or all if there are fewer.
    pub fn first(&self, n: u64) -> &[T] {
        let n = usize::try_from(n).unwrap_or(usize::MAX).min(self.len);
        self.get(..n).unwrap_or_default()
    }
}

impl<'a, T> From<&'a mut [T]> for Array<'a, T> {
    fn from(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            life: PhantomData,
        }
    }
}

impl<T> Deref for Array<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        let start = self.start_or_dangling();
        // SAFETY: pointer and length come from a slice that lives as long as 'a, or the array is
        // `NULL`: then the length is 0, and the pointer dangles.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

impl<T> DerefMut for Array<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let start = self.start_or_dangling();
        // SAFETY: pointer and length come from a mutable slice that lives as long as 'a, or the
        // array is `NULL`: then the length is 0, and the pointer dangles.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }
}

/// A handle argument: the driver's handle and the guest's id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<T> {
    /// The guest's id; 0 for null.
    pub id: u64,
    /// The driver's handle; null where the id is 0.
    pub handle: T,
}

impl<T: Handle> Object<T> {
    /// An object on the guest's side: its handle is its id.
    pub fn guest(id: u64) -> Self {
        Self {
            id,
            handle: T::from_raw(id),
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.id == 0
    }
}

/// An array of handles with the guest's ids.
#[repr(C)]
pub struct Objects<'a, T> {
    handles: Array<'a, T>,
    ids: *const u64,
}

impl<'a, T: Handle> Objects<'a, T> {
    /// No array.
    pub const NULL: Self = Self {
        handles: Array::NULL,
        ids: ptr::null(),
    };

    /// An array of handles with their ids.
    pub(crate) fn new(handles: Array<'a, T>, ids: &'a [u64]) -> Self {
        debug_assert_eq!(handles.len(), ids.len());
        Self {
            handles,
            ids: ids.as_ptr(),
        }
    }

    /// The ids, in the order of the handles.
    pub fn ids(&self) -> &'a [u64] {
        if self.ids.is_null() {
            return &[];
        }
        // SAFETY: the pointer comes from a slice that is as long as the handles and lives as long.
        unsafe { std::slice::from_raw_parts(self.ids, self.handles.len()) }
    }

    /// The pointer for the driver: null or the first handle.
    pub fn as_ptr(&self) -> *const T {
        self.handles.as_ptr()
    }

    /// Whether the pointer is null.
    pub fn is_null(&self) -> bool {
        self.handles.is_null()
    }
}

/// Objects on the guest's side: their handles are their ids.
impl<'a, T: Handle> From<&'a mut [T]> for Objects<'a, T> {
    fn from(handles: &'a mut [T]) -> Self {
        Self {
            handles: handles.into(),
            ids: ptr::null(),
        }
    }
}

impl<T> Deref for Objects<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.handles
    }
}

/// A string argument, null or NUL-terminated.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Text<'a> {
    start: *const c_char,
    life: PhantomData<&'a CStr>,
}

impl<'a> Text<'a> {
    /// No string.
    pub const NULL: Self = Self {
        start: ptr::null(),
        life: PhantomData,
    };

    /// A string that the decoder has checked.
    pub(crate) fn new(start: *const c_char) -> Self {
        Self {
            start,
            life: PhantomData,
        }
    }

    /// The pointer for the driver.
    pub fn as_ptr(&self) -> *const c_char {
        self.start
    }

    /// The string, if it isn't null.
    pub fn to_c_str(&self) -> Option<&'a CStr> {
        if self.start.is_null() {
            return None;
        }
        // SAFETY: the pointer comes from a `CStr`, or from the decoder, which checked the NUL.
        Some(unsafe { CStr::from_ptr(self.start) })
    }
}

impl<'a> From<&'a CStr> for Text<'a> {
    fn from(text: &'a CStr) -> Self {
        Self::new(text.as_ptr())
    }
}
