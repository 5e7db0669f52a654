//! Asks a GPU for the limits that the numbers of commands are checked with.

use hesper_venus_protocol::call::Call;
use hesper_venus_protocol::command::GetPhysicalDeviceProperties2;
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::vk;

use crate::object::facts::Limits;
use crate::object::instance::Instance;
use crate::object::physical_device::PhysicalDevice;

/// The limits of a GPU. What its driver does not have is 0.
pub(super) fn of(instance: &Instance, physical: &PhysicalDevice) -> Limits {
    let mut multiview = vk::PhysicalDeviceMultiviewProperties::default();
    let mut feedback = vk::PhysicalDeviceTransformFeedbackPropertiesEXT {
        p_next: (&raw mut multiview).cast(),
        ..Default::default()
    };
    let mut locations = vk::PhysicalDeviceSampleLocationsPropertiesEXT {
        p_next: (&raw mut feedback).cast(),
        ..Default::default()
    };
    let mut all = vk::PhysicalDeviceProperties2 {
        p_next: (&raw mut locations).cast(),
        ..Default::default()
    };
    let mut query = GetPhysicalDeviceProperties2 {
        physical_device: Object {
            id: 0,
            handle: physical.handle,
        },
        p_properties: &mut all,
    };
    // SAFETY: the instance lives as long as its physical devices; the chain is of live structs, and
    // drivers skip those that they do not know.
    unsafe { query.call(instance.functions()) };
    Limits {
        core: all.properties.limits,
        queue_families: physical.facts.queues.families(),
        views: multiview.max_multiview_view_count,
        transform_feedback_buffers: feedback.max_transform_feedback_buffers,
        transform_feedback_streams: feedback.max_transform_feedback_streams,
        sample_location_grid: locations.max_sample_location_grid_size,
    }
}
