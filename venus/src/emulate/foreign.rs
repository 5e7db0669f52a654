//! Barriers to and from foreign queue families (`VK_EXT_queue_family_foreign`).
//!
//! A foreign queue family stands for users of an image or buffer outside Vulkan, such as a display
//! server. Shared pages need no change of owner for them. So such a barrier becomes one within the
//! queue's own family, and keeps its layout transition and memory dependency.
//!
//! An image with a mirror ([`super::mirror`]) is copied at such a barrier: to the mirror when it
//! goes to the foreign family, and from the mirror when it comes back. It is copied from the
//! mirror, too, when it leaves the layout `PREINITIALIZED`, in which the guest's processor has
//! written it.

use hesper_venus_protocol::runtime::{Chained, unlink};
use hesper_venus_protocol::vk;

use crate::object::mirrors::{Mirrors, Transfer, Way};

const EXTERNAL: u32 = ash::vk::QUEUE_FAMILY_EXTERNAL;

const FOREIGN: u32 = ash::vk::QUEUE_FAMILY_FOREIGN_EXT;

const IGNORED: u32 = ash::vk::QUEUE_FAMILY_IGNORED;

/// A barrier that can transfer ownership between queue families.
pub(crate) trait Barrier: Chained {
    /// The families it transfers from and to.
    fn families(&mut self) -> [&mut u32; 2];
}

/// A barrier of an image.
pub(crate) trait ImageBarrier: Barrier {
    /// The image.
    fn image(&self) -> vk::Image;
    /// Its layouts before and after.
    fn layouts(&mut self) -> [&mut vk::ImageLayout; 2];
    /// Lets copies wait for it, which read the image or write it.
    fn precede(&mut self, way: Way);
}

macro_rules! image_barrier {
    ($($name:ident: $access:ident, $barrier:ident => $stages:expr;)*) => {
        $(impl ImageBarrier for vk::$name {
            fn image(&self) -> vk::Image {
                self.image
            }
            fn layouts(&mut self) -> [&mut vk::ImageLayout; 2] {
                [&mut self.old_layout, &mut self.new_layout]
            }
            fn precede(&mut self, way: Way) {
                self.dst_access_mask = match way {
                    Way::Out => vk::$access::TRANSFER_READ,
                    Way::In => vk::$access::TRANSFER_WRITE,
                };
                let $barrier = self;
                $stages
            }
        })*
    };
}

image_barrier! {
    // The stages of these are those of the command.
    ImageMemoryBarrier: AccessFlags, _barrier => ();
    ImageMemoryBarrier2: AccessFlags2, barrier => {
        barrier.dst_stage_mask = barrier.dst_stage_mask | vk::PipelineStageFlags2::ALL_TRANSFER;
    };
}

/// Finds the images of `barriers` that are handed over and have a mirror. Their barriers now
/// precede the copies ([`crate::object::mirrors::record`]), within the queue's own family.
pub(crate) fn take_transfers<B: ImageBarrier>(
    known: &Mirrors,
    barriers: &mut [B],
) -> Vec<Transfer> {
    let mut found = Vec::new();
    if known.is_empty() {
        return found;
    }
    for barrier in barriers {
        let image = barrier.image();
        let Some(mirror) = known.get(image).filter(|mirror| mirror.has_memory()) else {
            continue;
        };
        let is_other = |family: &u32| matches!(*family, FOREIGN | EXTERNAL);
        let [from, to] = barrier.families();
        let (comes, goes) = (is_other(from), is_other(to));
        if comes || goes {
            (*from, *to) = (IGNORED, IGNORED);
            // SAFETY: the chain was decoded, and nobody else uses it.
            unsafe { unlink(barrier, vk::ExternalMemoryAcquireUnmodifiedEXT::STYPE) };
        }
        let [old, new] = barrier.layouts();
        let layout = *new;
        let way = match *old {
            // There is nothing to keep.
            vk::ImageLayout::UNDEFINED => continue,
            vk::ImageLayout::PREINITIALIZED => Way::In,
            _ if comes && !goes => Way::In,
            _ if goes && !comes => Way::Out,
            _ => continue,
        };
        match way {
            Way::Out => *new = vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
            // The whole image is written.
            Way::In => {
                (*old, *new) = (
                    vk::ImageLayout::UNDEFINED,
                    vk::ImageLayout::TRANSFER_DST_OPTIMAL,
                );
            }
        }
        barrier.precede(way);
        found.push(Transfer {
            image,
            mirror,
            way,
            layout,
        });
    }
    found
}

/// The same for the arrays of a `VkDependencyInfo`.
pub(crate) fn take_transfers_of(known: &Mirrors, info: &mut vk::DependencyInfo) -> Vec<Transfer> {
    if info.p_image_memory_barriers.is_null() {
        return Vec::new();
    }
    let count = info.image_memory_barrier_count as usize;
    // SAFETY: the decoder made an array of `count` structs there, and nobody else uses it.
    take_transfers(known, unsafe {
        std::slice::from_raw_parts_mut(info.p_image_memory_barriers.cast_mut(), count)
    })
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
