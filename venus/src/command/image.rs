//! Commands of `VkImage` and `VkImageView`.

use std::sync::Arc;

use hesper_venus_protocol::command::{
    CreateImage, GetDeviceImageSubresourceLayout, GetImageDrmFormatModifierPropertiesEXT,
    GetImageSubresourceLayout, GetImageSubresourceLayout2,
};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{CommandId, vk};

use super::lifetime::{create_object, entry};
use super::memory_requirements::no_create_info;
use super::shape::{Family, create, destroy, forward, special};
use crate::emulate::mirror::{self, Layout};
use crate::emulate::modifier::HostImage;
use crate::emulate::{host_allocation, modifier};
use crate::fatal::Fatal;
use crate::object::mirrors::Mirror;
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
    if image.has_modifier && device.physical.mirrors(c.p_create_info.format) {
        return create_mirrored(session, c, &image);
    }
    let mut external = Default::default();
    host_allocation::declare_image(device, c.p_create_info, &mut external);
    if let Some(wanted) = image.layout.first() {
        let real = match layout(session, c)? {
            Ok(real) => real,
            Err(error) => return Ok(error),
        };
        if image.layout.len() != 1 || !modifier::is_same(c.p_create_info, wanted, &real) {
            return create_mirrored(session, c, &image);
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

/// Creates an image with a mirror in memory that the guest shares.
fn create_mirrored(
    session: &mut Session<'_>,
    c: &mut CreateImage<'_>,
    image: &HostImage,
) -> Result<vk::Result, Fatal> {
    let device = Arc::clone(session.device(CommandId::CreateImage)?);
    let Some(layout) = Layout::new(c.p_create_info, &image.layout) else {
        return Ok(vk::Result::ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
    };
    mirror::rewrite_image(c.p_create_info);
    let mut mirror = match Mirror::new(&device, layout) {
        Ok(mirror) => Some(mirror),
        Err(error) => return Ok(error),
    };
    let result = create_object(
        session,
        c,
        |c| &mut *c.p_image,
        |device, image| {
            if let Some(mirror) = mirror.take() {
                device.mirrors.insert(image, mirror);
            }
        },
    );
    if let Some(mirror) = mirror {
        mirror.destroy(device.raw());
    }
    result
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
    let id = CommandId::GetImageSubresourceLayout;
    let aspect = &mut c.p_subresource.aspect_mask;
    if let Some(mirror) = session.device(id)?.mirrors.get(c.image.handle) {
        *c.p_layout = layout_of(id, &mirror.layout, *aspect)?;
        return Ok(());
    }
    *aspect = aspect_of(id, *aspect)?;
    call(session, c)
}

/// `vkGetImageSubresourceLayout2`
fn subresource_layout2(
    session: &mut Session<'_>,
    c: &mut GetImageSubresourceLayout2<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetImageSubresourceLayout2;
    let aspect = &mut c.p_subresource.image_subresource.aspect_mask;
    if let Some(mirror) = session.device(id)?.mirrors.get(c.image.handle) {
        c.p_layout.subresource_layout = layout_of(id, &mirror.layout, *aspect)?;
        return Ok(());
    }
    *aspect = aspect_of(id, *aspect)?;
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
    let physical = Arc::clone(&session.device(id)?.physical);
    let unknown = Fatal::Invalid {
        command: name(id),
        reason: "an image that cannot be created with this format modifier",
    };
    let Ok(image) = modifier::rewrite_image(info, physical.facts.declares) else {
        return Err(unknown);
    };
    let aspect = &mut subresource.image_subresource.aspect_mask;
    if image.has_modifier && physical.mirrors(info.format) {
        let layout = Layout::new(info, &image.layout).ok_or(unknown)?;
        c.p_layout.subresource_layout = layout_of(id, &layout, *aspect)?;
        return Ok(());
    }
    *aspect = aspect_of(id, *aspect)?;
    call(session, c)
}

/// The layout of a plane of a picture that has a mirror.
fn layout_of(
    command: CommandId,
    layout: &Layout,
    aspect: vk::ImageAspectFlags,
) -> Result<vk::SubresourceLayout, Fatal> {
    layout.of(aspect).ok_or(Fatal::Invalid {
        command: name(command),
        reason: "a plane that the image does not have",
    })
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
