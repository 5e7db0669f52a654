//! Cases of instance and device: properties, groups, several devices, private data.

use ash::vk;

use super::{Case, case};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, digest, ensure, equal, need};

pub(super) const CASES: &[Case] = &[
    case("device-limits", limits),
    case("device-groups", groups),
    case("device-several", several),
    case("device-private-data", private_data),
    case("device-private-data-twice", private_data_twice),
    case("device-external-semaphores", external_semaphores),
];

fn limits(gpu: &Gpu<'_>) -> Outcome {
    let limits = &gpu.host.properties.limits;
    let numbers = [
        u64::from(limits.max_image_dimension2_d),
        u64::from(limits.max_image_array_layers),
        u64::from(limits.max_push_constants_size),
        u64::from(limits.max_bound_descriptor_sets),
        u64::from(limits.max_per_stage_descriptor_storage_buffers),
        u64::from(limits.max_compute_work_group_invocations),
        u64::from(limits.max_compute_shared_memory_size),
        u64::from(limits.max_viewports),
        u64::from(limits.max_color_attachments),
        limits.min_memory_map_alignment as u64,
        limits.min_storage_buffer_offset_alignment,
        limits.non_coherent_atom_size,
        limits.buffer_image_granularity,
        u64::from(limits.framebuffer_color_sample_counts.as_raw()),
        u64::from(limits.timestamp_period.to_bits()),
    ];
    ensure("images of 4096 texels are possible", numbers[0] >= 4096)?;
    Ok(format!(
        "{:016x}",
        digest(numbers.into_iter().flat_map(u64::to_le_bytes))
    ))
}

fn groups(gpu: &Gpu<'_>) -> Outcome {
    let host = gpu.host;
    // SAFETY: the instance is alive, and the slice has as many elements as there are groups.
    let groups = unsafe {
        let count = host.instance.enumerate_physical_device_groups_len()?;
        let mut groups = vec![vk::PhysicalDeviceGroupProperties::default(); count];
        host.instance
            .enumerate_physical_device_groups(&mut groups)?;
        groups
    };
    let found = groups.iter().find_map(|group| {
        let devices = &group.physical_devices[..group.physical_device_count as usize];
        devices.contains(&host.physical).then_some(devices)
    });
    let devices = found.unwrap_or_default();
    ensure("a group holds the device", !devices.is_empty())?;
    let mut info = vk::DeviceGroupDeviceCreateInfo::default().physical_devices(devices);
    let gpu = Gpu::with(host, &[], Some(&mut info))?;
    let buffer = gpu.buffer(4)?;
    let pool = gpu.pool(gpu.family)?;
    let commands = gpu.command_buffers(pool, vk::CommandBufferLevel::PRIMARY, 1)?;
    let mut mask = vk::DeviceGroupCommandBufferBeginInfo::default().device_mask(1);
    let begin = vk::CommandBufferBeginInfo::default().push_next(&mut mask);
    let masks = [1];
    let mut group_submit = vk::DeviceGroupSubmitInfo::default().command_buffer_device_masks(&masks);
    let submit = vk::SubmitInfo::default()
        .command_buffers(&commands)
        .push_next(&mut group_submit);
    let fence = gpu.fence(false)?;
    // SAFETY: all handles are of this device, which is number 0 of its group.
    unsafe {
        gpu.begin_command_buffer(commands[0], &begin)?;
        gpu.cmd_set_device_mask(commands[0], 1);
        gpu.cmd_fill_buffer(commands[0], buffer.handle, 0, vk::WHOLE_SIZE, 0x96);
        gpu.barrier(commands[0]);
        gpu.end_command_buffer(commands[0])?;
        gpu.queue_submit(gpu.queue, &[submit], fence)?;
    }
    gpu.wait(fence)?;
    equal("the words", buffer.read_all(), vec![0x96; 4])?;
    Ok(format!("{} devices in its group", devices.len()))
}

fn several(gpu: &Gpu<'_>) -> Outcome {
    let others = [Gpu::new(gpu.host)?, Gpu::new(gpu.host)?];
    let mut buffers = Vec::new();
    for (value, gpu) in (1..).zip(&others) {
        let buffer = gpu.buffer(64)?;
        buffer.fill_with(|_| value);
        gpu.scramble_once(&buffer, value)?;
        buffers.push(buffer.read(5));
    }
    let own = gpu.buffer(64)?;
    own.fill_with(|_| 1);
    gpu.scramble_once(&own, 1)?;
    equal("the word of the first", buffers[0], own.read(5))?;
    ensure("the second has another", buffers[1] != buffers[0])?;
    Ok(String::new())
}

fn private_data(gpu: &Gpu<'_>) -> Outcome {
    need("privateData", gpu.features.v13.private_data != 0)?;
    let fences = [gpu.fence(false)?, gpu.fence(false)?];
    // SAFETY: all handles are of this device.
    unsafe {
        let slot = gpu.create_private_data_slot(&Default::default(), None)?;
        let slot = gpu.own(slot, ash::Device::destroy_private_data_slot);
        gpu.set_private_data(fences[0], slot, 0x1_0000_0001)?;
        equal(
            "the data of the first",
            gpu.get_private_data(fences[0], slot),
            0x1_0000_0001,
        )?;
        equal(
            "the data of the second",
            gpu.get_private_data(fences[1], slot),
            0,
        )?;
    }
    Ok(String::new())
}

/// Chains the same struct twice, which Vulkan's registry allows for this one.
fn private_data_twice(gpu: &Gpu<'_>) -> Outcome {
    need("privateData", gpu.features.v13.private_data != 0)?;
    let host = gpu.host;
    let mut first = vk::DevicePrivateDataCreateInfo::default().private_data_slot_request_count(1);
    let mut second = vk::DevicePrivateDataCreateInfo::default().private_data_slot_request_count(2);
    let queues = [vk::DeviceQueueCreateInfo::default()
        .queue_family_index(gpu.family)
        .queue_priorities(&[1.0])];
    let info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .push_next(&mut first)
        .push_next(&mut second);
    // SAFETY: everything that `info` points to lives until the call has returned. Nothing is
    // created from the device.
    unsafe {
        let device = host.instance.create_device(host.physical, &info, None)?;
        device.destroy_device(None);
    }
    Ok(String::new())
}

fn external_semaphores(gpu: &Gpu<'_>) -> Outcome {
    // The case checks only that the query is answered. A host and its guests may export different
    // types.
    let host = gpu.host;
    let info = vk::PhysicalDeviceExternalSemaphoreInfo::default()
        .handle_type(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD);
    let mut found = vk::ExternalSemaphoreProperties::default();
    // SAFETY: the physical device offers Vulkan 1.1.
    unsafe {
        host.instance
            .get_physical_device_external_semaphore_properties(host.physical, &info, &mut found);
    }
    let known = vk::ExternalSemaphoreFeatureFlags::EXPORTABLE
        | vk::ExternalSemaphoreFeatureFlags::IMPORTABLE;
    ensure(
        "the features are known",
        known.contains(found.external_semaphore_features),
    )?;
    Ok(String::new())
}
