//! Framebuffers in guest memory that the screen reads where they are.
//!
//! The pages of a guest blob are scattered. A screen that can maps them side by side ([`ScanoutSink::map_guest`]), once for
//! each blob, and no flush copies them. What it has mapped must be the memory that the guest means, and only as long as the guest
//! means it for a picture.

use std::sync::Arc;

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap};

use crate::backing::Backing;
use crate::screen::{GuestPixels, PixelMemory, ScanoutSink};

/// The memory of a guest blob in the hands of the screen; the guest has it back on drop.
pub(crate) struct GuestFramebuffer {
    pixels: Arc<dyn GuestPixels>,
    /// The guest memory that it was taken from.
    memory: GuestMemoryMmap,
}

impl GuestFramebuffer {
    /// Lends all of `backing`, if `screen` takes it.
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

    /// The pixels for the screen, unless the VMM has laid out the guest's memory anew since they were lent.
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
