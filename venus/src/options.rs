//! What a [`crate::Renderer`] is made from: driver, GPUs, window system policy, and limits per
//! context.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::bells::Bells;
use crate::grants::{Grants, Resource};
use crate::host::Findings;
use crate::report::Report;
use crate::trace::Trace;

/// Settings of a renderer. `Default` uses the system's Vulkan loader, every GPU, and the window
/// system policy that the host allows.
#[derive(Clone, Debug, Default)]
pub struct RendererOptions {
    /// Where Vulkan comes from.
    pub driver: Driver,
    /// Which GPUs guests see.
    pub gpu: GpuSelection,
    /// How guests present pictures.
    pub wsi: WsiPolicy,
    /// What one context may take.
    pub budget: Budget,
    /// What all contexts together may take.
    pub guest: GuestBudget,
    /// How many queues of a GPU all contexts together may have. Beyond it, `vkCreateDevice` fails
    /// with `VK_ERROR_TOO_MANY_OBJECTS`. `None` takes what is known of the driver: 128 for
    /// NVIDIA's, which crashes at more, 4096 for others.
    pub queues: Option<u32>,
    /// How many mappings this process may have; `None` asks the system (`vm.max_map_count`).
    pub mappings: Option<usize>,
    /// How many descriptors this process may have; `None` asks the system (`RLIMIT_NOFILE`). The
    /// program should raise its limit before, since each memory object that a guest can map takes
    /// one.
    pub descriptors: Option<usize>,
    /// Memory that guests can map is made in multiples of this many bytes, a power of two, and of
    /// the host's page. A front end that makes guests align their blobs names that alignment; 0 is
    /// enough elsewhere.
    pub blob_alignment: u64,
    /// Size in bytes of the window through which all guests together map memory, such as a VM's.
    /// Memory heaps that guests can map are shown no larger than this window allows. `None` when
    /// nothing limits it.
    pub window: Option<u64>,
    /// What another renderer has found of these GPUs. Those of which it knows nothing are tested.
    pub findings: Findings,
    /// Who keeps the budgets of what all contexts together may take, if that is another process.
    /// [`RendererOptions::guest`] then says only what has a limit, and how many contexts this
    /// process may have.
    pub grants: Option<Arc<dyn Grants>>,
    /// Where another process can read the counters, and what is carried out.
    pub report: Option<Report>,
    /// Where it is recorded what the threads do, once somebody starts that. `None` records nothing.
    pub trace: Option<Trace>,
    /// Where another process can wake the threads of rings. `None`: nowhere.
    pub bells: Option<Bells>,
    /// An existing folder to save the guests' commands in, for bug reports and for fuzzers. There
    /// is one file for each context and one for each ring, with whole commands one after the other.
    pub save_streams: Option<PathBuf>,
}

/// Where the host's Vulkan comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// The system's Vulkan loader.
    #[default]
    System,
    /// This loader or driver library, such as `libMoltenVK.dylib`.
    Library(PathBuf),
    /// The first of these libraries that has a GPU.
    FirstOf(Vec<PathBuf>),
}

/// The numbers of a DRM render node, such as `/dev/dri/renderD128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenderNode {
    /// Major number of the device file.
    pub major: u32,
    /// Minor number; the file is usually called `renderD` and this.
    pub minor: u32,
}

impl fmt::Display for RenderNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Which of the host's GPUs guests see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GpuSelection {
    /// All of them, in the host's order.
    #[default]
    All,
    /// The one at this place of [`crate::host::gpus`].
    Index(usize),
    /// The first whose name contains this text, in upper or lower case.
    Name(String),
    /// The one with this `deviceUUID`.
    Uuid([u8; 16]),
    /// The one whose DRM render node is this device file (`VK_EXT_physical_device_drm`).
    RenderNode(RenderNode),
}

/// How a guest's swapchains work. The guest's driver demands different extensions in each version.
/// The host need not have any of them, since the renderer emulates them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WsiPolicy {
    /// [`WsiPolicy::Dmabuf`] with a real GPU, for programs whose display server may take dma-bufs
    /// ([`DisplayServer`]); else [`WsiPolicy::Software`]. A guest tells neither the version of its
    /// driver nor what its display server takes.
    #[default]
    Auto,
    /// dma-buf, modifiers and foreign queues are hidden; semaphores can be imported from sync
    /// files. The guest copies pictures to its display server by CPU. Guests with Mesa 25.2 or
    /// newer.
    Software,
    /// dma-buf, modifiers (linear only) and foreign queues are emulated on shared memory. The guest
    /// shares pictures with its display server without a copy, if the server takes dma-bufs (DRI3,
    /// linux-dmabuf). If it does not, `MESA_VK_WSI_DEBUG=sw` makes the guest copy. Mesa before 25.2
    /// has swapchains with this policy only.
    Dmabuf,
}

impl WsiPolicy {
    /// The setting for a context, by what is known of its display server.
    pub(crate) fn with(self, server: DisplayServer) -> Self {
        match (self, server) {
            (Self::Auto, DisplayServer::NeedsCopies) => Self::Software,
            _ => self,
        }
    }
}

/// What is known of the display server to which a context's program presents. It decides under
/// [`WsiPolicy::Auto`]: Mesa does not copy by CPU once it is offered dma-bufs, also where the
/// display server takes none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DisplayServer {
    /// Nothing. The program may be a display server itself.
    #[default]
    Unknown,
    /// It takes no dma-bufs of this renderer.
    NeedsCopies,
}

impl fmt::Display for WsiPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Software => "software",
            Self::Dmabuf => "dmabuf",
        })
    }
}

impl FromStr for WsiPolicy {
    type Err = String;

    /// # Errors
    /// The names that are allowed.
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Auto, Self::Software, Self::Dmabuf];
        let found = all.into_iter().find(|policy| policy.to_string() == text);
        found.ok_or_else(|| "auto, software or dmabuf is allowed".to_owned())
    }
}

/// Upper bounds on what one context may take of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Live Vulkan objects.
    pub objects: usize,
    /// Rings, which are threads. Mesa makes one for each thread of a program that makes pipelines.
    pub rings: usize,
    /// Bytes that large commands may hold at one time: their private copies and what they decode
    /// to. A command takes at most about twice its size. What a thread holds for usual commands,
    /// three pieces, is not counted.
    pub command_bytes: u64,
    /// Bytes of a stream that are copied at a time. A command that is larger is copied alone.
    pub piece_bytes: usize,
    /// Bytes of shared memory that a context may make (rings, replies, mappable device memory).
    pub shared_bytes: u64,
    /// Commands and fences that wait for the context's thread.
    pub queued: usize,
    /// Bytes of commands that wait for the context's thread. A single batch may be larger.
    pub queued_bytes: usize,
}

impl Budget {
    /// How much of `what` one context may have at most.
    #[must_use]
    pub fn most(&self, what: Resource) -> u64 {
        match what {
            Resource::Calls => self.queued as u64,
            Resource::CommandBytes => self.command_bytes,
            Resource::SharedBytes => self.shared_bytes,
            // Limited in another way: a table by its size, threads by the number of rings.
            Resource::Objects | Resource::Threads | Resource::DeviceMemory => u64::MAX,
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            objects: 4 << 20,
            rings: 1024,
            // A command of 1 GiB, copied and decoded, and the same again.
            command_bytes: 4 << 30,
            piece_bytes: 1 << 20,
            shared_bytes: 64 << 30,
            queued: 1 << 16,
            queued_bytes: 64 << 20,
        }
    }
}

/// Upper bounds on what all contexts of a renderer may take of the host together: what one guest
/// may take. A context may have at most seven times what is left for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestBudget {
    /// Contexts. One that was dropped counts until its last thread has ended.
    pub contexts: usize,
    /// Threads of rings, of queues, and of contexts, beyond four for each context.
    pub threads: usize,
    /// Places in the contexts' tables of objects. A context takes them in powers of two, beyond its
    /// first 1024, and keeps them until it ends.
    pub objects: usize,
    /// Commands and fences that wait for the contexts' threads, as [`Budget::queued`], beyond 256
    /// for each context.
    pub queued: usize,
    /// Bytes that large commands may hold at one time, as [`Budget::command_bytes`].
    pub command_bytes: u64,
    /// Bytes of shared memory, as [`Budget::shared_bytes`].
    pub shared_bytes: u64,
    /// Bytes of device memory, of all heaps together. Guests see it as the size of their heaps.
    /// `None` leaves it to the driver.
    pub device_memory: Option<u64>,
}

impl Default for GuestBudget {
    fn default() -> Self {
        Self::for_contexts(&Budget::default())
    }
}

impl GuestBudget {
    /// How much of `what` all contexts may have together; `u64::MAX` when that is not limited.
    /// What is a context's own ([`Resource::own`]) comes in addition.
    #[must_use]
    pub fn most(&self, what: Resource) -> u64 {
        match what {
            Resource::Objects => self.objects as u64,
            Resource::Threads => self.threads as u64,
            Resource::Calls => self.queued as u64,
            Resource::CommandBytes => self.command_bytes,
            Resource::SharedBytes => self.shared_bytes,
            Resource::DeviceMemory => self.device_memory.unwrap_or(u64::MAX),
        }
    }

    /// The usual budget of a guest whose contexts have this `budget` each.
    #[must_use]
    pub fn for_contexts(budget: &Budget) -> Self {
        Self {
            contexts: 1024,
            threads: budget.rings.saturating_mul(4).max(4096),
            objects: budget.objects.saturating_mul(4).max(16 << 20),
            queued: budget.queued.saturating_mul(4),
            command_bytes: budget.command_bytes.saturating_mul(2),
            shared_bytes: budget.shared_bytes.saturating_mul(2),
            device_memory: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_server_that_needs_copies_decides_under_auto_only() {
        use DisplayServer::{NeedsCopies, Unknown};
        assert_eq!(WsiPolicy::Auto.with(Unknown), WsiPolicy::Auto);
        assert_eq!(WsiPolicy::Auto.with(NeedsCopies), WsiPolicy::Software);
        assert_eq!(WsiPolicy::Dmabuf.with(NeedsCopies), WsiPolicy::Dmabuf);
    }

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        for policy in [WsiPolicy::Auto, WsiPolicy::Software, WsiPolicy::Dmabuf] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("dma-buf".parse::<WsiPolicy>().is_err());
    }
}
