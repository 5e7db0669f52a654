//! Commands of `VkImage` and `VkImageView`.

use hesper_venus_protocol::command::{
    CreateImage, GetDeviceImageSubresourceLayout, GetImageDrmFormatModifierPropertiesEXT,
    GetImageSubresourceLayout, GetImageSubresourceLayout2,
};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{CommandId, vk};

use super::lifetime::{create_object, entry};
use super::memory_requirements::no_create_info;
use super::shape::{Family, create, destroy, forward, special};
use crate::emulate::{host_allocation, modifier};
use crate::fatal::Fatal;
use crate::session::{Session, call, name};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        CreateImage => create,
        GetImageDrmFormatModifierPropertiesEXT => format_modifier,
        GetImageSubresourceLayout => subresource_layout,
        GetImageSubresourceLayout2 => subresource_layout2,
        GetDeviceImageSubresourceLayout => device_subresource_layout,
    ),
    create!(
        CreateImageView => p_view,
    ),
    destroy!(
        DestroyImage => image,
        DestroyImageView => image_view,
    ),
    forward!(GetImageOpaqueCaptureDataEXT),
];

/// `vkCreateImage`
fn create(session: &mut Session<'_>, c: &mut CreateImage<'_>) -> Result<vk::Result, Fatal> {
    let device = session.device(CommandId::CreateImage)?;
    let image = match modifier::rewrite_image(c.p_create_info, device.physical.facts.declares) {
        Ok(image) => image,
        Err(error) => return Ok(error),
    };
    let mut external = Default::default();
    host_allocation::declare_image(device, c.p_create_info, &mut external);
    if let Some(wanted) = image.layout {
        let real = match layout(session, c)? {
            Ok(real) => real,
            Err(error) => return Ok(error),
        };
        if !modifier::is_same(c.p_create_info, &wanted, &real) {
            return Ok(vk::Result::ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
        }
    }
    let is_linear = c.p_create_info.tiling == vk::ImageTiling::LINEAR;
    let is_shared = image.is_shared;
    create_object(
        session,
        c,
        |c| &mut *c.p_image,
        |device, image| {
            if is_shared {
                device.shared_objects.images.insert(image.0);
            }
            if is_linear && device.physical.keeps_images_apart() {
                device.shared_objects.linear.insert(image.0);
            }
        },
    )
}

/// Asks how the driver lays an image out. It makes one for that, which no guest can name.
fn layout(
    session: &mut Session<'_>,
    c: &mut CreateImage<'_>,
) -> Result<Result<vk::SubresourceLayout, vk::Result>, Fatal> {
    let mut image = vk::Image::default();
    let mut create = CreateImage {
        device: c.device,
        p_create_info: &mut *c.p_create_info,
        p_image: &mut image,
    };
    let result = call(session, &mut create)?;
    if result != vk::Result::SUCCESS {
        return Ok(Err(result));
    }
    let mut layout = vk::SubresourceLayout::default();
    let mut query = GetImageSubresourceLayout {
        device: c.device,
        image: Object {
            id: 0,
            handle: image,
        },
        p_subresource: &mut vk::ImageSubresource {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            ..Default::default()
        },
        p_layout: &mut layout,
    };
    let asked = call(session, &mut query);
    let device = session.device(CommandId::CreateImage)?;
    device.destroy_now(&entry(device.owner, image));
    asked?;
    Ok(Ok(layout))
}

/// `vkGetImageDrmFormatModifierPropertiesEXT`
fn format_modifier(
    _session: &mut Session<'_>,
    c: &mut GetImageDrmFormatModifierPropertiesEXT<'_>,
) -> Result<vk::Result, Fatal> {
    c.p_properties.drm_format_modifier = modifier::LINEAR;
    Ok(vk::Result::SUCCESS)
}

/// `vkGetImageSubresourceLayout`
fn subresource_layout(
    session: &mut Session<'_>,
    c: &mut GetImageSubresourceLayout<'_>,
) -> Result<(), Fatal> {
    let aspect = &mut c.p_subresource.aspect_mask;
    *aspect = aspect_of(CommandId::GetImageSubresourceLayout, *aspect)?;
    call(session, c)
}

/// `vkGetImageSubresourceLayout2`
fn subresource_layout2(
    session: &mut Session<'_>,
    c: &mut GetImageSubresourceLayout2<'_>,
) -> Result<(), Fatal> {
    let aspect = &mut c.p_subresource.image_subresource.aspect_mask;
    *aspect = aspect_of(CommandId::GetImageSubresourceLayout2, *aspect)?;
    call(session, c)
}

/// `vkGetDeviceImageSubresourceLayout`
fn device_subresource_layout(
    session: &mut Session<'_>,
    c: &mut GetDeviceImageSubresourceLayout<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetDeviceImageSubresourceLayout;
    // SAFETY: decoded as null or a valid struct that nobody else uses.
    let info = unsafe { c.p_info.p_create_info.cast_mut().as_mut() };
    // SAFETY: as above.
    let subresource = unsafe { c.p_info.p_subresource.cast_mut().as_mut() };
    let (info, subresource) = info.zip(subresource).ok_or(no_create_info(id))?;
    let declares = session.device(id)?.physical.facts.declares;
    if modifier::rewrite_image(info, declares).is_err() {
        return Err(Fatal::Invalid {
            command: name(id),
            reason: "an image that cannot be created with this format modifier",
        });
    }
    let aspect = &mut subresource.image_subresource.aspect_mask;
    *aspect = aspect_of(id, *aspect)?;
    call(session, c)
}

/// The aspect to ask the driver for.
fn aspect_of(
    command: CommandId,
    aspect: vk::ImageAspectFlags,
) -> Result<vk::ImageAspectFlags, Fatal> {
    modifier::host_aspect(aspect).ok_or(Fatal::Invalid {
        command: name(command),
        reason: "a memory plane other than 0 of a linear image",
    })
}
