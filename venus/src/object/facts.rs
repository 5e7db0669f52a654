//! [`Facts`]: what the rules for numbers must know of a device and its objects, by the driver's
//! handles.
//!
//! Facts are entered right after the driver made an object, before a guest can name it. They are
//! forgotten right before the driver destroys it, because the driver may then use the handle again.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock};

use hesper_system::sync::SharedLock;
use hesper_venus_protocol::runtime::Handle;
use hesper_venus_protocol::vk;

use super::host_copy::CopiedImage;

/// Numbers that the device limits.
#[derive(Clone, Copy, Default)]
pub(crate) struct Limits {
    /// What every device has.
    pub(crate) core: vk::PhysicalDeviceLimits,
    /// The number of queue families.
    pub(crate) queue_families: u32,
    /// `maxMultiviewViewCount`
    pub(crate) views: u32,
    /// `maxTransformFeedbackBuffers`
    pub(crate) transform_feedback_buffers: u32,
    /// `maxTransformFeedbackStreams`
    pub(crate) transform_feedback_streams: u32,
    /// `maxSampleLocationGridSize`
    pub(crate) sample_location_grid: vk::Extent2D,
}

/// A binding of a set layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) number: u32,
    pub(crate) ty: vk::DescriptorType,
    /// Descriptors, or bytes of an inline uniform block.
    pub(crate) count: u32,
    pub(crate) stages: vk::ShaderStageFlags,
    pub(crate) flags: vk::DescriptorBindingFlags,
}

/// What is kept of a set layout.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SetLayout {
    /// In the order of their numbers.
    pub(crate) bindings: Vec<Binding>,
    /// Descriptors with a dynamic offset.
    pub(crate) dynamic: u32,
}

impl SetLayout {
    /// The place of a binding in the list.
    pub(crate) fn place(&self, number: u32) -> Option<usize> {
        let found = self.bindings.binary_search_by_key(&number, |b| b.number);
        found.ok()
    }

    /// Whether the last binding has a count of its own in each set.
    pub(crate) fn is_variable(&self) -> bool {
        const VARIABLE: vk::DescriptorBindingFlags =
            vk::DescriptorBindingFlags::VARIABLE_DESCRIPTOR_COUNT;
        let last = self.bindings.last();
        last.is_some_and(|binding| binding.flags.contains(VARIABLE))
    }
}

/// What is kept of a pipeline layout: its sets, some of which may be absent.
pub(crate) type PipelineLayout = Vec<Option<Arc<SetLayout>>>;

/// What is kept of a query pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queries {
    pub(crate) count: u32,
    /// Values of a query, without its availability.
    pub(crate) values: u32,
}

impl Queries {
    /// Bytes of the results of one query.
    pub(crate) fn size(self, flags: vk::QueryResultFlags) -> u64 {
        use vk::QueryResultFlags as Flags;
        let availability = u64::from(flags.contains(Flags::WITH_AVAILABILITY));
        let width = match flags.contains(Flags::RESULT_64) {
            true => 8,
            false => 4,
        };
        (u64::from(self.values) + availability) * width
    }
}

/// What is kept of a render pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) attachments: u32,
    pub(crate) subpasses: u32,
    /// Clear values that it needs at least.
    pub(crate) clears: u32,
}

/// Objects of one type, split so that threads seldom wait for each other.
pub(crate) struct Shards<T>([RwLock<HashMap<u64, T, BuildHasherDefault<HandleHasher>>>; SHARDS]);

const SHARDS: usize = 8;

impl<T> Default for Shards<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| RwLock::default()))
    }
}

impl<T: Clone> Shards<T> {
    #[expect(
        clippy::indexing_slicing,
        reason = "the remainder is below the length of the array"
    )]
    fn of(&self, handle: u64) -> &RwLock<HashMap<u64, T, BuildHasherDefault<HandleHasher>>> {
        // Handles are often addresses, whose lowest bits are equal.
        &self.0[(mixed(handle) >> 60) as usize % SHARDS]
    }

    /// What is kept of an object.
    #[inline]
    pub(crate) fn get(&self, handle: impl Handle) -> Option<T> {
        let handle = handle.raw();
        self.of(handle).reading().get(&handle).cloned()
    }

    /// Keeps something of an object.
    pub(crate) fn insert(&self, handle: impl Handle, kept: T) {
        let handle = handle.raw();
        self.of(handle).writing().insert(handle, kept);
    }

    /// Forgets an object.
    pub(crate) fn remove(&self, handle: u64) {
        self.of(handle).writing().remove(&handle);
    }
}

/// Spreads the bits of a handle. Drivers choose handles, so nobody can make them collide.
fn mixed(handle: u64) -> u64 {
    handle.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Hashes a handle by one multiplication.
#[derive(Default)]
pub(crate) struct HandleHasher(u64);

impl Hasher for HandleHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, handle: u64) {
        // The table takes its index from the low bits.
        self.0 = mixed(handle).rotate_left(32);
    }
}

/// What the rules must know of a device and its objects.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) limits: Limits,
    /// Sizes of buffers.
    pub(crate) buffers: Shards<u64>,
    /// Images of formats that the protocol knows.
    pub(crate) images: Shards<CopiedImage>,
    /// Sizes of memory.
    pub(crate) memories: Shards<u64>,
    pub(crate) query_pools: Shards<Queries>,
    pub(crate) set_layouts: Shards<Arc<SetLayout>>,
    /// Layouts of sets.
    pub(crate) sets: Shards<Arc<SetLayout>>,
    pub(crate) pipeline_layouts: Shards<Arc<PipelineLayout>>,
    pub(crate) passes: Shards<Pass>,
    /// Numbers of attachments.
    pub(crate) framebuffers: Shards<u32>,
    /// Sets that may be bound without a closer look: `maxBoundDescriptorSets`, or 0 once a set
    /// layout with dynamic offsets was made.
    plain_sets: AtomicU32,
}

impl Facts {
    /// The facts of a device without objects.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            plain_sets: AtomicU32::new(limits.core.max_bound_descriptor_sets),
            limits,
            ..Self::default()
        }
    }

    /// How many sets may be bound without dynamic offsets and without a look at them. 0 once a set
    /// may need dynamic offsets, which nearly no program has.
    #[inline]
    pub(crate) fn plain_sets(&self) -> u64 {
        self.plain_sets.load(Ordering::Acquire).into()
    }

    /// Says that sets may need dynamic offsets.
    pub(crate) fn add_dynamic(&self) {
        self.plain_sets.store(0, Ordering::Release);
    }

    /// Forgets an object of a type that the driver is about to destroy. Inlined, since callers
    /// usually know the type.
    #[inline(always)]
    pub(crate) fn forget(&self, kind: u32, handle: u64) {
        use vk::HandleType as Kind;
        match kind {
            kind if kind == Kind::Buffer as u32 => self.buffers.remove(handle),
            kind if kind == Kind::Image as u32 => self.images.remove(handle),
            kind if kind == Kind::DeviceMemory as u32 => self.memories.remove(handle),
            kind if kind == Kind::QueryPool as u32 => self.query_pools.remove(handle),
            kind if kind == Kind::DescriptorSetLayout as u32 => self.set_layouts.remove(handle),
            kind if kind == Kind::DescriptorSet as u32 => self.sets.remove(handle),
            kind if kind == Kind::PipelineLayout as u32 => self.pipeline_layouts.remove(handle),
            kind if kind == Kind::RenderPass as u32 => self.passes.remove(handle),
            kind if kind == Kind::Framebuffer as u32 => self.framebuffers.remove(handle),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_by_handle_until_they_are_forgotten() {
        let facts = Facts::default();
        for handle in 1..1000 {
            facts.buffers.insert(vk::Buffer(handle << 4), handle);
        }
        assert_eq!(facts.buffers.get(vk::Buffer(500 << 4)), Some(500));
        facts.forget(vk::HandleType::Image as u32, 500 << 4);
        assert_eq!(facts.buffers.get(vk::Buffer(500 << 4)), Some(500));
        facts.forget(vk::HandleType::Buffer as u32, 500 << 4);
        assert_eq!(facts.buffers.get(vk::Buffer(500 << 4)), None);
        assert_eq!(facts.buffers.get(vk::Buffer(501 << 4)), Some(501));
    }

    #[test]
    fn handles_spread_over_all_shards() {
        let shards = Shards::default();
        for handle in 1..=4000 {
            shards.insert(vk::Buffer(handle << 4), ());
        }
        for shard in &shards.0 {
            assert!((300..700).contains(&shard.reading().len()));
        }
    }
}
