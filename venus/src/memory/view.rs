//! [`MemoryView`]: a GPU's memory types and heaps as guests see them.
//!
//! Programs decide by these numbers where they put what, so the numbers must hold in a guest. Four things differ from the host:
//!
//! - **Visibility.** A type is `HOST_VISIBLE` only if shared memory can be imported as it: nothing else can be mapped.
//! - **Size.** A VM maps memory through a window of its address space. A heap with visible types is shown no larger than the
//!   window has room for. If a `DEVICE_LOCAL` heap has other types, too (an integrated GPU's), these are shown on a heap of
//!   their own that keeps the host's size: the window does not limit what nobody maps.
//! - **Small heaps that the CPU reaches natively**, such as the 256 MiB BAR of a discrete GPU. Once its type is not visible,
//!   it looks like general memory of the GPU, and its heap like a second, tiny GPU memory. It is shown as a second type of the
//!   large heap, its own heap is not shown, and no buffer or image names it as long as the large heap's type is possible. An
//!   allocation from it works as natively.
//! - **Memory for images**, on a GPU that cannot have images with optimal tiling in imported memory and has no other (KosmicKrisp:
//!   one type). Its type is shown twice: once as it is, and once more as one that cannot be mapped, so that it is not imported.
//!
//! Vulkan wants a type before every other that has the same flags and more. A type that lost flags may have to move for that, so
//! types have two numbers, and what goes to the driver or comes from it is translated: [`MemoryView::host_type`],
//! [`MemoryView::guest_bits`]. Where nothing is lost, types and their numbers are the host's.

use hesper_venus_protocol::vk;
use vk::MemoryPropertyFlags as Flags;

use super::image_test::Optimal;

/// `VK_MAX_MEMORY_TYPES`
const TYPES: usize = 32;
/// `VK_MAX_MEMORY_HEAPS`
pub(crate) const HEAPS: usize = 16;

/// Flags that mean that the host can map the memory.
const MAPPABLE: Flags =
    Flags(Flags::HOST_VISIBLE.0 | Flags::HOST_COHERENT.0 | Flags::HOST_CACHED.0);

/// What of the window is not for device memory: an eighth, at most 256 MiB. Each Vulkan program also maps rings, command
/// streams and replies, about 10 MiB with Mesa. So a desktop of 25 programs finds room beside the memory that they allocate,
/// and a tiny window is still mostly for memory.
fn reserve(window: u64) -> u64 {
    (window / 8).min(256 << 20)
}

/// A memory type of the guest's.
#[derive(Clone, Copy, Debug)]
struct Type {
    /// Its number on the host.
    host: u32,
    flags: Flags,
    /// Its heap: the host's number first, the guest's in the end.
    heap: u32,
    /// Types that do the same from a larger heap, as bits: the host's numbers first, the guest's in the end.
    replaced_by: u32,
}

impl Type {
    fn is_visible(&self) -> bool {
        self.flags.contains(Flags::HOST_VISIBLE)
    }
}

/// A heap of the guest's.
#[derive(Clone, Copy, Debug)]
struct Heap {
    /// Its number on the host.
    host: u32,
    size: u64,
    flags: vk::MemoryHeapFlags,
    /// Whether visible types are of it.
    is_visible: bool,
}

/// What a driver says of the budgets and the use of its heaps.
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
    /// How many bytes guests can map as device memory; `None` without a limit.
    limit: Option<u64>,
}

/// The bit of a memory type; none beyond the 32nd.
fn bit(index: u32) -> u32 {
    1_u32.checked_shl(index).unwrap_or(0)
}

impl MemoryView {
    /// The view of a GPU that has these types and heaps. Shared memory can be imported as the types whose bits are set in
    /// `importable`; all guests together map through a `window` of so many bytes, `None` where nothing limits them. Images with
    /// optimal tiling may lie where `optimal` says.
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

    /// The host's number of a guest's memory type; `None` if there is no such type.
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

    /// Whether an allocation of so many bytes of a visible type can succeed at all: heaps are no larger than what the guest can
    /// map. The sum of allocations is not limited, since not all memory of a visible type is mapped: with a single type, as
    /// lavapipe has it, most is not. A map that finds the window full fails by itself.
    pub(crate) fn is_mappable(&self, index: u32, size: u64) -> bool {
        let heap = self.heaps.get(self.heap(index));
        heap.is_some_and(|heap| size <= heap.size)
    }

    /// Memory types that the driver names, in the guest's numbers. Types that another of them replaces are left out.
    pub(crate) fn guest_bits(&self, host: u32) -> u32 {
        let mut bits = match self.is_in_place {
            true => host,
            false => translated(self.types.iter().map(|one| one.host), host),
        };
        if bits & self.replaceable != 0 {
            for (index, one) in (0..).zip(&self.types) {
                // What replaces others is never replaced itself.
                if bits & one.replaced_by != 0 {
                    bits &= !bit(index);
                }
            }
        }
        bits
    }

    /// The same without types that cannot be mapped, for what the guest shares.
    pub(crate) fn mappable_bits(&self, host: u32) -> u32 {
        self.guest_bits(host) & self.visible
    }

    /// The same without types that can be mapped, for what does not go into imported memory; where there are no others, all.
    pub(crate) fn unmapped_bits(&self, host: u32) -> u32 {
        let all = self.guest_bits(host);
        match all & !self.visible {
            0 => all,
            unmapped => unmapped,
        }
    }

    /// Budgets and use of the guest's heaps, for a program that has `used` so much of each. The driver counts everything that
    /// all guests have, so only what is left comes from it. Of the window, `shared` bytes are taken or will be.
    pub(crate) fn budgets(
        &self,
        host: &HeapBudgets,
        used: [u64; HEAPS],
        shared: u64,
    ) -> HeapBudgets {
        let mut told = HeapBudgets::default();
        let to = told.budget.iter_mut().zip(&mut told.usage);
        for ((heap, used), (budget, usage)) in self.heaps.iter().zip(used).zip(to) {
            let of_host = |values: &[u64; HEAPS]| values.get(heap.host as usize).copied();
            let most = of_host(&host.budget).unwrap_or(0);
            let mut left = most.saturating_sub(of_host(&host.usage).unwrap_or(0));
            if let Some(limit) = self.limit.filter(|_| heap.is_visible) {
                left = left.min(limit.saturating_sub(shared));
            }
            // Vulkan allows neither 0 nor more than the heap has.
            *budget = used.saturating_add(left).clamp(1, heap.size.max(1));
            *usage = used;
        }
        told
    }
}

/// The host's types with the flags that they have in the guest, each on the host's heap that it is shown on.
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

/// The type that is shown once more without being mapped, where images with optimal tiling would have no other.
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

/// The types in an order that Vulkan allows, and otherwise as they came.
fn in_order(mut types: Vec<Type>) -> Vec<Type> {
    let is_less = |one: Flags, other: Flags| one != other && other.contains(one);
    let mut ordered = Vec::with_capacity(types.len());
    while !types.is_empty() {
        let first = types
            .iter()
            .position(|one| !types.iter().any(|other| is_less(other.flags, one.flags)));
        // There is always one that has no less than itself.
        ordered.push(types.remove(first.unwrap_or(0)));
    }
    ordered
}

/// The guest's heaps, as far as types are of them; the types are told their numbers.
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
        // A heap for the CPU stays one: nobody looks for much there that neither the CPU can map nor the GPU is near to.
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
            // The large one first: programs take the first one of the GPU for its memory.
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

/// The bits of the `host`'s types as the guest's: `hosts` are the host's numbers in the guest's order.
fn translated(hosts: impl Iterator<Item = u32>, host: u32) -> u32 {
    (0..)
        .zip(hosts)
        .filter(|(_, one)| host & bit(*one) != 0)
        .fold(0, |bits, (index, _)| bits | bit(index))
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
