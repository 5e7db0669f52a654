//! Framebuffers in guest memory that the screen reads in place.
//!
//! The pages of a guest blob are scattered. A screen that is able to do so maps them side by side
//! ([`ScanoutSink::map_guest`]), once for each blob, so that no flush copies them. The mapping must
//! stay valid: it is given up when the VMM lays out guest memory anew, or when the guest uses the
//! pages for something else.

use std::sync::Arc;

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap};

use crate::backing::Backing;
use crate::screen::{GuestPixels, PixelMemory, ScanoutSink};

/// The memory of a guest blob, mapped by the screen. The guest has it back on drop.
pub(crate) struct GuestFramebuffer {
    pixels: Arc<dyn GuestPixels>,
    /// The guest memory that was mapped.
    memory: GuestMemoryMmap,
}

impl GuestFramebuffer {
    /// Lets `screen` map all of `backing`. `None` when it does not.
    pub(crate) fn new(
        screen: &dyn ScanoutSink,
        backing: &Backing,
        memory: &GuestMemoryMmap,
    ) -> Option<Self> {
        Some(Self {
            pixels: screen.map_guest(backing.pages(memory)?)?,
            memory: memory.clone(),
        })
    }

    /// The pixels for the screen, unless the VMM has laid out guest memory anew since they were
    /// mapped.
    pub(crate) fn pixels(&self, memory: &GuestMemoryMmap) -> Option<Arc<dyn PixelMemory>> {
        let is_same = self.memory.num_regions() == memory.num_regions()
            && self
                .memory
                .iter()
                .zip(memory.iter())
                .all(|(then, now)| std::ptr::eq(then, now));
        is_same.then(|| Arc::clone(&self.pixels) as _)
    }
}

impl Drop for GuestFramebuffer {
    fn drop(&mut self) {
        self.pixels.give_back();
    }
}
