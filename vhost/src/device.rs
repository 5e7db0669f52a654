//! The device: takes descriptor chains, answers them.
//!
//! A transport makes one [`Device`] per VM connection, gives it a [`Transport`] to call back and the guest's memory, and
//! hands it every available chain of the control queue ([`Device::control`]) and of the cursor queue
//! ([`Device::cursor`]). One thread per queue; everything else may be called from any thread at any time.
//!
//! What a guest can make the device keep is limited by [`crate::budget`].

use std::ops::Deref;
use std::sync::Arc;

use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use zerocopy::{FromZeros, IntoBytes};

use crate::dispatch;
use crate::engine::Engine;
use crate::renderer::Renderer;
use crate::screen::{FlushToken, Monitor, ScanoutId, ScanoutSink};
use crate::wire::{self, Config};

pub use crate::options::DeviceOptions;
pub use crate::queue::{Outcome, Queue, Transport};

/// What a device keeps for its guest at the moment; all zero after a reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Live resources.
    pub resources: usize,
    /// Live contexts.
    pub contexts: usize,
    /// Blobs in the host-visible window.
    pub mappings: usize,
    /// Commands that are not answered.
    pub held: usize,
    /// Bytes of pixel memory, also that which only the screen still holds.
    pub pixel_bytes: u64,
    /// Bytes of 3D resources, at four a pixel.
    pub render_bytes: u64,
    /// Guest memory pieces of all backings.
    pub backing_entries: u64,
}

/// A virtio-gpu device.
pub struct Device {
    engine: Arc<Engine>,
}

impl Device {
    /// Makes a device in its reset state.
    pub fn new(
        options: DeviceOptions,
        screen: Arc<dyn ScanoutSink>,
        renderers: Vec<Arc<dyn Renderer>>,
    ) -> Self {
        Self {
            engine: Engine::new(options, screen, renderers, dispatch::run_deferred),
        }
    }

    /// Plugs the transport in. Done once, before the first chain.
    pub fn set_transport(&self, transport: Arc<dyn Transport>) {
        self.engine.set_transport(transport);
    }

    /// The virtio-gpu feature bits on offer (bits 0 to 23; no transport or ring features).
    ///
    /// Blobs need no renderer: without 3D, Linux takes its framebuffers from guest blobs and spares the transfers.
    pub fn features(&self) -> u64 {
        let mut features =
            1 << wire::F_EDID | 1 << wire::F_RESOURCE_UUID | 1 << wire::F_RESOURCE_BLOB;
        if self.engine.capsets().next().is_some() {
            features |= 1 << wire::F_VIRGL | 1 << wire::F_CONTEXT_INIT;
        }
        if self.engine.options.blob_alignment > 4096 {
            features |= 1 << wire::F_BLOB_ALIGNMENT;
        }
        features
    }

    /// The driver accepted these feature bits.
    pub fn set_acked_features(&self, features: u64) {
        self.engine.state().acked_features = features;
    }

    /// Says whether the VMM has made the window through which the guest maps memory of the host. Without one the guest is offered no
    /// capability set that needs it ([`crate::renderer::Renderer::needs_window`]). A transport says so before the guest first reads
    /// the config space; a device of which nobody says anything has one.
    pub fn set_window(&self, is_there: bool) {
        self.engine.set_window(is_there);
    }

    /// Replaces the guest memory that later answers of held chains go to.
    pub fn set_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) {
        self.engine.set_memory(memory);
    }

    /// Copies the config space from `offset` on (virtio-v1.4 §5.7.4); bytes past its end are zero.
    pub fn read_config(&self, offset: u32, into: &mut [u8]) {
        let config = Config {
            events_read: self.engine.state().events_read.into(),
            events_clear: 0.into(),
            num_scanouts: self.engine.scanouts().into(),
            num_capsets: (self.engine.capsets().count() as u32).into(),
            blob_alignment: self.engine.options.blob_alignment.into(),
        };
        into.fill(0);
        let from = config.as_bytes().get(offset as usize..).unwrap_or(&[]);
        for (to, byte) in into.iter_mut().zip(from) {
            *to = *byte;
        }
    }

    /// The driver wrote `bytes` at `offset`; only `events_clear` has an effect.
    pub fn write_config(&self, offset: u32, bytes: &[u8]) {
        let mut config = Config::new_zeroed();
        let place = config.as_mut_bytes().get_mut(offset as usize..);
        for (to, byte) in place.unwrap_or(&mut []).iter_mut().zip(bytes) {
            *to = *byte;
        }
        self.engine.state().events_read &= !config.events_clear.get();
    }

    /// Handles one chain of the control queue.
    pub fn control<M>(&self, memory: &GuestMemoryMmap, chain: DescriptorChain<M>) -> Outcome
    where
        M: Deref<Target = GuestMemoryMmap> + Clone,
    {
        dispatch::handle(&self.engine, Queue::Control, memory, chain)
    }

    /// Handles one chain of the cursor queue.
    pub fn cursor<M>(&self, memory: &GuestMemoryMmap, chain: DescriptorChain<M>) -> Outcome
    where
        M: Deref<Target = GuestMemoryMmap> + Clone,
    {
        dispatch::handle(&self.engine, Queue::Cursor, memory, chain)
    }

    /// A monitor changed (the window was resized, plugged, unplugged): tells the guest.
    pub fn set_monitor(&self, scanout: ScanoutId, monitor: Monitor) {
        {
            let mut state = self.engine.state();
            let Some(place) = state.monitors.get_mut(scanout as usize) else {
                log::error!("there is no scanout {scanout} whose monitor could change");
                return;
            };
            if *place == monitor {
                return;
            }
            *place = monitor;
            state.events_read |= wire::EVENT_DISPLAY;
        }
        match self.engine.transport() {
            Ok(transport) => transport.config_changed(),
            // Before the transport is there, no guest is; it will read the new state first.
            Err(error) => log::debug!("a monitor changed early: {error}"),
        }
    }

    /// The screen has read the pixels of this flush.
    pub fn flush_done(&self, token: FlushToken) {
        let timeline = self.engine.state().timelines.flushed(token);
        if let Some(timeline) = timeline {
            self.engine.deliver(timeline, None);
        }
    }

    /// What the guest has made so far.
    pub fn usage(&self) -> Usage {
        let state = self.engine.state();
        Usage {
            resources: state.resources.len(),
            contexts: state.contexts.len(),
            mappings: state.hostmem.mappings(),
            held: state.timelines.len(),
            pixel_bytes: self.engine.pools.pixels.used(),
            render_bytes: self.engine.pools.render.used(),
            backing_entries: self.engine.pools.entries.used(),
        }
    }

    /// The transport has started or stopped the control queue. While it is stopped no held chain is answered; what became ready meanwhile is
    /// answered when the queue goes on, or forgotten by a reset.
    pub fn set_running(&self, running: bool) {
        self.engine.set_running(running);
    }

    /// Device reset: every resource, scanout, context and held chain is gone; nothing held is answered any more.
    /// The VMM has dropped the window's mappings by itself.
    pub fn reset(&self) {
        self.engine.reset();
    }
}
