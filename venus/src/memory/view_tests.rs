use super::*;

const LOCAL: u32 = Flags::DEVICE_LOCAL.0;
const VISIBLE: u32 = Flags::HOST_VISIBLE.0 | Flags::HOST_COHERENT.0;
const CACHED: u32 = VISIBLE | Flags::HOST_CACHED.0;
const LAZY: u32 = LOCAL | Flags::LAZILY_ALLOCATED.0;
/// `DEVICE_COHERENT_BIT_AMD` and `DEVICE_UNCACHED_BIT_AMD`.
const AMD: u32 = 0xc0;
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// What a window of 256 MiB leaves for memory.
const SMALL: u64 = 224 * MIB;

/// Heaps (size, whether it is the GPU's) and types (flags, heap).
fn host(heaps: &[(u64, bool)], types: &[(u32, u32)]) -> vk::PhysicalDeviceMemoryProperties {
    let mut all = vk::PhysicalDeviceMemoryProperties {
        memory_type_count: types.len() as u32,
        memory_heap_count: heaps.len() as u32,
        ..Default::default()
    };
    for (to, (size, is_local)) in all.memory_heaps.iter_mut().zip(heaps) {
        to.size = *size;
        to.flags = vk::MemoryHeapFlags((*is_local).into());
    }
    for (to, (flags, heap)) in all.memory_types.iter_mut().zip(types) {
        to.property_flags = Flags(*flags);
        to.heap_index = *heap;
    }
    all
}

/// Sizes of the heaps, and flags and heap of the types.
fn seen(view: &MemoryView) -> (Vec<u64>, Vec<(u32, u32)>) {
    let told = view.properties();
    let heaps = told.memory_heaps[..told.memory_heap_count as usize].iter();
    let types = told.memory_types[..told.memory_type_count as usize].iter();
    (
        heaps.map(|heap| heap.size).collect(),
        types
            .map(|one| (one.property_flags.0, one.heap_index))
            .collect(),
    )
}

#[test]
fn memory_that_cannot_be_imported_cannot_be_mapped() {
    let host = host(&[(GIB, true)], &[(LOCAL | VISIBLE, 0), (LOCAL | CACHED, 0)]);
    let view = MemoryView::new(&host, 0b10, &Optimal::Anywhere, None);
    assert_eq!(
        seen(&view),
        (vec![GIB], vec![(LOCAL, 0), (LOCAL | CACHED, 0)])
    );
    assert!(!view.is_visible(0) && view.is_visible(1) && !view.is_visible(2));
    assert_eq!((view.host_type(1), view.host_type(2)), (Some(1), None));
}

#[test]
fn a_host_that_loses_nothing_is_seen_as_it_is() {
    let types = [(LOCAL, 0), (VISIBLE, 1), (CACHED, 1)];
    let host = host(&[(8 * GIB, true), (GIB, false)], &types);
    for window in [None, Some(8 * GIB)] {
        let view = MemoryView::new(&host, 0b110, &Optimal::Anywhere, window);
        assert_eq!(seen(&view), (vec![8 * GIB, GIB], types.to_vec()));
        assert_eq!(view.guest_bits(0b101), 0b101);
    }
}

#[test]
fn a_heap_that_is_mapped_is_no_larger_than_the_window() {
    let host = host(&[(24 * GIB, true)], &[(LOCAL | CACHED, 0)]);
    for (window, size) in [
        (256 * MIB, SMALL),
        (MIB, 896 << 10),
        (8 * GIB, 8 * GIB - 256 * MIB),
        (1 << 46, 24 * GIB),
    ] {
        let view = MemoryView::new(&host, 1, &Optimal::Anywhere, Some(window));
        assert_eq!(seen(&view).0, [size], "{window}");
        assert!(view.is_mappable(0, size) && !view.is_mappable(0, size + 1));
    }
}

#[test]
fn types_that_nobody_maps_keep_the_size_of_a_shared_heap() {
    let types = [(LOCAL, 0), (LOCAL | CACHED, 0), (LAZY, 0)];
    let host = host(&[(24 * GIB, true)], &types);
    let view = MemoryView::new(&host, 0b010, &Optimal::Anywhere, Some(256 * MIB));
    let expected = vec![(LOCAL, 0), (LOCAL | CACHED, 1), (LAZY, 0)];
    assert_eq!(seen(&view), (vec![24 * GIB, SMALL], expected));
    // A window that is large enough changes nothing.
    let view = MemoryView::new(&host, 0b010, &Optimal::Anywhere, Some(64 * GIB));
    assert_eq!(seen(&view), (vec![24 * GIB], types.to_vec()));
}

#[test]
fn a_heap_of_the_cpus_stays_one() {
    let types = [(0, 1), (LOCAL, 0), (VISIBLE, 1), (CACHED, 1)];
    let host = host(&[(24 * GIB, true), (64 * GIB, false)], &types);
    let view = MemoryView::new(&host, 0b1100, &Optimal::Anywhere, Some(256 * MIB));
    assert_eq!(seen(&view), (vec![24 * GIB, SMALL], types.to_vec()));
}

#[test]
fn a_small_heap_that_cannot_be_imported_is_a_part_of_the_large_one() {
    // RADV without a resizable BAR: VRAM, GTT, BAR.
    let heaps = [(8 * GIB, true), (16 * GIB, false), (256 * MIB, true)];
    let types = [
        (LOCAL, 0),
        (VISIBLE, 1),
        (LOCAL | VISIBLE, 2),
        (CACHED, 1),
        (LOCAL | AMD, 0),
        (VISIBLE | AMD, 1),
        (LOCAL | VISIBLE | AMD, 2),
        (CACHED | AMD, 1),
    ];
    let view = MemoryView::new(&host(&heaps, &types), 0b1000, &Optimal::Anywhere, None);
    let expected = [
        (0, 1),           // 1
        (LOCAL, 0),       // 0
        (LOCAL, 0),       // 2, of the BAR
        (CACHED, 1),      // 3
        (AMD, 1),         // 5
        (LOCAL | AMD, 0), // 4
        (LOCAL | AMD, 0), // 6, of the BAR
        (AMD, 1),         // 7
    ];
    let (heaps, types) = seen(&view);
    assert_eq!(heaps, [8 * GIB, 16 * GIB]);
    assert_eq!(types.len(), expected.len());
    // Vulkan's order, whatever the types are.
    for (at, (one, _)) in types.iter().enumerate() {
        for (later, _) in &types[at..] {
            assert!(one == later || one & later != *later, "{types:x?}");
        }
    }
    for (index, flags) in (0..).zip(&types) {
        let host = view.host_type(index).unwrap();
        let at = [1, 0, 2, 3, 5, 4, 6, 7].iter().position(|one| *one == host);
        assert_eq!(*flags, expected[at.unwrap()], "{host}");
    }
    // The BAR's types are named only if nothing else is possible.
    let guest = |host: u32| {
        (0..8)
            .find(|one| view.host_type(*one) == Some(host))
            .unwrap()
    };
    let bits = |hosts: &[u32]| hosts.iter().fold(0, |bits, host| bits | 1 << guest(*host));
    assert_eq!(view.guest_bits(0xff), bits(&[0, 1, 3, 4, 5, 7]));
    assert_eq!(view.guest_bits(0b1111), bits(&[0, 1, 3]));
    assert_eq!(view.guest_bits(0b0110), bits(&[1, 2]));
    assert_eq!(view.guest_bits(0b0100_0000), bits(&[6]));
}

#[test]
fn a_resizable_bar_is_two_types_of_one_heap() {
    let types = [(LOCAL, 0), (LOCAL | VISIBLE, 0), (CACHED, 1)];
    let host = host(&[(24 * GIB, true), (64 * GIB, false)], &types);
    let view = MemoryView::new(&host, 0b100, &Optimal::Anywhere, Some(8 * GIB));
    let expected = vec![(LOCAL, 0), (LOCAL, 0), (CACHED, 1)];
    let heaps = vec![24 * GIB, 8 * GIB - 256 * MIB];
    assert_eq!(seen(&view), (heaps, expected));
    assert_eq!(view.guest_bits(0b111), 0b111);
}

#[test]
fn a_gpu_with_visible_memory_alone_keeps_it_though_it_cannot_be_mapped() {
    let types = [(LOCAL | VISIBLE, 0), (CACHED, 1)];
    let host = host(&[(256 * MIB, true), (64 * GIB, false)], &types);
    let view = MemoryView::new(&host, 0b10, &Optimal::Anywhere, None);
    assert_eq!(
        seen(&view),
        (vec![256 * MIB, 64 * GIB], vec![(LOCAL, 0), (CACHED, 1)])
    );
}

#[test]
fn more_heaps_than_vulkan_has_are_not_made() {
    let heaps = [(GIB, true); HEAPS];
    let types: Vec<_> = (0..16)
        .flat_map(|heap| [(LOCAL, heap), (LOCAL | CACHED, heap)])
        .collect();
    let view = MemoryView::new(
        &host(&heaps, &types),
        0xaaaa_aaaa,
        &Optimal::Anywhere,
        Some(256 * MIB),
    );
    let told = view.properties();
    assert_eq!((told.memory_heap_count, told.memory_type_count), (16, 32));
    // A driver with wrong numbers does not cause a panic.
    let mut broken = host(&[(GIB, true)], &[(LOCAL | CACHED, 9)]);
    broken.memory_type_count = 40;
    broken.memory_heap_count = 20;
    let view = MemoryView::new(&broken, u32::MAX, &Optimal::Anywhere, Some(0));
    assert!(!view.is_mappable(31, 1) && view.host_type(32).is_none());
    view.budgets(&HeapBudgets::default(), [0; HEAPS], 0, u64::MAX);
}

#[test]
fn budgets_follow_the_heaps_that_the_guest_sees() {
    let types = [(LOCAL, 0), (LOCAL | CACHED, 0)];
    let host = host(&[(24 * GIB, true)], &types);
    let view = MemoryView::new(&host, 0b10, &Optimal::Anywhere, Some(256 * MIB));
    let mut of_host = HeapBudgets::default();
    of_host.budget[0] = 20 * GIB;
    of_host.usage[0] = 5 * GIB;
    let mut used = [0; HEAPS];
    used[0] = GIB;
    used[1] = 100 * MIB;
    // Another program has mapped memory, too.
    let told = view.budgets(&of_host, used, 160 * MIB, u64::MAX);
    assert_eq!(told.budget[..3], [16 * GIB, 164 * MIB, 0]);
    assert_eq!(told.usage[..3], [GIB, 100 * MIB, 0]);
    // Never 0, never more than the heap.
    of_host.budget[0] = 100 * GIB;
    let told = view.budgets(&of_host, [0; HEAPS], 0, u64::MAX);
    assert_eq!(told.budget[..2], [24 * GIB, SMALL]);
    let told = view.budgets(&HeapBudgets::default(), [0; HEAPS], GIB, u64::MAX);
    assert_eq!(told.budget[..3], [1, 1, 0]);
}

#[test]
fn a_limit_on_the_guests_memory_shows_as_the_size_and_budget_of_its_heaps() {
    let types = [(LOCAL, 0), (CACHED, 1), (LOCAL | CACHED, 2)];
    let host = host(
        &[(24 * GIB, true), (64 * GIB, false), (256 * MIB, true)],
        &types,
    );
    let view = MemoryView::new(&host, 0b110, &Optimal::Anywhere, None).within(Some(2 * GIB));
    let told = view.properties();
    let sizes: Vec<u64> = told.memory_heaps.iter().map(|heap| heap.size).collect();
    assert_eq!(sizes[..3], [2 * GIB, 2 * GIB, 256 * MIB]);
    let mut of_host = HeapBudgets::default();
    of_host.budget[..3].copy_from_slice(&[24 * GIB, 64 * GIB, 256 * MIB]);
    let mut used = [0; HEAPS];
    used[0] = GIB;
    // The program has a part of the first heap, and may allocate half a GiB more, wherever.
    let told = view.budgets(&of_host, used, 0, GIB / 2);
    assert_eq!(told.budget[..3], [GIB + GIB / 2, GIB / 2, 256 * MIB]);
}

/// Images with optimal tiling can be bound to `types` and must not lie in imported memory.
fn elsewhere(types: u32) -> Optimal {
    Optimal::Elsewhere {
        reason: String::new(),
        types,
    }
}

#[test]
fn images_that_cannot_lie_in_imported_memory_get_the_only_type_once_more() {
    let host = host(&[(16 * GIB, true)], &[(LOCAL | CACHED, 0)]);
    let view = MemoryView::new(&host, 1, &elsewhere(1), Some(8 * GIB));
    let seen = seen(&view);
    // The heap of memory that nobody maps keeps its size.
    assert_eq!(seen.0, [16 * GIB, 8 * GIB - 256 * MIB]);
    assert_eq!(seen.1, [(LOCAL, 0), (LOCAL | CACHED, 1)]);
    assert!(!view.is_visible(0) && view.is_visible(1));
    assert_eq!((view.host_type(0), view.host_type(1)), (Some(0), Some(0)));
    assert_eq!(view.guest_bits(1), 0b11, "buffers may lie in both");
    assert_eq!(view.unmapped_bits(1), 0b01);
    assert_eq!(view.mappable_bits(1), 0b10);
}

#[test]
fn images_that_cannot_lie_in_imported_memory_have_the_types_that_are_not_imported() {
    let types = [(LOCAL, 0), (LOCAL | CACHED, 0), (LAZY, 0)];
    let host = host(&[(16 * GIB, true)], &types);
    let view = MemoryView::new(&host, 0b010, &elsewhere(0b011), None);
    // Nothing is added, and numbers are the host's except for the order that Vulkan wants.
    assert_eq!(seen(&view).1.len(), 3);
    let private = (0..3)
        .find(|index| view.host_type(*index) == Some(0))
        .unwrap();
    let shared = (0..3)
        .find(|index| view.host_type(*index) == Some(1))
        .unwrap();
    assert_eq!(view.unmapped_bits(0b011), 1 << private);
    assert_eq!(view.mappable_bits(0b011), 1 << shared);
    assert_eq!(view.unmapped_bits(0b010), 1 << shared, "there is no other");
}
