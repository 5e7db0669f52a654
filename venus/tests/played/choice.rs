//! How programs choose memory, as their documentation says.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::indexing_slicing,
    reason = "each user takes its part, and a test ends with a panic"
)]

use hesper_venus_protocol::vk;
use vk::MemoryPropertyFlags as Flags;

pub const LOCAL: Flags = Flags::DEVICE_LOCAL;
/// The flags of memory that is mapped and written.
pub const STAGING: Flags = Flags(Flags::HOST_VISIBLE.0 | Flags::HOST_COHERENT.0);
pub const NONE: Flags = Flags(0);

/// All that a program knows about a GPU's memory.
pub type Memory = vk::PhysicalDeviceMemoryProperties;

pub fn types(memory: &Memory) -> impl Iterator<Item = (u32, &vk::MemoryType)> {
    (0..memory.memory_type_count).zip(&memory.memory_types)
}

pub fn heaps(memory: &Memory) -> &[vk::MemoryHeap] {
    &memory.memory_heaps[..memory.memory_heap_count as usize]
}

pub fn heap_of(memory: &Memory, index: u32) -> u64 {
    let heap = memory.memory_types[index as usize].heap_index;
    heaps(memory)[heap as usize].size
}

pub fn is_local(heap: &vk::MemoryHeap) -> bool {
    heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL)
}

/// The first of the types in `bits` that has the flags. Vulkan's specification shows this way. ggml
/// uses it if the heap is large enough.
pub fn first(memory: &Memory, bits: u32, flags: Flags, size: u64) -> Option<u32> {
    types(memory)
        .find(|(index, one)| {
            bits >> index & 1 != 0
                && one.property_flags.contains(flags)
                && heap_of(memory, *index) >= size
        })
        .map(|(index, _)| index)
}

/// The way of the Vulkan Memory Allocator: the type that has all required flags and costs the
/// least. Each missing preferred flag costs one, and each unwanted flag that is present.
pub fn cheapest(
    memory: &Memory,
    bits: u32,
    required: Flags,
    preferred: Flags,
    not: Flags,
) -> Option<u32> {
    types(memory)
        .filter(|(index, one)| bits >> index & 1 != 0 && one.property_flags.contains(required))
        .min_by_key(|(_, one)| {
            let has = one.property_flags.0;
            (preferred.0 & !has).count_ones() + (not.0 & has).count_ones()
        })
        .map(|(index, _)| index)
}

/// The way of ncnn: all preferred flags and nothing unwanted; else without the one wish, else
/// without the other.
pub fn by_wishes(
    memory: &Memory,
    bits: u32,
    required: Flags,
    preferred: Flags,
    not: Flags,
) -> Option<u32> {
    let both = required | preferred;
    [(both, not), (both, NONE), (required, not), (required, NONE)]
        .into_iter()
        .find_map(|(wanted, unwanted)| {
            types(memory).find(|(index, one)| {
                let has = one.property_flags;
                bits >> index & 1 != 0 && has.contains(wanted) && (has & unwanted).is_empty()
            })
        })
        .map(|(index, _)| index)
}

/// A type of the smallest heap of the GPU.
pub fn of_the_smallest_heap(memory: &Memory, bits: u32) -> Option<u32> {
    types(memory)
        .filter(|(index, one)| bits >> index & 1 != 0 && one.property_flags.contains(LOCAL))
        .min_by_key(|(index, _)| heap_of(memory, *index))
        .map(|(index, _)| index)
}
