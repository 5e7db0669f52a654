//! Commands as the guest sent them, copied out of guest memory whole.
//!
//! [`Command::parse`] copies everything, so that a command can wait, and so that nothing the guest
//! writes later has an effect.

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use crate::backing::Backing;
use crate::budget::{Charge, Pool, Pools, QUEUED_BYTES, SUBMIT_BYTES};
use crate::chain::Reader;
use crate::error::CommandError;
use crate::queue::Queue;
use crate::renderer::{ContextId, ResourceId};
use crate::screen::ScanoutId;
use crate::wire::{self, Header};

/// A command, with the specification's name and what it carries.
pub(crate) enum Command {
    GetDisplayInfo,
    GetEdid(wire::GetEdid),
    ResourceCreate2d(wire::ResourceCreate2d),
    ResourceUnref(wire::ResourceRef),
    ResourceAttachBacking(wire::ResourceAttachBacking, Backing),
    ResourceDetachBacking(wire::ResourceRef),
    TransferToHost2d(wire::TransferToHost2d),
    ResourceAssignUuid(wire::ResourceRef),
    SetScanout(wire::SetScanout),
    SetScanoutBlob(wire::SetScanoutBlob),
    ResourceFlush(wire::ResourceFlush),
    ResourceCreateBlob(wire::ResourceCreateBlob, Backing),
    ResourceMapBlob(wire::ResourceMapBlob),
    ResourceUnmapBlob(wire::ResourceRef),
    GetCapsetInfo(wire::GetCapsetInfo),
    GetCapset(wire::GetCapset),
    CtxCreate(wire::CtxCreate),
    CtxDestroy,
    CtxAttachResource(wire::ResourceRef),
    CtxDetachResource(wire::ResourceRef),
    Submit3d(Submit),
    ResourceCreate3d(wire::ResourceCreate3d),
    TransferToHost3d(wire::TransferHost3d),
    TransferFromHost3d(wire::TransferHost3d),
    UpdateCursor(wire::UpdateCursor),
    MoveCursor(wire::UpdateCursor),
}

/// What `SUBMIT_3D` carries.
pub(crate) struct Submit {
    pub(crate) commands: Vec<u8>,
    /// Counts the commands until the context has consumed them.
    pub(crate) charge: Charge,
}

/// What a command touches, for the order of deferred commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    pub(crate) resource: Option<ResourceId>,
    pub(crate) context: Option<ContextId>,
    pub(crate) scanout: Option<ScanoutId>,
}

impl Targets {
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        fn same(one: Option<u32>, other: Option<u32>) -> bool {
            one.is_some() && one == other
        }
        same(self.resource, other.resource)
            || same(self.context, other.context)
            || same(self.scanout, other.scanout)
    }
}

impl Command {
    /// Copies the rest of a request whose header is `header`. Backings and submitted commands
    /// count against `pools`. Without `has_3d` there are no 3D resources.
    pub(crate) fn parse(
        queue: Queue,
        header: &Header,
        request: &mut Reader<'_>,
        memory: &GuestMemoryMmap,
        pools: &Pools,
        has_3d: bool,
    ) -> Result<Self, CommandError> {
        let kind = header.kind.get();
        match queue {
            Queue::Control => Self::parse_control(kind, request, memory, pools, has_3d),
            Queue::Cursor => match kind {
                wire::CMD_UPDATE_CURSOR => Ok(Self::UpdateCursor(request.take()?)),
                wire::CMD_MOVE_CURSOR => Ok(Self::MoveCursor(request.take()?)),
                _ => Err(CommandError::UnknownCommand(kind)),
            },
        }
    }

    fn parse_control(
        kind: u32,
        request: &mut Reader<'_>,
        memory: &GuestMemoryMmap,
        pools: &Pools,
        has_3d: bool,
    ) -> Result<Self, CommandError> {
        Ok(match kind {
            wire::CMD_GET_DISPLAY_INFO => Self::GetDisplayInfo,
            wire::CMD_GET_EDID => Self::GetEdid(request.take()?),
            wire::CMD_RESOURCE_CREATE_2D => Self::ResourceCreate2d(request.take()?),
            wire::CMD_RESOURCE_UNREF => Self::ResourceUnref(request.take()?),
            wire::CMD_RESOURCE_ATTACH_BACKING => {
                let attach: wire::ResourceAttachBacking = request.take()?;
                let count = attach.nr_entries.get();
                Self::ResourceAttachBacking(
                    attach,
                    Backing::read_from(request, memory, count, &pools.entries)?,
                )
            }
            wire::CMD_RESOURCE_DETACH_BACKING => Self::ResourceDetachBacking(request.take()?),
            wire::CMD_TRANSFER_TO_HOST_2D => Self::TransferToHost2d(request.take()?),
            wire::CMD_RESOURCE_ASSIGN_UUID => Self::ResourceAssignUuid(request.take()?),
            wire::CMD_SET_SCANOUT => Self::SetScanout(request.take()?),
            wire::CMD_SET_SCANOUT_BLOB => Self::SetScanoutBlob(request.take()?),
            wire::CMD_RESOURCE_FLUSH => Self::ResourceFlush(request.take()?),
            wire::CMD_RESOURCE_CREATE_BLOB => {
                let create: wire::ResourceCreateBlob = request.take()?;
                let count = create.nr_entries.get();
                Self::ResourceCreateBlob(
                    create,
                    Backing::read_from(request, memory, count, &pools.entries)?,
                )
            }
            wire::CMD_RESOURCE_MAP_BLOB => Self::ResourceMapBlob(request.take()?),
            wire::CMD_RESOURCE_UNMAP_BLOB => Self::ResourceUnmapBlob(request.take()?),
            wire::CMD_GET_CAPSET_INFO => Self::GetCapsetInfo(request.take()?),
            wire::CMD_GET_CAPSET => Self::GetCapset(request.take()?),
            wire::CMD_CTX_CREATE => Self::CtxCreate(request.take()?),
            wire::CMD_CTX_DESTROY => Self::CtxDestroy,
            wire::CMD_CTX_ATTACH_RESOURCE => Self::CtxAttachResource(request.take()?),
            wire::CMD_CTX_DETACH_RESOURCE => Self::CtxDetachResource(request.take()?),
            wire::CMD_SUBMIT_3D => Self::Submit3d(read_submit(request, &pools.queued)?),
            wire::CMD_RESOURCE_CREATE_3D
            | wire::CMD_TRANSFER_TO_HOST_3D
            | wire::CMD_TRANSFER_FROM_HOST_3D
                if !has_3d =>
            {
                return Err(CommandError::NoRenderer(wire::command_name(kind)));
            }
            wire::CMD_RESOURCE_CREATE_3D => Self::ResourceCreate3d(request.take()?),
            wire::CMD_TRANSFER_TO_HOST_3D => Self::TransferToHost3d(request.take()?),
            wire::CMD_TRANSFER_FROM_HOST_3D => Self::TransferFromHost3d(request.take()?),
            _ => return Err(CommandError::UnknownCommand(kind)),
        })
    }

    /// What the command touches in context `context`.
    pub(crate) fn targets(&self, context: ContextId) -> Targets {
        let resource = |id: zerocopy::little_endian::U32| Targets {
            resource: Some(id.get()),
            ..Targets::default()
        };
        let context = Some(context);
        match self {
            Self::GetDisplayInfo
            | Self::GetEdid(_)
            | Self::GetCapsetInfo(_)
            | Self::GetCapset(_)
            // It ends everything that others may wait for, so it waits for nothing.
            | Self::CtxDestroy
            // The cursor queue never waits for the other one.
            | Self::UpdateCursor(_)
            | Self::MoveCursor(_) => Targets::default(),
            Self::ResourceCreate2d(create) => resource(create.resource_id),
            Self::ResourceUnref(named)
            | Self::ResourceDetachBacking(named)
            | Self::ResourceAssignUuid(named)
            | Self::ResourceUnmapBlob(named) => resource(named.resource_id),
            Self::ResourceAttachBacking(attach, _) => resource(attach.resource_id),
            Self::TransferToHost2d(transfer) => resource(transfer.resource_id),
            Self::ResourceFlush(flush) => resource(flush.resource_id),
            Self::ResourceMapBlob(map) => resource(map.resource_id),
            Self::SetScanout(set) => Targets {
                scanout: Some(set.scanout_id.get()),
                ..resource(set.resource_id)
            },
            Self::SetScanoutBlob(set) => Targets {
                scanout: Some(set.scanout_id.get()),
                ..resource(set.resource_id)
            },
            Self::ResourceCreateBlob(create, _) => Targets {
                context,
                ..resource(create.resource_id)
            },
            Self::CtxAttachResource(named) | Self::CtxDetachResource(named) => Targets {
                context,
                ..resource(named.resource_id)
            },
            Self::ResourceCreate3d(create) => resource(create.resource_id),
            Self::TransferToHost3d(transfer) | Self::TransferFromHost3d(transfer) => Targets {
                context,
                ..resource(transfer.resource_id)
            },
            Self::CtxCreate(_) | Self::Submit3d(_) => Targets {
                context,
                ..Targets::default()
            },
        }
    }

    /// Whether the command needs a finished resource, so that it waits for one that is being made.
    pub(crate) fn needs_its_resource(&self) -> bool {
        !matches!(self, Self::UpdateCursor(_) | Self::MoveCursor(_))
    }

    /// The least room in bytes that its answer needs.
    pub(crate) fn answer_size(&self) -> u64 {
        let body = match self {
            Self::UpdateCursor(_) | Self::MoveCursor(_) => return 0,
            Self::ResourceMapBlob(_) => size_of::<wire::MapInfo>(),
            Self::ResourceAssignUuid(_) => 16,
            Self::GetDisplayInfo => size_of::<[wire::DisplayOne; 16]>(),
            Self::GetEdid(_) => size_of::<wire::EdidSize>() + wire::EDID_SPACE,
            Self::GetCapsetInfo(_) => size_of::<wire::CapsetInfoReply>(),
            _ => 0,
        };
        (size_of::<Header>() + body) as u64
    }
}

/// Bytes that a queued message costs besides its commands: its place in a mailbox, and what the
/// allocator adds.
const MESSAGE_BYTES: u64 = 128;

fn read_submit(request: &mut Reader<'_>, queued: &Arc<Pool>) -> Result<Submit, CommandError> {
    let submit: wire::CmdSubmit = request.take()?;
    let size = u64::from(submit.size.get());
    if size > SUBMIT_BYTES {
        return Err(CommandError::Limit {
            what: "bytes in a SUBMIT_3D",
            limit: SUBMIT_BYTES,
        });
    }
    if size > request.left() {
        return Err(CommandError::Short {
            missing: size - request.left(),
        });
    }
    let charge = queued
        .charge(size + MESSAGE_BYTES)
        .ok_or(CommandError::Limit {
            what: "bytes of commands that wait to be consumed",
            limit: QUEUED_BYTES,
        })?;
    let mut commands = vec![0; size as usize];
    request.read(&mut commands)?;
    Ok(Submit { commands, charge })
}
