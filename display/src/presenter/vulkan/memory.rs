//! Buffers and images with their memory, freed when dropped.
//!
//! The caller must not drop one while the GPU uses it. Presenters wait for the fence of each frame,
//! so that nothing is in use between frames.

use std::ptr::NonNull;
use std::sync::Arc;

use ash::vk;

use super::gpu::Gpu;
use crate::presenter::PresenterEnd;

/// A buffer in memory that the CPU can see, too.
pub(super) struct Buffer {
    gpu: Arc<Gpu>,
    pub(super) raw: vk::Buffer,
    memory: vk::DeviceMemory,
    /// `None` for an imported buffer.
    mapped: Option<NonNull<u8>>,
    size: u64,
}

// SAFETY: the mapping belongs to the buffer alone and is reached through `&mut self` only.
unsafe impl Send for Buffer {}

impl Buffer {
    /// A mapped buffer of `size` bytes, to write pixels to or read them from.
    pub(super) fn mapped(
        gpu: &Arc<Gpu>,
        size: u64,
        usage: vk::BufferUsageFlags,
    ) -> Result<Buffer, PresenterEnd> {
        let info = vk::BufferCreateInfo::default().size(size).usage(usage);
        // SAFETY: a valid description without external memory.
        let raw = unsafe { gpu.device.create_buffer(&info, None) }.map_err(|e| gpu.end(e))?;
        let memory = vk::DeviceMemory::null();
        // From here on, dropping the buffer frees what there is.
        let mut buffer = Buffer {
            gpu: gpu.clone(),
            raw,
            memory,
            mapped: None,
            size,
        };
        // SAFETY: the buffer was just made.
        let needs = unsafe { gpu.device.get_buffer_memory_requirements(raw) };
        let flags = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        // CPU caches make reading back fast and do not slow down writing.
        let kind = gpu
            .memory_type(
                needs.memory_type_bits,
                flags | vk::MemoryPropertyFlags::HOST_CACHED,
            )
            .or_else(|| gpu.memory_type(needs.memory_type_bits, flags))
            .ok_or_else(|| PresenterEnd::Failed("no memory type for staging".to_owned()))?;
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(kind);
        // SAFETY: size and type are what the buffer asked for; bound once, mapped once.
        let mapped = unsafe {
            let memory = gpu
                .device
                .allocate_memory(&info, None)
                .map_err(|e| gpu.end(e))?;
            buffer.memory = memory;
            gpu.device
                .bind_buffer_memory(raw, memory, 0)
                .map_err(|e| gpu.end(e))?;
            let all = vk::WHOLE_SIZE;
            gpu.device
                .map_memory(memory, 0, all, vk::MemoryMapFlags::empty())
        }
        .map_err(|e| gpu.end(e))?;
        buffer.mapped = NonNull::new(mapped.cast());
        Ok(buffer)
    }

    /// A buffer whose memory is `size` bytes of the host at `address`. Both must be multiples of
    /// the import alignment. `None` when the driver refuses.
    ///
    /// # Safety
    ///
    /// The bytes must stay mapped for as long as the buffer lives.
    pub(super) unsafe fn imported(
        gpu: &Arc<Gpu>,
        address: NonNull<u8>,
        size: u64,
    ) -> Option<Buffer> {
        let import = gpu.host_import.as_ref()?;
        let kind = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(kind);
        let info = vk::BufferCreateInfo::default()
            .size(size)
            .usage(vk::BufferUsageFlags::TRANSFER_SRC)
            .push_next(&mut external);
        // SAFETY: the device has said that it can import for this usage.
        let raw = unsafe { gpu.device.create_buffer(&info, None) }.ok()?;
        let memory = vk::DeviceMemory::null();
        let mut buffer = Buffer {
            gpu: gpu.clone(),
            raw,
            memory,
            mapped: None,
            size,
        };
        let mut pages = vk::MemoryHostPointerPropertiesEXT::default();
        // SAFETY: the pointer is aligned and mapped (the caller's promise); the function was
        // loaded from a device with the extension.
        let (needs, answer) = unsafe {
            let query = import.functions.fp().get_memory_host_pointer_properties_ext;
            let device = gpu.device.handle();
            let answer = query(device, kind, address.as_ptr().cast(), &mut pages);
            (gpu.device.get_buffer_memory_requirements(raw), answer)
        };
        answer.result().ok()?;
        // Coherent, because no one will say when to invalidate caches.
        let flags = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        let index = gpu.memory_type(needs.memory_type_bits & pages.memory_type_bits, flags)?;
        if needs.size > size {
            return None;
        }
        let mut host = vk::ImportMemoryHostPointerInfoEXT::default()
            .handle_type(kind)
            .host_pointer(address.as_ptr().cast());
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(size)
            .memory_type_index(index)
            .push_next(&mut host);
        // SAFETY: the driver accepts these pages as this type, and they stay mapped.
        unsafe {
            buffer.memory = gpu.device.allocate_memory(&info, None).ok()?;
            gpu.device.bind_buffer_memory(raw, buffer.memory, 0).ok()?;
        }
        Some(buffer)
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The mapped bytes; empty for an imported buffer. The GPU must not be using them.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        match self.mapped {
            // SAFETY: `size` bytes are mapped for as long as the buffer lives, were zeroed or
            // written before (drivers hand out initialised pages), and nobody else has a
            // reference to them.
            Some(mapped) => unsafe {
                std::slice::from_raw_parts_mut(mapped.as_ptr(), self.size as usize)
            },
            None => &mut [],
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: both are ours (or null, which is allowed); freeing unmaps.
        unsafe {
            self.gpu.device.destroy_buffer(self.raw, None);
            self.gpu.device.free_memory(self.memory, None);
        }
    }
}

/// A two-dimensional image on the GPU, with a view of all of it.
pub(super) struct Image {
    gpu: Arc<Gpu>,
    pub(super) raw: vk::Image,
    memory: vk::DeviceMemory,
    pub(super) view: vk::ImageView,
    pub(super) size: (u32, u32),
}

impl Image {
    pub(super) fn new(
        gpu: &Arc<Gpu>,
        size: (u32, u32),
        format: vk::Format,
        usage: vk::ImageUsageFlags,
    ) -> Result<Image, PresenterEnd> {
        if size.0.max(size.1) > gpu.max_side {
            let ((width, height), most) = (size, gpu.max_side);
            let reason =
                format!("{width}x{height} pixels are too many for this GPU ({most} a side)");
            return Err(PresenterEnd::Failed(reason));
        }
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(format)
            .extent(vk::Extent3D {
                width: size.0,
                height: size.1,
                depth: 1,
            })
            .mip_levels(1)
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(vk::ImageTiling::OPTIMAL)
            .usage(usage);
        // SAFETY: a valid description.
        let raw = unsafe { gpu.device.create_image(&info, None) }.map_err(|e| gpu.end(e))?;
        let (memory, view) = (vk::DeviceMemory::null(), vk::ImageView::null());
        let mut image = Image {
            gpu: gpu.clone(),
            raw,
            memory,
            view,
            size,
        };
        // SAFETY: the image was just made.
        let needs = unsafe { gpu.device.get_image_memory_requirements(raw) };
        let kind = gpu
            .memory_type(
                needs.memory_type_bits,
                vk::MemoryPropertyFlags::DEVICE_LOCAL,
            )
            .or_else(|| gpu.memory_type(needs.memory_type_bits, vk::MemoryPropertyFlags::empty()))
            .ok_or_else(|| PresenterEnd::Failed("no memory type for an image".to_owned()))?;
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(kind);
        let view = vk::ImageViewCreateInfo::default()
            .image(raw)
            .view_type(vk::ImageViewType::TYPE_2D)
            .format(format)
            .subresource_range(COLOR);
        // SAFETY: size and type are what the image asked for; bound once, before the view.
        unsafe {
            let memory = gpu
                .device
                .allocate_memory(&info, None)
                .map_err(|e| gpu.end(e))?;
            image.memory = memory;
            gpu.device
                .bind_image_memory(raw, memory, 0)
                .map_err(|e| gpu.end(e))?;
            image.view = gpu
                .device
                .create_image_view(&view, None)
                .map_err(|e| gpu.end(e))?;
        }
        Ok(image)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: all three are ours (or null, which is allowed).
        unsafe {
            self.gpu.device.destroy_image_view(self.view, None);
            self.gpu.device.destroy_image(self.raw, None);
            self.gpu.device.free_memory(self.memory, None);
        }
    }
}

/// All of a colour image.
pub(super) const COLOR: vk::ImageSubresourceRange = vk::ImageSubresourceRange {
    aspect_mask: vk::ImageAspectFlags::COLOR,
    base_mip_level: 0,
    level_count: 1,
    base_array_layer: 0,
    layer_count: 1,
};

/// All of a colour image, for copies.
pub(super) const COLOR_LAYER: vk::ImageSubresourceLayers = vk::ImageSubresourceLayers {
    aspect_mask: vk::ImageAspectFlags::COLOR,
    mip_level: 0,
    base_array_layer: 0,
    layer_count: 1,
};
