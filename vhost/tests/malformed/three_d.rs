//! Malformed commands of 3D resources.

use std::sync::Arc;

use hesper_vhost::budget;
use hesper_vhost::device::Queue;
use hesper_vhost::screen::NoScreen;
use hesper_vhost::testing::{Chain, FakeRenderer, Guest, Posted, Request, options};
use hesper_vhost::wire::*;
use zerocopy::FromZeros;

use crate::table::{FORMAT, rect};

const VIRGL: u32 = 1;

/// A context of virgl with 3D resource 1 of 8 × 4 pixels in two pieces of memory. Returns the
/// address of the second.
fn guest() -> (Guest, u64) {
    let (renderer, _) = FakeRenderer::with_3d();
    let mut guest = Guest::with(options(), Arc::new(NoScreen), vec![renderer]);
    guest.ok(&Request::create_context(VIRGL, 2, "virgl"));
    guest.held_ok(&Request::create_3d(1, FORMAT, 8, 4));
    let (first, second) = (guest.pages(4096), guest.pages(4096));
    guest.ok(&Request::attach_backing(1, &[(second, 40), (first, 4096)]));
    (guest, first)
}

/// The answer to a command, given at once or inside the call.
fn code(guest: &mut Guest, request: &Request) -> u32 {
    match guest.post(Queue::Control, &Chain::of(request)) {
        Posted::Answered(reply) => reply.kind(),
        Posted::Held(head) => {
            assert_eq!(guest.late(), [head]);
            guest.reply(head).kind()
        }
    }
}

fn create(change: impl FnOnce(&mut ResourceCreate3d)) -> Request {
    let mut body = ResourceCreate3d::new_zeroed();
    body.resource_id = 9.into();
    body.target = 2.into();
    body.format = FORMAT.into();
    body.width = 8.into();
    body.height = 4.into();
    body.depth = 1.into();
    body.array_size = 1.into();
    change(&mut body);
    Request::new(CMD_RESOURCE_CREATE_3D, &body)
}

fn transfer(change: impl FnOnce(&mut TransferHost3d)) -> Request {
    let mut body = TransferHost3d::new_zeroed();
    body.resource_id = 1.into();
    body.bounds.width = 1.into();
    body.bounds.height = 1.into();
    body.bounds.depth = 1.into();
    change(&mut body);
    Request::new(CMD_TRANSFER_TO_HOST_3D, &body)
}

#[test]
fn malformed_3d_commands_get_their_error_codes_and_change_nothing() {
    const MAX: u32 = u32::MAX;
    let (mut guest, first) = guest();
    guest.held_ok(&Request::create_3d(2, 64, 8, 4));
    guest.image(3, FORMAT, 8, 4);
    let buffer = |body: &mut ResourceCreate3d| {
        body.resource_id = 4.into();
        body.target = 0.into();
        body.width = 5000.into();
        body.height = 1.into();
    };
    guest.held_ok(&create(buffer));
    guest.ok(&Request::attach_backing(4, &[(first, 4096)]));
    let many = (budget::RENDER_BYTES / 16 / 4) as u32;
    let entries = guest.device.usage();
    let bad: Vec<(&str, Request, u32)> = vec![
        (
            "id 0",
            create(|body| body.resource_id = 0.into()),
            RESP_ERR_INVALID_RESOURCE_ID,
        ),
        (
            "id taken",
            create(|body| body.resource_id = 3.into()),
            RESP_ERR_INVALID_RESOURCE_ID,
        ),
        (
            "no width",
            create(|body| body.width = 0.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "no height",
            create(|body| body.height = 0.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "no depth",
            create(|body| body.depth = 0.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "levels",
            create(|body| body.last_level = 32.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "sizes that overflow",
            create(|body| {
                body.width = MAX.into();
                body.height = MAX.into();
                body.array_size = MAX.into();
                body.samples = MAX.into();
            }),
            RESP_ERR_OUT_OF_MEMORY,
        ),
        (
            "more than the budget",
            create(|body| {
                body.width = many.into();
                body.height = 17.into();
            }),
            RESP_ERR_OUT_OF_MEMORY,
        ),
        (
            "no resource",
            transfer(|body| body.resource_id = 77.into()),
            RESP_ERR_INVALID_RESOURCE_ID,
        ),
        (
            "a 2D resource",
            transfer(|body| body.resource_id = 3.into()),
            RESP_ERR_INVALID_RESOURCE_ID,
        ),
        (
            "no backing",
            transfer(|body| body.resource_id = 2.into()),
            RESP_ERR_UNSPEC,
        ),
        (
            "no level",
            transfer(|body| body.level = 1.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "level",
            transfer(|body| body.level = MAX.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "x",
            transfer(|body| body.bounds.x = 8.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "y",
            transfer(|body| body.bounds.y = 4.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "z",
            transfer(|body| body.bounds.z = 1.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "x that overflows",
            transfer(|body| {
                body.bounds.x = MAX.into();
                body.bounds.width = 2.into();
            }),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "height",
            transfer(|body| body.bounds.height = MAX.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "depth",
            transfer(|body| body.bounds.depth = MAX.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "offset at the end",
            transfer(|body| body.offset = 4136.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "offset that overflows",
            transfer(|body| body.offset = u64::MAX.into()),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "beyond the backing",
            transfer(|body| {
                body.offset = 4000.into();
                body.stride = 4096.into();
                body.bounds.height = 2.into();
            }),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "a buffer beyond its backing",
            transfer(|body| {
                body.resource_id = 4.into();
                body.bounds.width = 4097.into();
            }),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "no context",
            transfer(|_| ()).context(9),
            RESP_ERR_INVALID_CONTEXT_ID,
        ),
        (
            "submit to no context",
            Request::submit(9, &[0; 4]),
            RESP_ERR_INVALID_CONTEXT_ID,
        ),
        (
            "a second backing",
            Request::attach_backing(1, &[(first, 16)]),
            RESP_ERR_UNSPEC,
        ),
        (
            "no backing to detach",
            Request::detach_backing(2),
            RESP_ERR_UNSPEC,
        ),
        (
            "a 2D transfer",
            Request::transfer(1, rect(0, 0, 1, 1), 0),
            RESP_ERR_INVALID_RESOURCE_ID,
        ),
        (
            "no pixels",
            Request::set_scanout(0, 2, rect(0, 0, 8, 4)),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "an empty view",
            Request::set_scanout(0, 1, rect(0, 0, 0, 4)),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "a view outside",
            Request::set_scanout(0, 1, rect(1, 0, 8, 4)),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "no blob",
            Request::set_scanout_blob(0, 1, FORMAT, 8, 4),
            RESP_ERR_INVALID_RESOURCE_ID,
        ),
        (
            "a flush outside",
            Request::flush(1, rect(0, 0, 8, 5)),
            RESP_ERR_INVALID_PARAMETER,
        ),
        (
            "a map",
            Request::map_blob(1, 0),
            RESP_ERR_INVALID_RESOURCE_ID,
        ),
    ];
    for (name, request, wanted) in bad {
        let answered = code(&mut guest, &request);
        assert_eq!(answered, wanted, "{name}: {answered:#x}");
        assert_eq!(guest.device.usage(), entries, "{name}");
        let good = code(&mut guest, &transfer(|_| ()).context(VIRGL));
        assert_eq!(good, RESP_OK_NODATA, "after {name}");
    }
    // A context that is gone.
    guest.ok(&Request::destroy_context(VIRGL));
    let gone = code(&mut guest, &transfer(|_| ()).context(VIRGL));
    assert_eq!(gone, RESP_ERR_INVALID_CONTEXT_ID);
}

#[test]
fn a_3d_request_cut_short_is_an_error() {
    let (mut guest, _) = guest();
    for request in [create(|_| ()), transfer(|_| ())] {
        let whole = request.bytes();
        for length in 0..whole.len() {
            let chain = Chain {
                request: whole[..length].to_vec(),
                ..Chain::of(&request)
            };
            let posted = guest.post(Queue::Control, &chain);
            let Posted::Answered(reply) = posted else {
                panic!("{request:?} cut to {length} bytes is held");
            };
            assert_eq!(reply.kind(), RESP_ERR_INVALID_PARAMETER, "{length}");
        }
    }
}
