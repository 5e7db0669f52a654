//! 2D resources into which contexts draw, and what the device tells of a screen that the guest's
//! processor draws.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;

use hesper_vhost::screen::{Rect, WritablePixels};
use hesper_vhost::testing::{FakeContext, FakeRenderer, Guest, Recorder, Request, options};
use hesper_vhost::wire;

const FORMAT: u32 = wire::FORMAT_B8G8R8X8;
const SIDE: u32 = 128;
/// Bytes of a row, and of a picture.
const ROW: usize = SIDE as usize * 4;
const SIZE: usize = ROW * SIDE as usize;

fn setup() -> (Guest, Arc<Recorder>, Arc<FakeRenderer>) {
    let screen = Arc::new(Recorder::default());
    let renderer = FakeRenderer::new();
    let renderers = vec![Arc::clone(&renderer) as _];
    let guest = Guest::with(options(), Arc::clone(&screen) as _, renderers);
    (guest, screen, renderer)
}

const WHOLE: Rect = Rect {
    x: 0,
    y: 0,
    width: SIDE,
    height: SIDE,
};

/// Writes as a GPU does.
fn draw(memory: &Arc<dyn WritablePixels>, byte: u8) {
    let (start, length) = memory.host_pages();
    assert!(length >= SIZE);
    // SAFETY: the memory is writable, and no reference to it exists.
    unsafe { start.cast_mut().write_bytes(byte, SIZE) };
}

fn read(memory: &Arc<dyn WritablePixels>) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    memory.read(0, &mut bytes);
    bytes
}

#[test]
fn a_transfer_keeps_what_a_gpu_has_drawn_and_brings_what_the_guest_has_changed() {
    let (mut guest, screen, renderer) = setup();
    renderer.draw();
    guest.ok(&Request::create_context(1, 4, "weston"));
    let address = guest.image(7, FORMAT, SIDE, SIDE);
    guest.write(address, &[1; SIZE]);
    guest.ok(&Request::transfer(7, WHOLE, 0));
    guest.ok(&Request::attach(1, 7));
    let [FakeContext::Attach(7, _)] = renderer.calls(1)[..] else {
        panic!("the context gets it");
    };
    let shared = renderer.shared().unwrap();
    assert_eq!(read(&shared), [1; SIZE], "the pixels move along");
    draw(&shared, 2);
    guest.ok(&Request::transfer(7, WHOLE, 0));
    assert_eq!(read(&shared), [2; SIZE]);
    guest.ok(&Request::set_scanout(0, 7, WHOLE));
    assert_eq!(screen.pixels(0), [2; SIZE]);

    guest.write(address + 5 * ROW as u64, &[3; ROW]);
    guest.ok(&Request::transfer(7, WHOLE, 0));
    let pixels = screen.pixels(0);
    assert_eq!(pixels[5 * ROW..6 * ROW], [3; ROW]);
    assert_eq!(pixels[..5 * ROW], [2; 5 * ROW]);
    // The GPU draws the row again, and the guest has not changed it since.
    draw(&shared, 4);
    guest.ok(&Request::transfer(7, WHOLE, 0));
    assert_eq!(screen.pixels(0), [4; SIZE]);
    // Another context gets the same memory.
    guest.ok(&Request::create_context(2, 4, "other"));
    guest.ok(&Request::attach(2, 7));
    assert!(Arc::ptr_eq(&shared, &renderer.shared().unwrap()));
}

#[test]
fn a_resource_that_is_shown_or_whose_renderer_draws_not_keeps_its_pixels() {
    let (mut guest, screen, renderer) = setup();
    guest.ok(&Request::create_context(1, 4, "weston"));
    guest.image(6, FORMAT, SIDE, SIDE);
    guest.ok(&Request::attach(1, 6));
    assert!(renderer.shared().is_none());
    renderer.draw();
    let address = guest.image(7, FORMAT, SIDE, SIDE);
    guest.ok(&Request::set_scanout(0, 7, WHOLE));
    guest.ok(&Request::attach(1, 7));
    assert!(renderer.shared().is_none());
    guest.write(address, &[9; SIZE]);
    guest.ok(&Request::transfer(7, WHOLE, 0));
    assert_eq!(screen.pixels(0), [9; SIZE]);
}

#[test]
fn a_resource_without_memory_for_a_gpus_picture_is_attached_as_any_other() {
    let screen = Arc::new(Recorder::default());
    let renderer = FakeRenderer::new();
    renderer.draw();
    let renderers = vec![Arc::clone(&renderer) as _];
    let mut guest = Guest::with(options(), Arc::clone(&screen) as _, renderers);
    guest.ok(&Request::create_context(1, 4, "weston"));
    let address = guest.image(7, FORMAT, SIDE, SIDE);
    // Other pictures take all the memory for pixels that a guest may have.
    let (mut side, mut id) = (8192, 8);
    while side >= SIDE {
        let other = Request::create_2d(id, FORMAT, side, side);
        match guest.code(&other) {
            wire::RESP_OK_NODATA => id += 1,
            _ => side /= 2,
        }
    }
    guest.ok(&Request::attach(1, 7));
    assert!(matches!(renderer.calls(1)[..], [FakeContext::Attach(7, _)]));
    guest.write(address, &[9; SIZE]);
    guest.ok(&Request::transfer(7, WHOLE, 0));
    guest.ok(&Request::set_scanout(0, 7, WHOLE));
    assert_eq!(screen.pixels(0), [9; SIZE]);
}

#[test]
fn a_desktop_is_told_by_its_pictures_and_its_cursor() {
    let (mut guest, _, renderer) = setup();
    renderer.draw();
    let mut contexts = 0;
    let mut is_drawn_by_cpu = |guest: &mut Guest| {
        contexts += 1;
        guest.ok(&Request::create_context(contexts, 4, "program"));
        renderer.is_screen_drawn_by_cpu(contexts).unwrap()
    };
    assert!(!is_drawn_by_cpu(&mut guest), "nothing is shown");
    guest.image(1, FORMAT, SIDE, SIDE);
    guest.ok(&Request::set_scanout(0, 1, WHOLE));
    assert!(!is_drawn_by_cpu(&mut guest), "the console");
    guest.image(2, FORMAT, SIDE, SIDE + 8);
    guest.ok(&Request::set_scanout(0, 2, WHOLE));
    assert!(!is_drawn_by_cpu(&mut guest), "a boot splash");
    guest.image(9, FORMAT, 64, 64);
    guest.cursor(&Request::update_cursor(0, 9, 0, 0, 0));
    assert!(is_drawn_by_cpu(&mut guest), "an X server with one picture");
    guest.cursor(&Request::update_cursor(0, 0, 0, 0, 0));
    assert!(!is_drawn_by_cpu(&mut guest));
    guest.image(3, FORMAT, SIDE, SIDE);
    assert!(is_drawn_by_cpu(&mut guest), "two pictures and the console");
    // A second screen has its own picture.
    guest.ok(&Request::set_scanout(1, 3, WHOLE));
    assert!(!is_drawn_by_cpu(&mut guest));
    guest.ok(&Request::set_scanout(1, 0, Rect::default()));
    // A GPU draws into one of them.
    guest.ok(&Request::attach(1, 3));
    assert!(!is_drawn_by_cpu(&mut guest));
    guest.ok(&Request::set_scanout(0, 3, WHOLE));
    guest.image(4, FORMAT, SIDE, SIDE);
    assert!(!is_drawn_by_cpu(&mut guest), "what is shown, a GPU draws");
}
