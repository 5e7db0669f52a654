//! Malformed streams over the null driver. The null driver ends the process if it is called with
//! what must not reach a driver. [`Bench::run`] says what is demanded of every stream.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod hostile;

use hesper_venus_protocol::runtime::{Arena, Array, Object};
use hesper_venus_protocol::{CommandId, command, vk};
use hostile::decode;
use hostile::mutate::{Random, places, replaced};
use hostile::recorded::recorded;
use hostile::session::{Id, Session, object};
use hostile::{
    Bench, Outcome, REPLIES, REPLY_RESOURCE, RING_BUFFER, RING_RESOURCE, Way, null_driver,
};

fn bench() -> Bench {
    Bench::new(null_driver())
}

fn is_id(value: u64) -> bool {
    Id::all().any(|id| id == value)
}

#[test]
fn the_recorded_session_is_carried_out_whole_over_both_ways() {
    let bench = bench();
    let session = Session::whole();
    for way in [Way::Virtqueue, Way::Ring] {
        assert_eq!(bench.run(&session.stream, way), Outcome::Fine, "{way:?}");
    }
    assert!(places(&session.stream, is_id).len() > 60, "ids are found");
}

#[test]
fn a_session_truncated_anywhere_is_fatal_unless_between_two_commands() {
    let bench = bench();
    let session = Session::whole();
    for length in 0..session.stream.len() {
        let outcome = bench.run(&session.stream[..length], Way::Virtqueue);
        if session.starts.contains(&length) {
            assert_eq!(outcome, Outcome::Fine, "{length}");
        } else {
            assert!(outcome.reason().contains("bytes"), "{length}: {outcome:?}");
        }
    }
}

#[test]
fn the_session_of_a_real_guest_may_end_at_any_byte() {
    let bench = bench();
    for (name, session) in recorded() {
        let whole = bench.run(&session.stream, Way::Ring);
        assert_eq!(whole, Outcome::Fine, "{name}");
        let step = if name == "submit-one" { 1 } else { 53 };
        for length in (0..session.stream.len()).step_by(step) {
            let outcome = bench.run(&session.stream[..length], Way::Virtqueue);
            match session.starts.contains(&length) {
                true => assert_eq!(outcome, Outcome::Fine, "{name}, {length}"),
                false => assert!(
                    outcome.reason().contains("bytes"),
                    "{name}, {length}: {outcome:?}"
                ),
            }
        }
    }
}

#[test]
fn flipped_bits_harm_nobody_else() {
    let bench = bench();
    let mut streams = vec![Session::whole().stream];
    streams.extend(recorded().into_iter().map(|(_, session)| session.stream));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut lost = 0;
    for round in 0..1500 {
        let mut spoiled = streams[round % streams.len()].clone();
        for _ in 0..=round % 3 {
            let at = random.below(spoiled.len());
            spoiled[at] ^= 1 << random.below(8);
        }
        let way = [Way::Virtqueue, Way::Ring, Way::Both][round % 3];
        lost += usize::from(matches!(bench.run(&spoiled, way), Outcome::Lost(_)));
    }
    assert!((300..1500).contains(&lost), "{lost} of 1500");
}

#[test]
fn wrong_counts_and_sizes_harm_nobody_else() {
    let bench = bench();
    let stream = Session::whole().stream;
    let numbers = [0, 2, 0xffff_ffff, 1 << 32, u64::MAX / 8, u64::MAX];
    let small = places(&stream, |value| (1..=4096).contains(&value));
    assert!(small.len() > 100);
    for (index, (at, _)) in small.iter().enumerate() {
        let number = numbers[index % numbers.len()];
        bench.run(&replaced(&stream, *at, number), Way::Virtqueue);
    }
}

#[test]
fn ids_that_name_nothing_something_else_or_what_is_gone_never_reach_the_driver() {
    let bench = bench();
    let session = Session::whole();
    let mut lost = 0;
    let sites = places(&session.stream, is_id);
    for (at, id) in &sites {
        // Unknown; null; of another type; destroyed, but of the right type only for fences.
        let other = if *id == Id::Buffer as u64 {
            Id::Image as u64
        } else {
            Id::Buffer as u64
        };
        for wrong in [0x7777, 0, other, Id::Gone as u64] {
            let outcome = bench.run(&replaced(&session.stream, *at, wrong), Way::Virtqueue);
            lost += usize::from(matches!(outcome, Outcome::Lost(_)));
        }
    }
    assert!(lost > sites.len() * 2, "{lost} of {}", sites.len() * 4);
    // After it was destroyed, the same id is unknown again.
    let mut stream = session.stream.clone();
    let destroy = session.stream[*session.starts.last().unwrap()..].to_vec();
    stream.extend_from_slice(&destroy);
    let outcome = bench.run(&stream, Way::Virtqueue);
    assert!(
        outcome.reason().contains("VkFence 0x5a5a0014"),
        "{outcome:?}"
    );
}

#[test]
fn another_contexts_objects_do_not_exist() {
    let bench = bench();
    let (victim, thief) = (bench.guest(), bench.guest());
    victim.context.submit(Session::whole().stream);
    assert_eq!(victim.settle(1, hostile::PATIENCE), Outcome::Fine);
    let mut steal = Session::default();
    steal.push(
        &command::DestroyBuffer {
            device: object(Id::Device),
            buffer: object(Id::Buffer),
        },
        false,
    );
    thief.context.submit(steal.stream);
    let outcome = thief.settle(0, hostile::PATIENCE);
    assert!(outcome.reason().contains("does not exist"), "{outcome:?}");
    victim.context.submit(Session::default().stream);
    assert_eq!(victim.settle(1, hostile::PATIENCE), Outcome::Fine);
    drop(victim);
    bench.ended(thief, outcome);
}

#[test]
fn a_chain_of_400_000_structs_is_refused_without_recursion() {
    let bench = bench();
    let mut stream = Session::device().stream;
    // vkCreateBuffer: no flags, device, the info is present, its type; then the chain.
    stream.extend_from_slice(&[50, 0, 0, 0, 0, 0, 0, 0]);
    stream.extend_from_slice(&(Id::Device as u64).to_le_bytes());
    stream.extend_from_slice(&1u64.to_le_bytes());
    stream.extend_from_slice(&vk::StructureType::BUFFER_CREATE_INFO.0.to_le_bytes());
    for _ in 0..400_000 {
        stream.extend_from_slice(&1u64.to_le_bytes());
        let link = vk::StructureType::EXTERNAL_MEMORY_BUFFER_CREATE_INFO;
        stream.extend_from_slice(&link.0.to_le_bytes());
    }
    for way in [Way::Virtqueue, Way::Ring] {
        assert!(
            matches!(bench.run(&stream, way), Outcome::Lost(_)),
            "{way:?}"
        );
    }
}

#[test]
fn replies_stay_inside_their_resource() {
    let bench = bench();
    let set = |resource_id, offset, size| {
        let mut session = Session::default();
        session.push(
            &command::SetReplyCommandStreamMESA {
                p_stream: &mut vk::CommandStreamDescriptionMESA {
                    resource_id,
                    offset,
                    size,
                },
            },
            false,
        );
        session.push(
            &command::EnumerateInstanceVersion {
                p_api_version: &mut 0,
            },
            true,
        );
        bench.run(&session.stream, Way::Virtqueue)
    };
    assert_eq!(set(REPLY_RESOURCE, REPLIES - 20, 20), Outcome::Fine);
    for (resource, offset, size) in [
        (REPLY_RESOURCE, 0, REPLIES + 1),
        (REPLY_RESOURCE, REPLIES, 1),
        (REPLY_RESOURCE, usize::MAX, 2),
        (REPLY_RESOURCE, 8, usize::MAX),
        (REPLY_RESOURCE, 0, 3),
        (77, 0, 4),
    ] {
        let outcome = set(resource, offset, size);
        assert!(
            matches!(outcome, Outcome::Lost(_)),
            "{resource} {offset} {size}"
        );
    }
    // A reply without a stream, and one beyond the end.
    let whole = Session::whole();
    let outcome = bench.run(&whole.stream[whole.starts[1]..], Way::Virtqueue);
    assert!(outcome.reason().contains("no reply stream"), "{outcome:?}");
    let mut seek = Session::reply_stream();
    seek.push(
        &command::SeekReplyCommandStreamMESA {
            position: REPLIES + 1,
        },
        false,
    );
    assert!(matches!(
        bench.run(&seek.stream, Way::Virtqueue),
        Outcome::Lost(_)
    ));
}

#[test]
fn a_command_of_an_extension_that_was_not_enabled_calls_no_function() {
    let bench = bench();
    // Up to vkEndCommandBuffer, so that the command buffer is recording.
    let mut session = Session::whole();
    let end = session.starts.iter().find(|at| {
        session.stream[**at..].starts_with(&CommandId::EndCommandBuffer.number().to_le_bytes())
    });
    session.stream.truncate(*end.unwrap());
    let mut draws = [vk::MultiDrawInfoEXT::default(); 2];
    session.push(
        &command::CmdDrawMultiEXT {
            command_buffer: object(Id::Commands),
            draw_count: 2,
            p_vertex_info: draws.as_mut_slice().into(),
            instance_count: 1,
            first_instance: 0,
            stride: 1 << 24,
        },
        false,
    );
    let outcome = bench.run(&session.stream, Way::Virtqueue);
    assert!(
        outcome.reason().contains("vkCmdDrawMultiEXT"),
        "{outcome:?}"
    );
}

#[test]
fn streams_inside_of_streams_end_at_the_first() {
    let bench = bench();
    let execute = |offset: usize, size: usize| {
        let mut session = Session::default();
        session.push(
            &command::ExecuteCommandStreamsMESA {
                stream_count: 1,
                p_streams: [vk::CommandStreamDescriptionMESA {
                    resource_id: RING_RESOURCE,
                    offset,
                    size,
                }]
                .as_mut_slice()
                .into(),
                p_reply_positions: Array::NULL,
                dependency_count: 0,
                p_dependencies: Array::NULL,
                flags: Default::default(),
            },
            false,
        );
        session.stream
    };
    let fed = |content: &[u8], stream: Vec<u8>| {
        let guest = bench.guest();
        guest.ring.memory.write(RING_BUFFER, content).unwrap();
        guest.context.submit(stream);
        let outcome = guest.settle(0, hostile::PATIENCE);
        bench.ended(guest, outcome)
    };
    let whole = Session::whole().stream;
    assert_eq!(
        fed(&whole, execute(RING_BUFFER, whole.len())),
        Outcome::Fine
    );
    // A stream that names itself.
    let itself = execute(RING_BUFFER, execute(0, 0).len());
    let outcome = fed(&itself, itself.clone());
    assert!(
        outcome.reason().contains("executes command streams"),
        "{outcome:?}"
    );
    for (offset, size) in [(0, usize::MAX), (usize::MAX, 8), (1 << 20, 4), (0, 1 << 40)] {
        let outcome = fed(&[], execute(offset, size));
        assert!(matches!(outcome, Outcome::Lost(_)), "{offset} {size}");
    }
}

#[test]
fn memory_for_results_is_as_large_as_what_the_driver_writes() {
    let bench = bench();
    for (count, size, stride) in [(4u32, 31, 8u64), (4, 32, u64::MAX), (u32::MAX, 32, 8)] {
        let mut session = Session::whole();
        session.push(
            &command::GetQueryPoolResults {
                device: object(Id::Device),
                query_pool: object(Id::QueryPool),
                first_query: 0,
                query_count: count,
                data_size: size,
                p_data: vec![0; size].as_mut_slice().into(),
                stride,
                flags: vk::QueryResultFlags::RESULT_64,
            },
            false,
        );
        let outcome = bench.run(&session.stream, Way::Virtqueue);
        assert!(outcome.reason().contains("do not fit"), "{outcome:?}");
    }
}

#[test]
fn allocations_without_measure_are_errors_or_fatal_and_leave_nothing() {
    let bench = bench();
    for size in [0, 300 << 20, 1 << 40, u64::MAX - 4095, u64::MAX] {
        let mut session = Session::device();
        let mut info = vk::MemoryAllocateInfo {
            allocation_size: size,
            ..Default::default()
        };
        session.push(
            &command::AllocateMemory {
                device: Object::guest(Id::Device as u64),
                p_allocate_info: &mut info,
                p_memory: &mut vk::DeviceMemory(Id::Memory as u64),
            },
            true,
        );
        assert_eq!(
            bench.run(&session.stream, Way::Virtqueue),
            Outcome::Fine,
            "{size}"
        );
    }
}

#[test]
fn the_decoder_survives_spoiled_requests_of_every_command() {
    let mut arena = Arena::new(16 << 20);
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    for seed in 0..8 {
        for (name, request) in decode::requests(seed) {
            assert_eq!(decode::decode(&request, &mut arena), 1, "{name}");
            for _ in 0..20 {
                let mut spoiled = request.clone();
                for _ in 0..=random.below(3) {
                    let at = random.below(spoiled.len());
                    match random.below(3) {
                        0 => spoiled[at] = random.next() as u8,
                        1 => spoiled[at] ^= 1 << random.below(8),
                        _ => spoiled.truncate(at.max(1)),
                    }
                }
                decode::decode(&spoiled, &mut arena);
            }
        }
    }
}

#[test]
fn descriptors_that_a_write_lacks_never_reach_the_driver() {
    let bench = bench();
    for ty in [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 1000138000, 1000150000, 12345] {
        for (set, count, is_fine) in [
            (Id::DescriptorSet as u64, 0, true),
            (Id::DescriptorSet as u64, 1, false),
            (0, 0, false),
        ] {
            let mut session = Session::whole();
            let mut write = vk::WriteDescriptorSet {
                dst_set: vk::DescriptorSet(set),
                descriptor_count: count,
                descriptor_type: vk::DescriptorType(ty),
                ..Default::default()
            };
            session.push(
                &command::UpdateDescriptorSets {
                    device: object(Id::Device),
                    descriptor_write_count: 1,
                    p_descriptor_writes: std::slice::from_mut(&mut write).into(),
                    descriptor_copy_count: 0,
                    p_descriptor_copies: Array::NULL,
                },
                false,
            );
            let outcome = bench.run(&session.stream, Way::Virtqueue);
            assert_eq!(
                outcome == Outcome::Fine,
                is_fine,
                "{ty} {count}: {outcome:?}"
            );
        }
    }
}
