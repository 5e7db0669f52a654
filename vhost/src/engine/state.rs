//! What the guest has made. One lock guards it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::budget::RESOURCES;
use crate::deferred::DeferredCommands;
use crate::error::CommandError;
use crate::fence::Timelines;
use crate::hostmem::Hostmem;
use crate::options::DeviceOptions;
use crate::renderer::{Context, ContextId, ResourceId};
use crate::resource::{Body, HostBlob, Resource, Resource3d, Shadow};
use crate::screen::{Monitor, Picture, Rect};
use crate::wire;

/// What a scanout shows.
pub(crate) struct Scanout {
    pub(crate) resource: ResourceId,
    /// The part of the framebuffer shown.
    pub(crate) view: Rect,
    /// The host copy, when the pixels are in guest memory.
    pub(crate) shadow: Option<Arc<Shadow>>,
    /// Pixels outside of the damage have changed since the shadow was filled, or since a 3D
    /// resource was read.
    pub(crate) stale: bool,
    /// For a 3D resource: the picture to show once its pixels have been read.
    pub(crate) unseen: Option<Picture>,
}

/// Where a cursor is.
#[derive(Clone, Copy, Default)]
pub(crate) struct CursorPlace {
    /// The serial of the command that set its image.
    pub(crate) serial: u64,
    pub(crate) x: u32,
    pub(crate) y: u32,
    /// Whether the guest has given it an image.
    pub(crate) has_image: bool,
}

/// A live context. More than one thread calls it, none under a lock. All calls return at once.
pub(crate) struct ContextSlot {
    pub(crate) handle: Arc<dyn Context>,
    /// Tells this context object from an earlier one of the same id.
    pub(crate) generation: u64,
    /// Whether it ever sent a valid request for a blob.
    pub(crate) made_a_blob: bool,
}

/// What the guest has made.
pub(crate) struct GuestState {
    pub(crate) epoch: u64,
    pub(super) next_serial: u64,
    pub(crate) acked_features: u64,
    pub(crate) events_read: u32,
    pub(crate) monitors: Vec<Monitor>,
    pub(crate) resources: HashMap<ResourceId, Resource>,
    pub(crate) scanouts: [Option<Scanout>; wire::MAX_SCANOUTS as usize],
    pub(crate) cursors: [CursorPlace; wire::MAX_SCANOUTS as usize],
    pub(crate) contexts: HashMap<ContextId, ContextSlot>,
    /// Whether there was a 3D resource since the last reset.
    pub(crate) rendered: bool,
    pub(crate) hostmem: Hostmem,
    pub(crate) timelines: Timelines,
    pub(crate) deferred: DeferredCommands,
    /// Whether a thread is in [`crate::dispatch::run_deferred`].
    pub(crate) is_running_deferred: bool,
    /// How many answers were taken off the timelines and are being passed to the transport.
    pub(super) delivering: usize,
    /// The control queue is stopped: answers of held commands wait.
    pub(super) stopped: bool,
}

impl GuestState {
    /// The state of a device that no driver has used.
    pub(super) fn new(options: &DeviceOptions) -> Self {
        Self {
            epoch: 0,
            next_serial: 0,
            acked_features: 0,
            events_read: 0,
            monitors: options.monitors.clone(),
            resources: HashMap::new(),
            scanouts: [const { None }; wire::MAX_SCANOUTS as usize],
            cursors: Default::default(),
            contexts: HashMap::new(),
            rendered: false,
            hostmem: Hostmem::new(options.host_visible_size, options.alignment_of_blobs()),
            timelines: Timelines::default(),
            deferred: DeferredCommands::default(),
            is_running_deferred: false,
            delivering: 0,
            stopped: false,
        }
    }

    /// A number that was never used before.
    pub(crate) fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// The resource `id`.
    pub(crate) fn resource(&mut self, id: ResourceId) -> Result<&mut Resource, CommandError> {
        self.resources
            .get_mut(&id)
            .ok_or(CommandError::NoResource(id))
    }

    /// Whether a scanout shows a desktop that draws with the guest's processor.
    ///
    /// Such a desktop shows a 2D resource, and nearly always flips between two of the screen's
    /// size. Linux has one more for its console. So there are three. An X server has one picture,
    /// and a desktop that has not drawn much may have one, too; but it has a cursor. Before a
    /// desktop starts, only the console is there, or it and the picture of a boot splash, and no
    /// cursor. A desktop that draws with a GPU shows blobs, 3D resources, or 2D resources into
    /// which a context draws.
    pub(crate) fn is_screen_drawn_by_cpu(&self) -> bool {
        let size = |id: ResourceId| match self.resources.get(&id).map(|resource| &resource.body) {
            Some(Body::Resource2d(image)) if image.drawn.is_none() => {
                Some((image.width, image.height))
            }
            _ => None,
        };
        let has_cursor = self.cursors.iter().any(|cursor| cursor.has_image);
        let wanted = if has_cursor { 2 } else { 3 };
        let shown = || self.scanouts.iter().flatten();
        shown().any(|scanout| {
            if size(scanout.resource).is_none() {
                return false;
            }
            // Some drivers round the size of their pictures up.
            let covers = |id: ResourceId| {
                let view = scanout.view;
                size(id).is_some_and(|(w, h)| w >= view.width && h >= view.height)
            };
            let is_of_another = |id: ResourceId| {
                id != scanout.resource && shown().any(|other| other.resource == id)
            };
            let ids = self.resources.keys().copied();
            let pictures = ids.filter(|id| covers(*id) && !is_of_another(*id));
            pictures.take(wanted).count() == wanted
        })
    }

    /// Whether a renderer is still making the resource `id`.
    pub(crate) fn is_pending(&self, id: ResourceId) -> bool {
        self.resources.get(&id).is_some_and(|resource| {
            matches!(resource.body, Body::HostBlob(HostBlob::Pending { .. }))
        })
    }

    /// Fails unless a resource `id` can be made now.
    pub(crate) fn check_new_resource(&self, id: ResourceId) -> Result<(), CommandError> {
        if id == 0 || self.resources.contains_key(&id) {
            return Err(CommandError::BadNewResource(id));
        }
        if self.resources.len() >= RESOURCES {
            return Err(CommandError::Limit {
                what: "resources",
                limit: RESOURCES as u64,
            });
        }
        Ok(())
    }

    /// The 3D resource `id`.
    pub(crate) fn resource_3d(&mut self, id: ResourceId) -> Result<&mut Resource3d, CommandError> {
        let resource = self.resource(id)?;
        let is = resource.kind();
        match &mut resource.body {
            Body::Resource3d(resource) => Ok(resource),
            _ => Err(CommandError::WrongResource {
                id,
                is,
                needs: "a 3D resource",
            }),
        }
    }

    /// Takes a resource off the scanouts. Returns them, a bit for each.
    pub(crate) fn take_off_scanouts(&mut self, id: ResourceId) -> u16 {
        let mut off = 0;
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            if scanout.as_ref().is_some_and(|shown| shown.resource == id) {
                *scanout = None;
                off |= 1 << index;
            }
        }
        off
    }

    /// The live context `id`.
    pub(crate) fn context(&self, id: ContextId) -> Result<&ContextSlot, CommandError> {
        self.contexts.get(&id).ok_or(CommandError::NoContext(id))
    }

    /// The same, to be changed.
    pub(crate) fn context_mut(&mut self, id: ContextId) -> Result<&mut ContextSlot, CommandError> {
        self.contexts
            .get_mut(&id)
            .ok_or(CommandError::NoContext(id))
    }
}
