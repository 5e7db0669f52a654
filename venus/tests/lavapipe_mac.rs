//! The renderer on a driver that behaves like MoltenVK on a Mac (`hesper_mac_driver`), loaded
//! without Vulkan's loader.
#![allow(
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;
mod null;

use guest::settled::Settled;
use guest::{
    Event, Gpu, Guest, RING, Ring, RingOptions, VenusGuest as _, bytes, renderer_with, until,
};
use hesper_mock_venus::with_wait;
use hesper_venus::host::Vulkan;
use hesper_venus::{Driver, RendererOptions};
use hesper_venus_protocol::runtime::{Array, Object};
use hesper_venus_protocol::{command, vk};

const SIZE: u64 = 1 << 20;
const SUCCESS: u64 = 0;

fn renderer() -> Settled {
    renderer_with(RendererOptions {
        driver: Driver::Library(null::built("hesper_mac_driver_moltenvk")),
        ..Default::default()
    })
}

/// How many submissions wait for room in the driver.
fn waiting() -> u64 {
    let path = null::built("hesper_mac_driver_moltenvk");
    // SAFETY: the driver is loaded already, and its function has this type.
    unsafe {
        let library = libloading::Library::new(path).unwrap();
        let name = hesper_mac_driver::WAITING.to_bytes_with_nul();
        let waiting = library.get::<extern "system" fn() -> u64>(name).unwrap();
        waiting()
    }
}

/// A Mac's driver does not forgive these. Otherwise the tests here would prove nothing.
#[test]
fn the_driver_is_as_strict_as_one_on_a_mac() {
    use ash::vk;
    let driver = Driver::Library(null::built("hesper_mac_driver_moltenvk"));
    let vulkan = Vulkan::open(&driver).unwrap();
    // SAFETY: every struct lives through its call, and what is made is destroyed at the end.
    unsafe {
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        let instance = vulkan.entry().create_instance(&info, None).unwrap();
        let gpu = instance.enumerate_physical_devices().unwrap()[0];
        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        let device = |names: &[*const std::ffi::c_char], features: vk::PhysicalDeviceFeatures| {
            let info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_features(&features)
                .enabled_extension_names(names);
            instance.create_device(gpu, &info, None)
        };
        let host = ash::ext::external_memory_host::NAME.as_ptr();
        let both = [host, ash::khr::portability_subset::NAME.as_ptr()];
        let without = device(&[host], Default::default()).map(|_| ());
        assert_eq!(without, Err(vk::Result::ERROR_INITIALIZATION_FAILED));
        let geometry = vk::PhysicalDeviceFeatures::default().geometry_shader(true);
        let refused = device(&both, geometry).map(|_| ());
        assert_eq!(refused, Err(vk::Result::ERROR_FEATURE_NOT_PRESENT));
        let device = device(&both, Default::default()).unwrap();

        let made = device.create_event(&vk::EventCreateInfo::default(), None);
        assert_eq!(made, Err(vk::Result::ERROR_FEATURE_NOT_PRESENT));
        let allocate = |kind| {
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(SIZE)
                .memory_type_index(kind);
            device.allocate_memory(&info, None).unwrap()
        };
        for (kind, is_mapped) in [(0, false), (1, true), (2, false)] {
            let memory = allocate(kind);
            let mapped = device.map_memory(memory, 0, SIZE, Default::default());
            assert_eq!(mapped.is_ok(), is_mapped, "type {kind}");
            device.free_memory(memory, None);
        }
        let alignment = hesper_mac_driver::ALIGNMENT;
        let pages = vec![0_u8; 4 * alignment as usize];
        let start = pages.as_ptr().cast_mut();
        let start = start.byte_add(start.align_offset(alignment as usize));
        let import = |kind, start: *mut u8, size| {
            let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
                .handle_type(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT)
                .host_pointer(start.cast());
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(size)
                .memory_type_index(kind)
                .push_next(&mut import);
            let memory = device.allocate_memory(&info, None);
            memory.map(|memory| device.free_memory(memory, None))
        };
        let refused = Err(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE);
        assert_eq!(import(1, start, alignment), Ok(()));
        assert_eq!(import(0, start, alignment), refused, "private memory");
        assert_eq!(
            import(1, start.byte_add(4096), alignment),
            refused,
            "a small page"
        );
        assert_eq!(import(1, start, 4096), refused, "a small size");
        device.destroy_device(None);
        instance.destroy_instance(None);
    }
}

#[test]
fn the_first_library_that_has_a_gpu_is_taken_with_and_without_vk_get_instance_proc_addr() {
    let (whole, loaders) = (
        null::built("hesper_mac_driver_moltenvk"),
        null::built("hesper_mac_driver_kosmickrisp"),
    );
    for wanted in [whole, loaders] {
        let libraries = vec![
            "/no/such/loader.so".into(),
            // A library that is no Vulkan's.
            "libm.so.6".into(),
            wanted.clone(),
            "/no/such/driver.so".into(),
        ];
        let vulkan = Vulkan::open(&Driver::FirstOf(libraries)).unwrap();
        assert_eq!(*vulkan.driver(), Driver::Library(wanted));
        let gpus = hesper_venus::host::gpus(vulkan.driver()).unwrap();
        assert!(gpus[0].name.starts_with("Apple"), "{gpus:?}");
    }
}

/// Memory types as the guest sees them.
fn types(guest: &Guest, gpu: &Gpu) -> Vec<vk::MemoryPropertyFlags> {
    let mut properties = vk::PhysicalDeviceMemoryProperties::default();
    guest.call(command::GetPhysicalDeviceMemoryProperties {
        physical_device: Object::guest(gpu.physical),
        p_memory_properties: &mut properties,
    });
    let types = properties.memory_types.iter();
    types
        .take(properties.memory_type_count as usize)
        .map(|one| one.property_flags)
        .collect()
}

/// Types, as bits, that have `flags`.
fn having(types: &[vk::MemoryPropertyFlags], flags: vk::MemoryPropertyFlags) -> u32 {
    (0..)
        .zip(types)
        .filter(|(_, one)| one.contains(flags))
        .fold(0, |bits, (index, _): (u32, _)| bits | 1 << index)
}

#[test]
fn guests_map_shared_memory_and_see_private_memory_that_they_cannot_map() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "memory");
    let gpu = guest.gpu();
    let types = types(&guest, &gpu);
    assert_eq!(types.len(), 3);
    let visible = having(&types, vk::MemoryPropertyFlags::HOST_VISIBLE);
    assert_eq!(visible.count_ones(), 1, "{types:?}");
    let (buffer, memory) = guest.buffer(&gpu, SIZE);
    let (_, blob) = guest.blob(memory, SIZE).unwrap();
    let (commands, _) = guest.fill(&gpu, buffer, 0x4d61_6363);
    guest.submit(&gpu, &[commands]);
    guest.wait_fence(RING);
    let mut seen = vec![0; SIZE as usize];
    blob.memory.read(0, &mut seen).unwrap();
    let expected = 0x4d61_6363_u32.to_le_bytes();
    assert!(seen.chunks(4).all(|word| word == expected));
    // Private memory is allocated, and has no pages that a guest could map.
    let (private, mut info) = (
        guest.id(),
        vk::MemoryAllocateInfo {
            allocation_size: SIZE,
            memory_type_index: (!visible).trailing_zeros(),
            ..Default::default()
        },
    );
    let result = guest.call(command::AllocateMemory {
        device: Object::guest(gpu.device),
        p_allocate_info: &mut info,
        p_memory: &mut vk::DeviceMemory(private),
    });
    assert_eq!(result, SUCCESS);
    assert!(guest.blob(private, SIZE).is_err());
    assert_eq!(renderer.counters().lost, 0);
}

/// Memory types, as bits, that an image can be bound to.
fn types_of_image(guest: &Guest, gpu: &Gpu, info: &mut vk::ImageCreateInfo) -> u32 {
    let image = guest.id();
    let result = guest.call(command::CreateImage {
        device: Object::guest(gpu.device),
        p_create_info: info,
        p_image: &mut vk::Image(image),
    });
    assert_eq!(result, SUCCESS);
    let mut needs = vk::MemoryRequirements::default();
    guest.call(command::GetImageMemoryRequirements {
        device: Object::guest(gpu.device),
        image: Object::guest(image),
        p_memory_requirements: &mut needs,
    });
    let before = vk::DeviceImageMemoryRequirements {
        p_create_info: &raw const *info,
        ..Default::default()
    };
    let mut same = vk::MemoryRequirements2::default();
    guest.call(command::GetDeviceImageMemoryRequirements {
        device: Object::guest(gpu.device),
        p_info: &mut { before },
        p_memory_requirements: &mut same,
    });
    let same = same.memory_requirements.memory_type_bits;
    assert_eq!(
        same, needs.memory_type_bits,
        "before the image is made, too"
    );
    guest.call(command::DestroyImage {
        device: Object::guest(gpu.device),
        image: Object::guest(image),
    });
    needs.memory_type_bits
}

#[test]
fn images_with_optimal_tiling_are_kept_out_of_memory_that_is_imported() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "images");
    let gpu = guest.gpu();
    let types = types(&guest, &gpu);
    let visible = having(&types, vk::MemoryPropertyFlags::HOST_VISIBLE);
    let colour = vk::ImageCreateInfo {
        image_type: vk::ImageType(ash::vk::ImageType::TYPE_2D.as_raw()),
        format: vk::Format(ash::vk::Format::R8G8B8A8_UNORM.as_raw()),
        extent: vk::Extent3D {
            width: 64,
            height: 64,
            depth: 1,
        },
        mip_levels: 1,
        array_layers: 1,
        samples: vk::SampleCountFlags(1),
        usage: vk::ImageUsageFlags(ash::vk::ImageUsageFlags::TRANSFER_DST.as_raw()),
        tiling: vk::ImageTiling::OPTIMAL,
        ..Default::default()
    };
    let depth = vk::ImageCreateInfo {
        format: vk::Format(ash::vk::Format::D32_SFLOAT.as_raw()),
        usage: vk::ImageUsageFlags(ash::vk::ImageUsageFlags::DEPTH_STENCIL_ATTACHMENT.as_raw()),
        ..colour
    };
    let linear = vk::ImageCreateInfo {
        tiling: vk::ImageTiling::LINEAR,
        ..colour
    };
    // The host reads and writes it, so the driver has no other memory for it.
    let host = vk::ImageCreateInfo {
        usage: vk::ImageUsageFlags(ash::vk::ImageUsageFlags::HOST_TRANSFER_EXT.as_raw()),
        ..colour
    };
    for (mut info, expects_visible) in [
        (colour, false),
        (depth, false),
        (linear, true),
        (host, true),
    ] {
        let found = types_of_image(&guest, &gpu, &mut info);
        assert_ne!(found, 0);
        let expected = if expects_visible { found } else { 0 };
        assert_eq!(found & visible, expected, "{:?} of {types:?}", info.tiling);
    }
    assert_eq!(renderer.counters().lost, 0);
}

#[test]
fn guests_see_the_hosts_queues_and_no_portability_subset_whose_features_they_have() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "queues");
    let gpu = guest.gpu();
    let mut count = 8;
    let mut families = vec![vk::QueueFamilyProperties::default(); count as usize];
    guest.call(command::GetPhysicalDeviceQueueFamilyProperties {
        physical_device: Object::guest(gpu.physical),
        p_queue_family_property_count: &mut count,
        p_queue_family_properties: families.as_mut_slice().into(),
    });
    let counts: Vec<u32> = families.iter().map(|family| family.queue_count).collect();
    assert_eq!((count, &counts[..4]), (4, &[1; 4][..]));
    let every: Vec<_> = (0..4).map(|family| (family, 1)).collect();
    assert_eq!(guest.try_queues(gpu.physical, &every), vk::Result::SUCCESS);
    let refused = guest.try_queues(gpu.physical, &[(0, 2)]);
    assert_eq!(refused, vk::Result::ERROR_INITIALIZATION_FAILED);

    let mut count = 0;
    guest.call(command::EnumerateDeviceExtensionProperties {
        physical_device: Object::guest(gpu.physical),
        p_layer_name: hesper_venus_protocol::runtime::Text::NULL,
        p_property_count: &mut count,
        p_properties: Array::NULL,
    });
    let mut listed = vec![vk::ExtensionProperties::default(); count as usize];
    guest.call(command::EnumerateDeviceExtensionProperties {
        physical_device: Object::guest(gpu.physical),
        p_layer_name: hesper_venus_protocol::runtime::Text::NULL,
        p_property_count: &mut count,
        p_properties: listed.as_mut_slice().into(),
    });
    let is_subset = |one: &vk::ExtensionProperties| {
        one.extension_name.starts_with(b"VK_KHR_portability_subset")
    };
    assert!(!listed.iter().any(is_subset));
    // The driver makes events only if the subset's feature is enabled.
    let result = guest.call(command::CreateEvent {
        device: Object::guest(gpu.device),
        p_create_info: &mut vk::EventCreateInfo::default(),
        p_event: &mut vk::Event(guest.id()),
    });
    assert_eq!(result, SUCCESS);
    // What is missing of the subset is told, as far as guests can be told.
    let mut properties = vk::PhysicalDeviceProperties::default();
    guest.call(command::GetPhysicalDeviceProperties {
        physical_device: Object::guest(gpu.physical),
        p_properties: &mut properties,
    });
    assert_eq!(properties.limits.max_sampler_lod_bias, 0.0);
    assert_eq!(renderer.counters().lost, 0);
}

/// A queue of a family, bound to a ring index.
fn queue(guest: &Guest, device: u64, family: u32, ring: u32) -> u64 {
    let queue = guest.id();
    let timeline = vk::DeviceQueueTimelineInfoMESA {
        ring_idx: ring,
        ..Default::default()
    };
    let mut info = vk::DeviceQueueInfo2 {
        p_next: (&raw const timeline).cast(),
        queue_family_index: family,
        ..Default::default()
    };
    guest.call(command::GetDeviceQueue2 {
        device: Object::guest(device),
        p_queue_info: &mut info,
        p_queue: &mut vk::Queue(queue),
    });
    queue
}

#[test]
fn a_submission_that_waits_for_room_in_the_driver_delays_no_other_queue_and_no_other_context() {
    const OTHER: u8 = 2;
    let renderer = renderer();
    let guest = Guest::new(&renderer, "full");
    let first = guest.gpu();
    let device = guest.id();
    let made = guest.create_with_queues(first.physical, device, &[(0, 1), (1, 1)]);
    assert_eq!(made, vk::Result::SUCCESS);
    let gpu = Gpu {
        device,
        queue: queue(&guest, device, 0, 10),
        ..first
    };
    let other = Gpu {
        device: first.device,
        queue: first.queue,
        ..gpu
    };
    let second = queue(&guest, device, 1, u32::from(OTHER));
    let semaphore = guest.timeline(&gpu);
    // 64 submissions fit. None of them ends before the semaphore is signalled.
    let stream = with_wait(semaphore, 1, |submit| {
        bytes(&command::QueueSubmit {
            queue: Object::guest(gpu.queue),
            submit_count: 1,
            p_submits: std::slice::from_mut(submit).into(),
            fence: Object::guest(0),
        })
    });
    let options = RingOptions {
        buffer: 1 << 16,
        ..Default::default()
    };
    let mut ring = Ring::with(&guest, guest.id(), options);
    for _ in 0..64 {
        ring.write(&stream);
    }
    until("64 submissions are taken", || ring.is_done());
    assert_eq!(waiting(), 0);
    // A fence behind all of them, which the context's thread asks for by an empty submission.
    guest.context.fence(10, 499);
    until("it waits for room", || waiting() == 1);
    guest.wait_fence(0);
    // One more submission, and a fence behind that.
    ring.write(&stream);
    guest.context.fence(10, 500);
    // That thread continues, and other queues and contexts do, too.
    guest.blob(0, 4096).unwrap();
    guest.wait_fence(0);
    guest.submit(&other, &[]);
    guest.wait_fence(RING);
    guest.context.fence(OTHER, 501);
    let neighbour = Guest::new(&renderer, "neighbour");
    let gpu_of_neighbour = neighbour.gpu();
    neighbour.submit(&gpu_of_neighbour, &[]);
    neighbour.wait_fence(RING);
    assert!(waiting() == 1 && !ring.is_done());
    // The host signals, and all ends in order.
    let mut info = vk::SemaphoreSignalInfo {
        semaphore: vk::Semaphore(semaphore),
        value: 1,
        ..Default::default()
    };
    guest.send(&command::SignalSemaphore {
        device: Object::guest(device),
        p_signal_info: &mut info,
    });
    let mut retired: Vec<u64> = (0..3)
        .map(|_| match guest.event() {
            Event::Fence(_, fence) => fence,
            other => panic!("{other:?} instead of a fence"),
        })
        .collect();
    let of_queue = |fence: &u64| *fence != 501;
    let in_order: Vec<u64> = retired.iter().copied().filter(of_queue).collect();
    assert_eq!(in_order, [499, 500]);
    retired.sort_unstable();
    assert_eq!(retired, [499, 500, 501]);
    until("the last submission is taken", || ring.is_done());
    assert_eq!((waiting(), renderer.counters().lost), (0, 0));
    // A queue without work: a fence without a submission retires, too.
    let idle = Gpu {
        queue: second,
        ..gpu
    };
    guest.submit(&idle, &[]);
    guest.wait_fence(OTHER);
}
