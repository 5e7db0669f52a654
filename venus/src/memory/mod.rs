//! Memory that guest, host and GPU see alike.
//!
//! [`SharedMemory`] is a descriptor, a size and this process's mapping of it. Rings, replies and every
//! `HOST_VISIBLE` allocation live in it, and guest blobs that a guest names ([`GuestPages`]).

mod command;
mod gathered;
mod image_test;
mod import;
mod mappings;
mod quota;
mod self_test;
mod shared;
mod sparse_test;
mod view;

pub(crate) use command::{CommandCharge, CommandMemory};
pub use gathered::{GuestPages, Mappings};
pub(crate) use image_test::Optimal;
pub(crate) use import::{HostImport, import_info};
pub(crate) use mappings::HostMappings;
pub(crate) use quota::Quota;
pub(crate) use self_test::{Declares, Importable, importable};
pub use shared::{SharedMemory, page_size};
pub(crate) use sparse_test::Sparse;
pub(crate) use view::{HEAPS, HeapBudgets, MemoryView};
