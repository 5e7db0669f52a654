//! Sparse binding that a host gets wrong is hidden.
//!
//! All memory that a guest can map is imported, and not every host can bind imported memory
//! sparsely. The self-test at start finds out ([`crate::memory::Sparse`]). If the host cannot,
//! guests see no features, no queue flags and no formats of sparse binding. A device that wants
//! them nevertheless is refused with `VK_ERROR_FEATURE_NOT_PRESENT`.

use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::vk;

use crate::memory::Sparse;
use crate::object::physical_device::PhysicalDevice;

/// Calls `act` for each feature of sparse binding.
fn each_feature(features: &mut vk::PhysicalDeviceFeatures, mut act: impl FnMut(&mut vk::Bool32)) {
    act(&mut features.sparse_binding);
    act(&mut features.sparse_residency_buffer);
    act(&mut features.sparse_residency_image2d);
    act(&mut features.sparse_residency_image3d);
    act(&mut features.sparse_residency2_samples);
    act(&mut features.sparse_residency4_samples);
    act(&mut features.sparse_residency8_samples);
    act(&mut features.sparse_residency16_samples);
    act(&mut features.sparse_residency_aliased);
}

/// Whether guests must not see this host's sparse binding.
pub(crate) fn is_hidden(device: &PhysicalDevice) -> bool {
    matches!(device.facts.sparse, Sparse::Broken(_))
}

/// Whether a device is created with features that are hidden.
pub(crate) fn wants_hidden(info: &vk::DeviceCreateInfo, device: &PhysicalDevice) -> bool {
    if !is_hidden(device) {
        return false;
    }
    // SAFETY: decoded as null or a valid struct that nobody else uses.
    let core = unsafe { info.p_enabled_features.as_ref() }.copied();
    // SAFETY: the chain was decoded.
    let chained = unsafe { find::<vk::PhysicalDeviceFeatures2>(info.p_next) };
    let mut wanted = [core, chained.map(|chained| chained.features)];
    wanted.iter_mut().flatten().any(|features| {
        let mut any = false;
        each_feature(features, |feature| any |= *feature != 0);
        any
    })
}

/// Hides the properties of sparse binding.
pub(crate) fn hide_properties(
    device: &PhysicalDevice,
    properties: &mut vk::PhysicalDeviceProperties,
) {
    if is_hidden(device) {
        properties.sparse_properties = vk::PhysicalDeviceSparseProperties::default();
        properties.limits.sparse_address_space_size = 0;
    }
}

/// Whether an image with these flags needs what is hidden.
pub(crate) fn is_image_hidden(device: &PhysicalDevice, flags: vk::ImageCreateFlags) -> bool {
    use vk::ImageCreateFlags as Flags;
    is_hidden(device)
        && [
            Flags::SPARSE_BINDING,
            Flags::SPARSE_RESIDENCY,
            Flags::SPARSE_ALIASED,
        ]
        .iter()
        .any(|flag| flags.contains(*flag))
}

/// Hides the features of sparse binding.
pub(crate) fn hide_features(device: &PhysicalDevice, features: &mut vk::PhysicalDeviceFeatures) {
    if is_hidden(device) {
        each_feature(features, |feature| *feature = 0);
    }
}

/// Hides that queues of a family can bind memory sparsely.
pub(crate) fn hide_queue_flag(family: &mut vk::QueueFamilyProperties) {
    family.queue_flags = family.queue_flags & !vk::QueueFlags::SPARSE_BINDING;
}
