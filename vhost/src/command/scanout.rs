//! What the scanouts show: `SET_SCANOUT`, `SET_SCANOUT_BLOB`, `RESOURCE_FLUSH`.
//!
//! Pixels in host memory (2D resources, host blobs) go to the screen as they are. So do those in guest memory where the screen can
//! have them ([`GuestFramebuffer`]); else they have a [`Shadow`], filled by each flush with what it says has changed. Those of a 3D resource are read by its renderer at each flush
//! ([`resource_3d::flush`]).

use std::sync::Arc;

use super::{Progress, Response, resource_3d};
use crate::backing::Backing;
use crate::engine::{Call, GuestState, Scanout};
use crate::error::CommandError;
use crate::fence::{Gate, Timeline};
use crate::guest_framebuffer::GuestFramebuffer;
use crate::renderer::ResourceId;
use crate::resource::{
    Body, FrameLayout, HostBlob, Resource3d, Shadow, byte_of, check_inside, intersect,
};
use crate::screen::{FlushState, Picture, PixelMemory, Rect, ScanoutId};
use crate::wire;

/// Fails unless `view` is a non-empty part of `width` × `height` pixels.
fn check_view(view: Rect, width: u32, height: u32) -> Result<(), CommandError> {
    if view.width == 0 || view.height == 0 {
        return Err(CommandError::BadRect(view, width, height));
    }
    check_inside(view, width, height)
}

/// The part `view` of a framebuffer.
fn picture(
    memory: Arc<dyn PixelMemory>,
    layout: FrameLayout,
    view: Rect,
) -> Result<Picture, CommandError> {
    Ok(Picture {
        memory,
        offset: layout.offset + byte_of(view.x, view.y, layout.stride),
        stride: u32::try_from(layout.stride).map_err(|_| CommandError::BadValue {
            what: "the stride",
            value: layout.stride,
            must: "below 4 GiB",
        })?,
        width: view.width,
        height: view.height,
        format: layout.format,
    })
}

/// Puts a new scanout in place, or turns it off, and tells the screen.
fn show(
    call: &Call<'_>,
    scanout: ScanoutId,
    shown: Option<(Scanout, Picture)>,
) -> Result<Progress, CommandError> {
    let (next, picture) = shown.unzip();
    let screen_lock = call.engine.lock_screen();
    let last = replace(call, scanout, next)?;
    // A reset after this waits for the screen lock, and has the last word.
    call.engine.screen.set_scanout(scanout, picture.as_ref());
    drop(screen_lock);
    drop(last);
    Ok(Progress::ok())
}

/// Puts a new scanout in place; returns the last one.
fn replace(
    call: &Call<'_>,
    scanout: ScanoutId,
    next: Option<Scanout>,
) -> Result<Option<Scanout>, CommandError> {
    let mut state = call.state()?;
    Ok(match state.scanouts.get_mut(scanout as usize) {
        Some(place) => std::mem::replace(place, next),
        None => None,
    })
}

pub(super) fn set(call: &Call<'_>, set: &wire::SetScanout) -> Result<Progress, CommandError> {
    let scanout = set.scanout_id.get();
    let id = set.resource_id.get();
    let view = Rect::from(set.rect);
    call.engine.check_scanout(scanout)?;
    if id == 0 {
        return show(call, scanout, None);
    }
    let image = {
        let mut state = call.state()?;
        let resource = state.resource(id)?;
        match &mut resource.body {
            Body::Resource2d(image) => image.clone(),
            Body::Resource3d(render) => {
                let next = render_scanout(call, id, render, view)?;
                drop(state);
                // The screen shows the last picture until there is a new one.
                drop(replace(call, scanout, Some(next))?);
                return Ok(Progress::ok());
            }
            Body::GuestBlob(_) | Body::HostBlob(_) => {
                return Err(CommandError::WrongResource {
                    id,
                    is: resource.kind(),
                    needs: "a 2D or 3D resource (SET_SCANOUT_BLOB shows blobs)",
                });
            }
        }
    };
    check_view(view, image.width, image.height)?;
    let layout = FrameLayout {
        offset: 0,
        stride: image.stride(),
        width: image.width,
        height: image.height,
        format: image.format,
    };
    let picture = picture(image.pixels, layout, view)?;
    let next = Scanout {
        resource: id,
        view,
        shadow: None,
        stale: false,
        unseen: None,
    };
    show(call, scanout, Some((next, picture)))
}

/// A scanout of a 3D resource, which begins with its first flush.
fn render_scanout(
    call: &Call<'_>,
    id: ResourceId,
    render: &mut Resource3d,
    view: Rect,
) -> Result<Scanout, CommandError> {
    let (width, height) = (render.shape.width, render.shape.height);
    check_view(view, width, height)?;
    let (format, surface) = resource_3d::shown(call, render)?;
    let layout = FrameLayout {
        offset: 0,
        stride: render.stride(),
        width,
        height,
        format,
    };
    Ok(Scanout {
        resource: id,
        view,
        shadow: None,
        stale: true,
        unseen: Some(picture(surface, layout, view)?),
    })
}

/// Where a blob's pixels are read from.
enum Source {
    /// Where they are.
    InPlace(Arc<dyn PixelMemory>),
    /// From a copy, the last one if there is one.
    Copied(Option<Arc<Shadow>>),
}

pub(super) fn set_blob(
    call: &Call<'_>,
    set: &wire::SetScanoutBlob,
) -> Result<Progress, CommandError> {
    let scanout = set.scanout_id.get();
    let id = set.resource_id.get();
    let view = Rect::from(set.rect);
    call.engine.check_scanout(scanout)?;
    if id == 0 {
        return show(call, scanout, None);
    }
    let format =
        wire::pixel_format(set.format.get()).ok_or(CommandError::BadFormat(set.format.get()))?;
    let ([stride, ..], [offset, ..]) = (set.strides, set.offsets);
    let layout = FrameLayout {
        offset: u64::from(offset.get()),
        stride: u64::from(stride.get()),
        width: set.width.get(),
        height: set.height.get(),
        format,
    };
    let (source, size) = blob_source(call, id)?;
    layout.check(size)?;
    check_view(view, layout.width, layout.height)?;
    let (next, picture) = match source {
        Source::InPlace(memory) => {
            let next = Scanout {
                resource: id,
                view,
                shadow: None,
                stale: false,
                unseen: None,
            };
            (next, picture(memory, layout, view)?)
        }
        Source::Copied(last) => {
            let shadow = match last.filter(|shadow| shadow.layout == layout) {
                Some(shadow) => shadow,
                None => new_shadow(call, id, layout)?,
            };
            let packed = FrameLayout {
                offset: 0,
                stride: shadow.stride(),
                ..layout
            };
            let picture = picture(Arc::clone(&shadow.pixels) as _, packed, view)?;
            let next = Scanout {
                resource: id,
                view,
                shadow: Some(shadow),
                stale: true,
                unseen: None,
            };
            (next, picture)
        }
    };
    show(call, scanout, Some((next, picture)))
}

/// Where the pixels of a blob are read from, and its size.
fn blob_source(call: &Call<'_>, id: ResourceId) -> Result<(Source, u64), CommandError> {
    let mut state = call.state()?;
    let resource = state.resource(id)?;
    match &mut resource.body {
        Body::GuestBlob(guest) => {
            let size = guest.size;
            let framebuffer = guest.framebuffer.as_ref();
            if let Some(pixels) =
                framebuffer.and_then(|framebuffer| framebuffer.pixels(call.memory))
            {
                return Ok((Source::InPlace(pixels), size));
            }
            let stale = guest.framebuffer.take();
            let shadow = guest.shadow.clone();
            let backing = resource.backing.clone().filter(|_| !guest.refused);
            // Neither giving back nor mapping may keep other queues waiting.
            drop(state);
            drop(stale);
            let pixels = backing.and_then(|backing| map_framebuffer(call, id, &backing));
            Ok((pixels.map_or(Source::Copied(shadow), Source::InPlace), size))
        }
        Body::HostBlob(HostBlob::Ready { blob, size, .. }) => match &blob.pixels {
            Some(pixels) => Ok((Source::InPlace(Arc::clone(pixels)), *size)),
            None => Err(CommandError::WrongResource {
                id,
                is: "a host blob that the host cannot read",
                needs: "one in host-visible memory",
            }),
        },
        Body::Resource2d(_) | Body::Resource3d(_) | Body::HostBlob(HostBlob::Pending { .. }) => {
            Err(CommandError::WrongResource {
                id,
                is: resource.kind(),
                needs: "a blob (SET_SCANOUT shows other resources)",
            })
        }
    }
}

/// Lends the memory of a guest blob to the screen, if it takes it, and notes with the blob whether it did.
fn map_framebuffer(
    call: &Call<'_>,
    id: ResourceId,
    backing: &Arc<Backing>,
) -> Option<Arc<dyn PixelMemory>> {
    let framebuffer = GuestFramebuffer::new(&*call.engine.screen, backing, call.memory);
    let pixels = framebuffer
        .as_ref()
        .and_then(|framebuffer| framebuffer.pixels(call.memory));
    let mut state = call.state().ok()?;
    let Body::GuestBlob(guest) = &mut state.resource(id).ok()?.body else {
        return None;
    };
    if pixels.is_some() {
        guest.shadow = None;
    }
    guest.refused = framebuffer.is_none();
    guest.framebuffer = framebuffer;
    pixels
}

/// Makes a shadow and leaves it with the blob, for the next page flip to the same framebuffer.
fn new_shadow(
    call: &Call<'_>,
    id: ResourceId,
    layout: FrameLayout,
) -> Result<Arc<Shadow>, CommandError> {
    let shadow = Shadow::new(layout, &call.engine.pools.pixels)?;
    if let Body::GuestBlob(guest) = &mut call.state()?.resource(id)?.body {
        guest.shadow = Some(Arc::clone(&shadow));
    }
    Ok(shadow)
}

/// What a flush does to one scanout.
pub(super) struct Part {
    pub(super) scanout: ScanoutId,
    /// In coordinates of the framebuffer.
    pub(super) damage: Rect,
    pub(super) view: Rect,
    shadow: Option<(Arc<Shadow>, Arc<Backing>)>,
}

impl Part {
    /// The damage in coordinates of what is shown.
    pub(super) fn damage_in_view(&self) -> Rect {
        Rect {
            x: self.damage.x - self.view.x,
            y: self.damage.y - self.view.y,
            ..self.damage
        }
    }
}

type Parts = [Option<Part>; wire::MAX_SCANOUTS as usize];

/// Which scanouts show `id`, and what of `rect` they show.
fn plan(state: &mut GuestState, id: ResourceId, rect: Rect) -> Result<Parts, CommandError> {
    let resource = state
        .resources
        .get(&id)
        .ok_or(CommandError::NoResource(id))?;
    match &resource.body {
        Body::Resource2d(image) => check_inside(rect, image.width, image.height)?,
        Body::Resource3d(Resource3d { shape, .. }) => {
            check_inside(rect, shape.width, shape.height)?
        }
        Body::GuestBlob(_) | Body::HostBlob(_) => {}
    }
    let mut parts: Parts = [const { None }; wire::MAX_SCANOUTS as usize];
    for ((index, scanout), part) in (0..).zip(&mut state.scanouts).zip(&mut parts) {
        let Some(shown) = scanout.as_mut().filter(|shown| shown.resource == id) else {
            continue;
        };
        let damage = if shown.stale {
            Some(shown.view)
        } else {
            intersect(rect, shown.view)
        };
        let Some(damage) = damage else {
            continue;
        };
        let shadow = match &shown.shadow {
            Some(shadow) => {
                let backing = resource
                    .backing
                    .clone()
                    .ok_or(CommandError::NoBacking(id))?;
                Some((Arc::clone(shadow), backing))
            }
            None => None,
        };
        shown.stale = false;
        *part = Some(Part {
            scanout: index,
            damage,
            view: shown.view,
            shadow,
        });
    }
    Ok(parts)
}

pub(super) fn flush(
    call: &mut Call<'_>,
    flush: &wire::ResourceFlush,
) -> Result<Progress, CommandError> {
    let id = flush.resource_id.get();
    let (parts, is_3d) = {
        let mut state = call.state()?;
        let parts = plan(&mut state, id, flush.rect.into())?;
        let is_3d = matches!(state.resource(id)?.body, Body::Resource3d(_));
        (parts, is_3d)
    };
    if is_3d {
        return resource_3d::flush(call, id, parts.into_iter().flatten().collect());
    }
    for part in parts.iter().flatten() {
        if let Some((shadow, backing)) = &part.shadow {
            shadow.gather(call.memory, backing, part.damage)?;
        }
    }
    let shown = parts
        .iter()
        .flatten()
        .fold(0, |mask, part| mask | 1 << part.scanout);
    let fenced = call.exchange.ticket.timeline != Timeline::Unordered;
    if fenced && shown != 0 {
        // The screen may say that it is done before the call below returns.
        let engine = call.engine;
        let mut state = engine.at(call.exchange.epoch)?;
        call.hold(&mut state, Gate::Flush(shown));
    }
    for part in parts.iter().flatten() {
        let token = fenced.then(|| call.exchange.ticket.flush_token(part.scanout));
        let damage = part.damage_in_view();
        let state = call.engine.screen.flush(part.scanout, damage, token);
        if let (FlushState::Done, Some(token)) = (state, token) {
            call.state()?.timelines.flushed(token);
        }
    }
    Ok(Progress::Answer(Response::ok()))
}
