//! Malformed commands, and the error code of the specification for each.

use hesper_vhost::screen::Rect;
use hesper_vhost::testing::{FakeRenderer, Guest, Request, options};
use hesper_vhost::wire::{self, *};
use zerocopy::FromZeros;

pub(crate) const FORMAT: u32 = wire::FORMAT_B8G8R8X8;
pub(crate) const MAX: u32 = u32::MAX;

pub(crate) fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

/// Resource 1: 2D, 64 × 32, backed. 2: 2D, 64 × 32, no backing. 3: guest blob of 8192 bytes. 4:
/// mapped host blob at 0 of context 1. 5: a host blob that is not mapped.
pub(crate) fn guest() -> Guest {
    let mut guest = Guest::with(
        options(),
        std::sync::Arc::new(hesper_vhost::screen::NoScreen),
        vec![FakeRenderer::new()],
    );
    guest.image(1, FORMAT, 64, 32);
    guest.ok(&Request::create_2d(2, FORMAT, 64, 32));
    let address = guest.pages(8192);
    guest.ok(&Request::guest_blob(3, 8192, &[(address, 8192)]));
    guest.ok(&Request::create_context(1, 4, "test"));
    guest.held_ok(&Request::host_blob(1, 4, 0, 4096));
    guest.held_ok(&Request::host_blob(1, 5, 0, 4096));
    assert_eq!(guest.code(&Request::map_blob(4, 0)), wire::RESP_OK_MAP_INFO);
    guest
}

pub(crate) fn changed<T: zerocopy::IntoBytes + FromZeros + zerocopy::Immutable>(
    kind: u32,
    change: impl FnOnce(&mut T),
) -> Request {
    let mut body = T::new_zeroed();
    change(&mut body);
    Request::new(kind, &body)
}

pub(crate) fn scanout_blob(change: impl FnOnce(&mut SetScanoutBlob)) -> Request {
    changed(CMD_SET_SCANOUT_BLOB, |body: &mut SetScanoutBlob| {
        body.rect = rect(0, 0, 32, 32).into();
        body.resource_id = 3.into();
        body.width = 32.into();
        body.height = 32.into();
        body.format = FORMAT.into();
        body.strides[0] = 128.into();
        change(body);
    })
}

pub(crate) fn create_blob(context: u32, change: impl FnOnce(&mut ResourceCreateBlob)) -> Request {
    changed(CMD_RESOURCE_CREATE_BLOB, |body: &mut ResourceCreateBlob| {
        body.resource_id = 9.into();
        body.blob_mem = BLOB_MEM_HOST3D.into();
        body.size = 4096.into();
        change(body);
    })
    .context(context)
}

/// The name, the request, and the error that must come back.
pub(crate) fn table() -> Vec<(&'static str, Request, u32)> {
    const PARAMETER: u32 = RESP_ERR_INVALID_PARAMETER;
    const RESOURCE: u32 = RESP_ERR_INVALID_RESOURCE_ID;
    const SCANOUT: u32 = RESP_ERR_INVALID_SCANOUT_ID;
    const CONTEXT: u32 = RESP_ERR_INVALID_CONTEXT_ID;
    const MEMORY: u32 = RESP_ERR_OUT_OF_MEMORY;
    const UNSPEC: u32 = RESP_ERR_UNSPEC;
    let ram = 256_u64 << 20;
    vec![
        // Types.
        ("type 0", Request::bare(0), UNSPEC),
        ("an answer's type", Request::bare(RESP_OK_NODATA), UNSPEC),
        ("type MAX", Request::bare(MAX), UNSPEC),
        (
            "a cursor command",
            Request::update_cursor(0, 0, 0, 0, 0),
            UNSPEC,
        ),
        (
            "a 3D resource",
            Request::bare(CMD_RESOURCE_CREATE_3D),
            UNSPEC,
        ),
        (
            "a 3D upload",
            Request::bare(CMD_TRANSFER_TO_HOST_3D),
            UNSPEC,
        ),
        (
            "a 3D download",
            Request::bare(CMD_TRANSFER_FROM_HOST_3D),
            UNSPEC,
        ),
        // RESOURCE_CREATE_2D.
        ("id 0", Request::create_2d(0, FORMAT, 4, 4), RESOURCE),
        ("a taken id", Request::create_2d(1, FORMAT, 4, 4), RESOURCE),
        ("format 0", Request::create_2d(9, 0, 4, 4), PARAMETER),
        ("format MAX", Request::create_2d(9, MAX, 4, 4), PARAMETER),
        ("no width", Request::create_2d(9, FORMAT, 0, 4), PARAMETER),
        ("no height", Request::create_2d(9, FORMAT, 4, 0), PARAMETER),
        (
            "4 GiB x 4 GiB",
            Request::create_2d(9, FORMAT, MAX, MAX),
            MEMORY,
        ),
        ("4 GiB x 1", Request::create_2d(9, FORMAT, MAX, 1), MEMORY),
        (
            "over 1 GiB",
            Request::create_2d(9, FORMAT, 16384, 16385),
            MEMORY,
        ),
        // Ids that name nothing.
        ("unref of nothing", Request::unref(9), RESOURCE),
        ("unref of 0", Request::unref(0), RESOURCE),
        ("detach of nothing", Request::detach_backing(9), RESOURCE),
        (
            "attach to nothing",
            Request::attach_backing(9, &[]),
            RESOURCE,
        ),
        (
            "flush of nothing",
            Request::flush(9, rect(0, 0, 1, 1)),
            RESOURCE,
        ),
        (
            "transfer to nothing",
            Request::transfer(9, rect(0, 0, 1, 1), 0),
            RESOURCE,
        ),
        (
            "a UUID for nothing",
            Request::resource(CMD_RESOURCE_ASSIGN_UUID, 9),
            RESOURCE,
        ),
        (
            "scanout of nothing",
            Request::set_scanout(0, 9, rect(0, 0, 1, 1)),
            RESOURCE,
        ),
        // RESOURCE_ATTACH_BACKING and DETACH.
        (
            "attach twice",
            Request::attach_backing(1, &[(0x10_0000, 4096)]),
            UNSPEC,
        ),
        ("detach of no backing", Request::detach_backing(2), UNSPEC),
        (
            "attach to a host blob",
            Request::attach_backing(4, &[(0x10_0000, 4096)]),
            RESOURCE,
        ),
        (
            "memory past the end",
            Request::attach_backing(2, &[(ram - 4096, 4097)]),
            PARAMETER,
        ),
        (
            "memory nowhere",
            Request::attach_backing(2, &[(ram, 1)]),
            PARAMETER,
        ),
        (
            "memory over the top",
            Request::attach_backing(2, &[(u64::MAX - 2, 16)]),
            PARAMETER,
        ),
        (
            "one bad entry of three",
            Request::attach_backing(2, &[(0, 4096), (1 << 40, 1), (0, 4096)]),
            PARAMETER,
        ),
        (
            "fewer entries than said",
            changed(
                CMD_RESOURCE_ATTACH_BACKING,
                |body: &mut ResourceAttachBacking| {
                    body.resource_id = 2.into();
                    body.nr_entries = 1.into();
                },
            ),
            PARAMETER,
        ),
        (
            "4 Gi entries",
            changed(
                CMD_RESOURCE_ATTACH_BACKING,
                |body: &mut ResourceAttachBacking| {
                    body.resource_id = 2.into();
                    body.nr_entries = MAX.into();
                },
            ),
            PARAMETER,
        ),
        // TRANSFER_TO_HOST_2D.
        (
            "transfer without backing",
            Request::transfer(2, rect(0, 0, 1, 1), 0),
            UNSPEC,
        ),
        (
            "transfer outside in x",
            Request::transfer(1, rect(64, 0, 1, 1), 0),
            PARAMETER,
        ),
        (
            "transfer outside in y",
            Request::transfer(1, rect(0, 1, 1, 32), 0),
            PARAMETER,
        ),
        (
            "transfer too wide",
            Request::transfer(1, rect(0, 0, MAX, 1), 0),
            PARAMETER,
        ),
        (
            "transfer x overflow",
            Request::transfer(1, rect(MAX, 0, 2, 1), 0),
            PARAMETER,
        ),
        (
            "transfer y overflow",
            Request::transfer(1, rect(0, MAX, 1, MAX), 0),
            PARAMETER,
        ),
        (
            "transfer past the backing",
            Request::transfer(1, rect(0, 0, 64, 32), 4),
            PARAMETER,
        ),
        (
            "transfer from its end",
            Request::transfer(1, rect(0, 0, 1, 1), 8192),
            PARAMETER,
        ),
        (
            "offset overflow",
            Request::transfer(1, rect(0, 0, 2, 2), u64::MAX),
            PARAMETER,
        ),
        (
            "offset overflow in a row",
            Request::transfer(1, rect(0, 0, 1, 2), u64::MAX - 255),
            PARAMETER,
        ),
        // SET_SCANOUT.
        (
            "scanout 2 of 2",
            Request::set_scanout(2, 1, rect(0, 0, 1, 1)),
            SCANOUT,
        ),
        (
            "scanout MAX off",
            Request::set_scanout(MAX, 0, rect(0, 0, 0, 0)),
            SCANOUT,
        ),
        (
            "an empty scanout",
            Request::set_scanout(0, 1, rect(0, 0, 0, 0)),
            PARAMETER,
        ),
        (
            "a flat scanout",
            Request::set_scanout(0, 1, rect(0, 0, 4, 0)),
            PARAMETER,
        ),
        (
            "scanout outside",
            Request::set_scanout(0, 1, rect(1, 0, 64, 1)),
            PARAMETER,
        ),
        (
            "scanout overflow",
            Request::set_scanout(0, 1, rect(MAX, MAX, 2, 2)),
            PARAMETER,
        ),
        (
            "a blob by SET_SCANOUT",
            Request::set_scanout(0, 3, rect(0, 0, 1, 1)),
            RESOURCE,
        ),
        // RESOURCE_FLUSH.
        (
            "flush outside",
            Request::flush(1, rect(0, 0, 65, 1)),
            PARAMETER,
        ),
        (
            "flush overflow",
            Request::flush(1, rect(1, 1, MAX, MAX)),
            PARAMETER,
        ),
        // SET_SCANOUT_BLOB.
        (
            "blob scanout 2",
            scanout_blob(|body| body.scanout_id = 2.into()),
            SCANOUT,
        ),
        (
            "blob scanout of nothing",
            scanout_blob(|body| body.resource_id = 9.into()),
            RESOURCE,
        ),
        (
            "blob scanout of 2D",
            scanout_blob(|body| body.resource_id = 1.into()),
            RESOURCE,
        ),
        (
            "blob the host can't read",
            scanout_blob(|body| body.resource_id = 5.into()),
            RESOURCE,
        ),
        (
            "blob format 3000",
            scanout_blob(|body| body.format = 3000.into()),
            PARAMETER,
        ),
        (
            "blob without width",
            scanout_blob(|body| body.width = 0.into()),
            PARAMETER,
        ),
        (
            "blob without height",
            scanout_blob(|body| body.height = 0.into()),
            PARAMETER,
        ),
        (
            "blob too short",
            scanout_blob(|body| body.height = 65.into()),
            PARAMETER,
        ),
        (
            "blob rows overlap",
            scanout_blob(|body| body.strides[0] = 124.into()),
            PARAMETER,
        ),
        (
            "blob stride odd",
            scanout_blob(|body| body.strides[0] = 129.into()),
            PARAMETER,
        ),
        (
            "blob stride huge",
            scanout_blob(|body| body.strides[0] = MAX.into()),
            PARAMETER,
        ),
        (
            "blob offset huge",
            scanout_blob(|body| body.offsets[0] = MAX.into()),
            PARAMETER,
        ),
        (
            "blob huge",
            scanout_blob(|body| {
                body.width = MAX.into();
                body.height = MAX.into();
                body.strides[0] = (MAX - 3).into();
            }),
            PARAMETER,
        ),
        (
            "blob view empty",
            scanout_blob(|body| body.rect = rect(0, 0, 0, 1).into()),
            PARAMETER,
        ),
        (
            "blob view outside",
            scanout_blob(|body| body.rect = rect(1, 0, 32, 1).into()),
            PARAMETER,
        ),
        // GET_EDID, capability sets.
        (
            "EDID of scanout 2",
            changed(CMD_GET_EDID, |body: &mut GetEdid| {
                body.scanout_id = 2.into();
            }),
            SCANOUT,
        ),
        (
            "capset 1 of 1",
            changed(CMD_GET_CAPSET_INFO, |body: &mut GetCapsetInfo| {
                body.index = 1.into();
            }),
            PARAMETER,
        ),
        (
            "capset of id 1",
            changed(CMD_GET_CAPSET, |body: &mut GetCapset| {
                body.capset_id = 1.into();
            }),
            PARAMETER,
        ),
        (
            "capset of version 9",
            changed(CMD_GET_CAPSET, |body: &mut GetCapset| {
                body.capset_id = 4.into();
                body.version = 9.into();
            }),
            PARAMETER,
        ),
        // RESOURCE_CREATE_BLOB.
        (
            "blob id 0",
            create_blob(1, |body| body.resource_id = 0.into()),
            RESOURCE,
        ),
        (
            "blob id taken",
            create_blob(1, |body| body.resource_id = 1.into()),
            RESOURCE,
        ),
        (
            "blob of no bytes",
            create_blob(1, |body| body.size = 0.into()),
            PARAMETER,
        ),
        (
            "blob of half a page",
            create_blob(1, |body| body.size = 2048.into()),
            PARAMETER,
        ),
        (
            "blob memory 0",
            create_blob(1, |body| body.blob_mem = 0.into()),
            PARAMETER,
        ),
        (
            "blob memory 4",
            create_blob(1, |body| body.blob_mem = 4.into()),
            PARAMETER,
        ),
        (
            "blob flags",
            create_blob(1, |body| body.blob_flags = 8.into()),
            PARAMETER,
        ),
        ("blob of no context", create_blob(7, |_| {}), CONTEXT),
        (
            "guest blob of id 0",
            Request::guest_blob(0, 4096, &[(0, 4096)]),
            RESOURCE,
        ),
        (
            "guest blob of a taken id",
            Request::guest_blob(1, 4096, &[(0, 4096)]),
            RESOURCE,
        ),
        (
            "guest blob without pages",
            Request::guest_blob(9, 4096, &[]),
            PARAMETER,
        ),
        (
            "guest blob of few pages",
            Request::guest_blob(9, 4097, &[(0, 4096)]),
            PARAMETER,
        ),
        (
            "guest blob of 16 EiB",
            Request::guest_blob(9, u64::MAX, &[(0, 4096)]),
            PARAMETER,
        ),
        (
            "shadowed blob without pages",
            create_blob(1, |body| {
                body.blob_mem = BLOB_MEM_HOST3D_GUEST.into();
            }),
            PARAMETER,
        ),
        // RESOURCE_MAP_BLOB and UNMAP.
        ("map of nothing", Request::map_blob(9, 0), RESOURCE),
        ("map of 2D", Request::map_blob(1, 0), RESOURCE),
        ("map of a guest blob", Request::map_blob(3, 0), RESOURCE),
        ("map twice", Request::map_blob(4, 8192), RESOURCE),
        ("map over another", Request::map_blob(5, 0), PARAMETER),
        (
            "map off the grid",
            Request::map_blob(5, 8192 + 512),
            PARAMETER,
        ),
        (
            "map past the window",
            Request::map_blob(5, 1 << 30),
            PARAMETER,
        ),
        (
            "map overflow",
            Request::map_blob(5, u64::MAX - 4095),
            PARAMETER,
        ),
        ("unmap of nothing", Request::unmap_blob(9), RESOURCE),
        (
            "unmap of what is not mapped",
            Request::unmap_blob(5),
            RESOURCE,
        ),
        // Contexts.
        ("context 0", Request::create_context(0, 4, ""), CONTEXT),
        (
            "a taken context",
            Request::create_context(1, 4, ""),
            CONTEXT,
        ),
        (
            "a context of no capset",
            Request::create_context(2, 0, ""),
            PARAMETER,
        ),
        (
            "a context of capset 9",
            Request::create_context(2, 9, ""),
            PARAMETER,
        ),
        (
            "the end of no context",
            Request::destroy_context(7),
            CONTEXT,
        ),
        ("attach to no context", Request::attach(7, 1), CONTEXT),
        (
            "attach of nothing to a context",
            Request::attach(1, 9),
            RESOURCE,
        ),
        ("detach from no context", Request::detach(7, 1), CONTEXT),
        (
            "detach of nothing from a context",
            Request::detach(1, 9),
            RESOURCE,
        ),
        ("submit to no context", Request::submit(7, &[0; 8]), CONTEXT),
        (
            "submit of fewer bytes than said",
            changed(CMD_SUBMIT_3D, |body: &mut CmdSubmit| body.size = 1.into()).context(1),
            PARAMETER,
        ),
        (
            "submit of 4 GiB",
            changed(CMD_SUBMIT_3D, |body: &mut CmdSubmit| body.size = MAX.into()).context(1),
            MEMORY,
        ),
    ]
}
