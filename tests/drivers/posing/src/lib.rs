//! A driver that is lavapipe, and that says that it is a graphics card.
//!
//! Vulkan's loader finds the driver by a manifest that names the library. Guests' desktops use a
//! graphics card, and no software driver. With [`VARIABLE`] set to `optimal-only` the card has no
//! attachments with linear tiling, as NVIDIA's driver has none; `vkCreateImage` refuses them.

#[path = "../../lavapipe.rs"]
mod lavapipe;

use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicUsize, Ordering};

use ash::vk;

use lavapipe::Function;

/// The environment variable that may name a kind of card.
pub const VARIABLE: &str = "HESPER_POSE_AS";

/// The value of [`VARIABLE`] for a card that has attachments with optimal tiling only.
pub const OPTIMAL_ONLY: &str = "optimal-only";

/// lavapipe's own functions, for those that are replaced.
static ORIGINALS: [AtomicUsize; 9] = [const { AtomicUsize::new(0) }; 9];

/// lavapipe's function for a replaced one.
///
/// # Safety
/// `T` must be the type of function number `index`, and the function must have been looked up by
/// name before.
unsafe fn original<T: Copy>(index: usize) -> Option<T> {
    let address = ORIGINALS.get(index)?.load(Ordering::Acquire);
    // SAFETY: the caller's promise; function pointers are as large as addresses.
    (address != 0).then(|| unsafe { std::mem::transmute_copy(&address) })
}

/// Whether the card has no linear attachments.
fn is_optimal_only() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|kind| kind == OPTIMAL_ONLY)
}

/// The uses of an image that such a card has not with linear tiling.
const ATTACHMENTS: vk::ImageUsageFlags = vk::ImageUsageFlags::from_raw(
    vk::ImageUsageFlags::COLOR_ATTACHMENT.as_raw()
        | vk::ImageUsageFlags::DEPTH_STENCIL_ATTACHMENT.as_raw()
        | vk::ImageUsageFlags::INPUT_ATTACHMENT.as_raw()
        | vk::ImageUsageFlags::TRANSIENT_ATTACHMENT.as_raw(),
);

/// Whether the card does not have such an image.
fn lacks(tiling: vk::ImageTiling, usage: vk::ImageUsageFlags) -> bool {
    is_optimal_only() && tiling == vk::ImageTiling::LINEAR && usage.intersects(ATTACHMENTS)
}

/// Removes what such a card lacks.
fn reduce(properties: &mut vk::FormatProperties) {
    use vk::FormatFeatureFlags as Features;
    if is_optimal_only() {
        properties.linear_tiling_features &= !(Features::COLOR_ATTACHMENT
            | Features::COLOR_ATTACHMENT_BLEND
            | Features::DEPTH_STENCIL_ATTACHMENT
            | Features::BLIT_DST);
    }
}

type Properties = unsafe extern "system" fn(vk::PhysicalDevice, *mut vk::PhysicalDeviceProperties);
type Properties2 =
    unsafe extern "system" fn(vk::PhysicalDevice, *mut vk::PhysicalDeviceProperties2<'_>);
type FormatProperties =
    unsafe extern "system" fn(vk::PhysicalDevice, vk::Format, *mut vk::FormatProperties);
type FormatProperties2 =
    unsafe extern "system" fn(vk::PhysicalDevice, vk::Format, *mut vk::FormatProperties2<'_>);
type ImageProperties2 = unsafe extern "system" fn(
    vk::PhysicalDevice,
    *const vk::PhysicalDeviceImageFormatInfo2<'_>,
    *mut vk::ImageFormatProperties2<'_>,
) -> vk::Result;
type CreateImage = unsafe extern "system" fn(
    vk::Device,
    *const vk::ImageCreateInfo<'_>,
    *const vk::AllocationCallbacks<'_>,
    *mut vk::Image,
) -> vk::Result;
type GetDeviceFunction = unsafe extern "system" fn(vk::Device, *const c_char) -> Option<Function>;

unsafe extern "system" fn properties(
    device: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceProperties,
) {
    // SAFETY: the type is that of the name, and the caller's promise about the arguments.
    unsafe {
        if let Some(original) = original::<Properties>(0) {
            original(device, properties);
        }
        (*properties).device_type = vk::PhysicalDeviceType::DISCRETE_GPU;
    }
}

unsafe extern "system" fn properties2<const INDEX: usize>(
    device: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceProperties2<'_>,
) {
    // SAFETY: as above.
    unsafe {
        if let Some(original) = original::<Properties2>(INDEX) {
            original(device, properties);
        }
        (*properties).properties.device_type = vk::PhysicalDeviceType::DISCRETE_GPU;
    }
}

unsafe extern "system" fn format_properties(
    device: vk::PhysicalDevice,
    format: vk::Format,
    properties: *mut vk::FormatProperties,
) {
    // SAFETY: as above.
    unsafe {
        if let Some(original) = original::<FormatProperties>(3) {
            original(device, format, properties);
        }
        reduce(&mut *properties);
    }
}

unsafe extern "system" fn format_properties2<const INDEX: usize>(
    device: vk::PhysicalDevice,
    format: vk::Format,
    properties: *mut vk::FormatProperties2<'_>,
) {
    // SAFETY: as above. A chain's struct with this type is one of this type.
    unsafe {
        if let Some(original) = original::<FormatProperties2>(INDEX) {
            original(device, format, properties);
        }
        reduce(&mut (*properties).format_properties);
        let mut next = (*properties).p_next.cast::<vk::BaseOutStructure<'_>>();
        while let Some(chained) = next.as_mut() {
            if chained.s_type == vk::StructureType::FORMAT_PROPERTIES_3 {
                let all = &mut *std::ptr::from_mut(chained).cast::<vk::FormatProperties3<'_>>();
                let told = (*properties)
                    .format_properties
                    .linear_tiling_features
                    .as_raw();
                // The first 31 features are the same in both types.
                let hidden = vk::FormatFeatureFlags2::from_raw(0x7fff_ffff & !u64::from(told));
                all.linear_tiling_features &= !hidden;
            }
            next = chained.p_next;
        }
    }
}

unsafe extern "system" fn image_properties2<const INDEX: usize>(
    device: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceImageFormatInfo2<'_>,
    properties: *mut vk::ImageFormatProperties2<'_>,
) -> vk::Result {
    // SAFETY: as above.
    unsafe {
        match original::<ImageProperties2>(INDEX) {
            Some(original) if !lacks((*info).tiling, (*info).usage) => {
                original(device, info, properties)
            }
            _ => vk::Result::ERROR_FORMAT_NOT_SUPPORTED,
        }
    }
}

unsafe extern "system" fn create_image(
    device: vk::Device,
    info: *const vk::ImageCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    image: *mut vk::Image,
) -> vk::Result {
    // SAFETY: as above.
    unsafe {
        match original::<CreateImage>(CREATE_IMAGE) {
            Some(original) if !lacks((*info).tiling, (*info).usage) => {
                original(device, info, allocator, image)
            }
            _ => vk::Result::ERROR_INITIALIZATION_FAILED,
        }
    }
}

unsafe extern "system" fn device_function(
    device: vk::Device,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: as above; the name ends with NUL.
    unsafe {
        let get = original::<GetDeviceFunction>(DEVICE_FUNCTION)?;
        replace(CStr::from_ptr(name), get(device, name))
    }
}

const CREATE_IMAGE: usize = 7;
const DEVICE_FUNCTION: usize = 8;

/// The replacement for `found`, which is lavapipe's function of that name; `found` itself if there
/// is none.
fn replace(name: &CStr, found: Option<Function>) -> Option<Function> {
    /// A function as the loader takes it.
    macro_rules! erased {
        ($function:expr, $type:ty) => {{
            let typed: $type = $function;
            // SAFETY: a caller that asks by name casts it back to the type of that name.
            unsafe { std::mem::transmute::<$type, Function>(typed) }
        }};
    }
    let found = found?;
    let (index, ours) = match name.to_bytes() {
        b"vkGetPhysicalDeviceProperties" => (0, erased!(properties, Properties)),
        b"vkGetPhysicalDeviceProperties2" => (1, erased!(properties2::<1>, Properties2)),
        b"vkGetPhysicalDeviceProperties2KHR" => (2, erased!(properties2::<2>, Properties2)),
        b"vkGetPhysicalDeviceFormatProperties" => (3, erased!(format_properties, FormatProperties)),
        b"vkGetPhysicalDeviceFormatProperties2" => {
            (4, erased!(format_properties2::<4>, FormatProperties2))
        }
        b"vkGetPhysicalDeviceFormatProperties2KHR" => {
            (5, erased!(format_properties2::<5>, FormatProperties2))
        }
        b"vkGetPhysicalDeviceImageFormatProperties2" => {
            (6, erased!(image_properties2::<6>, ImageProperties2))
        }
        b"vkCreateImage" => (CREATE_IMAGE, erased!(create_image, CreateImage)),
        b"vkGetDeviceProcAddr" => (DEVICE_FUNCTION, erased!(device_function, GetDeviceFunction)),
        _ => return Some(found),
    };
    if let Some(slot) = ORIGINALS.get(index) {
        slot.store(found as usize, Ordering::Release);
    }
    Some(ours)
}
