//! Emulation of what guests need and hosts may lack: dma-buf, DRM format modifiers, foreign queue
//! families, sync files.
//!
//! Handlers use this layer before they call the driver. It decides which extensions a guest sees
//! and which are enabled on the host ([`extensions`]). It answers or rewrites what concerns the
//! emulated ones: buffers and memory ([`dma_buf`]), images ([`modifier`]), barriers ([`foreign`]),
//! semaphores and fences ([`sync_fd`]). Shared pictures that the driver cannot lay out get mirrors
//! ([`mirror`]). It hides sparse binding that the host gets wrong ([`sparse`]) and what the
//! protocol cannot carry ([`capture_replay`]). It declares what may be bound to imported memory
//! ([`host_allocation`]).
//!
//! Under [`Policy::Software`], nothing is shared with the guest's display server. dma-buf,
//! modifiers and foreign queues are hidden, and the guest copies finished pictures by CPU. Its
//! swapchains still need to import sync files into semaphores. Such an import means "signalled by
//! now", and becomes an empty submit.
//!
//! Under [`Policy::DmaBuf`], the guest may export memory. A "dma-buf" is then shared memory, like
//! all that the guest can map. An image with a modifier is a linear image in such memory, or has a
//! mirror there; modifier 0, `LINEAR`, is the only one. A transfer to a foreign queue family does
//! nothing but copy to mirrors, since all see the same pages. All of it is emulated even where the
//! host has these extensions: what the host would export is not what guests map.
//!
//! The rewriting does not depend on the policy. A correct guest does not use what it was not
//! offered, and what any other guest sends must not reach the driver either.

pub(crate) mod capture_replay;
mod chain;
pub(crate) mod dma_buf;
pub(crate) mod extensions;
pub(crate) mod foreign;
pub(crate) mod host_allocation;
pub(crate) mod mirror;
pub(crate) mod modifier;
pub(crate) mod sparse;
pub(crate) mod sync_fd;

use crate::host::Gpu;
use crate::options::WsiPolicy;

/// How the guest presents; see [`WsiPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Nothing is shared with display servers.
    Software,
    /// Linear images in shared memory are.
    DmaBuf,
}

impl Policy {
    /// The policy for a setting and a GPU.
    pub(crate) fn new(setting: WsiPolicy, gpu: &Gpu) -> Self {
        match setting {
            WsiPolicy::Auto if gpu.copied_pictures.is_none() => Self::DmaBuf,
            WsiPolicy::Auto | WsiPolicy::Software => Self::Software,
            WsiPolicy::Dmabuf => Self::DmaBuf,
        }
    }
}
