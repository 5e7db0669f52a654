//! More of everything than a host has.

use hesper_mock_venus::{Ring, VenusGuest as _, bytes, query, reply_stream};
use hesper_venus_protocol::runtime::{Array, Object};
use hesper_venus_protocol::{command, vk};

use crate::client::{Attack, Client};

pub(crate) const ATTACKS: &[Attack] = &[
    ("bytes-that-wait", bytes_that_wait),
    ("streams-in-streams", streams_in_streams),
    ("memories", memories),
    ("large-replies", large_replies),
    ("garbage", garbage),
    ("waits-without-end", waits_without_end),
];

/// Commands that wait behind one that never ends.
fn bytes_that_wait() {
    let client = Client::new();
    let ring = Ring::new(&client, 1);
    assert_eq!(ring.head(), 0);
    client.submit_bytes(&bytes(&command::WaitRingSeqnoMESA {
        ring: 1,
        seqno: 1 << 20,
    }));
    let much = vec![1; 8 << 20];
    // More than all programs of a guest may have (`GuestBudget::queued_bytes`).
    let taken = (0..100).take_while(|_| client.try_submit(&much)).count();
    println!("{taken} submits of 8 MiB were taken");
}

/// A small batch that is hours of work, in contexts that are closed at once.
fn streams_in_streams() {
    const BUFFER: usize = 64 << 10;
    let nothing = bytes(&command::NotifyRingMESA {
        ring: 1,
        seqno: 0,
        flags: vk::RingNotifyFlagsMESA::default(),
    });
    for _ in 0..30 {
        let client = Client::new();
        let _ring = Ring::new(&client, 1);
        let stream = client.share(BUFFER);
        let inner = nothing.repeat(BUFFER / nothing.len());
        hesper_mock_venus::Memory::write(&stream.memory, 0, &inner);
        let one = vk::CommandStreamDescriptionMESA {
            resource_id: stream.resource,
            offset: 0,
            size: inner.len(),
        };
        let mut streams = vec![one; 20_000];
        let outer = bytes(&command::ExecuteCommandStreamsMESA {
            stream_count: streams.len() as u32,
            p_streams: streams.as_mut_slice().into(),
            p_reply_positions: Array::NULL,
            dependency_count: 0,
            p_dependencies: Array::NULL,
            flags: vk::CommandStreamExecutionFlagsMESA::default(),
        });
        client.try_submit(&outer);
    }
}

/// Memory objects of one byte.
fn memories() {
    let client = Client::new();
    let gpu = client.gpu();
    let memory_type = client.visible_type(&gpu);
    for _ in 0..70 {
        let mut stream = Vec::new();
        for _ in 0..1000 {
            stream.extend(bytes(&command::AllocateMemory {
                device: Object::guest(gpu.device),
                p_allocate_info: &mut vk::MemoryAllocateInfo {
                    allocation_size: 1,
                    memory_type_index: memory_type,
                    ..Default::default()
                },
                p_memory: &mut vk::DeviceMemory(client.id()),
            }));
        }
        client.attack(&stream);
    }
}

/// A few bytes that ask for many.
fn large_replies() {
    let client = Client::new();
    let gpu = client.gpu();
    let device = Object::guest(gpu.device);
    let cache = client.id();
    client.call(command::CreatePipelineCache {
        device,
        p_create_info: &mut vk::PipelineCacheCreateInfo::default(),
        p_pipeline_cache: &mut vk::PipelineCache(cache),
    });
    let mut room = vec![0; 255 << 20];
    let mut size = room.len();
    let ask = query(&command::GetPipelineCacheData {
        device,
        pipeline_cache: Object::guest(cache),
        p_data_size: &mut size,
        p_data: room.as_mut_slice().into(),
    });
    let replies = client.replies().resource;
    let again = [reply_stream(replies, 0, Client::REPLIES), ask].concat();
    client.attack(&again.repeat(10));
}

/// Bytes that are no commands.
fn garbage() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..50 {
        let client = Client::new();
        let mut stream = Vec::new();
        for _ in 0..512 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            stream.extend((state as u32).to_le_bytes());
        }
        // Some begin like a command.
        let number = (state % 350) as u32;
        stream[..4].copy_from_slice(&number.to_le_bytes());
        stream[4..8].fill(0);
        client.attack(&stream);
    }
}

/// Work that waits for what nobody signals, in contexts that are closed.
fn waits_without_end() {
    for round in 0..10 {
        let client = Client::new();
        let gpu = client.gpu();
        if round % 2 == 0 {
            let semaphore = client.timeline(&gpu);
            client.submit_wait(&gpu, semaphore, u64::MAX - 1);
            client.submit_wait(&gpu, semaphore, u64::MAX);
        } else {
            let semaphore = client.id();
            client.call(command::CreateSemaphore {
                device: Object::guest(gpu.device),
                p_create_info: &mut vk::SemaphoreCreateInfo::default(),
                p_semaphore: &mut vk::Semaphore(semaphore),
            });
            let stage = vk::PipelineStageFlags::ALL_COMMANDS;
            let semaphore = vk::Semaphore(semaphore);
            client.send_submit(
                &gpu,
                &mut vk::SubmitInfo {
                    wait_semaphore_count: 1,
                    p_wait_semaphores: &raw const semaphore,
                    p_wait_dst_stage_mask: &raw const stage,
                    ..Default::default()
                },
            );
        }
    }
}
