//! `VkPhysicalDevice`: a GPU of the host as one of the guest's instances sees it.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hesper_system::budget::Charge;
use hesper_venus_protocol::vk;

use crate::emulate::{Policy, extensions, mirror, modifier};
use crate::host::GpuFacts;
use crate::memory::{HEAPS, MemoryView, Optimal};

/// A physical device that the guest may see.
pub(crate) struct PhysicalDevice {
    /// The driver's handle.
    pub(crate) handle: vk::PhysicalDevice,
    /// What was found out about it at start.
    pub(crate) facts: Arc<GpuFacts>,
    /// The driver's extensions.
    pub(crate) extensions: Vec<vk::ExtensionProperties>,
    /// What is emulated.
    pub(crate) policy: Policy,
    /// Memory types and heaps as the guest sees them.
    pub(crate) memory: MemoryView,
    /// Bytes that this instance has allocated, by the guest's heaps.
    allocated: [AtomicU64; HEAPS],
}

/// Bytes of a heap that an allocation takes, given back on drop.
pub(crate) struct Allocated {
    of: Arc<PhysicalDevice>,
    heap: usize,
    bytes: u64,
    /// Its bytes of the guest's device memory.
    charge: Charge,
}

impl Allocated {
    /// Its bytes of the guest's device memory.
    pub(crate) fn charged(&self) -> u64 {
        self.charge.amount()
    }

    /// Ends the allocation, and keeps its bytes of the guest's device memory.
    pub(crate) fn into_charge(mut self) -> Charge {
        std::mem::take(&mut self.charge)
    }
}

impl Drop for Allocated {
    fn drop(&mut self) {
        if let Some(heap) = self.of.allocated.get(self.heap) {
            heap.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl PhysicalDevice {
    /// A physical device of which nothing is allocated yet.
    pub(crate) fn new(
        handle: vk::PhysicalDevice,
        facts: Arc<GpuFacts>,
        extensions: Vec<vk::ExtensionProperties>,
        policy: Policy,
        memory: MemoryView,
    ) -> Self {
        Self {
            handle,
            facts,
            extensions,
            policy,
            memory,
            allocated: Default::default(),
        }
    }

    /// Bytes that this instance has allocated, by the guest's heaps.
    pub(crate) fn allocated(&self) -> [u64; HEAPS] {
        (self.allocated.each_ref()).map(|heap| heap.load(Ordering::Relaxed))
    }

    /// Whether the driver has the extension.
    pub(crate) fn has(&self, extension: &CStr) -> bool {
        extensions::has(&self.extensions, extension)
    }

    /// Whether a shared picture of this format has a mirror
    /// ([`crate::emulate::mirror`]), whatever its layout.
    pub(crate) fn mirrors(&self, format: vk::Format) -> bool {
        let is_possible = mirror::format(format).is_some();
        is_possible && (self.facts.gpu.mirrored_pictures || !modifier::is_shareable(format))
    }

    /// Whether images with optimal tiling must not lie in imported memory.
    pub(crate) fn keeps_images_apart(&self) -> bool {
        matches!(self.facts.optimal, Optimal::Elsewhere { .. })
    }

    /// Reduces limits for what the driver lacks of the portability subset.
    pub(crate) fn limit(&self, limits: &mut vk::PhysicalDeviceLimits) {
        let subset = self.facts.subset;
        if subset.is_some_and(|subset| !subset.has_lod_bias()) {
            limits.max_sampler_lod_bias = 0.0;
        }
    }

    /// Whether the driver lacks images of these flags, by the portability subset.
    pub(crate) fn lacks_image(&self, flags: vk::ImageCreateFlags) -> bool {
        let subset = self.facts.subset;
        subset.is_some_and(|subset| !subset.has_2d_views_of_3d())
            && flags.contains(vk::ImageCreateFlags::CREATE_2D_ARRAY_COMPATIBLE)
    }

    /// Counts an allocation of the guest's memory type `index` until the value is dropped. Keeps
    /// its `charge` as long.
    pub(crate) fn count(self: &Arc<Self>, index: u32, bytes: u64, charge: Charge) -> Allocated {
        let heap = self.memory.heap(index);
        if let Some(heap) = self.allocated.get(heap) {
            heap.fetch_add(bytes, Ordering::Relaxed);
        }
        Allocated {
            of: Arc::clone(self),
            heap,
            bytes,
            charge,
        }
    }
}
