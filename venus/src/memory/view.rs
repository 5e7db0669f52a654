//! [`MemoryView`]: a GPU's memory types and heaps as guests see them.
//!
//! Programs decide by these numbers where to put what, so the numbers must be true in a guest. Four
//! things differ from the host:
//!
//! - **Visibility.** A type is `HOST_VISIBLE` only if shared memory can be imported as it. Nothing
//!   else can be mapped.
//! - **Size.** A VM maps memory through a window of its address space. A heap with visible types is
//!   shown no larger than the window allows. If a `DEVICE_LOCAL` heap has other types, too (on an
//!   integrated GPU), these are shown on a heap of their own that keeps the host's size: the window
//!   does not limit memory that nobody maps.
//! - **Small heaps that the CPU reaches natively**, such as the 256 MiB BAR of a discrete GPU. When
//!   its type is not visible, it would look like general memory of the GPU, and its heap like a
//!   second, tiny GPU memory. So it is shown as a second type of the large heap, and its own heap
//!   is not shown. No buffer or image names the type if the large heap's type is possible. An
//!   allocation from it works as it does natively.
//! - **Memory for images**, on a GPU that cannot have images with optimal tiling in imported memory
//!   and has no other memory (KosmicKrisp: one type). Its type is shown twice: as it is, and once
//!   more as one that cannot be mapped and so is not imported.
//!
//! Vulkan wants a type before every other that has the same flags and more. A type that lost flags
//! may have to move for that. So types have two numbers, and numbers to and from the driver are
//! translated: [`MemoryView::host_type`], [`MemoryView::guest_bits`]. If nothing is lost, types and
//! their numbers are the host's.

use hesper_venus_protocol::vk;
use vk::MemoryPropertyFlags as Flags;

use super::image_test::Optimal;

/// `VK_MAX_MEMORY_TYPES`
const TYPES: usize = 32;
/// `VK_MAX_MEMORY_HEAPS`
pub(crate) const HEAPS: usize = 16;

/// The flags of memory that the host can map.
const MAPPABLE: Flags =
    Flags(Flags::HOST_VISIBLE.0 | Flags::HOST_COHERENT.0 | Flags::HOST_CACHED.0);

/// The part of the window that is not for device memory: an eighth, at most 256 MiB. Each Vulkan
/// program also maps rings, command streams and replies, about 10 MiB with Mesa. So a desktop of 25
/// programs finds room beside its device memory, and a tiny window is still mostly for memory.
fn reserve(window: u64) -> u64 {
    (window / 8).min(256 << 20)
}

/// A memory type of the guest.
#[derive(Clone, Copy, Debug)]
struct Type {
    /// Its number on the host.
    host: u32,
    flags: Flags,
    /// Its heap: the host's number at first, the guest's in the end.
    heap: u32,
    /// Types that do the same from a larger heap, as bits: the host's numbers at first, the guest's
    /// in the end.
    replaced_by: u32,
}

impl Type {
    fn is_visible(&self) -> bool {
        self.flags.contains(Flags::HOST_VISIBLE)
    }
}

/// A heap of the guest.
#[derive(Clone, Copy, Debug)]
struct Heap {
    /// Its number on the host.
    host: u32,
    size: u64,
    flags: vk::MemoryHeapFlags,
    /// Whether it has visible types.
    is_visible: bool,
}

/// What a driver says about the budgets and usage of its heaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeapBudgets {
    /// `heapBudget`
    pub(crate) budget: [u64; HEAPS],
    /// `heapUsage`
    pub(crate) usage: [u64; HEAPS],
}

/// Memory types and heaps as guests see them.
#[derive(Debug)]
pub(crate) struct MemoryView {
    types: Vec<Type>,
    heaps: Vec<Heap>,
    /// Types that others replace, as bits.
    replaceable: u32,
    /// Types that can be mapped, as bits.
    visible: u32,
    /// Whether the types have the host's numbers.
    is_in_place: bool,
    /// How many bytes guests can map as device memory. `None` without a limit.
    limit: Option<u64>,
}

/// The bit of a memory type. 0 beyond the 32nd.
fn bit(index: u32) -> u32 {
    1_u32.checked_shl(index).unwrap_or(0)
}

impl MemoryView {
    /// The view of a GPU with these types and heaps. Shared memory can be imported as the types
    /// whose bits are set in `importable`. All guests together map through a `window` of this size
    /// in bytes; `None` when nothing limits them. `optimal` says where images with optimal tiling
    /// may lie.
    pub(crate) fn new(
        host: &vk::PhysicalDeviceMemoryProperties,
        importable: u32,
        optimal: &Optimal,
        window: Option<u64>,
    ) -> Self {
        let limit = window.map(|window| window - reserve(window));
        let mut types = shown(host, importable);
        if types.len() < TYPES {
            types.extend(for_images(&types, importable, optimal));
        }
        let mut types = in_order(types);
        let heaps = placed(host, &mut types, limit);
        let hosts: Vec<u32> = types.iter().map(|one| one.host).collect();
        for one in &mut types {
            one.replaced_by = translated(hosts.iter().copied(), one.replaced_by);
        }
        let replaceable = (0..)
            .zip(&types)
            .filter(|(_, one)| one.replaced_by != 0)
            .fold(0, |bits, (index, _)| bits | bit(index));
        let visible = (0..)
            .zip(&types)
            .filter(|(_, one)| one.is_visible())
            .fold(0, |bits, (index, _)| bits | bit(index));
        Self {
            visible,
            is_in_place: (0..).zip(&hosts).all(|(index, host)| index == *host),
            types,
            heaps,
            replaceable,
            limit,
        }
    }

    /// The same view for a guest that may have so many bytes of device memory in all. `None` when
    /// it may have what the GPU has.
    pub(crate) fn within(mut self, device_memory: Option<u64>) -> Self {
        let most = device_memory.unwrap_or(u64::MAX);
        for heap in &mut self.heaps {
            heap.size = heap.size.min(most);
        }
        self
    }

    /// What the guest is told.
    pub(crate) fn properties(&self) -> vk::PhysicalDeviceMemoryProperties {
        let mut told = vk::PhysicalDeviceMemoryProperties {
            memory_type_count: self.types.len() as u32,
            memory_heap_count: self.heaps.len() as u32,
            ..Default::default()
        };
        for (to, from) in told.memory_types.iter_mut().zip(&self.types) {
            to.property_flags = from.flags;
            to.heap_index = from.heap;
        }
        for (to, from) in told.memory_heaps.iter_mut().zip(&self.heaps) {
            to.size = from.size;
            to.flags = from.flags;
        }
        told
    }

    fn get(&self, index: u32) -> Option<&Type> {
        self.types.get(index as usize)
    }

    /// The host's number of a guest's memory type. `None` if there is no such type.
    pub(crate) fn host_type(&self, index: u32) -> Option<u32> {
        self.get(index).map(|one| one.host)
    }

    /// Whether the guest can map memory of a type.
    pub(crate) fn is_visible(&self, index: u32) -> bool {
        self.get(index).is_some_and(Type::is_visible)
    }

    /// The guest's number of a type's heap.
    pub(crate) fn heap(&self, index: u32) -> usize {
        self.get(index).map_or(0, |one| one.heap as usize)
    }

    /// Whether an allocation of `size` bytes of a visible type can succeed at all: heaps are no
    /// larger than what the guest can map. The sum of allocations is not limited, since not all
    /// memory of a visible type is mapped. With a single type, as on lavapipe, most is not. A map
    /// that finds the window full fails by itself.
    pub(crate) fn is_mappable(&self, index: u32, size: u64) -> bool {
        let heap = self.heaps.get(self.heap(index));
        heap.is_some_and(|heap| size <= heap.size)
    }

    /// The guest's bits of the driver's memory types. Types that another of them replaces are left
    /// out.
    pub(crate) fn guest_bits(&self, host: u32) -> u32 {
        let mut bits = match self.is_in_place {
            true => host,
            false => translated(self.types.iter().map(|one| one.host), host),
        };
        if bits & self.replaceable != 0 {
            for (index, one) in (0..).zip(&self.types) {
                // A type that replaces others is never replaced itself.
                if bits & one.replaced_by != 0 {
                    bits &= !bit(index);
                }
            }
        }
        bits
    }

    /// The same without types that cannot be mapped, for memory that the guest shares.
    pub(crate) fn mappable_bits(&self, host: u32) -> u32 {
        self.guest_bits(host) & self.visible
    }

    /// The same without types that can be mapped, for what must not lie in imported memory. All
    /// types if there are no others.
    pub(crate) fn unmapped_bits(&self, host: u32) -> u32 {
        let all = self.guest_bits(host);
        match all & !self.visible {
            0 => all,
            unmapped => unmapped,
        }
    }

    /// Budgets and usage of the guest's heaps, for a program that has `used` so many bytes of each.
    /// The driver counts what all guests have, so only what is left comes from it. `shared` bytes
    /// of the window are taken or will be. The program may allocate `free` more bytes at most.
    pub(crate) fn budgets(
        &self,
        host: &HeapBudgets,
        used: [u64; HEAPS],
        shared: u64,
        free: u64,
    ) -> HeapBudgets {
        let mut told = HeapBudgets::default();
        let to = told.budget.iter_mut().zip(&mut told.usage);
        for ((heap, used), (budget, usage)) in self.heaps.iter().zip(used).zip(to) {
            let of_host = |values: &[u64; HEAPS]| values.get(heap.host as usize).copied();
            let most = of_host(&host.budget).unwrap_or(0);
            let left = most.saturating_sub(of_host(&host.usage).unwrap_or(0));
            let mut left = left.min(free);
            if let Some(limit) = self.limit.filter(|_| heap.is_visible) {
                left = left.min(limit.saturating_sub(shared));
            }
            // Vulkan allows neither 0 nor more than the heap's size.
            *budget = used.saturating_add(left).clamp(1, heap.size.max(1));
            *usage = used;
        }
        told
    }
}

/// The host's types with the flags that they have in the guest, each with the host's heap that it
/// is shown on.
fn shown(host: &vk::PhysicalDeviceMemoryProperties, importable: u32) -> Vec<Type> {
    let count = (host.memory_type_count as usize).min(TYPES);
    let size = |heap: u32| {
        let heap = host.memory_heaps.get(heap as usize);
        heap.map_or(0, |heap| heap.size)
    };
    let plain: Vec<(Type, bool)> = (0..)
        .zip(host.memory_types.iter().take(count))
        .map(|(index, one)| {
            let can_be_mapped = importable & bit(index) != 0;
            let flags = match can_be_mapped {
                true => one.property_flags,
                false => one.property_flags & !MAPPABLE,
            };
            let shown = Type {
                host: index,
                flags,
                heap: one.heap_index,
                replaced_by: 0,
            };
            let is_lost = one.property_flags.contains(Flags::HOST_VISIBLE) && !can_be_mapped;
            (shown, is_lost)
        })
        .collect();
    let replaced = |(one, is_lost): &(Type, bool)| {
        let mut one = *one;
        if !is_lost || !one.flags.contains(Flags::DEVICE_LOCAL) {
            return one;
        }
        let (flags, own) = (one.flags, size(one.heap));
        let larger = plain
            .iter()
            .filter(|(other, is_lost)| !is_lost && other.flags == flags && size(other.heap) > own);
        for (other, _) in larger {
            if one.replaced_by == 0 {
                one.heap = other.heap;
            }
            one.replaced_by |= bit(other.host);
        }
        one
    };
    plain.iter().map(replaced).collect()
}

/// The type that is shown once more without being mappable, if images with optimal tiling would
/// have no other.
fn for_images(shown: &[Type], importable: u32, optimal: &Optimal) -> Option<Type> {
    let Optimal::Elsewhere { types, .. } = optimal else {
        return None;
    };
    if types & !importable != 0 {
        return None;
    }
    let mut possible = shown.iter().filter(|one| types & bit(one.host) != 0);
    let local = possible.find(|one| one.flags.contains(Flags::DEVICE_LOCAL))?;
    Some(Type {
        flags: local.flags & !MAPPABLE,
        ..*local
    })
}

/// The types in an order that Vulkan allows, otherwise as they came.
fn in_order(mut types: Vec<Type>) -> Vec<Type> {
    let is_less = |one: Flags, other: Flags| one != other && other.contains(one);
    let mut ordered = Vec::with_capacity(types.len());
    while !types.is_empty() {
        let first = types
            .iter()
            .position(|one| !types.iter().any(|other| is_less(other.flags, one.flags)));
        // There is always one that has no fewer flags than itself.
        ordered.push(types.remove(first.unwrap_or(0)));
    }
    ordered
}

/// The guest's heaps that have types. Sets the types' heap numbers.
fn placed(
    host: &vk::PhysicalDeviceMemoryProperties,
    types: &mut [Type],
    limit: Option<u64>,
) -> Vec<Heap> {
    let count = (host.memory_heap_count as usize).min(HEAPS);
    let mut left = count;
    let mut heaps: Vec<Heap> = Vec::with_capacity(HEAPS);
    let mut places = vec![0; types.len()];
    for (number, from) in (0..).zip(host.memory_heaps.iter().take(count)) {
        left -= 1;
        let of_this: Vec<(usize, bool)> = types
            .iter()
            .enumerate()
            .filter(|(_, one)| one.heap == number)
            .map(|(index, one)| (index, one.is_visible()))
            .collect();
        let has = |visible| of_this.iter().any(|(_, is)| *is == visible);
        let is_cut = has(true) && limit.is_some_and(|limit| limit < from.size);
        // A heap for the CPU stays whole: nobody looks there for much memory that the CPU cannot
        // map and the GPU is not near to.
        let is_split = is_cut
            && has(false)
            && from.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL)
            && heaps.len() + left + 2 <= HEAPS;
        let mut add = |is_visible: bool, size: u64, is_of_it: &dyn Fn(bool) -> bool| {
            for (index, visible) in &of_this {
                if let Some(place) = places.get_mut(*index).filter(|_| is_of_it(*visible)) {
                    *place = heaps.len() as u32;
                }
            }
            heaps.push(Heap {
                host: number,
                size,
                flags: from.flags,
                is_visible,
            });
        };
        let visible_size = limit.unwrap_or(u64::MAX).min(from.size);
        if is_split {
            // The large one first: programs take the GPU's first heap for its memory.
            add(false, from.size, &|visible| !visible);
            add(true, visible_size, &|visible| visible);
        } else if has(true) {
            add(true, visible_size, &|_| true);
        } else if has(false) {
            add(false, from.size, &|_| true);
        }
    }
    for (one, place) in types.iter_mut().zip(places) {
        one.heap = place;
    }
    heaps
}

/// The guest's bits of the `host`'s types. `hosts` are the host's numbers in the guest's order.
fn translated(hosts: impl Iterator<Item = u32>, host: u32) -> u32 {
    (0..)
        .zip(hosts)
        .filter(|(_, one)| host & bit(*one) != 0)
        .fold(0, |bits, (index, _)| bits | bit(index))
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
