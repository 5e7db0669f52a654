//! Host memory that holds pixels: those of 2D resources, and the shadows of guest blobs.
//!
//! A [`Surface`] is an anonymous mapping of its own, or a renderer's memory. It is whole pages, so
//! that a GPU can import it, and zero until it is written. The device copies into it while a screen
//! may read it. Both sides copy through raw memory and never make a Rust reference into it. A race
//! therefore shows as a torn picture and as nothing else.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use vm_memory::VolatileSlice;

use crate::budget::{Charge, PIXEL_BYTES, Pool};
use crate::error::CommandError;
use crate::screen::{PixelMemory, WritablePixels};

/// A page-aligned block of pixels. It is freed when its last owner drops it.
pub(crate) struct Surface {
    start: NonNull<u8>,
    length: usize,
    /// The memory of a renderer that it lies in. `None` for a mapping of its own.
    lies_in: Option<Arc<dyn WritablePixels>>,
    _charge: Charge,
}

// SAFETY: the mapping belongs to this value alone, or may be written by anybody at any time. It is
// reached only through raw copies, which any thread may do.
unsafe impl Send for Surface {}
// SAFETY: as above; no method hands out a reference into the mapping.
unsafe impl Sync for Surface {}

const LIMIT: CommandError = CommandError::Limit {
    what: "bytes of pixel memory",
    limit: PIXEL_BYTES,
};

impl Surface {
    /// Maps `bytes` of zeroes, rounded up to pages. They count against `pool`.
    pub(crate) fn new(bytes: u64, pool: &Arc<Pool>) -> Result<Arc<Self>, CommandError> {
        let page = crate::system::page_size();
        let Some(length) = bytes.max(1).checked_next_multiple_of(page) else {
            return Err(LIMIT);
        };
        let Some(charge) = pool.charge(length) else {
            return Err(LIMIT);
        };
        let length = usize::try_from(length).map_err(|_| LIMIT)?;
        // SAFETY: a fresh private anonymous mapping at an address of the kernel's choice touches no
        // other memory.
        let mapped = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .map_err(|error| CommandError::HostMemory(length as u64, error.into()))?;
        hesper_system::keep_out_of_core_dumps(mapped.addr(), length);
        let start = NonNull::new(mapped.cast::<u8>()).ok_or_else(|| {
            CommandError::HostMemory(length as u64, std::io::ErrorKind::OutOfMemory.into())
        })?;
        Ok(Arc::new(Self {
            start,
            length,
            lies_in: None,
            _charge: charge,
        }))
    }

    /// The pixels in a renderer's memory. They count against `pool`.
    pub(crate) fn over(
        memory: Arc<dyn WritablePixels>,
        pool: &Arc<Pool>,
    ) -> Result<Arc<Self>, CommandError> {
        let (start, length) = memory.host_pages();
        let start = NonNull::new(start.cast_mut()).ok_or(LIMIT)?;
        let charge = pool.charge(length as u64).ok_or(LIMIT)?;
        Ok(Arc::new(Self {
            start,
            length,
            lies_in: Some(memory),
            _charge: charge,
        }))
    }

    /// The `length` bytes from `offset` on, to copy into. `None` when they are not all inside.
    pub(crate) fn slice(&self, offset: u64, length: u64) -> Option<VolatileSlice<'_>> {
        let offset = usize::try_from(offset).ok()?;
        let length = usize::try_from(length).ok()?;
        if offset.checked_add(length)? > self.length {
            return None;
        }
        // SAFETY: `offset + length` is inside the mapping, which lives as long as `self`;
        // VolatileSlice copies through raw pointers.
        Some(unsafe { VolatileSlice::new(self.start.as_ptr().add(offset), length) })
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        if self.lies_in.is_some() {
            return;
        }
        // SAFETY: this is exactly the range that `new` mapped, and no one can reach it after the
        // last owner.
        if let Err(error) = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.length) } {
            log::error!("cannot unmap {} bytes of pixels: {error}", self.length);
        }
    }
}

// SAFETY: the mapping made by `new` is readable for `length` bytes and unmapped only by `drop`.
// That of a renderer lives as long as `lies_in`.
unsafe impl PixelMemory for Surface {
    fn host_pages(&self) -> (*const u8, usize) {
        (self.start.as_ptr(), self.length)
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        let inside = self.length.saturating_sub(offset).min(into.len());
        let (pixels, past_end) = into.split_at_mut(inside);
        past_end.fill(0);
        if let Some(slice) = self.slice(offset as u64, inside as u64) {
            slice.copy_to(pixels);
        }
    }
}

// SAFETY: `new` maps it for writing, too, and a renderer's memory is writable.
unsafe impl WritablePixels for Surface {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surface_is_whole_zeroed_pages_and_reads_zero_past_its_end() {
        let pool = Pool::new(1 << 20);
        let surface = Surface::new(5000, &pool).unwrap();
        let page = rustix::param::page_size();
        let (start, length) = surface.host_pages();
        assert_eq!(start as usize % page, 0);
        assert_eq!(length, 5000_usize.next_multiple_of(page));
        surface
            .slice(length as u64 - 2, 2)
            .unwrap()
            .copy_from(&[7_u8, 8]);
        let mut bytes = [1_u8; 4];
        surface.read(length - 2, &mut bytes);
        assert_eq!(bytes, [7, 8, 0, 0]);
        surface.read(usize::MAX, &mut bytes);
        assert_eq!(bytes, [0; 4]);
        assert!(surface.slice(length as u64 - 1, 2).is_none());
        assert!(surface.slice(u64::MAX, 2).is_none());
        drop(surface);
        assert_eq!(pool.used(), 0);
    }
}
