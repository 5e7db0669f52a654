//! Contexts, host blobs and ring fences. The renderer answers when the test says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;

use hesper_vhost::budget;
use hesper_vhost::device::{Outcome, Queue, Taken};
use hesper_vhost::renderer::{BlobKind, BlobRequest, RendererError};
use hesper_vhost::screen::{NoScreen, Rect};
use hesper_vhost::testing::{
    Chain, DriverQueue, FakeContext, FakeRenderer, Guest, Recorder, Request, ScreenCall, options,
};
use hesper_vhost::wire::{self, *};

fn guest() -> (Guest, Arc<FakeRenderer>) {
    let renderer = FakeRenderer::new();
    let mut guest = Guest::with(
        options(),
        Arc::new(NoScreen),
        vec![Arc::clone(&renderer) as _],
    );
    guest.ok(&Request::create_context(1, 4, "first"));
    guest.ok(&Request::create_context(2, 4, "second"));
    renderer.be_slow(true);
    (guest, renderer)
}

fn request(size: u64, blob_id: u64) -> BlobRequest {
    BlobRequest {
        kind: BlobKind::Host3d,
        blob_id,
        size,
        mappable: true,
        shareable: false,
        cross_device: false,
    }
}

/// The fences that a context was given, in order.
fn fences(renderer: &FakeRenderer, context: u32) -> Vec<(u8, u64)> {
    let calls = renderer.calls(context).into_iter();
    calls
        .filter_map(|call| match call {
            FakeContext::Fence(ring, fence) => Some((ring, fence)),
            _ => None,
        })
        .collect()
}

#[test]
fn the_guest_is_told_of_the_renderers_capability_sets() {
    let (mut guest, renderer) = guest();
    let features = guest.device.features();
    for bit in [
        F_VIRGL,
        F_EDID,
        F_RESOURCE_UUID,
        F_RESOURCE_BLOB,
        F_CONTEXT_INIT,
    ] {
        assert_ne!(features & 1 << bit, 0, "feature {bit}");
    }
    let index = wire::GetCapsetInfo {
        index: 0.into(),
        padding: 0.into(),
    };
    let info = guest.ask(&Request::new(CMD_GET_CAPSET_INFO, &index));
    assert_eq!(info.kind(), RESP_OK_CAPSET_INFO);
    let words: Vec<u32> = info
        .body()
        .chunks(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect();
    assert_eq!(words, [4, 0, 160, 0]);
    let which = wire::GetCapset {
        capset_id: 4.into(),
        version: 0.into(),
    };
    let capset = guest.ask(&Request::new(CMD_GET_CAPSET, &which));
    assert_eq!(capset.kind(), RESP_OK_CAPSET);
    assert_eq!(capset.body(), (0..160).collect::<Vec<u8>>());
    assert_eq!(renderer.name(2).as_deref(), Some("second"));
}

#[test]
fn without_a_renderer_there_is_no_3d() {
    let mut guest = Guest::new();
    let features = guest.device.features();
    assert_eq!(features & (1 << F_VIRGL | 1 << F_CONTEXT_INIT), 0);
    let context = Request::create_context(1, 4, "");
    assert_eq!(guest.code(&context), RESP_ERR_INVALID_PARAMETER);
    let submit = Request::submit(1, &[0; 8]);
    assert_eq!(guest.code(&submit), RESP_ERR_INVALID_CONTEXT_ID);
    let blob = Request::host_blob(1, 1, 0, 4096);
    assert_eq!(guest.code(&blob), RESP_ERR_INVALID_CONTEXT_ID);
}

#[test]
fn the_capability_set_of_a_context_counts_only_with_its_feature() {
    let (mut guest, _) = guest();
    let features = guest.device.features();
    let create = Request::create_context(3, 4, "third");
    guest
        .device
        .set_acked_features(features & !(1 << F_CONTEXT_INIT));
    // Capability set 4 is not virgl, which contexts are by default.
    assert_eq!(guest.code(&create), RESP_ERR_INVALID_PARAMETER);
    guest.device.set_acked_features(features);
    guest.ok(&create);
}

#[test]
fn calls_reach_a_context_in_queue_order() {
    let (mut guest, renderer) = guest();
    guest.ok(&Request::submit(1, &[1; 12]));
    guest.held(&Request::host_blob(1, 5, 77, 8192));
    guest.ok(&Request::submit(1, &[2; 4]));
    guest.held(&Request::submit(1, &[3; 4]).ring_fence(2, 9));
    // A fence alone, as Linux sends it.
    guest.held(&Request::submit(1, &[]).ring_fence(2, 10));
    let calls = renderer.calls(1);
    assert_eq!(calls[0], FakeContext::Submit(vec![1; 12]));
    assert_eq!(calls[1], FakeContext::Create(5, request(8192, 77)));
    assert_eq!(calls[2], FakeContext::Submit(vec![2; 4]));
    assert_eq!(calls[3], FakeContext::Submit(vec![3; 4]));
    assert!(matches!(calls[4], FakeContext::Fence(2, _)), "{calls:?}");
    assert!(matches!(calls[5], FakeContext::Fence(2, _)), "{calls:?}");
    assert_eq!(calls.len(), 6);
}

#[test]
fn fences_of_different_rings_and_contexts_do_not_wait_for_each_other() {
    let (mut guest, renderer) = guest();
    let slow = guest.held(&Request::submit(1, &[1; 4]).ring_fence(1, 100));
    let fast = guest.held(&Request::submit(1, &[2; 4]).ring_fence(3, 101));
    let other = guest.held(&Request::submit(2, &[3; 4]).ring_fence(1, 100));
    let first = fences(&renderer, 1);
    let second = fences(&renderer, 2);
    renderer.retire(1, 3, first[1].1);
    assert_eq!(guest.late(), [fast]);
    renderer.retire(2, 1, second[0].1);
    assert_eq!(guest.late(), [other]);
    renderer.retire(1, 1, first[0].1);
    assert_eq!(guest.late(), [slow]);
    let header = guest.reply(slow).header();
    assert_eq!(header.fence_id.get(), 100);
    assert_eq!(header.context_id.get(), 1);
    assert_eq!(header.ring_index, 1);
}

#[test]
fn a_retired_fence_answers_the_earlier_ones_of_its_ring_first_and_only_once() {
    let (mut guest, renderer) = guest();
    let heads: Vec<u16> = (0..3)
        .map(|fence| guest.held(&Request::submit(1, &[1; 4]).ring_fence(1, fence)))
        .collect();
    let fences = fences(&renderer, 1);
    renderer.retire(1, 1, fences[1].1);
    assert_eq!(guest.late(), heads[..2]);
    renderer.retire(1, 1, fences[0].1);
    renderer.retire(1, 1, fences[1].1);
    renderer.retire(1, 2, fences[2].1);
    renderer.retire(2, 1, fences[2].1);
    assert!(guest.late().is_empty());
    renderer.retire(1, 1, fences[2].1);
    assert_eq!(guest.late(), heads[2..]);
}

#[test]
fn a_fence_without_ring_is_one_of_the_global_timeline() {
    let (mut guest, renderer) = guest();
    let submit = guest.held(&Request::submit(1, &[1; 4]).fence(7));
    guest.ok(&Request::create_2d(9, FORMAT_B8G8R8X8, 4, 4));
    // Linux would signal fence 7 with 8.
    let after = guest.held(&Request::unref(9).fence(8));
    let fences = fences(&renderer, 1);
    assert_eq!(fences[0].0, 0, "ring 0 of the context");
    renderer.retire(1, 0, fences[0].1);
    assert_eq!(guest.late(), [submit, after]);
}

#[test]
fn a_stalled_context_delays_no_2d_no_cursor_and_no_other_context() {
    let screen = Arc::new(Recorder::default());
    let renderer = FakeRenderer::new();
    let mut guest = Guest::with(
        options(),
        Arc::clone(&screen) as _,
        vec![Arc::clone(&renderer) as _],
    );
    guest.ok(&Request::create_context(1, 4, "stalled"));
    guest.ok(&Request::create_context(2, 4, "running"));
    renderer.be_slow(true);
    guest.held(&Request::host_blob(1, 5, 0, 4096));
    guest.held(&Request::map_blob(5, 0));
    guest.held(&Request::attach(1, 5));
    guest.held(&Request::submit(1, &[1; 4]).ring_fence(1, 1));
    renderer.be_slow(false);
    guest.held_ok(&Request::host_blob(2, 6, 0, 4096));
    assert_eq!(guest.code(&Request::map_blob(6, 1 << 20)), RESP_OK_MAP_INFO);
    guest.ok(&Request::submit(2, &[1; 4]).ring_fence(1, 1));
    guest.image(9, FORMAT_B8G8R8X8, 8, 8);
    let all = Rect {
        x: 0,
        y: 0,
        width: 8,
        height: 8,
    };
    guest.ok(&Request::transfer(9, all, 0).fence(1));
    guest.ok(&Request::set_scanout(0, 9, all));
    guest.ok(&Request::flush(9, all).fence(2));
    guest.cursor(&Request::move_cursor(0, 4, 5));
    assert_eq!(screen.calls().last(), Some(&ScreenCall::Move(0, (4, 5))));
    assert_eq!(guest.open(), 4);
}

#[test]
fn commands_about_a_blob_wait_until_it_is_made_and_then_run_in_order() {
    let (mut guest, renderer) = guest();
    let create = guest.held(&Request::host_blob(1, 5, 0, 4096));
    let map = guest.held(&Request::map_blob(5, 0x4000));
    let attach = guest.held(&Request::attach(2, 5));
    // Context 2 must not see this before the attach.
    let submit = guest.held(&Request::submit(2, &[9; 4]));
    let unmap = guest.held(&Request::unmap_blob(5));
    let unref = guest.held(&Request::unref(5));
    assert_eq!(renderer.calls(2), []);
    renderer.make_blob(1, 5, 4096);
    assert_eq!(guest.late(), [create, map, attach, submit, unmap, unref]);
    assert_eq!(
        renderer.calls(2),
        [
            FakeContext::Attach(5, 4096),
            FakeContext::Submit(vec![9; 4]),
            FakeContext::Detach(5),
        ]
    );
    let info = guest.reply(map);
    assert_eq!(info.kind(), RESP_OK_MAP_INFO);
    assert_eq!(info.body()[0], MAP_CACHE_WC as u8);
    assert_eq!(guest.host.mappings(), []);
    assert_eq!(guest.device.usage().resources, 0);
}

#[test]
fn a_blob_is_attached_to_its_maker_when_it_is_made() {
    let (mut guest, renderer) = guest();
    let made = |guest: &mut Guest, id| {
        let create = guest.held(&Request::host_blob(1, id, 0, 4096));
        renderer.make_blob(1, id, 4096);
        assert_eq!(guest.late(), [create]);
        assert!(matches!(
            renderer.calls(1)[..],
            [FakeContext::Create(of, _)] if of == id
        ));
    };
    // The renderer attached it. The driver's own attach changes nothing, and its detach works.
    made(&mut guest, 5);
    guest.ok(&Request::attach(1, 5));
    assert_eq!(renderer.calls(1), []);
    guest.ok(&Request::detach(1, 5));
    assert_eq!(renderer.calls(1), [FakeContext::Detach(5)]);
    guest.ok(&Request::attach(1, 5));
    assert_eq!(renderer.calls(1), [FakeContext::Attach(5, 4096)]);
    guest.ok(&Request::unref(5));
    assert_eq!(renderer.calls(1), [FakeContext::Detach(5)]);
    // A driver that never attaches: the renderer is told of the end all the same.
    made(&mut guest, 6);
    guest.ok(&Request::unref(6));
    assert_eq!(renderer.calls(1), [FakeContext::Detach(6)]);
    // The next context with the maker's id has it not attached.
    made(&mut guest, 7);
    guest.ok(&Request::destroy_context(1));
    guest.ok(&Request::create_context(1, 4, "next"));
    renderer.calls(1);
    guest.ok(&Request::attach(1, 7));
    assert_eq!(renderer.calls(1), [FakeContext::Attach(7, 4096)]);
}

#[test]
fn a_blob_that_cannot_be_made_answers_its_error_and_frees_its_id() {
    let (mut guest, renderer) = guest();
    for (error, code) in [
        (
            RendererError::Invalid("no object 3".into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            RendererError::OutOfMemory("budget".into()),
            RESP_ERR_OUT_OF_MEMORY,
        ),
        (RendererError::ContextLost("fatal".into()), RESP_ERR_UNSPEC),
    ] {
        let create = guest.held(&Request::host_blob(1, 5, 3, 4096));
        let map = guest.held(&Request::map_blob(5, 0));
        renderer.fail_blob(1, 5, error);
        assert_eq!(guest.late(), [create, map]);
        assert_eq!(guest.reply(create).kind(), code);
        assert_eq!(guest.reply(map).kind(), RESP_ERR_INVALID_RESOURCE_ID);
    }
    // A renderer that returns less than was asked for.
    let create = guest.held(&Request::host_blob(1, 5, 3, 8192));
    renderer.make_blob(1, 5, 4096);
    assert_eq!(guest.late(), [create]);
    assert_eq!(guest.reply(create).kind(), RESP_ERR_INVALID_PARAMETER);
    assert_eq!(guest.device.usage().resources, 0);
}

#[test]
fn destroying_a_context_answers_everything_that_waits_for_it() {
    let (mut guest, renderer) = guest();
    let fenced = guest.held(&Request::submit(1, &[1; 4]).ring_fence(1, 1));
    let global = guest.held(&Request::submit(1, &[1; 4]).fence(1));
    let create = guest.held(&Request::host_blob(1, 5, 0, 4096));
    let attach = guest.held(&Request::attach(2, 5));
    let old = renderer.reports(1);
    guest.ok(&Request::destroy_context(1));
    let mut late = guest.late();
    late.sort_unstable();
    let mut all = [fenced, global, create, attach];
    all.sort_unstable();
    assert_eq!(late, all);
    assert_eq!(guest.reply(fenced).kind(), RESP_OK_NODATA);
    assert_eq!(guest.reply(create).kind(), RESP_ERR_UNSPEC);
    assert_eq!(guest.reply(attach).kind(), RESP_ERR_INVALID_RESOURCE_ID);
    assert_eq!(renderer.calls(1).last(), Some(&FakeContext::Ended));
    // Late messages of the old context do not concern the new one of the same id.
    guest.ok(&Request::create_context(1, 4, "again"));
    let create = guest.held(&Request::host_blob(1, 5, 0, 4096));
    old.blob_created(1, 5, Err(RendererError::Invalid("late".into())));
    assert!(guest.late().is_empty());
    renderer.make_blob(1, 5, 4096);
    assert_eq!(guest.late(), [create]);
    assert_eq!(guest.reply(create).kind(), RESP_OK_NODATA);
}

#[test]
fn a_reset_ends_contexts_and_ignores_what_they_say_later() {
    let (mut guest, renderer) = guest();
    guest.held(&Request::submit(1, &[1; 4]).ring_fence(1, 1));
    guest.held(&Request::host_blob(1, 5, 0, 4096));
    guest.held(&Request::map_blob(5, 0));
    let old = renderer.reports(1);
    let fence = fences(&renderer, 1)[0].1;
    guest.reset();
    assert_eq!(renderer.calls(1).last(), Some(&FakeContext::Ended));
    assert_eq!(guest.device.usage(), Default::default());
    guest.ok(&Request::create_context(1, 4, "next driver"));
    let submit = guest.held(&Request::submit(1, &[1; 4]).ring_fence(1, 1));
    let create = guest.held(&Request::host_blob(1, 5, 0, 4096));
    old.fence_retired(1, 1, fence);
    old.fence_retired(1, 1, u64::MAX);
    old.blob_created(1, 5, Err(RendererError::ContextLost("old".into())));
    assert!(guest.late().is_empty());
    renderer.make_blob(1, 5, 4096);
    renderer.retire(1, 1, u64::MAX);
    assert_eq!(guest.late(), [create, submit]);
}

#[test]
fn a_map_that_the_vmm_refuses_leaves_the_place_free() {
    let (mut guest, renderer) = guest();
    renderer.be_slow(false);
    guest.held_ok(&Request::host_blob(1, 5, 0, 4096));
    guest.host.refuse_maps(true);
    assert_eq!(guest.code(&Request::map_blob(5, 0)), RESP_ERR_UNSPEC);
    guest.host.refuse_maps(false);
    assert_eq!(guest.code(&Request::map_blob(5, 0)), RESP_OK_MAP_INFO);
    assert_eq!(guest.host.mappings(), [(0, 4096)]);
    // A driver should unmap first. If it does not, the device unmaps.
    guest.ok(&Request::unref(5));
    assert_eq!(guest.host.mappings(), []);
    assert_eq!(guest.device.usage().mappings, 0);
}

#[test]
fn bytes_that_wait_for_a_blob_have_a_limit() {
    let (mut guest, renderer) = guest();
    let big = vec![0; 16 << 20];
    let fit = (budget::QUEUED_BYTES / big.len() as u64) as usize - 1;
    // Others are with a renderer that has not consumed them.
    for _ in 4..fit {
        guest.ok(&Request::submit(1, &big));
    }
    guest.held(&Request::host_blob(1, 5, 0, 4096));
    guest.held(&Request::attach(2, 5));
    let parked: Vec<u16> = (0..4)
        .map(|_| guest.held(&Request::submit(2, &big)))
        .collect();
    assert_eq!(
        guest.code(&Request::submit(2, &big)),
        RESP_ERR_OUT_OF_MEMORY
    );
    renderer.make_blob(1, 5, 4096);
    assert_eq!(guest.late()[2..], parked);
    renderer.consume();
    guest.ok(&Request::submit(2, &big));
}

/// The charge travels with the commands until the renderer has consumed them, whichever context
/// they are for.
#[test]
fn bytes_that_no_context_has_consumed_have_one_limit_for_the_guest() {
    let (mut guest, renderer) = guest();
    let big = vec![0; 16 << 20];
    let fit = (budget::QUEUED_BYTES / big.len() as u64) as u32 - 1;
    for n in 0..fit {
        guest.ok(&Request::submit(1 + n % 2, &big));
    }
    for context in [1, 2] {
        let refused = Request::submit(context, &big).fence(7);
        let reply = guest.ask(&refused);
        assert_eq!(reply.kind(), RESP_ERR_OUT_OF_MEMORY);
        assert_eq!(reply.header().fence_id.get(), 7);
        // What fits goes on, and nothing that was taken is lost.
        guest.ok(&Request::submit(context, &[1]));
        let calls = renderer.calls(context);
        let submits = calls
            .iter()
            .filter(|call| matches!(call, FakeContext::Submit(_)));
        assert_eq!(submits.count() as u32, (fit + 2 - context) / 2 + 1);
    }
    renderer.consume();
    assert_eq!(guest.device.usage().queued_bytes, 0);
    guest.ok(&Request::submit(1, &big));
}

/// A queue's thread took the chain from its ring, and the device was reset before it came here.
#[test]
fn a_chain_that_was_taken_before_a_reset_is_forgotten() {
    let (mut guest, renderer) = guest();
    let taken = Taken {
        ring: 0,
        resets: guest.device.resets(),
    };
    let memory = guest.memory.clone();
    let mut driver = DriverQueue::new(&memory, 0x1000, 1 << 20, 100 << 20);
    let create = Request::create_2d(1, FORMAT_B8G8R8X8, 32, 32);
    let (chain, _) = driver.post(&memory, &Chain::of(&create.fence(1)));
    guest.reset();
    let outcome = guest.device.handle(Queue::Control, &memory, chain, taken);
    assert_eq!(outcome, Outcome::Held);
    assert_eq!(guest.device.usage(), Default::default());
    assert_eq!(guest.late(), [0_u16; 0]);
    drop(renderer);
}

/// A guest can name any context and ring in a fenced flush. Nothing may be kept for those that do
/// not exist.
#[test]
fn fences_of_contexts_that_do_not_exist_leave_nothing() {
    let screen = Arc::new(Recorder::default());
    screen.be_slow(true);
    let mut guest = Guest::with(options(), Arc::clone(&screen) as _, Vec::new());
    guest.image(1, FORMAT_B8G8R8X8, 32, 32);
    let all = Rect {
        x: 0,
        y: 0,
        width: 32,
        height: 32,
    };
    guest.ok(&Request::set_scanout(0, 1, all));
    for n in 1..20_000_u32 {
        let flush = Request::flush(1, all).context(n);
        let head = guest.held(&flush.ring_fence((n % 64) as u8, n.into()));
        assert_eq!(guest.device.usage().rings, 0);
        for token in screen.tokens() {
            guest.device.flush_done(token);
        }
        assert_eq!(guest.late(), [head], "the fence waits for the screen");
        let reply = guest.reply(head);
        assert_eq!(reply.kind(), RESP_OK_NODATA);
        assert_eq!(reply.header().fence_id.get(), u64::from(n));
        assert_eq!(reply.header().context_id.get(), n);
    }
    assert_eq!(guest.device.usage().held, 0);
}

#[test]
fn rings_of_live_contexts_are_kept_in_small_number() {
    let (mut guest, renderer) = guest();
    renderer.be_slow(false);
    for context in 3..40 {
        guest.ok(&Request::create_context(context, 4, ""));
        for ring in 0..=255 {
            let submit = Request::submit(context, &[1]);
            guest.ok(&submit.ring_fence(ring, 1));
        }
        renderer.calls(context);
    }
    assert!(guest.device.usage().rings <= 256);
    for context in 1..40 {
        guest.ok(&Request::destroy_context(context));
    }
    assert_eq!(guest.device.usage().rings, 0);
}

#[test]
fn sizes_follow_the_blob_alignment_of_a_16_kib_host() {
    let renderer = FakeRenderer::new();
    let options = hesper_vhost::device::DeviceOptions {
        blob_alignment: 16384,
        ..options()
    };
    let mut guest = Guest::with(
        options,
        Arc::new(NoScreen),
        vec![Arc::clone(&renderer) as _],
    );
    assert_ne!(guest.device.features() & 1 << F_BLOB_ALIGNMENT, 0);
    let mut config = [0; 24];
    guest.device.read_config(0, &mut config);
    assert_eq!(config[16..20], 16384_u32.to_le_bytes());
    guest.ok(&Request::create_context(1, 4, ""));
    let odd = Request::host_blob(1, 5, 0, 4096);
    assert_eq!(guest.code(&odd), RESP_ERR_INVALID_PARAMETER);
    guest.held_ok(&Request::host_blob(1, 5, 0, 16384));
    assert_eq!(
        guest.code(&Request::map_blob(5, 4096)),
        RESP_ERR_INVALID_PARAMETER
    );
    assert_eq!(guest.code(&Request::map_blob(5, 32768)), RESP_OK_MAP_INFO);
}
