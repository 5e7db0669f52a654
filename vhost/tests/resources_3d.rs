//! 3D resources. The renderer answers when the test says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;

use hesper_vhost::resource3d::Direction;
use hesper_vhost::screen::Rect;
use hesper_vhost::testing::{
    FakeCall3d, FakeContext, FakeRenderer, FakeResources3d, Guest, Recorder, Request, ScreenCall,
    options,
};
use hesper_vhost::wire::{self, *};
use vm_memory::{Bytes, GuestAddress};

const FORMAT: u32 = wire::FORMAT_B8G8R8X8;
const VIRGL: u32 = 1;
const VENUS: u32 = 2;

/// A guest with a Venus and a virgl renderer, and a context of each.
struct Setup {
    guest: Guest,
    screen: Arc<Recorder>,
    virgl: Arc<FakeRenderer>,
    venus: Arc<FakeRenderer>,
    resources: Arc<FakeResources3d>,
}

fn setup() -> Setup {
    let screen = Arc::new(Recorder::default());
    let venus = FakeRenderer::new();
    let (virgl, resources) = FakeRenderer::with_3d();
    let mut guest = Guest::with(
        options(),
        Arc::clone(&screen) as _,
        vec![Arc::clone(&venus) as _, Arc::clone(&virgl) as _],
    );
    guest.ok(&Request::create_context(VIRGL, 2, "virgl"));
    guest.ok(&Request::create_context(VENUS, 4, "venus"));
    Setup {
        guest,
        screen,
        virgl,
        venus,
        resources,
    }
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

fn to_host(id: u32, rect: Rect, offset: u64, stride: u32) -> Request {
    Request::transfer_3d(CMD_TRANSFER_TO_HOST_3D, id, rect, offset, stride)
}

fn from_host(id: u32, rect: Rect, offset: u64, stride: u32) -> Request {
    Request::transfer_3d(CMD_TRANSFER_FROM_HOST_3D, id, rect, offset, stride)
}

fn read(guest: &Guest, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let memory = &guest.memory;
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .unwrap();
    bytes
}

impl Setup {
    /// A resource of 8 × 4 pixels in two pieces of guest memory; returns where they are.
    fn texture(&mut self, id: u32) -> (u64, u64) {
        let guest = &mut self.guest;
        guest.held_ok(&Request::create_3d(id, FORMAT, 8, 4));
        let (first, second) = (guest.pages(4096), guest.pages(4096));
        guest.ok(&Request::attach_backing(id, &[(second, 40), (first, 4096)]));
        (second, first)
    }

    /// The answer to a command that must be held and is answered by now.
    fn late(&mut self, head: u16) -> u32 {
        assert_eq!(self.guest.late(), [head]);
        self.guest.reply(head).kind()
    }

    /// The answer to a command, given at once or inside the call.
    fn code(&mut self, request: &Request) -> u32 {
        use hesper_vhost::testing::{Chain, Posted};
        let chain = Chain::of(request);
        match self
            .guest
            .post(hesper_vhost::device::Queue::Control, &chain)
        {
            Posted::Answered(reply) => reply.kind(),
            Posted::Held(head) => self.late(head),
        }
    }
}

#[test]
fn pixels_go_to_the_renderer_and_back_through_scattered_guest_memory() {
    let mut setup = setup();
    let (second, first) = setup.texture(1);
    let pixels: Vec<u8> = (0..128).collect();
    setup.guest.write(second, &pixels[..40]);
    setup.guest.write(first, &pixels[40..]);
    setup.guest.held_ok(&to_host(1, rect(0, 0, 8, 4), 0, 0));
    assert_eq!(setup.resources.bytes(1).unwrap(), pixels);
    // Two rows of three pixels, 64 bytes apart, from byte 16 on.
    let transfer = from_host(1, rect(2, 1, 3, 2), 16, 64).context(VIRGL);
    setup.guest.write(second, &[0; 40]);
    setup.guest.write(first, &[0; 128]);
    setup.guest.held_ok(&transfer);
    let mut back = read(&setup.guest, second, 40);
    back.append(&mut read(&setup.guest, first, 88));
    let mut wanted = vec![0; 128];
    wanted[16..28].copy_from_slice(&pixels[40..52]);
    wanted[80..92].copy_from_slice(&pixels[72..84]);
    assert_eq!(back, wanted);
    let calls = setup.resources.calls();
    let Some(FakeCall3d::Transfer(1, context, Direction::FromHost, last)) = calls.last() else {
        panic!("{calls:?}");
    };
    assert_eq!(*context, VIRGL);
    assert_eq!((last.offset, last.stride, last.bounds.x), (16, 64, 2));
}

#[test]
fn a_transfer_is_answered_when_it_is_done() {
    let mut setup = setup();
    setup.texture(1);
    setup.resources.be_slow(true);
    let head = setup
        .guest
        .held(&from_host(1, rect(0, 0, 1, 1), 0, 0).fence(7));
    // 2D and another context go on.
    setup.guest.ok(&Request::create_2d(2, FORMAT, 4, 4));
    setup.guest.ok(&Request::submit(VENUS, &[1; 4]));
    assert!(setup.guest.late().is_empty());
    assert!(setup.resources.work());
    assert_eq!(setup.late(head), RESP_OK_NODATA);
}

#[test]
fn what_the_renderer_refuses_is_an_error_and_leaves_nothing() {
    let mut setup = setup();
    setup.resources.refuse(true);
    let create = Request::create_3d(1, FORMAT, 8, 4);
    assert_eq!(setup.code(&create), RESP_ERR_OUT_OF_MEMORY);
    assert_eq!(setup.guest.device.usage().resources, 0);
    assert_eq!(setup.guest.device.usage().render_bytes, 0);
    setup.resources.refuse(false);
    setup.texture(1);
    setup.resources.be_slow(true);
    // The resource has an id whose last resource failed meanwhile.
    let refused = setup.guest.held(&Request::create_3d(2, FORMAT, 8, 4));
    let unref = setup.guest.held(&Request::unref(2));
    let again = setup.guest.held(&Request::create_3d(2, FORMAT, 2, 2));
    setup.resources.refuse(true);
    assert!(setup.resources.work());
    assert_eq!(setup.late(refused), RESP_ERR_OUT_OF_MEMORY);
    setup.resources.refuse(false);
    assert!(setup.resources.work());
    assert_eq!(setup.late(unref), RESP_ERR_INVALID_PARAMETER);
    assert!(setup.resources.work());
    assert_eq!(setup.late(again), RESP_OK_NODATA);
    assert_eq!(setup.guest.device.usage().resources, 2);
    assert_eq!(setup.resources.live(), 2);
}

#[test]
fn a_renderer_that_dies_loses_no_chain() {
    let mut setup = setup();
    setup.texture(1);
    setup
        .guest
        .ok(&Request::set_scanout(0, 1, rect(0, 0, 8, 4)));
    setup.resources.be_slow(true);
    let heads = [
        setup.guest.held(&Request::create_3d(2, FORMAT, 8, 4)),
        setup.guest.held(&to_host(1, rect(0, 0, 8, 4), 0, 0)),
        setup.guest.held(&Request::flush(1, rect(0, 0, 8, 4))),
        setup.guest.held(&Request::detach_backing(1)),
    ];
    setup.resources.die();
    assert_eq!(setup.guest.late(), heads);
    for head in heads {
        assert_eq!(setup.guest.reply(head).kind(), RESP_ERR_UNSPEC);
    }
    let unref = setup.guest.held(&Request::unref(1));
    setup.resources.die();
    assert_eq!(setup.late(unref), RESP_ERR_UNSPEC);
    assert_eq!(setup.guest.device.usage().held, 0);
    assert_eq!(setup.guest.device.usage().resources, 0);
}

#[test]
fn guest_memory_comes_back_only_when_the_renderer_has_let_go_of_it() {
    let mut setup = setup();
    setup.texture(1);
    setup.texture(2);
    setup.guest.ok(&Request::attach(VIRGL, 2));
    setup.resources.be_slow(true);
    let detach = setup.guest.held(&Request::detach_backing(1));
    let unref = setup.guest.held(&Request::unref(2));
    assert_eq!(setup.resources.lent(), 2);
    assert!(setup.guest.late().is_empty());
    assert!(setup.resources.work());
    assert_eq!(setup.resources.lent(), 1);
    assert_eq!(setup.late(detach), RESP_OK_NODATA);
    assert_ne!(setup.guest.device.usage().render_bytes, 128);
    assert!(setup.resources.work());
    assert_eq!(setup.resources.lent(), 0);
    assert_eq!(setup.late(unref), RESP_OK_NODATA);
    assert_eq!(setup.guest.device.usage().render_bytes, 128);
    let calls = setup.virgl.calls(VIRGL);
    assert_eq!(calls, [FakeContext::Attach3d(2), FakeContext::Detach(2)]);
}

#[test]
fn a_reset_takes_all_3d_resources_away() {
    let mut setup = setup();
    setup.texture(1);
    setup
        .guest
        .ok(&Request::set_scanout(0, 1, rect(0, 0, 8, 4)));
    setup.resources.be_slow(true);
    setup.guest.held(&Request::flush(1, rect(0, 0, 8, 4)));
    setup.guest.reset();
    assert_eq!(setup.resources.calls().last(), Some(&FakeCall3d::Clear));
    assert_eq!(setup.guest.device.usage(), Default::default());
    assert_eq!((setup.resources.live(), setup.resources.lent()), (0, 0));
    // The failed reading showed nothing.
    let late = |call: &ScreenCall| matches!(call, ScreenCall::Flush(..));
    assert!(!setup.screen.calls().iter().any(late));
    // A guest without 3D resources does not wait.
    setup.guest.reset();
    assert_eq!(setup.resources.calls(), []);
}

#[test]
fn a_scanout_of_a_3d_resource_begins_with_its_first_flush() {
    let mut setup = setup();
    setup.texture(1);
    setup.texture(2);
    let whole = rect(0, 0, 8, 4);
    setup.resources.fill(1, [1, 1, 1, 1]);
    setup.guest.ok(&Request::set_scanout(0, 1, whole));
    assert_eq!(setup.screen.calls(), []);
    setup.guest.held_ok(&Request::flush(1, rect(2, 2, 1, 1)));
    assert_eq!(
        setup.screen.calls(),
        [
            ScreenCall::Scanout(0, Some((8, 4))),
            ScreenCall::Flush(0, whole)
        ]
    );
    assert_eq!(setup.screen.pixels(0), [1; 128]);
    // From then on, the rectangle of the flush.
    setup.resources.fill(1, [2, 2, 2, 2]);
    setup.guest.held_ok(&Request::flush(1, rect(2, 3, 6, 1)));
    let damage = ScreenCall::Flush(0, rect(2, 3, 6, 1));
    assert_eq!(setup.screen.calls(), [damage]);
    let mut wanted = [1; 128];
    wanted[104..].fill(2);
    assert_eq!(setup.screen.pixels(0), wanted);
    // The next resource shows its own pixels. Until then, the last picture stays.
    setup.resources.fill(2, [3, 3, 3, 3]);
    setup.guest.ok(&Request::set_scanout(0, 2, whole));
    assert_eq!(setup.screen.pixels(0), wanted);
    setup.guest.held_ok(&Request::flush(2, whole));
    assert_eq!(setup.screen.pixels(0), [3; 128]);
    // A flush of what no scanout shows reads nothing.
    setup.resources.calls();
    setup.guest.ok(&Request::flush(1, whole));
    assert_eq!(setup.resources.calls(), []);
    setup.screen.calls();
    setup.guest.held_ok(&Request::unref(2));
    assert_eq!(setup.screen.calls(), [ScreenCall::Scanout(0, None)]);
}

#[test]
fn one_reading_serves_all_scanouts_and_a_fence_waits_for_each() {
    let mut setup = setup();
    setup.texture(1);
    setup.resources.fill(1, [9, 8, 7, 6]);
    setup
        .guest
        .ok(&Request::set_scanout(0, 1, rect(0, 0, 4, 4)));
    setup
        .guest
        .ok(&Request::set_scanout(1, 1, rect(5, 1, 2, 2)));
    setup.resources.calls();
    setup.screen.be_slow(true);
    let head = setup
        .guest
        .held(&Request::flush(1, rect(0, 0, 8, 4)).fence(1));
    let read = FakeCall3d::Read(1, rect(0, 0, 7, 4));
    assert_eq!(setup.resources.calls(), [read]);
    assert_eq!(setup.screen.pixels(1), [9, 8, 7, 6].repeat(4));
    let tokens = setup.screen.tokens();
    assert_eq!(tokens.len(), 2);
    assert!(setup.guest.late().is_empty());
    setup.guest.device.flush_done(tokens[0]);
    assert!(setup.guest.late().is_empty());
    setup.guest.device.flush_done(tokens[1]);
    assert_eq!(setup.late(head), RESP_OK_NODATA);
}

#[test]
fn a_reading_that_comes_too_late_shows_nothing() {
    let mut setup = setup();
    setup.texture(1);
    let image = setup.guest.image(2, FORMAT, 2, 2);
    setup.guest.write(image, &[5; 16]);
    setup
        .guest
        .ok(&Request::set_scanout(0, 1, rect(0, 0, 8, 4)));
    setup.resources.be_slow(true);
    let head = setup
        .guest
        .held(&Request::flush(1, rect(0, 0, 8, 4)).fence(3));
    setup
        .guest
        .ok(&Request::set_scanout(0, 2, rect(0, 0, 2, 2)));
    setup.screen.calls();
    assert!(setup.resources.work());
    assert_eq!(setup.late(head), RESP_OK_NODATA);
    assert_eq!(setup.screen.calls(), []);
}

#[test]
fn a_flush_that_cannot_be_read_is_made_good_by_the_next() {
    let mut setup = setup();
    setup.texture(1);
    setup
        .guest
        .ok(&Request::set_scanout(0, 1, rect(0, 0, 8, 4)));
    setup.resources.be_slow(true);
    let head = setup.guest.held(&Request::flush(1, rect(0, 0, 8, 4)));
    setup.resources.die();
    assert_eq!(setup.late(head), RESP_ERR_UNSPEC);
    setup.resources.be_slow(false);
    setup.resources.calls();
    setup.guest.held_ok(&Request::flush(1, rect(1, 1, 1, 1)));
    let read = FakeCall3d::Read(1, rect(0, 0, 8, 4));
    assert_eq!(setup.resources.calls(), [read]);
}

#[test]
fn a_cursor_of_a_3d_resource_is_read_and_moves_meanwhile() {
    let mut setup = setup();
    setup
        .guest
        .held_ok(&Request::create_3d(1, FORMAT_B8G8R8A8, 64, 64));
    setup.guest.held_ok(&Request::create_3d(2, FORMAT, 64, 63));
    setup.resources.fill(1, [1, 2, 3, 4]);
    setup.resources.be_slow(true);
    setup.screen.calls();
    setup.guest.cursor(&Request::update_cursor(0, 1, 10, 20, 5));
    setup.guest.cursor(&Request::move_cursor(0, 11, 22));
    assert_eq!(setup.screen.calls(), [ScreenCall::Move(0, (11, 22))]);
    assert!(setup.resources.work());
    let shown = ScreenCall::Cursor(0, (11, 22), Some((5, 5)));
    assert_eq!(setup.screen.calls(), [shown]);
    let cursor = setup.screen.cursor().unwrap();
    assert_eq!(cursor.pixels[..8], [1, 2, 3, 4, 1, 2, 3, 4]);
    // The newer one counts, whenever the older one arrives.
    setup.guest.cursor(&Request::update_cursor(0, 1, 1, 1, 0));
    setup.guest.cursor(&Request::update_cursor(0, 0, 2, 2, 0));
    setup.screen.calls();
    assert!(setup.resources.work());
    assert_eq!(setup.screen.calls(), []);
    // The wrong size hides the old one.
    setup.guest.cursor(&Request::update_cursor(0, 2, 1, 1, 0));
    assert!(!setup.resources.work());
    let hidden = ScreenCall::Cursor(0, (1, 1), None);
    assert_eq!(setup.screen.calls(), [hidden]);
}

#[test]
fn contexts_of_other_renderers_have_no_use_for_3d_resources_and_do_no_harm() {
    let mut setup = setup();
    setup.texture(1);
    setup.guest.ok(&Request::attach(VENUS, 1));
    assert_eq!(setup.venus.calls(VENUS), [FakeContext::Attach3d(1)]);
    setup.guest.ok(&Request::attach(VIRGL, 1));
    setup.guest.ok(&Request::detach(VIRGL, 1));
    let calls = setup.virgl.calls(VIRGL);
    assert_eq!(calls, [FakeContext::Attach3d(1), FakeContext::Detach(1)]);
    // A context without a capability set is one of virgl.
    setup.guest.ok(&Request::create_context(7, 0, "old"));
    assert_eq!(setup.virgl.name(7).as_deref(), Some("old"));
}

#[test]
fn without_a_renderer_of_3d_resources_its_commands_are_refused_as_ever() {
    let mut guest = Guest::with(
        options(),
        Arc::new(Recorder::default()),
        vec![FakeRenderer::new()],
    );
    for request in [
        Request::create_3d(1, FORMAT, 8, 8),
        to_host(1, rect(0, 0, 1, 1), 0, 0),
        from_host(1, rect(0, 0, 1, 1), 0, 0),
        Request::bare(CMD_RESOURCE_CREATE_3D),
    ] {
        assert_eq!(guest.code(&request), RESP_ERR_UNSPEC, "{request:?}");
    }
}
