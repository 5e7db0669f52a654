//! What no driver should send gets the error code of the specification, and the device goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod table;
mod three_d;

use hesper_vhost::budget;
use hesper_vhost::device::Queue;
use hesper_vhost::testing::{Chain, Guest, Posted, Request};
use hesper_vhost::wire::*;

use table::{FORMAT, changed, guest, rect, table};

/// A good command that touches memory on both sides.
fn still_works(guest: &mut Guest, after: &str) {
    let before = guest.device.usage();
    let reply = guest.ask(&Request::transfer(1, rect(0, 0, 64, 32), 0));
    assert_eq!(reply.kind(), RESP_OK_NODATA, "after {after}");
    guest.ok(&Request::create_2d(77, FORMAT, 16, 16));
    guest.ok(&Request::unref(77));
    assert_eq!(guest.device.usage(), before, "after {after}");
}

#[test]
fn every_malformed_command_gets_its_error_code_and_changes_nothing() {
    let mut guest = guest();
    let before = guest.device.usage();
    for (name, request, code) in table() {
        let reply = guest.ask(&request);
        assert_eq!(reply.kind(), code, "{name}: {:#x}", reply.kind());
        assert_eq!(reply.written, 24, "{name}");
        assert_eq!(guest.device.usage(), before, "{name}");
        still_works(&mut guest, name);
    }
}

/// One good request of every type that has a body.
fn good() -> Vec<Request> {
    vec![
        Request::create_2d(30, FORMAT, 4, 4),
        Request::unref(30),
        Request::attach_backing(2, &[(0x10_0000, 8192)]),
        Request::detach_backing(2),
        Request::transfer(1, rect(0, 0, 4, 4), 0),
        Request::set_scanout(0, 1, rect(0, 0, 4, 4)),
        Request::flush(1, rect(0, 0, 4, 4)),
        Request::set_scanout_blob(0, 3, FORMAT, 8, 8),
        Request::guest_blob(31, 4096, &[(0x10_0000, 4096)]),
        Request::resource(CMD_RESOURCE_ASSIGN_UUID, 1),
        Request::create_context(3, 4, "x"),
        Request::attach(3, 1),
        Request::detach(3, 1),
        Request::submit(3, &[1, 2, 3, 4]),
        Request::unmap_blob(4),
        Request::map_blob(4, 0),
        changed(CMD_GET_EDID, |_: &mut GetEdid| {}),
        changed(CMD_GET_CAPSET_INFO, |_: &mut GetCapsetInfo| {}),
        changed(CMD_GET_CAPSET, |body: &mut GetCapset| {
            body.capset_id = 4.into();
        }),
    ]
}

#[test]
fn a_request_cut_short_anywhere_is_an_error_and_one_too_long_is_not() {
    let mut guest = guest();
    for request in good() {
        let whole = request.bytes();
        for length in 0..whole.len() {
            let chain = Chain {
                request: whole[..length].to_vec(),
                ..Chain::of(&request)
            };
            let Posted::Answered(reply) = guest.post(Queue::Control, &chain) else {
                panic!("{request:?} cut to {length} bytes is held");
            };
            let code = reply.kind();
            assert_eq!(
                code, RESP_ERR_INVALID_PARAMETER,
                "{request:?} cut to {length}"
            );
        }
        let long = request.clone().then(&[0xee; 5000]);
        let kind = guest.code(&long);
        assert_eq!(kind & 0xff00, 0x1100, "{request:?} with a tail: {kind:#x}");
    }
}

#[test]
fn a_chain_without_room_for_its_answer_does_nothing_and_says_so() {
    let mut guest = guest();
    let before = guest.device.usage();
    for request in good() {
        for room in [vec![], vec![0, 0], vec![23], vec![10, 13]] {
            let chain = Chain {
                room,
                ..Chain::of(&request)
            };
            let Posted::Answered(reply) = guest.post(Queue::Control, &chain) else {
                panic!("{request:?} was held");
            };
            assert_eq!(reply.written, 0, "{request:?}");
        }
        assert_eq!(guest.device.usage(), before, "{request:?}");
    }
    // Room for the header but not for the answer: an error, and nothing done.
    for request in [
        Request::bare(CMD_GET_DISPLAY_INFO),
        changed(CMD_GET_EDID, |_: &mut GetEdid| {}),
        changed(CMD_GET_CAPSET_INFO, |_: &mut GetCapsetInfo| {}),
        changed(CMD_GET_CAPSET, |body: &mut GetCapset| {
            body.capset_id = 4.into();
        }),
        Request::map_blob(5, 1 << 20),
        Request::resource(CMD_RESOURCE_ASSIGN_UUID, 1),
    ] {
        let chain = Chain {
            room: vec![31],
            ..Chain::of(&request)
        };
        let Posted::Answered(reply) = guest.post(Queue::Control, &chain) else {
            panic!("{request:?} was held");
        };
        assert_eq!(reply.kind(), RESP_ERR_UNSPEC, "{request:?}");
        assert_eq!(reply.written, 24, "{request:?}");
    }
    assert_eq!(guest.device.usage(), before);
    still_works(&mut guest, "chains without room");
}

#[test]
fn an_empty_chain_comes_back() {
    let mut guest = guest();
    let empty = Chain {
        request: Vec::new(),
        cuts: Vec::new(),
        room: Vec::new(),
        indirect: false,
    };
    for queue in [Queue::Control, Queue::Cursor] {
        for indirect in [false, true] {
            let chain = Chain {
                indirect,
                ..empty.clone()
            };
            let Posted::Answered(reply) = guest.post(queue, &chain) else {
                panic!("an empty chain was held");
            };
            assert_eq!(reply.written, 0);
        }
    }
    still_works(&mut guest, "an empty chain");
}

#[test]
fn overlapping_and_repeated_backing_pages_are_the_guests_own_affair() {
    let mut guest = guest();
    let page = guest.pages(4096);
    guest.ok(&Request::attach_backing(
        2,
        &[(page, 4096), (page + 8, 4088), (page, 8)],
    ));
    guest.ok(&Request::transfer(2, rect(0, 0, 64, 32), 0));
    // Entries of no bytes count for nothing.
    guest.ok(&Request::detach_backing(2));
    guest.ok(&Request::attach_backing(
        2,
        &[(u64::MAX, 0), (page, 4096), (0, 0)],
    ));
    guest.ok(&Request::transfer(2, rect(0, 0, 64, 16), 0));
    still_works(&mut guest, "overlapping pages");
}

#[test]
fn rectangles_of_no_pixels_are_done_at_once() {
    let mut guest = guest();
    guest.ok(&Request::transfer(1, rect(0, 0, 0, 32), u64::MAX));
    guest.ok(&Request::transfer(1, rect(64, 32, 0, 0), 0));
    guest.ok(&Request::flush(1, rect(3, 3, 0, 0)));
}

#[test]
fn a_hundred_thousand_resources_end_at_the_documented_limit() {
    let mut guest = Guest::new();
    let mut made = 0;
    for id in 1..=100_000 {
        match guest.code(&Request::create_2d(id, FORMAT, 1, 1)) {
            RESP_OK_NODATA => made += 1,
            RESP_ERR_OUT_OF_MEMORY => {}
            other => panic!("resource {id}: {other:#x}"),
        }
    }
    assert_eq!(made, budget::RESOURCES);
    let usage = guest.device.usage();
    assert_eq!(usage.resources, budget::RESOURCES);
    assert!(usage.pixel_bytes <= budget::PIXEL_BYTES);
    guest.ok(&Request::unref(1));
    guest.ok(&Request::create_2d(200_000, FORMAT, 1, 1));
    guest.reset();
    assert_eq!(guest.device.usage(), Default::default());
}

#[test]
fn pixel_memory_ends_at_the_documented_limit_also_through_scanouts_of_blobs() {
    let mut guest = Guest::new();
    // 16384 × 4096 × 4 = 256 MiB each.
    for id in 1..=4 {
        guest.ok(&Request::create_2d(id, FORMAT, 16384, 4096));
    }
    let page = guest.pages(4096);
    guest.ok(&Request::guest_blob(9, 4096, &[(page, 4096)]));
    let show = Request::set_scanout_blob(0, 9, FORMAT, 8, 8);
    assert_eq!(
        guest.code(&Request::create_2d(5, FORMAT, 1, 1)),
        RESP_ERR_OUT_OF_MEMORY
    );
    assert_eq!(guest.code(&show), RESP_ERR_OUT_OF_MEMORY);
    assert_eq!(guest.device.usage().pixel_bytes, budget::PIXEL_BYTES);
    guest.ok(&Request::unref(4));
    guest.ok(&Request::create_2d(5, FORMAT, 1, 1));
    guest.ok(&show);
}

#[test]
fn contexts_and_mappings_end_at_their_documented_limits() {
    let mut guest = guest();
    for id in 2..=budget::CONTEXTS as u32 {
        guest.ok(&Request::create_context(id, 4, ""));
    }
    let more = Request::create_context(budget::CONTEXTS as u32 + 1, 4, "");
    assert_eq!(guest.code(&more), RESP_ERR_OUT_OF_MEMORY);
    guest.ok(&Request::destroy_context(2));
    guest.ok(&more);
    // One is mapped already.
    for index in 1..=budget::MAPPINGS as u32 {
        let id = 100 + index;
        guest.held_ok(&Request::host_blob(1, id, 0, 4096));
        let expected = if (index as usize) < budget::MAPPINGS {
            RESP_OK_MAP_INFO
        } else {
            RESP_ERR_OUT_OF_MEMORY
        };
        let map = Request::map_blob(id, u64::from(index) * 4096);
        assert_eq!(guest.code(&map), expected, "mapping {index}");
    }
}

#[test]
fn backing_entries_end_at_the_documented_limit() {
    let mut guest = Guest::new();
    let entries: Vec<(u64, u32)> = (0..1_400_000).map(|i| (i % 2 * 8192, 4096)).collect();
    for (id, code) in [
        (1, RESP_OK_NODATA),
        (2, RESP_OK_NODATA),
        (3, RESP_ERR_OUT_OF_MEMORY),
    ] {
        guest.ok(&Request::create_2d(id, FORMAT, 4, 4));
        assert_eq!(guest.code(&Request::attach_backing(id, &entries)), code);
    }
    assert_eq!(guest.device.usage().backing_entries, 2_800_000);
    guest.ok(&Request::detach_backing(1));
    guest.ok(&Request::attach_backing(3, &entries));
    // Neighbours are joined, and only what is kept counts.
    let row: Vec<(u64, u32)> = (0..1000).map(|i| (i * 4096, 4096)).collect();
    guest.ok(&Request::attach_backing(1, &row));
    assert_eq!(guest.device.usage().backing_entries, 2_800_001);
}
