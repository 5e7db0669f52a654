//! Several renderers in one device, and renderers that answer in guest memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;

use hesper_vhost::renderer::GUEST_WRITE;
use hesper_vhost::screen::NoScreen;
use hesper_vhost::testing::{FakeContext, FakeRenderer, Guest, Request, options};
use hesper_vhost::wire::{self, *};
use vm_memory::{Bytes, GuestAddress};

/// Where `num_capsets` is in the configuration space.
const NUM_CAPSETS: u32 = 12;

fn guest(renderers: &[&Arc<FakeRenderer>]) -> Guest {
    let renderers = renderers.iter().map(|one| Arc::clone(one) as _).collect();
    Guest::with(options(), Arc::new(NoScreen), renderers)
}

fn read(guest: &Guest, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let memory = &guest.memory;
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .unwrap();
    bytes
}

fn capset_info(index: u32) -> Request {
    let body = wire::GetCapsetInfo {
        index: index.into(),
        padding: 0.into(),
    };
    Request::new(CMD_GET_CAPSET_INFO, &body)
}

fn capset(id: u32) -> Request {
    let body = wire::GetCapset {
        capset_id: id.into(),
        version: 0.into(),
    };
    Request::new(CMD_GET_CAPSET, &body)
}

#[test]
fn the_capability_sets_of_all_renderers_are_one_list() {
    let venus = FakeRenderer::new();
    let other = FakeRenderer::with_capset(5, 16);
    let mut guest = guest(&[&venus, &other]);
    let mut count = [0; 4];
    guest.device.read_config(NUM_CAPSETS, &mut count);
    assert_eq!(u32::from_le_bytes(count), 2);
    for (index, id, size) in [(0, 4, 160_u8), (1, 5, 16)] {
        let info = guest.ask(&capset_info(index));
        assert_eq!(info.kind(), RESP_OK_CAPSET_INFO);
        let words: Vec<u32> = info
            .body()
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(words, [id, 0, size.into(), 0]);
        let bytes = guest.ask(&capset(id));
        assert_eq!(bytes.body(), (0..size).collect::<Vec<u8>>());
    }
    assert_eq!(guest.code(&capset_info(2)), RESP_ERR_INVALID_PARAMETER);
    assert_eq!(guest.code(&capset(2)), RESP_ERR_INVALID_PARAMETER);
}

#[test]
fn a_context_goes_to_the_renderer_of_its_capability_set_and_no_other_hears_of_it() {
    let venus = FakeRenderer::new();
    let other = FakeRenderer::with_capset(5, 16);
    let mut guest = guest(&[&venus, &other]);
    guest.ok(&Request::create_context(1, 4, "first"));
    guest.ok(&Request::create_context(2, 5, "second"));
    assert_eq!(venus.name(1).as_deref(), Some("first"));
    assert_eq!(other.name(2).as_deref(), Some("second"));
    assert_eq!((venus.name(2), other.name(1)), (None, None));

    guest.ok(&Request::submit(1, b"to the first"));
    guest.ok(&Request::submit(2, b"to the second"));
    let told = |bytes: &[u8]| vec![FakeContext::Submit(bytes.to_vec())];
    assert_eq!(venus.calls(1), told(b"to the first"));
    assert_eq!(other.calls(2), told(b"to the second"));

    // A slow renderer delays only its own fences.
    other.be_slow(true);
    let fenced = |context| Request::submit(context, b"....").ring_fence(1, 7);
    let slow = guest.held(&fenced(2));
    guest.ok(&fenced(1));
    guest.ok(&Request::destroy_context(2));
    assert_eq!(guest.late(), [slow]);
    assert_eq!(guest.reply(slow).kind(), RESP_OK_NODATA);
    assert_eq!(other.calls(2).last(), Some(&FakeContext::Ended));
    assert!(!venus.calls(1).contains(&FakeContext::Ended));
}

#[test]
fn a_blob_of_one_renderer_is_shown_to_a_context_of_another() {
    let venus = FakeRenderer::new();
    let other = FakeRenderer::with_capset(5, 16);
    let mut guest = guest(&[&venus, &other]);
    guest.ok(&Request::create_context(1, 4, ""));
    guest.ok(&Request::create_context(2, 5, ""));
    guest.held_ok(&Request::host_blob(1, 9, 0, 8192));
    guest.ok(&Request::attach(2, 9));
    assert_eq!(other.calls(2), [FakeContext::Attach(9, 8192)]);
}

#[test]
fn a_renderer_writes_into_a_guest_blob_until_the_guest_has_its_pages_back() {
    let renderer = FakeRenderer::with_capset(5, 16);
    let mut guest = guest(&[&renderer]);
    guest.ok(&Request::create_context(1, 5, ""));
    // Two pages in the wrong order.
    let first = guest.pages(8192);
    let entries = [(first + 4096, 4096), (first, 4096)];
    guest.ok(&Request::guest_blob(3, 8192, &entries));
    guest.ok(&Request::attach(1, 3));
    let pages = renderer.pages(1, 3).expect("a guest blob has pages");
    assert_eq!(pages.size(), 8192);

    let bytes: Vec<u8> = (0..200).collect();
    assert!(pages.write(4000, &bytes));
    assert_eq!(read(&guest, first + 4096 + 4000, 96), bytes[..96]);
    assert_eq!(read(&guest, first, 104), bytes[96..]);
    assert!(!pages.write(8100, &bytes), "past the end");
    assert!(!pages.write(u64::MAX, &bytes));
    assert!(!pages.write(0, &vec![0; GUEST_WRITE + 1]));

    // A new resource with the same id is another one, even with the same pages.
    guest.ok(&Request::unref(3));
    assert!(!pages.write(0, b"late"));
    guest.ok(&Request::guest_blob(3, 8192, &entries));
    assert!(!pages.write(0, b"late"));
    assert_eq!(read(&guest, first + 4096, 4), [0; 4]);
}

#[test]
fn a_renderer_does_not_write_into_the_memory_of_a_guest_that_was_reset() {
    let renderer = FakeRenderer::with_capset(5, 16);
    let mut guest = guest(&[&renderer]);
    guest.ok(&Request::create_context(1, 5, ""));
    let page = guest.pages(4096);
    guest.ok(&Request::guest_blob(3, 4096, &[(page, 4096)]));
    guest.ok(&Request::attach(1, 3));
    let pages = renderer.pages(1, 3).expect("a guest blob has pages");
    assert!(pages.write(0, b"early"));
    guest.device.reset();
    assert!(!pages.write(0, b"late."));
    assert_eq!(read(&guest, page, 5), b"early");
    drop(guest);
    assert!(!pages.write(0, b"later"));
}
