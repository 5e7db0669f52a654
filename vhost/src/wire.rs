//! The layouts and numbers of virtio-gpu (virtio-v1.4 §5.7), in one place.
//!
//! Every request is a [`Header`], followed by one of the body structs below. Every answer is a
//! [`Header`] with a `RESP_*` type, and some have a body. All fields are little endian and the
//! structs have alignment 1, so a struct is its bytes: `zerocopy` turns one into the other. Nothing
//! outside of this file knows an offset.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::pixels::{PixelFormat, Rect};

pub use virtio_bindings::virtio_gpu::{
    VIRTIO_GPU_BLOB_FLAG_USE_CROSS_DEVICE as BLOB_FLAG_USE_CROSS_DEVICE,
    VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE as BLOB_FLAG_USE_MAPPABLE,
    VIRTIO_GPU_BLOB_FLAG_USE_SHAREABLE as BLOB_FLAG_USE_SHAREABLE,
    VIRTIO_GPU_BLOB_MEM_GUEST as BLOB_MEM_GUEST, VIRTIO_GPU_BLOB_MEM_HOST3D as BLOB_MEM_HOST3D,
    VIRTIO_GPU_BLOB_MEM_HOST3D_GUEST as BLOB_MEM_HOST3D_GUEST,
    VIRTIO_GPU_CAPSET_VIRGL as CAPSET_VIRGL, VIRTIO_GPU_CAPSET_VIRGL2 as CAPSET_VIRGL2,
    VIRTIO_GPU_CONTEXT_INIT_CAPSET_ID_MASK as CONTEXT_INIT_CAPSET_ID_MASK,
    VIRTIO_GPU_EVENT_DISPLAY as EVENT_DISPLAY, VIRTIO_GPU_F_CONTEXT_INIT as F_CONTEXT_INIT,
    VIRTIO_GPU_F_EDID as F_EDID, VIRTIO_GPU_F_RESOURCE_BLOB as F_RESOURCE_BLOB,
    VIRTIO_GPU_F_RESOURCE_UUID as F_RESOURCE_UUID, VIRTIO_GPU_F_VIRGL as F_VIRGL,
    VIRTIO_GPU_FLAG_FENCE as FLAG_FENCE, VIRTIO_GPU_FLAG_INFO_RING_IDX as FLAG_INFO_RING_IDX,
    VIRTIO_GPU_MAP_CACHE_CACHED as MAP_CACHE_CACHED,
    VIRTIO_GPU_MAP_CACHE_UNCACHED as MAP_CACHE_UNCACHED, VIRTIO_GPU_MAP_CACHE_WC as MAP_CACHE_WC,
    VIRTIO_GPU_MAX_SCANOUTS as MAX_SCANOUTS,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE as CMD_CTX_ATTACH_RESOURCE,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE as CMD_CTX_CREATE,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DESTROY as CMD_CTX_DESTROY,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE as CMD_CTX_DETACH_RESOURCE,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_CAPSET as CMD_GET_CAPSET,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_CAPSET_INFO as CMD_GET_CAPSET_INFO,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_DISPLAY_INFO as CMD_GET_DISPLAY_INFO,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_EDID as CMD_GET_EDID,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_MOVE_CURSOR as CMD_MOVE_CURSOR,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID as CMD_RESOURCE_ASSIGN_UUID,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING as CMD_RESOURCE_ATTACH_BACKING,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D as CMD_RESOURCE_CREATE_2D,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_3D as CMD_RESOURCE_CREATE_3D,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB as CMD_RESOURCE_CREATE_BLOB,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING as CMD_RESOURCE_DETACH_BACKING,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH as CMD_RESOURCE_FLUSH,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB as CMD_RESOURCE_MAP_BLOB,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNMAP_BLOB as CMD_RESOURCE_UNMAP_BLOB,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF as CMD_RESOURCE_UNREF,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT as CMD_SET_SCANOUT,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT_BLOB as CMD_SET_SCANOUT_BLOB,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SUBMIT_3D as CMD_SUBMIT_3D,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D as CMD_TRANSFER_FROM_HOST_3D,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D as CMD_TRANSFER_TO_HOST_2D,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D as CMD_TRANSFER_TO_HOST_3D,
    virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_UPDATE_CURSOR as CMD_UPDATE_CURSOR,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID as RESP_ERR_INVALID_CONTEXT_ID,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER as RESP_ERR_INVALID_PARAMETER,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID as RESP_ERR_INVALID_RESOURCE_ID,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID as RESP_ERR_INVALID_SCANOUT_ID,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY as RESP_ERR_OUT_OF_MEMORY,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_UNSPEC as RESP_ERR_UNSPEC,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_CAPSET as RESP_OK_CAPSET,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_CAPSET_INFO as RESP_OK_CAPSET_INFO,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_DISPLAY_INFO as RESP_OK_DISPLAY_INFO,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_EDID as RESP_OK_EDID,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_MAP_INFO as RESP_OK_MAP_INFO,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_NODATA as RESP_OK_NODATA,
    virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_RESOURCE_UUID as RESP_OK_RESOURCE_UUID,
    virtio_gpu_formats_VIRTIO_GPU_FORMAT_A8B8G8R8_UNORM as FORMAT_A8B8G8R8,
    virtio_gpu_formats_VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM as FORMAT_A8R8G8B8,
    virtio_gpu_formats_VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM as FORMAT_B8G8R8A8,
    virtio_gpu_formats_VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM as FORMAT_B8G8R8X8,
    virtio_gpu_formats_VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM as FORMAT_R8G8B8A8,
    virtio_gpu_formats_VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM as FORMAT_R8G8B8X8,
    virtio_gpu_formats_VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM as FORMAT_X8B8G8R8,
    virtio_gpu_formats_VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM as FORMAT_X8R8G8B8,
};

/// Feature bit `VIRTIO_GPU_F_BLOB_ALIGNMENT`: the config space ends with `blob_alignment`.
pub const F_BLOB_ALIGNMENT: u32 = 5;

/// Bytes of the `edid` array in the answer to `GET_EDID`.
pub const EDID_SPACE: usize = 1024;

/// Declares a wire struct with its derives and checks its size at compile time.
macro_rules! wire_struct {
    (
        $(#[$doc:meta])*
        $name:ident = $size:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        const _: () = assert!(size_of::<$name>() == $size);
    };
}

wire_struct! {
    /// `virtio_gpu_ctrl_hdr`: starts every request and every answer.
    Header = 24 {
        /// `CMD_*` or `RESP_*`.
        kind: U32,
        /// `FLAG_*`.
        flags: U32,
        /// The fence that the answer signals, when `FLAG_FENCE` is set.
        fence_id: U64,
        /// The context that the command acts in; 0 = none.
        context_id: U32,
        /// Timeline of the fence inside the context, when `FLAG_INFO_RING_IDX` is set.
        ring_index: u8,
        /// Zero.
        padding: [u8; 3],
    }
}

wire_struct! {
    /// `virtio_gpu_rect`, in pixels.
    WireRect = 16 {
        /// Left edge.
        x: U32,
        /// Upper edge.
        y: U32,
        /// Width.
        width: U32,
        /// Height.
        height: U32,
    }
}

wire_struct! {
    /// Body of the commands that name one resource: `RESOURCE_UNREF`, `RESOURCE_DETACH_BACKING`,
    /// `RESOURCE_ASSIGN_UUID`, `RESOURCE_UNMAP_BLOB`, `CTX_ATTACH_RESOURCE`, `CTX_DETACH_RESOURCE`.
    ResourceRef = 8 {
        /// The resource.
        resource_id: U32,
        /// Zero.
        padding: U32,
    }
}

wire_struct! {
    /// Body of `RESOURCE_CREATE_2D`.
    ResourceCreate2d = 16 {
        /// Id of the new resource, not 0.
        resource_id: U32,
        /// `FORMAT_*`.
        format: U32,
        /// Width in pixels.
        width: U32,
        /// Height in pixels.
        height: U32,
    }
}

wire_struct! {
    /// Body of `RESOURCE_ATTACH_BACKING`; `nr_entries` × [`MemEntry`] follow.
    ResourceAttachBacking = 8 {
        /// The resource.
        resource_id: U32,
        /// How many entries follow.
        nr_entries: U32,
    }
}

wire_struct! {
    /// `virtio_gpu_mem_entry`: a piece of guest memory.
    MemEntry = 16 {
        /// Guest physical address.
        address: U64,
        /// Length in bytes.
        length: U32,
        /// Zero.
        padding: U32,
    }
}

impl MemEntry {
    /// An entry of no bytes.
    pub const EMPTY: Self = Self {
        address: U64::ZERO,
        length: U32::ZERO,
        padding: U32::ZERO,
    };
}

wire_struct! {
    /// Body of `TRANSFER_TO_HOST_2D`.
    TransferToHost2d = 32 {
        /// The rectangle to copy, in the resource.
        rect: WireRect,
        /// Byte offset of the rectangle's first pixel in the backing.
        offset: U64,
        /// The resource.
        resource_id: U32,
        /// Zero.
        padding: U32,
    }
}

wire_struct! {
    /// Body of `RESOURCE_CREATE_3D`.
    ResourceCreate3d = 48 {
        /// Id of the new resource, not 0.
        resource_id: U32,
        /// The target in Gallium's numbers: 0 is a buffer, 2 a 2D texture. The renderer knows the
        /// others.
        target: U32,
        /// The format in virgl's numbers. The eight of `FORMAT_*` are among them.
        format: U32,
        /// What it is used for, in virgl's bits.
        bind: U32,
        /// Width in pixels; of a buffer, its bytes.
        width: U32,
        /// Height in pixels.
        height: U32,
        /// Depth in pixels.
        depth: U32,
        /// Layers.
        array_size: U32,
        /// The highest mipmap level.
        last_level: U32,
        /// Samples a pixel.
        samples: U32,
        /// `RESOURCE_FLAG_*`, the renderer's.
        flags: U32,
        /// Zero.
        padding: U32,
    }
}

wire_struct! {
    /// `virtio_gpu_box`, in pixels.
    WireBox = 24 {
        /// Left edge.
        x: U32,
        /// Upper edge.
        y: U32,
        /// First slice or layer.
        z: U32,
        /// Width.
        width: U32,
        /// Height.
        height: U32,
        /// Slices or layers.
        depth: U32,
    }
}

wire_struct! {
    /// Body of `TRANSFER_TO_HOST_3D` and `TRANSFER_FROM_HOST_3D`.
    TransferHost3d = 48 {
        /// What to copy, in the resource.
        bounds: WireBox,
        /// Byte offset of the box's first pixel in the backing.
        offset: U64,
        /// The resource.
        resource_id: U32,
        /// The mipmap level.
        level: U32,
        /// Bytes from row to row in the backing; 0 = without padding.
        stride: U32,
        /// Bytes from layer to layer in the backing; 0 = without padding.
        layer_stride: U32,
    }
}

wire_struct! {
    /// Body of `SET_SCANOUT`.
    SetScanout = 24 {
        /// The part of the resource to show.
        rect: WireRect,
        /// The scanout.
        scanout_id: U32,
        /// The resource; 0 turns the scanout off.
        resource_id: U32,
    }
}

wire_struct! {
    /// Body of `SET_SCANOUT_BLOB`.
    SetScanoutBlob = 72 {
        /// The part of the framebuffer to show.
        rect: WireRect,
        /// The scanout.
        scanout_id: U32,
        /// The blob resource; 0 turns the scanout off.
        resource_id: U32,
        /// Width of the framebuffer in pixels.
        width: U32,
        /// Height of the framebuffer in pixels.
        height: U32,
        /// `FORMAT_*`.
        format: U32,
        /// Zero.
        padding: U32,
        /// Bytes from row to row, per plane; all formats here have one plane.
        strides: [U32; 4],
        /// Byte offset of each plane in the blob.
        offsets: [U32; 4],
    }
}

wire_struct! {
    /// Body of `RESOURCE_FLUSH`.
    ResourceFlush = 24 {
        /// What changed.
        rect: WireRect,
        /// The resource.
        resource_id: U32,
        /// Zero.
        padding: U32,
    }
}

wire_struct! {
    /// `virtio_gpu_display_one`: one monitor in the answer to `GET_DISPLAY_INFO`, which has 16 of
    /// them.
    DisplayOne = 24 {
        /// Preferred size, and place on the desktop.
        rect: WireRect,
        /// Non-zero when a monitor is connected.
        enabled: U32,
        /// Zero.
        flags: U32,
    }
}

wire_struct! {
    /// Body of `GET_EDID`.
    GetEdid = 8 {
        /// The scanout.
        scanout_id: U32,
        /// Zero.
        padding: U32,
    }
}

wire_struct! {
    /// Start of the answer to `GET_EDID`; [`EDID_SPACE`] bytes follow.
    EdidSize = 8 {
        /// How many of the bytes that follow are the EDID.
        size: U32,
        /// Zero.
        padding: U32,
    }
}

wire_struct! {
    /// Body of `GET_CAPSET_INFO`.
    GetCapsetInfo = 8 {
        /// Index of the capability set, below `num_capsets`.
        index: U32,
        /// Zero.
        padding: U32,
    }
}

wire_struct! {
    /// Body of the answer to `GET_CAPSET_INFO`.
    CapsetInfoReply = 16 {
        /// `CAPSET_*`.
        capset_id: U32,
        /// Highest version.
        max_version: U32,
        /// Size in bytes of the largest version.
        max_size: U32,
        /// Zero.
        padding: U32,
    }
}

wire_struct! {
    /// Body of `GET_CAPSET`.
    GetCapset = 8 {
        /// `CAPSET_*`.
        capset_id: U32,
        /// Version wanted.
        version: U32,
    }
}

wire_struct! {
    /// Body of `CTX_CREATE`.
    CtxCreate = 72 {
        /// Bytes used in `debug_name`.
        name_length: U32,
        /// Capability set in the low 8 bits, with `F_CONTEXT_INIT`.
        context_init: U32,
        /// A name for logs.
        debug_name: [u8; 64],
    }
}

wire_struct! {
    /// Body of `SUBMIT_3D`; `size` bytes of commands follow.
    CmdSubmit = 8 {
        /// Bytes that follow.
        size: U32,
        /// Zero.
        padding: U32,
    }
}

wire_struct! {
    /// Body of `RESOURCE_CREATE_BLOB`; `nr_entries` × [`MemEntry`] follow.
    ResourceCreateBlob = 32 {
        /// Id of the new resource, not 0.
        resource_id: U32,
        /// `BLOB_MEM_*`.
        blob_mem: U32,
        /// `BLOB_FLAG_*`.
        blob_flags: U32,
        /// How many entries follow.
        nr_entries: U32,
        /// What the context takes the memory from; 0 = fresh memory.
        blob_id: U64,
        /// Size in bytes.
        size: U64,
    }
}

wire_struct! {
    /// Body of `RESOURCE_MAP_BLOB`.
    ResourceMapBlob = 16 {
        /// The blob resource.
        resource_id: U32,
        /// Zero.
        padding: U32,
        /// Where in the host-visible window, in bytes.
        offset: U64,
    }
}

wire_struct! {
    /// Body of the answer to `RESOURCE_MAP_BLOB`.
    MapInfo = 8 {
        /// `MAP_CACHE_*`.
        map_info: U32,
        /// Zero.
        padding: U32,
    }
}

wire_struct! {
    /// Body of `UPDATE_CURSOR` and `MOVE_CURSOR`.
    UpdateCursor = 32 {
        /// The scanout.
        scanout_id: U32,
        /// Left edge of the image, in two's complement.
        x: U32,
        /// Upper edge of the image, in two's complement.
        y: U32,
        /// Zero.
        padding: U32,
        /// The image; 0 hides the cursor. This field and those after it are only for
        /// `UPDATE_CURSOR`.
        resource_id: U32,
        /// Hot spot inside the image.
        hot_x: U32,
        /// Hot spot inside the image.
        hot_y: U32,
        /// Zero.
        padding_end: U32,
    }
}

wire_struct! {
    /// The config space (virtio-v1.4 §5.7.4), with the field of `F_BLOB_ALIGNMENT`.
    Config = 20 {
        /// Events that happened, `EVENT_*`.
        events_read: U32,
        /// Written by the driver: events to clear.
        events_clear: U32,
        /// Number of scanouts, 1 to [`MAX_SCANOUTS`].
        num_scanouts: U32,
        /// Number of capability sets.
        num_capsets: U32,
        /// Alignment of blob sizes and map offsets in bytes.
        blob_alignment: U32,
    }
}

impl From<WireRect> for Rect {
    fn from(rect: WireRect) -> Self {
        Self {
            x: rect.x.get(),
            y: rect.y.get(),
            width: rect.width.get(),
            height: rect.height.get(),
        }
    }
}

impl From<Rect> for WireRect {
    fn from(rect: Rect) -> Self {
        Self {
            x: rect.x.into(),
            y: rect.y.into(),
            width: rect.width.into(),
            height: rect.height.into(),
        }
    }
}

/// The pixel format for a `FORMAT_*` number. `None` for a number that is not one of the eight.
pub fn pixel_format(number: u32) -> Option<PixelFormat> {
    match number {
        FORMAT_B8G8R8A8 => Some(PixelFormat::B8G8R8A8),
        FORMAT_B8G8R8X8 => Some(PixelFormat::B8G8R8X8),
        FORMAT_A8R8G8B8 => Some(PixelFormat::A8R8G8B8),
        FORMAT_X8R8G8B8 => Some(PixelFormat::X8R8G8B8),
        FORMAT_R8G8B8A8 => Some(PixelFormat::R8G8B8A8),
        FORMAT_X8B8G8R8 => Some(PixelFormat::X8B8G8R8),
        FORMAT_A8B8G8R8 => Some(PixelFormat::A8B8G8R8),
        FORMAT_R8G8B8X8 => Some(PixelFormat::R8G8B8X8),
        _ => None,
    }
}

/// The name of a command for logs.
pub fn command_name(kind: u32) -> &'static str {
    match kind {
        CMD_GET_DISPLAY_INFO => "GET_DISPLAY_INFO",
        CMD_RESOURCE_CREATE_2D => "RESOURCE_CREATE_2D",
        CMD_RESOURCE_UNREF => "RESOURCE_UNREF",
        CMD_SET_SCANOUT => "SET_SCANOUT",
        CMD_RESOURCE_FLUSH => "RESOURCE_FLUSH",
        CMD_TRANSFER_TO_HOST_2D => "TRANSFER_TO_HOST_2D",
        CMD_RESOURCE_ATTACH_BACKING => "RESOURCE_ATTACH_BACKING",
        CMD_RESOURCE_DETACH_BACKING => "RESOURCE_DETACH_BACKING",
        CMD_GET_CAPSET_INFO => "GET_CAPSET_INFO",
        CMD_GET_CAPSET => "GET_CAPSET",
        CMD_GET_EDID => "GET_EDID",
        CMD_RESOURCE_ASSIGN_UUID => "RESOURCE_ASSIGN_UUID",
        CMD_RESOURCE_CREATE_BLOB => "RESOURCE_CREATE_BLOB",
        CMD_SET_SCANOUT_BLOB => "SET_SCANOUT_BLOB",
        CMD_CTX_CREATE => "CTX_CREATE",
        CMD_CTX_DESTROY => "CTX_DESTROY",
        CMD_CTX_ATTACH_RESOURCE => "CTX_ATTACH_RESOURCE",
        CMD_CTX_DETACH_RESOURCE => "CTX_DETACH_RESOURCE",
        CMD_RESOURCE_CREATE_3D => "RESOURCE_CREATE_3D",
        CMD_TRANSFER_TO_HOST_3D => "TRANSFER_TO_HOST_3D",
        CMD_TRANSFER_FROM_HOST_3D => "TRANSFER_FROM_HOST_3D",
        CMD_SUBMIT_3D => "SUBMIT_3D",
        CMD_RESOURCE_MAP_BLOB => "RESOURCE_MAP_BLOB",
        CMD_RESOURCE_UNMAP_BLOB => "RESOURCE_UNMAP_BLOB",
        CMD_UPDATE_CURSOR => "UPDATE_CURSOR",
        CMD_MOVE_CURSOR => "MOVE_CURSOR",
        _ => "unknown command",
    }
}
