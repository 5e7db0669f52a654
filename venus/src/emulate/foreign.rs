//! Barriers to and from foreign queue families (`VK_EXT_queue_family_foreign`).
//!
//! A foreign queue family stands for users of an image or buffer outside Vulkan, such as a display
//! server. Shared pages need no change of owner for them. So such a barrier becomes one within the
//! queue's own family, and keeps its layout transition and memory dependency.

use hesper_venus_protocol::runtime::{Chained, unlink};
use hesper_venus_protocol::vk;

const FOREIGN: u32 = ash::vk::QUEUE_FAMILY_FOREIGN_EXT;

const IGNORED: u32 = ash::vk::QUEUE_FAMILY_IGNORED;

/// A barrier that can transfer ownership between queue families.
pub(crate) trait Barrier: Chained {
    /// The families it transfers from and to.
    fn families(&mut self) -> [&mut u32; 2];
}

macro_rules! barrier {
    ($($name:ident)*) => {
        $(impl Barrier for vk::$name {
            fn families(&mut self) -> [&mut u32; 2] {
                [&mut self.src_queue_family_index, &mut self.dst_queue_family_index]
            }
        })*
    };
}

barrier!(BufferMemoryBarrier ImageMemoryBarrier BufferMemoryBarrier2 ImageMemoryBarrier2);

/// Makes barriers from or to a foreign family stay within their own family.
pub(crate) fn localize<B: Barrier>(barriers: &mut [B]) {
    for barrier in barriers {
        let mut families = barrier.families();
        if families.iter().any(|family| **family == FOREIGN) {
            families.iter_mut().for_each(|family| **family = IGNORED);
            // It is for an acquisition only, which this no longer is.
            // SAFETY: the chain was decoded, and nobody else uses it.
            unsafe { unlink(barrier, vk::ExternalMemoryAcquireUnmodifiedEXT::STYPE) };
        }
    }
}

/// The same for the arrays of a `VkDependencyInfo`.
pub(crate) fn localize_dependency(info: &mut vk::DependencyInfo) {
    if !info.p_buffer_memory_barriers.is_null() {
        let count = info.buffer_memory_barrier_count as usize;
        // SAFETY: the decoder made an array of `count` structs there, and nobody else uses it.
        localize(unsafe {
            std::slice::from_raw_parts_mut(info.p_buffer_memory_barriers.cast_mut(), count)
        });
    }
    if !info.p_image_memory_barriers.is_null() {
        let count = info.image_memory_barrier_count as usize;
        // SAFETY: as above.
        localize(unsafe {
            std::slice::from_raw_parts_mut(info.p_image_memory_barriers.cast_mut(), count)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image_barrier(src: u32, dst: u32) -> vk::ImageMemoryBarrier2 {
        vk::ImageMemoryBarrier2 {
            old_layout: vk::ImageLayout::GENERAL,
            new_layout: vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
            src_queue_family_index: src,
            dst_queue_family_index: dst,
            ..Default::default()
        }
    }

    #[test]
    fn foreign_owners_are_taken_out_and_layouts_stay() {
        let mut unmodified = vk::ExternalMemoryAcquireUnmodifiedEXT::default();
        let mut images = [
            image_barrier(FOREIGN, 0),
            image_barrier(0, FOREIGN),
            image_barrier(0, 1),
        ];
        images[0].p_next = (&raw mut unmodified).cast();
        let mut buffers = [vk::BufferMemoryBarrier2 {
            src_queue_family_index: 2,
            dst_queue_family_index: FOREIGN,
            ..Default::default()
        }];
        let mut info = vk::DependencyInfo {
            buffer_memory_barrier_count: 1,
            p_buffer_memory_barriers: buffers.as_mut_ptr(),
            image_memory_barrier_count: 3,
            p_image_memory_barriers: images.as_mut_ptr(),
            ..Default::default()
        };
        localize_dependency(&mut info);
        let families =
            images.map(|image| (image.src_queue_family_index, image.dst_queue_family_index));
        assert_eq!(families, [(IGNORED, IGNORED), (IGNORED, IGNORED), (0, 1)]);
        assert!(images[0].p_next.is_null());
        assert_eq!(images[0].old_layout, vk::ImageLayout::GENERAL);
        assert_eq!(images[0].new_layout, vk::ImageLayout::TRANSFER_SRC_OPTIMAL);
        assert_eq!(buffers[0].src_queue_family_index, IGNORED);
        assert_eq!(buffers[0].dst_queue_family_index, IGNORED);
    }

    #[test]
    fn a_dependency_without_barriers_is_left_alone() {
        let mut info = vk::DependencyInfo {
            image_memory_barrier_count: 7,
            ..Default::default()
        };
        localize_dependency(&mut info);
        assert_eq!(info.image_memory_barrier_count, 7);
    }
}
