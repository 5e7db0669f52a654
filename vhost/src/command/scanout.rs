//! The scanouts: `SET_SCANOUT`, `SET_SCANOUT_BLOB`.
//!
//! Pixels in host memory (2D resources, host blobs) go to the screen as they are. Pixels in guest
//! memory do so too when the screen can map them ([`GuestFramebuffer`]). Otherwise they have a
//! [`Shadow`], into which each flush copies what has changed. Pixels of a 3D resource are read by
//! its renderer at each flush ([`super::flush`]).

use std::sync::Arc;

use crate::backing::Backing;
use crate::engine::{Call, Progress, Scanout};
use crate::error::CommandError;
use crate::guest_framebuffer::GuestFramebuffer;
use crate::renderer::ResourceId;
use crate::resource::{Body, FrameLayout, HostBlob, Resource3d, Shadow, byte_of, check_inside};
use crate::resource3d::Shape3d;
use crate::screen::{
    BYTES_PER_PIXEL, MAX_SIDE, Picture, PixelFormat, PixelMemory, Rect, ScanoutId,
};
use crate::surface::Surface;
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
    for side in [view.width, view.height] {
        if side > MAX_SIDE {
            return Err(CommandError::BadValue {
                what: "a side of what a scanout shows",
                value: u64::from(side),
                must: "at most 16384 pixels, the most that a screen can show",
            });
        }
    }
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

/// Sets or turns off a scanout, and tells the screen.
fn show(
    call: &Call<'_>,
    scanout: ScanoutId,
    shown: Option<(Scanout, Picture)>,
) -> Result<Progress, CommandError> {
    let (next, picture) = shown.unzip();
    let screen_lock = call.engine.lock_screen();
    let last = replace(call, scanout, next)?;
    // A reset that comes now waits for the screen lock, and then turns the scanout off.
    call.engine.screen.set_scanout(scanout, picture.as_ref());
    drop(screen_lock);
    drop(last);
    Ok(Progress::ok())
}

/// Sets a scanout, and returns what it was.
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

pub(super) fn set_scanout(
    call: &Call<'_>,
    set: &wire::SetScanout,
) -> Result<Progress, CommandError> {
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
    let (format, surface) = shown_3d(call, render)?;
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
    /// In place.
    InPlace(Arc<dyn PixelMemory>),
    /// From a copy; the last copy, if there is one.
    Copied(Option<Arc<Shadow>>),
}

pub(super) fn set_scanout_blob(
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
            // Releasing and mapping pages must not delay other queues.
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

/// Lets the screen map the memory of a guest blob, and notes with the blob whether it did.
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

/// Makes a shadow and keeps it with the blob, for the next page flip to the same framebuffer.
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

/// The format in which a 3D resource can be shown, and the memory that shows it.
fn shown_3d(
    call: &Call<'_>,
    render: &mut Resource3d,
) -> Result<(PixelFormat, Arc<Surface>), CommandError> {
    let Shape3d {
        format,
        width,
        height,
        samples,
        ..
    } = render.shape;
    let format = wire::pixel_format(format).ok_or(CommandError::BadFormat(format))?;
    if samples > 1 {
        return Err(CommandError::BadValue {
            what: "the samples of a shown resource",
            value: u64::from(samples),
            must: "0 or 1",
        });
    }
    let surface = match &render.shown {
        Some(surface) => Arc::clone(surface),
        None => {
            let bytes = u64::from(width)
                .saturating_mul(u64::from(height))
                .saturating_mul(u64::from(BYTES_PER_PIXEL));
            Surface::new(bytes, &call.engine.pools.pixels)?
        }
    };
    render.shown = Some(Arc::clone(&surface));
    Ok((format, surface))
}
