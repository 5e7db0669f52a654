//! Guest memory of resources, as renderers and screens get it.

use std::fs::File;
use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

/// Guest memory of a resource, for a renderer that writes its answers into it. It can be written
/// while the resource has it. Afterwards the guest uses the pages for other things, and nothing is
/// written.
pub trait GuestPages: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Writes `bytes` at `offset`: short messages of at most [`GUEST_WRITE`] bytes, since the
    /// device waits meanwhile. Returns whether the bytes are written. They are not when the
    /// resource has lost its memory, or when they do not fit.
    fn write(&self, offset: u64, bytes: &[u8]) -> bool;

    /// The files and offsets of its pages, to be mapped a second time. `None` when the resource has
    /// lost its memory, or when it is not whole pages of files.
    ///
    /// Whoever maps the pages must unmap them before [`crate::renderer::Context::detach_resource`]
    /// returns, and when the context ends. The guest has its pages back then.
    fn runs(&self) -> Option<Vec<GuestRun>>;
}

/// A run of pages of guest memory, in the file by which the VMM shares it.
#[derive(Clone, Debug)]
pub struct GuestRun {
    /// The file.
    pub file: Arc<File>,
    /// Where the run begins in it, in bytes, a multiple of the host's page size.
    pub offset: u64,
    /// Its size in bytes, a multiple of the host's page size.
    pub size: u64,
}

/// The most bytes that [`GuestPages::write`] writes at a time.
pub const GUEST_WRITE: usize = 64 << 10;

/// Guest memory that is attached to a 3D resource, in pieces, as this process has it mapped.
///
/// The pieces stay mapped as long as this value lives, even when the VMM changes the memory table.
/// But they do not belong to the renderer that long. The guest uses the pages for other things as
/// soon as its `RESOURCE_DETACH_BACKING` or `RESOURCE_UNREF` is answered. The device answers when
/// the [`crate::resource3d::Done`] of [`crate::resource3d::Resources3d::detach_memory`] or
/// [`crate::resource3d::Resources3d::destroy`] is told.
///
/// The guest may write to the pages at any time. What is in them must be copied or be plain pixels,
/// and no Rust reference may be made into them.
pub struct AttachedPages {
    pieces: Vec<(*mut u8, usize)>,
    /// Keeps the pieces mapped.
    _memory: GuestMemoryMmap,
    /// The backing. Its pieces count against the guest's budget for as long as they are used here.
    _backing: Arc<dyn Send + Sync>,
}

// SAFETY: the pointers are to memory that is shared with the guest anyway and that any thread may
// access; what they point to belongs to `_memory`, which is Send and Sync itself.
unsafe impl Send for AttachedPages {}
// SAFETY: as above; no method hands out a reference into the memory.
unsafe impl Sync for AttachedPages {}

impl AttachedPages {
    pub(crate) fn new(
        pieces: Vec<(*mut u8, usize)>,
        memory: &GuestMemoryMmap,
        backing: Arc<dyn Send + Sync>,
    ) -> Self {
        Self {
            pieces,
            _memory: memory.clone(),
            _backing: backing,
        }
    }

    /// Address and length of each piece, in order.
    pub fn pieces(&self) -> &[(*mut u8, usize)] {
        &self.pieces
    }
}
