//! The host's Vulkan: the library, and which GPUs it has.
//!
//! [`gpus`] lists them for the user, [`survey()`] tells more of them for bug reports; `Host` is what a renderer keeps: the
//! loaded library and the answer to "does the guest see this GPU".

mod facts;
mod functions;
mod gpu;
mod library;
pub(crate) mod portability;
pub(crate) mod queues;
mod survey;
pub(crate) mod version;

pub(crate) use facts::GpuFacts;
pub use gpu::{Gpu, GpuKind, gpus};
pub(crate) use library::Host;
pub use library::Vulkan;
pub use survey::{
    Difference, GpuMemory, Importable, MemoryHeap, MemoryType, Survey, differences, survey,
};
