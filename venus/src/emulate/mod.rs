//! What guests need and hosts may lack: dma-buf, DRM format modifiers, foreign queue families, sync files.
//!
//! This layer stands between the handlers and the driver. It decides which extensions a guest sees and which the host is
//! asked for ([`extensions`]), and answers or rewrites what concerns the emulated ones: buffers and memory
//! ([`dma_buf`]), images ([`modifier`]), barriers ([`foreign`]), semaphores and fences ([`sync_fd`]). Nothing else
//! in the renderer knows about them. Sparse binding that the host gets wrong is hidden here, too ([`sparse`]),
//! and what may lie in imported memory is declared ([`host_allocation`]).
//!
//! Under [`Policy::Software`] nothing is shared with the guest's display server: dma-buf, modifiers and foreign queues
//! are hidden, and the guest copies finished pictures by CPU. What its swapchains still demand is that
//! semaphores can be imported from sync files: an import means "signalled by now", and is carried out as an
//! empty submit.
//!
//! Under [`Policy::DmaBuf`] the guest may export memory. A "dma-buf" is then shared memory like all that the guest can map, an
//! image with a modifier is a linear image in such memory (modifier 0, `LINEAR`, is the only one), and to hand
//! something to a foreign queue family means nothing, since all see the same pages.
//! All of it is emulated even where the host has some of these extensions: what the host would export is not what guests map.
//!
//! The rewriting itself asks for no policy: a guest that keeps to the API does not use what it was not offered, and what any
//! other one sends must not reach the driver either.

pub(crate) mod capture_replay;
mod chain;
pub(crate) mod dma_buf;
pub(crate) mod extensions;
pub(crate) mod foreign;
pub(crate) mod host_allocation;
pub(crate) mod modifier;
pub(crate) mod sparse;
pub(crate) mod sync_fd;

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
    /// The policy for a setting.
    pub(crate) fn new(setting: WsiPolicy) -> Self {
        match setting {
            WsiPolicy::Auto | WsiPolicy::Software => Self::Software,
            WsiPolicy::Dmabuf => Self::DmaBuf,
        }
    }
}
