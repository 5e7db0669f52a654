//! Buffers, images and their memory: [`Buffer`], [`Image`], and the functions of [`Gpu`] that
//! create them.

use std::sync::atomic::{AtomicU32, Ordering};

use ash::vk;

use crate::gpu::Gpu;
use crate::outcome::{Stop, digest, fail};

/// The default usage of a buffer of the cases.
pub(crate) const ANY_USE: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::TRANSFER_SRC.as_raw()
        | vk::BufferUsageFlags::TRANSFER_DST.as_raw()
        | vk::BufferUsageFlags::STORAGE_BUFFER.as_raw()
        | vk::BufferUsageFlags::UNIFORM_BUFFER.as_raw()
        | vk::BufferUsageFlags::UNIFORM_TEXEL_BUFFER.as_raw()
        | vk::BufferUsageFlags::VERTEX_BUFFER.as_raw()
        | vk::BufferUsageFlags::INDEX_BUFFER.as_raw()
        | vk::BufferUsageFlags::INDIRECT_BUFFER.as_raw(),
);

/// Memory that the CPU reads and writes without flushes.
pub(crate) const COHERENT: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::from_raw(
    vk::MemoryPropertyFlags::HOST_VISIBLE.as_raw()
        | vk::MemoryPropertyFlags::HOST_COHERENT.as_raw(),
);

/// A buffer with memory of its own, which stays mapped and needs no flushes.
#[derive(Clone, Copy)]
pub(crate) struct Buffer<'g> {
    pub(crate) handle: vk::Buffer,
    /// Its mapping, as 32-bit words. The device may change them at any time.
    pub(crate) words: &'g [AtomicU32],
}

impl Buffer<'_> {
    /// Reads word `index`.
    pub(crate) fn read(&self, index: usize) -> u32 {
        self.words[index].load(Ordering::Acquire)
    }

    /// Writes word `index`.
    pub(crate) fn write(&self, index: usize, value: u32) {
        self.words[index].store(value, Ordering::Release);
    }

    /// Writes all words. `value` returns the word for an index.
    pub(crate) fn fill_with(&self, mut value: impl FnMut(u32) -> u32) {
        for (index, word) in (0..).zip(self.words) {
            word.store(value(index), Ordering::Release);
        }
    }

    /// Reads all words.
    pub(crate) fn read_all(&self) -> Vec<u32> {
        self.words
            .iter()
            .map(|word| word.load(Ordering::Acquire))
            .collect()
    }

    /// The hash of all bytes.
    pub(crate) fn digest(&self) -> u64 {
        digest(self.read_all().into_iter().flat_map(u32::to_le_bytes))
    }
}

/// The parameters of an image.
#[derive(Clone, Copy)]
pub(crate) struct ImageKind {
    /// The format of its texels.
    pub(crate) format: vk::Format,
    /// The width and height of level 0.
    pub(crate) size: [u32; 2],
    /// The number of mip levels.
    pub(crate) levels: u32,
    /// The number of array layers.
    pub(crate) layers: u32,
    /// The number of samples per texel.
    pub(crate) samples: vk::SampleCountFlags,
    /// Its usage.
    pub(crate) usage: vk::ImageUsageFlags,
}

impl ImageKind {
    /// A plain 8-bit RGBA picture that can be drawn to, sampled and copied.
    pub(crate) fn picture(width: u32, height: u32) -> Self {
        Self {
            format: vk::Format::R8G8B8A8_UNORM,
            size: [width, height],
            levels: 1,
            layers: 1,
            samples: vk::SampleCountFlags::TYPE_1,
            usage: vk::ImageUsageFlags::COLOR_ATTACHMENT
                | vk::ImageUsageFlags::SAMPLED
                | vk::ImageUsageFlags::TRANSFER_SRC
                | vk::ImageUsageFlags::TRANSFER_DST,
        }
    }

    /// The aspect of the format's first plane.
    pub(crate) fn aspect(&self) -> vk::ImageAspectFlags {
        match self.format {
            vk::Format::D16_UNORM | vk::Format::D32_SFLOAT => vk::ImageAspectFlags::DEPTH,
            _ => vk::ImageAspectFlags::COLOR,
        }
    }

    /// All levels and layers.
    pub(crate) fn whole(&self) -> vk::ImageSubresourceRange {
        vk::ImageSubresourceRange {
            aspect_mask: self.aspect(),
            base_mip_level: 0,
            level_count: self.levels,
            base_array_layer: 0,
            layer_count: self.layers,
        }
    }

    /// One level, all layers.
    pub(crate) fn level(&self, level: u32) -> vk::ImageSubresourceLayers {
        vk::ImageSubresourceLayers {
            aspect_mask: self.aspect(),
            mip_level: level,
            base_array_layer: 0,
            layer_count: self.layers,
        }
    }
}

/// A 2D image with memory of its own and a view of the whole image.
#[derive(Clone, Copy)]
pub(crate) struct Image {
    pub(crate) handle: vk::Image,
    /// A view of all levels and layers.
    pub(crate) view: vk::ImageView,
    /// The parameters that it was created with.
    pub(crate) kind: ImageKind,
}

impl Gpu<'_> {
    /// Finds a memory type in `bits` that has the properties `wanted`.
    pub(crate) fn memory_type(
        &self,
        bits: u32,
        wanted: vk::MemoryPropertyFlags,
    ) -> Result<u32, Stop> {
        (0..)
            .zip(self.host.memory.memory_types_as_slice())
            .find(|(index, kind)| bits >> index & 1 == 1 && kind.property_flags.contains(wanted))
            .map(|(index, _)| index)
            .ok_or_else(|| fail(&format!("no memory type of {bits:#x} has {wanted:?}")))
    }

    /// Allocates memory of this size and type.
    pub(crate) fn allocate(&self, size: u64, memory_type: u32) -> Result<vk::DeviceMemory, Stop> {
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(size)
            .memory_type_index(memory_type);
        // SAFETY: the device is alive, `info` holds no pointers.
        let memory = unsafe { self.allocate_memory(&info, None) }?;
        Ok(self.own(memory, ash::Device::free_memory))
    }

    /// Creates a buffer without memory.
    pub(crate) fn bare_buffer(
        &self,
        size: u64,
        usage: vk::BufferUsageFlags,
    ) -> Result<(vk::Buffer, vk::MemoryRequirements), Stop> {
        let info = vk::BufferCreateInfo::default().size(size).usage(usage);
        // SAFETY: the device is alive, `info` holds no pointers.
        unsafe {
            let buffer = self.create_buffer(&info, None)?;
            Ok((
                self.own(buffer, ash::Device::destroy_buffer),
                self.get_buffer_memory_requirements(buffer),
            ))
        }
    }

    /// Creates a mapped buffer of `count` words, all 0.
    pub(crate) fn buffer(&self, count: usize) -> Result<Buffer<'_>, Stop> {
        let size = count as u64 * 4;
        let (handle, needs) = self.bare_buffer(size, ANY_USE)?;
        let memory_type = self.memory_type(needs.memory_type_bits, COHERENT)?;
        let memory = self.allocate(needs.size, memory_type)?;
        // SAFETY: both are of this device, and the memory fits the buffer.
        unsafe { self.bind_buffer_memory(handle, memory, 0) }?;
        let buffer = Buffer {
            handle,
            words: self.map(memory, size)?,
        };
        buffer.fill_with(|_| 0);
        Ok(buffer)
    }

    /// Maps the first `size` bytes of `memory`, which is host-visible and not mapped.
    pub(crate) fn map(&self, memory: vk::DeviceMemory, size: u64) -> Result<&[AtomicU32], Stop> {
        // SAFETY: the memory is of this device and not mapped. The words stay mapped as long as the
        // memory lives, which is as long as `self`. They are atomics because the device changes
        // them too. A mapping is aligned to at least 64 bytes (minMemoryMapAlignment).
        unsafe {
            let at = self.map_memory(memory, 0, size, vk::MemoryMapFlags::empty())?;
            let count = usize::try_from(size / 4).map_err(|_| fail("a mapping too large"))?;
            Ok(std::slice::from_raw_parts(at.cast::<AtomicU32>(), count))
        }
    }

    /// Creates a buffer in device-local memory, which the CPU does not access.
    pub(crate) fn local_buffer(&self, size: u64) -> Result<vk::Buffer, Stop> {
        let (handle, needs) = self.bare_buffer(size, ANY_USE)?;
        let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
        let memory_type = self.memory_type(needs.memory_type_bits, local)?;
        let memory = self.allocate(needs.size, memory_type)?;
        // SAFETY: both are of this device, and the memory fits the buffer.
        unsafe { self.bind_buffer_memory(handle, memory, 0) }?;
        Ok(handle)
    }

    /// Creates an image in device-local memory, in layout UNDEFINED.
    pub(crate) fn image(&self, kind: ImageKind) -> Result<Image, Stop> {
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(kind.format)
            .extent(vk::Extent3D {
                width: kind.size[0],
                height: kind.size[1],
                depth: 1,
            })
            .mip_levels(kind.levels)
            .array_layers(kind.layers)
            .samples(kind.samples)
            .usage(kind.usage);
        // SAFETY: the device is alive; image and memory are of it and fit each other.
        let handle = unsafe {
            let handle = self.own(self.create_image(&info, None)?, ash::Device::destroy_image);
            let needs = self.get_image_memory_requirements(handle);
            let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
            let memory_type = self.memory_type(needs.memory_type_bits, local)?;
            self.bind_image_memory(handle, self.allocate(needs.size, memory_type)?, 0)?;
            handle
        };
        let view_type = match kind.layers {
            1 => vk::ImageViewType::TYPE_2D,
            _ => vk::ImageViewType::TYPE_2D_ARRAY,
        };
        let info = vk::ImageViewCreateInfo::default()
            .image(handle)
            .view_type(view_type)
            .format(kind.format)
            .subresource_range(kind.whole());
        // SAFETY: the image is alive and has memory.
        let view = unsafe { self.create_image_view(&info, None) }?;
        let view = self.own(view, ash::Device::destroy_image_view);
        Ok(Image { handle, view, kind })
    }

    /// Copies level `level` of `image` to a new mapped buffer. The image is in layout
    /// TRANSFER_SRC_OPTIMAL and has 4 bytes per texel.
    pub(crate) fn read_back(&self, image: &Image, level: u32) -> Result<Buffer<'_>, Stop> {
        let [width, height] = image.kind.size.map(|edge| (edge >> level).max(1));
        let buffer = self.buffer((width * height * image.kind.layers) as usize)?;
        let region = vk::BufferImageCopy::default()
            .image_subresource(image.kind.level(level))
            .image_extent(vk::Extent3D {
                width,
                height,
                depth: 1,
            });
        let layout = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
        self.run(|commands| {
            // SAFETY: `run` records, the handles are of this device, and the buffer holds the whole
            // level.
            unsafe {
                self.cmd_copy_image_to_buffer(
                    commands,
                    image.handle,
                    layout,
                    buffer.handle,
                    &[region],
                );
            }
            self.barrier(commands);
        })?;
        Ok(buffer)
    }
}
