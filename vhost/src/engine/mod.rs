//! The inside of a device: its state, and the way of a command from arrival to answer.
//!
//! [`Engine::run`] executes a command on the thread of its queue. What it cannot answer at once it holds
//! ([`Call::hold`], see [`crate::fence`]) or parks (see [`crate::parking`]); such a command is answered later from
//! the thread that brings the missing piece, through [`Host::complete`].
//!
//! # Locks
//!
//! There is one state lock. It is never held while the device calls out: not to the [`Host`] (which waits for the
//! VMM, which may be calling us), not to the screen or a renderer (which may call back), and not while pixels are
//! copied; only a renderer's short message into guest memory ([`crate::renderer::GuestPages`]) is, so that it cannot
//! come after the guest has its pages back. Between two critical sections a reset may come in; [`Engine::at`] gives a
//! command the state only if there was none.
//!
//! Whoever tells the screen what a scanout or the cursor shows holds the stage ([`Engine::stage`]) from its look at the
//! state to the end of the call: two threads do so, that of the queue and that of a renderer which has read a 3D resource, and
//! the screen must hear of the newer one last. It is taken before the state lock, and the screen does not wait.

mod answer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use hesper_system::LogLimit;
use hesper_system::sync::{Lock, Wait};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use crate::budget::Pools;
use crate::chain::AnswerSpace;
use crate::command::{self, Command, Progress};
use crate::device::{DeviceOptions, Host, Outcome, Queue};
use crate::fence::{Gate, Held, Ticket, Timeline, Timelines};
use crate::parking::{Parking, Work};
use crate::refusal::Refusal;
use crate::renderer::{CapsetInfo, Context, ContextId, Renderer, ResourceId};
use crate::resource::{Body, HostBlob, Resource, Shadow};
use crate::resource3d::Resources3d;
use crate::screen::{Monitor, Picture, Rect, ScanoutSink};
use crate::window::Window;
use crate::wire::{self, Header};

/// How long a stop or a reset waits for answers that are on their way to the transport.
const RESET_PATIENCE: Duration = Duration::from_millis(100);

/// How long a reset waits for a renderer to let go of the guest's memory, which the next driver will use for other things.
const CLEAR_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of the longest answer of a command that can be held before it is done: a UUID behind a header.
const LATE_ANSWER: u64 = 40;

/// One command on its way.
pub(crate) struct Exchange {
    pub(crate) header: Header,
    pub(crate) ticket: Ticket,
    /// The reset count at its arrival.
    pub(crate) epoch: u64,
    queue: Queue,
    head: u16,
    /// Where the answer goes; taken when the command is held.
    space: Option<AnswerSpace>,
    /// Whether the thread of the queue is still in this command, and can answer by returning.
    on_queue: bool,
}

/// What a scanout shows.
pub(crate) struct Scanout {
    pub(crate) resource: ResourceId,
    /// The part of the framebuffer shown.
    pub(crate) view: Rect,
    /// The host copy, when the pixels are in guest memory.
    pub(crate) shadow: Option<Arc<Shadow>>,
    /// The shadow, or what was read of a 3D resource, is older than the pixels outside of the damage.
    pub(crate) stale: bool,
    /// Of a 3D resource, what the screen is to show as soon as its pixels have been read.
    pub(crate) unseen: Option<Picture>,
}

/// Where a cursor is.
#[derive(Clone, Copy, Default)]
pub(crate) struct CursorPlace {
    /// The command that gave it its image.
    pub(crate) serial: u64,
    pub(crate) x: u32,
    pub(crate) y: u32,
}

/// A live context. A lock of its own, since calls may come from more than one thread; all of them return at once.
pub(crate) struct ContextSlot {
    pub(crate) handle: Arc<Mutex<Box<dyn Context>>>,
    /// Tells this context object from an earlier one of the same id.
    pub(crate) generation: u64,
    /// Whether it ever asked for a blob in a way that could be carried out.
    pub(crate) made_a_blob: bool,
}

/// What the guest has made.
pub(crate) struct State {
    pub(crate) epoch: u64,
    next_serial: u64,
    pub(crate) acked_features: u64,
    pub(crate) events_read: u32,
    pub(crate) monitors: Vec<Monitor>,
    pub(crate) resources: HashMap<ResourceId, Resource>,
    pub(crate) scanouts: [Option<Scanout>; wire::MAX_SCANOUTS as usize],
    pub(crate) cursors: [CursorPlace; wire::MAX_SCANOUTS as usize],
    pub(crate) contexts: HashMap<ContextId, ContextSlot>,
    /// Whether there was a 3D resource.
    pub(crate) rendered: bool,
    pub(crate) window: Window,
    pub(crate) timelines: Timelines,
    pub(crate) parking: Parking,
    /// A thread is in [`Engine::run_parked`].
    runs_parked: bool,
    /// Answers between [`Timelines::pop`] and the return of [`Host::complete`].
    delivering: usize,
    /// The control queue is stopped: answers of held commands wait until it goes on.
    stopped: bool,
}

impl State {
    /// A number that was never used before.
    pub(crate) fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    /// The resource `id`.
    pub(crate) fn resource(&mut self, id: ResourceId) -> Result<&mut Resource, Refusal> {
        self.resources.get_mut(&id).ok_or(Refusal::NoResource(id))
    }

    fn is_pending(&self, id: ResourceId) -> bool {
        self.resources
            .get(&id)
            .is_some_and(|resource| matches!(resource.body, Body::Host(HostBlob::Pending { .. })))
    }
}

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
    host: OnceLock<Arc<dyn Host>>,
    memory: Mutex<Option<GuestMemoryAtomic<GuestMemoryMmap>>>,
    state: Mutex<State>,
    stage: Mutex<()>,
    delivered: Condvar,
}

/// What a command's code works with.
pub(crate) struct Call<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) memory: &'a GuestMemoryMmap,
    pub(crate) exchange: &'a mut Exchange,
}

impl Call<'_> {
    /// The state, unless the device was reset since the command came.
    pub(crate) fn state(&self) -> Result<MutexGuard<'_, State>, Refusal> {
        self.engine.at(self.exchange.epoch)
    }

    /// Keeps the chain for a later answer, which waits for `gate` too. Does nothing but set the gate when it is
    /// kept already.
    pub(crate) fn hold(&mut self, state: &mut State, gate: Gate) {
        if let Some(mut space) = self.exchange.space.take() {
            space.shrink_to(LATE_ANSWER);
            let held = Held {
                serial: self.exchange.ticket.serial,
                queue: self.exchange.queue,
                head: self.exchange.head,
                header: self.exchange.header,
                space,
                response: None,
                gate,
            };
            state.timelines.push(self.exchange.ticket.timeline, held);
        } else if let Some(held) = state.timelines.find(self.exchange.ticket) {
            held.gate = gate;
        }
    }
}

impl Engine {
    pub(crate) fn new(
        mut options: DeviceOptions,
        screen: Arc<dyn ScanoutSink>,
        renderers: Vec<Arc<dyn Renderer>>,
    ) -> Arc<Self> {
        let most = wire::MAX_SCANOUTS as usize;
        if options.monitors.len() > most {
            log::warn!(
                "{} monitors wanted, virtio-gpu has {most}: the others are left out",
                options.monitors.len()
            );
            options.monitors.truncate(most);
        }
        let state = State {
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
            window: Window::new(options.host_visible_size, options.alignment_of_blobs()),
            timelines: Timelines::default(),
            parking: Parking::default(),
            runs_parked: false,
            delivering: 0,
            stopped: false,
        };
        Arc::new_cyclic(|me| Self {
            options,
            screen,
            resources_3d: renderers.iter().find_map(|one| one.resources_3d()),
            renderers,
            lacks_window: AtomicBool::new(false),
            pools: Pools::new(),
            log_limit: LogLimit::new("hesper_vhost"),
            me: Weak::clone(me),
            host: OnceLock::new(),
            memory: Mutex::new(None),
            state: Mutex::new(state),
            stage: Mutex::new(()),
            delivered: Condvar::new(),
        })
    }

    pub(crate) fn set_host(&self, host: Arc<dyn Host>) {
        if self.host.set(host).is_err() {
            log::error!("a second transport was plugged into a device; the first one stays");
        }
    }

    pub(crate) fn host(&self) -> Result<&Arc<dyn Host>, Refusal> {
        self.host.get().ok_or(Refusal::NoHost)
    }

    pub(crate) fn set_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) {
        *self.memory.locked() = Some(memory);
    }

    /// The state of now.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.locked()
    }

    /// The right to tell the screen what it shows.
    pub(crate) fn stage(&self) -> MutexGuard<'_, ()> {
        self.stage.locked()
    }

    /// The state, unless the device was reset since `epoch`.
    pub(crate) fn at(&self, epoch: u64) -> Result<MutexGuard<'_, State>, Refusal> {
        let state = self.state();
        if state.epoch == epoch {
            Ok(state)
        } else {
            Err(Refusal::Reset)
        }
    }

    /// Number of scanouts.
    pub(crate) fn scanouts(&self) -> u32 {
        // At most 16, see `new`; the spec wants at least one.
        self.options.monitors.len().max(1) as u32
    }

    /// Fails unless `id` is one of the device's scanouts.
    pub(crate) fn check_scanout(&self, id: u32) -> Result<(), Refusal> {
        let count = self.scanouts();
        if id < count {
            Ok(())
        } else {
            Err(Refusal::NoScanout { id, count })
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

    /// Carries out a command, now or, when it has to wait for a blob, later.
    pub(crate) fn run(
        &self,
        memory: &GuestMemoryMmap,
        mut exchange: Exchange,
        command: Command,
    ) -> Outcome {
        let keys = command.keys(exchange.header.context_id.get());
        {
            let mut state = self.state();
            let waits = state.parking.holds_up(&keys)
                || (command.needs_its_resource()
                    && keys.resource.is_some_and(|id| state.is_pending(id)));
            if waits {
                match self.pools.parked.charge(command.bytes()) {
                    Some(charge) => {
                        exchange.on_queue = false;
                        let mut call = Call {
                            engine: self,
                            memory,
                            exchange: &mut exchange,
                        };
                        call.hold(&mut state, Gate::Open);
                        let work = Work {
                            exchange,
                            command,
                            _charge: charge,
                        };
                        state.parking.park(keys, work);
                        return Outcome::Held;
                    }
                    None => {
                        drop(state);
                        let refusal = Refusal::Limit {
                            what: "bytes of commands that wait for a blob",
                            limit: crate::budget::PARKED_BYTES,
                        };
                        return self.refuse(memory, exchange, &refusal);
                    }
                }
            }
        }
        self.execute(memory, exchange, command)
    }

    fn execute(
        &self,
        memory: &GuestMemoryMmap,
        mut exchange: Exchange,
        command: Command,
    ) -> Outcome {
        let mut call = Call {
            engine: self,
            memory,
            exchange: &mut exchange,
        };
        match command::execute(&mut call, command) {
            Ok(Progress::Answer(response)) => self.finish(memory, exchange, response),
            Ok(Progress::Held) => Outcome::Held,
            Err(refusal) => self.refuse(memory, exchange, &refusal),
        }
    }

    /// Runs every parked command that can go on. One thread at a time does so: a call that comes while another one is
    /// at it, also from inside a command that it runs, leaves the work to that one.
    pub(crate) fn run_parked(&self) {
        {
            let mut state = self.state();
            if state.runs_parked {
                return;
            }
            state.runs_parked = true;
        }
        loop {
            let mut state = self.state();
            let mut parking = std::mem::take(&mut state.parking);
            let work = parking.take(|id| state.is_pending(id));
            state.parking = parking;
            // Under the same lock as the look: what can go on later has a later call.
            state.runs_parked = work.is_some();
            drop(state);
            let Some(work) = work else {
                return;
            };
            let serial = work.exchange.ticket.serial;
            match self.guest_memory() {
                Some(memory) => {
                    // `on_queue` is false: the answer goes through the host, and this is `Held`.
                    let _held = self.execute(&memory.memory(), work.exchange, work.command);
                }
                None => self.log_limit.warn(format_args!(
                    "a parked command has no guest memory to answer in"
                )),
            }
            self.state().parking.finished(serial);
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
    fn wait_for_deliveries(&self, state: MutexGuard<'_, State>) {
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
        let parking = std::mem::take(&mut state.parking);
        let scanouts = std::mem::replace(&mut state.scanouts, [const { None }; 16]);
        let rendered = std::mem::take(&mut state.rendered);
        state.window.clear();
        // An answer that is past the point of forgetting must reach the transport before the driver's next life.
        self.wait_for_deliveries(state);
        // Not before: whoever is woken must see that there was a reset. Not later: a context's own thread may be among them.
        if let Some(host) = self.host.get() {
            host.cancel();
        }
        let stage = self.stage();
        for (id, _) in (0..self.scanouts()).zip(&scanouts) {
            self.screen.set_scanout(id, None);
            self.screen.set_cursor(id, None, 0, 0);
        }
        self.screen.reset();
        drop(stage);
        // Contexts end here, outside of every lock: ending one may report its fences, which no one waits for now.
        drop((parking, timelines, contexts, resources, scanouts));
        if let Some(renderer) = self.resources_3d.as_ref().filter(|_| rendered)
            && !renderer.clear(CLEAR_PATIENCE)
        {
            log::warn!(
                "a reset did not wait any longer for the renderer of 3D resources, which may still write into the guest's memory"
            );
        }
    }
}
