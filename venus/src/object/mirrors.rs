//! [`Mirrors`]: the images of a device that have a mirror in shared memory
//! ([`crate::emulate::mirror`]).
//!
//! The guest binds shared memory to such an image. What is bound to it is the mirror, a buffer that
//! no guest can name. The image gets memory of its own at that moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use hesper_system::budget::Charge;
use hesper_system::sync::SharedLock;
use hesper_venus_protocol::vk;

use super::device::Device;
use super::raw_device::RawDevice;
use crate::emulate::mirror::Layout;
use crate::memory::HOST_ALLOCATION;

/// An image's mirror.
pub(crate) struct Mirror {
    /// How the picture lies in the mirror.
    pub(crate) layout: Layout,
    /// What the driver demands of the memory that is bound to the mirror.
    pub(crate) requirements: vk::MemoryRequirements,
    buffer: vk::Buffer,
    /// The copies between image and mirror.
    regions: Vec<vk::BufferImageCopy>,
    /// The image's own memory, once both have memory.
    own: OnceLock<OwnMemory>,
}

struct OwnMemory {
    handle: vk::DeviceMemory,
    /// Its bytes of the guest's device memory.
    _charge: Charge,
}

/// Mirrors by the driver's handles of their images.
#[derive(Default)]
pub(crate) struct Mirrors {
    known: RwLock<HashMap<u64, Arc<Mirror>>>,
    /// How many, readable without the lock.
    count: AtomicUsize,
}

impl Mirrors {
    /// Keeps the mirror of a new image.
    pub(crate) fn insert(&self, image: vk::Image, mirror: Mirror) {
        let mut known = self.known.writing();
        known.insert(image.0, Arc::new(mirror));
        self.count.store(known.len(), Ordering::Release);
    }

    /// Whether no image has a mirror.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// The mirror of an image.
    pub(crate) fn get(&self, image: vk::Image) -> Option<Arc<Mirror>> {
        match self.is_empty() {
            true => None,
            false => self.known.reading().get(&image.0).cloned(),
        }
    }

    /// Takes out the mirror of an image that is about to be destroyed.
    pub(super) fn take(&self, image: u64) -> Option<Arc<Mirror>> {
        if self.is_empty() {
            return None;
        }
        let mut known = self.known.writing();
        let taken = known.remove(&image);
        self.count.store(known.len(), Ordering::Release);
        taken
    }

    /// Destroys all mirrors of a device that is idle and whose images are destroyed.
    pub(super) fn destroy_all(&self, device: &RawDevice) {
        let known = std::mem::take(&mut *self.known.writing());
        known.values().for_each(|mirror| mirror.destroy(device));
    }
}

impl Mirror {
    /// Makes a mirror without memory.
    ///
    /// # Errors
    /// The driver's result.
    pub(crate) fn new(device: &Device, layout: Layout) -> Result<Self, vk::Result> {
        let functions = device.functions();
        let none = vk::Result::ERROR_INITIALIZATION_FAILED;
        let create = functions.create_buffer.ok_or(none)?;
        let query = functions.get_buffer_memory_requirements.ok_or(none)?;
        let external = vk::ExternalMemoryBufferCreateInfo {
            handle_types: HOST_ALLOCATION,
            ..Default::default()
        };
        let mut info = vk::BufferCreateInfo {
            p_next: match device.physical.facts.declares.buffers {
                true => std::ptr::from_ref(&external).cast(),
                false => std::ptr::null(),
            },
            size: layout.end,
            usage: vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST,
            ..Default::default()
        };
        let mut buffer = vk::Buffer::default();
        // SAFETY: the device is alive, and the info and its chain are valid.
        let result = unsafe {
            create(
                device.handle(),
                &raw mut info,
                std::ptr::null(),
                &raw mut buffer,
            )
        };
        if result != vk::Result::SUCCESS {
            return Err(result);
        }
        let mut requirements = vk::MemoryRequirements::default();
        // SAFETY: the buffer was just made.
        unsafe { query(device.handle(), buffer, &raw mut requirements) };
        Ok(Self {
            regions: layout.copies(),
            layout,
            requirements,
            buffer,
            own: OnceLock::new(),
        })
    }

    /// Binds `memory` to the mirror, and memory of its own to the image. `charge` counts so many
    /// bytes of it, unless the guest may have no more.
    pub(crate) fn bind(
        &self,
        device: &Device,
        image: vk::Image,
        (memory, offset): (vk::DeviceMemory, u64),
        charge: impl FnOnce(u64) -> Option<Charge>,
    ) -> vk::Result {
        self.try_bind(device, image, (memory, offset), charge)
            .err()
            .unwrap_or(vk::Result::SUCCESS)
    }

    fn try_bind(
        &self,
        device: &Device,
        image: vk::Image,
        (memory, offset): (vk::DeviceMemory, u64),
        charge: impl FnOnce(u64) -> Option<Charge>,
    ) -> Result<(), vk::Result> {
        let functions = device.functions();
        let none = vk::Result::ERROR_OUT_OF_DEVICE_MEMORY;
        let query = functions.get_image_memory_requirements.ok_or(none)?;
        let allocate = functions.allocate_memory.ok_or(none)?;
        let bind_image = functions.bind_image_memory.ok_or(none)?;
        let bind_buffer = functions.bind_buffer_memory.ok_or(none)?;
        let check = |result| match result {
            vk::Result::SUCCESS => Ok(()),
            error => Err(error),
        };
        if self.own.get().is_some() {
            // No correct guest binds an image twice.
            return Err(vk::Result::ERROR_UNKNOWN);
        }
        let mut needs = vk::MemoryRequirements::default();
        // SAFETY: an image of this device.
        unsafe { query(device.handle(), image, &raw mut needs) };
        let charge = charge(needs.size).ok_or(none)?;
        let dedicated = vk::MemoryDedicatedAllocateInfo {
            image,
            ..Default::default()
        };
        let mut info = vk::MemoryAllocateInfo {
            p_next: std::ptr::from_ref(&dedicated).cast(),
            allocation_size: needs.size,
            memory_type_index: memory_type(device, needs.memory_type_bits).ok_or(none)?,
            ..Default::default()
        };
        let mut own = vk::DeviceMemory::default();
        // SAFETY: the device is alive, and the info and its chain are valid.
        check(unsafe {
            allocate(
                device.handle(),
                &raw mut info,
                std::ptr::null(),
                &raw mut own,
            )
        })?;
        let kept = self.own.set(OwnMemory {
            handle: own,
            _charge: charge,
        });
        if kept.is_err() {
            // Two rings bind the same image.
            free(device.raw(), own);
            return Err(vk::Result::ERROR_UNKNOWN);
        }
        // SAFETY: image and memory are of this device, and the memory was made for the image.
        check(unsafe { bind_image(device.handle(), image, own, 0) })?;
        // SAFETY: the caller has checked that the mirror fits there.
        check(unsafe { bind_buffer(device.handle(), self.buffer, memory, offset) })
    }

    /// Destroys the mirror and the image's own memory. The GPU no longer uses them.
    pub(crate) fn destroy(&self, device: &RawDevice) {
        if let Some(destroy) = device.functions.destroy_buffer {
            // SAFETY: the buffer is of this device, and only this value knows it.
            unsafe { destroy(device.handle, self.buffer, std::ptr::null()) };
        }
        if let Some(own) = self.own.get() {
            free(device, own.handle);
        }
    }

    /// Whether image and mirror have memory, so that they can be copied.
    pub(crate) fn has_memory(&self) -> bool {
        self.own.get().is_some()
    }
}

fn free(device: &RawDevice, memory: vk::DeviceMemory) {
    if let Some(free) = device.functions.free_memory {
        // SAFETY: the memory is of this device, and nothing uses it any more.
        unsafe { free(device.handle, memory, std::ptr::null()) };
    }
}

/// The memory type among `bits` that is best for an image: near the GPU.
fn memory_type(device: &Device, bits: u32) -> Option<u32> {
    let query = device
        .instance()
        .functions()
        .get_physical_device_memory_properties?;
    let mut memory = vk::PhysicalDeviceMemoryProperties::default();
    // SAFETY: the physical device is alive as long as the instance.
    unsafe { query(device.physical.handle, &raw mut memory) };
    let types = memory.memory_types.iter().zip(0_u32..);
    let mut types = types.take(memory.memory_type_count as usize);
    let mut possible = types
        .clone()
        .filter(|(_, index)| bits & (1_u32.unbounded_shl(*index)) != 0);
    let near =
        |flags: vk::MemoryPropertyFlags| flags.contains(vk::MemoryPropertyFlags::DEVICE_LOCAL);
    let best = types
        .find(|(one, index)| bits & 1_u32.unbounded_shl(*index) != 0 && near(one.property_flags));
    best.or_else(|| possible.next()).map(|(_, index)| index)
}

/// Which way a picture goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the image to its mirror, for another user.
    Out,
    /// From the mirror to the image.
    In,
}

/// A picture that is handed over or taken back.
pub(crate) struct Transfer {
    pub(crate) image: vk::Image,
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) way: Way,
    /// The image's layout afterwards.
    pub(crate) layout: vk::ImageLayout,
}

/// Records the copies of `transfers` behind the barrier that announced them. The images have the
/// layouts `TRANSFER_SRC_OPTIMAL` (out) and `TRANSFER_DST_OPTIMAL` (in).
pub(crate) fn record(device: &Device, commands: vk::CommandBuffer, transfers: &[Transfer]) {
    use vk::{AccessFlags as Access, PipelineStageFlags as Stages};
    let functions = device.functions();
    let (Some(barrier), Some(to_buffer), Some(to_image)) = (
        functions.cmd_pipeline_barrier,
        functions.cmd_copy_image_to_buffer,
        functions.cmd_copy_buffer_to_image,
    ) else {
        return;
    };
    let everything = Stages::ALL_COMMANDS | Stages::HOST;
    let record_barrier = |from: Stages, to: Stages, memory: vk::MemoryBarrier, images: &[_]| {
        let none = vk::DependencyFlags::default();
        let count = u32::try_from(images.len()).unwrap_or(0);
        // SAFETY: the command buffer is being recorded, and the arrays are as long as they say.
        unsafe {
            barrier(
                commands,
                from,
                to,
                none,
                1,
                &raw const memory,
                0,
                std::ptr::null(),
                count,
                images.as_ptr(),
            );
        };
    };
    // What others have written to the mirrors.
    let written = vk::MemoryBarrier {
        src_access_mask: Access::MEMORY_WRITE | Access::HOST_WRITE,
        dst_access_mask: Access::TRANSFER_READ | Access::TRANSFER_WRITE,
        ..Default::default()
    };
    record_barrier(everything, Stages::TRANSFER, written, &[]);
    let mut images: Vec<vk::ImageMemoryBarrier> = Vec::with_capacity(transfers.len());
    for transfer in transfers {
        let Transfer { image, mirror, .. } = transfer;
        let regions = &mirror.regions;
        let count = u32::try_from(regions.len()).unwrap_or(0);
        let (now, used) = match transfer.way {
            Way::Out => {
                let now = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
                // SAFETY: image and buffer have memory, and the regions are inside of both.
                unsafe {
                    to_buffer(
                        commands,
                        *image,
                        now,
                        mirror.buffer,
                        count,
                        regions.as_ptr(),
                    );
                };
                (now, Access::TRANSFER_READ)
            }
            Way::In => {
                let now = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
                // SAFETY: as above.
                unsafe {
                    to_image(
                        commands,
                        mirror.buffer,
                        *image,
                        now,
                        count,
                        regions.as_ptr(),
                    );
                };
                (now, Access::TRANSFER_WRITE)
            }
        };
        images.push(vk::ImageMemoryBarrier {
            src_access_mask: used,
            dst_access_mask: Access::MEMORY_READ | Access::MEMORY_WRITE,
            old_layout: now,
            new_layout: transfer.layout,
            src_queue_family_index: IGNORED,
            dst_queue_family_index: IGNORED,
            image: *image,
            subresource_range: vk::ImageSubresourceRange {
                // Of a format with several planes, this is all of them.
                aspect_mask: vk::ImageAspectFlags::COLOR,
                level_count: 1,
                layer_count: 1,
                ..Default::default()
            },
            ..Default::default()
        });
    }
    // For whoever uses the mirrors next.
    let copied = vk::MemoryBarrier {
        src_access_mask: Access::TRANSFER_WRITE,
        dst_access_mask: Access::MEMORY_READ | Access::MEMORY_WRITE | Access::HOST_READ,
        ..Default::default()
    };
    record_barrier(Stages::TRANSFER, everything, copied, &images);
}

const IGNORED: u32 = ash::vk::QUEUE_FAMILY_IGNORED;
