//! Helpers for the cases that copy between images and host memory (`VK_EXT_host_image_copy`).

use ash::vk;

use crate::gpu::Gpu;
use crate::outcome::{Stop, ensure, need};

/// The layout of all images here.
pub(crate) const GENERAL: vk::ImageLayout = vk::ImageLayout::GENERAL;
/// All remaining layers.
pub(crate) const REST: u32 = vk::REMAINING_ARRAY_LAYERS;
/// The colour aspect.
pub(crate) const COLOUR: vk::ImageAspectFlags = vk::ImageAspectFlags::COLOR;

/// A device with the extension enabled.
pub(crate) struct Copier<'h> {
    pub(crate) gpu: Gpu<'h>,
    pub(crate) copy: ash::ext::host_image_copy::Device,
}

/// The parameters of an image.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) format: vk::Format,
    pub(crate) extent: [u32; 3],
    pub(crate) levels: u32,
    pub(crate) layers: u32,
}

/// A region of an image and its layout in memory.
#[derive(Clone, Copy, Default)]
pub(crate) struct Piece {
    pub(crate) aspect: vk::ImageAspectFlags,
    pub(crate) level: u32,
    pub(crate) layers: [u32; 2],
    pub(crate) offset: [i32; 3],
    pub(crate) extent: [u32; 3],
    pub(crate) row_length: u32,
    pub(crate) image_height: u32,
}

impl Piece {
    /// The region of all layers of level 0.
    pub(crate) fn of(kind: &Kind) -> Self {
        Self {
            aspect: COLOUR,
            layers: [0, REST],
            extent: kind.extent,
            ..Default::default()
        }
    }

    /// The region's level and layers as Vulkan's struct.
    pub(crate) fn subresource(&self) -> vk::ImageSubresourceLayers {
        vk::ImageSubresourceLayers {
            aspect_mask: self.aspect,
            mip_level: self.level,
            base_array_layer: self.layers[0],
            layer_count: self.layers[1],
        }
    }

    /// The region's offset in the image.
    pub(crate) fn offset(&self) -> vk::Offset3D {
        let [x, y, z] = self.offset;
        vk::Offset3D { x, y, z }
    }

    /// The region's size.
    pub(crate) fn extent(&self) -> vk::Extent3D {
        let [width, height, depth] = self.extent;
        vk::Extent3D {
            width,
            height,
            depth,
        }
    }
}

impl<'h> Copier<'h> {
    /// Creates a second device with the extension, or skips the case.
    pub(crate) fn new(gpu: &Gpu<'h>) -> Result<Self, Stop> {
        let name = ash::ext::host_image_copy::NAME;
        need("VK_EXT_host_image_copy", gpu.host.has(name))?;
        // Everything that the extension needs is core in 1.3, which the client's version includes.
        let mut features =
            vk::PhysicalDeviceHostImageCopyFeaturesEXT::default().host_image_copy(true);
        let gpu = Gpu::with(gpu.host, &[name], Some(&mut features))?;
        let copy = gpu.extension(ash::ext::host_image_copy::Device::new);
        Ok(Self { gpu, copy })
    }

    /// Whether the host can copy images of this format.
    pub(crate) fn can(&self, format: vk::Format) -> bool {
        let mut features = vk::FormatProperties3::default();
        let mut properties = vk::FormatProperties2::default().push_next(&mut features);
        let host = self.gpu.host;
        // SAFETY: the physical device is of this instance and has Vulkan 1.3.
        unsafe {
            let instance = &host.instance;
            instance.get_physical_device_format_properties2(host.physical, format, &mut properties);
        }
        let wanted = vk::FormatFeatureFlags2::HOST_IMAGE_TRANSFER_EXT;
        features.optimal_tiling_features.contains(wanted)
    }

    /// Creates an image in the general layout, with memory of its own.
    pub(crate) fn image(&self, kind: &Kind) -> Result<vk::Image, Stop> {
        let [width, height, depth] = kind.extent;
        let info = vk::ImageCreateInfo::default()
            .image_type(match depth {
                1 => vk::ImageType::TYPE_2D,
                _ => vk::ImageType::TYPE_3D,
            })
            .format(kind.format)
            .extent(vk::Extent3D {
                width,
                height,
                depth,
            })
            .mip_levels(kind.levels)
            .array_layers(kind.layers)
            .samples(vk::SampleCountFlags::TYPE_1)
            .usage(vk::ImageUsageFlags::HOST_TRANSFER_EXT);
        let gpu = &self.gpu;
        let aspects = match kind.format {
            vk::Format::D16_UNORM | vk::Format::X8_D24_UNORM_PACK32 | vk::Format::D32_SFLOAT => {
                vk::ImageAspectFlags::DEPTH
            }
            vk::Format::D24_UNORM_S8_UINT
            | vk::Format::D32_SFLOAT_S8_UINT
            | vk::Format::D16_UNORM_S8_UINT => {
                vk::ImageAspectFlags::DEPTH | vk::ImageAspectFlags::STENCIL
            }
            vk::Format::S8_UINT => vk::ImageAspectFlags::STENCIL,
            _ => COLOUR,
        };
        // SAFETY: image and memory are of this device and fit each other.
        unsafe {
            let image = gpu.own(gpu.create_image(&info, None)?, ash::Device::destroy_image);
            let needs = gpu.get_image_memory_requirements(image);
            let anything = vk::MemoryPropertyFlags::empty();
            let kind = gpu.memory_type(needs.memory_type_bits, anything)?;
            let memory = gpu.allocate(needs.size, kind)?;
            gpu.bind_image_memory(image, memory, 0)?;
            let transition = vk::HostImageLayoutTransitionInfoEXT::default()
                .image(image)
                .new_layout(GENERAL)
                .subresource_range(vk::ImageSubresourceRange {
                    aspect_mask: aspects,
                    base_mip_level: 0,
                    level_count: vk::REMAINING_MIP_LEVELS,
                    base_array_layer: 0,
                    layer_count: REST,
                });
            self.copy.transition_image_layout(&[transition])?;
            Ok(image)
        }
    }

    /// Copies memory to regions of an image.
    pub(crate) fn write(&self, image: vk::Image, pieces: &[(Piece, &[u8])]) -> Result<(), Stop> {
        self.write_with(image, pieces, vk::HostImageCopyFlagsEXT::empty())
    }

    /// Does the same with flags.
    pub(crate) fn write_with(
        &self,
        image: vk::Image,
        pieces: &[(Piece, &[u8])],
        flags: vk::HostImageCopyFlagsEXT,
    ) -> Result<(), Stop> {
        let regions: Vec<_> = pieces
            .iter()
            .map(|(piece, bytes)| {
                vk::MemoryToImageCopyEXT::default()
                    .host_pointer(bytes.as_ptr().cast())
                    .memory_row_length(piece.row_length)
                    .memory_image_height(piece.image_height)
                    .image_subresource(piece.subresource())
                    .image_offset(piece.offset())
                    .image_extent(piece.extent())
            })
            .collect();
        let info = vk::CopyMemoryToImageInfoEXT::default()
            .flags(flags)
            .dst_image(image)
            .dst_image_layout(GENERAL)
            .regions(&regions);
        // SAFETY: the image is of this device and in this layout. The callers give as many bytes as
        // the regions have.
        Ok(unsafe { self.copy.copy_memory_to_image(&info) }?)
    }

    /// Copies a region of an image to `size` bytes.
    pub(crate) fn read(
        &self,
        image: vk::Image,
        piece: &Piece,
        size: usize,
    ) -> Result<Vec<u8>, Stop> {
        self.read_with(image, piece, size, vk::HostImageCopyFlagsEXT::empty())
    }

    /// Does the same with flags.
    pub(crate) fn read_with(
        &self,
        image: vk::Image,
        piece: &Piece,
        size: usize,
        flags: vk::HostImageCopyFlagsEXT,
    ) -> Result<Vec<u8>, Stop> {
        // The guard bytes show whether the driver writes past the end.
        let mut bytes = vec![0xa5; size + GUARD];
        let regions = [vk::ImageToMemoryCopyEXT::default()
            .host_pointer(bytes.as_mut_ptr().cast())
            .memory_row_length(piece.row_length)
            .memory_image_height(piece.image_height)
            .image_subresource(piece.subresource())
            .image_offset(piece.offset())
            .image_extent(piece.extent())];
        let info = vk::CopyImageToMemoryInfoEXT::default()
            .flags(flags)
            .src_image(image)
            .src_image_layout(GENERAL)
            .regions(&regions);
        // SAFETY: as above.
        unsafe { self.copy.copy_image_to_memory(&info) }?;
        let guard = bytes.split_off(size);
        ensure(
            "nothing is written past the end",
            guard.iter().all(|byte| *byte == 0xa5),
        )?;
        Ok(bytes)
    }
}

/// The number of bytes behind a buffer that must not change.
pub(crate) const GUARD: usize = 4096;

/// Returns bytes in which neighbours differ.
pub(crate) fn noise(count: usize, seed: u32) -> Vec<u8> {
    (0..count as u32)
        .map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}
