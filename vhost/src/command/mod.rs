//! The commands of virtio-gpu: one file for each family.
//!
//! [`execute`] sends a [`Command`] to its family. A family's function checks everything, then acts,
//! and returns its [`Progress`] or the [`CommandError`] that the guest gets as an error code.

mod blob;
mod context;
mod cursor;
mod display;
mod drawn_2d;
mod flush;
mod resource;
mod resource_2d;
mod resource_3d;
mod scanout;

use crate::engine::{Call, Progress};
use crate::error::CommandError;
use crate::request::Command;
use crate::resource3d::Direction;

/// Carries out a command.
pub(crate) fn execute(call: &mut Call<'_>, command: Command) -> Result<Progress, CommandError> {
    match command {
        Command::GetDisplayInfo => display::get_display_info(call),
        Command::GetEdid(get) => display::get_edid(call, &get),
        Command::ResourceCreate2d(create) => resource_2d::resource_create_2d(call, &create),
        Command::ResourceUnref(named) => resource::resource_unref(call, named.resource_id.get()),
        Command::ResourceAttachBacking(attach, backing) => {
            resource::resource_attach_backing(call, attach.resource_id.get(), backing)
        }
        Command::ResourceDetachBacking(named) => {
            resource::resource_detach_backing(call, named.resource_id.get())
        }
        Command::TransferToHost2d(transfer) => resource_2d::transfer_to_host_2d(call, &transfer),
        Command::ResourceAssignUuid(named) => {
            resource::resource_assign_uuid(call, named.resource_id.get())
        }
        Command::SetScanout(set) => scanout::set_scanout(call, &set),
        Command::SetScanoutBlob(set) => scanout::set_scanout_blob(call, &set),
        Command::ResourceFlush(flush) => flush::resource_flush(call, &flush),
        Command::ResourceCreateBlob(create, backing) => {
            blob::resource_create_blob(call, &create, backing)
        }
        Command::ResourceMapBlob(map) => blob::resource_map_blob(call, &map),
        Command::ResourceUnmapBlob(named) => {
            blob::resource_unmap_blob(call, named.resource_id.get())
        }
        Command::GetCapsetInfo(get) => context::get_capset_info(call, &get),
        Command::GetCapset(get) => context::get_capset(call, &get),
        Command::CtxCreate(create) => context::ctx_create(call, &create),
        Command::CtxDestroy => context::ctx_destroy(call),
        Command::CtxAttachResource(named) => {
            context::ctx_attach_resource(call, named.resource_id.get())
        }
        Command::CtxDetachResource(named) => {
            context::ctx_detach_resource(call, named.resource_id.get())
        }
        Command::Submit3d(commands) => context::submit_3d(call, commands),
        Command::ResourceCreate3d(create) => resource_3d::resource_create_3d(call, &create),
        Command::TransferToHost3d(transfer) => {
            resource_3d::transfer_3d(call, Direction::ToHost, &transfer)
        }
        Command::TransferFromHost3d(transfer) => {
            resource_3d::transfer_3d(call, Direction::FromHost, &transfer)
        }
        Command::UpdateCursor(update) => cursor::update_cursor(call, &update),
        Command::MoveCursor(position) => cursor::move_cursor(call, &position),
    }
}
