//! Rings, streams and positions, with a guest that is this test. Needs the driver only to start:
//!
//! ```text
//! export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=tests/env/run
//! cargo test -p hesper-venus --test lavapipe_transport
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::time::Duration;

use guest::{
    ALIVE, Event, FATAL, Guest, IDLE, Memory as _, RingOptions, VenusGuest as _, bytes, query,
    read_reply, renderer, reply_stream,
};
use hesper_venus_protocol::runtime::{Array, Command as _, Object};
use hesper_venus_protocol::{command, vk};

/// Bytes behind the ring's buffer, for replies.
const REPLIES: usize = 4096;

/// A ring that a monitor watches, with room for replies behind its buffer.
struct Ring<'g>(guest::Ring<'g, Guest>);

impl<'g> Deref for Ring<'g> {
    type Target = guest::Ring<'g, Guest>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Ring<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<'g> Ring<'g> {
    fn new(guest: &'g Guest, id: u64) -> Self {
        let options = RingOptions {
            behind: REPLIES,
            reporting_period: 40_000,
            ..Default::default()
        };
        let ring = guest::Ring::with(guest, id, options);
        ring.until("the ring is alive", || ring.status() & ALIVE != 0);
        Self(ring)
    }

    /// Asks for the instance's version.
    fn version(&mut self) -> u32 {
        let mut version = 0;
        let mut command = command::EnumerateInstanceVersion {
            p_api_version: &mut version,
        };
        let mut stream = self.reply_stream(self.behind(), REPLIES);
        stream.extend(query(&command));
        self.write(&stream);
        self.wait();
        let mut reply = vec![0; REPLIES];
        self.shared.memory.read(self.behind(), &mut reply);
        read_reply(&mut command, &reply);
        version
    }

    fn reply_stream(&self, offset: usize, size: usize) -> Vec<u8> {
        reply_stream(self.shared.resource, offset, size)
    }
}

#[test]
fn calls_over_a_ring_are_answered_awake_and_asleep() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "ring");
    let mut ring = Ring::new(&guest, 7);
    let first = ring.version();
    assert!(first >= (1 << 22 | 1 << 12), "{first:#x}");
    for round in 0..300 {
        assert_eq!(ring.version(), first);
        if round % 30 == 0 {
            ring.until("the ring sleeps", || ring.status() & IDLE != 0);
        }
    }
    assert!(renderer.counters().wakes >= 10);
}

#[test]
fn a_ring_that_waits_is_still_alive() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "ring");
    let mut ring = Ring::new(&guest, 7);
    ring.write(&bytes(&command::WaitVirtqueueSeqnoMESA { seqno: 1 }));
    for _ in 0..5 {
        let status = ring.shared.memory.0.memory.word(128).unwrap();
        status.fetch_and(!ALIVE, Ordering::SeqCst);
        ring.until("the monitor sets ALIVE", || ring.status() & ALIVE != 0);
    }
    assert_eq!(ring.head(), 0, "it still waits");
    guest.send(&command::SubmitVirtqueueSeqnoMESA { ring: 7, seqno: 1 });
    ring.wait();
}

#[test]
fn the_virtqueue_waits_for_a_position_of_a_ring() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "ring");
    let mut ring = Ring::new(&guest, 7);
    let query = bytes(&command::EnumerateInstanceVersion {
        p_api_version: &mut 0,
    });
    guest.send(&command::WaitRingSeqnoMESA {
        ring: 7,
        seqno: query.len() as u64,
    });
    guest.context.fence(0, 5);
    assert!(
        guest
            .events
            .recv_timeout(Duration::from_millis(30))
            .is_err()
    );
    // The notification must overtake the wait, or both would wait for each other.
    ring.write(&query);
    assert!(matches!(guest.event(), Event::Fence(0, 5)));
    assert_eq!(ring.head(), query.len() as u32);
}

#[test]
fn streams_in_shared_memory_are_executed_but_not_within_each_other() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "streams");
    let mut ring = Ring::new(&guest, 7);
    let version = ring.version();
    let (resource, blob) = guest.blob(0, 4096).unwrap();
    let mut answer = 0;
    let mut version_of = command::EnumerateInstanceVersion {
        p_api_version: &mut answer,
    };
    let inner = query(&version_of);
    blob.memory.write(64, &inner).unwrap();
    let execute = |offset, size| {
        let mut streams = [vk::CommandStreamDescriptionMESA {
            resource_id: resource,
            offset,
            size,
        }];
        bytes(&command::ExecuteCommandStreamsMESA {
            stream_count: 1,
            p_streams: streams.as_mut_slice().into(),
            p_reply_positions: [512].as_mut_slice().into(),
            dependency_count: 0,
            p_dependencies: Array::NULL,
            flags: vk::CommandStreamExecutionFlagsMESA::default(),
        })
    };
    ring.write(&execute(64, inner.len()));
    ring.wait();
    let mut reply = [0; 64];
    ring.shared.memory.read(ring.behind() + 512, &mut reply);
    read_reply(&mut version_of, &reply);
    assert_eq!(answer, version);

    let outer = execute(1024, 0);
    let itself = execute(1024, outer.len());
    blob.memory.write(1024, &itself).unwrap();
    ring.write(&itself);
    let reason = guest.dies();
    assert!(reason.contains("executes command streams"), "{reason}");
    ring.until("the guest is told", || ring.status() & FATAL != 0);
}

#[test]
fn every_prefix_of_a_session_ends_one_context_and_nothing_else() {
    let renderer = renderer();
    let mut session = bytes(&command::CreateInstance {
        p_create_info: &mut vk::InstanceCreateInfo::default(),
        p_instance: &mut vk::Instance(1),
    });
    session.extend(bytes(&command::EnumeratePhysicalDevices {
        instance: Object::guest(1),
        p_physical_device_count: &mut 1,
        p_physical_devices: [vk::PhysicalDevice(2)].as_mut_slice().into(),
    }));
    session.extend(bytes(&command::DestroyInstance {
        instance: Object::guest(1),
    }));
    let mut whole = 0;
    for length in 0..=session.len() {
        let guest = Guest::new(&renderer, "prefix");
        guest.context.submit(session[..length].to_vec());
        guest.context.fence(0, 1);
        match guest.event() {
            Event::Fence(0, 1) => whole += 1,
            Event::Lost(reason) => {
                assert!(reason.contains("stream ends"), "{length}: {reason}");
                assert!(matches!(guest.event(), Event::Fence(0, 1)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(whole, 4, "nothing, one, two and three commands");
}

#[test]
fn what_does_not_belong_there_ends_the_context() {
    let renderer = renderer();
    type Crime = fn(&mut Ring<'_>) -> Vec<u8>;
    let crimes: [(&str, Crime); 6] = [
        ("instead of the virtqueue", |_| {
            bytes(&command::WaitRingSeqnoMESA { ring: 7, seqno: 0 })
        }),
        ("instead of the virtqueue", |_| {
            bytes(&command::SubmitVirtqueueSeqnoMESA { ring: 7, seqno: 0 })
        }),
        ("there is no ring", |_| {
            bytes(&command::DestroyRingMESA { ring: 8 })
        }),
        ("not inside resource", |ring| {
            ring.reply_stream(ring.behind() + REPLIES, 4096)
        }),
        ("extra region", |_| {
            bytes(&command::WriteRingExtraMESA {
                ring: 7,
                offset: 0,
                value: 1,
            })
        }),
        ("reply stream", |_| {
            query(&command::EnumerateInstanceVersion {
                p_api_version: &mut 0,
            })
        }),
    ];
    for (expected, crime) in crimes {
        let guest = Guest::new(&renderer, "criminal");
        let mut ring = Ring::new(&guest, 7);
        let stream = crime(&mut ring);
        ring.write(&stream);
        let reason = guest.dies();
        assert!(
            reason.contains(expected),
            "{reason} does not say {expected}"
        );
        ring.until("the guest is told", || ring.status() & FATAL != 0);
    }
    assert_eq!(
        command::NotifyRingMESA::ID as usize,
        190,
        "what the renderer looks for"
    );
}

#[test]
fn a_resource_can_be_named_as_soon_as_it_is_made_or_attached_and_until_what_came_before_its_end() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "resources");
    let mut ring = Ring::new(&guest, 7);
    let query = bytes(&command::EnumerateInstanceVersion {
        p_api_version: &mut 0,
    });
    // The context's thread is busy with a wait. Attaching must not need it.
    guest.send(&command::WaitRingSeqnoMESA {
        ring: 7,
        seqno: query.len() as u64,
    });
    guest.context.fence(0, 5);
    let name_it = ring.reply_stream(0, 64);
    guest.context.submit(name_it.clone());
    guest.context.detach_resource(ring.shared.resource);
    // The same number for something new, while its former end is still to come.
    guest
        .context
        .attach_resource(ring.shared.resource, &ring.shared.memory.0);
    guest.context.submit(name_it.clone());
    guest.context.fence(0, 6);
    guest.context.detach_resource(ring.shared.resource);
    guest.context.submit(name_it);
    guest.context.fence(0, 7);
    ring.write(&query);
    let mut events = Vec::new();
    while events.len() < 4 {
        events.push(guest.event());
    }
    assert!(
        matches!(
            events.as_slice(),
            [Event::Fence(0, 5), Event::Fence(0, 6), Event::Lost(reason), Event::Fence(0, 7)]
                if reason.contains("not attached")
        ),
        "{events:?}"
    );
}
