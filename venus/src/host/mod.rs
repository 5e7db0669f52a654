//! The host's Vulkan: the library, and its GPUs.
//!
//! [`gpus`] lists them for the user, and [`survey()`] tells more for bug reports. `Host` and
//! `GpuFacts` are what a renderer keeps of the library and of each GPU.

mod facts;
mod findings;
mod functions;
mod gpu;
mod library;
pub(crate) mod portability;
pub(crate) mod queues;
mod survey;
pub(crate) mod version;

pub(crate) use facts::GpuFacts;
pub use findings::Findings;
pub use gpu::{Gpu, GpuKind, gpus};
pub(crate) use library::Host;
pub use library::Vulkan;
pub use survey::{
    Difference, GpuMemory, Importable, MemoryHeap, MemoryType, Survey, differences, survey,
};
