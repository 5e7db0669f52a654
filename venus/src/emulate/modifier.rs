//! DRM format modifiers without a host that has them (`VK_EXT_image_drm_format_modifier`).
//!
//! A modifier describes the layout of a picture in shared memory. The only one offered is `LINEAR`:
//! row after row, which every driver has as `VK_IMAGE_TILING_LINEAR`. So each question about a
//! modifier becomes a question about linear tiling. Images can be shared if they have one plane of
//! colours and the driver can use them with linear tiling. Others have a mirror
//! ([`super::mirror`]): those with several planes, those whose guest demands a layout that is not
//! the driver's, and all on a GPU that draws into no linear image.

use ash::vk as host;
use hesper_venus_protocol::runtime::{Chained, find, find_mut, unlink};
use hesper_venus_protocol::vk;

use super::chain::Detached;
use super::mirror;
use crate::memory::{Declares, HOST_ALLOCATION};

/// `DRM_FORMAT_MOD_LINEAR`
pub(crate) const LINEAR: u64 = 0;

/// Whether images of this format can be shared: they must have one plane, and colours in it.
///
/// All formats of the YCbCr extensions are left out, though a few of them have one plane.
pub(crate) fn is_shareable(format: vk::Format) -> bool {
    let depth = host::Format::D16_UNORM.as_raw()..=host::Format::D32_SFLOAT_S8_UINT.as_raw();
    let ycbcr = host::Format::G8B8G8R8_422_UNORM.as_raw()
        ..=host::Format::G16_B16_R16_3PLANE_444_UNORM.as_raw();
    let ycbcr_444 = host::Format::G8_B8R8_2PLANE_444_UNORM.as_raw()
        ..=host::Format::G16_B16R16_2PLANE_444_UNORM.as_raw();
    ![depth, ycbcr, ycbcr_444]
        .iter()
        .any(|formats| formats.contains(&format.0))
}

/// The lists of modifiers that a guest asks for. They are not for the driver.
pub(crate) struct ModifierLists {
    list: Option<Detached<vk::DrmFormatModifierPropertiesListEXT>>,
    list2: Option<Detached<vk::DrmFormatModifierPropertiesList2EXT>>,
}

impl ModifierLists {
    /// Takes the lists out of the chain.
    ///
    /// # Safety
    /// `properties` and its chain must be valid structs that nobody else uses, and live as long as
    /// the result.
    pub(crate) unsafe fn take(properties: &mut vk::FormatProperties2) -> Self {
        // SAFETY: as the caller promises.
        let list = unsafe { Detached::take(properties) };
        // SAFETY: as above.
        let list2 = unsafe { Detached::take(properties) };
        Self { list, list2 }
    }

    /// Puts the lists back, filled in.
    ///
    /// # Safety
    /// `properties` must be those that the lists were taken from, and their chain must hold the
    /// same structs as then.
    pub(crate) unsafe fn answer(
        self,
        format: vk::Format,
        is_mirrored: bool,
        properties: &mut vk::FormatProperties2,
    ) {
        let told = properties.format_properties;
        // SAFETY: as the caller promises.
        let all = unsafe { find::<vk::FormatProperties3>(properties.p_next) };
        // The first 31 features are the same in both types.
        let wide = |features: vk::FormatFeatureFlags| vk::FormatFeatureFlags2(features.0.into());
        let features2 = match is_mirrored {
            true => {
                let optimal = all.map_or(wide(told.optimal_tiling_features), |all| {
                    all.optimal_tiling_features
                });
                mirror::features(format, optimal)
            }
            false => {
                let linear = all.map_or(wide(told.linear_tiling_features), |all| {
                    all.linear_tiling_features
                });
                Some(linear).filter(|f| !f.is_empty() && is_shareable(format))
            }
        };
        let narrow = |features: vk::FormatFeatureFlags2| {
            vk::FormatFeatureFlags((features.0 & 0x7fff_ffff) as u32)
        };
        let features = features2.map(narrow);
        let planes = match is_mirrored {
            true => mirror::planes(format),
            false => 1,
        };
        // SAFETY: as above, and this is the opposite order.
        if let Some(list) = self.list2.map(|list| unsafe { list.put_back(properties) }) {
            let entry = features2.map(|features| vk::DrmFormatModifierProperties2EXT {
                drm_format_modifier: LINEAR,
                drm_format_modifier_plane_count: planes,
                drm_format_modifier_tiling_features: features,
            });
            fill(
                entry,
                &mut list.drm_format_modifier_count,
                list.p_drm_format_modifier_properties,
            );
        }
        // SAFETY: as above.
        if let Some(list) = self.list.map(|list| unsafe { list.put_back(properties) }) {
            let entry = features.map(|features| vk::DrmFormatModifierPropertiesEXT {
                drm_format_modifier: LINEAR,
                drm_format_modifier_plane_count: planes,
                drm_format_modifier_tiling_features: features,
            });
            fill(
                entry,
                &mut list.drm_format_modifier_count,
                list.p_drm_format_modifier_properties,
            );
        }
    }
}

/// Answers a list of at most one entry: its length if there is no room, else as much as fits.
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

/// Takes a struct out of a chain for good.
///
/// # Safety
/// `head` and its chain must be valid structs that nobody else uses.
pub(crate) unsafe fn take<T: Chained, H: Chained>(head: &mut H) -> Option<T> {
    // SAFETY: as the caller promises.
    let taken = unsafe { unlink(head, T::STYPE) };
    // SAFETY: its sType says that it is a T.
    taken.map(|taken| unsafe { *taken.cast::<T>() })
}

/// How an image of the guest's is made on the host.
pub(crate) struct HostImage {
    /// The guest shares its memory.
    pub(crate) is_shared: bool,
    /// It has a modifier, and so a layout in memory.
    pub(crate) has_modifier: bool,
    /// The layout in memory that the guest demands of each plane. Empty if it demands none.
    pub(crate) layout: Vec<vk::SubresourceLayout>,
}

/// Makes an image with a modifier a linear image. Declares an image of external memory for imported
/// host memory, if `declares` says that the driver accepts that. Whether the driver can have such a
/// linear image is not checked.
///
/// # Errors
/// The result of `vkCreateImage` for a modifier that is not offered.
pub(crate) fn rewrite_image(
    info: &mut vk::ImageCreateInfo,
    declares: Declares,
) -> Result<HostImage, vk::Result> {
    let has_modifier = info.tiling == vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT;
    // SAFETY: the chain was decoded, and nobody else uses it.
    let list = unsafe { take::<vk::ImageDrmFormatModifierListCreateInfoEXT, _>(info) };
    // SAFETY: as above.
    let explicit = unsafe { take::<vk::ImageDrmFormatModifierExplicitCreateInfoEXT, _>(info) };
    let mut layout = Vec::new();
    if has_modifier {
        let is_linear = match (&list, &explicit) {
            (Some(list), None) => modifiers(list).contains(&LINEAR),
            (None, Some(explicit)) => {
                layout = planes(explicit).to_vec();
                explicit.drm_format_modifier == LINEAR && !layout.is_empty()
            }
            _ => false,
        };
        let is_possible = is_shareable(info.format) || mirror::format(info.format).is_some();
        if !is_linear || !is_possible {
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
        Some(external) => external.handle_types = HOST_ALLOCATION,
        // Not offered or not accepted. The driver may not know the handle types, so they are
        // removed.
        // SAFETY: as above.
        None => drop(unsafe { unlink(info, vk::ExternalMemoryImageCreateInfo::STYPE) }),
    }
    Ok(HostImage {
        is_shared,
        has_modifier,
        layout,
    })
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

/// The layouts of the planes.
fn planes(explicit: &vk::ImageDrmFormatModifierExplicitCreateInfoEXT) -> &[vk::SubresourceLayout] {
    match explicit.p_plane_layouts.is_null() {
        true => &[],
        // SAFETY: the decoder made an array of `count` layouts, or a null pointer.
        false => unsafe {
            let count = explicit.drm_format_modifier_plane_count as usize;
            std::slice::from_raw_parts(explicit.p_plane_layouts, count)
        },
    }
}

/// Whether the image has the layout that the guest demands. A pitch does not matter if there is
/// only one of its items.
pub(crate) fn is_same(
    info: &vk::ImageCreateInfo,
    wanted: &vk::SubresourceLayout,
    real: &vk::SubresourceLayout,
) -> bool {
    wanted.offset == real.offset
        && wanted.row_pitch == real.row_pitch
        && (info.array_layers <= 1 || wanted.array_pitch == real.array_pitch)
        && (info.extent.depth <= 1 || wanted.depth_pitch == real.depth_pitch)
}

/// The aspect to ask the driver for. Memory planes are those of a modifier, and the only one holds
/// the colours. `None` for other memory planes.
pub(crate) fn host_aspect(aspect: vk::ImageAspectFlags) -> Option<vk::ImageAspectFlags> {
    use vk::ImageAspectFlags as Aspects;
    const OTHERS: u32 = Aspects::MEMORY_PLANE_1_EXT.0
        | Aspects::MEMORY_PLANE_2_EXT.0
        | Aspects::MEMORY_PLANE_3_EXT.0;
    if aspect == Aspects::MEMORY_PLANE_0_EXT {
        return Some(Aspects::COLOR);
    }
    if aspect.0 & (OTHERS | Aspects::MEMORY_PLANE_0_EXT.0) != 0 {
        return None;
    }
    Some(aspect)
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
        let made = rewrite(&mut info).map(|made| (made.is_shared, made.layout.len()));
        assert_eq!(made, Ok((true, 0)));
        assert_eq!(info.tiling, vk::ImageTiling::LINEAR);
        assert_eq!(external.handle_types, HOST_ALLOCATION);
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
        let of = |aspect| host_aspect(aspect);
        assert_eq!(of(Aspects::MEMORY_PLANE_0_EXT), Some(Aspects::COLOR));
        assert_eq!(of(Aspects::DEPTH), Some(Aspects::DEPTH));
        assert_eq!(of(Aspects::MEMORY_PLANE_1_EXT), None);
        assert_eq!(of(Aspects::MEMORY_PLANE_0_EXT | Aspects::COLOR), None);
    }
}
