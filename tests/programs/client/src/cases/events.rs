//! Cases of events.

use ash::vk;

use super::{Case, case};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, equal, need};

pub(super) const CASES: &[Case] = &[
    case("event-host", host),
    case("event-device", device),
    case("event-wait-on-device", wait_on_device),
    case("event-sync2", sync2),
];

fn event(gpu: &Gpu<'_>) -> Result<vk::Event, Stop> {
    // SAFETY: the device is alive.
    let event = unsafe { gpu.create_event(&vk::EventCreateInfo::default(), None) }?;
    Ok(gpu.own(event, ash::Device::destroy_event))
}

fn host(gpu: &Gpu<'_>) -> Outcome {
    let event = event(gpu)?;
    // SAFETY: the event is of this device.
    unsafe {
        equal("a new event", gpu.get_event_status(event)?, false)?;
        for _ in 0..3 {
            gpu.set_event(event)?;
            equal("the set event", gpu.get_event_status(event)?, true)?;
            gpu.reset_event(event)?;
            equal("the reset event", gpu.get_event_status(event)?, false)?;
        }
    }
    Ok(String::new())
}

fn device(gpu: &Gpu<'_>) -> Outcome {
    let event = event(gpu)?;
    let stage = vk::PipelineStageFlags::ALL_COMMANDS;
    // SAFETY: `run` records; the event is of this device.
    unsafe {
        gpu.run(|commands| gpu.cmd_set_event(commands, event, stage))?;
        equal(
            "the event set by the device",
            gpu.get_event_status(event)?,
            true,
        )?;
        gpu.run(|commands| gpu.cmd_reset_event(commands, event, stage))?;
        equal(
            "the event reset by the device",
            gpu.get_event_status(event)?,
            false,
        )?;
    }
    Ok(String::new())
}

fn wait_on_device(gpu: &Gpu<'_>) -> Outcome {
    let event = event(gpu)?;
    let buffer = gpu.buffer(2)?;
    let memory = vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
        .dst_access_mask(vk::AccessFlags::TRANSFER_READ);
    let transfer = vk::PipelineStageFlags::TRANSFER;
    for value in 1..=20 {
        // SAFETY: `run` records; event and buffer are of this device.
        gpu.run(|commands| unsafe {
            gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, value);
            gpu.cmd_set_event(commands, event, transfer);
            gpu.cmd_wait_events(commands, &[event], transfer, transfer, &[memory], &[], &[]);
            let copy = vk::BufferCopy {
                src_offset: 0,
                dst_offset: 4,
                size: 4,
            };
            gpu.cmd_copy_buffer(commands, buffer.handle, buffer.handle, &[copy]);
            gpu.barrier(commands);
            gpu.cmd_reset_event(commands, event, vk::PipelineStageFlags::ALL_COMMANDS);
        })?;
        equal("the copied word", buffer.read(1), value)?;
    }
    Ok(String::new())
}

fn sync2(gpu: &Gpu<'_>) -> Outcome {
    need("synchronization2", gpu.features.v13.synchronization2 != 0)?;
    let event = event(gpu)?;
    let buffer = gpu.buffer(2)?;
    let memory = [vk::MemoryBarrier2::default()
        .src_stage_mask(vk::PipelineStageFlags2::ALL_TRANSFER)
        .src_access_mask(vk::AccessFlags2::TRANSFER_WRITE)
        .dst_stage_mask(vk::PipelineStageFlags2::ALL_TRANSFER)
        .dst_access_mask(vk::AccessFlags2::TRANSFER_READ)];
    let dependency = vk::DependencyInfo::default().memory_barriers(&memory);
    // SAFETY: `run` records; event and buffer are of this device.
    unsafe {
        gpu.run(|commands| {
            gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, 77);
            gpu.cmd_set_event2(commands, event, &dependency);
            gpu.cmd_wait_events2(commands, &[event], &[dependency]);
            let copy = vk::BufferCopy {
                src_offset: 0,
                dst_offset: 4,
                size: 4,
            };
            gpu.cmd_copy_buffer(commands, buffer.handle, buffer.handle, &[copy]);
            gpu.barrier(commands);
        })?;
        equal("the copied word", buffer.read(1), 77)?;
        equal("the event", gpu.get_event_status(event)?, true)?;
        let all = vk::PipelineStageFlags2::ALL_COMMANDS;
        gpu.run(|commands| gpu.cmd_reset_event2(commands, event, all))?;
        equal("the reset event", gpu.get_event_status(event)?, false)?;
    }
    Ok(String::new())
}
