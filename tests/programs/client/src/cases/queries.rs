//! Cases of query pools: timestamps, occlusion, pipeline statistics, with and without availability.

use ash::vk;

use super::{Case, case};
use crate::drawing::Style;
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, ensure, equal, need};

pub(super) const CASES: &[Case] = &[
    case("query-timestamp", timestamp),
    case("query-occlusion", occlusion),
    case("query-statistics", statistics),
    case("query-availability", availability),
    case("query-copy", copy),
    case("query-host-reset", host_reset),
];

fn pool(
    gpu: &Gpu<'_>,
    kind: vk::QueryType,
    count: u32,
    statistics: vk::QueryPipelineStatisticFlags,
) -> Result<vk::QueryPool, Stop> {
    let info = vk::QueryPoolCreateInfo::default()
        .query_type(kind)
        .query_count(count)
        .pipeline_statistics(statistics);
    // SAFETY: the device is alive, `info` holds no pointers.
    let pool = unsafe { gpu.create_query_pool(&info, None) }?;
    Ok(gpu.own(pool, ash::Device::destroy_query_pool))
}

fn need_timestamps(gpu: &Gpu<'_>) -> Result<(), Stop> {
    let family = &gpu.host.families[gpu.family as usize];
    need("timestampValidBits", family.timestamp_valid_bits != 0)
}

fn timestamp(gpu: &Gpu<'_>) -> Outcome {
    need_timestamps(gpu)?;
    let pool = pool(gpu, vk::QueryType::TIMESTAMP, 4, Default::default())?;
    let buffer = gpu.buffer(1 << 16)?;
    // SAFETY: `run` records; all handles are of this device, and the pool has 4 queries.
    unsafe {
        gpu.run(|commands| {
            gpu.cmd_reset_query_pool(commands, pool, 0, 4);
            for query in 0..4 {
                gpu.cmd_fill_buffer(commands, buffer.handle, 0, vk::WHOLE_SIZE, query);
                gpu.barrier(commands);
                let stage = vk::PipelineStageFlags::BOTTOM_OF_PIPE;
                gpu.cmd_write_timestamp(commands, stage, pool, query);
            }
        })?;
        let mut stamps = [0_u64; 4];
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        gpu.get_query_pool_results(pool, 0, &mut stamps, flags)?;
        ensure("the timestamps are not 0", stamps[0] != 0)?;
        ensure("the timestamps ascend", stamps.is_sorted())?;
    }
    Ok(String::new())
}

/// Draws two triangles, each inside a query of its own.
fn draw_queried(
    gpu: &Gpu<'_>,
    pool: vk::QueryPool,
    control: vk::QueryControlFlags,
) -> Result<(), Stop> {
    let canvas = gpu.canvas([64, 64], vk::SampleCountFlags::TYPE_1, false)?;
    let painter = gpu.painter(Style::Triangle, &canvas, false)?;
    // SAFETY: `run` records; the pool is of this device and has 2 queries.
    gpu.run(|commands| unsafe {
        gpu.cmd_reset_query_pool(commands, pool, 0, 2);
        gpu.begin_pass(commands, &canvas, vk::SubpassContents::INLINE);
        gpu.take_brush(commands, &painter, &canvas);
        for (query, scale) in [(0, 1.0), (1, 0.25)] {
            gpu.cmd_begin_query(commands, pool, query, control);
            gpu.triangle(commands, &painter, [0.0, 0.0, scale, 0.5], [1.0; 4]);
            gpu.cmd_end_query(commands, pool, query);
        }
        gpu.cmd_end_render_pass(commands);
    })
}

fn occlusion(gpu: &Gpu<'_>) -> Outcome {
    let precise = gpu.features.core.occlusion_query_precise != 0;
    let pool = pool(gpu, vk::QueryType::OCCLUSION, 2, Default::default())?;
    let control = match precise {
        true => vk::QueryControlFlags::PRECISE,
        false => vk::QueryControlFlags::empty(),
    };
    draw_queried(gpu, pool, control)?;
    let mut samples = [0_u64; 2];
    let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
    // SAFETY: the pool is of this device and has 2 queries.
    unsafe { gpu.get_query_pool_results(pool, 0, &mut samples, flags) }?;
    if !precise {
        ensure(
            "both triangles are seen",
            samples.iter().all(|&samples| samples > 0),
        )?;
        return Ok(String::new());
    }
    // The triangles cover half of 64×64 and half of 16×16, apart from the diagonal, which belongs
    // to one side.
    ensure(
        "half of the picture is drawn",
        (2016..=2080).contains(&samples[0]),
    )?;
    ensure(
        "half of a quarter square is drawn",
        (120..=136).contains(&samples[1]),
    )?;
    Ok(format!("{} {}", samples[0], samples[1]))
}

fn statistics(gpu: &Gpu<'_>) -> Outcome {
    need(
        "pipelineStatisticsQuery",
        gpu.features.core.pipeline_statistics_query != 0,
    )?;
    let counted = vk::QueryPipelineStatisticFlags::INPUT_ASSEMBLY_VERTICES
        | vk::QueryPipelineStatisticFlags::INPUT_ASSEMBLY_PRIMITIVES
        | vk::QueryPipelineStatisticFlags::FRAGMENT_SHADER_INVOCATIONS;
    let pool = pool(gpu, vk::QueryType::PIPELINE_STATISTICS, 2, counted)?;
    draw_queried(gpu, pool, Default::default())?;
    let mut counts = [[0_u64; 3]; 2];
    let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
    // SAFETY: the pool is of this device, and has 2 queries and 3 counters per query.
    unsafe { gpu.get_query_pool_results(pool, 0, &mut counts, flags) }?;
    for [vertices, primitives, fragments] in counts {
        equal("vertices and primitives", [vertices, primitives], [3, 1])?;
        ensure("fragments are counted", fragments > 0)?;
    }
    Ok(format!("{} {}", counts[0][2], counts[1][2]))
}

fn availability(gpu: &Gpu<'_>) -> Outcome {
    let pool = pool(gpu, vk::QueryType::OCCLUSION, 2, Default::default())?;
    // SAFETY: `run` records; the pool is of this device and has 2 queries.
    unsafe {
        gpu.run(|commands| {
            gpu.cmd_reset_query_pool(commands, pool, 0, 2);
            gpu.cmd_begin_query(commands, pool, 1, vk::QueryControlFlags::empty());
            gpu.cmd_end_query(commands, pool, 1);
        })?;
        let mut results = [[7_u32, 7]; 2];
        let flags = vk::QueryResultFlags::WITH_AVAILABILITY;
        let first = gpu.get_query_pool_results(pool, 0, &mut results[..1], flags);
        equal(
            "a query that did not run",
            first,
            Err(vk::Result::NOT_READY),
        )?;
        equal("its availability", results[0][1], 0)?;
        gpu.get_query_pool_results(pool, 1, &mut results[1..], flags)?;
        equal(
            "the query that ran, and its availability",
            results[1],
            [0, 1],
        )?;
        let mut plain = [9_u32];
        let none = vk::QueryResultFlags::empty();
        let missing = gpu.get_query_pool_results(pool, 0, &mut plain, none);
        equal(
            "the first without availability",
            missing,
            Err(vk::Result::NOT_READY),
        )?;
        equal("a result that is not there", plain[0], 9)?;
        let mut partial = [9_u32];
        let flags = vk::QueryResultFlags::PARTIAL;
        let _ = gpu.get_query_pool_results(pool, 1, &mut partial, flags);
        equal("a complete result asked for with PARTIAL", partial[0], 0)?;
    }
    Ok(String::new())
}

fn copy(gpu: &Gpu<'_>) -> Outcome {
    let pool = pool(gpu, vk::QueryType::OCCLUSION, 2, Default::default())?;
    draw_queried(gpu, pool, vk::QueryControlFlags::empty())?;
    let buffer = gpu.buffer(8)?;
    let flags = vk::QueryResultFlags::TYPE_64
        | vk::QueryResultFlags::WITH_AVAILABILITY
        | vk::QueryResultFlags::WAIT;
    // SAFETY: `run` records; pool and buffer are of this device, and the buffer holds 2 results of
    // 16 bytes.
    gpu.run(|commands| unsafe {
        gpu.cmd_copy_query_pool_results(commands, pool, 0, 2, buffer.handle, 0, 16, flags);
        gpu.barrier(commands);
    })?;
    let words = buffer.read_all();
    equal("the availabilities", [words[2], words[6]], [1, 1])?;
    ensure("both triangles are seen", words[0] > 0 && words[4] > 0)?;
    Ok(String::new())
}

fn host_reset(gpu: &Gpu<'_>) -> Outcome {
    need("hostQueryReset", gpu.features.v12.host_query_reset != 0)?;
    let pool = pool(gpu, vk::QueryType::OCCLUSION, 2, Default::default())?;
    for _ in 0..3 {
        draw_queried(gpu, pool, vk::QueryControlFlags::empty())?;
        let flags = vk::QueryResultFlags::TYPE_64;
        let mut samples = [0_u64; 2];
        // SAFETY: the pool is of this device, has 2 queries and is not in use.
        unsafe {
            gpu.get_query_pool_results(pool, 0, &mut samples, flags)?;
            ensure(
                "both triangles are seen",
                samples.iter().all(|&samples| samples > 0),
            )?;
            gpu.reset_query_pool(pool, 0, 2);
            let after = gpu.get_query_pool_results(pool, 0, &mut samples, flags);
            equal(
                "the results after a reset",
                after,
                Err(vk::Result::NOT_READY),
            )?;
        }
    }
    Ok(String::new())
}
