//! Commands as bytes.

use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::screen::Rect;
use crate::wire::{self, Header};

/// A command under construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    header: Header,
    body: Vec<u8>,
}

impl Request {
    /// A command of type `kind` with `body` behind its header.
    pub fn new(kind: u32, body: &(impl IntoBytes + Immutable + ?Sized)) -> Self {
        let mut header = Header::new_zeroed();
        header.kind = kind.into();
        Self {
            header,
            body: body.as_bytes().to_vec(),
        }
    }

    /// A command that is a header.
    pub fn bare(kind: u32) -> Self {
        Self::new(kind, &[0_u8; 0])
    }

    /// Acts in a context.
    #[must_use]
    pub fn context(mut self, id: u32) -> Self {
        self.header.context_id = id.into();
        self
    }

    /// With a fence on the global timeline.
    #[must_use]
    pub fn fence(mut self, id: u64) -> Self {
        self.header.flags |= wire::FLAG_FENCE;
        self.header.fence_id = id.into();
        self
    }

    /// With a fence on a ring of the context.
    #[must_use]
    pub fn ring_fence(self, ring: u8, id: u64) -> Self {
        let mut request = self.fence(id);
        request.header.flags |= wire::FLAG_INFO_RING_IDX;
        request.header.ring_index = ring;
        request
    }

    /// With more bytes behind.
    #[must_use]
    pub fn then(mut self, bytes: &[u8]) -> Self {
        self.body.extend_from_slice(bytes);
        self
    }

    /// Header and body.
    pub fn bytes(&self) -> Vec<u8> {
        [self.header.as_bytes(), &self.body].concat()
    }

    /// One of the commands that name a resource and nothing else.
    pub fn resource(kind: u32, id: u32) -> Self {
        let body = wire::ResourceRef {
            resource_id: id.into(),
            padding: 0.into(),
        };
        Self::new(kind, &body)
    }

    /// `RESOURCE_CREATE_2D`.
    pub fn create_2d(id: u32, format: u32, width: u32, height: u32) -> Self {
        let body = wire::ResourceCreate2d {
            resource_id: id.into(),
            format: format.into(),
            width: width.into(),
            height: height.into(),
        };
        Self::new(wire::CMD_RESOURCE_CREATE_2D, &body)
    }

    /// `RESOURCE_UNREF`.
    pub fn unref(id: u32) -> Self {
        Self::resource(wire::CMD_RESOURCE_UNREF, id)
    }

    /// `RESOURCE_ATTACH_BACKING` with (address, length) entries.
    pub fn attach_backing(id: u32, entries: &[(u64, u32)]) -> Self {
        let body = wire::ResourceAttachBacking {
            resource_id: id.into(),
            nr_entries: (entries.len() as u32).into(),
        };
        Self::new(wire::CMD_RESOURCE_ATTACH_BACKING, &body).then(&entry_bytes(entries))
    }

    /// `RESOURCE_DETACH_BACKING`.
    pub fn detach_backing(id: u32) -> Self {
        Self::resource(wire::CMD_RESOURCE_DETACH_BACKING, id)
    }

    /// `TRANSFER_TO_HOST_2D`.
    pub fn transfer(id: u32, rect: Rect, offset: u64) -> Self {
        let body = wire::TransferToHost2d {
            rect: rect.into(),
            offset: offset.into(),
            resource_id: id.into(),
            padding: 0.into(),
        };
        Self::new(wire::CMD_TRANSFER_TO_HOST_2D, &body)
    }

    /// `RESOURCE_CREATE_3D` of a 2D texture.
    pub fn create_3d(id: u32, format: u32, width: u32, height: u32) -> Self {
        let mut body = wire::ResourceCreate3d::new_zeroed();
        body.resource_id = id.into();
        body.target = 2.into();
        body.format = format.into();
        body.width = width.into();
        body.height = height.into();
        body.depth = 1.into();
        body.array_size = 1.into();
        Self::new(wire::CMD_RESOURCE_CREATE_3D, &body)
    }

    /// `TRANSFER_TO_HOST_3D` or, with `kind`, `TRANSFER_FROM_HOST_3D` of a rectangle of level 0.
    pub fn transfer_3d(kind: u32, id: u32, rect: Rect, offset: u64, stride: u32) -> Self {
        let mut body = wire::TransferHost3d::new_zeroed();
        body.bounds = wire::WireBox {
            x: rect.x.into(),
            y: rect.y.into(),
            z: 0.into(),
            width: rect.width.into(),
            height: rect.height.into(),
            depth: 1.into(),
        };
        body.offset = offset.into();
        body.resource_id = id.into();
        body.stride = stride.into();
        Self::new(kind, &body)
    }

    /// `SET_SCANOUT`.
    pub fn set_scanout(scanout: u32, id: u32, rect: Rect) -> Self {
        let body = wire::SetScanout {
            rect: rect.into(),
            scanout_id: scanout.into(),
            resource_id: id.into(),
        };
        Self::new(wire::CMD_SET_SCANOUT, &body)
    }

    /// `SET_SCANOUT_BLOB` of a whole framebuffer, without padding between its rows.
    pub fn set_scanout_blob(scanout: u32, id: u32, format: u32, width: u32, height: u32) -> Self {
        let rect = Rect {
            x: 0,
            y: 0,
            width,
            height,
        };
        Self::set_scanout_frame(scanout, id, format, (width, height), (0, width * 4), rect)
    }

    /// `SET_SCANOUT_BLOB` with (width, height) and (offset, stride) of the framebuffer.
    pub fn set_scanout_frame(
        scanout: u32,
        id: u32,
        format: u32,
        (width, height): (u32, u32),
        (offset, stride): (u32, u32),
        rect: Rect,
    ) -> Self {
        let mut body = wire::SetScanoutBlob::new_zeroed();
        body.rect = rect.into();
        body.scanout_id = scanout.into();
        body.resource_id = id.into();
        body.width = width.into();
        body.height = height.into();
        body.format = format.into();
        body.strides[0] = stride.into();
        body.offsets[0] = offset.into();
        Self::new(wire::CMD_SET_SCANOUT_BLOB, &body)
    }

    /// `RESOURCE_FLUSH`.
    pub fn flush(id: u32, rect: Rect) -> Self {
        let body = wire::ResourceFlush {
            rect: rect.into(),
            resource_id: id.into(),
            padding: 0.into(),
        };
        Self::new(wire::CMD_RESOURCE_FLUSH, &body)
    }

    /// `RESOURCE_CREATE_BLOB` in guest memory.
    pub fn guest_blob(id: u32, size: u64, entries: &[(u64, u32)]) -> Self {
        let mut body = wire::ResourceCreateBlob::new_zeroed();
        body.resource_id = id.into();
        body.blob_mem = wire::BLOB_MEM_GUEST.into();
        body.nr_entries = (entries.len() as u32).into();
        body.size = size.into();
        Self::new(wire::CMD_RESOURCE_CREATE_BLOB, &body).then(&entry_bytes(entries))
    }

    /// `RESOURCE_CREATE_BLOB` of a mappable host blob.
    pub fn host_blob(context: u32, id: u32, blob_id: u64, size: u64) -> Self {
        let mut body = wire::ResourceCreateBlob::new_zeroed();
        body.resource_id = id.into();
        body.blob_mem = wire::BLOB_MEM_HOST3D.into();
        body.blob_flags = wire::BLOB_FLAG_USE_MAPPABLE.into();
        body.blob_id = blob_id.into();
        body.size = size.into();
        Self::new(wire::CMD_RESOURCE_CREATE_BLOB, &body).context(context)
    }

    /// `RESOURCE_MAP_BLOB`.
    pub fn map_blob(id: u32, offset: u64) -> Self {
        let body = wire::ResourceMapBlob {
            resource_id: id.into(),
            padding: 0.into(),
            offset: offset.into(),
        };
        Self::new(wire::CMD_RESOURCE_MAP_BLOB, &body)
    }

    /// `RESOURCE_UNMAP_BLOB`.
    pub fn unmap_blob(id: u32) -> Self {
        Self::resource(wire::CMD_RESOURCE_UNMAP_BLOB, id)
    }

    /// `CTX_CREATE` for a capability set.
    pub fn create_context(id: u32, capset: u32, name: &str) -> Self {
        let mut body = wire::CtxCreate::new_zeroed();
        body.name_length = (name.len() as u32).into();
        body.context_init = capset.into();
        for (place, byte) in body.debug_name.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        Self::new(wire::CMD_CTX_CREATE, &body).context(id)
    }

    /// `CTX_DESTROY`.
    pub fn destroy_context(id: u32) -> Self {
        Self::bare(wire::CMD_CTX_DESTROY).context(id)
    }

    /// `CTX_ATTACH_RESOURCE`.
    pub fn attach(context: u32, id: u32) -> Self {
        Self::resource(wire::CMD_CTX_ATTACH_RESOURCE, id).context(context)
    }

    /// `CTX_DETACH_RESOURCE`.
    pub fn detach(context: u32, id: u32) -> Self {
        Self::resource(wire::CMD_CTX_DETACH_RESOURCE, id).context(context)
    }

    /// `SUBMIT_3D`.
    pub fn submit(context: u32, commands: &[u8]) -> Self {
        let body = wire::CmdSubmit {
            size: (commands.len() as u32).into(),
            padding: 0.into(),
        };
        Self::new(wire::CMD_SUBMIT_3D, &body)
            .then(commands)
            .context(context)
    }

    /// `UPDATE_CURSOR` with its hot spot at (`hot`, `hot`).
    pub fn update_cursor(scanout: u32, id: u32, x: u32, y: u32, hot: u32) -> Self {
        Self::new(wire::CMD_UPDATE_CURSOR, &cursor(scanout, id, x, y, hot))
    }

    /// `MOVE_CURSOR`.
    pub fn move_cursor(scanout: u32, x: u32, y: u32) -> Self {
        Self::new(wire::CMD_MOVE_CURSOR, &cursor(scanout, 0, x, y, 0))
    }
}

impl From<&Request> for Vec<u8> {
    fn from(request: &Request) -> Self {
        request.bytes()
    }
}

fn cursor(scanout: u32, id: u32, x: u32, y: u32, hot: u32) -> wire::UpdateCursor {
    wire::UpdateCursor {
        scanout_id: scanout.into(),
        x: x.into(),
        y: y.into(),
        padding: 0.into(),
        resource_id: id.into(),
        hot_x: hot.into(),
        hot_y: hot.into(),
        padding_end: 0.into(),
    }
}

fn entry_bytes(entries: &[(u64, u32)]) -> Vec<u8> {
    let entries: Vec<wire::MemEntry> = entries
        .iter()
        .map(|&(address, length)| wire::MemEntry {
            address: address.into(),
            length: length.into(),
            padding: 0.into(),
        })
        .collect();
    entries.as_bytes().to_vec()
}
