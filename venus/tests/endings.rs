//! How contexts end, over the null driver: soon, whatever they are doing; at once when they are
//! lost; and without holding up others when the driver never returns.
#![allow(
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod hostile;
mod played;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hesper_null_driver::hang::{CREATE_SHADER, DEVICE_WAIT_IDLE};
use hesper_venus::{Counters, Renderer, RendererOptions};
use hesper_venus_protocol::runtime::Array;
use hesper_venus_protocol::{command, vk};
use hostile::session::{Id, Session, object};
use hostile::{
    Guest, Outcome, PATIENCE, REPLIES, REPLY_RESOURCE, RING_BUFFER, RING_RESOURCE, RING_SIZE,
};
use played::Played;

fn renderer(driver: &Played) -> Renderer {
    let options = RendererOptions {
        driver: driver.driver(),
        ..Default::default()
    };
    Renderer::new(options).unwrap()
}

/// Waits until the counters are so.
#[track_caller]
fn until(renderer: &Renderer, what: &str, is_so: impl Fn(&Counters) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so(&renderer.counters()) {
        assert!(Instant::now() < end, "{what}: {:?}", renderer.counters());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Fills the ring's resource with commands that do nothing, and makes a command that carries them
/// out `times` times.
fn endless(guest: &Guest, times: usize) -> Vec<u8> {
    let mut inner = Session::default();
    while inner.stream.len() + 24 <= RING_SIZE {
        let flags = vk::RingNotifyFlagsMESA::default();
        let notify = command::NotifyRingMESA {
            ring: 1,
            seqno: 0,
            flags,
        };
        inner.push(&notify, false);
    }
    guest.ring.memory.write(RING_BUFFER, &inner.stream).unwrap();
    execute(&mut vec![
        vk::CommandStreamDescriptionMESA {
            resource_id: RING_RESOURCE,
            offset: RING_BUFFER,
            size: inner.stream.len(),
        };
        times
    ])
}

/// `vkExecuteCommandStreamsMESA`
fn execute(streams: &mut Vec<vk::CommandStreamDescriptionMESA>) -> Vec<u8> {
    let mut session = Session::default();
    session.push(
        &command::ExecuteCommandStreamsMESA {
            stream_count: streams.len() as u32,
            p_streams: streams.as_mut_slice().into(),
            p_reply_positions: Array::NULL,
            dependency_count: 0,
            p_dependencies: Array::NULL,
            flags: Default::default(),
        },
        false,
    );
    session.stream
}

#[test]
fn a_context_that_is_dropped_ends_whatever_its_streams_still_hold() {
    let driver = Played::new();
    let renderer = renderer(&driver);
    let start = Instant::now();
    for _ in 0..30 {
        let guest = Guest::new(&renderer, "endless");
        guest.ring(&[]);
        assert_eq!(guest.settle(0, PATIENCE), Outcome::Fine);
        let before = renderer.counters().wakes;
        // Minutes of work: 2700 commands, 100,000 times.
        guest.context.submit(endless(&guest, 100_000));
        until(&renderer, "it begins", |now| now.wakes > before + 1000);
        drop(guest);
        until(&renderer, "it ends", |now| now.contexts == 0);
    }
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    assert_eq!(renderer.counters().lost, 0);
    assert!(renderer.settle(PATIENCE));
}

#[test]
fn many_empty_streams_end_with_their_context_too() {
    let driver = Played::new();
    let renderer = renderer(&driver);
    let guest = Guest::new(&renderer, "empty");
    let empty = vk::CommandStreamDescriptionMESA {
        resource_id: REPLY_RESOURCE,
        offset: REPLIES,
        size: 0,
    };
    let stream = execute(&mut vec![empty; 1_000_000]);
    for _ in 0..40 {
        guest.context.submit(stream.clone());
    }
    drop(guest);
    until(&renderer, "it ends", |now| now.contexts == 0);
    assert!(renderer.settle(PATIENCE));
}

/// Many calls that the driver may take long for.
fn shaders(count: u64) -> Vec<u8> {
    let mut session = Session::default();
    for number in 0..count {
        let code = [0x0723_0203_u32];
        let mut info = vk::ShaderModuleCreateInfo {
            code_size: 4,
            p_code: code.as_ptr(),
            ..Default::default()
        };
        session.push(
            &command::CreateShaderModule {
                device: object(Id::Device),
                p_create_info: &mut info,
                p_shader_module: &mut vk::ShaderModule(1 << 20 | number),
            },
            false,
        );
    }
    session.stream
}

#[test]
fn no_more_than_one_call_of_the_driver_follows_the_end_of_a_context() {
    let driver = Played::new();
    let renderer = renderer(&driver);
    let guest = Guest::new(&renderer, "slow");
    guest.context.submit(Session::device().stream);
    assert_eq!(guest.settle(0, PATIENCE), Outcome::Fine);
    let before = driver.arrived();
    driver.hang(CREATE_SHADER);
    guest.context.submit(shaders(1000));
    let end = Instant::now() + PATIENCE;
    while driver.arrived() == before {
        assert!(Instant::now() < end, "the driver is not called");
        std::thread::yield_now();
    }
    drop(guest);
    driver.hang(0);
    until(&renderer, "it ends", |now| now.contexts == 0);
    // The call that hung, and the wait for the device before it is destroyed, twice.
    let calls = driver.arrived() - before;
    assert!(calls <= 3, "{calls} calls");
    assert_eq!(renderer.counters().objects, 0);
}

#[test]
fn a_lost_context_frees_its_objects_and_retires_its_fences_before_the_guest_destroys_it() {
    let driver = Played::new();
    let renderer = renderer(&driver);
    let guest = Guest::new(&renderer, "lost");
    let blobs = renderer.counters().shared_bytes;
    guest.context.submit(Session::whole().stream);
    assert_eq!(guest.settle(1, PATIENCE), Outcome::Fine);
    // Its ring waits for something that never comes, and its thread for the ring.
    let mut waits = Session::default();
    waits.push(&command::WaitVirtqueueSeqnoMESA { seqno: 1 }, false);
    guest.ring(&waits.stream);
    until(&renderer, "the ring runs", |now| now.rings == 1);
    let mut more = Session::default();
    more.push(
        &command::WaitRingSeqnoMESA {
            ring: 1,
            seqno: 1 << 20,
        },
        false,
    );
    guest.context.submit(more.stream);
    guest.context.fence(0, 1000);
    guest.context.fence(1, 1001);
    assert!(renderer.counters().objects > 10);
    assert!(renderer.counters().shared_bytes > blobs);
    // More calls than may wait.
    for fence in 0..70_000 {
        guest.context.fence(5, 2000 + fence);
    }
    let outcome = guest.settle(0, PATIENCE);
    assert!(
        outcome.reason().contains("its budget allows"),
        "{outcome:?}"
    );
    until(&renderer, "all is freed", |now| {
        (now.objects, now.rings, now.contexts) == (0, 0, 1)
    });
    assert_eq!(renderer.counters().fences, 70_000 + 4);
    // The guest sees it, and what it has mapped is still there.
    let status = guest.ring.memory.word(128).unwrap();
    assert_eq!(status.load(Ordering::SeqCst) & 2, 2, "FATAL");
    guest.replies.memory.write(0, &[7]).unwrap();
    // It is answered until the end.
    assert_eq!(guest.settle(1, PATIENCE), Outcome::Fine);
    drop(guest);
    until(&renderer, "it ends", |now| {
        now.contexts == 0 && now.shared_bytes == 0
    });
    assert!(renderer.settle(PATIENCE));
}

#[test]
fn a_ring_made_after_the_loss_of_its_context_is_fatal_at_once() {
    let driver = Played::new();
    let renderer = renderer(&driver);
    let guest = Guest::new(&renderer, "late ring");
    guest.context.submit(vec![0xff; 64]);
    guest.ring(&[]);
    assert!(matches!(guest.settle(0, PATIENCE), Outcome::Lost(_)));
    assert_eq!(renderer.counters().rings, 0);
    drop(guest);
    assert!(renderer.settle(PATIENCE));
}

#[test]
fn a_device_that_never_becomes_idle_holds_up_nobody_but_its_own_context() {
    let driver = Played::new();
    let renderer = renderer(&driver);
    driver.hang(DEVICE_WAIT_IDLE);
    let lost = Guest::new(&renderer, "lost");
    let dropped = Guest::new(&renderer, "dropped");
    for guest in [&lost, &dropped] {
        guest.context.submit(Session::whole().stream);
        assert_eq!(guest.settle(1, PATIENCE), Outcome::Fine);
    }
    drop(dropped);
    lost.context.submit(vec![0xff; 64]);
    assert!(matches!(lost.settle(1, PATIENCE), Outcome::Lost(_)));
    // A lost context answers while the driver does not return.
    assert_eq!(lost.settle(1, PATIENCE), Outcome::Fine);
    until(&renderer, "both are given up", |now| now.given_up == 2);
    // Their places stay taken.
    assert_eq!(renderer.counters().contexts, 2);
    drop(lost);
    // Nobody waits for them, and others work.
    let other = Guest::new(&renderer, "other");
    other.context.submit(Session::whole().stream);
    assert_eq!(other.settle(1, PATIENCE), Outcome::Fine);
    let start = Instant::now();
    driver.hang(0);
    drop(other);
    // The driver returns after all.
    until(&renderer, "they end", |now| {
        (now.contexts, now.given_up) == (0, 0)
    });
    assert!(start.elapsed() < PATIENCE);
    assert!(renderer.settle(PATIENCE));
}

#[test]
fn the_end_of_the_process_does_not_wait_for_contexts_that_were_given_up() {
    let driver = Played::new();
    let renderer = renderer(&driver);
    driver.hang(DEVICE_WAIT_IDLE);
    let guest = Guest::new(&renderer, "stuck");
    guest.context.submit(Session::whole().stream);
    assert_eq!(guest.settle(1, PATIENCE), Outcome::Fine);
    drop(guest);
    until(&renderer, "it is given up", |now| now.given_up == 1);
    let start = Instant::now();
    assert!(!renderer.settle(PATIENCE), "it has not ended");
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    driver.hang(0);
    until(&renderer, "it ends", |now| now.contexts == 0);
}
