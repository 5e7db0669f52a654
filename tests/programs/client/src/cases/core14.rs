//! Cases of Vulkan 1.4's commands by their core names, as a program calls them that finds 1.4 and
//! enables no extension.

use ash::vk;

use super::{Case, case};
use crate::compute::whole;
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, equal, fail, need};
use crate::shaders::{SCRAMBLE, scramble};

pub(super) const CASES: &[Case] = &[case("core-1.4", by_core_names)];

const VERSION: u32 = vk::make_api_version(0, 1, 4, 0);
const STORAGE: vk::DescriptorType = vk::DescriptorType::STORAGE_BUFFER;
const COMPUTE: vk::PipelineBindPoint = vk::PipelineBindPoint::COMPUTE;

/// Finds the device's function of this core name. Its type is that of the extension it was promoted
/// from.
macro_rules! core {
    ($gpu:expr, $name:literal, $type:ty) => {{
        // SAFETY: the instance and the device are alive; the type is that of the function of this
        // name.
        let found: Option<$type> = unsafe {
            std::mem::transmute(
                $gpu.host
                    .instance
                    .get_device_proc_addr($gpu.handle(), $name.as_ptr()),
            )
        };
        found.ok_or_else(|| fail(&format!("{:?} is not there", $name)))?
    }};
}

fn by_core_names(gpu: &Gpu<'_>) -> Outcome {
    need("Vulkan 1.4", gpu.host.properties.api_version >= VERSION)?;
    let host = gpu.host.of_version(VERSION)?;
    let gpu = Gpu::new(&host)?;
    push_and_bind(&gpu)?;
    let granularity = core!(
        gpu,
        c"vkGetRenderingAreaGranularity",
        vk::PFN_vkGetRenderingAreaGranularityKHR
    );
    let area = vk::RenderingAreaInfoKHR::default();
    let mut extent = vk::Extent2D::default();
    // SAFETY: the device is alive; the info has no attachments.
    unsafe { granularity(gpu.handle(), &area, &mut extent) };
    Ok(format!("granularity {}x{}", extent.width, extent.height))
}

fn push_and_bind(gpu: &Gpu<'_>) -> Result<(), Stop> {
    let push = core!(
        gpu,
        c"vkCmdPushDescriptorSet",
        vk::PFN_vkCmdPushDescriptorSetKHR
    );
    let constants = core!(gpu, c"vkCmdPushConstants2", vk::PFN_vkCmdPushConstants2KHR);
    let index_buffer = core!(
        gpu,
        c"vkCmdBindIndexBuffer2",
        vk::PFN_vkCmdBindIndexBuffer2KHR
    );
    let bind_sets = core!(
        gpu,
        c"vkCmdBindDescriptorSets2",
        vk::PFN_vkCmdBindDescriptorSets2KHR
    );
    let flags = vk::DescriptorSetLayoutCreateFlags::PUSH_DESCRIPTOR_KHR;
    let layout = gpu.pipeline_layout(&[gpu.set_layout(&[STORAGE], flags)?])?;
    let pipeline = gpu.compute_pipeline(SCRAMBLE, layout, [64, 3], vk::PipelineCache::null())?;
    let (pushed, bound) = (gpu.buffer(64)?, gpu.buffer(64)?);
    let program = gpu.scrambler([64, 3])?;
    let set = gpu.storage_set(&program, &[bound.handle])?;
    let indices = gpu.buffer(4)?;
    let values: [u8; 8] = [64, 0, 0, 0, 5, 0, 0, 0];
    gpu.run(|commands| {
        let info = [whole(pushed.handle)];
        let write = vk::WriteDescriptorSet::default()
            .descriptor_type(STORAGE)
            .buffer_info(&info);
        let with = |layout| {
            vk::PushConstantsInfoKHR::default()
                .layout(layout)
                .stage_flags(vk::ShaderStageFlags::ALL)
                .values(&values)
        };
        let sets = [set];
        let bind = vk::BindDescriptorSetsInfoKHR::default()
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
            .layout(program.layout)
            .descriptor_sets(&sets);
        // SAFETY: all handles are of this device; the layouts are those of the pipelines.
        unsafe {
            gpu.cmd_bind_pipeline(commands, COMPUTE, pipeline);
            push(commands, COMPUTE, layout, 0, 1, &write);
            constants(commands, &with(layout));
            gpu.cmd_dispatch(commands, 1, 1, 1);
            gpu.cmd_bind_pipeline(commands, COMPUTE, program.pipeline);
            bind_sets(commands, &bind);
            constants(commands, &with(program.layout));
            gpu.cmd_dispatch(commands, 1, 1, 1);
            index_buffer(
                commands,
                indices.handle,
                0,
                vk::WHOLE_SIZE,
                vk::IndexType::UINT32,
            );
            gpu.barrier(commands);
        }
    })?;
    let expected = vec![scramble(0, 5, 3); 64];
    equal(
        "what the pushed buffer has",
        pushed.read_all(),
        expected.clone(),
    )?;
    equal("what the bound buffer has", bound.read_all(), expected)
}
