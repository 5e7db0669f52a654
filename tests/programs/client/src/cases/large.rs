//! Cases of sizes that are rare but allowed. What a driver takes natively, it takes through every
//! layer.

use ash::vk;

use super::{Case, case};
use crate::compute::{PUSH_SIZE, Program, whole};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, ensure, equal, need};
use crate::resources::ImageKind;
use crate::shaders::{SCRAMBLE, scramble};

pub(super) const CASES: &[Case] = &[
    case("large-shader", shader),
    case("large-pipeline-cache", pipeline_cache),
    case("large-buffer-copies", buffer_copies),
    case("large-image-copies", image_copies),
    case("large-descriptor-write", descriptor_write),
    case("large-update", update),
    case("large-command-buffer", command_buffer),
    case("large-command-stream", command_stream),
];

const STORAGE: vk::DescriptorType = vk::DescriptorType::STORAGE_BUFFER;

/// Checks that a program scrambles, with this many rounds.
fn scrambles(gpu: &Gpu<'_>, program: &Program, rounds: u32) -> Outcome {
    let buffer = gpu.buffer(64)?;
    let set = gpu.storage_set(program, &[buffer.handle])?;
    gpu.run(|commands| gpu.dispatch(commands, program, set, &[64, 5], [1, 1]))?;
    let expected = vec![scramble(0, 5, rounds); 64];
    equal("the words", buffer.read_all(), expected)?;
    Ok(String::new())
}

/// Uses SPIR-V of 20 MiB. Nearly all of it is instructions that do nothing.
fn shader(gpu: &Gpu<'_>) -> Outcome {
    /// The instruction `OpNop`.
    const NOTHING: [u8; 4] = 0x0001_0000_u32.to_le_bytes();
    let mut code = SCRAMBLE.to_vec();
    while code.len() < 20 << 20 {
        code.extend_from_slice(&NOTHING);
    }
    let program = gpu.program(&code, &[STORAGE], [64, 3])?;
    scrambles(gpu, &program, 3)
}

/// Puts 100 MiB into a pipeline cache, and reads with room for as many.
fn pipeline_cache(gpu: &Gpu<'_>) -> Outcome {
    const SIZE: usize = 100 << 20;
    let make = |data: &[u8]| {
        let info = vk::PipelineCacheCreateInfo::default().initial_data(data);
        // SAFETY: the data came from this driver, or begins with its header. The driver must check
        // such data itself.
        let cache = unsafe { gpu.create_pipeline_cache(&info, None) };
        cache.map(|cache| gpu.own(cache, ash::Device::destroy_pipeline_cache))
    };
    let empty = make(&[])?;
    // SAFETY: the cache is of this device.
    let mut data = unsafe { gpu.get_pipeline_cache_data(empty) }?;
    ensure("a cache has a header", data.len() >= 32)?;
    data.resize(SIZE, 0);
    let cache = make(&data)?;
    let set_layout = gpu.set_layout(&[STORAGE], Default::default())?;
    let layout = gpu.pipeline_layout(&[set_layout])?;
    let pipeline = gpu.compute_pipeline(SCRAMBLE, layout, [64, 4], cache)?;
    let program = Program {
        set_layout,
        layout,
        pipeline,
    };
    scrambles(gpu, &program, 4)?;
    let (mut size, mut out) = (SIZE, vec![0_u8; SIZE]);
    // SAFETY: the cache is of this device, and there is room for `size` bytes.
    unsafe {
        let get = gpu.fp_v1_0().get_pipeline_cache_data;
        get(gpu.handle(), cache, &raw mut size, out.as_mut_ptr().cast())
    }
    .result()?;
    ensure("there is data", (32..=SIZE).contains(&size))?;
    equal("its header", &out[..32], &data[..32])?;
    Ok(String::new())
}

/// The number of regions of one copy.
const REGIONS: u32 = 100_000;

fn buffer_copies(gpu: &Gpu<'_>) -> Outcome {
    let (from, to) = (gpu.buffer(REGIONS as usize)?, gpu.buffer(REGIONS as usize)?);
    from.fill_with(|index| index * 3);
    // Copy word by word, backwards.
    let regions: Vec<_> = (0..REGIONS)
        .map(|index| vk::BufferCopy {
            src_offset: u64::from(index) * 4,
            dst_offset: u64::from(REGIONS - 1 - index) * 4,
            size: 4,
        })
        .collect();
    gpu.run(|commands| {
        // SAFETY: `run` records, and all regions are inside.
        unsafe { gpu.cmd_copy_buffer(commands, from.handle, to.handle, &regions) };
        gpu.barrier(commands);
    })?;
    let expected: Vec<_> = (0..REGIONS).rev().map(|index| index * 3).collect();
    ensure("the words are those", to.read_all() == expected)?;
    Ok(format!("{:016x}", to.digest()))
}

fn image_copies(gpu: &Gpu<'_>) -> Outcome {
    const WIDTH: u32 = 400;
    let height = REGIONS / WIDTH;
    let from = gpu.buffer(REGIONS as usize)?;
    from.fill_with(|index| index * 7);
    let image = gpu.image(ImageKind::picture(WIDTH, height))?;
    // Copy texel by texel, backwards.
    let regions: Vec<_> = (0..REGIONS)
        .map(|index| {
            let at = REGIONS - 1 - index;
            vk::BufferImageCopy::default()
                .buffer_offset(u64::from(index) * 4)
                .image_subresource(image.kind.level(0))
                .image_offset(vk::Offset3D {
                    x: (at % WIDTH) as i32,
                    y: (at / WIDTH) as i32,
                    z: 0,
                })
                .image_extent(vk::Extent3D {
                    width: 1,
                    height: 1,
                    depth: 1,
                })
        })
        .collect();
    gpu.run(|commands| {
        let layout = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
        gpu.transition(commands, &image, vk::ImageLayout::UNDEFINED, layout);
        // SAFETY: `run` records, and all regions are inside.
        unsafe {
            gpu.cmd_copy_buffer_to_image(commands, from.handle, image.handle, layout, &regions);
        }
        let read = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
        gpu.transition(commands, &image, layout, read);
    })?;
    let out = gpu.read_back(&image, 0)?;
    let expected: Vec<_> = (0..REGIONS).rev().map(|index| index * 7).collect();
    ensure("the texels are those", out.read_all() == expected)?;
    Ok(format!("{:016x}", out.digest()))
}

/// Writes 10,000 descriptors at once, and uses the last one.
fn descriptor_write(gpu: &Gpu<'_>) -> Outcome {
    const COUNT: u32 = 10_000;
    let limits = &gpu.host.properties.limits;
    let most = limits
        .max_per_stage_descriptor_storage_buffers
        .min(limits.max_descriptor_set_storage_buffers)
        .min(limits.max_per_stage_resources);
    need("room for 10,000 descriptors", most >= COUNT)?;
    let binding = vk::DescriptorSetLayoutBinding::default()
        .descriptor_type(STORAGE)
        .descriptor_count(COUNT)
        .stage_flags(vk::ShaderStageFlags::COMPUTE);
    let bindings = [binding];
    let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
    // SAFETY: the device is alive, `bindings` outlives the call.
    let layout = unsafe { gpu.create_descriptor_set_layout(&info, None) }?;
    let layout = gpu.own(layout, ash::Device::destroy_descriptor_set_layout);
    let pool = gpu.descriptor_pool(1, &[STORAGE], COUNT, Default::default())?;
    let layouts = [layout];
    let info = vk::DescriptorSetAllocateInfo::default()
        .descriptor_pool(pool)
        .set_layouts(&layouts);
    // SAFETY: pool and layout are of this device.
    let many = unsafe { gpu.allocate_descriptor_sets(&info) }?[0];
    let (first, last) = (gpu.buffer(64)?, gpu.buffer(64)?);
    let mut infos = vec![whole(first.handle); COUNT as usize];
    infos[COUNT as usize - 1] = whole(last.handle);
    let write = vk::WriteDescriptorSet::default()
        .dst_set(many)
        .descriptor_type(STORAGE)
        .buffer_info(&infos);
    let program = gpu.scrambler([64, 2])?;
    let one = gpu.storage_set(&program, &[first.handle])?;
    let copy = vk::CopyDescriptorSet::default()
        .src_set(many)
        .src_array_element(COUNT - 1)
        .dst_set(one)
        .descriptor_count(1);
    // SAFETY: sets and buffers are of this device; no set is in use.
    unsafe {
        gpu.update_descriptor_sets(&[write], &[]);
        gpu.update_descriptor_sets(&[], &[copy]);
    }
    gpu.run(|commands| gpu.dispatch(commands, &program, one, &[64, 9], [1, 1]))?;
    equal("the first buffer", first.read_all(), vec![0; 64])?;
    let expected = vec![scramble(0, 9, 2); 64];
    equal("the last buffer", last.read_all(), expected)?;
    Ok(String::new())
}

/// Updates with the largest size that `vkCmdUpdateBuffer` takes.
fn update(gpu: &Gpu<'_>) -> Outcome {
    let words: Vec<u32> = (0..65_536 / 4).map(|index| index * 11).collect();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let buffer = gpu.buffer(words.len())?;
    gpu.run(|commands| {
        // SAFETY: `run` records, and the buffer has so many bytes.
        unsafe { gpu.cmd_update_buffer(commands, buffer.handle, 0, &bytes) };
        gpu.barrier(commands);
    })?;
    ensure("the words are those", buffer.read_all() == words)?;
    Ok(format!("{:016x}", buffer.digest()))
}

/// Records a command buffer of a million commands. Venus sends it as about 75 MB of streams.
fn command_buffer(gpu: &Gpu<'_>) -> Outcome {
    const FILLS: u32 = 1000;
    const PUSHES: u32 = 999;
    let program = gpu.scrambler([64, 2])?;
    let (filled, buffer) = (gpu.buffer(FILLS as usize)?, gpu.buffer(64)?);
    let set = gpu.storage_set(&program, &[buffer.handle])?;
    gpu.run(|commands| {
        let mut arguments = [0; PUSH_SIZE as usize / 4];
        for fill in 0..FILLS {
            let handle = filled.handle;
            // SAFETY: `run` records, and the words are inside.
            unsafe { gpu.cmd_fill_buffer(commands, handle, u64::from(fill) * 4, 4, fill * 13) };
            for push in 0..PUSHES {
                arguments[..2].copy_from_slice(&[64, fill + push]);
                gpu.push(commands, program.layout, &arguments);
            }
        }
        // The dispatch uses the last push constants.
        let point = vk::PipelineBindPoint::COMPUTE;
        // SAFETY: `run` records, and all handles are of this device.
        unsafe {
            gpu.cmd_bind_pipeline(commands, point, program.pipeline);
            gpu.cmd_bind_descriptor_sets(commands, point, program.layout, 0, &[set], &[]);
            gpu.cmd_dispatch(commands, 1, 1, 1);
        }
        gpu.barrier(commands);
    })?;
    let expected: Vec<_> = (0..FILLS).map(|fill| fill * 13).collect();
    equal("the filled words", filled.read_all(), expected)?;
    let last = FILLS - 1 + PUSHES - 1;
    let expected = vec![scramble(0, last, 2); 64];
    equal("the scrambled words", buffer.read_all(), expected)?;
    Ok(String::new())
}

/// Records a command buffer with 216 MB of data. Venus sends more than 64 MiB of it in one stream.
fn command_stream(gpu: &Gpu<'_>) -> Outcome {
    const SIZE: usize = 65_536;
    const ROUNDS: u32 = 3300;
    let buffer = gpu.buffer(SIZE / 4)?;
    gpu.run(|commands| {
        let mut bytes = vec![0_u8; SIZE];
        for round in 0..ROUNDS {
            bytes[..4].copy_from_slice(&round.to_ne_bytes());
            bytes[SIZE - 4..].copy_from_slice(&(round * 3).to_ne_bytes());
            // SAFETY: `run` records, and the buffer has so many bytes.
            unsafe { gpu.cmd_update_buffer(commands, buffer.handle, 0, &bytes) };
        }
        gpu.barrier(commands);
    })?;
    equal("the first word", buffer.read(0), ROUNDS - 1)?;
    equal("the last word", buffer.read(SIZE / 4 - 1), (ROUNDS - 1) * 3)?;
    Ok(String::new())
}
