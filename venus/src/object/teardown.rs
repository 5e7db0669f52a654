//! Destroying what a guest left behind when its device ends.

use std::collections::HashSet;

use hesper_venus_protocol::vk;
use hesper_venus_protocol::vk::HandleType as Kind;

use super::raw_device::RawDevice;
use super::table::Entry;

/// How far ahead of its value a timeline semaphore may be signalled on every driver.
/// `maxTimelineSemaphoreValueDifference` is at least this.
pub(crate) const TIMELINE_STEP: u64 = (1 << 31) - 1;

/// Steps of a timeline semaphore at a time. Nearly all drivers reach every value in one.
const STEPS: usize = 16;

/// Ends what the GPU may be waiting for: sets events and signals timeline semaphores, in steps of
/// `reach` ([`TIMELINE_STEP`] or more). Otherwise a guest that dies between a wait and its signal
/// would block the end of the device forever.
///
/// The GPU may go on and signal a smaller value, and then wait again. So this is repeated while
/// queues are busy.
pub(crate) fn end_waits(
    device: &RawDevice,
    objects: &[(u64, Entry)],
    timelines: &HashSet<u64>,
    reach: u64,
) {
    let functions = &device.functions;
    for (_, entry) in objects {
        let is_timeline = entry.kind == Kind::Semaphore as u32 && timelines.contains(&entry.host);
        if entry.kind == Kind::Event as u32
            && let Some(set) = functions.set_event
        {
            // SAFETY: an event of this device. The API forbids this for an event that only the
            // device may set, but drivers do not check it. It is harmless, since nobody records or
            // submits any more.
            unsafe { set(device.handle, vk::Event(entry.host)) };
        }
        if is_timeline
            && let (Some(value), Some(signal)) = (
                functions.get_semaphore_counter_value,
                functions.signal_semaphore,
            )
        {
            let semaphore = vk::Semaphore(entry.host);
            for _ in 0..STEPS {
                let mut now = 0;
                // SAFETY: a timeline semaphore of this device.
                unsafe { value(device.handle, semaphore, &raw mut now) };
                let mut info = vk::SemaphoreSignalInfo {
                    semaphore,
                    value: now.saturating_add(reach),
                    ..Default::default()
                };
                if info.value == now {
                    break;
                }
                // SAFETY: as above.
                let result = unsafe { signal(device.handle, &raw mut info) };
                if result != vk::Result::SUCCESS {
                    break;
                }
            }
        }
    }
}

/// Destroys the objects of a device that is idle.
pub(crate) fn destroy_all(device: &RawDevice, objects: &[(u64, Entry)]) {
    let mut order: Vec<&Entry> = objects.iter().map(|(_, entry)| entry).collect();
    // Destroy views before what they show, and memory last.
    order.sort_by_key(|entry| match entry.kind {
        kind if kind == Kind::DeviceMemory as u32 => 3,
        kind if kind == Kind::Image as u32 || kind == Kind::Buffer as u32 => 2,
        kind if kind == Kind::SamplerYcbcrConversion as u32 => 2,
        kind if kind == Kind::AccelerationStructureKHR as u32 => 1,
        _ => 0,
    });
    for entry in order {
        destroy_one(device, entry);
    }
}

/// Destroys one object. Descriptor sets and command buffers are freed with their pools. Queues and
/// devices are not destroyed here.
#[inline(always)]
pub(crate) fn destroy_one(device: &RawDevice, entry: &Entry) {
    let functions = &device.functions;
    macro_rules! destroy {
        ($($kind:ident $field:ident),* $(,)?) => {
            match entry.kind {
                $(kind if kind == Kind::$kind as u32 => {
                    if let Some(function) = functions.$field {
                        // SAFETY: an object of this type and device, which is no longer in its
                        // table.
                        unsafe { function(device.handle, vk::$kind(entry.host), std::ptr::null()) };
                    }
                })*
                _ => {}
            }
        };
    }
    destroy!(
        AccelerationStructureKHR destroy_acceleration_structure_khr,
        Buffer destroy_buffer,
        BufferView destroy_buffer_view,
        CommandPool destroy_command_pool,
        DescriptorPool destroy_descriptor_pool,
        DescriptorSetLayout destroy_descriptor_set_layout,
        DescriptorUpdateTemplate destroy_descriptor_update_template,
        DeviceMemory free_memory,
        Event destroy_event,
        Fence destroy_fence,
        Framebuffer destroy_framebuffer,
        Image destroy_image,
        ImageView destroy_image_view,
        Pipeline destroy_pipeline,
        PipelineCache destroy_pipeline_cache,
        PipelineLayout destroy_pipeline_layout,
        PrivateDataSlot destroy_private_data_slot,
        QueryPool destroy_query_pool,
        RenderPass destroy_render_pass,
        Sampler destroy_sampler,
        SamplerYcbcrConversion destroy_sampler_ycbcr_conversion,
        Semaphore destroy_semaphore,
        ShaderModule destroy_shader_module,
    );
}
