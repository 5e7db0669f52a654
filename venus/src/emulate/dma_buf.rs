//! dma-bufs without a host that has them (`VK_EXT_external_memory_dma_buf`).
//!
//! What a guest exports as a dma-buf is shared memory, like all memory that it can map: its kernel makes the dma-buf
//! from the blob's pages, and an import names the blob (`VkImportMemoryResourceInfoMESA`, see
//! [`crate::command::memory`]). For the driver that is memory imported by host pointer. So buffers and images that
//! the guest declares as external are created for such memory, and their requirements are cut down to the
//! types that shared memory can be imported as.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ash::vk::ExternalMemoryHandleTypeFlags as HostTypes;
use hesper_venus_protocol::command::{
    CreateBuffer, DestroyBuffer, DestroyImage, GetBufferMemoryRequirements,
    GetBufferMemoryRequirements2, GetDeviceBufferMemoryRequirements,
    GetDeviceImageMemoryRequirements, GetImageMemoryRequirements, GetImageMemoryRequirements2,
    GetPhysicalDeviceExternalBufferProperties,
};
use hesper_venus_protocol::runtime::{Chained, find_mut, unlink};
use hesper_venus_protocol::{CommandId, vk};

use super::{Policy, host_allocation, modifier};
use crate::command::{create_one, take};
use crate::fatal::Fatal;
use crate::memory::Declares;
use crate::object::device::Device;
use crate::session::{Session, call, name};
use crate::sync::Lock;

/// What the driver is told instead of a dma-buf.
pub(super) const HOST_ALLOCATION: vk::ExternalMemoryHandleTypeFlags =
    vk::ExternalMemoryHandleTypeFlags(HostTypes::HOST_ALLOCATION_EXT.as_raw());

/// What a guest can do with a dma-buf of any image or buffer that can have one.
pub(super) const PROPERTIES: vk::ExternalMemoryProperties = vk::ExternalMemoryProperties {
    external_memory_features: vk::ExternalMemoryFeatureFlags(
        vk::ExternalMemoryFeatureFlags::EXPORTABLE.0 | vk::ExternalMemoryFeatureFlags::IMPORTABLE.0,
    ),
    export_from_imported_handle_types: vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
    compatible_handle_types: vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
};

/// Objects of a device whose memory is shared, by the driver's handles.
#[derive(Default)]
pub(crate) struct SharedObjects {
    buffers: Handles,
    images: Handles,
    /// Images with linear tiling, on a GPU whose others must not lie in imported memory.
    linear: Handles,
}

/// Handles of one type: mostly none.
#[derive(Default)]
struct Handles {
    known: Mutex<HashSet<u64>>,
    /// How many, to be looked at without the lock: what is asked about was inserted before the guest could ask.
    count: AtomicUsize,
}

impl Handles {
    fn insert(&self, handle: u64) {
        let mut known = self.known.locked();
        known.insert(handle);
        self.count.store(known.len(), Ordering::Release);
    }

    fn contains(&self, handle: u64) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.known.locked().contains(&handle)
    }

    fn remove(&self, handle: u64) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut known = self.known.locked();
        known.remove(&handle);
        self.count.store(known.len(), Ordering::Release);
    }
}

/// `vkGetPhysicalDeviceExternalBufferProperties`: only dma-bufs work, and only where they are offered.
pub(crate) fn buffer_properties(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceExternalBufferProperties<'_>,
) -> Result<(), Fatal> {
    let info = &c.p_external_buffer_info;
    let is_shareable = session.state.policy == Policy::DmaBuf
        && info.handle_type == vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT
        && !is_sparse(info.flags);
    c.p_external_buffer_properties.external_memory_properties = match is_shareable {
        true => PROPERTIES,
        false => vk::ExternalMemoryProperties::default(),
    };
    Ok(())
}

/// Sparse buffers have no memory of their own that could be shared.
fn is_sparse(flags: vk::BufferCreateFlags) -> bool {
    flags.contains(vk::BufferCreateFlags::SPARSE_BINDING)
}

/// Declares a buffer to the driver as one for imported host memory, if `declares` says that the driver takes that; whether the
/// guest shares it.
fn rewrite_buffer(info: &mut vk::BufferCreateInfo, declares: Declares) -> bool {
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

/// `vkCreateBuffer`
pub(crate) fn create_buffer(
    session: &mut Session<'_>,
    c: &mut CreateBuffer<'_>,
) -> Result<vk::Result, Fatal> {
    let device = session.device(CommandId::CreateBuffer)?;
    let is_shared = rewrite_buffer(c.p_create_info, device.physical.facts.declares);
    let mut external = Default::default();
    host_allocation::declare_buffer(device, c.p_create_info, &mut external);
    let (result, host) = create_one(session, c, |c| &mut *c.p_buffer)?;
    if let Some(host) = host.filter(|_| is_shared) {
        let device = session.device(CommandId::CreateBuffer)?;
        device.shared_objects.buffers.insert(host.0);
    }
    Ok(result)
}

/// Remembers what an image is, where that matters.
pub(super) fn remember_image(
    session: &mut Session<'_>,
    image: vk::Image,
    is_shared: bool,
    is_linear: bool,
) -> Result<(), Fatal> {
    let device = session.device(CommandId::CreateImage)?;
    if is_shared {
        device.shared_objects.images.insert(image.0);
    }
    if is_linear && device.physical.keeps_images_apart() {
        device.shared_objects.linear.insert(image.0);
    }
    Ok(())
}

/// `vkDestroyBuffer`
pub(crate) fn destroy_buffer(
    session: &mut Session<'_>,
    c: &mut DestroyBuffer,
) -> Result<(), Fatal> {
    if c.buffer.is_null() {
        return Ok(());
    }
    take(session, c.buffer, CommandId::DestroyBuffer)?;
    // The driver cannot give the handle out again before it was called.
    let device = session.device(CommandId::DestroyBuffer)?;
    device.shared_objects.buffers.remove(c.buffer.handle.0);
    call(session, c)
}

/// `vkDestroyImage`
pub(crate) fn destroy_image(session: &mut Session<'_>, c: &mut DestroyImage) -> Result<(), Fatal> {
    if c.image.is_null() {
        return Ok(());
    }
    take(session, c.image, CommandId::DestroyImage)?;
    // The driver cannot give the handle out again before it was called.
    let device = session.device(CommandId::DestroyImage)?;
    device.shared_objects.images.remove(c.image.handle.0);
    device.shared_objects.linear.remove(c.image.handle.0);
    device.host_copy.forget(c.image.handle);
    call(session, c)
}

/// Which memory an object can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Any that the driver names.
    Any,
    /// Such that can be shared.
    Shared,
    /// Such that is not imported, if there is any.
    Unmapped,
}

impl Place {
    fn of_buffer(is_shared: bool) -> Self {
        match is_shared {
            true => Self::Shared,
            false => Self::Any,
        }
    }

    fn of_image(device: &Device, is_shared: bool, is_linear: impl FnOnce() -> bool) -> Self {
        match device.physical.keeps_images_apart() && !is_linear() {
            true => Self::Unmapped,
            false => Self::of_buffer(is_shared),
        }
    }

    fn of_known_image(device: &Device, image: vk::Image) -> Self {
        let shared = &device.shared_objects;
        let is_linear = || shared.linear.contains(image.0);
        Self::of_image(device, shared.images.contains(image.0), is_linear)
    }
}

/// Names memory types as the guest does, but for those where the object cannot lie.
fn translate(
    session: &mut Session<'_>,
    command: CommandId,
    place: Place,
    requirements: &mut vk::MemoryRequirements,
) -> Result<(), Fatal> {
    let view = &session.device(command)?.physical.memory;
    let types = requirements.memory_type_bits;
    requirements.memory_type_bits = match place {
        Place::Any => view.guest_bits(types),
        Place::Shared => view.mappable_bits(types),
        Place::Unmapped => view.unmapped_bits(types),
    };
    Ok(())
}

/// `vkGetBufferMemoryRequirements`
pub(crate) fn buffer_requirements(
    session: &mut Session<'_>,
    c: &mut GetBufferMemoryRequirements<'_>,
) -> Result<(), Fatal> {
    call(session, c)?;
    let id = CommandId::GetBufferMemoryRequirements;
    let shared = &session.device(id)?.shared_objects.buffers;
    let place = Place::of_buffer(shared.contains(c.buffer.handle.0));
    translate(session, id, place, c.p_memory_requirements)
}

/// `vkGetBufferMemoryRequirements2`
pub(crate) fn buffer_requirements2(
    session: &mut Session<'_>,
    c: &mut GetBufferMemoryRequirements2<'_>,
) -> Result<(), Fatal> {
    call(session, c)?;
    let id = CommandId::GetBufferMemoryRequirements2;
    let shared = &session.device(id)?.shared_objects.buffers;
    let place = Place::of_buffer(shared.contains(c.p_info.buffer.0));
    translate(
        session,
        id,
        place,
        &mut c.p_memory_requirements.memory_requirements,
    )
}

/// `vkGetImageMemoryRequirements`
pub(crate) fn image_requirements(
    session: &mut Session<'_>,
    c: &mut GetImageMemoryRequirements<'_>,
) -> Result<(), Fatal> {
    call(session, c)?;
    let id = CommandId::GetImageMemoryRequirements;
    let place = Place::of_known_image(session.device(id)?, c.image.handle);
    translate(session, id, place, c.p_memory_requirements)
}

/// `vkGetImageMemoryRequirements2`
pub(crate) fn image_requirements2(
    session: &mut Session<'_>,
    c: &mut GetImageMemoryRequirements2<'_>,
) -> Result<(), Fatal> {
    call(session, c)?;
    let id = CommandId::GetImageMemoryRequirements2;
    let place = Place::of_known_image(session.device(id)?, c.p_info.image);
    translate(
        session,
        id,
        place,
        &mut c.p_memory_requirements.memory_requirements,
    )
}

/// `vkGetDeviceBufferMemoryRequirements`
pub(crate) fn device_buffer_requirements(
    session: &mut Session<'_>,
    c: &mut GetDeviceBufferMemoryRequirements<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetDeviceBufferMemoryRequirements;
    // SAFETY: decoded as null or a valid struct that nobody else uses.
    let info = unsafe { c.p_info.p_create_info.cast_mut().as_mut() };
    let info = info.ok_or(missing(id))?;
    let device = session.device(id)?;
    let place = Place::of_buffer(rewrite_buffer(info, device.physical.facts.declares));
    let mut external = Default::default();
    host_allocation::declare_buffer(device, info, &mut external);
    call(session, c)?;
    translate(
        session,
        id,
        place,
        &mut c.p_memory_requirements.memory_requirements,
    )
}

/// `vkGetDeviceImageMemoryRequirements`
pub(crate) fn device_image_requirements(
    session: &mut Session<'_>,
    c: &mut GetDeviceImageMemoryRequirements<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetDeviceImageMemoryRequirements;
    // SAFETY: decoded as null or a valid struct that nobody else uses.
    let info = unsafe { c.p_info.p_create_info.cast_mut().as_mut() };
    let info = info.ok_or(missing(id))?;
    let declares = session.device(id)?.physical.facts.declares;
    let Ok(image) = modifier::rewrite_image(info, declares) else {
        return Err(Fatal::Invalid {
            command: name(id),
            reason: "an image that cannot be created with this format modifier",
        });
    };
    let mut external = Default::default();
    let device = session.device(id)?;
    host_allocation::declare_image(device, info, &mut external);
    let is_linear = || info.tiling == vk::ImageTiling::LINEAR;
    let place = Place::of_image(device, image.is_shared, is_linear);
    call(session, c)?;
    translate(
        session,
        id,
        place,
        &mut c.p_memory_requirements.memory_requirements,
    )
}

/// A command whose create info is null.
pub(super) fn missing(command: CommandId) -> Fatal {
    Fatal::Invalid {
        command: name(command),
        reason: "there is no create info",
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
        // A driver that does not take it is not told, and the guest shares the buffer all the same.
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

    #[test]
    fn a_handle_is_known_until_it_is_removed() {
        let handles = Handles::default();
        assert!(!handles.contains(7));
        handles.insert(7);
        assert!(handles.contains(7) && !handles.contains(8));
        handles.remove(7);
        assert!(!handles.contains(7));
    }
}
