//! The device model as the transport sees it: two virtqueues, a config space, a reset.
//!
//! [`Gpu`] is the virtio-gpu device with its window and QEMU's console. An input device is a model
//! by itself.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use super::GpuBackend;
use super::console::GpuSocketScreen;
use super::ring::Chain;
use super::vmm_link::VmmLink;
use crate::device::{Device, Outcome, Queue, Taken};
use crate::input::{InputDevice, Kind, Waker};

/// After a suspend, a second without a picture is short. Two wake-ups a second cost next to
/// nothing.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A device; see the module. Queues are numbered 0 and 1.
pub(super) trait Model: Send + Sync {
    /// The names of the queues' threads.
    fn queue_names(&self) -> [&'static str; 2];

    /// The device's own feature bits.
    fn features(&self) -> u64 {
        0
    }

    fn set_acked_features(&self, _features: u64) {}

    /// Connects the transport. Each waker makes the thread of its queue check [`Self::wants_chain`]
    /// again.
    fn attach(&self, link: &Arc<VmmLink>, wakers: [Waker; 2]);

    fn set_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) {}

    fn read_config(&self, offset: u32, into: &mut [u8]);

    fn write_config(&self, offset: u32, bytes: &[u8]);

    /// Whether the config space changes by itself, so that the driver must be told.
    fn changes_its_config(&self) -> bool {
        false
    }

    /// How often a queue is checked without a kick. Linux's virtio_gpu has no `freeze`. It goes on
    /// while the machine suspends and resumes (S3), and then kicks and interrupts are lost. Both
    /// sides would wait forever.
    fn poll_interval(&self) -> Option<Duration> {
        None
    }

    /// Whether a chain of this queue is of use now. If not, chains stay in the guest's ring.
    fn wants_chain(&self, _queue: u32) -> bool {
        true
    }

    /// How often the device was reset.
    fn resets(&self) -> u64 {
        0
    }

    fn handle(&self, queue: u32, memory: &GuestMemoryMmap, chain: Chain, taken: Taken) -> Outcome;

    /// Notes that a queue was started or stopped. A reset comes before the start.
    fn set_running(&self, _queue: u32, _running: bool) {}

    /// Resets the device: the driver is gone, and everything it made with it.
    fn reset(&self);

    /// Size in bytes of the host-visible window; 0 for none.
    fn host_visible_size(&self) -> u64 {
        0
    }

    /// Notes whether the VMM has made the window. It is known before the guest reads the config
    /// space.
    fn set_window(&self, _is_there: bool) {}
    /// From now until [`Self::resume`] nothing may wait for the VMM, because the VMM waits for us.
    fn pause(&self) {}

    fn resume(&self) {}

    fn set_gpu_socket(&self, _socket: UnixStream) -> io::Result<()> {
        Err(io::Error::other("this device is no GPU"))
    }

    /// The VMM is gone.
    fn disconnect(&self) {}
}

/// A virtio-gpu device and what belongs to it.
pub(super) struct Gpu {
    device: Arc<Device>,
    window: u64,
    console: Arc<GpuSocketScreen>,
}

impl Gpu {
    pub(super) fn new(backend: GpuBackend) -> Arc<Self> {
        let console = backend.console.unwrap_or_default();
        console.set_device(&backend.device);
        Arc::new(Self {
            device: backend.device,
            window: backend.host_visible_size,
            console,
        })
    }
}

impl Model for Gpu {
    fn queue_names(&self) -> [&'static str; 2] {
        ["gpu-control", "gpu-cursor"]
    }

    fn features(&self) -> u64 {
        self.device.features()
    }

    fn set_acked_features(&self, features: u64) {
        self.device.set_acked_features(features);
    }

    fn attach(&self, link: &Arc<VmmLink>, _wakers: [Waker; 2]) {
        self.device.set_transport(link.clone());
    }

    fn set_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) {
        self.device.set_memory(memory);
    }

    fn read_config(&self, offset: u32, into: &mut [u8]) {
        self.device.read_config(offset, into);
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) {
        self.device.write_config(offset, bytes);
    }

    fn changes_its_config(&self) -> bool {
        true
    }

    fn poll_interval(&self) -> Option<Duration> {
        Some(POLL_INTERVAL)
    }

    fn resets(&self) -> u64 {
        self.device.resets()
    }

    fn handle(&self, queue: u32, memory: &GuestMemoryMmap, chain: Chain, taken: Taken) -> Outcome {
        let queue = match queue {
            0 => Queue::Control,
            _ => Queue::Cursor,
        };
        self.device.handle(queue, memory, chain, taken)
    }

    fn set_running(&self, queue: u32, running: bool) {
        if queue == 0 {
            self.device.set_running(running);
        }
    }

    fn reset(&self) {
        self.device.reset();
    }

    fn host_visible_size(&self) -> u64 {
        self.window
    }

    fn set_window(&self, is_there: bool) {
        self.device.set_window(is_there);
    }

    fn pause(&self) {
        self.console.pause();
    }

    fn resume(&self) {
        self.console.resume();
    }

    fn set_gpu_socket(&self, socket: UnixStream) -> io::Result<()> {
        self.console.connect(socket)
    }

    fn disconnect(&self) {
        self.console.disconnect();
    }
}

/// Queue 0 carries events to the guest, queue 1 LEDs back (virtio-v1.4 §5.8.2). No chain is ever
/// held. A buffer waits for its event in the guest's ring, so that a paused VM finds it there
/// again.
impl Model for InputDevice {
    fn queue_names(&self) -> [&'static str; 2] {
        match self.kind() {
            Kind::Keyboard => ["keyboard", "keyboard-leds"],
            Kind::Tablet => ["tablet", "tablet-status"],
            Kind::Mouse => ["mouse", "mouse-status"],
            Kind::Touch => ["touch", "touch-status"],
        }
    }

    fn attach(&self, _link: &Arc<VmmLink>, [events, _]: [Waker; 2]) {
        self.set_waker(events);
    }

    fn read_config(&self, offset: u32, into: &mut [u8]) {
        Self::read_config(self, offset, into);
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) {
        Self::write_config(self, offset, bytes);
    }

    fn wants_chain(&self, queue: u32) -> bool {
        queue != 0 || self.has_event()
    }

    fn handle(&self, queue: u32, memory: &GuestMemoryMmap, chain: Chain, _: Taken) -> Outcome {
        match queue {
            0 => self.send_event(memory, chain),
            _ => self.take_status(memory, chain),
        }
    }

    fn set_running(&self, queue: u32, running: bool) {
        if queue == 0 {
            Self::set_running(self, running);
        }
    }

    fn reset(&self) {
        Self::reset(self);
    }
}
