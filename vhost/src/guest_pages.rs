//! Guest memory of resources, as renderers and screens get it.

use std::fs::File;
use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

/// Guest memory of a resource, for a renderer that answers in it. It can be written for as long as the resource has it;
/// afterwards the pages are the guest's for other things, and nothing is written any more.
pub trait GuestPages: Send + Sync {
    /// Bytes of it.
    fn size(&self) -> u64;

    /// Writes at `offset`. For short messages, [`GUEST_WRITE`] bytes at most: the device waits meanwhile. Says whether the
    /// bytes are written; not when the resource has lost its memory, or they do not fit.
    fn write(&self, offset: u64, bytes: &[u8]) -> bool;

    /// Where its pages are now, to be mapped a second time; `None` when the resource has lost its memory, or where it is not
    /// whole pages of files. Whoever maps them lets go of them in [`crate::renderer::Context::detach_resource`], before that returns, and when
    /// the context ends: the guest has its pages back then.
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

/// The most that [`GuestPages::write`] writes at a time.
pub const GUEST_WRITE: usize = 64 << 10;

/// Guest memory that a renderer has been lent, in pieces, as this process has it mapped.
///
/// The pieces stay mapped as long as this value lives, also when the VMM changes the table of memory: it holds the mapping. Whose
/// pages they are is another question: the guest takes them for other things as soon as it has the answer to
/// `RESOURCE_DETACH_BACKING` or `RESOURCE_UNREF`, which the device gives when the [`crate::resource3d::Done`] of [`crate::resource3d::Resources3d::detach_memory`] or
/// [`crate::resource3d::Resources3d::destroy`] is told. Until then a guest may write to them at any time: what is in them must be copied or be
/// plain pixels, and no Rust reference may be made into them.
pub struct AttachedPages {
    pieces: Vec<(*mut u8, usize)>,
    /// Keeps the pieces mapped.
    _memory: GuestMemoryMmap,
    /// The backing, whose pieces count against the guest's budget for as long as they are used here.
    _backing: Arc<dyn Send + Sync>,
}

// SAFETY: the pointers are to memory that is shared with the guest anyway and that any thread may access; what they point to
// belongs to `_memory`, which is Send and Sync itself.
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
