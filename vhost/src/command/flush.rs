//! `RESOURCE_FLUSH`: tells the screen which pixels have changed.
//!
//! Pixels in guest memory that have a shadow are copied there first. Those of a 3D resource are
//! read by its renderer, and the command is held until then.

use std::sync::{Arc, Weak};

use crate::backing::Backing;
use crate::engine::{Call, Engine, GuestState, Progress};
use crate::error::CommandError;
use crate::fence::{Gate, Ticket, Timeline};
use crate::renderer::{RendererError, ResourceId};
use crate::resource::{Body, Resource3d, Shadow, byte_of, check_inside, intersect};
use crate::resource3d::Pixels;
use crate::response::Response;
use crate::screen::{BYTES_PER_PIXEL, FlushState, Rect, ScanoutId};
use crate::surface::Surface;
use crate::wire;

/// What a flush does to one scanout.
struct Part {
    scanout: ScanoutId,
    /// In coordinates of the framebuffer.
    damage: Rect,
    view: Rect,
    shadow: Option<(Arc<Shadow>, Arc<Backing>)>,
}

impl Part {
    /// The damage in coordinates of what is shown.
    fn damage_in_view(&self) -> Rect {
        Rect {
            x: self.damage.x - self.view.x,
            y: self.damage.y - self.view.y,
            ..self.damage
        }
    }
}

type Parts = [Option<Part>; wire::MAX_SCANOUTS as usize];

/// Finds the scanouts that show `id`, and the part of `rect` that each shows.
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

pub(super) fn resource_flush(
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
        return flush_3d(call, id, parts.into_iter().flatten().collect());
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
        // The screen may report that it is done before the call below returns.
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

/// A read of a 3D resource for a flush, and the scanouts that show it.
struct Reading {
    epoch: u64,
    id: ResourceId,
    serial: u64,
    /// The part that is read.
    rect: Rect,
    surface: Arc<Surface>,
    stride: u64,
    parts: Vec<Part>,
    ticket: Ticket,
}

/// Flushes a 3D resource that `parts` show. Its pixels are read back, then the screen is told.
fn flush_3d(
    call: &mut Call<'_>,
    id: ResourceId,
    parts: Vec<Part>,
) -> Result<Progress, CommandError> {
    let engine = call.engine;
    let Some(rect) = parts.iter().map(|part| part.damage).reduce(around) else {
        return Ok(Progress::Answer(Response::ok()));
    };
    let (owner, reading) = {
        let mut state = engine.at(call.exchange.epoch)?;
        let render = state.resource_3d(id)?;
        let surface = render.shown.clone().ok_or(CommandError::NoResource(id))?;
        let reading = Reading {
            epoch: call.exchange.epoch,
            id,
            serial: render.serial,
            rect,
            surface,
            stride: render.stride(),
            parts,
            ticket: call.exchange.ticket,
        };
        let owner = Arc::clone(&render.owner);
        call.hold(&mut state, Gate::Open);
        (owner, reading)
    };
    let header = call.exchange.header;
    let engine = Weak::clone(&engine.me);
    let pixels = Pixels::new(move |result| {
        if let Some(engine) = engine.upgrade() {
            let ticket = reading.ticket;
            let result = reading.arrived(&engine, result);
            engine.respond_with(ticket, &header, result);
        }
    });
    owner.read(id, rect, pixels);
    Ok(Progress::Held)
}

/// The smallest rectangle around two. Neither overflows.
fn around(one: Rect, other: Rect) -> Rect {
    let (x, y) = (one.x.min(other.x), one.y.min(other.y));
    let right = (one.x + one.width).max(other.x + other.width);
    let bottom = (one.y + one.height).max(other.y + other.height);
    Rect {
        x,
        y,
        width: right - x,
        height: bottom - y,
    }
}

impl Reading {
    fn arrived(
        self,
        engine: &Engine,
        result: Result<&[u8], RendererError>,
    ) -> Result<(), CommandError> {
        let copied = result
            .map_err(CommandError::from)
            .and_then(|pixels| self.copy(pixels));
        let screen_lock = engine.lock_screen();
        let mut state = engine.at(self.epoch)?;
        if !state
            .resource_3d(self.id)
            .is_ok_and(|render| render.serial == self.serial)
        {
            // The resource is gone by now, and its scanouts are off.
            return Ok(());
        }
        let mut live = Vec::new();
        let mut mask = 0_u16;
        for part in &self.parts {
            let shown = state.scanouts.get_mut(part.scanout as usize);
            let Some(shown) = shown
                .and_then(Option::as_mut)
                .filter(|shown| shown.resource == self.id && shown.view == part.view)
            else {
                continue;
            };
            if copied.is_err() {
                shown.stale = true;
            } else {
                live.push((part, shown.unseen.take()));
                mask |= 1 << part.scanout;
            }
        }
        let fenced = self.ticket.timeline != Timeline::Unordered;
        if fenced && mask != 0 {
            state.timelines.set_gate(self.ticket, Gate::Flush(mask));
        }
        drop(state);
        for (part, picture) in live {
            if picture.is_some() {
                engine.screen.set_scanout(part.scanout, picture.as_ref());
            }
            let token = fenced.then(|| self.ticket.flush_token(part.scanout));
            let seen = engine
                .screen
                .flush(part.scanout, part.damage_in_view(), token);
            if let (FlushState::Done, Some(token)) = (seen, token) {
                engine.state().timelines.flushed(token);
            }
        }
        drop(screen_lock);
        copied
    }

    /// Puts the pixels where the screen reads them.
    fn copy(&self, pixels: &[u8]) -> Result<(), CommandError> {
        let Rect {
            x,
            y,
            width,
            height,
        } = self.rect;
        let row = u64::from(width) * u64::from(BYTES_PER_PIXEL);
        let wrong = || CommandError::OutOfRange {
            start: 0,
            length: row * u64::from(height),
            size: pixels.len() as u64,
            of: "the pixels that the renderer read",
        };
        if pixels.len() as u64 != row * u64::from(height) {
            return Err(wrong());
        }
        for (y, from) in (y..).zip(pixels.chunks(row as usize)) {
            let into = self.surface.slice(byte_of(x, y, self.stride), row);
            into.ok_or_else(wrong)?.copy_from(from);
        }
        Ok(())
    }
}
