//! Contexts and capability sets: `CTX_*`, `SUBMIT_3D`, `GET_CAPSET*`.

use std::sync::{Arc, Weak};

use zerocopy::IntoBytes;

use super::{blob, drawn_2d};
use crate::budget::CONTEXTS;
use crate::engine::{Call, ContextSlot, Engine, Progress, ResourcePages};
use crate::error::CommandError;
use crate::fence::{Gate, Timeline};
use crate::renderer::{
    Blob, Completions, ContextId, MapCaching, NewContext, RendererError, ResourceId,
};
use crate::request::Submit;
use crate::resource::{Body, HostBlob, Resource};
use crate::response::Response;
use crate::screen::PixelMemory;
use crate::wire;

pub(super) fn get_capset_info(
    call: &Call<'_>,
    get: &wire::GetCapsetInfo,
) -> Result<Progress, CommandError> {
    let index = get.index.get();
    let (_, info) = call
        .engine
        .capsets()
        .nth(index as usize)
        .ok_or(CommandError::BadValue {
            what: "the index of the capability set",
            value: u64::from(index),
            must: "below num_capsets",
        })?;
    let reply = wire::CapsetInfoReply {
        capset_id: info.id.into(),
        max_version: info.max_version.into(),
        max_size: info.max_size.into(),
        padding: 0.into(),
    };
    Ok(Progress::Answer(Response {
        kind: wire::RESP_OK_CAPSET_INFO,
        body: reply.as_bytes().to_vec(),
    }))
}

pub(super) fn get_capset(call: &Call<'_>, get: &wire::GetCapset) -> Result<Progress, CommandError> {
    let (id, version) = (get.capset_id.get(), get.version.get());
    let body = call
        .engine
        .capsets()
        .find(|(_, info)| info.id == id)
        .and_then(|(renderer, _)| renderer.capset(id, version))
        .ok_or(CommandError::NoCapset(id))?;
    Ok(Progress::Answer(Response {
        kind: wire::RESP_OK_CAPSET,
        body,
    }))
}

pub(super) fn ctx_create(
    call: &Call<'_>,
    create: &wire::CtxCreate,
) -> Result<Progress, CommandError> {
    let id = call.exchange.header.context_id.get();
    let engine = call.engine;
    let (generation, names_capset, is_screen_drawn_by_cpu) = {
        let mut state = call.state()?;
        if id == 0 || state.contexts.contains_key(&id) {
            return Err(CommandError::BadNewContext(id));
        }
        if state.contexts.len() >= CONTEXTS {
            return Err(CommandError::Limit {
                what: "contexts",
                limit: CONTEXTS as u64,
            });
        }
        let names_capset = state.acked_features & 1 << wire::F_CONTEXT_INIT != 0;
        (state.serial(), names_capset, state.is_screen_drawn_by_cpu())
    };
    // Without the feature the field means nothing.
    let wanted = if names_capset {
        create.context_init.get() & wire::CONTEXT_INIT_CAPSET_ID_MASK
    } else {
        0
    };
    let (renderer, info) = engine
        .capsets()
        .find(|(_, info)| match wanted {
            // A context that names no capability set is one of virgl.
            0 => matches!(info.id, wire::CAPSET_VIRGL | wire::CAPSET_VIRGL2),
            id => info.id == id,
        })
        .ok_or(CommandError::NoCapset(wanted))?;
    let length = (create.name_length.get() as usize).min(create.debug_name.len());
    let name = create.debug_name.get(..length).unwrap_or(&[]);
    let name = name.split(|byte| *byte == 0).next().unwrap_or(&[]);
    let name = String::from_utf8_lossy(name);
    let reports = Arc::new(ContextCompletions {
        engine: Weak::clone(&engine.me),
        epoch: call.exchange.epoch,
        generation,
    });
    let about = NewContext {
        capset: info.id,
        name: &name,
        is_screen_drawn_by_cpu,
    };
    let context = renderer.create_context(id, &about, reports)?;
    // If the device was reset meanwhile, the context ends here, outside of the lock.
    let slot = ContextSlot {
        handle: context,
        generation,
        made_a_blob: false,
    };
    let mut state = call.state()?;
    if state.contexts.contains_key(&id) {
        drop(state);
        return Err(CommandError::BadNewContext(id));
    }
    state.contexts.insert(id, slot);
    Ok(Progress::ok())
}

pub(super) fn ctx_destroy(call: &Call<'_>) -> Result<Progress, CommandError> {
    let id = call.exchange.header.context_id.get();
    let engine = call.engine;
    let slot = {
        let mut state = call.state()?;
        let slot = state
            .contexts
            .remove(&id)
            .ok_or(CommandError::NoContext(id))?;
        for resource in state.resources.values_mut() {
            resource.contexts.retain(|context| *context != id);
        }
        slot
    };
    let generation = slot.generation;
    let alignment = engine.options.blob_alignment;
    if alignment > 4096 && !slot.made_a_blob {
        // A kernel that knows the alignment refuses other sizes itself, and the device never hears
        // of them.
        engine.log_limit.warn(format_args!(
            "context {id} ended without a blob: its driver may not know that this host's blobs are aligned to \
             {alignment} bytes; the guest needs Linux 7.2 and Mesa 26.2.4 or newer. If its own pages have that size, start \
             Hesper with --blob-alignment=4096"
        ));
    }
    drop(slot);
    // Fences that the renderer did not retire at its end are retired here, so that no chain is
    // lost.
    if let Ok(mut state) = call.state() {
        state.timelines.retire_context(id);
    }
    engine.deliver_all();
    blob::abandon(engine, call.exchange.epoch, id, generation);
    engine.run_deferred();
    if let Ok(mut state) = call.state() {
        state.timelines.forget_rings(id);
    }
    Ok(Progress::ok())
}

pub(super) fn ctx_attach_resource(
    call: &Call<'_>,
    id: ResourceId,
) -> Result<Progress, CommandError> {
    let context = call.exchange.header.context_id.get();
    let (handle, blob, is_3d) = {
        let mut state = call.state()?;
        let handle = Arc::clone(&state.context(context)?.handle);
        let resource = state.resource(id)?;
        let blob = as_blob(call, id, resource);
        if resource.contexts.contains(&context) {
            return Ok(Progress::ok());
        }
        resource.contexts.push(context);
        (handle, blob, matches!(resource.body, Body::Resource3d(_)))
    };
    let blob = drawn_2d::draw_into(call, id, &*handle)?.or(blob);
    if let Some(blob) = blob {
        handle.attach_resource(id, &blob);
    } else if is_3d {
        handle.attach_3d(id);
    }
    Ok(Progress::ok())
}

/// A resource as a context sees it. A host blob is shown as it is. Other resources are shown with
/// their size, and with their pixels when the host has them, or a way to write into them when the
/// guest has them.
fn as_blob(call: &Call<'_>, id: ResourceId, resource: &Resource) -> Option<Blob> {
    let plain = |size, pixels, guest| Blob {
        fd: None,
        fd_offset: 0,
        size,
        caching: MapCaching::Cached,
        pixels,
        guest,
        origin: None,
    };
    match &resource.body {
        Body::HostBlob(HostBlob::Ready { blob, .. }) => Some(blob.clone()),
        Body::HostBlob(HostBlob::Pending { .. }) | Body::Resource3d(_) => None,
        Body::GuestBlob(guest) => {
            let pages = ResourcePages::of(call, id, resource, guest.size);
            Some(plain(guest.size, None, pages))
        }
        Body::Resource2d(image) => {
            let (_, length) = image.pixels.host_pages();
            Some(plain(
                length as u64,
                Some(Arc::clone(&image.pixels) as _),
                None,
            ))
        }
    }
}

pub(super) fn ctx_detach_resource(
    call: &Call<'_>,
    id: ResourceId,
) -> Result<Progress, CommandError> {
    let context = call.exchange.header.context_id.get();
    let handle = {
        let mut state = call.state()?;
        let handle = Arc::clone(&state.context(context)?.handle);
        let resource = state.resource(id)?;
        let before = resource.contexts.len();
        resource.contexts.retain(|attached| *attached != context);
        (resource.contexts.len() < before).then_some(handle)
    };
    if let Some(handle) = handle {
        handle.detach_resource(id);
    }
    Ok(Progress::ok())
}

pub(super) fn submit_3d(
    call: &mut Call<'_>,
    Submit { commands, charge }: Submit,
) -> Result<Progress, CommandError> {
    let id = call.exchange.header.context_id.get();
    let ticket = call.exchange.ticket;
    let fence = match ticket.timeline {
        Timeline::Unordered => None,
        Timeline::Global => Some(0),
        Timeline::Ring(_, ring) => Some(ring),
    };
    let engine = call.engine;
    let handle = {
        let mut state = engine.at(call.exchange.epoch)?;
        let handle = Arc::clone(&state.context(id)?.handle);
        if let Some(ring) = fence {
            // The fence may retire before the calls below return.
            call.hold(&mut state, Gate::Fence(id, ring));
        }
        handle
    };
    if !commands.is_empty() {
        handle.submit(commands, charge);
    }
    if let Some(ring) = fence {
        // The serial replaces the guest's fence id, which a guest may use twice.
        handle.fence(ring, ticket.serial);
    }
    Ok(Progress::ok())
}

/// Where one context object reports what it finished.
struct ContextCompletions {
    engine: Weak<Engine>,
    epoch: u64,
    generation: u64,
}

impl Completions for ContextCompletions {
    fn fence_retired(&self, context: ContextId, ring: u8, fence: u64) {
        let Some(engine) = self.engine.upgrade() else {
            return;
        };
        match engine.at(self.epoch) {
            Ok(mut state) => state.timelines.retired(context, ring, fence),
            Err(_) => return,
        }
        engine.deliver(Timeline::Ring(context, ring), None);
        engine.deliver(Timeline::Global, None);
    }

    fn blob_created(
        &self,
        context: ContextId,
        resource: ResourceId,
        result: Result<Blob, RendererError>,
    ) {
        if let Some(engine) = self.engine.upgrade() {
            let maker = (context, self.generation);
            blob::created(&engine, self.epoch, maker, resource, result);
        }
    }
}
