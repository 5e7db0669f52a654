//! The 2D commands, from the guest's bytes to the pixels on the screen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;

use hesper_vhost::screen::{PixelFormat, Rect};
use hesper_vhost::testing::{
    Chain, FakeRenderer, Guest, PAGE, Posted, Recorder, Request, ScreenCall, options,
};
use hesper_vhost::wire;
use vm_memory::{Bytes, GuestAddress};

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

fn guest() -> (Guest, Arc<Recorder>) {
    let screen = Arc::new(Recorder::default());
    let guest = Guest::with(options(), Arc::clone(&screen) as _, Vec::new());
    (guest, screen)
}

/// Bytes that differ from pixel to pixel and from row to row.
fn pattern(bytes: usize, seed: u32) -> Vec<u8> {
    (0..bytes as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 24) as u8)
        .collect()
}

/// The rows of a rectangle of an image.
fn crop(image: &[u8], width: u32, area: Rect) -> Vec<u8> {
    (area.y..area.y + area.height)
        .flat_map(|y| {
            let start = ((y * width + area.x) * 4) as usize;
            image[start..start + (area.width * 4) as usize].to_vec()
        })
        .collect()
}

const FORMATS: [(u32, PixelFormat); 8] = [
    (wire::FORMAT_B8G8R8A8, PixelFormat::B8G8R8A8),
    (wire::FORMAT_B8G8R8X8, PixelFormat::B8G8R8X8),
    (wire::FORMAT_A8R8G8B8, PixelFormat::A8R8G8B8),
    (wire::FORMAT_X8R8G8B8, PixelFormat::X8R8G8B8),
    (wire::FORMAT_R8G8B8A8, PixelFormat::R8G8B8A8),
    (wire::FORMAT_X8B8G8R8, PixelFormat::X8B8G8R8),
    (wire::FORMAT_A8B8G8R8, PixelFormat::A8B8G8R8),
    (wire::FORMAT_R8G8B8X8, PixelFormat::R8G8B8X8),
];

/// A screen cannot show more, so accepting it would show nothing.
#[test]
fn a_scanout_larger_than_a_screen_can_show_is_refused() {
    let mut guest = Guest::new();
    let whole = |width, height| Rect {
        x: 0,
        y: 0,
        width,
        height,
    };
    for (id, width, height) in [(1, 16385, 1), (2, 1, 16385)] {
        guest.ok(&Request::create_2d(
            id,
            wire::FORMAT_B8G8R8X8,
            width,
            height,
        ));
        let all = Request::set_scanout(0, id, whole(width, height));
        assert_eq!(guest.code(&all), wire::RESP_ERR_INVALID_PARAMETER);
        // A part of it is shown: monitors side by side share one framebuffer.
        let part = whole(width.min(16384), height.min(16384));
        guest.ok(&Request::set_scanout(0, id, part));
    }
    let size = 16385 * 4;
    let pages = guest.pages(size);
    guest.ok(&Request::guest_blob(3, size, &[(pages, size as u32)]));
    let blob = Request::set_scanout_blob(0, 3, wire::FORMAT_B8G8R8X8, 16385, 1);
    assert_eq!(guest.code(&blob), wire::RESP_ERR_INVALID_PARAMETER);
}

#[test]
fn a_frame_in_every_format_reaches_the_screen_pixel_for_pixel() {
    let (mut guest, screen) = guest();
    for (id, (number, format)) in (1..).zip(FORMATS) {
        let address = guest.image(id, number, 70, 50);
        let image = pattern(70 * 50 * 4, id);
        guest.write(address, &image);
        guest.ok(&Request::transfer(id, rect(0, 0, 70, 50), 0));
        guest.ok(&Request::set_scanout(0, id, rect(0, 0, 70, 50)));
        guest.ok(&Request::flush(id, rect(0, 0, 70, 50)));
        assert_eq!(screen.pixels(0), image, "{format:?}");
        assert_eq!(screen.picture(0).unwrap().format, format);
    }
}

#[test]
fn scattered_pages_in_any_order_make_one_image() {
    let (mut guest, screen) = guest();
    let (width, height) = (123, 97);
    let bytes = width * height * 4;
    let image = pattern(bytes as usize, 9);
    let pages = u64::from(bytes).div_ceil(PAGE);
    let start = guest.pages(pages * 2 * PAGE);
    // Every other page, in reverse order.
    let entries: Vec<(u64, u32)> = (0..pages)
        .map(|page| (start + (pages - 1 - page) * 2 * PAGE, PAGE as u32))
        .collect();
    for (chunk, (address, _)) in image.chunks(PAGE as usize).zip(&entries) {
        guest.write(*address, chunk);
    }
    guest.ok(&Request::create_2d(5, wire::FORMAT_B8G8R8X8, width, height));
    guest.ok(&Request::attach_backing(5, &entries));
    guest.ok(&Request::transfer(5, rect(0, 0, width, height), 0));
    guest.ok(&Request::set_scanout(1, 5, rect(0, 0, width, height)));
    assert_eq!(screen.pixels(1), image);
}

#[test]
fn a_partial_transfer_takes_its_rectangle_from_its_offset_and_nothing_else() {
    let (mut guest, screen) = guest();
    let address = guest.image(1, wire::FORMAT_B8G8R8X8, 64, 64);
    let first = pattern(64 * 64 * 4, 1);
    let second = pattern(64 * 64 * 4, 2);
    guest.write(address, &first);
    guest.ok(&Request::transfer(1, rect(0, 0, 64, 64), 0));
    guest.write(address, &second);
    let area = rect(10, 20, 30, 5);
    guest.ok(&Request::transfer(1, area, (20 * 64 + 10) * 4));
    guest.ok(&Request::set_scanout(0, 1, rect(0, 0, 64, 64)));
    let shown = screen.pixels(0);
    for y in 0..64 {
        for x in 0..64 {
            let inside = (10..40).contains(&x) && (20..25).contains(&y);
            let expected = if inside { &second } else { &first };
            let at = ((y * 64 + x) * 4) as usize;
            assert_eq!(shown[at..at + 4], expected[at..at + 4], "pixel {x}, {y}");
        }
    }
    // Another offset in the backing than the rectangle's own.
    guest.ok(&Request::transfer(1, rect(0, 0, 2, 2), 4 * 10));
    let shown = screen.pixels(0);
    assert_eq!(shown[..8], second[40..48]);
    assert_eq!(shown[256..264], second[296..304]);
}

#[test]
fn two_scanouts_show_parts_of_one_resource_and_get_their_part_of_the_damage() {
    let (mut guest, screen) = guest();
    let address = guest.image(1, wire::FORMAT_B8G8R8X8, 200, 100);
    let image = pattern(200 * 100 * 4, 3);
    guest.write(address, &image);
    guest.ok(&Request::transfer(1, rect(0, 0, 200, 100), 0));
    let (left, right) = (rect(0, 0, 120, 100), rect(100, 10, 100, 80));
    guest.ok(&Request::set_scanout(0, 1, left));
    guest.ok(&Request::set_scanout(1, 1, right));
    assert_eq!(screen.pixels(0), crop(&image, 200, left));
    assert_eq!(screen.pixels(1), crop(&image, 200, right));
    screen.calls();
    guest.ok(&Request::flush(1, rect(90, 0, 20, 20)));
    assert_eq!(
        screen.calls(),
        [
            ScreenCall::Flush(0, rect(90, 0, 20, 20)),
            ScreenCall::Flush(1, rect(0, 0, 10, 10)),
        ]
    );
    guest.ok(&Request::flush(1, rect(150, 50, 50, 50)));
    assert_eq!(screen.calls(), [ScreenCall::Flush(1, rect(50, 40, 50, 40))]);
    guest.ok(&Request::set_scanout(0, 0, rect(0, 0, 0, 0)));
    assert_eq!(screen.calls(), [ScreenCall::Scanout(0, None)]);
    guest.ok(&Request::flush(1, rect(0, 0, 90, 100)));
    assert_eq!(screen.calls(), []);
}

#[test]
fn unreferencing_a_shown_resource_turns_its_scanouts_off() {
    let (mut guest, screen) = guest();
    guest.image(1, wire::FORMAT_B8G8R8X8, 32, 32);
    guest.ok(&Request::set_scanout(0, 1, rect(0, 0, 32, 32)));
    guest.ok(&Request::set_scanout(1, 1, rect(0, 0, 16, 16)));
    screen.calls();
    guest.ok(&Request::unref(1));
    assert_eq!(
        screen.calls(),
        [ScreenCall::Scanout(0, None), ScreenCall::Scanout(1, None)]
    );
    assert_eq!(guest.device.usage(), Default::default());
}

#[test]
fn a_request_and_its_answer_may_be_cut_anywhere() {
    let (mut guest, screen) = guest();
    let address = guest.image(1, wire::FORMAT_B8G8R8X8, 8, 8);
    let image = pattern(256, 4);
    guest.write(address, &image);
    for indirect in [false, true] {
        for cut in [1, 2, 7, 23, 24, 25, 40] {
            let request = Request::transfer(1, rect(0, 0, 8, 8), 0).fence(77);
            let chain = Chain {
                cuts: vec![cut; 60],
                room: vec![5; 6],
                indirect,
                ..Chain::of(&request)
            };
            let Posted::Answered(reply) = guest.post(hesper_vhost::device::Queue::Control, &chain)
            else {
                panic!("a transfer is answered at once");
            };
            assert_eq!(reply.written, 24);
            assert_eq!(reply.kind(), wire::RESP_OK_NODATA);
            assert_eq!(reply.header().fence_id.get(), 77);
        }
    }
    guest.ok(&Request::set_scanout(0, 1, rect(0, 0, 8, 8)));
    assert_eq!(screen.pixels(0), image);
}

#[test]
fn every_answer_echoes_the_fence_of_its_command_also_an_error() {
    let (mut guest, _) = guest();
    let good = guest.ask(
        &Request::create_2d(1, 2, 4, 4)
            .context(9)
            .fence(0x1234_5678_9abc),
    );
    let bad = guest.ask(&Request::unref(99).context(9).fence(u64::MAX));
    for (reply, fence) in [(good, 0x1234_5678_9abc), (bad, u64::MAX)] {
        let header = reply.header();
        assert_eq!(header.flags.get(), wire::FLAG_FENCE);
        assert_eq!(header.fence_id.get(), fence);
        assert_eq!(header.context_id.get(), 9);
    }
    let ring = guest.ask(&Request::create_2d(2, 2, 4, 4).context(9).ring_fence(3, 8));
    let both = wire::FLAG_FENCE | wire::FLAG_INFO_RING_IDX;
    assert_eq!(ring.header().flags.get(), both);
    assert_eq!(ring.header().ring_index, 3);
    let plain = guest.ask(&Request::create_2d(3, 2, 4, 4).context(9));
    assert_eq!(plain.header().flags.get(), 0);
    assert_eq!(plain.header().fence_id.get(), 0);
}

#[test]
fn a_fenced_flush_is_answered_when_every_screen_has_read_it() {
    let (mut guest, screen) = guest();
    guest.image(1, wire::FORMAT_B8G8R8X8, 32, 32);
    guest.ok(&Request::set_scanout(0, 1, rect(0, 0, 32, 32)));
    guest.ok(&Request::set_scanout(1, 1, rect(0, 0, 32, 32)));
    screen.be_slow(true);
    let head = guest.held(&Request::flush(1, rect(0, 0, 4, 4)).fence(5));
    let tokens = screen.tokens();
    assert_eq!(tokens.len(), 2);
    guest.device.flush_done(tokens[1]);
    guest.device.flush_done(tokens[1]);
    assert!(guest.late().is_empty());
    guest.device.flush_done(tokens[0]);
    assert_eq!(guest.late(), [head]);
    let reply = guest.reply(head);
    assert_eq!(reply.kind(), wire::RESP_OK_NODATA);
    assert_eq!(reply.header().fence_id.get(), 5);
    // Without a fence nobody waits.
    guest.ok(&Request::flush(1, rect(0, 0, 4, 4)));
    assert_eq!(screen.tokens(), []);
}

#[test]
fn fences_of_one_timeline_are_answered_in_order() {
    let screen = Arc::new(Recorder::default());
    let renderers = vec![FakeRenderer::new() as _];
    let mut guest = Guest::with(options(), Arc::clone(&screen) as _, renderers);
    guest.ok(&Request::create_context(1, 4, ""));
    guest.image(1, wire::FORMAT_B8G8R8X8, 32, 32);
    guest.ok(&Request::set_scanout(0, 1, rect(0, 0, 32, 32)));
    screen.be_slow(true);
    let flush = Request::flush(1, rect(0, 0, 4, 4));
    let first = guest.held(&flush.clone().fence(1));
    let second = guest.held(&flush.clone().fence(2));
    let third = guest.held(&Request::transfer(1, rect(0, 0, 1, 1), 0).fence(3));
    // Without a fence, and on another timeline, so they do not wait for the others.
    guest.ok(&Request::transfer(1, rect(0, 0, 1, 1), 0));
    guest.ok(&Request::transfer(1, rect(0, 0, 1, 1), 0)
        .context(1)
        .ring_fence(0, 4));
    let tokens = screen.tokens();
    guest.device.flush_done(tokens[1]);
    assert!(guest.late().is_empty());
    guest.device.flush_done(tokens[0]);
    assert_eq!(guest.late(), [first, second, third]);
}

#[test]
fn a_cursor_command_never_waits_for_a_fence_of_the_control_queue() {
    let (mut guest, screen) = guest();
    guest.image(1, wire::FORMAT_B8G8R8X8, 32, 32);
    guest.ok(&Request::set_scanout(0, 1, rect(0, 0, 32, 32)));
    screen.be_slow(true);
    guest.held(&Request::flush(1, rect(0, 0, 4, 4)).fence(1));
    let moved = Chain::of(&Request::move_cursor(0, 1, 2).fence(2));
    let Posted::Answered(reply) = guest.post(hesper_vhost::device::Queue::Cursor, &moved) else {
        panic!("the cursor waits");
    };
    assert_eq!(reply.kind(), wire::RESP_OK_NODATA);
    assert_eq!(reply.header().fence_id.get(), 2);
}

#[test]
fn a_reset_forgets_held_chains_and_late_words_about_them() {
    let (mut guest, screen) = guest();
    guest.image(1, wire::FORMAT_B8G8R8X8, 32, 32);
    guest.ok(&Request::set_scanout(0, 1, rect(0, 0, 32, 32)));
    screen.be_slow(true);
    guest.held(&Request::flush(1, rect(0, 0, 4, 4)).fence(1));
    let tokens = screen.tokens();
    guest.reset();
    assert_eq!(guest.device.usage(), Default::default());
    assert!(screen.picture(0).is_none());
    // The next driver's first held flush must not be taken for the old one.
    guest.image(1, wire::FORMAT_B8G8R8X8, 32, 32);
    guest.ok(&Request::set_scanout(0, 1, rect(0, 0, 32, 32)));
    let head = guest.held(&Request::flush(1, rect(0, 0, 4, 4)).fence(1));
    guest.device.flush_done(tokens[0]);
    assert!(guest.late().is_empty());
    guest.device.flush_done(screen.tokens()[0]);
    assert_eq!(guest.late(), [head]);
}

#[test]
fn the_cursor_has_its_image_hot_spot_and_place_and_hides() {
    let (mut guest, screen) = guest();
    // An X format, as Linux makes it. The cursor's alpha counts nevertheless.
    let address = guest.image(3, wire::FORMAT_B8G8R8X8, 64, 64);
    let image = pattern(64 * 64 * 4, 6);
    guest.write(address, &image);
    guest.ok(&Request::transfer(3, rect(0, 0, 64, 64), 0));
    guest.cursor(&Request::update_cursor(1, 3, 100, 200, 7));
    let cursor = screen.cursor().unwrap();
    assert_eq!(cursor.pixels[..], image[..]);
    assert_eq!(cursor.format, PixelFormat::B8G8R8A8);
    guest.cursor(&Request::move_cursor(1, 101, 202));
    guest.cursor(&Request::update_cursor(1, 0, 1, 2, 0));
    assert_eq!(
        screen.calls(),
        [
            ScreenCall::Cursor(1, (100, 200), Some((7, 7))),
            ScreenCall::Move(1, (101, 202)),
            ScreenCall::Cursor(1, (1, 2), None),
        ]
    );
    assert!(screen.cursor().is_none());
    // Refused: wrong size, unknown resource, unknown scanout, hot spot outside.
    guest.image(4, wire::FORMAT_B8G8R8A8, 64, 63);
    guest.cursor(&Request::update_cursor(0, 4, 0, 0, 0));
    guest.cursor(&Request::update_cursor(0, 77, 0, 0, 0));
    guest.cursor(&Request::update_cursor(2, 3, 0, 0, 0));
    guest.cursor(&Request::update_cursor(0, 3, 0, 0, 64));
    guest.cursor(&Request::move_cursor(2, 0, 0));
    // The guest believes that the old image is gone, so it hides.
    let hidden = || ScreenCall::Cursor(0, (0, 0), None);
    assert_eq!(screen.calls(), [hidden(), hidden(), hidden()]);
}

#[test]
fn a_guest_blob_is_shown_from_guest_memory_by_its_damage() {
    let (mut guest, screen) = guest();
    let (width, height, stride, offset) = (60, 40, 256, 512);
    let size = offset + stride * height;
    let pages = guest.pages(u64::from(size) * 2);
    let half = u64::from(size / 2);
    // Two pieces, the second one before the first one.
    let entries = [
        (pages + u64::from(size), half as u32),
        (pages, size - half as u32),
    ];
    let write = |guest: &Guest, image: &[u8]| {
        for (y, row) in image.chunks(width as usize * 4).enumerate() {
            for (x, byte) in row.iter().enumerate() {
                let at = u64::from(offset) + y as u64 * u64::from(stride) + x as u64;
                let address = if at < half {
                    entries[0].0 + at
                } else {
                    entries[1].0 + at - half
                };
                guest.write(address, &[*byte]);
            }
        }
    };
    let first = pattern((width * height * 4) as usize, 1);
    write(&guest, &first);
    guest.ok(&Request::guest_blob(7, u64::from(size), &entries));
    let view = rect(5, 4, 50, 30);
    let format = wire::FORMAT_X8R8G8B8;
    guest.ok(&Request::set_scanout_frame(
        0,
        7,
        format,
        (width, height),
        (offset, stride),
        view,
    ));
    // The first flush takes the whole view, whatever rectangle it names.
    guest.ok(&Request::flush(7, rect(0, 0, 1, 1)));
    assert_eq!(screen.pixels(0), crop(&first, width, view));
    let second = pattern((width * height * 4) as usize, 2);
    write(&guest, &second);
    let damage = rect(0, 0, 15, 10);
    guest.ok(&Request::flush(7, damage));
    let shown = screen.pixels(0);
    for y in 0..view.height {
        for x in 0..view.width {
            let fresh = x < 10 && y < 6;
            let from = if fresh { &second } else { &first };
            let (here, there) = (
                ((y * view.width + x) * 4) as usize,
                (((y + view.y) * width + x + view.x) * 4) as usize,
            );
            assert_eq!(shown[here..here + 4], from[there..there + 4], "{x}, {y}");
        }
    }
    // Transfers of a blob have no effect and are no error: Linux sends them for cursors.
    guest.ok(&Request::transfer(7, rect(0, 0, 64, 64), 0));
}

#[test]
fn page_flips_between_guest_blobs_keep_their_memory() {
    let (mut guest, screen) = guest();
    let size = 64 * 64 * 4;
    let mut seen = Vec::new();
    for id in [1, 2] {
        let address = guest.pages(size);
        guest.write(address, &pattern(size as usize, id));
        guest.ok(&Request::guest_blob(id, size, &[(address, size as u32)]));
    }
    let usage = |guest: &Guest| guest.device.usage().pixel_bytes;
    for round in 0..10 {
        for id in [1, 2] {
            guest.ok(&Request::set_scanout_blob(
                0,
                id,
                wire::FORMAT_B8G8R8X8,
                64,
                64,
            ));
            guest.ok(&Request::flush(id, rect(0, 0, 64, 64)));
            assert_eq!(screen.pixels(0), pattern(size as usize, id));
            if round > 0 {
                seen.push(usage(&guest));
            }
        }
    }
    assert!(seen.iter().all(|bytes| *bytes == 2 * size), "{seen:?}");
}

#[test]
fn a_guest_blob_serves_as_a_cursor() {
    let (mut guest, screen) = guest();
    let address = guest.pages(16384);
    let image = pattern(16384, 8);
    guest.write(address, &image);
    guest.ok(&Request::guest_blob(4, 16384, &[(address, 16384)]));
    guest.cursor(&Request::update_cursor(0, 4, 3, 4, 1));
    assert_eq!(screen.cursor().unwrap().pixels[..], image[..]);
    screen.calls();
    guest.ok(&Request::guest_blob(5, 4096, &[(address, 4096)]));
    guest.cursor(&Request::update_cursor(0, 5, 3, 4, 1));
    assert_eq!(screen.calls(), [ScreenCall::Cursor(0, (3, 4), None)]);
}

#[test]
fn a_uuid_stays_with_its_resource_and_is_no_other_ones() {
    let (mut guest, _) = guest();
    guest.image(1, 2, 4, 4);
    guest.image(2, 2, 4, 4);
    let mut uuid = |id| {
        let request = Request::resource(wire::CMD_RESOURCE_ASSIGN_UUID, id);
        let reply = guest.ask(&request);
        assert_eq!(reply.kind(), wire::RESP_OK_RESOURCE_UUID);
        assert_eq!(reply.body().len(), 16);
        reply.body().to_vec()
    };
    let first = uuid(1);
    assert_eq!(uuid(1), first);
    assert_ne!(uuid(2), first);
    assert_eq!(first[6] >> 4, 4, "version 4");
    assert_eq!(first[8] >> 6, 2, "variant of RFC 9562");
}

#[test]
fn the_answer_of_a_transfer_touches_only_its_own_bytes() {
    let (mut guest, _) = guest();
    let address = guest.image(1, 2, 16, 16);
    let before = pattern(16 * 16 * 4, 1);
    guest.write(address, &before);
    guest.ok(&Request::transfer(1, rect(0, 0, 16, 16), 0));
    let mut after = vec![0; before.len()];
    guest
        .memory
        .read_slice(&mut after, GuestAddress(address))
        .unwrap();
    assert_eq!(after, before);
}
