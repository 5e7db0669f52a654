//! Queries of memory requirements: to which memory types buffers and images can be bound.

use std::sync::Arc;

use hesper_venus_protocol::command::{
    GetBufferMemoryRequirements, GetBufferMemoryRequirements2, GetDeviceBufferMemoryRequirements,
    GetDeviceImageMemoryRequirements, GetImageMemoryRequirements, GetImageMemoryRequirements2,
};
use hesper_venus_protocol::runtime::find_mut;
use hesper_venus_protocol::{CommandId, vk};

use super::shape::{Family, forward, special};
use crate::emulate::dma_buf::{self, Placement};
use crate::emulate::mirror::{self, Layout};
use crate::emulate::{host_allocation, modifier};
use crate::fatal::Fatal;
use crate::object::mirrors::Mirror;
use crate::session::{Session, call, name};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        GetBufferMemoryRequirements => buffer,
        GetBufferMemoryRequirements2 => buffer2,
        GetImageMemoryRequirements => image,
        GetImageMemoryRequirements2 => image2,
        GetDeviceBufferMemoryRequirements => device_buffer,
        GetDeviceImageMemoryRequirements => device_image,
    ),
    forward!(
        GetImageSparseMemoryRequirements,
        GetImageSparseMemoryRequirements2,
        GetDeviceImageSparseMemoryRequirements,
    ),
];

/// `vkGetBufferMemoryRequirements`
fn buffer(session: &mut Session<'_>, c: &mut GetBufferMemoryRequirements<'_>) -> Result<(), Fatal> {
    call(session, c)?;
    let id = CommandId::GetBufferMemoryRequirements;
    let shared = &session.device(id)?.shared_objects.buffers;
    let placement = Placement::of_buffer(shared.contains(c.buffer.handle.0));
    translate(session, id, placement, c.p_memory_requirements)
}

/// `vkGetBufferMemoryRequirements2`
fn buffer2(
    session: &mut Session<'_>,
    c: &mut GetBufferMemoryRequirements2<'_>,
) -> Result<(), Fatal> {
    call(session, c)?;
    let id = CommandId::GetBufferMemoryRequirements2;
    let shared = &session.device(id)?.shared_objects.buffers;
    let placement = Placement::of_buffer(shared.contains(c.p_info.buffer.0));
    translate(
        session,
        id,
        placement,
        &mut c.p_memory_requirements.memory_requirements,
    )
}

/// `vkGetImageMemoryRequirements`
fn image(session: &mut Session<'_>, c: &mut GetImageMemoryRequirements<'_>) -> Result<(), Fatal> {
    call(session, c)?;
    let id = CommandId::GetImageMemoryRequirements;
    if let Some(mirror) = session.device(id)?.mirrors.get(c.image.handle) {
        *c.p_memory_requirements = mirror.requirements;
        return translate(session, id, Placement::Shared, c.p_memory_requirements);
    }
    let placement = Placement::of_known_image(session.device(id)?, c.image.handle);
    translate(session, id, placement, c.p_memory_requirements)
}

/// `vkGetImageMemoryRequirements2`
fn image2(session: &mut Session<'_>, c: &mut GetImageMemoryRequirements2<'_>) -> Result<(), Fatal> {
    call(session, c)?;
    let id = CommandId::GetImageMemoryRequirements2;
    if let Some(mirror) = session.device(id)?.mirrors.get(c.p_info.image) {
        // SAFETY: the chain was decoded, and nobody else uses it.
        unsafe { demand(mirror.requirements, c.p_memory_requirements) };
        let requirements = &mut c.p_memory_requirements.memory_requirements;
        return translate(session, id, Placement::Shared, requirements);
    }
    let placement = Placement::of_known_image(session.device(id)?, c.p_info.image);
    translate(
        session,
        id,
        placement,
        &mut c.p_memory_requirements.memory_requirements,
    )
}

/// `vkGetDeviceBufferMemoryRequirements`
fn device_buffer(
    session: &mut Session<'_>,
    c: &mut GetDeviceBufferMemoryRequirements<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetDeviceBufferMemoryRequirements;
    // SAFETY: decoded as null or a valid struct that nobody else uses.
    let info = unsafe { c.p_info.p_create_info.cast_mut().as_mut() };
    let info = info.ok_or(no_create_info(id))?;
    let device = session.device(id)?;
    let placement = Placement::of_buffer(dma_buf::rewrite_buffer(
        info,
        device.physical.facts.declares,
    ));
    let mut external = Default::default();
    host_allocation::declare_buffer(device, info, &mut external);
    call(session, c)?;
    translate(
        session,
        id,
        placement,
        &mut c.p_memory_requirements.memory_requirements,
    )
}

/// `vkGetDeviceImageMemoryRequirements`
fn device_image(
    session: &mut Session<'_>,
    c: &mut GetDeviceImageMemoryRequirements<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetDeviceImageMemoryRequirements;
    // SAFETY: decoded as null or a valid struct that nobody else uses.
    let info = unsafe { c.p_info.p_create_info.cast_mut().as_mut() };
    let info = info.ok_or(no_create_info(id))?;
    let declares = session.device(id)?.physical.facts.declares;
    let Ok(image) = modifier::rewrite_image(info, declares) else {
        return Err(Fatal::Invalid {
            command: name(id),
            reason: "an image that cannot be created with this format modifier",
        });
    };
    let device = Arc::clone(session.device(id)?);
    if image.has_modifier && device.physical.mirrors(info.format) {
        let mirror = Layout::new(info, &image.layout).map(|layout| Mirror::new(&device, layout));
        let Some(Ok(mirror)) = mirror else {
            return Err(Fatal::Invalid {
                command: name(id),
                reason: "an image that cannot be created with this layout",
            });
        };
        let demanded = mirror.requirements;
        // Whatever the driver answers below.
        mirror.destroy(device.raw());
        mirror::rewrite_image(info);
        call(session, c)?;
        // SAFETY: the chain was decoded, and nobody else uses it.
        unsafe { demand(demanded, c.p_memory_requirements) };
        let requirements = &mut c.p_memory_requirements.memory_requirements;
        return translate(session, id, Placement::Shared, requirements);
    }
    let device = &*device;
    let mut external = Default::default();
    host_allocation::declare_image(device, info, &mut external);
    let is_linear = || info.tiling == vk::ImageTiling::LINEAR;
    let placement = Placement::of_image(device, image.is_shared, is_linear);
    call(session, c)?;
    translate(
        session,
        id,
        placement,
        &mut c.p_memory_requirements.memory_requirements,
    )
}

/// Answers with what a mirror demands. Its memory is imported, and so belongs to no single object.
///
/// # Safety
/// The answer's chain must have been decoded, and nobody else may use it.
unsafe fn demand(demanded: vk::MemoryRequirements, answer: &mut vk::MemoryRequirements2) {
    answer.memory_requirements = demanded;
    // SAFETY: as the caller promises.
    let dedicated = unsafe { find_mut::<vk::MemoryDedicatedRequirements>(answer.p_next) };
    if let Some(dedicated) = dedicated {
        dedicated.prefers_dedicated_allocation = 0;
        dedicated.requires_dedicated_allocation = 0;
    }
}

/// Translates memory types to the guest's, without those that the object cannot be bound to.
fn translate(
    session: &mut Session<'_>,
    command: CommandId,
    placement: Placement,
    requirements: &mut vk::MemoryRequirements,
) -> Result<(), Fatal> {
    let view = &session.device(command)?.physical.memory;
    let types = requirements.memory_type_bits;
    requirements.memory_type_bits = placement.types(view, types);
    Ok(())
}

/// The error for a command whose create info is null.
pub(super) fn no_create_info(command: CommandId) -> Fatal {
    Fatal::Invalid {
        command: name(command),
        reason: "there is no create info",
    }
}
