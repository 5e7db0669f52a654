//! Memory that guest, host and GPU share.
//!
//! [`SharedMemory`] is a descriptor, a size, and this process's mapping of it. It holds rings,
//! replies, every `HOST_VISIBLE` allocation, and the guest's own blobs that a guest uses
//! ([`GuestPages`]).

mod command_memory;
mod guest_memories;
mod guest_pages;
mod host_import;
mod host_mappings;
mod image_test;
mod quota;
mod self_test;
mod shared;
mod sparse_test;
mod view;

pub(crate) use command_memory::CommandMemory;
pub(crate) use guest_memories::{GuestMemories, GuestMemory};
pub use guest_pages::{GuestPages, Mappings};
pub(crate) use host_import::{HOST_ALLOCATION, HostImport, import_info};
pub(crate) use host_mappings::HostMappings;
pub(crate) use image_test::Optimal;
pub(crate) use quota::{Quota, Short};
pub(crate) use self_test::{Declares, Importable, importable};
pub use shared::{Lender, SharedMemory, page_size};
pub(crate) use sparse_test::Sparse;
pub(crate) use view::{HEAPS, HeapBudgets, MemoryView};
