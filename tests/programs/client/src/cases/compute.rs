//! Cases of compute shaders, whose results are exact.

use ash::vk;

use super::{Case, case};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, ensure, equal};
use crate::shaders::{HISTOGRAM, scramble};

pub(super) const CASES: &[Case] = &[
    case("compute-exact", exact),
    case("compute-specialization", specialization),
    case("compute-chain", chain),
    case("compute-indirect", indirect),
    case("compute-shared-memory", shared_memory),
];

fn exact(gpu: &Gpu<'_>) -> Outcome {
    let buffer = gpu.buffer(10_000)?;
    buffer.fill_with(|index| index * 3);
    gpu.scramble_once(&buffer, 17)?;
    let expected: Vec<u32> = (0..10_000)
        .map(|index| scramble(index * 3, 17, 4))
        .collect();
    ensure(
        "every word is as the CPU computes it",
        buffer.read_all() == expected,
    )?;
    Ok(format!("{:016x}", buffer.digest()))
}

fn specialization(gpu: &Gpu<'_>) -> Outcome {
    let buffer = gpu.buffer(1024)?;
    for (size, rounds) in [(1, 0), (32, 1), (64, 9), (128, 100)] {
        let program = gpu.scrambler([size, rounds])?;
        let set = gpu.storage_set(&program, &[buffer.handle])?;
        buffer.fill_with(|index| index);
        gpu.run(|commands| gpu.dispatch(commands, &program, set, &[1000, 5], [1024 / size, 1]))?;
        let expected: Vec<u32> = (0..1024)
            .map(|index| {
                if index < 1000 {
                    scramble(index, 5, rounds)
                } else {
                    index
                }
            })
            .collect();
        ensure(
            "every word is as the CPU computes it",
            buffer.read_all() == expected,
        )?;
    }
    Ok(String::new())
}

fn chain(gpu: &Gpu<'_>) -> Outcome {
    let program = gpu.scrambler([64, 1])?;
    let buffer = gpu.buffer(256)?;
    let set = gpu.storage_set(&program, &[buffer.handle])?;
    gpu.run(|commands| {
        for step in 0..64 {
            gpu.dispatch(commands, &program, set, &[256, step], [4, 1]);
        }
    })?;
    let expected = (0..64).fold(0, |word, step| scramble(word, step, 1));
    equal("the words", buffer.read_all(), vec![expected; 256])?;
    Ok(String::new())
}

fn indirect(gpu: &Gpu<'_>) -> Outcome {
    let program = gpu.scrambler([64, 2])?;
    let (buffer, groups) = (gpu.buffer(256)?, gpu.buffer(6)?);
    let set = gpu.storage_set(&program, &[buffer.handle])?;
    for (index, value) in [9, 9, 9, 3, 1, 1].into_iter().enumerate() {
        groups.write(index, value);
    }
    let point = vk::PipelineBindPoint::COMPUTE;
    // SAFETY: `run` records; all handles are of this device.
    gpu.run(|commands| unsafe {
        gpu.push(commands, program.layout, &[256, 1]);
        gpu.cmd_bind_pipeline(commands, point, program.pipeline);
        gpu.cmd_bind_descriptor_sets(commands, point, program.layout, 0, &[set], &[]);
        gpu.cmd_dispatch_indirect(commands, groups.handle, 12);
        gpu.barrier(commands);
    })?;
    let expected: Vec<u32> = (0..256)
        .map(|index| if index < 192 { scramble(0, 1, 2) } else { 0 })
        .collect();
    equal("the words", buffer.read_all(), expected)?;
    Ok(String::new())
}

fn shared_memory(gpu: &Gpu<'_>) -> Outcome {
    let types = [vk::DescriptorType::STORAGE_BUFFER; 2];
    let program = gpu.program(HISTOGRAM, &types, [64, 0])?;
    let (words, counts) = (gpu.buffer(5000)?, gpu.buffer(16)?);
    words.fill_with(|index| scramble(index, 3, 2));
    let set = gpu.storage_set(&program, &[words.handle, counts.handle])?;
    gpu.run(|commands| gpu.dispatch(commands, &program, set, &[5000], [5000_u32.div_ceil(64), 1]))?;
    let mut expected = vec![0; 16];
    for index in 0..5000 {
        expected[scramble(index, 3, 2) as usize % 16] += 1;
    }
    equal("the counts", counts.read_all(), expected)?;
    Ok(format!("{:016x}", counts.digest()))
}
