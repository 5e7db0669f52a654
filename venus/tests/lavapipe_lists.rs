//! Every command that lists things in two calls: with more room than things, exactly enough, less,
//! and none.
//!
//! With less room, as many as fit are written, the count says so, and a command with a result
//! returns `VK_INCOMPLETE`. With more room, the rest of it stays unchanged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;

use guest::{Gpu, Guest, VenusGuest as _, renderer};
use hesper_venus_protocol::runtime::{Array, Object, Text};
use hesper_venus_protocol::{command, vk};

const INCOMPLETE: u64 = vk::Result::INCOMPLETE.0 as u64;

/// Asks for the number of things, then with each kind of room. `ask` gets the count and the room,
/// and returns the command's result. `has_result` says whether it has one. `text` tells things
/// apart. Returns the number.
fn look<T: Clone + Default>(
    what: &str,
    has_result: bool,
    text: impl Fn(&T) -> String,
    ask: impl Fn(&mut u32, Array<'_, T>) -> u64,
) -> usize {
    let blank = &T::default();
    let mut total = 77;
    assert_eq!(ask(&mut total, Array::NULL), 0, "{what}");
    let mut all = vec![blank.clone(); total as usize];
    if total > 0 {
        let mut count = total;
        let result = ask(&mut count, all.as_mut_slice().into());
        assert_eq!((count, result), (total, 0), "{what}, exactly");
    }
    let fewer = (1..total).rev().step_by((total as usize / 3).max(1));
    for room in [total + 1, total + 9].into_iter().chain(fewer) {
        let mut seen = vec![blank.clone(); room as usize];
        let mut count = room;
        let result = ask(&mut count, seen.as_mut_slice().into());
        let is_short = has_result && room < total;
        let expected = (room.min(total), if is_short { INCOMPLETE } else { 0 });
        assert_eq!(
            (count, result),
            expected,
            "{what}: {total} things, room for {room}"
        );
        for (index, value) in seen.iter().enumerate() {
            let expected = all.get(index).unwrap_or(blank);
            assert_eq!(
                text(value),
                text(expected),
                "{what}, number {index} of {room}"
            );
        }
    }
    total as usize
}

fn family(f: &vk::QueueFamilyProperties) -> String {
    format!(
        "{:?} {} {}",
        f.queue_flags, f.queue_count, f.timestamp_valid_bits
    )
}

#[test]
fn lists_of_physical_devices_fit_every_room() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "lists");
    let gpu = guest.gpu();
    let physical = || Object::guest(gpu.physical);

    look(
        "instance extensions",
        true,
        |e: &vk::ExtensionProperties| format!("{:?} {}", e.extension_name, e.spec_version),
        |count, room: Array<'_, vk::ExtensionProperties>| {
            guest.call(command::EnumerateInstanceExtensionProperties {
                p_layer_name: Text::NULL,
                p_property_count: count,
                p_properties: room,
            })
        },
    );
    let extensions = look(
        "device extensions",
        true,
        |e: &vk::ExtensionProperties| format!("{:?} {}", e.extension_name, e.spec_version),
        |count, room: Array<'_, vk::ExtensionProperties>| {
            guest.call(command::EnumerateDeviceExtensionProperties {
                physical_device: physical(),
                p_layer_name: Text::NULL,
                p_property_count: count,
                p_properties: room,
            })
        },
    );
    assert!(extensions > 100);
    let families = look(
        "queue families",
        false,
        family,
        |count, room: Array<'_, vk::QueueFamilyProperties>| {
            guest.call(command::GetPhysicalDeviceQueueFamilyProperties {
                physical_device: physical(),
                p_queue_family_property_count: count,
                p_queue_family_properties: room,
            })
        },
    );
    assert!(families > 0);
    look(
        "queue families 2",
        false,
        |f: &vk::QueueFamilyProperties2| family(&f.queue_family_properties),
        |count, room: Array<'_, vk::QueueFamilyProperties2>| {
            guest.call(command::GetPhysicalDeviceQueueFamilyProperties2 {
                physical_device: physical(),
                p_queue_family_property_count: count,
                p_queue_family_properties: room,
            })
        },
    );
    look(
        "sparse formats",
        false,
        |f: &vk::SparseImageFormatProperties| f.aspect_mask.0.to_string(),
        |count, room: Array<'_, vk::SparseImageFormatProperties>| {
            guest.call(command::GetPhysicalDeviceSparseImageFormatProperties {
                physical_device: physical(),
                format: vk::Format::R8G8B8A8_UNORM,
                ty: vk::ImageType::TYPE_2D,
                samples: vk::SampleCountFlags::COUNT_1,
                usage: vk::ImageUsageFlags::SAMPLED,
                tiling: vk::ImageTiling::OPTIMAL,
                p_property_count: count,
                p_properties: room,
            })
        },
    );
    let domains = look(
        "time domains",
        true,
        |d: &vk::TimeDomainKHR| format!("{d:?}"),
        |count, room: Array<'_, vk::TimeDomainKHR>| {
            guest.call(command::GetPhysicalDeviceCalibrateableTimeDomainsKHR {
                physical_device: physical(),
                p_time_domain_count: count,
                p_time_domains: room,
            })
        },
    );
    assert!(domains > 1);
    let matrices = look(
        "matrices",
        true,
        |m: &vk::CooperativeMatrixPropertiesKHR| {
            format!(
                "{} {} {} {:?} {:?}",
                m.m_size, m.n_size, m.k_size, m.a_type, m.scope
            )
        },
        |count, room: Array<'_, vk::CooperativeMatrixPropertiesKHR>| {
            guest.call(command::GetPhysicalDeviceCooperativeMatrixPropertiesKHR {
                physical_device: physical(),
                p_property_count: count,
                p_properties: room,
            })
        },
    );
    assert!(matrices > 1);
}

#[test]
fn lists_of_handles_fit_every_room() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "handles");
    let gpu = guest.gpu();
    // The array holds the guest's ids. Ids of devices that do not exist mean nothing.
    for room in 1..4_usize {
        let mut ids: Vec<_> = (0..room).map(|_| vk::PhysicalDevice(guest.id())).collect();
        ids[0] = vk::PhysicalDevice(gpu.physical);
        let mut count = room as u32;
        let result = guest.call(command::EnumeratePhysicalDevices {
            instance: Object::guest(gpu.instance),
            p_physical_device_count: &mut count,
            p_physical_devices: ids.as_mut_slice().into(),
        });
        assert_eq!(
            (count, result, ids[0].0),
            (1, 0, gpu.physical),
            "room for {room}"
        );
    }
    let mut count = 5;
    let result = guest.call(command::EnumeratePhysicalDeviceGroups {
        instance: Object::guest(gpu.instance),
        p_physical_device_group_count: &mut count,
        p_physical_device_group_properties: Array::NULL,
    });
    assert_eq!((count, result), (1, 0));
    for room in 1..4_usize {
        let mut groups = vec![vk::PhysicalDeviceGroupProperties::default(); room];
        let mut count = room as u32;
        let result = guest.call(command::EnumeratePhysicalDeviceGroups {
            instance: Object::guest(gpu.instance),
            p_physical_device_group_count: &mut count,
            p_physical_device_group_properties: groups.as_mut_slice().into(),
        });
        assert_eq!((count, result), (1, 0), "room for {room}");
        assert_eq!(groups[0].physical_device_count, 1);
        assert_eq!(groups[0].physical_devices[0].0, gpu.physical);
        assert!(
            groups[1..]
                .iter()
                .all(|group| group.physical_device_count == 0)
        );
    }
}

/// A pipeline cache with a header, and its data.
fn cache(guest: &Guest, gpu: &Gpu) -> (u64, Vec<u8>) {
    let cache = guest.id();
    let mut info = vk::PipelineCacheCreateInfo::default();
    guest.call(command::CreatePipelineCache {
        device: Object::guest(gpu.device),
        p_create_info: &mut info,
        p_pipeline_cache: &mut vk::PipelineCache(cache),
    });
    let mut size = 0;
    let result = data(guest, gpu, cache, &mut size, Array::NULL);
    assert!(result == 0 && size >= 32, "{result} {size}");
    let mut all = vec![0; size];
    assert_eq!(
        data(guest, gpu, cache, &mut size, all.as_mut_slice().into()),
        0
    );
    assert_eq!(size, all.len());
    (cache, all)
}

fn data(guest: &Guest, gpu: &Gpu, cache: u64, size: &mut usize, room: Array<'_, u8>) -> u64 {
    guest.call(command::GetPipelineCacheData {
        device: Object::guest(gpu.device),
        pipeline_cache: Object::guest(cache),
        p_data_size: size,
        p_data: room,
    })
}

#[test]
fn pipeline_cache_data_has_its_own_size_in_every_room() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "cache data");
    let gpu = guest.gpu();
    let (cache, all) = cache(&guest, &gpu);
    for more in [1, 5, 4096] {
        let mut room = vec![0xa5; all.len() + more];
        let mut size = room.len();
        let result = data(&guest, &gpu, cache, &mut size, room.as_mut_slice().into());
        assert_eq!((result, size), (0, all.len()), "{more} more");
        assert_eq!(room[..size], all);
        assert!(room[size..].iter().all(|byte| *byte == 0xa5));
    }
    for room in [all.len() - 1, 16, 1] {
        let mut bytes = vec![0xa5; room];
        let mut size = room;
        let result = data(&guest, &gpu, cache, &mut size, bytes.as_mut_slice().into());
        assert!(
            result == INCOMPLETE && size <= room,
            "{result} {size} of {room}"
        );
    }
}
