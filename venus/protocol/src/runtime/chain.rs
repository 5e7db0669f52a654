//! Chains of structs: reads them from the stream, and walks them afterwards.
//!
//! On the wire, the sTypes of a chain come first, from the outermost to the innermost struct. The
//! members follow in the opposite order, like closing brackets. Reading needs no stack for that:
//! while the sTypes are read, each new struct points *back* to the one before it. While the members
//! are read, the pointers are turned around.

use std::ffi::c_void;
use std::ptr;

use super::decoder::Decoder;
use super::encoder::Encoder;
use super::error::{EncodeError, Reason, Result};
use super::value::{Base, Chained, Zeroed};
use super::{DecodeBody, DecodePartialBody, EncodeBody};
use crate::vk::StructureType;

/// The most structs that one chain can hold. Each struct may occur once, and `VkDeviceCreateInfo`
/// has the most kinds.
pub(crate) const MAX_LINKS: usize = 192;

/// A struct that a chain of an input may hold.
#[derive(Clone, Copy)]
pub(crate) struct InLink {
    stype: StructureType,
    size: usize,
    repeats: bool,
    decode: unsafe fn(*mut Base, &mut Decoder<'_>) -> Result<()>,
}

impl InLink {
    pub(crate) const fn of<T: DecodeBody>() -> Self {
        Self {
            stype: T::STYPE,
            size: size_of::<T>(),
            repeats: false,
            decode: decode_erased::<T>,
        }
    }

    /// A struct of which a chain may hold several (`allowduplicate` in the registry).
    pub(crate) const fn repeating(self) -> Self {
        Self {
            repeats: true,
            ..self
        }
    }
}

/// # Safety
/// `value` must point to a T that nobody else uses.
unsafe fn decode_erased<T: DecodeBody>(value: *mut Base, d: &mut Decoder<'_>) -> Result<()> {
    // SAFETY: as the caller promises.
    unsafe { &mut *value.cast::<T>() }.decode_body(d)
}

/// A struct that a chain of an output may hold.
#[derive(Clone, Copy)]
pub(crate) struct OutLink {
    stype: StructureType,
    size: usize,
    decode: unsafe fn(*mut Base, &mut Decoder<'_>) -> Result<()>,
    encode: unsafe fn(*const Base, &mut Encoder<'_>) -> Result<(), EncodeError>,
}

impl OutLink {
    pub(crate) const fn of<T: DecodePartialBody + EncodeBody>() -> Self {
        Self {
            stype: T::STYPE,
            size: size_of::<T>(),
            decode: decode_partial_erased::<T>,
            encode: encode_erased::<T>,
        }
    }
}

/// # Safety
/// The same as for [`decode_erased`].
unsafe fn decode_partial_erased<T: DecodePartialBody>(
    value: *mut Base,
    d: &mut Decoder<'_>,
) -> Result<()> {
    // SAFETY: as the caller promises.
    unsafe { &mut *value.cast::<T>() }.decode_partial_body(d)
}

/// # Safety
/// `value` must point to a T whose pointers are valid.
unsafe fn encode_erased<T: EncodeBody>(
    value: *const Base,
    e: &mut Encoder<'_>,
) -> Result<(), EncodeError> {
    // SAFETY: as the caller promises.
    unsafe { (*value.cast::<T>()).encode_body(e) }
}

/// The properties of a link that reading needs.
trait Link {
    fn stype(&self) -> StructureType;
    fn size(&self) -> usize;
    /// Whether several of this struct may be in a chain.
    fn repeats(&self) -> bool;
    /// # Safety
    /// `value` must point to the link's struct.
    unsafe fn decode(&self, value: *mut Base, d: &mut Decoder<'_>) -> Result<()>;
}

impl Link for InLink {
    fn stype(&self) -> StructureType {
        self.stype
    }
    fn size(&self) -> usize {
        self.size
    }
    fn repeats(&self) -> bool {
        self.repeats
    }
    unsafe fn decode(&self, value: *mut Base, d: &mut Decoder<'_>) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { (self.decode)(value, d) }
    }
}

impl Link for OutLink {
    fn stype(&self) -> StructureType {
        self.stype
    }
    fn size(&self) -> usize {
        self.size
    }
    fn repeats(&self) -> bool {
        // The guest reads the reply along its own chain, so all of its structs must be in it.
        true
    }
    unsafe fn decode(&self, value: *mut Base, d: &mut Decoder<'_>) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { (self.decode)(value, d) }
    }
}

fn position<L: Link>(allowed: &[L], stype: StructureType) -> Option<usize> {
    allowed
        .binary_search_by_key(&stype.0, |link| link.stype().0)
        .ok()
}

impl Decoder<'_> {
    /// Reads sType and chain of an input struct.
    #[inline]
    pub(crate) fn head<T: Chained>(
        &mut self,
        allowed: &[InLink],
    ) -> Result<(StructureType, *mut c_void)> {
        self.any_head::<T, InLink>(allowed)
    }

    /// Reads sType and chain of an output struct.
    #[inline]
    pub(crate) fn partial_head<T: Chained>(
        &mut self,
        allowed: &[OutLink],
    ) -> Result<(StructureType, *mut c_void)> {
        self.any_head::<T, OutLink>(allowed)
    }

    #[inline]
    fn any_head<T: Chained, L: Link>(
        &mut self,
        allowed: &[L],
    ) -> Result<(StructureType, *mut c_void)> {
        let p = self.prefix::<12>()?;
        let found = p.get::<StructureType, 0>();
        if found != T::STYPE {
            return Err(self.fatal(Reason::Type {
                found,
                expected: T::STYPE,
            }));
        }
        if p.get::<u64, 4>() == 0 {
            return Ok((found, ptr::null_mut()));
        }
        Ok((found, self.chain(allowed)?.cast()))
    }

    /// Reads the structs of a chain, after the word that announces the first.
    ///
    /// Vulkan allows each type once, except for those that repeat. Some programs break this rule,
    /// because drivers use the first struct of a type and ignore the others. So further structs of
    /// an input chain are read here and left out of the chain.
    fn chain<L: Link>(&mut self, allowed: &[L]) -> Result<*mut Base> {
        let mut seen = [0u64; MAX_LINKS / 64];
        let mut last: *mut Base = ptr::null_mut();
        loop {
            let p = self.prefix::<4>()?;
            let stype = p.get::<StructureType, 0>();
            let Some((index, link)) =
                position(allowed, stype).and_then(|i| allowed.get(i).map(|link| (i, link)))
            else {
                return Err(self.fatal(Reason::Link(stype)));
            };
            let Some(word) = seen.get_mut(index / 64) else {
                return Err(self.fatal(Reason::Link(stype)));
            };
            let bit = 1 << (index % 64);
            let is_left_out = *word & bit != 0 && !link.repeats();
            *word |= bit;
            let value = self
                .or_fatal(self.arena.zeroed_bytes(link.size()))?
                .cast::<Base>();
            // SAFETY: new memory of a struct that begins with a `Base`.
            unsafe {
                value.write(Base {
                    s_type: stype,
                    p_next: last,
                })
            };
            // The struct is aligned, so the lowest bit can mark that it is left out.
            last = value
                .as_ptr()
                .map_addr(|address| address | usize::from(is_left_out));
            if self.prefix::<8>()?.get::<u64, 0>() == 0 {
                break;
            }
        }
        let mut first: *mut Base = ptr::null_mut();
        while !last.is_null() {
            let is_left_out = last.addr() & 1 != 0;
            let value = last.map_addr(|address| address & !1);
            // SAFETY: written in the loop above.
            let Base {
                s_type,
                p_next: before,
            } = unsafe { *value };
            // SAFETY: written in the loop above, and nobody else has the pointer.
            unsafe { (*value).p_next = first };
            if let Some(link) = position(allowed, s_type).and_then(|i| allowed.get(i)) {
                // SAFETY: allocated with the size of this link, which its sType names.
                unsafe { link.decode(value, self)? };
            }
            if !is_left_out {
                first = value;
            }
            last = before;
        }
        Ok(first)
    }
}

impl Encoder<'_> {
    /// Writes sType and chain of an output struct. Structs that the protocol does not have are left
    /// out.
    ///
    /// # Safety
    /// `p_next` must be null or the first of a chain of valid structs.
    pub(crate) unsafe fn head(
        &mut self,
        stype: StructureType,
        p_next: *const c_void,
        allowed: &[OutLink],
    ) -> Result<(), EncodeError> {
        self.prefix::<4>()?.put::<_, 0>(stype);
        if !p_next.is_null() {
            // SAFETY: as the caller promises.
            return unsafe { self.chain(p_next.cast(), allowed) };
        }
        self.prefix::<8>()?.put::<u64, 0>(0);
        Ok(())
    }

    /// # Safety
    /// The same as for [`Self::head`].
    unsafe fn chain(
        &mut self,
        mut next: *const Base,
        allowed: &[OutLink],
    ) -> Result<(), EncodeError> {
        let mut links: [(*const Base, usize); MAX_LINKS] = [(ptr::null(), 0); MAX_LINKS];
        let mut count = 0;
        while !next.is_null() {
            // SAFETY: a valid struct, as the caller promises.
            let base = unsafe { *next };
            if let Some(index) = position(allowed, base.s_type) {
                let slot = links.get_mut(count).ok_or(EncodeError::Chain(MAX_LINKS))?;
                *slot = (next, index);
                count += 1;
                let mut p = self.prefix::<12>()?;
                p.put::<u64, 0>(1);
                p.put::<_, 8>(base.s_type);
            }
            next = base.p_next;
        }
        self.prefix::<8>()?.put::<u64, 0>(0);
        for (value, index) in links.iter().take(count).rev() {
            if let Some(link) = allowed.get(*index) {
                // SAFETY: its sType shows that it is this link's struct, and by the contract it is
                // valid.
                unsafe { (link.encode)(*value, self)? };
            }
        }
        Ok(())
    }
}

/// The first T in a chain.
///
/// # Safety
/// `p_next` must be null or the first of a chain of valid structs that live for `'a`.
pub unsafe fn find<'a, T: Chained>(p_next: *const c_void) -> Option<&'a T> {
    let mut next = p_next.cast::<Base>();
    while !next.is_null() {
        // SAFETY: a valid struct, as the caller promises.
        let base = unsafe { *next };
        if base.s_type == T::STYPE {
            // SAFETY: its sType shows that it is a T.
            return Some(unsafe { &*next.cast::<T>() });
        }
        next = base.p_next;
    }
    None
}

/// The first T in a chain, as a mutable reference.
///
/// # Safety
/// The same as for [`find`], and nobody else may use that struct.
pub unsafe fn find_mut<'a, T: Chained>(p_next: *mut c_void) -> Option<&'a mut T> {
    let mut next = p_next.cast::<Base>();
    while !next.is_null() {
        // SAFETY: a valid struct, as the caller promises.
        let base = unsafe { *next };
        if base.s_type == T::STYPE {
            // SAFETY: its sType shows that it is a T, and by the contract nobody else uses it.
            return Some(unsafe { &mut *next.cast::<T>() });
        }
        next = base.p_next;
    }
    None
}

/// Removes the first struct of type `stype` from the chain of `head` and returns it. `head` itself
/// stays.
///
/// # Safety
/// `head` and its chain must be valid structs that nobody else uses.
pub unsafe fn unlink<T: Chained>(head: &mut T, stype: StructureType) -> Option<*mut c_void> {
    let mut before = ptr::from_mut(head).cast::<Base>();
    loop {
        // SAFETY: a valid struct, as the caller promises.
        let next = unsafe { (*before).p_next };
        if next.is_null() {
            return None;
        }
        // SAFETY: a valid struct, as the caller promises.
        let base = unsafe { *next };
        if base.s_type == stype {
            // SAFETY: a valid struct that nobody else uses, as the caller promises.
            unsafe { (*before).p_next = base.p_next };
            return Some(next.cast());
        }
        before = next;
    }
}

// SAFETY: a number and a pointer.
unsafe impl Zeroed for Base {}
