//! The memory of many kinds of GPUs, played by the null driver, and programs that choose from it in
//! the usual ways. What they choose can be allocated, bound and mapped, and the sizes that they are
//! told are true.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;
mod played;

use guest::{Gpu, Guest, RING, VenusGuest as _, renderer_with};
use hesper_null_driver::card::Card;
use hesper_venus::RendererOptions;
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use played::Played;
use played::choice::{
    LOCAL, Memory, NONE, STAGING, by_wishes, cheapest, first, heap_of, heaps, is_local,
    of_the_smallest_heap, types,
};
use vk::MemoryPropertyFlags as Flags;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SUCCESS: vk::Result = vk::Result::SUCCESS;
const FULL: vk::Result = vk::Result::ERROR_OUT_OF_DEVICE_MEMORY;

/// A guest on a card.
struct Seat {
    guest: Guest,
    gpu: Gpu,
    memory: Memory,
    renderer: guest::settled::Settled,
    _driver: Played,
}

impl Seat {
    fn new(card: &Card, window: Option<u64>) -> Self {
        let driver = Played::card(card);
        let renderer = renderer_with(RendererOptions {
            driver: driver.driver(),
            window,
            ..Default::default()
        });
        let guest = Guest::new(&renderer, "card");
        let gpu = guest.gpu();
        let mut memory = Memory::default();
        guest.call(command::GetPhysicalDeviceMemoryProperties {
            physical_device: Object::guest(gpu.physical),
            p_memory_properties: &mut memory,
        });
        Self {
            guest,
            gpu,
            memory,
            renderer,
            _driver: driver,
        }
    }

    fn allocate(&self, index: u32, size: u64) -> Result<u64, vk::Result> {
        let memory = self.guest.id();
        let mut info = vk::MemoryAllocateInfo {
            allocation_size: size,
            memory_type_index: index,
            ..Default::default()
        };
        let result = self.guest.call(command::AllocateMemory {
            device: Object::guest(self.gpu.device),
            p_allocate_info: &mut info,
            p_memory: &mut vk::DeviceMemory(memory),
        });
        match vk::Result(result as i32) {
            SUCCESS => Ok(memory),
            error => Err(error),
        }
    }

    /// Allocates as Mesa does, without waiting for the result.
    fn allocate_unheard(&self, index: u32, size: u64) -> u64 {
        let memory = self.guest.id();
        let mut info = vk::MemoryAllocateInfo {
            allocation_size: size,
            memory_type_index: index,
            ..Default::default()
        };
        self.guest.send(&command::AllocateMemory {
            device: Object::guest(self.gpu.device),
            p_allocate_info: &mut info,
            p_memory: &mut vk::DeviceMemory(memory),
        });
        memory
    }

    fn free(&self, memory: u64) {
        self.guest.send(&command::FreeMemory {
            device: Object::guest(self.gpu.device),
            memory: Object::guest(memory),
        });
    }

    fn create_buffer(&self, size: u64) -> (u64, vk::MemoryRequirements) {
        let buffer = self.guest.id();
        let mut info = vk::BufferCreateInfo {
            size,
            usage: vk::BufferUsageFlags::TRANSFER_DST,
            ..Default::default()
        };
        let device = Object::guest(self.gpu.device);
        self.guest.call(command::CreateBuffer {
            device,
            p_create_info: &mut info,
            p_buffer: &mut vk::Buffer(buffer),
        });
        let mut one = vk::MemoryRequirements::default();
        self.guest.call(command::GetBufferMemoryRequirements {
            device,
            buffer: Object::guest(buffer),
            p_memory_requirements: &mut one,
        });
        let mut two = vk::MemoryRequirements2::default();
        self.guest.call(command::GetBufferMemoryRequirements2 {
            device,
            p_info: &mut vk::BufferMemoryRequirementsInfo2 {
                buffer: vk::Buffer(buffer),
                ..Default::default()
            },
            p_memory_requirements: &mut two,
        });
        let mut three = vk::MemoryRequirements2::default();
        self.guest.call(command::GetDeviceBufferMemoryRequirements {
            device,
            p_info: &mut vk::DeviceBufferMemoryRequirements {
                p_create_info: &raw const info,
                ..Default::default()
            },
            p_memory_requirements: &mut three,
        });
        let bits = one.memory_type_bits;
        assert_eq!(two.memory_requirements.memory_type_bits, bits);
        assert_eq!(three.memory_requirements.memory_type_bits, bits);
        (buffer, one)
    }

    fn bind_buffer(&self, buffer: u64, memory: u64) {
        let result = self.guest.call(command::BindBufferMemory {
            device: Object::guest(self.gpu.device),
            buffer: Object::guest(buffer),
            memory: Object::guest(memory),
            memory_offset: 0,
        });
        assert_eq!(result, 0);
    }

    fn create_image(&self, edge: u32) -> (u64, vk::MemoryRequirements) {
        let image = self.guest.id();
        let mut info = vk::ImageCreateInfo {
            image_type: vk::ImageType(1),
            format: vk::Format(37),
            extent: vk::Extent3D {
                width: edge,
                height: edge,
                depth: 1,
            },
            mip_levels: 1,
            array_layers: 1,
            samples: vk::SampleCountFlags(1),
            usage: vk::ImageUsageFlags::TRANSFER_DST,
            ..Default::default()
        };
        let device = Object::guest(self.gpu.device);
        self.guest.call(command::CreateImage {
            device,
            p_create_info: &mut info,
            p_image: &mut vk::Image(image),
        });
        let mut one = vk::MemoryRequirements::default();
        self.guest.call(command::GetImageMemoryRequirements {
            device,
            image: Object::guest(image),
            p_memory_requirements: &mut one,
        });
        let mut two = vk::MemoryRequirements2::default();
        self.guest.call(command::GetImageMemoryRequirements2 {
            device,
            p_info: &mut vk::ImageMemoryRequirementsInfo2 {
                image: vk::Image(image),
                ..Default::default()
            },
            p_memory_requirements: &mut two,
        });
        let mut three = vk::MemoryRequirements2::default();
        self.guest.call(command::GetDeviceImageMemoryRequirements {
            device,
            p_info: &mut vk::DeviceImageMemoryRequirements {
                p_create_info: &raw const info,
                ..Default::default()
            },
            p_memory_requirements: &mut three,
        });
        let bits = one.memory_type_bits;
        assert_eq!(two.memory_requirements.memory_type_bits, bits);
        assert_eq!(three.memory_requirements.memory_type_bits, bits);
        (image, one)
    }

    fn bind_image(&self, image: u64, memory: u64) {
        let result = self.guest.call(command::BindImageMemory {
            device: Object::guest(self.gpu.device),
            image: Object::guest(image),
            memory: Object::guest(memory),
            memory_offset: 0,
        });
        assert_eq!(result, 0);
    }

    /// A mapped buffer that the GPU fills, read through the mapping.
    fn stage(&self, index: u32, size: u64) {
        let (buffer, needs) = self.create_buffer(size);
        assert_ne!(needs.memory_type_bits >> index & 1, 0);
        let memory = self.allocate(index, size).unwrap();
        self.bind_buffer(buffer, memory);
        let (_, blob) = self.guest.blob(memory, size).unwrap();
        let (commands, _) = self.guest.fill(&self.gpu, buffer, 0x1234_5678);
        self.guest.submit(&self.gpu, &[commands]);
        self.guest.wait_fence(RING);
        let mut seen = vec![0; size as usize];
        blob.memory.read(0, &mut seen).unwrap();
        let expected = 0x1234_5678_u32.to_le_bytes();
        assert!(seen.chunks(4).all(|word| word == expected));
        self.free(memory);
    }

    /// Budgets and usage of the heaps.
    fn budgets(&self) -> (Vec<u64>, Vec<u64>) {
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceMemoryProperties2 {
            p_next: (&raw mut budget).cast(),
            ..Default::default()
        };
        self.guest
            .call(command::GetPhysicalDeviceMemoryProperties2 {
                physical_device: Object::guest(self.gpu.physical),
                p_memory_properties: &mut properties,
            });
        let told = &properties.memory_properties;
        let sizes = |all: &Memory| heaps(all).iter().map(|heap| heap.size).collect::<Vec<_>>();
        assert_eq!(sizes(told), sizes(&self.memory));
        let count = heaps(told).len();
        assert_eq!(budget.heap_budget[count..], [0; 16][count..]);
        assert_eq!(budget.heap_usage[count..], [0; 16][count..]);
        (
            budget.heap_budget[..count].to_vec(),
            budget.heap_usage[..count].to_vec(),
        )
    }
}

fn cards() -> [(&'static str, Card); 6] {
    [
        ("AMD, BAR of 256 MiB", Card::amd_small_bar()),
        ("AMD, resizable BAR", Card::amd_resizable_bar()),
        ("Intel UMA", Card::intel_uma()),
        ("NVIDIA", Card::nvidia()),
        ("MoltenVK", Card::moltenvk()),
        ("one type", Card::one_type()),
    ]
}

/// What a program demands of any GPU.
fn serves(name: &str, window: Option<u64>, seat: &Seat) {
    let memory = &seat.memory;
    let case = format!("{name}, window {window:?}");
    // Vulkan's own promises.
    for (index, one) in types(memory) {
        assert!((one.heap_index as usize) < heaps(memory).len(), "{case}");
        for (_, later) in types(memory).skip(index as usize) {
            let (has, other) = (one.property_flags, later.property_flags);
            assert!(
                has == other || !has.contains(other),
                "{case}: {has:?} before {other:?}"
            );
        }
    }
    let (buffer, needs) = seat.create_buffer(4 * MIB);
    let (image, image_needs) = seat.create_image(1024);
    let bits = needs.memory_type_bits;
    let picture = image_needs.memory_type_bits;
    assert!(first(memory, bits, LOCAL, 0).is_some(), "{case}");
    assert!(first(memory, bits, STAGING, 0).is_some(), "{case}");
    assert!(first(memory, picture, LOCAL, 0).is_some(), "{case}");

    // Each in its own way: device memory for a buffer and for an image, and mapped memory.
    let size = needs.size;
    let ways = [
        (
            "first",
            first(memory, bits, LOCAL, size),
            first(memory, picture, LOCAL, image_needs.size),
            first(memory, bits, STAGING, size),
        ),
        (
            "cheapest",
            cheapest(memory, bits, NONE, LOCAL, NONE),
            cheapest(memory, picture, NONE, LOCAL, NONE),
            cheapest(memory, bits, STAGING, NONE, LOCAL),
        ),
        (
            "by wishes",
            by_wishes(memory, bits, LOCAL, NONE, Flags::HOST_VISIBLE),
            by_wishes(memory, picture, LOCAL, NONE, Flags::HOST_VISIBLE),
            by_wishes(memory, bits, STAGING, Flags::HOST_CACHED, LOCAL),
        ),
        (
            "smallest heap",
            of_the_smallest_heap(memory, bits),
            of_the_smallest_heap(memory, picture),
            first(memory, bits, STAGING, size),
        ),
    ];
    for (way, of_buffer, of_image, staging) in ways {
        let case = format!("{case}, {way}");
        let (of_buffer, of_image) = (of_buffer.expect(&case), of_image.expect(&case));
        let own = seat.allocate(of_buffer, size).expect(&case);
        let own_image = seat.allocate(of_image, image_needs.size).expect(&case);
        if way == "first" {
            seat.bind_buffer(buffer, own);
            seat.bind_image(image, own_image);
        }
        seat.stage(staging.expect(&case), 64 << 10);
        // A program that takes blocks of an eighth of the heap, and four fifths in all.
        let heap = heap_of(memory, of_buffer);
        let flags = memory.memory_types[of_buffer as usize].property_flags;
        // A window of 256 MiB leaves 224 for memory. Memory that is not mapped is the GPU's main
        // memory.
        let least = if flags.contains(STAGING) {
            224 * MIB
        } else {
            7 * GIB
        };
        assert!(heap >= least, "{case}: a heap of {heap} bytes");
        let blocks: Vec<_> = (0..6)
            .map(|_| seat.allocate(of_buffer, heap / 8).expect(&case))
            .collect();
        for block in blocks.into_iter().chain([own_image]) {
            seat.free(block);
        }
        if way != "first" {
            seat.free(own);
        }
    }
    // More than a heap has is refused for every type, and nothing is lost by it.
    for (index, _) in types(memory) {
        let most = heap_of(memory, index).max(64 * GIB);
        assert_eq!(
            seat.allocate(index, most + 4096),
            Err(FULL),
            "{case}, type {index}"
        );
        assert_eq!(
            seat.allocate(index, 1 << 62),
            Err(FULL),
            "{case}, type {index}"
        );
    }
    for (index, _) in types(memory).filter(|(_, one)| one.property_flags.contains(STAGING)) {
        let beyond = heap_of(memory, index) + 1;
        assert_eq!(
            seat.allocate(index, beyond),
            Err(FULL),
            "{case}, type {index}"
        );
    }
    assert_eq!(seat.renderer.counters().lost, 0, "{case}");
}

#[test]
fn programs_find_memory_on_every_card() {
    for (name, card) in cards() {
        for window in [None, Some(256 * MIB), Some(8 * GIB)] {
            serves(name, window, &Seat::new(&card, window));
        }
    }
}

#[test]
fn a_program_that_takes_the_first_heap_for_the_gpus_memory_is_right() {
    let limit = |window: u64| window - (window / 8).min(256 * MIB);
    for (name, card) in cards() {
        for window in [256 * MIB, 8 * GIB] {
            let seat = Seat::new(&card, Some(window));
            let memory = &seat.memory;
            let first = heaps(memory)
                .iter()
                .find(|heap| is_local(heap))
                .unwrap()
                .size;
            let expected = match name {
                "AMD, BAR of 256 MiB" => 8 * GIB - 256 * MIB,
                "one type" => GIB.min(limit(window)),
                _ => 24 * GIB,
            };
            assert_eq!(first, expected, "{name}");
            // The GPU has no other heap except its mappable memory.
            let others = heaps(memory).iter().filter(|heap| is_local(heap)).skip(1);
            for other in others {
                assert!(matches!(name, "Intel UMA" | "MoltenVK"), "{name}");
                assert_eq!(other.size, limit(window), "{name}");
            }
            for (index, one) in types(memory) {
                let is_visible = one.property_flags.contains(STAGING);
                assert!(
                    !is_visible || heap_of(memory, index) <= limit(window),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn a_small_bar_is_no_memory_of_its_own_but_can_be_allocated() {
    for (card, bar) in [(Card::amd_small_bar(), 2), (Card::nvidia(), 4)] {
        let seat = Seat::new(&card, Some(8 * GIB));
        let (_, buffer) = seat.create_buffer(4096);
        let (_, image) = seat.create_image(64);
        for bits in [buffer.memory_type_bits, image.memory_type_bits] {
            let named: Vec<_> = types(&seat.memory)
                .filter(|(index, one)| {
                    bits >> index & 1 != 0
                        && (one.property_flags & !LOCAL).is_empty()
                        && one.property_flags.contains(LOCAL)
                })
                .collect();
            assert_eq!(named.len(), 1, "the GPU's memory is named once");
        }
        // A program that takes it nevertheless gets it, as long as it lasts: 246 or 256 MiB.
        let blocks: Vec<_> = (0..4).map(|_| seat.allocate(bar, 64 * MIB)).collect();
        let made = blocks.iter().filter(|block| block.is_ok()).count();
        assert!((3..=4).contains(&made), "{blocks:?}");
        assert_eq!(seat.allocate(bar, 64 * MIB), Err(FULL));
        for block in blocks.into_iter().flatten() {
            seat.free(block);
        }
        assert!(seat.allocate(bar, 64 * MIB).is_ok());
    }
}

#[test]
fn budgets_are_those_of_the_heaps_that_are_shown() {
    let seat = Seat::new(&Card::intel_uma(), Some(256 * MIB));
    let limit = 224 * MIB;
    let (budget, usage) = seat.budgets();
    assert_eq!(usage, [0, 0]);
    assert_eq!(budget[0], 24 * GIB);
    // Replies take a part of the window.
    assert!((limit - 2 * MIB..limit).contains(&budget[1]), "{budget:?}");

    let own = seat.allocate(0, GIB).unwrap();
    let visible = seat.allocate(1, 100 * MIB).unwrap();
    let other = Guest::new(&seat.renderer, "other");
    let gpu = other.gpu();
    other.buffer(&gpu, 64 * MIB);
    let (budget, usage) = seat.budgets();
    assert_eq!(usage, [GIB, 100 * MIB]);
    assert_eq!(budget[0], 24 * GIB);
    let left = limit - 64 * MIB;
    assert!((left - 4 * MIB..left).contains(&budget[1]), "{budget:?}");

    seat.free(own);
    seat.free(visible);
    drop(other);
    let (_, usage) = seat.budgets();
    assert_eq!(usage, [0, 0]);
}

#[test]
fn memory_that_is_not_there_can_be_freed_and_not_mapped_and_only_using_it_is_fatal() {
    let seat = Seat::new(&Card::nvidia(), None);
    let device = Object::guest(seat.gpu.device);
    // The GPU's own memory, and more than a context may have.
    for (index, size) in [(1, 100 * GIB), (3, 100 * GIB), (3, u64::MAX)] {
        let memory = seat.allocate_unheard(index, size);
        assert!(seat.guest.blob(memory, 4096).is_err(), "{index}");
        let (buffer, _) = seat.create_buffer(4096);
        let result = seat.guest.call(command::BindBufferMemory {
            device,
            buffer: Object::guest(buffer),
            memory: Object::guest(memory),
            memory_offset: 0,
        });
        assert_eq!(vk::Result(result as i32), FULL);
        let mut info = [vk::BindBufferMemoryInfo {
            buffer: vk::Buffer(buffer),
            memory: vk::DeviceMemory(memory),
            ..Default::default()
        }];
        let result = seat.guest.call(command::BindBufferMemory2 {
            device,
            bind_info_count: 1,
            p_bind_infos: info.as_mut_slice().into(),
        });
        assert_eq!(vk::Result(result as i32), FULL);
        seat.free(memory);
        assert_eq!(seat.budgets().1, [0, 0]);
    }
    assert_eq!(seat.renderer.counters().lost, 0);
    // Other memory is bound as usual, and what is left is freed with the device.
    seat.allocate_unheard(1, 100 * GIB);
    seat.stage(3, 64 << 10);

    let memory = seat.allocate_unheard(1, 100 * GIB);
    let (image, _) = seat.create_image(64);
    let reason = seat.guest.dies_of(guest::bytes(&command::BindImageMemory {
        device,
        image: Object::guest(image),
        memory: Object::guest(memory),
        memory_offset: 0,
    }));
    let bytes = (100 * GIB).to_string();
    assert!(
        reason.contains(&bytes) && reason.contains("no_async_mem_alloc"),
        "{reason}"
    );
}

#[test]
fn memory_too_large_for_the_window_works_for_a_guest_that_does_not_wait_for_the_answer() {
    let seat = Seat::new(&Card::one_type(), Some(256 * MIB));
    assert_eq!(seat.allocate(0, 300 * MIB), Err(FULL));
    let memory = seat.allocate_unheard(0, 300 * MIB);
    let (image, _) = seat.create_image(1024);
    seat.bind_image(image, memory);
    seat.free(memory);
    assert_eq!(seat.renderer.counters().lost, 0);
}

#[test]
fn sparse_memory_that_is_not_there_is_not_bound() {
    let seat = Seat::new(&Card::nvidia(), None);
    let memory = seat.allocate_unheard(1, 100 * GIB);
    let (buffer, _) = seat.create_buffer(4096);
    let bind = vk::SparseMemoryBind {
        size: 4096,
        memory: vk::DeviceMemory(memory),
        ..Default::default()
    };
    let of_buffer = vk::SparseBufferMemoryBindInfo {
        buffer: vk::Buffer(buffer),
        bind_count: 1,
        p_binds: &raw const bind,
    };
    let mut info = [vk::BindSparseInfo {
        buffer_bind_count: 1,
        p_buffer_binds: &raw const of_buffer,
        ..Default::default()
    }];
    let result = seat.guest.call(command::QueueBindSparse {
        queue: Object::guest(seat.gpu.queue),
        bind_info_count: 1,
        p_bind_info: info.as_mut_slice().into(),
        fence: Object::guest(0),
    });
    assert_eq!(vk::Result(result as i32), FULL);
}

#[test]
fn what_is_left_of_a_device_counts_no_more() {
    let seat = Seat::new(&Card::nvidia(), None);
    let device = seat.guest.device(seat.gpu.physical);
    let mut info = vk::MemoryAllocateInfo {
        allocation_size: GIB,
        memory_type_index: 1,
        ..Default::default()
    };
    seat.guest.call(command::AllocateMemory {
        device: Object::guest(device),
        p_allocate_info: &mut info,
        p_memory: &mut vk::DeviceMemory(seat.guest.id()),
    });
    assert_eq!(seat.budgets().1, [GIB, 0]);
    seat.guest.call(command::DestroyDevice {
        device: Object::guest(device),
    });
    assert_eq!(seat.budgets().1, [0, 0]);
}
