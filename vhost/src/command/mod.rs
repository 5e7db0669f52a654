//! The commands of virtio-gpu: one file for each family.
//!
//! A [`Command`] is a request copied out of guest memory whole ([`Command::parse`]), so that nothing the guest
//! writes later matters, and so that it can wait. [`execute`] sends it to its family. A family's function checks
//! everything, then acts, and returns its [`Progress`] or the [`Refusal`] that the guest gets as an error code.

mod blob;
mod context;
mod cursor;
mod display;
mod resource_2d;
mod resource_3d;
mod scanout;

use vm_memory::GuestMemoryMmap;

use crate::backing::Backing;
use crate::budget::SUBMIT_BYTES;
use crate::chain::Request;
use crate::deferred::Keys;
use crate::device::Queue;
use crate::engine::{Call, Engine};
use crate::error::Refusal;
use crate::renderer::ContextId;
use crate::resource3d::Direction;
use crate::wire::{self, Header};

/// An answer without its header's echo.
pub(crate) struct Response {
    /// `RESP_*`.
    pub(crate) kind: u32,
    /// What follows the header. Only answers off the hot paths have a body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// An answer that is its header.
    pub(crate) fn bare(kind: u32) -> Self {
        Self {
            kind,
            body: Vec::new(),
        }
    }

    /// `OK_NODATA`.
    pub(crate) fn ok() -> Self {
        Self::bare(wire::RESP_OK_NODATA)
    }
}

/// How far a command got.
pub(crate) enum Progress {
    /// It is done.
    Answer(Response),
    /// It was held ([`Call::hold`]), and someone else gives its response.
    Held,
}

impl Progress {
    fn ok() -> Self {
        Self::Answer(Response::ok())
    }
}

/// A request, copied.
pub(crate) enum Command {
    GetDisplayInfo,
    GetEdid(wire::GetEdid),
    CreateImage(wire::CreateImage),
    Unref(wire::ResourceRef),
    AttachBacking(wire::AttachBacking, Backing),
    DetachBacking(wire::ResourceRef),
    TransferToHost(wire::TransferToHost),
    AssignUuid(wire::ResourceRef),
    SetScanout(wire::SetScanout),
    SetScanoutBlob(wire::SetScanoutBlob),
    Flush(wire::ResourceFlush),
    CreateBlob(wire::CreateBlob, Backing),
    MapBlob(wire::MapBlob),
    UnmapBlob(wire::ResourceRef),
    GetCapsetInfo(wire::GetCapsetInfo),
    GetCapset(wire::GetCapset),
    CreateContext(wire::ContextCreate),
    DestroyContext,
    AttachResource(wire::ResourceRef),
    DetachResource(wire::ResourceRef),
    Submit(Vec<u8>),
    Create3d(wire::Create3d),
    Transfer3d(Direction, wire::Transfer3d),
    UpdateCursor(wire::UpdateCursor),
    MoveCursor(wire::UpdateCursor),
}

impl Command {
    /// Copies the rest of a request whose header is `header`.
    pub(crate) fn parse(
        queue: Queue,
        header: &Header,
        request: &mut Request<'_>,
        memory: &GuestMemoryMmap,
        engine: &Engine,
    ) -> Result<Self, Refusal> {
        let kind = header.kind.get();
        match queue {
            Queue::Control => Self::parse_control(kind, request, memory, engine),
            Queue::Cursor => match kind {
                wire::CMD_UPDATE_CURSOR => Ok(Self::UpdateCursor(request.take()?)),
                wire::CMD_MOVE_CURSOR => Ok(Self::MoveCursor(request.take()?)),
                _ => Err(Refusal::UnknownCommand(kind)),
            },
        }
    }

    fn parse_control(
        kind: u32,
        request: &mut Request<'_>,
        memory: &GuestMemoryMmap,
        engine: &Engine,
    ) -> Result<Self, Refusal> {
        Ok(match kind {
            wire::CMD_GET_DISPLAY_INFO => Self::GetDisplayInfo,
            wire::CMD_GET_EDID => Self::GetEdid(request.take()?),
            wire::CMD_RESOURCE_CREATE_2D => Self::CreateImage(request.take()?),
            wire::CMD_RESOURCE_UNREF => Self::Unref(request.take()?),
            wire::CMD_RESOURCE_ATTACH_BACKING => {
                let attach: wire::AttachBacking = request.take()?;
                let count = attach.nr_entries.get();
                let pool = &engine.pools.entries;
                Self::AttachBacking(attach, Backing::read_from(request, memory, count, pool)?)
            }
            wire::CMD_RESOURCE_DETACH_BACKING => Self::DetachBacking(request.take()?),
            wire::CMD_TRANSFER_TO_HOST_2D => Self::TransferToHost(request.take()?),
            wire::CMD_RESOURCE_ASSIGN_UUID => Self::AssignUuid(request.take()?),
            wire::CMD_SET_SCANOUT => Self::SetScanout(request.take()?),
            wire::CMD_SET_SCANOUT_BLOB => Self::SetScanoutBlob(request.take()?),
            wire::CMD_RESOURCE_FLUSH => Self::Flush(request.take()?),
            wire::CMD_RESOURCE_CREATE_BLOB => {
                let create: wire::CreateBlob = request.take()?;
                let count = create.nr_entries.get();
                let pool = &engine.pools.entries;
                Self::CreateBlob(create, Backing::read_from(request, memory, count, pool)?)
            }
            wire::CMD_RESOURCE_MAP_BLOB => Self::MapBlob(request.take()?),
            wire::CMD_RESOURCE_UNMAP_BLOB => Self::UnmapBlob(request.take()?),
            wire::CMD_GET_CAPSET_INFO => Self::GetCapsetInfo(request.take()?),
            wire::CMD_GET_CAPSET => Self::GetCapset(request.take()?),
            wire::CMD_CTX_CREATE => Self::CreateContext(request.take()?),
            wire::CMD_CTX_DESTROY => Self::DestroyContext,
            wire::CMD_CTX_ATTACH_RESOURCE => Self::AttachResource(request.take()?),
            wire::CMD_CTX_DETACH_RESOURCE => Self::DetachResource(request.take()?),
            wire::CMD_SUBMIT_3D => Self::Submit(read_submit(request)?),
            wire::CMD_RESOURCE_CREATE_3D
            | wire::CMD_TRANSFER_TO_HOST_3D
            | wire::CMD_TRANSFER_FROM_HOST_3D
                if engine.resources_3d.is_none() =>
            {
                return Err(Refusal::NoRenderer(wire::command_name(kind)));
            }
            wire::CMD_RESOURCE_CREATE_3D => Self::Create3d(request.take()?),
            wire::CMD_TRANSFER_TO_HOST_3D => Self::Transfer3d(Direction::ToHost, request.take()?),
            wire::CMD_TRANSFER_FROM_HOST_3D => {
                Self::Transfer3d(Direction::FromHost, request.take()?)
            }
            _ => return Err(Refusal::UnknownCommand(kind)),
        })
    }

    /// What it touches, in context `context`.
    pub(crate) fn keys(&self, context: ContextId) -> Keys {
        let resource = |id: zerocopy::little_endian::U32| Keys {
            resource: Some(id.get()),
            ..Keys::default()
        };
        let context = Some(context);
        match self {
            Self::GetDisplayInfo
            | Self::GetEdid(_)
            | Self::GetCapsetInfo(_)
            | Self::GetCapset(_)
            // Ends everything that others may wait for, so it waits for nothing.
            | Self::DestroyContext
            // The cursor queue never waits for the other one.
            | Self::UpdateCursor(_)
            | Self::MoveCursor(_) => Keys::default(),
            Self::CreateImage(create) => resource(create.resource_id),
            Self::Unref(named)
            | Self::DetachBacking(named)
            | Self::AssignUuid(named)
            | Self::UnmapBlob(named) => resource(named.resource_id),
            Self::AttachBacking(attach, _) => resource(attach.resource_id),
            Self::TransferToHost(transfer) => resource(transfer.resource_id),
            Self::Flush(flush) => resource(flush.resource_id),
            Self::MapBlob(map) => resource(map.resource_id),
            Self::SetScanout(set) => Keys {
                scanout: Some(set.scanout_id.get()),
                ..resource(set.resource_id)
            },
            Self::SetScanoutBlob(set) => Keys {
                scanout: Some(set.scanout_id.get()),
                ..resource(set.resource_id)
            },
            Self::CreateBlob(create, _) => Keys {
                context,
                ..resource(create.resource_id)
            },
            Self::AttachResource(named) | Self::DetachResource(named) => Keys {
                context,
                ..resource(named.resource_id)
            },
            Self::Create3d(create) => resource(create.resource_id),
            Self::Transfer3d(_, transfer) => Keys {
                context,
                ..resource(transfer.resource_id)
            },
            Self::CreateContext(_) | Self::Submit(_) => Keys {
                context,
                ..Keys::default()
            },
        }
    }

    /// Whether it acts on a resource that must have been made, so that it waits for one that is being made.
    pub(crate) fn needs_its_resource(&self) -> bool {
        !matches!(self, Self::UpdateCursor(_) | Self::MoveCursor(_))
    }

    /// Bytes of heap that it carries.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Submit(commands) => commands.len() as u64,
            _ => 0,
        }
    }

    /// Bytes of room that its answer needs at least.
    pub(crate) fn answer_size(&self) -> u64 {
        let body = match self {
            Self::UpdateCursor(_) | Self::MoveCursor(_) => return 0,
            Self::MapBlob(_) => size_of::<wire::MapInfo>(),
            Self::AssignUuid(_) => 16,
            Self::GetDisplayInfo => size_of::<[wire::DisplayOne; 16]>(),
            Self::GetEdid(_) => size_of::<wire::EdidSize>() + wire::EDID_SPACE,
            Self::GetCapsetInfo(_) => size_of::<wire::CapsetInfoReply>(),
            _ => 0,
        };
        (size_of::<Header>() + body) as u64
    }
}

fn read_submit(request: &mut Request<'_>) -> Result<Vec<u8>, Refusal> {
    let submit: wire::Submit = request.take()?;
    let size = u64::from(submit.size.get());
    if size > SUBMIT_BYTES {
        return Err(Refusal::Limit {
            what: "bytes in a SUBMIT_3D",
            limit: SUBMIT_BYTES,
        });
    }
    if size > request.left() {
        return Err(Refusal::Short {
            missing: size - request.left(),
        });
    }
    let mut commands = vec![0; size as usize];
    request.read(&mut commands)?;
    Ok(commands)
}

/// Carries out a command.
pub(crate) fn execute(call: &mut Call<'_>, command: Command) -> Result<Progress, Refusal> {
    match command {
        Command::GetDisplayInfo => display::info(call),
        Command::GetEdid(get) => display::edid(call, &get),
        Command::CreateImage(create) => resource_2d::create(call, &create),
        Command::Unref(named) => resource_2d::unref(call, named.resource_id.get()),
        Command::AttachBacking(attach, backing) => {
            resource_2d::attach_backing(call, attach.resource_id.get(), backing)
        }
        Command::DetachBacking(named) => resource_2d::detach_backing(call, named.resource_id.get()),
        Command::TransferToHost(transfer) => resource_2d::transfer(call, &transfer),
        Command::AssignUuid(named) => resource_2d::assign_uuid(call, named.resource_id.get()),
        Command::SetScanout(set) => scanout::set(call, &set),
        Command::SetScanoutBlob(set) => scanout::set_blob(call, &set),
        Command::Flush(flush) => scanout::flush(call, &flush),
        Command::CreateBlob(create, backing) => blob::create(call, &create, backing),
        Command::MapBlob(map) => blob::map(call, &map),
        Command::UnmapBlob(named) => blob::unmap(call, named.resource_id.get()),
        Command::GetCapsetInfo(get) => context::capset_info(call, &get),
        Command::GetCapset(get) => context::capset(call, &get),
        Command::CreateContext(create) => context::create(call, &create),
        Command::DestroyContext => context::destroy(call),
        Command::AttachResource(named) => context::attach(call, named.resource_id.get()),
        Command::DetachResource(named) => context::detach(call, named.resource_id.get()),
        Command::Submit(commands) => context::submit(call, commands),
        Command::Create3d(create) => resource_3d::create(call, &create),
        Command::Transfer3d(direction, transfer) => {
            resource_3d::transfer(call, direction, &transfer)
        }
        Command::UpdateCursor(update) => cursor::update(call, &update),
        Command::MoveCursor(position) => cursor::move_to(call, &position),
    }
}
