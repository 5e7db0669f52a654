//! The inside of a device: its state, and how its commands are answered.
//!
//! [`crate::dispatch`] carries out a command on the thread of its queue. A command that cannot be
//! answered at once is held ([`Call::hold`], see [`crate::fence`]) or deferred (see
//! [`crate::deferred`]). It is answered later through [`Transport::complete`], from the thread that
//! brings what was missing.
//!
//! # Locks
//!
//! There is one state lock. It is not held while the device calls out: not to the [`Transport`],
//! which waits for the VMM, which may be calling us; and not to the screen or a renderer, which may
//! call back. It is not held while pixels are copied either. The one exception is a renderer's
//! short message into guest memory ([`crate::guest_pages::GuestPages`]), which must not be written
//! after the guest has its pages back.
//!
//! The device may be reset between two critical sections. [`Engine::at`] gives a command the state
//! only if it was not.
//!
//! A second lock ([`Engine::lock_screen`]) orders what the screen is told of scanouts and the
//! cursor. It is held from the look at the state to the end of the call to the screen. Two threads
//! make such calls: that of the queue, and that of a renderer which has read a 3D resource. The
//! screen must hear of the newer one last. This lock is taken before the state lock. The screen
//! never waits, and what it may call back ([`crate::device::Device::flush_done`],
//! [`crate::device::Device::set_monitor`]) never takes this lock.
//!
//! Contexts have no lock at all. A context that answers from inside of a call makes that thread run
//! deferred commands, which may call any context, also this one.

mod answer;
mod call;
mod resource_pages;
mod state;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use hesper_system::LogLimit;
use hesper_system::sync::{Lock, Wait};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::budget::Pools;
use crate::chain::AnswerSpace;
use crate::error::CommandError;
use crate::exchange::Exchange;
use crate::fence::{Ticket, Timeline};
use crate::options::DeviceOptions;
use crate::queue::{Queue, Taken, Transport};
use crate::renderer::{CapsetInfo, Renderer};
use crate::resource3d::Resources3d;
use crate::screen::ScanoutSink;
use crate::wire::{self, Header};

pub(crate) use call::{Call, Progress};
pub(crate) use resource_pages::ResourcePages;
pub(crate) use state::{ContextSlot, CursorPlace, GuestState, Scanout};

/// How long a stop or a reset waits for answers that are being passed to the transport.
const RESET_PATIENCE: Duration = Duration::from_millis(100);

/// How long a reset waits for a renderer to release the guest's memory, which the next driver uses
/// for other things.
const CLEAR_PATIENCE: Duration = Duration::from_secs(2);

/// The inside of a [`crate::device::Device`].
pub(crate) struct Engine {
    pub(crate) options: DeviceOptions,
    pub(crate) screen: Arc<dyn ScanoutSink>,
    renderers: Vec<Arc<dyn Renderer>>,
    lacks_window: AtomicBool,
    /// The renderer that has the 3D resources.
    pub(crate) resources_3d: Option<Arc<dyn Resources3d>>,
    pub(crate) pools: Pools,
    pub(crate) log_limit: LogLimit,
    pub(crate) me: Weak<Self>,
    transport: OnceLock<Arc<dyn Transport>>,
    memory: Mutex<Option<GuestMemoryAtomic<GuestMemoryMmap>>>,
    state: Mutex<GuestState>,
    /// The `epoch` of the state, to be read without the lock.
    resets: AtomicU64,
    screen_lock: Mutex<()>,
    delivered: Condvar,
    /// Runs deferred commands: [`crate::dispatch::run_deferred`]. The device passes it in, since
    /// commands use the engine, and the engine does not know them.
    run_deferred: fn(&Self),
}

impl Engine {
    pub(crate) fn new(
        mut options: DeviceOptions,
        screen: Arc<dyn ScanoutSink>,
        renderers: Vec<Arc<dyn Renderer>>,
        run_deferred: fn(&Self),
    ) -> Arc<Self> {
        let most = wire::MAX_SCANOUTS as usize;
        if options.monitors.len() > most {
            log::warn!(
                "{} monitors wanted, virtio-gpu has {most}: the others are left out",
                options.monitors.len()
            );
            options.monitors.truncate(most);
        }
        let state = GuestState::new(&options);
        Arc::new_cyclic(|me| Self {
            options,
            screen,
            resources_3d: renderers.iter().find_map(|one| one.resources_3d()),
            renderers,
            lacks_window: AtomicBool::new(false),
            pools: Pools::new(),
            log_limit: LogLimit::new("hesper_vhost"),
            me: Weak::clone(me),
            transport: OnceLock::new(),
            memory: Mutex::new(None),
            state: Mutex::new(state),
            resets: AtomicU64::new(0),
            screen_lock: Mutex::new(()),
            delivered: Condvar::new(),
            run_deferred,
        })
    }

    pub(crate) fn set_transport(&self, transport: Arc<dyn Transport>) {
        if self.transport.set(transport).is_err() {
            log::error!("a device got a second transport; the first one stays");
        }
    }

    pub(crate) fn transport(&self) -> Result<&Arc<dyn Transport>, CommandError> {
        self.transport.get().ok_or(CommandError::NoTransport)
    }

    pub(crate) fn set_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) {
        *self.memory.locked() = Some(memory);
    }

    /// How often the device was reset.
    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Acquire)
    }

    /// The current state.
    pub(crate) fn state(&self) -> MutexGuard<'_, GuestState> {
        self.state.locked()
    }

    /// The lock that whoever calls the screen must hold; see the module.
    pub(crate) fn lock_screen(&self) -> MutexGuard<'_, ()> {
        self.screen_lock.locked()
    }

    /// The state, unless the device was reset since `epoch`.
    pub(crate) fn at(&self, epoch: u64) -> Result<MutexGuard<'_, GuestState>, CommandError> {
        let state = self.state();
        if state.epoch == epoch {
            Ok(state)
        } else {
            Err(CommandError::Reset)
        }
    }

    /// Number of scanouts.
    pub(crate) fn scanouts(&self) -> u32 {
        // At most 16, see `new`; the spec wants at least one.
        self.options.monitors.len().max(1) as u32
    }

    /// Fails unless `id` is one of the device's scanouts.
    pub(crate) fn check_scanout(&self, id: u32) -> Result<(), CommandError> {
        let count = self.scanouts();
        if id < count {
            Ok(())
        } else {
            Err(CommandError::NoScanout { id, count })
        }
    }

    /// Whether the VMM has made the window; see [`crate::device::Device::set_window`].
    pub(crate) fn set_window(&self, is_there: bool) {
        let was_there = !self.lacks_window.swap(!is_there, Ordering::AcqRel);
        if was_there && !is_there && self.renderers.iter().any(|one| one.needs_window()) {
            self.log_limit.log(
                log::Level::Warn,
                format_args!(
                    "the guest gets no Vulkan: its VMM has no host-visible window for the GPU's memory; QEMU has one from 11.1 on, with \
                 -device vhost-user-test-device-pci (docs/qemu.md)"
                ),
            );
        }
    }

    /// All capability sets that the guest can use, with the renderer of each.
    pub(crate) fn capsets(&self) -> impl Iterator<Item = (&Arc<dyn Renderer>, &CapsetInfo)> {
        let lacks_window = self.lacks_window.load(Ordering::Acquire);
        self.renderers
            .iter()
            .filter(move |one| !lacks_window || !one.needs_window())
            .flat_map(|renderer| renderer.capsets().iter().map(move |info| (renderer, info)))
    }

    /// Starts the exchange for a chain whose header was read.
    pub(crate) fn begin(
        &self,
        queue: Queue,
        (head, taken): (u16, Taken),
        header: Header,
        space: AnswerSpace,
    ) -> Exchange {
        let mut state = self.state();
        let timeline = match queue {
            Queue::Control => Timeline::of(&header, |id| state.contexts.contains_key(&id)),
            // A cursor command waits for nothing. Drivers put no fences on it.
            Queue::Cursor => Timeline::Unordered,
        };
        Exchange {
            header,
            ticket: Ticket {
                serial: state.serial(),
                timeline,
            },
            // Not that of the state: the chain may be older.
            epoch: taken.resets,
            queue,
            head,
            taken,
            space: Some(space),
            on_queue: true,
        }
    }

    /// Carries out every deferred command that can go on.
    pub(crate) fn run_deferred(&self) {
        (self.run_deferred)(self);
    }

    /// Tells the screen that these scanouts are off, a bit for each. The caller holds the screen
    /// lock.
    pub(crate) fn turn_off(&self, off: u16) {
        for scanout in (0..wire::MAX_SCANOUTS).filter(|index| off >> index & 1 != 0) {
            self.screen.set_scanout(scanout, None);
        }
    }

    pub(crate) fn guest_memory(&self) -> Option<GuestMemoryAtomic<GuestMemoryMmap>> {
        self.memory.locked().clone()
    }

    /// Notes that the control queue was started or stopped. While it is stopped, its memory may
    /// belong to somebody else, so no held command is answered. Those that become ready are
    /// answered when the queue goes on.
    pub(crate) fn set_running(&self, running: bool) {
        let mut state = self.state();
        state.stopped = !running;
        if running {
            drop(state);
            self.deliver_all();
        } else {
            self.wait_for_deliveries(state);
        }
    }

    /// Waits for answers that are already being passed to the transport.
    fn wait_for_deliveries(&self, state: MutexGuard<'_, GuestState>) {
        let (state, timeout) = self
            .delivered
            .waited_while(state, RESET_PATIENCE, |state| state.delivering > 0);
        drop(state);
        if timeout.timed_out() {
            self.log_limit.log(
                log::Level::Warn,
                format_args!(
                    "a stop or reset stopped waiting for an answer that the transport still has"
                ),
            );
        }
    }

    /// Forgets everything that the guest made.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        state.epoch += 1;
        self.resets.store(state.epoch, Ordering::Release);
        state.acked_features = 0;
        state.events_read = 0;
        let resources = std::mem::take(&mut state.resources);
        let contexts = std::mem::take(&mut state.contexts);
        let timelines = std::mem::take(&mut state.timelines);
        let deferred = std::mem::take(&mut state.deferred);
        let scanouts = std::mem::replace(&mut state.scanouts, [const { None }; 16]);
        let rendered = std::mem::take(&mut state.rendered);
        state.hostmem.clear();
        // An answer that is being passed to the transport must arrive before the next driver
        // starts.
        self.wait_for_deliveries(state);
        // Not earlier: a thread that is woken must see the reset. Not later: a context's own thread
        // may be among the waiting ones.
        if let Some(transport) = self.transport.get() {
            transport.cancel();
        }
        let screen_lock = self.lock_screen();
        for (id, _) in (0..self.scanouts()).zip(&scanouts) {
            self.screen.set_scanout(id, None);
            self.screen.set_cursor(id, None, 0, 0);
        }
        self.screen.reset();
        drop(screen_lock);
        // Contexts end here, outside of every lock. Ending one may report its fences, for which no
        // one waits now.
        drop((deferred, timelines, contexts, resources, scanouts));
        if let Some(renderer) = self.resources_3d.as_ref().filter(|_| rendered)
            && !renderer.clear(CLEAR_PATIENCE)
        {
            self.log_limit.log(
                log::Level::Warn,
                format_args!(
                    "a reset stopped waiting for the renderer of 3D resources, which may still write into the guest's memory"
                ),
            );
        }
    }
}
