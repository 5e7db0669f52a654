//! The connection of one VM: the rules of vhost-user, without its messages.
//!
//! `messages` reads messages and calls the methods here, all from one thread. The device runs on
//! the queue threads, and nothing here is locked while it does. So a message can always be
//! answered, even while the device waits for the VMM: `SHMEM_MAP` makes QEMU send a new memory
//! table before it answers.
//!
//! # When the device is reset
//!
//! QEMU sends `GET_VRING_BASE` for each queue, and nothing more, both when the guest resets the
//! device (system reset, driver unloaded) and when the VM is only paused. The difference shows when
//! the queues are set up again. A paused VM goes on at the same rings and indices, and a driver
//! starts at index 0. So:
//!
//! - A stopped queue is quiet: the worker is out of the device or waits for the VMM there, no held
//!   chain is answered, and guest memory is not touched. Answers that become ready are kept.
//! - If the worker is still in the device after [`PATIENCE`], the device is reset at once.
//!   Otherwise it could touch memory that the guest uses for something else.
//! - When the control queue starts afresh, the device is reset before its first chain. When it
//!   resumes, everything is as it was, and the kept answers are given.
//! - `RESET_DEVICE` and the end of the connection reset it, too.
//!
//! The cursor queue never resets anything: it has no state but the cursor.
//!
//! # Which memory is taken
//!
//! QEMU offers each vhost-user device all memory of the guest, including the blobs that Hesper
//! itself has mapped into the window ([`mapped_blobs`]). QEMU keeps a list of what was taken, and
//! two things go wrong with that list in QEMU 11.1 (`vhost_user_add_remove_regions`). With more
//! than 512 regions QEMU ends by an assertion. When a region of the list has gone while the device
//! was stopped, QEMU ends by a segmentation fault at the next start. A system reset does the
//! latter: it stops the device and then drops the window's mappings.
//!
//! - Guest RAM is always taken.
//! - A blob is *declined* while queues run. QEMU logs `vhost_set_mem_table failed` and goes on, and
//!   the list stays free of it.
//! - A blob is *accepted* while no queue runs, though it is not mapped here. At a start, QEMU gives
//!   the device up at the first refusal.
//!
//! So a blob is on the list only when it is mapped across a pause, and until the guest unmaps it.
//! Until then a hard reset ends QEMU. A line in the log says so.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use hesper_system::guest_memory::Owner;
use vm_memory::GuestMemoryMmap;

use super::Error;
use super::backend_channel::{BackendChannel, ChannelOptions};
use super::features::{self, protocol};
use super::mapped_blobs;
use super::memory::{GuestMemory, MemoryError, Region};
use super::model::Model;
use super::ring::{Chain, ChainUser, Ring, RingError, Start};
use super::vmm_link::{ConfigNotifier, VmmLink};
use super::worker::Worker;
use crate::device::{Outcome, Taken};
use crate::system::page_size;

/// Limits the lines that a guest or its VM monitor can cause.
static LINES: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper_vhost");

/// How long a stopping queue waits for its worker to leave the device. The VMM's main loop, and so
/// the whole guest, stands still in this time.
const PATIENCE: Duration = Duration::from_millis(500);

/// Number of virtqueues: control and cursor (virtio-v1.4 §5.7.2), or events and status (§5.8.2).
pub(super) const QUEUES: u64 = 2;

/// A wrong request of the VMM. Ends the connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("queue {0}: there are {QUEUES}")]
    NoSuchQueue(u32),
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("features {0:#x} were accepted but never offered")]
    Features(u64),
    #[error("address {0:#x} of a ring is in no memory region")]
    NotMapped(u64),
    #[error("memory table: {0}")]
    Memory(#[from] MemoryError),
    #[error("the file of a memory region cannot be examined: {0}")]
    NoMemory(#[source] std::io::Error),
    #[error("cannot set up a channel to the VMM: {0}")]
    Channel(#[from] std::io::Error),
    #[error("it carries {got} bytes instead of {wanted}")]
    Size { wanted: usize, got: usize },
    #[error("it came with {got} descriptors instead of {wanted}")]
    Descriptors { wanted: usize, got: usize },
    #[error("it came with a descriptor that is no stream socket")]
    NotASocket,
    #[error("it belongs to protocol feature {0:#x}, which the VMM did not accept")]
    NotAccepted(u64),
    #[error("{0} neither enables (1) nor disables (0) a queue")]
    Switch(u32),
    #[error("it belongs to a feature that was not offered")]
    NotOffered,
}

/// What a queue's chains are for.
struct QueueUser {
    model: Arc<dyn Model>,
    queue: u32,
}

impl ChainUser for QueueUser {
    fn wants_chain(&self) -> bool {
        self.model.wants_chain(self.queue)
    }

    fn resets(&self) -> u64 {
        self.model.resets()
    }

    fn handle(&self, memory: &GuestMemoryMmap, chain: Chain, taken: Taken) -> Outcome {
        self.model.handle(self.queue, memory, chain, taken)
    }
}

/// A queue with its thread.
struct Lane {
    ring: Arc<Ring>,
    worker: Worker,
}

/// One VM's connection; see the module.
pub(super) struct Connection {
    model: Arc<dyn Model>,
    link: Arc<VmmLink>,
    lanes: [Lane; 2],
    features: u64,
    protocol_features: u64,
    /// A driver has used the device since its last reset.
    used: bool,
    /// The VMM has started a queue and stopped none since.
    is_running: bool,
    /// The VMM has asked for the window's size, in order to make it.
    is_window_asked: bool,
    /// The guest has read the config space since the queues were stopped.
    is_seen: bool,
    /// The blobs that were accepted: address in the guest, size, address in the VMM.
    accepted: Vec<(u64, u64, u64)>,
    config_notifier: Option<ConfigNotifier>,
    /// Dropped last: the queues' threads have ended by then.
    memory: GuestMemory,
}

impl Connection {
    /// Serves `model` to the VMM `owner`, whose connection ends when it takes its memory away.
    pub(super) fn new(model: Arc<dyn Model>, owner: Option<Arc<Owner>>) -> Result<Self, Error> {
        let window = model.host_visible_size();
        let page = page_size();
        if window != 0 && (!window.is_power_of_two() || window < page) {
            return Err(Error::WindowSize(window));
        }
        let memory = GuestMemory::new(owner);
        let ring = |name| {
            Ring::new(name, memory.shared())
                .map(Arc::new)
                .map_err(|error| Error::System {
                    what: "cannot make a queue",
                    source: std::io::Error::other(error),
                })
        };
        let names = model.queue_names();
        let rings = [ring(names[0])?, ring(names[1])?];
        let link = Arc::new(VmmLink::new(rings[0].clone(), rings[1].clone()));
        let lane = |queue: u32, name, ring: Arc<Ring>| {
            let user = QueueUser {
                model: model.clone(),
                queue,
            };
            Worker::spawn(name, ring.clone(), model.poll_interval(), user)
                .map(|worker| Lane { ring, worker })
                .map_err(Error::system("cannot start a queue thread"))
        };
        let [first, second] = rings;
        let lanes = [lane(0, names[0], first)?, lane(1, names[1], second)?];
        model.attach(&link, [lanes[0].worker.waker(), lanes[1].worker.waker()]);
        model.set_memory(memory.shared());
        Ok(Self {
            model,
            memory,
            link,
            lanes,
            features: 0,
            protocol_features: 0,
            used: false,
            is_running: false,
            is_window_asked: false,
            is_seen: false,
            accepted: Vec::new(),
            config_notifier: None,
        })
    }

    fn lane(&self, index: u32) -> Result<&Lane, RequestError> {
        self.lanes
            .get(index as usize)
            .ok_or(RequestError::NoSuchQueue(index))
    }

    // Features.

    pub(super) fn features(&self) -> u64 {
        self.model.features() | features::TRANSPORT
    }

    pub(super) fn protocol_features(&self) -> u64 {
        if self.window() > 0 {
            protocol::OFFERED | protocol::SHMEM
        } else {
            protocol::OFFERED
        }
    }

    pub(super) fn accept_features(&mut self, accepted: u64) -> Result<(), RequestError> {
        if accepted & !self.features() != 0 {
            return Err(RequestError::Features(accepted & !self.features()));
        }
        self.features = accepted;
        self.model.set_acked_features(accepted);
        for lane in &self.lanes {
            lane.ring.set_event_idx(accepted & features::EVENT_IDX != 0);
            // Without protocol features there is no message to enable a ring.
            if accepted & features::PROTOCOL_FEATURES == 0 {
                lane.ring.set_enabled(true);
                lane.worker.wake();
            }
        }
        Ok(())
    }

    pub(super) fn accept_protocol_features(&mut self, accepted: u64) -> Result<(), RequestError> {
        if accepted & !self.protocol_features() != 0 {
            return Err(RequestError::Features(accepted));
        }
        self.protocol_features = accepted;
        Ok(())
    }

    /// Whether the VMM has accepted a protocol feature.
    pub(super) fn accepted(&self, feature: u64) -> bool {
        self.protocol_features & feature != 0
    }

    // Memory.

    pub(super) fn set_memory(&mut self, mut regions: Vec<Region>) -> Result<(), RequestError> {
        regions.retain(|region| !mapped_blobs::is_blob(region));
        self.memory.set(regions)?;
        self.model.set_memory(self.memory.shared());
        Ok(())
    }

    /// Adds a region. Returns false to decline it, see the module.
    pub(super) fn add_memory(&mut self, region: Region) -> Result<bool, RequestError> {
        if mapped_blobs::is_blob(&region) {
            if !self.is_running {
                self.accepted.push((region.guest, region.size, region.vmm));
            }
            return Ok(!self.is_running);
        }
        self.memory.add(region)?;
        self.model.set_memory(self.memory.shared());
        Ok(true)
    }

    /// Removes a region.
    pub(super) fn remove_memory(
        &mut self,
        guest: u64,
        size: u64,
        vmm: u64,
    ) -> Result<(), RequestError> {
        let before = self.accepted.len();
        self.accepted.retain(|blob| *blob != (guest, size, vmm));
        if self.accepted.len() == before {
            self.memory.remove(guest, size, vmm)?;
            self.model.set_memory(self.memory.shared());
        } else if self.accepted.is_empty() {
            LINES.log(
                log::Level::Info,
                format_args!(
                    "all blobs that were mapped before the device was started are unmapped: the VM can be reset again"
                ),
            );
        }
        Ok(())
    }

    /// Translates an address of the VMM.
    fn guest_address(&self, vmm: u64) -> Result<u64, RequestError> {
        self.memory
            .guest_address(vmm)
            .ok_or(RequestError::NotMapped(vmm))
    }

    // Queues.

    pub(super) fn set_queue_size(&self, index: u32, size: u32) -> Result<(), RequestError> {
        Ok(self.lane(index)?.ring.set_size(size)?)
    }

    /// Sets the addresses, in the VMM, of descriptor table, available and used ring.
    pub(super) fn set_queue_addresses(
        &self,
        index: u32,
        [table, avail, used]: [u64; 3],
    ) -> Result<(), RequestError> {
        let addresses = [
            self.guest_address(table)?,
            self.guest_address(avail)?,
            self.guest_address(used)?,
        ];
        Ok(self.lane(index)?.ring.set_addresses(addresses)?)
    }

    pub(super) fn set_queue_base(&self, index: u32, base: u32) -> Result<(), RequestError> {
        Ok(self.lane(index)?.ring.set_base(base)?)
    }

    pub(super) fn set_queue_call(
        &self,
        index: u32,
        call: Option<File>,
    ) -> Result<(), RequestError> {
        self.lane(index)?.ring.set_call(call);
        Ok(())
    }

    pub(super) fn set_queue_error(
        &self,
        index: u32,
        event: Option<File>,
    ) -> Result<(), RequestError> {
        self.lane(index)?.ring.set_error(event);
        Ok(())
    }

    /// Sets the kick event, which also starts the queue.
    pub(super) fn set_queue_kick(
        &mut self,
        index: u32,
        kick: Option<File>,
    ) -> Result<(), RequestError> {
        self.lane(index)?.ring.set_kick(kick);
        let start = self.lane(index)?.ring.plan(self.is_seen);
        // The reset comes before the ring runs: a worker that still waited for the VMM must not
        // take a chain of the new driver too early.
        if index == 0 && start == Start::Fresh && self.used {
            self.reset();
        }
        self.lane(index)?.ring.start(start);
        if start != Start::Running {
            log::debug!("queue {index}: {start:?}");
            if index == 0 && !self.accepted.is_empty() {
                LINES.log(
                    log::Level::Warn,
                    format_args!(
                        "{} blobs of the guest's programs were mapped before the device was started (the VM was paused, or the driver \
                     was loaded anew); while they are, a hard reset (system_reset, a crash of the guest's kernel, kexec) ends QEMU 11.1 \
                     by a segmentation fault: end the guest's 3D programs first, or shut the guest down (docs/qemu.md)",
                        self.accepted.len()
                    ),
                );
            }
            self.used = true;
            self.is_running = true;
            self.model.set_running(index, true);
            self.link.set_started(true);
        }
        self.lane(index)?.worker.wake();
        Ok(())
    }

    pub(super) fn enable_queue(&self, index: u32, enabled: bool) -> Result<(), RequestError> {
        let lane = self.lane(index)?;
        lane.ring.set_enabled(enabled);
        lane.worker.wake();
        Ok(())
    }

    /// Stops a queue; returns the index at which it would go on.
    pub(super) fn stop_queue(&mut self, index: u32) -> Result<u16, RequestError> {
        let ring = self.lane(index)?.ring.clone();
        self.link.set_started(false);
        if self.is_running {
            self.is_running = false;
            self.is_seen = false;
        }
        self.model.set_running(index, false);
        let (base, is_out) = self.interrupted(|_| ring.stop(PATIENCE));
        if !is_out {
            if index == 0 {
                LINES.log(
                    log::Level::Warn,
                    format_args!(
                        "a command was still being carried out {} ms after the control queue was stopped; the device is reset",
                        PATIENCE.as_millis()
                    ),
                );
                self.reset();
            } else {
                ring.forget_held();
            }
        }
        Ok(base)
    }

    /// Runs `work` while nothing in the device waits for the VMM, because the VMM waits for us.
    fn interrupted<T>(&self, work: impl FnOnce(&Self) -> T) -> T {
        let channel = self.link.channel();
        if let Some(channel) = &channel {
            channel.interrupt();
        }
        self.model.pause();
        let result = work(self);
        self.model.resume();
        if let Some(channel) = &channel {
            channel.resume();
        }
        result
    }

    /// `RESET_DEVICE`: stops and disables the queues and resets the device.
    pub(super) fn reset_device(&mut self) {
        self.link.set_started(false);
        self.interrupted(|this| {
            for lane in &this.lanes {
                lane.ring.stop(PATIENCE);
                lane.ring.set_enabled(false);
            }
        });
        self.is_running = false;
        for queue in [0, 1] {
            self.model.set_running(queue, false);
        }
        self.reset();
    }

    fn reset(&mut self) {
        log::debug!("device reset");
        self.model.reset();
        if let Some(channel) = self.link.channel() {
            channel.forget_maps();
        }
        self.model.set_acked_features(self.features);
        for lane in &self.lanes {
            lane.ring.forget_held();
        }
        self.used = false;
    }

    // Config space and window.

    pub(super) fn read_config(&mut self, offset: u32, into: &mut [u8]) {
        self.is_seen = true;
        // QEMU's classic device accepts `SHMEM` as well, but never asks.
        self.model.set_window(self.is_window_asked);
        self.model.read_config(offset, into);
    }

    pub(super) fn write_config(&self, offset: u32, bytes: &[u8]) {
        self.model.write_config(offset, bytes);
    }

    /// Returns the size of the window that the VMM makes; 0 = none.
    pub(super) fn make_window(&mut self) -> u64 {
        self.is_window_asked = true;
        self.window()
    }

    /// Size of the host-visible window in bytes; 0 = none.
    pub(super) fn window(&self) -> u64 {
        self.model.host_visible_size()
    }

    // Channels.

    pub(super) fn set_backend_channel(&mut self, socket: UnixStream) -> Result<(), RequestError> {
        let accepted = |bit| self.accepted(bit);
        let options = ChannelOptions {
            window: self.window(),
            replies: accepted(protocol::REPLY_ACK),
            shmem: accepted(protocol::SHMEM) && accepted(protocol::BACKEND_SEND_FD),
            barrier: accepted(protocol::SHARED_OBJECT),
            slots: accepted(protocol::CONFIGURE_MEM_SLOTS),
        };
        if options.shmem && !options.barrier {
            LINES.log(
                log::Level::Warn,
                format_args!(
                    "the VMM did not accept SHARED_OBJECT: the guest may see a mapped blob a moment too early"
                ),
            );
        }
        let channel = BackendChannel::new(socket, options)?;
        self.link.set_channel(Some(Arc::new(channel)));
        if self.model.changes_its_config() && self.config_notifier.is_none() {
            self.config_notifier = Some(ConfigNotifier::new(self.link.clone())?);
        }
        Ok(())
    }

    pub(super) fn set_gpu_socket(&self, socket: UnixStream) -> Result<(), RequestError> {
        Ok(self.model.set_gpu_socket(socket)?)
    }
}

impl Drop for Connection {
    /// The VM is gone, and everything of it goes too. Nothing of the device waits for the VMM any
    /// more. The queues stop without regard to held chains, and the device frees what the guest
    /// made. The threads end when their handles are dropped.
    fn drop(&mut self) {
        self.link.set_channel(None);
        self.model.disconnect();
        for lane in &self.lanes {
            lane.ring.forget_held();
            lane.ring.stop(PATIENCE);
        }
        self.model.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::super::GpuBackend;
    use super::super::model::Gpu;
    use super::*;
    use crate::device::{Device, DeviceOptions};
    use crate::screen::NoScreen;

    fn connection(window: u64) -> Result<Connection, Error> {
        let options = DeviceOptions {
            monitors: Vec::new(),
            host_visible_size: window,
            blob_alignment: 4096,
        };
        let gpu = Gpu::new(GpuBackend {
            device: Arc::new(Device::new(options, Arc::new(NoScreen), Vec::new())),
            host_visible_size: window,
            console: None,
        });
        Connection::new(gpu, None)
    }

    #[test]
    fn a_window_that_is_no_power_of_two_is_refused() {
        for size in [3 << 20, 1, 2048, u64::MAX] {
            assert!(matches!(connection(size), Err(Error::WindowSize(_))));
        }
        assert!(connection(1 << 28).is_ok());
    }
}
