//! Numbers beyond limits and beyond what objects have, over the null driver, which ends the process
//! if it sees one. [`hostile::numbers`] has the cases; `lavapipe_numbers.rs` runs them over a
//! driver that crashes on most.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod hostile;

use hesper_venus_protocol::{command, vk};
use hostile::numbers::{cases, spliced};
use hostile::session::{Id, Session, image, object};
use hostile::{Bench, Outcome, Way, null_driver};

#[test]
fn numbers_beyond_limits_and_objects_never_reach_the_driver() {
    let bench = Bench::new(null_driver());
    for case in cases() {
        let outcome = bench.run(&case.stream, Way::Virtqueue);
        let is_named = |part: &str| outcome.reason().contains(part);
        let is_named = case.reason.split('|').any(is_named);
        assert!(is_named, "{}: {outcome:?}", case.name);
    }
}

#[test]
fn numbers_up_to_the_limits_are_fine() {
    let bench = Bench::new(null_driver());
    let mut session = Session::default();
    let command_buffer = object(Id::Commands);
    session.push(
        &command::CmdPushConstants {
            command_buffer,
            layout: object(Id::PipelineLayout),
            stage_flags: vk::ShaderStageFlags::COMPUTE,
            offset: 124,
            size: 4,
            p_values: [1u8; 4].as_mut_slice().into(),
        },
        false,
    );
    session.push(
        &command::CmdSetViewport {
            command_buffer,
            first_viewport: 0,
            viewport_count: 16,
            p_viewports: [vk::Viewport::default(); 16].as_mut_slice().into(),
        },
        false,
    );
    session.push(
        &command::CmdBindVertexBuffers {
            command_buffer,
            first_binding: 15,
            binding_count: 1,
            p_buffers: [vk::Buffer(Id::Buffer as u64)].as_mut_slice().into(),
            p_offsets: [4095u64].as_mut_slice().into(),
        },
        false,
    );
    session.push(
        &command::CmdFillBuffer {
            command_buffer,
            dst_buffer: object(Id::Buffer),
            dst_offset: 4092,
            size: u64::MAX,
            data: 7,
        },
        false,
    );
    session.push(
        &command::CmdDrawIndirect {
            command_buffer,
            buffer: object(Id::Buffer),
            offset: 4080,
            draw_count: 1,
            stride: u32::MAX,
        },
        false,
    );
    let outcome = bench.run(&spliced(&session), Way::Virtqueue);
    assert_eq!(outcome, Outcome::Fine);
}

fn copy_out(strides: (u32, u32), extent: (u32, u32), flags: u32, room: usize) -> Outcome {
    let mut session = Session::whole();
    let mut info = image(vk::ImageUsageFlags::HOST_TRANSFER);
    session.push(
        &command::CreateImage {
            device: object(Id::Device),
            p_create_info: &mut info,
            p_image: &mut vk::Image(Id::Next as u64),
        },
        false,
    );
    let mut info = vk::CopyImageToMemoryInfoMESA {
        flags: vk::HostImageCopyFlags(flags),
        src_image: vk::Image(Id::Next as u64),
        memory_row_length: strides.0,
        memory_image_height: strides.1,
        image_subresource: vk::ImageSubresourceLayers {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            layer_count: 1,
            ..Default::default()
        },
        image_extent: vk::Extent3D {
            width: extent.0,
            height: extent.1,
            depth: 1,
        },
        ..Default::default()
    };
    let mut room = vec![0u8; room];
    session.push(
        &command::CopyImageToMemoryMESA {
            device: object(Id::Device),
            p_copy_image_to_memory_info: &mut info,
            data_size: room.len(),
            p_data: room.as_mut_slice().into(),
        },
        false,
    );
    Bench::new(null_driver()).run(&session.stream, Way::Virtqueue)
}

#[test]
fn a_host_copy_is_as_large_as_the_memory_for_it() {
    const MEMCPY: u32 = 1;
    assert_eq!(copy_out((0, 0), (16, 16), 0, 1024), Outcome::Fine);
    assert_eq!(copy_out((0, 0), (16, 16), MEMCPY, 1024), Outcome::Fine);
    // Too little room is an error of Vulkan's, and the driver is not called.
    assert_eq!(copy_out((4096, 1 << 31), (16, 16), 0, 1024), Outcome::Fine);
    assert_eq!(copy_out((0, 0), (16, 16), MEMCPY, 1023), Outcome::Fine);
    for strides in [(4096, 0), (0, 4096), (4096, 1 << 31)] {
        let outcome = copy_out(strides, (16, 16), MEMCPY, 1024);
        assert!(outcome.reason().contains("MEMCPY"), "{outcome:?}");
    }
}
