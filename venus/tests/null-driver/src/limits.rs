//! The limits of the GPU, and checks of numbers. Real drivers index arrays with numbers that they
//! do not check, so this one ends the process for each that is too large.

use ash::vk;

use crate::violation;

/// Limits that callers must keep. The smallest that Vulkan allows, but for images.
pub(crate) fn limits() -> vk::PhysicalDeviceLimits {
    vk::PhysicalDeviceLimits {
        max_image_dimension1_d: 4096,
        max_image_dimension2_d: 4096,
        max_image_dimension3_d: 256,
        max_image_dimension_cube: 4096,
        max_image_array_layers: 256,
        max_push_constants_size: 128,
        max_bound_descriptor_sets: 4,
        max_descriptor_set_uniform_buffers_dynamic: 8,
        max_descriptor_set_storage_buffers_dynamic: 4,
        max_vertex_input_attributes: 16,
        max_vertex_input_bindings: 16,
        max_tessellation_patch_size: 32,
        max_viewports: 16,
        max_color_attachments: 8,
        ..Default::default()
    }
}

/// Ends the process unless `count` numbers from `first` on are below `most`.
pub(crate) fn within(what: &str, first: u64, count: u64, most: u64) {
    if first.checked_add(count).is_none_or(|end| end > most) {
        violation(&format!("{what}: {count} from {first} on, of {most}"));
    }
}
