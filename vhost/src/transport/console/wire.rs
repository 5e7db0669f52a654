//! The messages of the GPU socket (QEMU, docs/interop/vhost-user-gpu.rst). Numbers are in native
//! byte order.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Request codes, `VHOST_USER_GPU_*`.
pub(super) mod request {
    pub(in super::super) const GET_PROTOCOL_FEATURES: u32 = 1;
    pub(in super::super) const SET_PROTOCOL_FEATURES: u32 = 2;
    pub(in super::super) const GET_DISPLAY_INFO: u32 = 3;
    pub(in super::super) const CURSOR_POS: u32 = 4;
    pub(in super::super) const CURSOR_POS_HIDE: u32 = 5;
    pub(in super::super) const CURSOR_UPDATE: u32 = 6;
    pub(in super::super) const SCANOUT: u32 = 7;
    pub(in super::super) const UPDATE: u32 = 8;
    pub(in super::super) const GET_EDID: u32 = 11;
}

/// Protocol feature `EDID`.
pub(super) const FEATURE_EDID: u64 = 1 << 0;
/// Protocol feature `DMABUF2`: QEMU understands `DMABUF_SCANOUT2`.
pub(super) const FEATURE_DMABUF2: u64 = 1 << 1;

/// Header flag: this message is a reply.
pub(super) const REPLY: u32 = 1 << 2;

/// `VIRTIO_GPU_MAX_SCANOUTS`.
pub(super) const MAX_SCANOUTS: usize = 16;

/// Most bytes of an EDID in a reply.
pub(super) const MAX_EDID: usize = 1024;

/// The header of every message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) request: u32,
    pub(super) flags: u32,
    /// Bytes that follow.
    pub(super) size: u32,
}

/// `SCANOUT`; 0 × 0 turns it off.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Scanout {
    pub(super) scanout: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// `UPDATE`, before its pixels (x8r8g8b8, rows without padding).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Update {
    pub(super) scanout: u32,
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// `CURSOR_POS` and `CURSOR_POS_HIDE`; also the start of `CURSOR_UPDATE`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct CursorPosition {
    pub(super) scanout: u32,
    pub(super) x: u32,
    pub(super) y: u32,
}

/// `CURSOR_UPDATE`, before its 64 × 64 pixels (a8r8g8b8).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct CursorUpdate {
    pub(super) position: CursorPosition,
    pub(super) hot_x: u32,
    pub(super) hot_y: u32,
}

/// The header of a virtio-gpu response, which replies contain (virtio-v1.4 §5.7.6.7).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ResponseHeader {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) fence: u64,
    pub(super) context: u32,
    pub(super) ring: u8,
    pub(super) padding: [u8; 3],
}

/// One display of [`DisplayInfo`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Display {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) enabled: u32,
    pub(super) flags: u32,
}

/// Reply to `GET_DISPLAY_INFO`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DisplayInfo {
    pub(super) header: ResponseHeader,
    pub(super) displays: [Display; MAX_SCANOUTS],
}

/// Reply to `GET_EDID`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Edid {
    pub(super) header: ResponseHeader,
    pub(super) size: u32,
    pub(super) padding: u32,
    pub(super) bytes: [u8; MAX_EDID],
}

/// An all-zero reply to be filled.
pub(super) fn empty<T: FromZeros>() -> T {
    T::new_zeroed()
}

const _: () = {
    assert!(size_of::<DisplayInfo>() == 408);
    assert!(size_of::<Edid>() == 1056);
    assert!(size_of::<CursorUpdate>() == 20);
};
