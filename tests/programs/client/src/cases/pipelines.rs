//! Cases of pipelines and pipeline caches.

use ash::vk;

use super::{Case, case};
use crate::drawing::Style;
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, ensure, equal, need};
use crate::shaders::{SCRAMBLE, scramble, words};

pub(super) const CASES: &[Case] = &[
    case("pipeline-cache", cache),
    case("pipeline-cache-merge", cache_merge),
    case("pipeline-batch", batch),
    case("pipeline-creation-feedback", feedback),
    case("pipeline-shaders-gone", shaders_gone),
];

const STORAGE: vk::DescriptorType = vk::DescriptorType::STORAGE_BUFFER;

fn new_cache(gpu: &Gpu<'_>, data: &[u8]) -> Result<vk::PipelineCache, Stop> {
    let info = vk::PipelineCacheCreateInfo::default().initial_data(data);
    // SAFETY: the device is alive; the data came from a cache of the same device, or is empty.
    let cache = unsafe { gpu.create_pipeline_cache(&info, None) }?;
    Ok(gpu.own(cache, ash::Device::destroy_pipeline_cache))
}

fn cache_data(gpu: &Gpu<'_>, cache: vk::PipelineCache) -> Result<Vec<u8>, Stop> {
    // SAFETY: the cache is of this device.
    Ok(unsafe { gpu.get_pipeline_cache_data(cache) }?)
}

/// Creates a compute and a drawing pipeline with `cache`, and uses the first one.
fn fill_cache(gpu: &Gpu<'_>, cache: vk::PipelineCache) -> Result<(), Stop> {
    let set_layout = gpu.set_layout(&[STORAGE], Default::default())?;
    let layout = gpu.pipeline_layout(&[set_layout])?;
    let pipeline = gpu.compute_pipeline(SCRAMBLE, layout, [64, 2], cache)?;
    let canvas = gpu.canvas([16, 16], vk::SampleCountFlags::TYPE_1, false)?;
    gpu.drawing_pipeline(Style::Triangle, &canvas, layout, false, cache)?;
    let program = crate::compute::Program {
        set_layout,
        layout,
        pipeline,
    };
    let buffer = gpu.buffer(64)?;
    let set = gpu.storage_set(&program, &[buffer.handle])?;
    gpu.run(|commands| gpu.dispatch(commands, &program, set, &[64, 1], [1, 1]))?;
    equal("the words", buffer.read_all(), vec![scramble(0, 1, 2); 64])
}

fn cache(gpu: &Gpu<'_>) -> Outcome {
    let first = new_cache(gpu, &[])?;
    fill_cache(gpu, first)?;
    let data = cache_data(gpu, first)?;
    // The data begins with VkPipelineCacheHeaderVersionOne: size, version, vendor, device, UUID.
    ensure("the data has a header", data.len() >= 32)?;
    equal("the header's version", &data[4..8], &1_u32.to_le_bytes())?;
    let properties = &gpu.host.properties;
    equal(
        "the header's vendor",
        &data[8..12],
        &properties.vendor_id.to_le_bytes(),
    )?;
    equal(
        "the header's UUID",
        &data[16..32],
        &properties.pipeline_cache_uuid,
    )?;
    let second = new_cache(gpu, &data)?;
    fill_cache(gpu, second)?;
    ensure(
        "the second cache has data",
        cache_data(gpu, second)?.len() >= 32,
    )?;
    // Damaged data is ignored, and is not an error.
    let mut broken = data;
    broken.iter_mut().skip(16).for_each(|byte| *byte ^= 0x5a);
    fill_cache(gpu, new_cache(gpu, &broken)?)?;
    Ok(String::new())
}

fn cache_merge(gpu: &Gpu<'_>) -> Outcome {
    let (first, second, whole) = (
        new_cache(gpu, &[])?,
        new_cache(gpu, &[])?,
        new_cache(gpu, &[])?,
    );
    fill_cache(gpu, first)?;
    fill_cache(gpu, second)?;
    // SAFETY: the caches are of this device and not in use.
    unsafe { gpu.merge_pipeline_caches(whole, &[first, second]) }?;
    ensure(
        "the merged cache has data",
        cache_data(gpu, whole)?.len() >= 32,
    )?;
    fill_cache(gpu, whole)?;
    Ok(String::new())
}

fn batch(gpu: &Gpu<'_>) -> Outcome {
    let set_layout = gpu.set_layout(&[STORAGE], Default::default())?;
    let layout = gpu.pipeline_layout(&[set_layout])?;
    let module = gpu.shader(SCRAMBLE)?;
    let entries = [vk::SpecializationMapEntry {
        constant_id: 1,
        offset: 0,
        size: 4,
    }];
    let rounds: Vec<[u8; 4]> = (0..16_u32).map(u32::to_ne_bytes).collect();
    let special: Vec<_> = rounds
        .iter()
        .map(|data| {
            vk::SpecializationInfo::default()
                .map_entries(&entries)
                .data(data)
        })
        .collect();
    let infos: Vec<_> = special
        .iter()
        .map(|special| {
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(c"main")
                .specialization_info(special);
            vk::ComputePipelineCreateInfo::default()
                .stage(stage)
                .layout(layout)
        })
        .collect();
    // SAFETY: all handles are of this device, all pointers on this stack frame.
    let made = unsafe { gpu.create_compute_pipelines(vk::PipelineCache::null(), &infos, None) };
    let pipelines = made.map_err(|(_, error)| error)?;
    let buffer = gpu.buffer(1)?;
    for (rounds, pipeline) in (0..).zip(pipelines) {
        let pipeline = gpu.own(pipeline, ash::Device::destroy_pipeline);
        let program = crate::compute::Program {
            set_layout,
            layout,
            pipeline,
        };
        let set = gpu.storage_set(&program, &[buffer.handle])?;
        buffer.write(0, 4);
        gpu.run(|commands| gpu.dispatch(commands, &program, set, &[1, 1], [1, 1]))?;
        equal("the word", buffer.read(0), scramble(4, 1, rounds))?;
    }
    Ok(String::new())
}

fn feedback(gpu: &Gpu<'_>) -> Outcome {
    need(
        "Vulkan 1.3",
        gpu.host.properties.api_version >= vk::API_VERSION_1_3,
    )?;
    let set_layout = gpu.set_layout(&[STORAGE], Default::default())?;
    let layout = gpu.pipeline_layout(&[set_layout])?;
    let mut whole = vk::PipelineCreationFeedback::default();
    let mut stages = [vk::PipelineCreationFeedback::default()];
    let mut feedback = vk::PipelineCreationFeedbackCreateInfo::default()
        .pipeline_creation_feedback(&mut whole)
        .pipeline_stage_creation_feedbacks(&mut stages);
    let stage = vk::PipelineShaderStageCreateInfo::default()
        .stage(vk::ShaderStageFlags::COMPUTE)
        .module(gpu.shader(SCRAMBLE)?)
        .name(c"main");
    let info = vk::ComputePipelineCreateInfo::default()
        .stage(stage)
        .layout(layout)
        .push_next(&mut feedback);
    // SAFETY: all handles are of this device, all pointers on this stack frame.
    let made = unsafe { gpu.create_compute_pipelines(vk::PipelineCache::null(), &[info], None) };
    gpu.own(
        made.map_err(|(_, error)| error)?[0],
        ash::Device::destroy_pipeline,
    );
    let known = vk::PipelineCreationFeedbackFlags::VALID
        | vk::PipelineCreationFeedbackFlags::APPLICATION_PIPELINE_CACHE_HIT
        | vk::PipelineCreationFeedbackFlags::BASE_PIPELINE_ACCELERATION;
    ensure("the feedback has known flags", known.contains(whole.flags))?;
    Ok(String::new())
}

fn shaders_gone(gpu: &Gpu<'_>) -> Outcome {
    // A pipeline outlives its shader module.
    let set_layout = gpu.set_layout(&[STORAGE], Default::default())?;
    let layout = gpu.pipeline_layout(&[set_layout])?;
    let code = words(SCRAMBLE);
    let info = vk::ShaderModuleCreateInfo::default().code(&code);
    // SAFETY: all handles are of this device; the module is destroyed once, when no call uses it.
    let pipeline = unsafe {
        let module = gpu.create_shader_module(&info, None)?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let info = vk::ComputePipelineCreateInfo::default()
            .stage(stage)
            .layout(layout);
        let made = gpu.create_compute_pipelines(vk::PipelineCache::null(), &[info], None);
        gpu.destroy_shader_module(module, None);
        gpu.own(
            made.map_err(|(_, error)| error)?[0],
            ash::Device::destroy_pipeline,
        )
    };
    let program = crate::compute::Program {
        set_layout,
        layout,
        pipeline,
    };
    let buffer = gpu.buffer(2)?;
    let set = gpu.storage_set(&program, &[buffer.handle])?;
    gpu.run(|commands| gpu.dispatch(commands, &program, set, &[2, 1], [2, 1]))?;
    let word = buffer.read(0);
    ensure(
        "the words are scrambled",
        word != 0 && buffer.read(1) == word,
    )?;
    Ok(String::new())
}
