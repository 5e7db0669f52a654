//! Blob resources: create, map into the host-visible window, unmap.
//!
//! A guest blob is guest memory and exists at once. A host blob is made by its context's renderer.
//! Its `RESOURCE_CREATE_BLOB` is answered when [`created`] is called, and commands about it wait
//! until then.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use zerocopy::IntoBytes;

use crate::backing::Backing;
use crate::engine::{Call, Engine, Progress};
use crate::error::CommandError;
use crate::fence::Gate;
use crate::renderer::{
    Blob, BlobKind, BlobRequest, ContextId, MapCaching, RendererError, ResourceId,
};
use crate::resource::{Body, GuestBlob, HostBlob, Resource};
use crate::response::Response;
use crate::wire;

const ALL_FLAGS: u32 =
    wire::BLOB_FLAG_USE_MAPPABLE | wire::BLOB_FLAG_USE_SHAREABLE | wire::BLOB_FLAG_USE_CROSS_DEVICE;

pub(super) fn resource_create_blob(
    call: &mut Call<'_>,
    create: &wire::ResourceCreateBlob,
    backing: Backing,
) -> Result<Progress, CommandError> {
    let size = create.size.get();
    let flags = create.blob_flags.get();
    if size == 0 {
        return Err(CommandError::BadValue {
            what: "the size of the blob",
            value: 0,
            must: "at least 1",
        });
    }
    if flags & !ALL_FLAGS != 0 {
        return Err(CommandError::BadValue {
            what: "blob_flags",
            value: u64::from(flags),
            must: "a combination of MAPPABLE, SHAREABLE and CROSS_DEVICE",
        });
    }
    let kind = match create.blob_mem.get() {
        wire::BLOB_MEM_GUEST => return create_guest(call, create, backing),
        wire::BLOB_MEM_HOST3D => BlobKind::Host3d,
        wire::BLOB_MEM_HOST3D_GUEST => BlobKind::Host3dGuest,
        other => {
            return Err(CommandError::BadValue {
                what: "blob_mem",
                value: u64::from(other),
                must: "GUEST, HOST3D or HOST3D_GUEST",
            });
        }
    };
    create_host(call, create, kind, backing)
}

fn create_guest(
    call: &Call<'_>,
    create: &wire::ResourceCreateBlob,
    backing: Backing,
) -> Result<Progress, CommandError> {
    let id = create.resource_id.get();
    let size = create.size.get();
    backing.check(0, size)?;
    let mut state = call.state()?;
    state.check_new_resource(id)?;
    let blob = GuestBlob {
        size,
        framebuffer: None,
        refused: false,
        shadow: None,
    };
    let resource = Resource::new(Body::GuestBlob(blob), Some(backing));
    state.resources.insert(id, resource);
    Ok(Progress::ok())
}

fn create_host(
    call: &mut Call<'_>,
    create: &wire::ResourceCreateBlob,
    kind: BlobKind,
    backing: Backing,
) -> Result<Progress, CommandError> {
    let id = create.resource_id.get();
    let flags = create.blob_flags.get();
    let request = BlobRequest {
        kind,
        blob_id: create.blob_id.get(),
        size: create.size.get(),
        mappable: flags & wire::BLOB_FLAG_USE_MAPPABLE != 0,
        shareable: flags & wire::BLOB_FLAG_USE_SHAREABLE != 0,
        cross_device: flags & wire::BLOB_FLAG_USE_CROSS_DEVICE != 0,
    };
    let alignment = call.engine.options.alignment_of_blobs();
    if !request.size.is_multiple_of(alignment) {
        return Err(CommandError::UnalignedSize(request.size, alignment));
    }
    let backing = match kind {
        BlobKind::Host3d => None,
        BlobKind::Host3dGuest => {
            backing.check(0, request.size)?;
            Some(backing)
        }
    };
    let engine = call.engine;
    let handle = {
        let mut state = engine.at(call.exchange.epoch)?;
        state.check_new_resource(id)?;
        let slot = state.context_mut(call.exchange.header.context_id.get())?;
        slot.made_a_blob = true;
        let pending = HostBlob::Pending {
            generation: slot.generation,
            ticket: call.exchange.ticket,
            size: request.size,
            mappable: request.mappable,
        };
        let handle = Arc::clone(&slot.handle);
        let resource = Resource::new(Body::HostBlob(pending), backing);
        state.resources.insert(id, resource);
        call.hold(&mut state, Gate::Open);
        handle
    };
    handle.create_blob(id, request);
    Ok(Progress::Held)
}

/// Takes the answer of a renderer to [`crate::renderer::Context::create_blob`] of the context with
/// this generation. The resource is attached to the context now.
pub(super) fn created(
    engine: &Engine,
    epoch: u64,
    (context, generation): (ContextId, u64),
    id: ResourceId,
    result: Result<Blob, RendererError>,
) {
    // Dropped without the lock: dropping a blob calls its renderer.
    let mut refused = None;
    let (ticket, response) = {
        let Ok(mut state) = engine.at(epoch) else {
            return;
        };
        let lives =
            (state.contexts.get(&context)).is_some_and(|slot| slot.generation == generation);
        let Some(resource) = state.resources.get_mut(&id) else {
            return;
        };
        let Body::HostBlob(body) = &mut resource.body else {
            return;
        };
        let HostBlob::Pending {
            generation: wanted,
            ticket,
            size,
            mappable,
        } = *body
        else {
            return;
        };
        if generation != wanted {
            return;
        }
        match result
            .map_err(CommandError::from)
            .and_then(|blob| check_blob(blob, size, &mut refused))
        {
            Ok(blob) => {
                *body = HostBlob::Ready {
                    blob,
                    size,
                    mappable,
                    mapped_at: None,
                };
                if lives {
                    resource.contexts.push(context);
                }
                // By now the guest's kernel has chosen a place in the window, or has found that
                // there is none.
                if mappable && let Some(warning) = state.hostmem.no_room_warning(size) {
                    engine.log_limit.warn(format_args!("{warning}"));
                }
                (ticket, Response::ok())
            }
            Err(error) => {
                state.resources.remove(&id);
                engine
                    .log_limit
                    .warn(format_args!("RESOURCE_CREATE_BLOB {id} failed: {error}"));
                (ticket, Response::bare(error.code()))
            }
        }
    };
    drop(refused);
    engine.respond(ticket, response);
    engine.run_deferred();
}

/// Accepts a blob of a renderer only if it is as large as the guest asked for. Otherwise it goes
/// to `refused`.
fn check_blob(blob: Blob, size: u64, refused: &mut Option<Blob>) -> Result<Blob, CommandError> {
    if blob.size >= size {
        return Ok(blob);
    }
    let error = CommandError::OutOfRange {
        start: 0,
        length: size,
        size: blob.size,
        of: "the renderer's memory",
    };
    *refused = Some(blob);
    Err(error)
}

/// Fails the blobs that this `generation` of a context has not made and will never make.
pub(super) fn abandon(engine: &Engine, epoch: u64, context: ContextId, generation: u64) {
    let pending: Vec<ResourceId> = match engine.at(epoch) {
        Ok(state) => state
            .resources
            .iter()
            .filter(|(_, resource)| {
                matches!(resource.body,
                    Body::HostBlob(HostBlob::Pending { generation: of, .. }) if of == generation)
            })
            .map(|(id, _)| *id)
            .collect(),
        Err(_) => return,
    };
    for id in pending {
        let error = RendererError::ContextLost(format!("context {context} was destroyed"));
        created(engine, epoch, (context, generation), id, Err(error));
    }
}

pub(super) fn resource_map_blob(
    call: &Call<'_>,
    map: &wire::ResourceMapBlob,
) -> Result<Progress, CommandError> {
    let id = map.resource_id.get();
    let offset = map.offset.get();
    let transport = call.engine.transport()?;
    let (fd, fd_offset, length, caching) = {
        let mut state = call.state()?;
        let (fd, fd_offset, length, caching) = mappable(state.resource(id)?, id)?;
        state.hostmem.reserve(offset, length)?;
        (fd, fd_offset, length, caching)
    };
    // Waits for the VMM: no lock.
    let mapped = transport.map(offset, fd.as_fd(), fd_offset, length);
    let Ok(mut state) = call.state() else {
        // The VMM dropped its mappings at the reset, perhaps before it made this one.
        if mapped.is_ok()
            && let Err(error) = transport.unmap(offset, length)
        {
            call.engine.log_limit.log(
                log::Level::Warn,
                format_args!("a blob mapped during a reset stays mapped: {error}"),
            );
        }
        return Err(CommandError::Reset);
    };
    match mapped {
        Ok(()) => {
            if let Some(warning) = state.hostmem.use_warning() {
                call.engine.log_limit.warn(format_args!("{warning}"));
            }
            if let Body::HostBlob(HostBlob::Ready { mapped_at, .. }) = &mut state.resource(id)?.body
            {
                *mapped_at = Some(offset);
            }
        }
        Err(error) => {
            state.hostmem.release(offset);
            return Err(CommandError::Vmm {
                what: "map a blob",
                error,
            });
        }
    }
    let info = wire::MapInfo {
        map_info: match caching {
            MapCaching::Cached => wire::MAP_CACHE_CACHED,
            MapCaching::Uncached => wire::MAP_CACHE_UNCACHED,
            MapCaching::WriteCombining => wire::MAP_CACHE_WC,
        }
        .into(),
        padding: 0.into(),
    };
    Ok(Progress::Answer(Response {
        kind: wire::RESP_OK_MAP_INFO,
        body: info.as_bytes().to_vec(),
    }))
}

/// What to map of a resource. Fails unless the resource may be mapped and is not mapped.
fn mappable(
    resource: &Resource,
    id: ResourceId,
) -> Result<(Arc<OwnedFd>, u64, u64, MapCaching), CommandError> {
    let refused = |is| CommandError::WrongResource {
        id,
        is,
        needs: "a mappable host blob that is not mapped",
    };
    match &resource.body {
        Body::HostBlob(HostBlob::Ready {
            mapped_at: Some(_), ..
        }) => Err(refused("mapped already")),
        Body::HostBlob(HostBlob::Ready {
            mappable: false, ..
        }) => Err(refused("a blob without USE_MAPPABLE")),
        Body::HostBlob(HostBlob::Ready { blob, size, .. }) => match &blob.fd {
            Some(fd) => Ok((Arc::clone(fd), blob.fd_offset, *size, blob.caching)),
            None => Err(refused("a blob whose memory cannot be mapped")),
        },
        _ => Err(refused(resource.kind())),
    }
}

pub(super) fn resource_unmap_blob(
    call: &Call<'_>,
    id: ResourceId,
) -> Result<Progress, CommandError> {
    let mapping = mapping(call, id)?.ok_or(CommandError::WrongResource {
        id,
        is: "not mapped",
        needs: "a mapped blob",
    })?;
    take_out(call, id, mapping)?;
    Ok(Progress::ok())
}

/// Unmaps a resource that goes away; a driver should have done so. When the VMM refuses, its place
/// in the window stays taken.
pub(super) fn unmap_if_mapped(call: &Call<'_>, id: ResourceId) -> Result<(), CommandError> {
    if let Some(mapping) = mapping(call, id)?
        && let Err(error) = take_out(call, id, mapping)
    {
        call.engine.log_error(&call.exchange.header, &error);
        // The guest can still reach the memory there, so nobody may have it for something else.
        if let Body::HostBlob(HostBlob::Ready { blob, .. }) = &call.state()?.resource(id)?.body {
            std::mem::forget(blob.clone());
        }
    }
    Ok(())
}

/// Offset and length of a resource's mapping.
fn mapping(call: &Call<'_>, id: ResourceId) -> Result<Option<(u64, u64)>, CommandError> {
    match call.state()?.resource(id)?.body {
        Body::HostBlob(HostBlob::Ready {
            mapped_at, size, ..
        }) => Ok(mapped_at.map(|offset| (offset, size))),
        _ => Ok(None),
    }
}

fn take_out(
    call: &Call<'_>,
    id: ResourceId,
    (offset, length): (u64, u64),
) -> Result<(), CommandError> {
    // Waits for the VMM: no lock.
    call.engine
        .transport()?
        .unmap(offset, length)
        .map_err(|error| CommandError::Vmm {
            what: "unmap a blob",
            error,
        })?;
    let mut state = call.state()?;
    state.hostmem.release(offset);
    if let Body::HostBlob(HostBlob::Ready { mapped_at, .. }) = &mut state.resource(id)?.body {
        *mapped_at = None;
    }
    Ok(())
}
