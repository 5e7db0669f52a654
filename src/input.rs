//! Joins the windows to the guest's input devices: [`InputSink`] of the display, on an
//! [`InputDevice`] for each `--input-socket`.
//!
//! A device lives as long as its VM's connection; the sockets live as long as Hesper.

use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};

use hesper_display::{DisplayHandle, InputEvent, InputKind, InputSink, KeyboardLeds};
use hesper_system::sync::Lock;
use hesper_vhost::input::{Event, InputDevice, Kind, Leds};
use hesper_vhost::transport::{self, Access, Server, ShutdownHandle};

use crate::cli::InputSocket;
use crate::sandbox;

/// The sockets of the input devices, before they are served.
pub(crate) struct Inputs {
    sockets: Vec<(Kind, Server)>,
    guest: Arc<Devices>,
}

impl Inputs {
    /// Listens on all of `sockets`, for whom `access` allows.
    ///
    /// # Errors
    /// The socket that cannot be opened, and why.
    pub(crate) fn open(
        sockets: &[InputSocket],
        access: Access,
    ) -> Result<Self, (InputSocket, transport::Error)> {
        let open = |socket: &InputSocket| {
            let server =
                Server::bind_for(&socket.path, access).map_err(|error| (socket.clone(), error))?;
            Ok((socket.kind, server))
        };
        Ok(Self {
            sockets: sockets.iter().map(open).collect::<Result<_, _>>()?,
            guest: Arc::default(),
        })
    }

    /// The sink for the windows' input; `None` without input devices.
    pub(crate) fn sink(&self) -> Option<Arc<dyn InputSink>> {
        (!self.sockets.is_empty()).then(|| Arc::clone(&self.guest) as Arc<dyn InputSink>)
    }

    /// Serves each device on a thread until the value is dropped. `is_confined`: the thread may do
    /// only what such a device needs.
    ///
    /// # Errors
    /// The system refused a thread.
    pub(crate) fn serve(self, display: &DisplayHandle, is_confined: bool) -> io::Result<Serving> {
        let mut serving = Serving(Vec::new());
        for (kind, server) in self.sockets {
            let stop = server.shutdown_handle();
            let (guest, display) = (Arc::clone(&self.guest), display.clone());
            let thread = thread::Builder::new()
                .name(format!("vhost-user {}", name(kind)))
                .spawn(move || {
                    if is_confined {
                        sandbox::seal_input_thread();
                    }
                    serve(kind, server, &guest, &display);
                })?;
            serving.0.push((stop, thread));
        }
        Ok(serving)
    }
}

fn serve(kind: Kind, mut server: Server, guest: &Devices, display: &DisplayHandle) {
    let served = server.serve_input(&mut || {
        let leds = display.clone();
        let on_leds = Box::new(move |now: Leds| {
            let Leds { num, caps, scroll } = now;
            leds.set_keyboard_leds(KeyboardLeds { num, caps, scroll });
        });
        let device = Arc::new(InputDevice::new(kind, on_leds));
        guest.set(kind, &device);
        display.input_changed();
        device
    });
    if let Err(error) = served {
        log::error!("the guest's {} is gone: {error}", name(kind));
    }
}

/// The threads that serve the devices. Dropping it ends them.
pub(crate) struct Serving(Vec<(ShutdownHandle, JoinHandle<()>)>);

impl Drop for Serving {
    fn drop(&mut self) {
        for (stop, _) in &self.0 {
            stop.shutdown();
        }
        for (_, thread) in self.0.drain(..) {
            if thread.join().is_err() {
                log::error!(
                    "the thread of an input device panicked; this is a bug in Hesper, please report it"
                );
            }
        }
    }
}

/// The devices of the connected VM.
#[derive(Default)]
struct Devices {
    keyboard: Mutex<Weak<InputDevice>>,
    tablet: Mutex<Weak<InputDevice>>,
    mouse: Mutex<Weak<InputDevice>>,
    touch: Mutex<Weak<InputDevice>>,
}

impl Devices {
    fn place(&self, kind: Kind) -> &Mutex<Weak<InputDevice>> {
        match kind {
            Kind::Keyboard => &self.keyboard,
            Kind::Tablet => &self.tablet,
            Kind::Mouse => &self.mouse,
            Kind::Touch => &self.touch,
        }
    }

    fn set(&self, kind: Kind, device: &Arc<InputDevice>) {
        let mut place = self.place(kind).locked();
        *place = Arc::downgrade(device);
    }

    fn get(&self, kind: InputKind) -> Option<Arc<InputDevice>> {
        let kind = match kind {
            InputKind::Keyboard => Kind::Keyboard,
            InputKind::Tablet => Kind::Tablet,
            InputKind::Mouse => Kind::Mouse,
            InputKind::Touch => Kind::Touch,
        };
        let place = self.place(kind).locked();
        place.upgrade()
    }
}

impl InputSink for Devices {
    fn has(&self, device: InputKind) -> bool {
        self.get(device).is_some()
    }

    fn report(&self, device: InputKind, events: &[InputEvent]) {
        if let Some(device) = self.get(device) {
            let event = |event: &InputEvent| Event {
                kind: event.kind,
                code: event.code,
                value: event.value,
            };
            let events: Vec<Event> = events.iter().map(event).collect();
            device.report(&events);
        }
    }
}

/// A device kind's name on the command line.
pub(crate) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Keyboard => "keyboard",
        Kind::Tablet => "tablet",
        Kind::Mouse => "mouse",
        Kind::Touch => "touch",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hesper_display::{INPUT_AXIS_MAX, INPUT_CONTACTS};
    use hesper_vhost::input::{AXIS_MAX, CONTACTS};

    #[test]
    fn windows_and_devices_agree_on_their_axes() {
        assert_eq!(INPUT_AXIS_MAX, AXIS_MAX);
        assert_eq!(i32::try_from(INPUT_CONTACTS), Ok(CONTACTS));
    }

    #[test]
    fn input_goes_to_the_device_of_its_kind_while_a_vm_has_it() {
        let devices = Devices::default();
        let press = [InputEvent {
            kind: 1,
            code: 30,
            value: 1,
        }];
        devices.report(InputKind::Keyboard, &press);
        let device = |kind| Arc::new(InputDevice::new(kind, Box::new(|_| {})));
        let (keyboard, mouse) = (device(Kind::Keyboard), device(Kind::Mouse));
        devices.set(Kind::Keyboard, &keyboard);
        devices.set(Kind::Mouse, &mouse);
        keyboard.set_running(true);
        mouse.set_running(true);
        devices.report(InputKind::Keyboard, &press);
        assert!(keyboard.has_event());
        assert!(!mouse.has_event());
        assert!(devices.has(InputKind::Keyboard) && !devices.has(InputKind::Tablet));
        drop(keyboard);
        assert!(!devices.has(InputKind::Keyboard));
    }
}
