//! Mappings of this process run out before the driver's do: lavapipe makes one for each descriptor
//! set, and crashes when it gets none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;

use guest::{Guest, VenusGuest as _, renderer_with};
use hesper_venus::RendererOptions;
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};

/// Sets of one pool.
const SETS: u32 = 400;

/// A pool for [`SETS`] sets, and the layout of each: one buffer.
fn pool(guest: &Guest, device: u64) -> (u64, u64) {
    let (layout, pool) = (guest.id(), guest.id());
    let binding = vk::DescriptorSetLayoutBinding {
        descriptor_type: vk::DescriptorType::STORAGE_BUFFER,
        descriptor_count: 1,
        stage_flags: vk::ShaderStageFlags::COMPUTE,
        ..Default::default()
    };
    let mut info = vk::DescriptorSetLayoutCreateInfo {
        binding_count: 1,
        p_bindings: &raw const binding,
        ..Default::default()
    };
    let made = guest.call(command::CreateDescriptorSetLayout {
        device: Object::guest(device),
        p_create_info: &mut info,
        p_set_layout: &mut vk::DescriptorSetLayout(layout),
    });
    assert_eq!(made, 0);
    let size = vk::DescriptorPoolSize {
        ty: vk::DescriptorType::STORAGE_BUFFER,
        descriptor_count: SETS,
    };
    let mut info = vk::DescriptorPoolCreateInfo {
        max_sets: SETS,
        pool_size_count: 1,
        p_pool_sizes: &raw const size,
        ..Default::default()
    };
    let made = guest.call(command::CreateDescriptorPool {
        device: Object::guest(device),
        p_create_info: &mut info,
        p_descriptor_pool: &mut vk::DescriptorPool(pool),
    });
    assert_eq!(made, 0);
    (layout, pool)
}

/// Allocates all sets of a pool at once.
fn allocate(guest: &Guest, device: u64, layout: u64, pool: u64) -> vk::Result {
    let layouts = vec![vk::DescriptorSetLayout(layout); SETS as usize];
    let mut sets: Vec<_> = (0..SETS).map(|_| vk::DescriptorSet(guest.id())).collect();
    let mut info = vk::DescriptorSetAllocateInfo {
        descriptor_pool: vk::DescriptorPool(pool),
        descriptor_set_count: SETS,
        p_set_layouts: layouts.as_ptr(),
        ..Default::default()
    };
    let result = guest.call(command::AllocateDescriptorSets {
        device: Object::guest(device),
        p_allocate_info: &mut info,
        p_descriptor_sets: sets.as_mut_slice().into(),
    });
    vk::Result(result as i32)
}

#[test]
fn descriptor_sets_end_before_the_mappings_of_the_process() {
    let now = || {
        std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count()
    };
    // An eighth of them is kept back.
    let renderer = renderer_with(RendererOptions {
        mappings: Some((now() + 2000) * 8 / 7),
        ..Default::default()
    });
    let one = Guest::new(&renderer, "one");
    let other = Guest::new(&renderer, "other");
    let (gpu, second) = (one.gpu(), other.gpu());
    let before = now();
    let (layout, first_pool) = pool(&one, gpu.device);
    assert_eq!(
        allocate(&one, gpu.device, layout, first_pool),
        vk::Result::SUCCESS
    );
    // This process maps downwards, as is usual, so the kernel merges nothing.
    assert!(
        now() >= before + SETS as usize,
        "{before} mappings, then {}",
        now()
    );
    // All contexts share one process.
    let mut pools = Vec::new();
    let refused = loop {
        let (layout, pool) = pool(&other, second.device);
        pools.push((layout, pool));
        match allocate(&other, second.device, layout, pool) {
            vk::Result::SUCCESS => assert!(pools.len() < 10),
            result => break result,
        }
    };
    assert_eq!(refused, vk::Result::ERROR_OUT_OF_POOL_MEMORY);
    // What one pool returns, another can have.
    let reset = one.call(command::ResetDescriptorPool {
        device: Object::guest(gpu.device),
        descriptor_pool: Object::guest(first_pool),
        flags: Default::default(),
    });
    assert_eq!(reset, 0);
    let (layout, pool) = pools[pools.len() - 1];
    assert_eq!(
        allocate(&other, second.device, layout, pool),
        vk::Result::SUCCESS
    );
    assert_eq!(renderer.counters().lost, 0);
}
