//! The inside of a device: its state, and the way of a command from arrival to answer.
//!
//! [`Engine::run`] executes a command on the thread of its queue. What it cannot answer at once it holds
//! ([`Call::hold`], see [`crate::fence`]) or parks (see [`crate::deferred`]); such a command is answered later from
//! the thread that brings the missing piece, through [`Transport::complete`].
//!
//! # Locks
//!
//! There is one state lock. It is never held while the device calls out: not to the [`Transport`] (which waits for the
//! VMM, which may be calling us), not to the screen or a renderer (which may call back), and not while pixels are
//! copied; only a renderer's short message into guest memory ([`crate::renderer::GuestPages`]) is, so that it cannot
//! come after the guest has its pages back. Between two critical sections a reset may come in; [`Engine::at`] gives a
//! command the state only if there was none.
//!
//! Whoever tells the screen what a scanout or the cursor shows holds the screen lock ([`Engine::lock_screen`]) from its look at the
//! state to the end of the call: two threads do so, that of the queue and that of a renderer which has read a 3D resource, and
//! the screen must hear of the newer one last. It is taken before the state lock, and the screen does not wait.

mod answer;
mod call;
mod resource_pages;
mod state;

use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::queue::{Queue, Transport};
use crate::renderer::{CapsetInfo, Renderer};
use crate::resource3d::Resources3d;
use crate::screen::ScanoutSink;
use crate::wire::{self, Header};

pub(crate) use call::{Call, Progress};
pub(crate) use resource_pages::ResourcePages;
pub(crate) use state::{ContextSlot, CursorPlace, GuestState, Scanout};

/// How long a stop or a reset waits for answers that are on their way to the transport.
const RESET_PATIENCE: Duration = Duration::from_millis(100);

/// How long a reset waits for a renderer to let go of the guest's memory, which the next driver will use for other things.
const CLEAR_PATIENCE: Duration = Duration::from_secs(2);

/// The inside of a [`crate::device::Device`].
pub(crate) struct Engine {
    pub(crate) options: DeviceOptions,
    pub(crate) screen: Arc<dyn ScanoutSink>,
    renderers: Vec<Arc<dyn Renderer>>,
    lacks_window: AtomicBool,
    /// Who has the 3D resources.
    pub(crate) resources_3d: Option<Arc<dyn Resources3d>>,
    pub(crate) pools: Pools,
    pub(crate) log_limit: LogLimit,
    pub(crate) me: Weak<Self>,
    transport: OnceLock<Arc<dyn Transport>>,
    memory: Mutex<Option<GuestMemoryAtomic<GuestMemoryMmap>>>,
    state: Mutex<GuestState>,
    screen_lock: Mutex<()>,
    delivered: Condvar,
    /// [`crate::dispatch::run_deferred`]: the code of commands lies above this, so the device passes it in.
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
            screen_lock: Mutex::new(()),
            delivered: Condvar::new(),
            run_deferred,
        })
    }

    pub(crate) fn set_transport(&self, transport: Arc<dyn Transport>) {
        if self.transport.set(transport).is_err() {
            log::error!("a second transport was plugged into a device; the first one stays");
        }
    }

    pub(crate) fn transport(&self) -> Result<&Arc<dyn Transport>, CommandError> {
        self.transport.get().ok_or(CommandError::NoTransport)
    }

    pub(crate) fn set_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) {
        *self.memory.locked() = Some(memory);
    }

    /// The state of now.
    pub(crate) fn state(&self) -> MutexGuard<'_, GuestState> {
        self.state.locked()
    }

    /// The right to tell the screen what it shows.
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
            log::warn!(
                "the guest gets no Vulkan: its VM monitor has no window for the GPU's memory; QEMU has one from 11.1 on, with \
                 -device vhost-user-test-device-pci (docs/qemu.md)"
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

    /// Starts the exchange of a chain whose header was read.
    pub(crate) fn begin(
        &self,
        queue: Queue,
        head: u16,
        header: Header,
        space: AnswerSpace,
    ) -> Exchange {
        let timeline = match queue {
            Queue::Control => Timeline::of(&header),
            // A cursor waits for nothing; drivers put no fences on it.
            Queue::Cursor => Timeline::Unordered,
        };
        let mut state = self.state();
        Exchange {
            header,
            ticket: Ticket {
                serial: state.serial(),
                timeline,
            },
            epoch: state.epoch,
            queue,
            head,
            space: Some(space),
            on_queue: true,
        }
    }

    /// Carries out every deferred command that can go on.
    pub(crate) fn run_deferred(&self) {
        (self.run_deferred)(self);
    }

    /// Tells the screen that these scanouts are off, a bit each. The caller holds the screen lock.
    pub(crate) fn turn_off(&self, off: u16) {
        for scanout in (0..wire::MAX_SCANOUTS).filter(|index| off >> index & 1 != 0) {
            self.screen.set_scanout(scanout, None);
        }
    }

    pub(crate) fn guest_memory(&self) -> Option<GuestMemoryAtomic<GuestMemoryMmap>> {
        self.memory.locked().clone()
    }

    /// The control queue was started or stopped. While it is stopped, guest memory may belong to somebody else: no held command is answered,
    /// and those that became ready are when the queue goes on.
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

    /// Waits for answers that are past the point of holding back.
    fn wait_for_deliveries(&self, state: MutexGuard<'_, GuestState>) {
        let (state, timeout) = self
            .delivered
            .waited_while(state, RESET_PATIENCE, |state| state.delivering > 0);
        drop(state);
        if timeout.timed_out() {
            log::warn!("a stop or reset did not wait any longer for an answer in the transport");
        }
    }

    /// Forgets everything that the guest made.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        state.epoch += 1;
        state.acked_features = 0;
        state.events_read = 0;
        let resources = std::mem::take(&mut state.resources);
        let contexts = std::mem::take(&mut state.contexts);
        let timelines = std::mem::take(&mut state.timelines);
        let deferred = std::mem::take(&mut state.deferred);
        let scanouts = std::mem::replace(&mut state.scanouts, [const { None }; 16]);
        let rendered = std::mem::take(&mut state.rendered);
        state.hostmem.clear();
        // An answer that is past the point of forgetting must reach the transport before the driver's next life.
        self.wait_for_deliveries(state);
        // Not before: whoever is woken must see that there was a reset. Not later: a context's own thread may be among them.
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
        // Contexts end here, outside of every lock: ending one may report its fences, which no one waits for now.
        drop((deferred, timelines, contexts, resources, scanouts));
        if let Some(renderer) = self.resources_3d.as_ref().filter(|_| rendered)
            && !renderer.clear(CLEAR_PATIENCE)
        {
            log::warn!(
                "a reset did not wait any longer for the renderer of 3D resources, which may still write into the guest's memory"
            );
        }
    }
}
