//! Can images lie in imported memory? The renderer tries it at start.
//!
//! A driver on top of Metal may make a texture of its own for an image with optimal tiling that is
//! bound to imported memory (MoltenVK), or none at all (KosmicKrisp). The first takes the memory
//! twice. The second is an image that cannot be used. On such a GPU, these images are kept in
//! memory that is not imported ([`super::MemoryView`]).
//!
//! A driver that says that it does not import memory for such images is believed and not tried: it
//! might crash.

use ash::{Instance, vk};
use serde::{Deserialize, Serialize};

use super::self_test::{Test, failed};
use crate::error::{Error, Result};

/// Width and height of the test image.
const SIDE: u32 = 16;
/// Its texels, as the GPU writes them.
const TEXEL: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
/// The content of the memory before the test.
const BEFORE: u32 = 0xa5a5_a5a5;

/// Where images with optimal tiling may lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Optimal {
    /// In imported memory, too.
    #[default]
    Anywhere,
    /// Not in imported memory.
    Elsewhere {
        /// Why.
        reason: String,
        /// The driver's memory types, as bits, that such an image can be bound to.
        types: u32,
    },
}

/// Finds out where images with optimal tiling may lie, by memory that is imported as one of
/// `types`.
pub(super) fn examine(
    test: &Test,
    instance: &Instance,
    gpu: vk::PhysicalDevice,
    types: u32,
) -> Optimal {
    let importable = is_importable(instance, gpu, vk::ImageTiling::OPTIMAL);
    let kind = external();
    let is_declared = importable && test.declares.images;
    let image = Image::new(test, vk::ImageTiling::OPTIMAL, is_declared.then_some(kind));
    let image = match image {
        Ok(image) => image,
        Err(error) => {
            log::debug!("images with optimal tiling are not tried: {error}");
            return Optimal::Anywhere;
        }
    };
    let all = image.needs.memory_type_bits;
    let Some(first) = (0..u32::BITS).find(|index| all & types & (1 << index) != 0) else {
        return Optimal::Anywhere;
    };
    let elsewhere = |reason: &str| Optimal::Elsewhere {
        reason: reason.to_owned(),
        types: all,
    };
    if !importable {
        return elsewhere("the driver imports no memory for images with optimal tiling");
    }
    match image.look(first) {
        Ok(true) => Optimal::Anywhere,
        Ok(false) => elsewhere(
            "images with optimal tiling do not lie in the memory that is imported for them",
        ),
        Err(Error::ImageTest(detail)) => elsewhere(&detail),
        Err(error) => elsewhere(&error.to_string()),
    }
}

fn external() -> vk::ExternalMemoryImageCreateInfo<'static> {
    vk::ExternalMemoryImageCreateInfo::default()
        .handle_types(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT)
}

const FORMAT: vk::Format = vk::Format::R8G8B8A8_UINT;

fn usage() -> vk::ImageUsageFlags {
    vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST
}

/// Whether the driver says that it imports memory for such an image with this tiling.
fn is_importable(instance: &Instance, gpu: vk::PhysicalDevice, tiling: vk::ImageTiling) -> bool {
    let mut kind = vk::PhysicalDeviceExternalImageFormatInfo::default()
        .handle_type(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT);
    let asked = vk::PhysicalDeviceImageFormatInfo2::default()
        .format(FORMAT)
        .ty(vk::ImageType::TYPE_2D)
        .tiling(tiling)
        .usage(usage())
        .push_next(&mut kind);
    let mut external = vk::ExternalImageFormatProperties::default();
    let mut answer = vk::ImageFormatProperties2::default().push_next(&mut external);
    // SAFETY: the device belongs to the instance; the structs are valid, and so are their chains.
    let result =
        unsafe { instance.get_physical_device_image_format_properties2(gpu, &asked, &mut answer) };
    let features = external.external_memory_properties.external_memory_features;
    result.is_ok() && features.contains(vk::ExternalMemoryFeatureFlags::IMPORTABLE)
}

/// Whether the driver makes images that are declared for imported memory.
pub(super) fn can_be_declared(test: &Test, instance: &Instance, gpu: vk::PhysicalDevice) -> bool {
    let tiling = vk::ImageTiling::LINEAR;
    is_importable(instance, gpu, tiling) && Image::new(test, tiling, Some(external())).is_ok()
}

/// An image, destroyed on drop.
struct Image<'t> {
    test: &'t Test,
    handle: vk::Image,
    needs: vk::MemoryRequirements,
}

impl<'t> Image<'t> {
    fn new(
        test: &'t Test,
        tiling: vk::ImageTiling,
        mut declared: Option<vk::ExternalMemoryImageCreateInfo<'_>>,
    ) -> Result<Self> {
        let extent = vk::Extent3D::default().width(SIDE).height(SIDE).depth(1);
        let mut info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(FORMAT)
            .extent(extent)
            .mip_levels(1)
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(tiling)
            .usage(usage());
        if let Some(declared) = &mut declared {
            info = info.push_next(declared);
        }
        // SAFETY: the info points to live data, and the device outlives the image.
        unsafe {
            let handle = test.device.create_image(&info, None);
            let handle = handle.map_err(failed("vkCreateImage"))?;
            Ok(Self {
                test,
                handle,
                needs: test.device.get_image_memory_requirements(handle),
            })
        }
    }

    /// Binds imported memory of type `index`, and lets the GPU write the image and read it. Returns
    /// whether the texels are in the memory.
    fn look(&self, index: u32) -> Result<bool> {
        let size = self.needs.size;
        self.test
            .with_imported(size, index, BEFORE, Error::ImageTest, |imported| {
                self.write_and_read(imported.memory, imported.results)?;
                let mut word = [0; 4];
                let mut words = (0..imported.pages.len()).step_by(word.len());
                Ok(words.any(|place| {
                    let read = imported.pages.read(place, &mut word);
                    read.is_some() && u32::from_ne_bytes(word) != BEFORE
                }))
            })
    }

    fn write_and_read(&self, memory: vk::DeviceMemory, to: vk::Buffer) -> Result<()> {
        let device = &self.test.device;
        // SAFETY: both are of this device, and the memory is as large as the image needs.
        unsafe { device.bind_image_memory(self.handle, memory, 0) }
            .map_err(failed("vkBindImageMemory"))?;
        let range = vk::ImageSubresourceRange::default()
            .aspect_mask(vk::ImageAspectFlags::COLOR)
            .level_count(1)
            .layer_count(1);
        let colour = vk::ClearColorValue {
            uint32: TEXEL.map(u32::from),
        };
        let layers = vk::ImageSubresourceLayers::default()
            .aspect_mask(vk::ImageAspectFlags::COLOR)
            .layer_count(1);
        let extent = vk::Extent3D::default().width(SIDE).height(SIDE).depth(1);
        let copy = vk::BufferImageCopy::default()
            .image_subresource(layers)
            .image_extent(extent);
        let barrier = |from: (vk::ImageLayout, vk::AccessFlags), to: (vk::ImageLayout, _)| {
            vk::ImageMemoryBarrier::default()
                .old_layout(from.0)
                .new_layout(to.0)
                .src_access_mask(from.1)
                .dst_access_mask(to.1)
                .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
                .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
                .image(self.handle)
                .subresource_range(range)
        };
        let new = (vk::ImageLayout::UNDEFINED, vk::AccessFlags::empty());
        let written = (
            vk::ImageLayout::TRANSFER_DST_OPTIMAL,
            vk::AccessFlags::TRANSFER_WRITE,
        );
        let is_read = (
            vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
            vk::AccessFlags::TRANSFER_READ,
        );
        self.test.run(|commands| {
            let pass = |from: vk::PipelineStageFlags, barrier: vk::ImageMemoryBarrier<'_>| {
                let to = vk::PipelineStageFlags::TRANSFER;
                let none = vk::DependencyFlags::empty();
                // SAFETY: the command buffer is recorded, and the image is of this device.
                unsafe {
                    device.cmd_pipeline_barrier(commands, from, to, none, &[], &[], &[barrier]);
                }
            };
            pass(vk::PipelineStageFlags::TOP_OF_PIPE, barrier(new, written));
            // SAFETY: as above; image and buffer have the texels that are named.
            unsafe {
                let layout = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
                device.cmd_clear_color_image(commands, self.handle, layout, &colour, &[range]);
            }
            pass(vk::PipelineStageFlags::TRANSFER, barrier(written, is_read));
            // SAFETY: as above.
            unsafe {
                let layout = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
                device.cmd_copy_image_to_buffer(commands, self.handle, layout, to, &[copy]);
            }
        })?;
        let mut texels = vec![0; (SIDE * SIDE) as usize * TEXEL.len()];
        let read = self.test.shared.read(0, &mut texels);
        if read.is_some() && texels.chunks_exact(TEXEL.len()).all(|texel| texel == TEXEL) {
            return Ok(());
        }
        let first = texels.first_chunk::<4>();
        Err(Error::ImageTest(format!(
            "an image with optimal tiling in imported memory reads {first:?} instead of {TEXEL:?}"
        )))
    }
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        // SAFETY: of the test's device, and every submission was waited for.
        unsafe { self.test.device.destroy_image(self.handle, None) };
    }
}
