//! The virtio-gpu device: it takes descriptor chains and answers them.
//!
//! A transport makes one [`Device`] per VM connection. It gives the device a [`Transport`] to call
//! back and the guest's memory. Then it passes every available chain of the control queue to
//! [`Device::control`], and of the cursor queue to [`Device::cursor`], from one thread per queue.
//! Everything else may be called from any thread at any time.
//!
//! [`crate::budget`] limits what a guest can make the device keep.

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
pub use crate::queue::{Outcome, Queue, Taken, Transport};

/// What a device keeps for its guest at the moment. All zero after a reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Live resources.
    pub resources: usize,
    /// Live contexts.
    pub contexts: usize,
    /// Blobs mapped into the host-visible window.
    pub mappings: usize,
    /// Commands that are not answered yet.
    pub held: usize,
    /// Bytes of pixel memory, including memory that only the screen still holds.
    pub pixel_bytes: u64,
    /// Bytes of 3D resources, counted at four a pixel.
    pub render_bytes: u64,
    /// Guest memory pieces of all backings.
    pub backing_entries: u64,
    /// Bytes of submitted commands that are not consumed yet.
    pub queued_bytes: u64,
    /// Rings of contexts for whose fences something is kept.
    pub rings: usize,
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

    /// Connects the transport. Done once, before the first chain.
    pub fn set_transport(&self, transport: Arc<dyn Transport>) {
        self.engine.set_transport(transport);
    }

    /// The virtio-gpu feature bits on offer: bits 0 to 23, without those of the transport and the
    /// rings.
    ///
    /// Blobs are offered without a renderer, too. Without 3D, Linux takes its framebuffers from
    /// guest blobs, which saves the transfers.
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

    /// Notes the feature bits that the driver accepted.
    pub fn set_acked_features(&self, features: u64) {
        self.engine.state().acked_features = features;
    }

    /// Tells the device whether the VMM has made the host-visible window. Without one, the guest is
    /// offered no capability set that needs it ([`crate::renderer::Renderer::needs_window`]). A
    /// transport calls this before the guest first reads the config space. Without a call, there is
    /// a window.
    pub fn set_window(&self, is_there: bool) {
        self.engine.set_window(is_there);
    }

    /// Replaces the guest memory into which held chains are answered.
    pub fn set_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) {
        self.engine.set_memory(memory);
    }

    /// Copies the config space from `offset` on (virtio-v1.4 §5.7.4). Bytes past its end are zero.
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

    /// Takes `bytes` that the driver wrote at `offset`. Only `events_clear` has an effect.
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
        self.handle(Queue::Control, memory, chain, self.taken_now())
    }

    fn taken_now(&self) -> Taken {
        Taken {
            ring: 0,
            resets: self.resets(),
        }
    }

    /// How often the device was reset. A transport notes it with each chain that it takes from a
    /// ring, at a moment when the ring runs.
    pub fn resets(&self) -> u64 {
        self.engine.resets()
    }

    /// [`Self::control`] or [`Self::cursor`] for a chain that was `taken` from its ring some time
    /// ago. When the device was reset since, the chain is forgotten: nothing is carried out for the
    /// next driver, and no answer is given.
    pub fn handle<M>(
        &self,
        queue: Queue,
        memory: &GuestMemoryMmap,
        chain: DescriptorChain<M>,
        taken: Taken,
    ) -> Outcome
    where
        M: Deref<Target = GuestMemoryMmap> + Clone,
    {
        if taken.resets != self.resets() {
            return Outcome::Held;
        }
        dispatch::handle(&self.engine, queue, memory, chain, taken)
    }

    /// Handles one chain of the cursor queue.
    pub fn cursor<M>(&self, memory: &GuestMemoryMmap, chain: DescriptorChain<M>) -> Outcome
    where
        M: Deref<Target = GuestMemoryMmap> + Clone,
    {
        self.handle(Queue::Cursor, memory, chain, self.taken_now())
    }

    /// Tells the guest that a monitor changed: the window was resized, plugged or unplugged.
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
            // Without a transport there is no guest yet. It will read the new state first.
            Err(error) => log::debug!("a monitor changed early: {error}"),
        }
    }

    /// Tells the device that the screen has read the pixels of this flush.
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
            queued_bytes: self.engine.pools.queued.used(),
            rings: state.timelines.rings(),
        }
    }

    /// Tells the device that the transport has started or stopped the control queue. While it is
    /// stopped, no held chain is answered. Answers that become ready meanwhile are given when the
    /// queue goes on, or forgotten by a reset.
    pub fn set_running(&self, running: bool) {
        self.engine.set_running(running);
    }

    /// Resets the device: every resource, scanout, context and held chain is gone, and nothing held
    /// is answered any more. The VMM drops the window's mappings by itself.
    pub fn reset(&self) {
        self.engine.reset();
    }
}
