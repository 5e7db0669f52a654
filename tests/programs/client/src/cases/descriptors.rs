//! Cases of descriptors: every way to bind and update them.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use ash::vk;

use super::{Case, case, named};
use crate::compute::whole;
use crate::gpu::Gpu;
use crate::outcome::{Outcome, ensure, equal, need};
use crate::resources::ImageKind;
use crate::shaders::{GATHER, PAINT, scramble};

pub(super) const CASES: &[Case] = &[
    case("descriptor-indexing", indexing),
    case("descriptor-push", push),
    case("descriptor-template", template),
    case("descriptor-dynamic-offsets", dynamic_offsets),
    case("descriptor-copy", copy),
    case("descriptor-pool-reuse", pool_reuse),
    case("descriptor-many-sets", many_sets),
    case("descriptor-image-and-texels", image_and_texels),
];

/// An environment variable with the path of a file. `descriptor-many-sets` keeps its sets until the
/// file exists.
const HOLD_SETS: &str = "HESPER_HOLD_SETS";

const STORAGE: vk::DescriptorType = vk::DescriptorType::STORAGE_BUFFER;
const COMPUTE: vk::PipelineBindPoint = vk::PipelineBindPoint::COMPUTE;

fn indexing(gpu: &Gpu<'_>) -> Outcome {
    let features = &gpu.features.v12;
    need(
        "runtimeDescriptorArray",
        features.runtime_descriptor_array != 0,
    )?;
    need(
        "descriptorBindingPartiallyBound",
        features.descriptor_binding_partially_bound != 0,
    )?;
    let late = features.descriptor_binding_storage_buffer_update_after_bind != 0;
    need("descriptorBindingStorageBufferUpdateAfterBind", late)?;
    let variable = features.descriptor_binding_variable_descriptor_count != 0;
    need("descriptorBindingVariableDescriptorCount", variable)?;
    let any = features.shader_storage_buffer_array_non_uniform_indexing != 0;
    need("shaderStorageBufferArrayNonUniformIndexing", any)?;

    let binding = |binding, count| {
        vk::DescriptorSetLayoutBinding::default()
            .binding(binding)
            .descriptor_type(STORAGE)
            .descriptor_count(count)
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
    };
    let bindings = [binding(0, 1), binding(1, 100)];
    let flags = [
        vk::DescriptorBindingFlags::empty(),
        vk::DescriptorBindingFlags::PARTIALLY_BOUND
            | vk::DescriptorBindingFlags::UPDATE_AFTER_BIND
            | vk::DescriptorBindingFlags::VARIABLE_DESCRIPTOR_COUNT,
    ];
    let mut flags = vk::DescriptorSetLayoutBindingFlagsCreateInfo::default().binding_flags(&flags);
    let layout = vk::DescriptorSetLayoutCreateInfo::default()
        .flags(vk::DescriptorSetLayoutCreateFlags::UPDATE_AFTER_BIND_POOL)
        .bindings(&bindings)
        .push_next(&mut flags);
    let pool_flags = vk::DescriptorPoolCreateFlags::UPDATE_AFTER_BIND;
    let pool = gpu.descriptor_pool(1, &[STORAGE], 31, pool_flags)?;
    let result = gpu.buffer(10)?;
    let sources = (0..10)
        .map(|_| gpu.buffer(10))
        .collect::<Result<Vec<_>, _>>()?;
    // SAFETY: all handles are of this device; `run` and `record` record.
    unsafe {
        let layout = gpu.create_descriptor_set_layout(&layout, None)?;
        let layout = gpu.own(layout, ash::Device::destroy_descriptor_set_layout);
        let pipeline_layout = gpu.pipeline_layout(&[layout])?;
        let none = vk::PipelineCache::null();
        let pipeline = gpu.compute_pipeline(GATHER, pipeline_layout, [1, 0], none)?;
        let mut count = vk::DescriptorSetVariableDescriptorCountAllocateInfo::default()
            .descriptor_counts(&[30]);
        let layouts = [layout];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(pool)
            .set_layouts(&layouts)
            .push_next(&mut count);
        let set = gpu.allocate_descriptor_sets(&info)?[0];
        gpu.write_buffer(set, 0, STORAGE, result.handle);
        let commands = gpu.record(|commands| {
            gpu.cmd_bind_pipeline(commands, COMPUTE, pipeline);
            gpu.cmd_bind_descriptor_sets(commands, COMPUTE, pipeline_layout, 0, &[set], &[]);
            gpu.cmd_dispatch(commands, 10, 1, 1);
            gpu.barrier(commands);
        })?;
        // Updating a set after it was bound is allowed by UPDATE_AFTER_BIND. Two of three elements
        // stay unwritten.
        for (index, source) in (0..).zip(&sources) {
            source.write(index, 1000 + index as u32);
            let info = [whole(source.handle)];
            let write = vk::WriteDescriptorSet::default()
                .dst_set(set)
                .dst_binding(1)
                .dst_array_element(index as u32 * 3)
                .descriptor_type(STORAGE)
                .buffer_info(&info);
            gpu.update_descriptor_sets(&[write], &[]);
        }
        let fence = gpu.fence(false)?;
        gpu.submit(&[commands], fence)?;
        gpu.wait(fence)?;
    }
    equal(
        "the gathered words",
        result.read_all(),
        (1000..1010).collect(),
    )?;
    Ok(String::new())
}

fn push(gpu: &Gpu<'_>) -> Outcome {
    let extension = ash::khr::push_descriptor::NAME;
    need(named(extension), gpu.host.has(extension))?;
    let pusher = gpu.extension(ash::khr::push_descriptor::Device::new);
    let flags = vk::DescriptorSetLayoutCreateFlags::PUSH_DESCRIPTOR_KHR;
    let layout = gpu.pipeline_layout(&[gpu.set_layout(&[STORAGE], flags)?])?;
    let none = vk::PipelineCache::null();
    let pipeline = gpu.compute_pipeline(crate::shaders::SCRAMBLE, layout, [64, 3], none)?;
    let buffers = (0..8)
        .map(|_| gpu.buffer(64))
        .collect::<Result<Vec<_>, _>>()?;
    // SAFETY: `run` records; all handles are of this device.
    gpu.run(|commands| unsafe {
        gpu.cmd_bind_pipeline(commands, COMPUTE, pipeline);
        for (seed, buffer) in (0..).zip(&buffers) {
            let info = [whole(buffer.handle)];
            let write = vk::WriteDescriptorSet::default()
                .descriptor_type(STORAGE)
                .buffer_info(&info);
            pusher.cmd_push_descriptor_set(commands, COMPUTE, layout, 0, &[write]);
            gpu.push(commands, layout, &[64, seed]);
            gpu.cmd_dispatch(commands, 1, 1, 1);
        }
        gpu.barrier(commands);
    })?;
    for (seed, buffer) in (0..).zip(&buffers) {
        equal(
            "the words",
            buffer.read_all(),
            vec![scramble(0, seed, 3); 64],
        )?;
    }
    Ok(String::new())
}

fn template(gpu: &Gpu<'_>) -> Outcome {
    let program = gpu.scrambler([64, 3])?;
    let set = gpu.descriptor_set(program.set_layout, &[STORAGE])?;
    let entries = [vk::DescriptorUpdateTemplateEntry::default()
        .descriptor_count(1)
        .descriptor_type(STORAGE)
        .stride(size_of::<vk::DescriptorBufferInfo>())];
    let info = vk::DescriptorUpdateTemplateCreateInfo::default()
        .descriptor_update_entries(&entries)
        .template_type(vk::DescriptorUpdateTemplateType::DESCRIPTOR_SET)
        .descriptor_set_layout(program.set_layout);
    let buffer = gpu.buffer(64)?;
    // SAFETY: all handles are of this device, and the template reads one descriptor.
    unsafe {
        let template = gpu.create_descriptor_update_template(&info, None)?;
        let template = gpu.own(template, ash::Device::destroy_descriptor_update_template);
        let data = whole(buffer.handle);
        gpu.update_descriptor_set_with_template(set, template, (&raw const data).cast());
    }
    gpu.run(|commands| gpu.dispatch(commands, &program, set, &[64, 2], [1, 1]))?;
    equal("the words", buffer.read_all(), vec![scramble(0, 2, 3); 64])?;
    Ok(String::new())
}

fn dynamic_offsets(gpu: &Gpu<'_>) -> Outcome {
    let kind = vk::DescriptorType::STORAGE_BUFFER_DYNAMIC;
    let program = gpu.program(crate::shaders::SCRAMBLE, &[kind], [64, 1])?;
    let set = gpu.descriptor_set(program.set_layout, &[kind])?;
    let buffer = gpu.buffer(1024)?;
    let part = [vk::DescriptorBufferInfo {
        buffer: buffer.handle,
        offset: 0,
        range: 256,
    }];
    let write = vk::WriteDescriptorSet::default()
        .dst_set(set)
        .descriptor_type(kind)
        .buffer_info(&part);
    // SAFETY: `run` records; all handles are of this device, and 1024 bytes are an allowed
    // alignment everywhere (minStorageBufferOffsetAlignment is 256 at most).
    unsafe {
        gpu.update_descriptor_sets(&[write], &[]);
        gpu.run(|commands| {
            gpu.cmd_bind_pipeline(commands, COMPUTE, program.pipeline);
            for step in [0, 1, 3] {
                gpu.push(commands, program.layout, &[64, step]);
                let layout = program.layout;
                let offset = [step * 1024];
                gpu.cmd_bind_descriptor_sets(commands, COMPUTE, layout, 0, &[set], &offset);
                gpu.cmd_dispatch(commands, 1, 1, 1);
            }
            gpu.barrier(commands);
        })?;
    }
    for (index, word) in (0..).zip(buffer.read_all()) {
        let step = index / 256;
        let touched = index % 256 < 64 && step != 2;
        equal(
            "a word",
            word,
            if touched { scramble(0, step, 1) } else { 0 },
        )?;
    }
    Ok(String::new())
}

fn copy(gpu: &Gpu<'_>) -> Outcome {
    let program = gpu.scrambler([64, 1])?;
    let buffer = gpu.buffer(64)?;
    let first = gpu.storage_set(&program, &[buffer.handle])?;
    let second = gpu.descriptor_set(program.set_layout, &[STORAGE])?;
    let copy = vk::CopyDescriptorSet::default()
        .src_set(first)
        .dst_set(second)
        .descriptor_count(1);
    // SAFETY: both sets are of this device and not in use.
    unsafe { gpu.update_descriptor_sets(&[], &[copy]) };
    gpu.run(|commands| gpu.dispatch(commands, &program, second, &[64, 8], [1, 1]))?;
    equal("the words", buffer.read_all(), vec![scramble(0, 8, 1); 64])?;
    Ok(String::new())
}

fn pool_reuse(gpu: &Gpu<'_>) -> Outcome {
    let layout = gpu.set_layout(&[STORAGE], Default::default())?;
    let flags = vk::DescriptorPoolCreateFlags::FREE_DESCRIPTOR_SET;
    let pool = gpu.descriptor_pool(4, &[STORAGE], 4, flags)?;
    let allocate = |count: usize| {
        let layouts = vec![layout; count];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(pool)
            .set_layouts(&layouts);
        // SAFETY: pool and layout are of this device.
        unsafe { gpu.allocate_descriptor_sets(&info) }
    };
    let sets = allocate(4)?;
    // SAFETY: the sets are of this pool and not in use.
    unsafe { gpu.free_descriptor_sets(pool, &sets[1..3]) }?;
    let again = allocate(2)?;
    ensure("two sets fit again", again.len() == 2)?;
    // SAFETY: no set of the pool is in use.
    unsafe { gpu.reset_descriptor_pool(pool, Default::default()) }?;
    equal("sets after a reset", allocate(4)?.len(), 4)?;
    Ok(String::new())
}

/// Allocates as many sets as OpenGL on Vulkan does. One program alone can have them, but lavapipe
/// maps memory for each.
fn many_sets(gpu: &Gpu<'_>) -> Outcome {
    const POOLS: u32 = 20;
    const SETS: u32 = 500;
    let layout = gpu.set_layout(&[STORAGE], Default::default())?;
    let layouts = [layout; SETS as usize];
    for _ in 0..POOLS {
        let pool = gpu.descriptor_pool(SETS, &[STORAGE], SETS, Default::default())?;
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(pool)
            .set_layouts(&layouts);
        // SAFETY: pool and layout are of this device.
        let sets = unsafe { gpu.allocate_descriptor_sets(&info) }?;
        equal("sets of a pool", sets.len(), layouts.len())?;
    }
    if let Some(file) = std::env::var_os(HOLD_SETS) {
        while !Path::new(&file).exists() {
            sleep(Duration::from_millis(5));
        }
    }
    Ok(String::new())
}

fn image_and_texels(gpu: &Gpu<'_>) -> Outcome {
    let types = [
        vk::DescriptorType::STORAGE_IMAGE,
        vk::DescriptorType::UNIFORM_BUFFER,
        vk::DescriptorType::UNIFORM_TEXEL_BUFFER,
    ];
    let program = gpu.program(PAINT, &types, [1, 0])?;
    let usage = vk::ImageUsageFlags::STORAGE | vk::ImageUsageFlags::TRANSFER_SRC;
    let image = gpu.image(ImageKind {
        usage,
        ..ImageKind::picture(32, 32)
    })?;
    let colour = gpu.buffer(4)?;
    colour.fill_with(|index| [3, 5, 7, 255][index as usize]);
    let ramp = gpu.buffer(32)?;
    ramp.fill_with(|index| index * index);
    let set = gpu.descriptor_set(program.set_layout, &types)?;
    gpu.write_buffer(set, 1, types[1], colour.handle);
    let info = vk::BufferViewCreateInfo::default()
        .buffer(ramp.handle)
        .format(vk::Format::R32_UINT)
        .range(vk::WHOLE_SIZE);
    let general = vk::ImageLayout::GENERAL;
    let target = [vk::DescriptorImageInfo::default()
        .image_view(image.view)
        .image_layout(general)];
    // SAFETY: all handles are of this device, the set is not in use, `run` records.
    unsafe {
        let view = [gpu.own(
            gpu.create_buffer_view(&info, None)?,
            ash::Device::destroy_buffer_view,
        )];
        let writes = [
            vk::WriteDescriptorSet::default()
                .dst_set(set)
                .descriptor_type(types[0])
                .image_info(&target),
            vk::WriteDescriptorSet::default()
                .dst_set(set)
                .dst_binding(2)
                .descriptor_type(types[2])
                .descriptor_count(1)
                .texel_buffer_view(&view),
        ];
        gpu.update_descriptor_sets(&writes, &[]);
        gpu.run(|commands| {
            gpu.transition(commands, &image, vk::ImageLayout::UNDEFINED, general);
            gpu.dispatch(commands, &program, set, &[0], [4, 4]);
            gpu.transition(
                commands,
                &image,
                general,
                vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
            );
        })?;
    }
    let read = gpu.read_back(&image, 0)?;
    for (index, texel) in (0..).zip(read.read_all()) {
        let (x, y) = (index % 32, index / 32);
        let expected = (3 + x * x) & 255 | (5 + y) << 8 | 7 << 16 | 255 << 24;
        equal("a texel", texel, expected)?;
    }
    Ok(String::new())
}
