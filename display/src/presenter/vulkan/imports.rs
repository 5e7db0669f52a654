//! Imports the guest's memory into the GPU where possible. Other pictures go through a staging
//! buffer.

use std::ptr::NonNull;
use std::sync::Arc;

use super::gpu::Gpu;
use super::memory::Buffer;
use crate::picture::Picture;

/// How many pictures of a window stay imported. A guest flips between two or three. An import takes
/// up to half a millisecond, because pages are pinned, so it must not be repeated for each flip.
const KEPT: usize = 4;

/// The imported pictures of one window.
pub(super) struct Imports {
    gpu: Arc<Gpu>,
    /// The most recently used one is the last.
    kept: Vec<ImportedPicture>,
}

struct ImportedPicture {
    /// Declared before the picture: the import must end before its memory.
    import: Option<Import>,
    picture: Picture,
}

/// A picture's memory as the GPU sees it.
pub(super) struct Import {
    pub(super) buffer: Buffer,
    /// The byte of the memory at which the buffer starts.
    pub(super) start: u64,
}

impl Imports {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Imports {
        Imports {
            gpu: gpu.clone(),
            kept: Vec::with_capacity(KEPT + 1),
        }
    }

    /// The import of the picture's memory; `None` when the picture must be uploaded.
    pub(super) fn import(&mut self, picture: &Picture) -> Option<&Import> {
        match self
            .kept
            .iter()
            .position(|source| source.picture.same_pixels(picture))
        {
            Some(found) => {
                let end = self.kept.len();
                self.kept.get_mut(found..end)?.rotate_left(1);
            }
            None => {
                let import = Import::new(&self.gpu, picture);
                if import.is_none() {
                    log::debug!("{picture:?} cannot be imported by the GPU, so it is uploaded");
                }
                if self.kept.len() == KEPT {
                    self.kept.remove(0);
                }
                self.kept.push(ImportedPicture {
                    import,
                    picture: picture.clone(),
                });
            }
        }
        self.kept.last()?.import.as_ref()
    }

    /// Drops pictures whose memory no one else owns any more, and all of them when the guest shows
    /// nothing. The GPU must not be using them.
    pub(super) fn sweep(&mut self, current: Option<&Picture>) {
        let Some(current) = current else {
            self.kept.clear();
            return;
        };
        let mut at = 0;
        while let Some(source) = self.kept.get(at) {
            let memory = source.picture.memory();
            let same = |other: &&ImportedPicture| Arc::ptr_eq(other.picture.memory(), memory);
            let ours = self.kept.iter().filter(same).count();
            if Arc::ptr_eq(current.memory(), memory) || Arc::strong_count(memory) > ours {
                at += 1;
            } else {
                self.kept.remove(at);
            }
        }
    }
}

impl Import {
    fn new(gpu: &Arc<Gpu>, picture: &Picture) -> Option<Import> {
        let alignment = gpu.host_import.as_ref()?.alignment;
        let layout = picture.layout();
        // A copy command demands this of buffer offsets and row lengths, for pixels of four bytes.
        if !layout.offset.is_multiple_of(4) || !layout.stride.is_multiple_of(4) {
            return None;
        }
        let pages = picture.memory().host_pages()?;
        let base: NonNull<u8> = pages.cast();
        if !(base.addr().get() as u64).is_multiple_of(alignment) {
            return None;
        }
        let start = layout.offset - layout.offset % alignment;
        let end = picture
            .byte_of(layout.width, layout.height - 1)
            .next_multiple_of(alignment);
        if end > pages.len() as u64 {
            return None;
        }
        // SAFETY: `start` is inside the mapping, as `end` is.
        let address = unsafe { base.add(start as usize) };
        // SAFETY: the pages stay mapped while the memory lives (PixelMemory's promise), and
        // `ImportedPicture` keeps it for longer than the import.
        let buffer = unsafe { Buffer::imported(gpu, address, end - start) }?;
        Some(Import { buffer, start })
    }
}
