//! Drivers and loaders of all versions, played by the null driver. A guest can use the version that
//! it is shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;
mod played;

use std::ffi::CStr;

use guest::settled::Settled;
use guest::{Gpu, Guest, VenusGuest as _, renderer_with};
use hesper_null_driver::version::{HIDDEN, Version};
use hesper_venus::RendererOptions;
use hesper_venus::host::Findings;
use hesper_venus_protocol::runtime::{Array, Object};
use hesper_venus_protocol::{command, vk};
use played::Played;

const fn of(minor: u32) -> u32 {
    ash::vk::make_api_version(0, 1, minor, 0)
}

/// A driver of Vulkan 1.`driver` under a loader of 1.`loader`, which lacks these functions.
fn renderer(loader: u32, driver: u32, hidden: &[&'static CStr]) -> (Played, Settled) {
    renderer_that_knows(Findings::default(), loader, driver, hidden)
}

/// The same, when another renderer has found this before.
fn renderer_that_knows(
    findings: Findings,
    loader: u32,
    driver: u32,
    hidden: &[&'static CStr],
) -> (Played, Settled) {
    let mut names = [std::ptr::null(); HIDDEN];
    for (to, from) in names.iter_mut().zip(hidden) {
        *to = from.as_ptr();
    }
    let played = Played::version(&Version {
        loader: of(loader),
        driver: of(driver),
        hidden: names,
    });
    let renderer = renderer_with(RendererOptions {
        driver: played.driver(),
        findings,
        ..Default::default()
    });
    (played, renderer)
}

/// What the renderer tells its user: the version that guests see, and the command because of which
/// it is lower than the driver's.
fn told(renderer: &Settled) -> (Option<(u32, u32, u32)>, Option<String>) {
    let gpu = renderer.gpus().next().unwrap().clone();
    (gpu.guest_version, gpu.missing_command)
}

/// The version that a guest sees of its GPU, asked in both ways.
fn seen(guest: &Guest, gpu: &Gpu) -> u32 {
    let mut properties = vk::PhysicalDeviceProperties::default();
    guest.call(command::GetPhysicalDeviceProperties {
        physical_device: Object::guest(gpu.physical),
        p_properties: &mut properties,
    });
    let mut properties2 = vk::PhysicalDeviceProperties2::default();
    guest.call(command::GetPhysicalDeviceProperties2 {
        physical_device: Object::guest(gpu.physical),
        p_properties: &mut properties2,
    });
    assert_eq!(properties2.properties.api_version, properties.api_version);
    properties.api_version
}

/// Calls a device function that came with Vulkan 1.`minor`.
fn call(guest: &Guest, gpu: &Gpu, minor: u32) {
    let device = Object::guest(gpu.device);
    match minor {
        4 => {
            let mut info = vk::RenderingAreaInfo::default();
            guest.call(command::GetRenderingAreaGranularity {
                device,
                p_rendering_area_info: &mut info,
                p_granularity: &mut vk::Extent2D::default(),
            });
        }
        3 => {
            let (mut info, id) = (vk::PrivateDataSlotCreateInfo::default(), guest.id());
            guest.call(command::CreatePrivateDataSlot {
                device,
                p_create_info: &mut info,
                p_private_data_slot: &mut vk::PrivateDataSlot(id),
            });
        }
        2 => {
            guest.timeline(gpu);
        }
        _ => {
            let mut info = vk::DescriptorSetLayoutCreateInfo::default();
            guest.call(command::GetDescriptorSetLayoutSupport {
                device,
                p_create_info: &mut info,
                p_support: &mut vk::DescriptorSetLayoutSupport::default(),
            });
        }
    }
}

/// Records a push of no descriptors, and waits until the command was carried out.
fn push_nothing(guest: &Guest, gpu: &Gpu) {
    let (layout, set_layout) = (guest.id(), guest.id());
    guest.call(command::CreateDescriptorSetLayout {
        device: Object::guest(gpu.device),
        p_create_info: &mut vk::DescriptorSetLayoutCreateInfo::default(),
        p_set_layout: &mut vk::DescriptorSetLayout(set_layout),
    });
    let set_layout = vk::DescriptorSetLayout(set_layout);
    guest.call(command::CreatePipelineLayout {
        device: Object::guest(gpu.device),
        p_create_info: &mut vk::PipelineLayoutCreateInfo {
            set_layout_count: 1,
            p_set_layouts: &raw const set_layout,
            ..Default::default()
        },
        p_pipeline_layout: &mut vk::PipelineLayout(layout),
    });
    let (buffer, _) = guest.buffer(gpu, 4096);
    let (commands, _) = guest.fill(gpu, buffer, 1);
    let mut begin = vk::CommandBufferBeginInfo::default();
    guest.call(command::BeginCommandBuffer {
        command_buffer: Object::guest(commands),
        p_begin_info: &mut begin,
    });
    guest.send(&command::CmdPushDescriptorSet {
        command_buffer: Object::guest(commands),
        pipeline_bind_point: vk::PipelineBindPoint::COMPUTE,
        layout: Object::guest(layout),
        set: 0,
        descriptor_write_count: 0,
        p_descriptor_writes: Array::NULL,
    });
    guest.call(command::EndCommandBuffer {
        command_buffer: Object::guest(commands),
    });
}

#[test]
fn a_driver_of_any_version_has_its_functions_under_a_loader_of_any_other() {
    for driver in 1..=4 {
        for loader in 1..=4 {
            let (_played, renderer) = renderer(loader, driver, &[]);
            let guest = Guest::new(&renderer, "versions");
            let mut version = 0;
            guest.call(command::EnumerateInstanceVersion {
                p_api_version: &mut version,
            });
            assert_eq!(version, of(4), "instances may be of any version");
            let gpu = guest.gpu();
            assert_eq!(seen(&guest, &gpu), of(driver), "loader 1.{loader}");
            for minor in 1..=driver {
                call(&guest, &gpu, minor);
            }
            assert_eq!(renderer.counters().lost, 0);
            assert_eq!(told(&renderer), (Some((1, driver, 0)), None));
        }
    }
}

#[test]
fn a_newer_driver_than_the_protocol_is_seen_as_1_4() {
    let (_played, renderer) = renderer(5, 5, &[]);
    let guest = Guest::new(&renderer, "newer");
    let gpu = guest.gpu();
    assert_eq!(seen(&guest, &gpu), of(4));
    call(&guest, &gpu, 4);
    assert_eq!(renderer.counters().lost, 0);
}

#[test]
fn a_core_function_under_its_older_name_does_and_its_extension_is_enabled() {
    let (_played, renderer) = renderer(4, 4, &[c"vkCmdPushDescriptorSet"]);
    assert_eq!(told(&renderer), (Some((1, 4, 0)), None));
    let guest = Guest::new(&renderer, "older name");
    let gpu = guest.gpu();
    assert_eq!(seen(&guest, &gpu), of(4));
    push_nothing(&guest, &gpu);
    assert_eq!(renderer.counters().lost, 0);
}

#[test]
fn a_core_function_that_is_missing_lowers_the_version_that_a_guest_sees() {
    for (names, minor) in [
        (
            &[c"vkCmdPushDescriptorSet", c"vkCmdPushDescriptorSetKHR"][..],
            4,
        ),
        (&[c"vkCmdSetCullMode", c"vkCmdSetCullModeEXT"], 3),
        (
            &[
                c"vkGetSemaphoreCounterValue",
                c"vkGetSemaphoreCounterValueKHR",
            ],
            2,
        ),
    ] {
        let (_played, renderer) = renderer(4, 4, names);
        let missing = names[0].to_str().unwrap().to_owned();
        assert_eq!(told(&renderer), (Some((1, minor - 1, 0)), Some(missing)));
        let guest = Guest::new(&renderer, "missing");
        let gpu = guest.gpu();
        assert_eq!(seen(&guest, &gpu), of(minor - 1));
        assert_eq!(renderer.counters().lost, 0);
    }
}

#[test]
fn what_another_renderer_has_found_is_not_tested_again_unless_the_driver_is_another() {
    let missing = [c"vkCmdSetCullMode", c"vkCmdSetCullModeEXT"];
    let (_played, first) = renderer(4, 4, &missing);
    let found = first.findings().to_bytes();
    let again = |driver| {
        let findings = Findings::from_bytes(&found).unwrap();
        renderer_that_knows(findings, 4, driver, &[])
    };
    // It would find that nothing is missing.
    let (_played, second) = again(4);
    let name = Some(missing[0].to_str().unwrap().to_owned());
    assert_eq!(told(&second), (Some((1, 2, 0)), name));
    assert_eq!(second.findings(), first.findings());
    let guest = Guest::new(&second, "second");
    let gpu = guest.gpu();
    assert_eq!(seen(&guest, &gpu), of(2));
    assert_eq!(second.counters().lost, 0);
    // After an update.
    let (_played, third) = again(3);
    assert_eq!(told(&third), (Some((1, 3, 0)), None));
}
