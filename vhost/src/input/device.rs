//! An input device: it writes reports into the driver's buffers, and reads the LEDs.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use hesper_system::LogLimit;
use hesper_system::sync::Lock;
use virtio_queue::DescriptorChain;
use vm_memory::GuestMemoryMmap;

use super::backlog::Backlog;
use super::codes::*;
use super::config::Config;
use super::{Event, Kind};
use crate::chain;
use crate::device::Outcome;

/// The most events that are read from one status buffer. Drivers put one there.
const STATUS_EVENTS: usize = 16;

/// The LEDs of the guest's keyboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leds {
    /// Num lock.
    pub num: bool,
    /// Caps lock.
    pub caps: bool,
    /// Scroll lock.
    pub scroll: bool,
}

/// Makes the transport check whether an event waits.
pub(crate) type Waker = Arc<dyn Fn() + Send + Sync>;

/// An input device.
///
/// Everything may be called from any thread at any time. Queue 0 carries events to the guest
/// ([`Self::send_event`]), queue 1 those of the guest to the device ([`Self::take_status`]).
pub struct InputDevice {
    kind: Kind,
    state: Mutex<InputState>,
    waker: Mutex<Option<Waker>>,
    on_leds: Box<dyn Fn(Leds) + Send + Sync>,
    log_limit: LogLimit,
}

struct InputState {
    config: Config,
    backlog: Backlog,
    leds: Leds,
}

impl InputDevice {
    /// A device that no driver knows yet. `on_leds` is called when the guest turns LEDs on or off,
    /// from any thread. It should return quickly.
    pub fn new(kind: Kind, on_leds: Box<dyn Fn(Leds) + Send + Sync>) -> Self {
        Self {
            kind,
            state: Mutex::new(InputState {
                config: Config::new(kind.description()),
                backlog: Backlog::default(),
                leds: Leds::default(),
            }),
            waker: Mutex::default(),
            on_leds,
            log_limit: LogLimit::new("hesper_vhost"),
        }
    }

    /// Which kind of device it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it may report this.
    pub fn has(&self, event: Event) -> bool {
        self.kind.description().has(event)
    }

    fn state(&self) -> MutexGuard<'_, InputState> {
        self.state.locked()
    }

    /// Reports what happened at one moment; `SYN_REPORT` is added here. `ABS_MT_*` events begin
    /// with their `ABS_MT_SLOT` in every report. Never waits for the guest; see the module.
    pub fn report(&self, events: &[Event]) {
        if let Some(wrong) = events.iter().find(|event| !self.has(**event)) {
            log::error!(
                "a {:?} cannot report {wrong:?}; nothing is reported",
                self.kind
            );
            return;
        }
        if !self.state().backlog.push(events) {
            self.log_limit.warn(format_args!(
                "the guest does not keep up with its {:?}: input is left out until it does",
                self.kind
            ));
        }
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.locked().clone();
        if let Some(waker) = waker {
            waker();
        }
    }

    /// Connects the transport: `waker` makes it call [`Self::send_event`] while
    /// [`Self::has_event`].
    pub(crate) fn set_waker(&self, waker: Waker) {
        *self.waker.locked() = Some(waker);
    }

    /// Notes that a driver has set up the event queue, or that the queue was stopped.
    pub fn set_running(&self, running: bool) {
        self.state().backlog.set_running(running);
        self.wake();
    }

    /// Notes that the driver starts anew. Events that wait for the guest are forgotten, even in the
    /// middle of a report.
    pub fn reset(&self) {
        {
            let mut state = self.state();
            state.config = Config::new(self.kind.description());
            state.backlog.reset();
        }
        self.set_leds(Leds::default());
    }

    /// Copies the config space from `offset` on. Bytes past its end are zero.
    pub fn read_config(&self, offset: u32, into: &mut [u8]) {
        self.state().config.read(offset, into);
    }

    /// Takes `bytes` that the driver wrote at `offset` of the config space.
    pub fn write_config(&self, offset: u32, bytes: &[u8]) {
        self.state().config.write(offset, bytes);
    }

    /// Whether an event waits for a buffer of the event queue.
    pub fn has_event(&self) -> bool {
        self.state().backlog.front().is_some()
    }

    /// Puts the next event into a buffer of the event queue. A buffer that is too small is returned
    /// empty, and the event goes into the next one.
    pub fn send_event<M>(&self, memory: &GuestMemoryMmap, chain: DescriptorChain<M>) -> Outcome
    where
        M: Deref<Target = GuestMemoryMmap> + Clone,
    {
        let (_, space) = chain::open(memory, chain);
        let mut state = self.state();
        let Some(event) = state.backlog.front() else {
            return Outcome::Done { written: 0 };
        };
        if space.room() < Event::BYTES as u64 {
            self.log_limit.warn(format_args!(
                "{:?}: a buffer of {} bytes in the event queue holds no event, which has {}",
                self.kind,
                space.room(),
                Event::BYTES
            ));
            return Outcome::Done { written: 0 };
        }
        match space.write(memory, [&event.to_bytes(), &[]]) {
            Ok(written) => {
                state.backlog.advance();
                Outcome::Done { written }
            }
            Err(error) => {
                self.log_limit.warn(format_args!(
                    "{:?}: a buffer of the event queue: {error}",
                    self.kind
                ));
                Outcome::Done { written: 0 }
            }
        }
    }

    /// Takes a buffer of the status queue, in which the guest turns LEDs on and off.
    pub fn take_status<M>(&self, memory: &GuestMemoryMmap, chain: DescriptorChain<M>) -> Outcome
    where
        M: Deref<Target = GuestMemoryMmap> + Clone,
    {
        let (mut request, _) = chain::open(memory, chain);
        let mut leds = self.state().leds;
        for _ in 0..STATUS_EVENTS {
            if request.left() < Event::BYTES as u64 {
                break;
            }
            let mut bytes = [0; Event::BYTES];
            if let Err(error) = request.read(&mut bytes) {
                self.log_limit.warn(format_args!(
                    "{:?}: a buffer of the status queue: {error}",
                    self.kind
                ));
                break;
            }
            let event = Event::from_bytes(bytes);
            match (event.kind, event.code) {
                (EV_LED, LED_NUML) => leds.num = event.value != 0,
                (EV_LED, LED_CAPSL) => leds.caps = event.value != 0,
                (EV_LED, LED_SCROLLL) => leds.scroll = event.value != 0,
                // Delay and rate of key repeat arrive here, too. The guest repeats keys itself.
                _ => {}
            }
        }
        if self.kind == Kind::Keyboard {
            self.set_leds(leds);
        }
        Outcome::Done { written: 0 }
    }

    fn set_leds(&self, leds: Leds) {
        if std::mem::replace(&mut self.state().leds, leds) != leds {
            (self.on_leds)(leds);
        }
    }
}
