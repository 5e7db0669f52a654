//! The card that the driver plays: its memory, and as which types host memory can be imported.
//!
//! Every copy of the shared library plays its own card. It has a single memory type unless [`PLAY`]
//! chooses another card. Sizes are enforced: no more is allocated than a heap has.

use std::ffi::CStr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ash::vk::{self, MemoryPropertyFlags as Flags};

use crate::memory::walk;

/// Name of the function, `extern "system" fn(*const Card)`, that chooses the card. It is called
/// before anything else of the library.
pub const PLAY: &CStr = c"hesperNullDriverPlay";

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

const LOCAL: Flags = Flags::DEVICE_LOCAL;
const VISIBLE: Flags =
    Flags::from_raw(Flags::HOST_VISIBLE.as_raw() | Flags::HOST_COHERENT.as_raw());
const CACHED: Flags = Flags::from_raw(VISIBLE.as_raw() | Flags::HOST_CACHED.as_raw());
const LOCAL_VISIBLE: Flags = Flags::from_raw(LOCAL.as_raw() | VISIBLE.as_raw());
const LOCAL_CACHED: Flags = Flags::from_raw(LOCAL.as_raw() | CACHED.as_raw());
/// `DEVICE_COHERENT_BIT_AMD` and `DEVICE_UNCACHED_BIT_AMD`.
const UNCACHED: u32 = Flags::DEVICE_COHERENT_AMD.as_raw() | Flags::DEVICE_UNCACHED_AMD.as_raw();

/// A card's memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// Types and heaps.
    pub memory: vk::PhysicalDeviceMemoryProperties,
    /// Types, as bits, that host memory can be imported as.
    pub importable: u32,
    /// Types, as bits, that buffers can be in.
    pub buffers: u32,
    /// Types, as bits, that images can be in.
    pub images: u32,
}

impl Card {
    /// A card with these heaps (size, whether it is the GPU's own memory) and types (flags, heap).
    /// Buffers and images can be in all types except lazily allocated ones.
    #[must_use]
    pub fn new(heaps: &[(u64, bool)], types: &[(Flags, u32)], importable: u32) -> Self {
        let mut memory = vk::PhysicalDeviceMemoryProperties {
            memory_type_count: types.len() as u32,
            memory_heap_count: heaps.len() as u32,
            ..Default::default()
        };
        for (to, (size, is_local)) in memory.memory_heaps.iter_mut().zip(heaps) {
            to.size = *size;
            if *is_local {
                to.flags = vk::MemoryHeapFlags::DEVICE_LOCAL;
            }
        }
        for (to, (flags, heap)) in memory.memory_types.iter_mut().zip(types) {
            to.property_flags = *flags;
            to.heap_index = *heap;
        }
        let usual = (types.iter().enumerate())
            .filter(|(_, (flags, _))| !flags.contains(Flags::LAZILY_ALLOCATED))
            .fold(0, |bits, (index, _)| bits | 1 << index);
        Self {
            memory,
            importable,
            buffers: usual,
            images: usual,
        }
    }

    /// One type for everything, of 1 GiB, as on lavapipe.
    #[must_use]
    pub fn one_type() -> Self {
        Self::new(&[(GIB, true)], &[(LOCAL_VISIBLE, 0)], 1)
    }

    /// AMD's without a resizable BAR, as RADV shows it: the CPU reaches 256 MiB of 8 GiB, and host
    /// memory is imported as the cached type of the GTT only.
    #[must_use]
    pub fn amd_small_bar() -> Self {
        let heaps = [
            (8 * GIB - 256 * MIB, true),
            (16 * GIB, false),
            (256 * MIB, true),
        ];
        let mut types = vec![(LOCAL, 0), (VISIBLE, 1), (LOCAL_VISIBLE, 2), (CACHED, 1)];
        let plain = types.clone();
        let uncached = |(flags, heap): (Flags, u32)| (flags | Flags::from_raw(UNCACHED), heap);
        types.extend(plain.into_iter().map(uncached));
        Self::new(&heaps, &types, 0b1000)
    }

    /// AMD's with a BAR for all of its memory.
    #[must_use]
    pub fn amd_resizable_bar() -> Self {
        let heaps = [(24 * GIB, true), (16 * GIB, false)];
        let types = [(LOCAL, 0), (VISIBLE, 1), (LOCAL_VISIBLE, 0), (CACHED, 1)];
        Self::new(&heaps, &types, 0b1000)
    }

    /// Intel's integrated GPU, as ANV shows newer ones: one heap, and host memory is imported as
    /// any type.
    #[must_use]
    pub fn intel_uma() -> Self {
        let types = [(LOCAL, 0), (LOCAL_VISIBLE, 0), (LOCAL_CACHED, 0)];
        Self::new(&[(24 * GIB, true)], &types, 0b111)
    }

    /// NVIDIA's with its five types: host memory is imported as the types of system memory that the
    /// CPU sees.
    #[must_use]
    pub fn nvidia() -> Self {
        let heaps = [(24 * GIB, true), (64 * GIB, false), (246 * MIB, true)];
        let types = [
            (Flags::empty(), 1),
            (LOCAL, 0),
            (VISIBLE, 1),
            (CACHED, 1),
            (LOCAL_VISIBLE, 2),
        ];
        let mut card = Self::new(&heaps, &types, 0b1100);
        // Images are not in memory that the CPU caches.
        card.images = 0b1_0011;
        card
    }

    /// MoltenVK's on Apple silicon: private, shared and memoryless.
    #[must_use]
    pub fn moltenvk() -> Self {
        let lazy = LOCAL | Flags::LAZILY_ALLOCATED;
        let types = [(LOCAL, 0), (LOCAL_CACHED, 0), (lazy, 0)];
        Self::new(&[(24 * GIB, true)], &types, 0b010)
    }

    /// The heap of a memory type, `None` if there is no such type.
    pub(crate) fn heap(&self, index: u32) -> Option<(usize, vk::MemoryHeap)> {
        let types = self.memory.memory_types_as_slice();
        let heap = types.get(index as usize)?.heap_index as usize;
        let heaps = self.memory.memory_heaps_as_slice();
        heaps.get(heap).map(|found| (heap, *found))
    }
}

/// The card, and how many bytes of each heap are allocated.
pub(crate) struct Table {
    pub(crate) card: Card,
    used: [u64; vk::MAX_MEMORY_HEAPS],
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(|| {
    Mutex::new(Table {
        card: Card::one_type(),
        used: [0; vk::MAX_MEMORY_HEAPS],
    })
});

/// What is played.
pub(crate) fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    /// Takes `bytes` of a type's heap, unless less is left.
    pub(crate) fn take(&mut self, index: u32, bytes: u64) -> Option<()> {
        let (heap, all) = self.card.heap(index)?;
        let used = self.used.get_mut(heap)?;
        *used = used.checked_add(bytes).filter(|sum| *sum <= all.size)?;
        Some(())
    }

    /// Gives them back.
    pub(crate) fn give_back(&mut self, index: u32, bytes: u64) {
        if let Some((heap, _)) = self.card.heap(index)
            && let Some(used) = self.used.get_mut(heap)
        {
            *used -= bytes;
        }
    }
}

/// # Safety
/// The card is one of this version of the crate.
pub(crate) unsafe extern "system" fn play(card: *const Card) {
    // SAFETY: the caller's promise.
    table().card = unsafe { *card };
}

/// `vkGetPhysicalDeviceMemoryProperties`
pub(crate) fn memory_properties() -> vk::PhysicalDeviceMemoryProperties {
    table().card.memory
}

/// Answers what the chain of `vkGetPhysicalDeviceMemoryProperties2` asks.
///
/// # Safety
/// As [`walk`].
pub(crate) unsafe fn answer_chain(chain: *const std::ffi::c_void) {
    let Table { card, used } = &*table();
    // SAFETY: the caller's promise; structs are known by their types.
    unsafe {
        walk(chain, |link| {
            if (*link).s_type != vk::StructureType::PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT {
                return;
            }
            let budget = link
                .cast_mut()
                .cast::<vk::PhysicalDeviceMemoryBudgetPropertiesEXT<'_>>();
            (*budget).heap_usage = *used;
            let heaps = card.memory.memory_heaps_as_slice();
            for (to, heap) in (*budget).heap_budget.iter_mut().zip(heaps) {
                *to = heap.size;
            }
        });
    }
}
