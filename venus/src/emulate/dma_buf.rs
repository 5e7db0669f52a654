//! dma-bufs without a host that has them (`VK_EXT_external_memory_dma_buf`).
//!
//! What a guest exports as a dma-buf is shared memory, like all memory that it can map. Its kernel
//! makes the dma-buf from the blob's pages, and an import names the blob
//! (`VkImportMemoryResourceInfoMESA`, see `command::memory`). For the driver, that is memory
//! imported by host pointer. So buffers and images that the guest declares as external are created
//! for such memory. Their requirements are limited to the types that shared memory can be imported
//! as.

use hesper_venus_protocol::runtime::{Chained, find_mut, unlink};
use hesper_venus_protocol::vk;

use crate::memory::{Declares, HOST_ALLOCATION, MemoryView};
use crate::object::device::Device;

/// What a guest can do with a dma-buf of an image or buffer that can have one.
pub(crate) const PROPERTIES: vk::ExternalMemoryProperties = vk::ExternalMemoryProperties {
    external_memory_features: vk::ExternalMemoryFeatureFlags(
        vk::ExternalMemoryFeatureFlags::EXPORTABLE.0 | vk::ExternalMemoryFeatureFlags::IMPORTABLE.0,
    ),
    export_from_imported_handle_types: vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
    compatible_handle_types: vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
};

/// Sparse buffers have no memory of their own that they could share.
pub(crate) fn is_sparse(flags: vk::BufferCreateFlags) -> bool {
    flags.contains(vk::BufferCreateFlags::SPARSE_BINDING)
}

/// Declares a buffer to the driver as one for imported host memory, if `declares` says that the
/// driver accepts that. Returns whether the guest shares the buffer.
pub(crate) fn rewrite_buffer(info: &mut vk::BufferCreateInfo, declares: Declares) -> bool {
    // SAFETY: the chain was decoded, and nobody else uses it.
    let external =
        unsafe { find_mut::<vk::ExternalMemoryBufferCreateInfo>(info.p_next.cast_mut()) };
    let Some(external) = external else {
        return false;
    };
    let is_shared = !external.handle_types.is_empty() && !is_sparse(info.flags);
    match is_shared && declares.buffers {
        true => external.handle_types = HOST_ALLOCATION,
        // SAFETY: as above.
        false => drop(unsafe { unlink(info, vk::ExternalMemoryBufferCreateInfo::STYPE) }),
    }
    is_shared
}

/// Which memory an object can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Any that the driver names.
    Any,
    /// Such that can be shared.
    Shared,
    /// Such that is not imported, if there is any.
    Unmapped,
}

impl Placement {
    /// The memory types that the object can be bound to, as the guest's bits. `types` are the
    /// driver's, as bits.
    pub(crate) fn types(self, view: &MemoryView, types: u32) -> u32 {
        match self {
            Self::Any => view.guest_bits(types),
            Self::Shared => view.mappable_bits(types),
            Self::Unmapped => view.unmapped_bits(types),
        }
    }

    pub(crate) fn of_buffer(is_shared: bool) -> Self {
        match is_shared {
            true => Self::Shared,
            false => Self::Any,
        }
    }

    pub(crate) fn of_image(
        device: &Device,
        is_shared: bool,
        is_linear: impl FnOnce() -> bool,
    ) -> Self {
        match device.physical.keeps_images_apart() && !is_linear() {
            true => Self::Unmapped,
            false => Self::of_buffer(is_shared),
        }
    }

    pub(crate) fn of_known_image(device: &Device, image: vk::Image) -> Self {
        let shared = &device.shared_objects;
        let is_linear = || shared.linear.contains(image.0);
        Self::of_image(device, shared.images.contains(image.0), is_linear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_for_a_dma_buf_is_created_for_host_memory() {
        let mut external = vk::ExternalMemoryBufferCreateInfo {
            handle_types: vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
            ..Default::default()
        };
        let mut info = vk::BufferCreateInfo {
            p_next: (&raw mut external).cast(),
            ..Default::default()
        };
        assert!(rewrite_buffer(&mut info, Declares::default()));
        assert_eq!(external.handle_types, HOST_ALLOCATION);
        assert!(!rewrite_buffer(
            &mut vk::BufferCreateInfo::default(),
            Declares::default()
        ));
        // A driver that does not accept it is not told, and the guest shares the buffer
        // nevertheless.
        let declares = Declares {
            buffers: false,
            ..Default::default()
        };
        assert!(rewrite_buffer(&mut info, declares));
        assert!(info.p_next.is_null());
    }

    #[test]
    fn a_sparse_buffer_is_not_shared() {
        let mut external = vk::ExternalMemoryBufferCreateInfo {
            handle_types: vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
            ..Default::default()
        };
        let mut info = vk::BufferCreateInfo {
            p_next: (&raw mut external).cast(),
            flags: vk::BufferCreateFlags::SPARSE_BINDING,
            ..Default::default()
        };
        assert!(!rewrite_buffer(&mut info, Declares::default()));
        assert!(info.p_next.is_null());
    }
}
