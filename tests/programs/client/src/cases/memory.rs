//! Cases of device memory: types, mappings that stay coherent while mapped, many and large
//! allocations.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use ash::vk;

use super::{Case, case, named};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, ensure, equal, fail, need};
use crate::resources::{ANY_USE, COHERENT};

pub(super) const CASES: &[Case] = &[
    case("map-gpu-writes", gpu_writes),
    case("map-cpu-writes", cpu_writes),
    case("map-write-seen-before-the-fence", seen_while_running),
    case("map-every-type", every_type),
    case("map-again", map_again),
    case("map-large", large),
    case("memory-many-small", many_small),
    case("memory-parts", parts),
    case("memory-dedicated", dedicated),
    case("memory-budget", budget),
    case("memory-small-window", small_window),
    case("memory-too-much", too_much),
    case("memory-device-address", device_address),
];

fn gpu_writes(gpu: &Gpu<'_>) -> Outcome {
    let buffer = gpu.buffer(4096)?;
    for round in 1..=50 {
        // SAFETY: `run` records; the buffer is of this device.
        gpu.run(|commands| unsafe {
            gpu.cmd_fill_buffer(commands, buffer.handle, 0, vk::WHOLE_SIZE, round);
            gpu.barrier(commands);
        })?;
        ensure(
            "all words are new",
            buffer.read_all().iter().all(|&word| word == round),
        )?;
    }
    Ok(String::new())
}

fn cpu_writes(gpu: &Gpu<'_>) -> Outcome {
    let (from, to) = (gpu.buffer(4096)?, gpu.buffer(4096)?);
    let copy = vk::BufferCopy {
        size: 4096 * 4,
        ..Default::default()
    };
    // SAFETY: recording; the buffers are of this device.
    let commands = gpu.record(|commands| unsafe {
        gpu.cmd_copy_buffer(commands, from.handle, to.handle, &[copy]);
        gpu.barrier(commands);
    })?;
    let fence = gpu.fence(false)?;
    for round in 1..=50 {
        from.fill_with(|index| index * 7 + round);
        gpu.submit(&[commands], fence)?;
        gpu.wait(fence)?;
        // SAFETY: the fence is not in use.
        unsafe { gpu.reset_fences(&[fence]) }?;
        let expected: Vec<u32> = (0..4096).map(|index| index * 7 + round).collect();
        ensure("the copy has the new words", to.read_all() == expected)?;
    }
    Ok(String::new())
}

fn seen_while_running(gpu: &Gpu<'_>) -> Outcome {
    // The queue fills a word, then waits for the CPU, which waits for the word. This ends only if
    // both share the pages.
    need(
        "timelineSemaphore",
        gpu.features.v12.timeline_semaphore != 0,
    )?;
    let buffer = gpu.buffer(2)?;
    let (gate, fence) = (gpu.timeline(0)?, gpu.fence(false)?);
    let fill = |word: u64| {
        // SAFETY: recording; the buffer is of this device.
        gpu.record(|commands| unsafe {
            gpu.cmd_fill_buffer(commands, buffer.handle, word * 4, 4, 0xfeed);
            gpu.barrier(commands);
        })
    };
    gpu.submit(&[fill(0)?], vk::Fence::null())?;
    gpu.submit_behind(gate, &[fill(1)?], fence)?;
    let until = Instant::now() + Duration::from_secs(20);
    while buffer.read(0) != 0xfeed {
        if Instant::now() > until {
            return Err(fail("the first word is not seen while the queue is busy"));
        }
        thread::sleep(Duration::from_micros(200));
    }
    equal("the second word", buffer.read(1), 0)?;
    // SAFETY: the semaphore is of this device.
    unsafe {
        gpu.signal_semaphore(&vk::SemaphoreSignalInfo::default().semaphore(gate).value(1))?;
    }
    gpu.wait(fence)?;
    equal("the second word at last", buffer.read(1), 0xfeed)?;
    Ok(String::new())
}

fn every_type(gpu: &Gpu<'_>) -> Outcome {
    let mut kinds = Vec::new();
    for (index, kind) in (0_u32..).zip(gpu.host.memory.memory_types_as_slice()) {
        let (buffer, needs) = gpu.bare_buffer(65536, ANY_USE)?;
        let visible = kind
            .property_flags
            .contains(vk::MemoryPropertyFlags::HOST_VISIBLE);
        if needs.memory_type_bits >> index & 1 == 0 || !visible {
            continue;
        }
        let memory = gpu.allocate(needs.size, index)?;
        let range = [vk::MappedMemoryRange::default()
            .memory(memory)
            .size(vk::WHOLE_SIZE)];
        let copied = gpu.buffer(16384)?;
        // SAFETY: all handles are of this device; `run` records.
        unsafe {
            gpu.bind_buffer_memory(buffer, memory, 0)?;
            let words = gpu.map(memory, 65536)?;
            for (word, value) in words.iter().zip(0..) {
                word.store(value, Ordering::Relaxed);
            }
            gpu.flush_mapped_memory_ranges(&range)?;
            gpu.run(|commands| {
                let copy = vk::BufferCopy {
                    size: 65536,
                    ..Default::default()
                };
                gpu.cmd_copy_buffer(commands, buffer, copied.handle, &[copy]);
                gpu.barrier(commands);
                gpu.cmd_fill_buffer(commands, buffer, 0, vk::WHOLE_SIZE, index + 100);
                gpu.barrier(commands);
            })?;
            gpu.invalidate_mapped_memory_ranges(&range)?;
            let all = words
                .iter()
                .all(|word| word.load(Ordering::Relaxed) == index + 100);
            ensure("the device's words are seen", all)?;
        }
        ensure(
            "the CPU's words are seen",
            (0..).zip(copied.read_all()).all(|(i, word)| i == word),
        )?;
        kinds.push(format!("{index}:{:x}", kind.property_flags.as_raw()));
    }
    Ok(kinds.join(" "))
}

fn map_again(gpu: &Gpu<'_>) -> Outcome {
    let (buffer, needs) = gpu.bare_buffer(1 << 20, ANY_USE)?;
    let memory = gpu.allocate(
        needs.size,
        gpu.memory_type(needs.memory_type_bits, COHERENT)?,
    )?;
    let flags = vk::MemoryMapFlags::empty();
    // SAFETY: all handles are of this device; every access is inside the range that is mapped at
    // that time.
    unsafe {
        gpu.bind_buffer_memory(buffer, memory, 0)?;
        let at = gpu
            .map_memory(memory, 0, vk::WHOLE_SIZE, flags)?
            .cast::<u32>();
        at.add(100).write_volatile(0xaa);
        gpu.unmap_memory(memory);
        gpu.run(|commands| {
            gpu.cmd_fill_buffer(commands, buffer, 65536, 65536, 0xbb);
            gpu.barrier(commands);
        })?;
        let at = gpu.map_memory(memory, 65536, 65536, flags)?.cast::<u32>();
        equal("the first filled word", at.read_volatile(), 0xbb)?;
        equal("the last filled word", at.add(16383).read_volatile(), 0xbb)?;
        at.write_volatile(0xcc);
        gpu.unmap_memory(memory);
        let at = gpu
            .map_memory(memory, 0, vk::WHOLE_SIZE, flags)?
            .cast::<u32>();
        equal(
            "the word of the first mapping",
            at.add(100).read_volatile(),
            0xaa,
        )?;
        equal(
            "the word of the second mapping",
            at.add(16384).read_volatile(),
            0xcc,
        )?;
        gpu.unmap_memory(memory);
    }
    Ok(String::new())
}

fn large(gpu: &Gpu<'_>) -> Outcome {
    const WORDS: usize = 16 << 20;
    let buffer = gpu.buffer(WORDS)?;
    buffer.write(WORDS - 1, 0x600d);
    let to = gpu.buffer(2)?;
    let half = WORDS as u64 * 2;
    // SAFETY: `run` records; the buffers are of this device.
    gpu.run(|commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer.handle, half, 4, 0x601d);
        gpu.barrier(commands);
        let copies = [
            vk::BufferCopy {
                src_offset: WORDS as u64 * 4 - 4,
                dst_offset: 0,
                size: 4,
            },
            vk::BufferCopy {
                src_offset: half,
                dst_offset: 4,
                size: 4,
            },
        ];
        gpu.cmd_copy_buffer(commands, buffer.handle, to.handle, &copies);
        gpu.barrier(commands);
    })?;
    equal("the copied words", to.read_all(), vec![0x600d, 0x601d])?;
    equal("the filled word", buffer.read(WORDS / 2), 0x601d)?;
    Ok(String::new())
}

fn many_small(gpu: &Gpu<'_>) -> Outcome {
    let limit = gpu.host.properties.limits.max_memory_allocation_count;
    // A guest of QEMU 11.1 can have 480 maps at a time (docs/qemu.md).
    let count = 400.min(limit / 2);
    let mut buffers = Vec::new();
    for index in 0..count {
        let buffer = gpu.buffer(1 + index as usize % 300)?;
        buffer.fill_with(|word| index << 16 | word);
        buffers.push(buffer);
    }
    // SAFETY: `run` records; the buffers are of this device.
    gpu.run(|commands| unsafe {
        for buffer in buffers.iter().step_by(3) {
            gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, 0x5eed);
        }
        gpu.barrier(commands);
    })?;
    for (index, buffer) in (0..count).zip(&buffers) {
        for (word, value) in (0..).zip(buffer.read_all()) {
            let filled = index % 3 == 0 && word == 0;
            equal(
                "a word",
                value,
                if filled { 0x5eed } else { index << 16 | word },
            )?;
        }
    }
    Ok(String::new())
}

fn parts(gpu: &Gpu<'_>) -> Outcome {
    // Bind 64 buffers to one allocation, each at its own place.
    let mut buffers = Vec::new();
    let (mut end, mut bits) = (0_u64, u32::MAX);
    for _ in 0..64 {
        let (buffer, needs) = gpu.bare_buffer(1000, ANY_USE)?;
        let at = end.next_multiple_of(needs.alignment);
        end = at + needs.size;
        bits &= needs.memory_type_bits;
        buffers.push((buffer, at));
    }
    let memory = gpu.allocate(end, gpu.memory_type(bits, COHERENT)?)?;
    let words = gpu.map(memory, end & !3)?;
    // SAFETY: `run` records; buffers and memory are of this device and fit each other.
    unsafe {
        for &(buffer, at) in &buffers {
            gpu.bind_buffer_memory(buffer, memory, at)?;
        }
        gpu.run(|commands| {
            for (value, &(buffer, _)) in (1..).zip(&buffers) {
                gpu.cmd_fill_buffer(commands, buffer, 0, vk::WHOLE_SIZE, value);
            }
            gpu.barrier(commands);
        })?;
    }
    for (value, &(_, at)) in (1..).zip(&buffers) {
        let at = usize::try_from(at / 4).map_err(|_| fail("an offset too large"))?;
        let filled = words[at..at + 250]
            .iter()
            .all(|word| word.load(Ordering::Acquire) == value);
        ensure("each buffer has its own value", filled)?;
    }
    Ok(String::new())
}

fn dedicated(gpu: &Gpu<'_>) -> Outcome {
    let (buffer, _) = gpu.bare_buffer(4096, ANY_USE)?;
    let mut wishes = vk::MemoryDedicatedRequirements::default();
    let mut needs = vk::MemoryRequirements2::default().push_next(&mut wishes);
    let info = vk::BufferMemoryRequirementsInfo2::default().buffer(buffer);
    // SAFETY: the buffer is of this device.
    unsafe { gpu.get_buffer_memory_requirements2(&info, &mut needs) };
    let needs = needs.memory_requirements;
    let mut dedicated = vk::MemoryDedicatedAllocateInfo::default().buffer(buffer);
    let info = vk::MemoryAllocateInfo::default()
        .allocation_size(needs.size)
        .memory_type_index(gpu.memory_type(needs.memory_type_bits, COHERENT)?)
        .push_next(&mut dedicated);
    // SAFETY: buffer and memory are of this device and made for each other; `run` records.
    let words = unsafe {
        let memory = gpu.own(gpu.allocate_memory(&info, None)?, ash::Device::free_memory);
        let bind = vk::BindBufferMemoryInfo::default()
            .buffer(buffer)
            .memory(memory);
        gpu.bind_buffer_memory2(&[bind])?;
        gpu.run(|commands| {
            gpu.cmd_fill_buffer(commands, buffer, 0, vk::WHOLE_SIZE, 3);
            gpu.barrier(commands);
        })?;
        gpu.map(memory, 4096)?
    };
    ensure(
        "all words are filled",
        words.iter().all(|word| word.load(Ordering::Acquire) == 3),
    )?;
    let (prefers, requires) = (
        wishes.prefers_dedicated_allocation,
        wishes.requires_dedicated_allocation,
    );
    Ok(format!("prefers {prefers}, requires {requires}"))
}

fn budget(gpu: &Gpu<'_>) -> Outcome {
    let extension = ash::ext::memory_budget::NAME;
    need(named(extension), gpu.host.has(extension))?;
    let ask = || {
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut all = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        let host = gpu.host;
        // SAFETY: the physical device has the extension.
        unsafe {
            host.instance
                .get_physical_device_memory_properties2(host.physical, &mut all);
        }
        let heaps = all.memory_properties.memory_heap_count as usize;
        (
            budget.heap_budget[..heaps].to_vec(),
            budget.heap_usage[..heaps].to_vec(),
        )
    };
    let (budgets, _) = ask();
    ensure(
        "every heap has a budget",
        budgets.iter().all(|&budget| budget > 0),
    )?;
    gpu.buffer(1 << 20)?;
    let (_, usage) = ask();
    ensure("4 MiB are in use", usage.iter().sum::<u64>() >= 4 << 20)?;
    Ok(format!("{} heaps", budgets.len()))
}

/// Uses more memory than a VM's window for host memory has room for. The heap's size shows the
/// window's, memory that does not fit fails, and freed room can be mapped again.
fn small_window(gpu: &Gpu<'_>) -> Outcome {
    const PIECE: u64 = 64 << 20;
    let (_, needs) = gpu.bare_buffer(PIECE, ANY_USE)?;
    let kind = gpu.memory_type(needs.memory_type_bits, COHERENT)?;
    let memory = &gpu.host.memory;
    let of_kind = memory.memory_types_as_slice().get(kind as usize);
    let heap = of_kind.and_then(|one| {
        let heaps = memory.memory_heaps_as_slice();
        heaps.get(one.heap_index as usize)
    });
    let size = heap.ok_or_else(|| fail("a type without a heap"))?.size;
    need("a window of 256 MiB", size <= 256 << 20)?;
    let info = vk::MemoryAllocateInfo::default()
        .allocation_size(512 << 20)
        .memory_type_index(kind);
    // SAFETY: the type is one of the device's.
    match unsafe { gpu.allocate_memory(&info, None) } {
        // Mesa does not wait for the answer, unless VN_PERF=no_async_mem_alloc is set.
        //
        // SAFETY: nobody uses the memory.
        Ok(memory) => unsafe { gpu.free_memory(memory, None) },
        Err(error) => equal(
            "the result beyond the heap",
            error,
            vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
        )?,
    }

    let info = info.allocation_size(PIECE);
    let flags = vk::MemoryMapFlags::empty();
    let (mut mapped, mut left) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        // SAFETY: as above.
        let memory = unsafe { gpu.allocate_memory(&info, None) }?;
        // SAFETY: the memory is of this device, and not mapped.
        match unsafe { gpu.map_memory(memory, 0, PIECE, flags) } {
            Ok(at) => mapped.push((memory, at.cast::<u32>())),
            Err(vk::Result::ERROR_MEMORY_MAP_FAILED | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY) => {
                left.push(memory);
            }
            Err(other) => return Err(other.into()),
        }
    }
    let count = mapped.len();
    ensure(
        "some are mapped and some are not",
        count > 1 && !left.is_empty(),
    )?;
    for (word, (_, at)) in (1..).zip(&mapped) {
        // SAFETY: the access is to the first and the last word of the mapping.
        unsafe {
            at.write_volatile(word);
            at.add(PIECE as usize / 4 - 1).write_volatile(word);
        }
    }
    for (word, (_, at)) in (1..).zip(&mapped) {
        // SAFETY: as above.
        let seen = unsafe { at.add(PIECE as usize / 4 - 1).read_volatile() };
        equal("the last word of a mapping", seen, word)?;
    }
    // Freed room can be mapped again, as soon as the kernel has it back.
    let last = left.last().copied().unwrap_or_default();
    for (memory, _) in mapped {
        // SAFETY: nobody uses the memory.
        unsafe { gpu.free_memory(memory, None) };
    }
    let until = Instant::now() + Duration::from_secs(20);
    let at = loop {
        // SAFETY: the memory is of this device, and not mapped.
        match unsafe { gpu.map_memory(last, 0, PIECE, flags) } {
            Ok(at) => break at.cast::<u32>(),
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    };
    // SAFETY: the access is to the first word of the mapping.
    equal("a fresh word", unsafe { at.read_volatile() }, 0)?;
    for memory in left {
        // SAFETY: nobody uses the memory.
        unsafe { gpu.free_memory(memory, None) };
    }
    Ok(format!("{count} of 6 mapped, a heap of {} MiB", size >> 20))
}

/// Makes allocations that no host has room for. Neither they nor what programs do next harm
/// anything else.
fn too_much(gpu: &Gpu<'_>) -> Outcome {
    for index in 0..gpu.host.memory.memory_type_count {
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(1 << 50)
            .memory_type_index(index);
        // SAFETY: the type is one of the device's.
        match unsafe { gpu.allocate_memory(&info, None) } {
            Err(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY | vk::Result::ERROR_OUT_OF_HOST_MEMORY) => {}
            Err(other) => return Err(other.into()),
            // Mesa's Venus does not wait for the answer, and lavapipe has room for all memory that
            // nobody touches.
            Ok(memory) => {
                let visible = vk::MemoryPropertyFlags::HOST_VISIBLE;
                let kinds = gpu.host.memory.memory_types_as_slice();
                let kind = kinds.get(index as usize);
                let flags = vk::MemoryMapFlags::empty();
                if kind.is_some_and(|kind| kind.property_flags.contains(visible)) {
                    // SAFETY: the memory is of this device, and not mapped.
                    let _ = unsafe { gpu.map_memory(memory, 0, 1 << 50, flags) };
                }
                // SAFETY: nobody uses the memory.
                unsafe { gpu.free_memory(memory, None) };
            }
        }
        let buffer = gpu.buffer(1024)?;
        // SAFETY: `run` records; the buffer is of this device.
        gpu.run(|commands| unsafe {
            gpu.cmd_fill_buffer(commands, buffer.handle, 0, vk::WHOLE_SIZE, 7);
            gpu.barrier(commands);
        })?;
        ensure(
            "another buffer is filled",
            buffer.read_all().iter().all(|&word| word == 7),
        )?;
    }
    Ok(String::new())
}

fn device_address(gpu: &Gpu<'_>) -> Outcome {
    need(
        "bufferDeviceAddress",
        gpu.features.v12.buffer_device_address != 0,
    )?;
    let address = || -> Result<u64, Stop> {
        let usage = ANY_USE | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        let (buffer, needs) = gpu.bare_buffer(4096, usage)?;
        let mut flags =
            vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(gpu.memory_type(needs.memory_type_bits, COHERENT)?)
            .push_next(&mut flags);
        // SAFETY: buffer and memory are of this device and fit each other.
        unsafe {
            let memory = gpu.own(gpu.allocate_memory(&info, None)?, ash::Device::free_memory);
            gpu.bind_buffer_memory(buffer, memory, 0)?;
            let info = vk::BufferDeviceAddressInfo::default().buffer(buffer);
            Ok(gpu.get_buffer_device_address(&info))
        }
    };
    let (first, second) = (address()?, address()?);
    ensure("addresses are not 0", first != 0 && second != 0)?;
    ensure("the buffers do not overlap", first.abs_diff(second) >= 4096)?;
    Ok(String::new())
}
