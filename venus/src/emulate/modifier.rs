//! DRM format modifiers without a host that has them (`VK_EXT_image_drm_format_modifier`).
//!
//! A modifier says how a picture lies in memory that is shared. The only one offered is `LINEAR`: rows one
//! behind the other, which every driver has as `VK_IMAGE_TILING_LINEAR`. So each question about a modifier becomes one
//! about linear tiling, and images of one plane whose texels are colours can be shared as far as the driver can use
//! linear ones.

use ash::vk as host;
use hesper_venus_protocol::command::{
    CreateImage, GetDeviceImageSubresourceLayout, GetImageDrmFormatModifierPropertiesEXT,
    GetImageSubresourceLayout, GetImageSubresourceLayout2, GetPhysicalDeviceFormatProperties2,
    GetPhysicalDeviceImageFormatProperties2,
};
use hesper_venus_protocol::runtime::{Chained, Object, find, find_mut, unlink};
use hesper_venus_protocol::{CommandId, vk};

use super::chain::Detached;
use super::{Policy, dma_buf, host_allocation, sparse};
use crate::command::create_one;
use crate::fatal::Fatal;
use crate::memory::Declares;
use crate::object::physical_device::described;
use crate::object::table::Entry;
use crate::object::{host_copy, teardown};
use crate::session::{Session, call, name};

/// `DRM_FORMAT_MOD_LINEAR`
const LINEAR: u64 = 0;

/// Whether images of this format can be shared: one plane, and colours in it.
///
/// The formats of the YCbCr extensions are left out as a whole, though a few of them have one plane.
fn is_shareable(format: vk::Format) -> bool {
    let depth = host::Format::D16_UNORM.as_raw()..=host::Format::D32_SFLOAT_S8_UINT.as_raw();
    let ycbcr = host::Format::G8B8G8R8_422_UNORM.as_raw()
        ..=host::Format::G16_B16_R16_3PLANE_444_UNORM.as_raw();
    let ycbcr_444 = host::Format::G8_B8R8_2PLANE_444_UNORM.as_raw()
        ..=host::Format::G16_B16R16_2PLANE_444_UNORM.as_raw();
    ![depth, ycbcr, ycbcr_444]
        .iter()
        .any(|formats| formats.contains(&format.0))
}

/// `vkGetPhysicalDeviceFormatProperties2`, with the list of modifiers.
pub(crate) fn format_properties(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceFormatProperties2<'_>,
) -> Result<(), Fatal> {
    let properties = &mut *c.p_format_properties;
    // SAFETY: the chain was decoded, and nobody else uses it.
    let list = unsafe { Detached::<vk::DrmFormatModifierPropertiesListEXT>::take(properties) };
    // SAFETY: as above.
    let list2 = unsafe { Detached::<vk::DrmFormatModifierPropertiesList2EXT>::take(properties) };
    call(session, c)?;
    let properties = &mut *c.p_format_properties;
    let features = properties.format_properties.linear_tiling_features;
    let features = Some(features).filter(|f| !f.is_empty() && is_shareable(c.format));
    if !host_copy::is_carried(c.format) {
        // SAFETY: as above.
        let all = unsafe { find_mut::<vk::FormatProperties3>(properties.p_next) };
        let hidden = vk::FormatFeatureFlags2::HOST_IMAGE_TRANSFER;
        if let Some(all) = all {
            all.linear_tiling_features = all.linear_tiling_features & !hidden;
            all.optimal_tiling_features = all.optimal_tiling_features & !hidden;
        }
    }
    // SAFETY: as above.
    let all = unsafe { find::<vk::FormatProperties3>(properties.p_next) };
    // The first 31 features are the same in both types.
    let features2 = features.map(|features| {
        all.map_or(vk::FormatFeatureFlags2(features.0.into()), |all| {
            all.linear_tiling_features
        })
    });
    // SAFETY: as above; the driver does not change chains, and this is the opposite order.
    if let Some(list) = list2.map(|list| unsafe { list.put_back(properties) }) {
        let entry = features2.map(|features| vk::DrmFormatModifierProperties2EXT {
            drm_format_modifier: LINEAR,
            drm_format_modifier_plane_count: 1,
            drm_format_modifier_tiling_features: features,
        });
        fill(
            entry,
            &mut list.drm_format_modifier_count,
            list.p_drm_format_modifier_properties,
        );
    }
    // SAFETY: as above.
    if let Some(list) = list.map(|list| unsafe { list.put_back(properties) }) {
        let entry = features.map(|features| vk::DrmFormatModifierPropertiesEXT {
            drm_format_modifier: LINEAR,
            drm_format_modifier_plane_count: 1,
            drm_format_modifier_tiling_features: features,
        });
        fill(
            entry,
            &mut list.drm_format_modifier_count,
            list.p_drm_format_modifier_properties,
        );
    }
    Ok(())
}

/// Answers a list of at most one entry: its length where there is no room, else as much as fits.
fn fill<T>(entry: Option<T>, count: &mut u32, room: *mut T) {
    let available = u32::from(entry.is_some());
    if room.is_null() {
        *count = available;
        return;
    }
    let fits = (*count).min(available);
    if let Some(entry) = entry.filter(|_| fits > 0) {
        // SAFETY: the decoder made room for `count` entries, which is one or more.
        unsafe { room.write(entry) };
    }
    *count = fits;
}

/// `vkGetPhysicalDeviceImageFormatProperties2`: only linear images can be shared, and only where sharing is offered.
pub(crate) fn image_format_properties(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceImageFormatProperties2<'_>,
) -> Result<vk::Result, Fatal> {
    use vk::ExternalMemoryHandleTypeFlags as Types;
    let is_offered = session.state.policy == Policy::DmaBuf;
    let id = CommandId::GetPhysicalDeviceImageFormatProperties2;
    let device = described(session, id, c.physical_device.handle)?;
    let flags = c.p_image_format_info.flags;
    if sparse::is_image_hidden(&device, flags) || device.lacks_image(flags) {
        return Ok(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
    }
    let info = &mut *c.p_image_format_info;
    if info.usage.contains(vk::ImageUsageFlags::HOST_TRANSFER)
        && !host_copy::is_carried(info.format)
    {
        return Ok(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
    }
    // SAFETY: the chain was decoded, and nobody else uses it.
    let modifier = unsafe { take::<vk::PhysicalDeviceImageDrmFormatModifierInfoEXT, _>(info) };
    if info.tiling == vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT {
        let is_linear = modifier.is_some_and(|modifier| modifier.drm_format_modifier == LINEAR);
        if !is_linear || !is_offered || !is_shareable(info.format) {
            return Ok(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
        }
        info.tiling = vk::ImageTiling::LINEAR;
    }
    // SAFETY: as above.
    let external =
        unsafe { find_mut::<vk::PhysicalDeviceExternalImageFormatInfo>(info.p_next.cast_mut()) };
    let external = external.filter(|external| !external.handle_type.is_empty());
    let is_external = external.is_some();
    if let Some(external) = external {
        let is_dma_buf = external.handle_type == Types::DMA_BUF_EXT;
        let has_layout = info.tiling == vk::ImageTiling::LINEAR && is_shareable(info.format);
        if !is_offered || !is_dma_buf || !has_layout {
            return Ok(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
        }
        external.handle_type = dma_buf::HOST_ALLOCATION;
    }
    let result = call(session, c)?;
    let p_next = c.p_image_format_properties.p_next;
    // SAFETY: as above.
    let external = unsafe { find_mut::<vk::ExternalImageFormatProperties>(p_next) };
    if let Some(external) = external {
        external.external_memory_properties = match is_external && result == vk::Result::SUCCESS {
            true => dma_buf::PROPERTIES,
            false => vk::ExternalMemoryProperties::default(),
        };
    }
    Ok(result)
}

/// Takes a struct out of a chain for good.
///
/// # Safety
/// `head` and its chain must be valid structs that nobody else uses.
unsafe fn take<T: Chained, H: Chained>(head: &mut H) -> Option<T> {
    // SAFETY: as the caller promises.
    let taken = unsafe { unlink(head, T::STYPE) };
    // SAFETY: its sType says that it is a T.
    taken.map(|taken| unsafe { *taken.cast::<T>() })
}

/// How an image of the guest's is made on the host.
pub(super) struct HostImage {
    /// The guest shares its memory.
    pub(super) is_shared: bool,
    /// The guest says how it lies in memory.
    layout: Option<vk::SubresourceLayout>,
}

/// Makes an image with a modifier a linear one, and one of external memory one of imported host memory, if `declares` says that the
/// driver takes that.
///
/// # Errors
/// What `vkCreateImage` says of a modifier that is not offered.
pub(super) fn rewrite_image(
    info: &mut vk::ImageCreateInfo,
    declares: Declares,
) -> Result<HostImage, vk::Result> {
    // SAFETY: the chain was decoded, and nobody else uses it.
    let list = unsafe { take::<vk::ImageDrmFormatModifierListCreateInfoEXT, _>(info) };
    // SAFETY: as above.
    let explicit = unsafe { take::<vk::ImageDrmFormatModifierExplicitCreateInfoEXT, _>(info) };
    let mut layout = None;
    if info.tiling == vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT {
        let is_linear = match (&list, &explicit) {
            (Some(list), None) => modifiers(list).contains(&LINEAR),
            (None, Some(explicit)) => {
                layout = only_plane(explicit);
                explicit.drm_format_modifier == LINEAR && layout.is_some()
            }
            _ => false,
        };
        if !is_linear || !is_shareable(info.format) {
            return Err(vk::Result::ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
        }
        info.tiling = vk::ImageTiling::LINEAR;
    }
    let p_next = info.p_next.cast_mut();
    // SAFETY: as above.
    let external = unsafe { find_mut::<vk::ExternalMemoryImageCreateInfo>(p_next) };
    let external = external.filter(|external| !external.handle_types.is_empty());
    let is_shared = external.is_some();
    match external.filter(|_| info.tiling == vk::ImageTiling::LINEAR && declares.images) {
        Some(external) => external.handle_types = dma_buf::HOST_ALLOCATION,
        // Not offered, or not taken; the driver is spared handle types that it may not know.
        // SAFETY: as above.
        None => drop(unsafe { unlink(info, vk::ExternalMemoryImageCreateInfo::STYPE) }),
    }
    Ok(HostImage { is_shared, layout })
}

/// The modifiers among which the renderer may choose.
fn modifiers(list: &vk::ImageDrmFormatModifierListCreateInfoEXT) -> &[u64] {
    match list.p_drm_format_modifiers.is_null() {
        true => &[],
        // SAFETY: the decoder made an array of `count` numbers, or a null pointer.
        false => unsafe {
            let count = list.drm_format_modifier_count as usize;
            std::slice::from_raw_parts(list.p_drm_format_modifiers, count)
        },
    }
}

/// The layout of the only plane; `None` when there are none or more.
fn only_plane(
    explicit: &vk::ImageDrmFormatModifierExplicitCreateInfoEXT,
) -> Option<vk::SubresourceLayout> {
    if explicit.drm_format_modifier_plane_count != 1 {
        return None;
    }
    // SAFETY: the decoder made an array of one layout, or a null pointer.
    unsafe { explicit.p_plane_layouts.as_ref() }.copied()
}

/// `vkCreateImage`
pub(crate) fn create_image(
    session: &mut Session<'_>,
    c: &mut CreateImage<'_>,
) -> Result<vk::Result, Fatal> {
    let device = session.device(CommandId::CreateImage)?;
    let image = match rewrite_image(c.p_create_info, device.physical.facts.declares) {
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
        if !is_same(c.p_create_info, &wanted, &real) {
            return Ok(vk::Result::ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
        }
    }
    let for_copies = host_copy::Image::of(c.p_create_info);
    let is_linear = c.p_create_info.tiling == vk::ImageTiling::LINEAR;
    let (result, host) = create_one(session, c, |c| &mut *c.p_image)?;
    if let Some(host) = host {
        dma_buf::remember_image(session, host, image.is_shared, is_linear)?;
    }
    if let Some((host, kept)) = host.zip(for_copies) {
        let device = session.device(CommandId::CreateImage)?;
        device.host_copy.remember(host, kept);
    }
    Ok(result)
}

/// How the driver lays an image out. It is asked with one that no guest can name.
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
    let entry = Entry {
        host: image.0,
        kind: vk::HandleType::Image as u32,
        owner: 0,
    };
    teardown::destroy_one(session.device(CommandId::CreateImage)?.raw(), &entry);
    asked?;
    Ok(Ok(layout))
}

/// Whether an image lies in memory as the guest says. Pitches of what there is only one of do not matter.
fn is_same(
    info: &vk::ImageCreateInfo,
    wanted: &vk::SubresourceLayout,
    real: &vk::SubresourceLayout,
) -> bool {
    wanted.offset == real.offset
        && wanted.row_pitch == real.row_pitch
        && (info.array_layers <= 1 || wanted.array_pitch == real.array_pitch)
        && (info.extent.depth <= 1 || wanted.depth_pitch == real.depth_pitch)
}

/// `vkGetImageDrmFormatModifierPropertiesEXT`
pub(crate) fn image_modifier(
    _session: &mut Session<'_>,
    c: &mut GetImageDrmFormatModifierPropertiesEXT<'_>,
) -> Result<vk::Result, Fatal> {
    c.p_properties.drm_format_modifier = LINEAR;
    Ok(vk::Result::SUCCESS)
}

/// The aspect to ask the driver for: memory planes are those of a modifier, and the only one holds the colours.
fn host_aspect(
    command: CommandId,
    aspect: vk::ImageAspectFlags,
) -> Result<vk::ImageAspectFlags, Fatal> {
    use vk::ImageAspectFlags as Aspects;
    const OTHERS: u32 = Aspects::MEMORY_PLANE_1_EXT.0
        | Aspects::MEMORY_PLANE_2_EXT.0
        | Aspects::MEMORY_PLANE_3_EXT.0;
    if aspect == Aspects::MEMORY_PLANE_0_EXT {
        return Ok(Aspects::COLOR);
    }
    if aspect.0 & (OTHERS | Aspects::MEMORY_PLANE_0_EXT.0) != 0 {
        return Err(Fatal::Invalid {
            command: name(command),
            reason: "a memory plane other than 0 of a linear image",
        });
    }
    Ok(aspect)
}

/// `vkGetImageSubresourceLayout`
pub(crate) fn subresource_layout(
    session: &mut Session<'_>,
    c: &mut GetImageSubresourceLayout<'_>,
) -> Result<(), Fatal> {
    let aspect = &mut c.p_subresource.aspect_mask;
    *aspect = host_aspect(CommandId::GetImageSubresourceLayout, *aspect)?;
    call(session, c)
}

/// `vkGetImageSubresourceLayout2`
pub(crate) fn subresource_layout2(
    session: &mut Session<'_>,
    c: &mut GetImageSubresourceLayout2<'_>,
) -> Result<(), Fatal> {
    let aspect = &mut c.p_subresource.image_subresource.aspect_mask;
    *aspect = host_aspect(CommandId::GetImageSubresourceLayout2, *aspect)?;
    call(session, c)
}

/// `vkGetDeviceImageSubresourceLayout`
pub(crate) fn device_subresource_layout(
    session: &mut Session<'_>,
    c: &mut GetDeviceImageSubresourceLayout<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetDeviceImageSubresourceLayout;
    // SAFETY: decoded as null or a valid struct that nobody else uses.
    let info = unsafe { c.p_info.p_create_info.cast_mut().as_mut() };
    // SAFETY: as above.
    let subresource = unsafe { c.p_info.p_subresource.cast_mut().as_mut() };
    let (info, subresource) = info.zip(subresource).ok_or(dma_buf::missing(id))?;
    let declares = session.device(id)?.physical.facts.declares;
    if rewrite_image(info, declares).is_err() {
        return Err(Fatal::Invalid {
            command: name(id),
            reason: "an image that cannot be created with this format modifier",
        });
    }
    let aspect = &mut subresource.image_subresource.aspect_mask;
    *aspect = host_aspect(id, *aspect)?;
    call(session, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: vk::Result = vk::Result::ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT;
    const BGRA: vk::Format = vk::Format(host::Format::B8G8R8A8_UNORM.as_raw());

    fn rewrite(info: &mut vk::ImageCreateInfo) -> Result<HostImage, vk::Result> {
        rewrite_image(info, Declares::default())
    }

    fn image(p_next: *mut std::ffi::c_void) -> vk::ImageCreateInfo {
        vk::ImageCreateInfo {
            p_next,
            format: BGRA,
            tiling: vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT,
            array_layers: 1,
            ..Default::default()
        }
    }

    fn list(modifiers: &[u64]) -> vk::ImageDrmFormatModifierListCreateInfoEXT {
        vk::ImageDrmFormatModifierListCreateInfoEXT {
            drm_format_modifier_count: modifiers.len() as u32,
            p_drm_format_modifiers: modifiers.as_ptr(),
            ..Default::default()
        }
    }

    #[test]
    fn formats_of_one_plane_of_colours_are_shareable() {
        assert!(is_shareable(BGRA));
        for other in [
            host::Format::D16_UNORM,
            host::Format::D24_UNORM_S8_UINT,
            host::Format::G8_B8_R8_3PLANE_420_UNORM,
            host::Format::G8_B8R8_2PLANE_444_UNORM,
        ] {
            assert!(!is_shareable(vk::Format(other.as_raw())), "{other:?}");
        }
    }

    #[test]
    fn an_image_with_a_list_of_modifiers_becomes_linear() {
        let mut external = vk::ExternalMemoryImageCreateInfo {
            handle_types: vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
            ..Default::default()
        };
        let mut list = list(&[5, LINEAR]);
        list.p_next = (&raw mut external).cast();
        let mut info = image((&raw mut list).cast());
        let made = rewrite(&mut info).map(|made| (made.is_shared, made.layout.is_some()));
        assert_eq!(made, Ok((true, false)));
        assert_eq!(info.tiling, vk::ImageTiling::LINEAR);
        assert_eq!(external.handle_types, dma_buf::HOST_ALLOCATION);
        assert_eq!(info.p_next.cast(), &raw const external);
        assert!(external.p_next.is_null());
    }

    #[test]
    fn a_modifier_that_is_not_offered_is_refused() {
        let refused = |p_next| rewrite(&mut image(p_next)).err() == Some(REFUSED);
        for modifiers in [&[5, 6][..], &[]] {
            let mut list = list(modifiers);
            assert!(refused((&raw mut list).cast()), "{modifiers:?}");
        }
        assert!(refused(std::ptr::null_mut()));
        let mut explicit = vk::ImageDrmFormatModifierExplicitCreateInfoEXT {
            drm_format_modifier_plane_count: 1,
            ..Default::default()
        };
        assert!(refused((&raw mut explicit).cast()), "no layout");
        let planes = [vk::SubresourceLayout::default(); 2];
        explicit.p_plane_layouts = planes.as_ptr();
        explicit.drm_format_modifier_plane_count = 2;
        assert!(refused((&raw mut explicit).cast()), "two planes");
        explicit.drm_format_modifier_plane_count = 1;
        explicit.drm_format_modifier = 5;
        assert!(refused((&raw mut explicit).cast()), "not linear");
        explicit.drm_format_modifier = LINEAR;
        assert!(!refused((&raw mut explicit).cast()));
    }

    #[test]
    fn an_image_without_a_modifier_keeps_its_tiling() {
        let mut external = vk::ExternalMemoryImageCreateInfo {
            handle_types: vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
            ..Default::default()
        };
        let mut info = image((&raw mut external).cast());
        info.tiling = vk::ImageTiling::OPTIMAL;
        assert_eq!(rewrite(&mut info).map(|made| made.is_shared), Ok(true));
        assert_eq!(info.tiling, vk::ImageTiling::OPTIMAL);
        assert!(info.p_next.is_null(), "the driver hears of no dma-buf");
    }

    #[test]
    fn an_image_that_the_driver_does_not_take_as_declared_is_shared_all_the_same() {
        let mut external = vk::ExternalMemoryImageCreateInfo {
            handle_types: vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
            ..Default::default()
        };
        let mut info = image((&raw mut external).cast());
        info.tiling = vk::ImageTiling::LINEAR;
        let declares = Declares {
            images: false,
            ..Default::default()
        };
        let made = rewrite_image(&mut info, declares).map(|made| made.is_shared);
        assert_eq!(made, Ok(true));
        assert!(info.p_next.is_null());
    }

    #[test]
    fn an_explicit_layout_must_be_the_driver_s() {
        let info = image(std::ptr::null_mut());
        let real = vk::SubresourceLayout {
            row_pitch: 256,
            size: 4096,
            array_pitch: 4096,
            ..Default::default()
        };
        let wanted = vk::SubresourceLayout {
            row_pitch: 256,
            ..Default::default()
        };
        assert!(is_same(&info, &wanted, &real));
        let pitch = vk::SubresourceLayout {
            row_pitch: 320,
            ..wanted
        };
        assert!(!is_same(&info, &pitch, &real));
        let offset = vk::SubresourceLayout {
            offset: 64,
            ..wanted
        };
        assert!(!is_same(&info, &offset, &real));
        let layers = vk::ImageCreateInfo {
            array_layers: 2,
            ..info
        };
        assert!(!is_same(&layers, &wanted, &real));
    }

    #[test]
    fn a_list_of_modifiers_is_counted_then_copied() {
        let mut count = 9;
        fill(Some(1_u8), &mut count, std::ptr::null_mut());
        assert_eq!(count, 1);
        let mut room = [0_u8; 2];
        count = 2;
        fill(Some(7), &mut count, room.as_mut_ptr());
        assert_eq!((count, room), (1, [7, 0]));
        count = 0;
        fill(Some(8), &mut count, room.as_mut_ptr());
        assert_eq!((count, room), (0, [7, 0]));
        count = 2;
        fill(None::<u8>, &mut count, room.as_mut_ptr());
        assert_eq!((count, room), (0, [7, 0]));
    }

    #[test]
    fn the_memory_plane_of_a_linear_image_is_its_colour() {
        use vk::ImageAspectFlags as Aspects;
        let of = |aspect| host_aspect(CommandId::GetImageSubresourceLayout, aspect).ok();
        assert_eq!(of(Aspects::MEMORY_PLANE_0_EXT), Some(Aspects::COLOR));
        assert_eq!(of(Aspects::DEPTH), Some(Aspects::DEPTH));
        assert_eq!(of(Aspects::MEMORY_PLANE_1_EXT), None);
        assert_eq!(of(Aspects::MEMORY_PLANE_0_EXT | Aspects::COLOR), None);
    }
}
