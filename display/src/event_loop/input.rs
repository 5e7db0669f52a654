//! Routes keys, pointer and touch to the guest or to the dialog, and says what the pointer looks
//! like.

use winit::dpi::PhysicalPosition;
use winit::event::{DeviceEvent, WindowEvent};
use winit::event_loop::ActiveEventLoop;

use super::app::App;
use crate::desktop::Desktop;
use crate::host_pointer::HostPointer;
use crate::input::{INPUT_AXIS_MAX, WindowAction};
use crate::layout::Placement;
use crate::platform;
use crate::scanout::{GuestCursor, Scanout};
use crate::screenshot;
use crate::window::GuestWindow;

/// Steps of the guest's axes from one edge of the desktop to the other.
const AXIS_STEPS: u32 = INPUT_AXIS_MAX as u32 + 1;

impl App<'_> {
    /// The window at a position that was reported for window `index`, and the position in it. While
    /// a button is held, window systems keep reporting for the window where it was pressed.
    fn window_under(
        &self,
        index: usize,
        at: PhysicalPosition<f64>,
    ) -> Option<(&GuestWindow, usize, PhysicalPosition<f64>)> {
        let window = self.windows.get(index)?.as_ref()?;
        if self.windows.len() > 1 && !window.contains(at) {
            let others = self.windows.iter().enumerate();
            let others = others.filter_map(|(other, window)| Some((other, window.as_ref()?)));
            for (other, there) in others.filter(|(other, _)| *other != index) {
                if let Some(at) = window
                    .translated_to(there, at)
                    .filter(|at| there.contains(*at))
                {
                    return Some((there, other, at));
                }
            }
        }
        Some((window, index, at))
    }

    /// The position on the guest's desktop of a position in a window, in steps of the guest's axes.
    fn desktop_position(&self, index: usize, at: PhysicalPosition<f64>) -> Option<(i32, i32)> {
        let (window, index, at) = self.window_under(index, at)?;
        let monitors: Vec<_> = self
            .shared
            .scanouts
            .iter()
            .map(Scanout::monitor_content)
            .collect();
        let desktop = Desktop::of(&monitors);
        let monitor = desktop.monitor(index)?;
        let picture = (monitor.width, monitor.height);
        let size = window.winit_window().inner_size().into();
        let placement = Placement::new(picture, size, self.options.scaling)?;
        Some(placement.on_axes(at.into(), monitor, desktop.size, AXIS_STEPS))
    }

    /// Passes what the user does in a window to its dialog, if it has one, or to the guest.
    pub(super) fn route_input(
        &mut self,
        event_loop: &ActiveEventLoop,
        index: usize,
        event: WindowEvent,
    ) {
        match &event {
            WindowEvent::CursorMoved { position, .. } => self.pointer = (*position).into(),
            WindowEvent::ModifiersChanged(held) => self.modifiers = held.state(),
            _ => {}
        }
        if self.is_asking(index) {
            self.pass_to_dialog(event_loop, index, event);
        } else {
            self.pass_on(event_loop, index, event);
        }
    }

    /// Passes raw pointer movements to the guest. They belong to no window.
    pub(super) fn route_device_input(&mut self, event: &DeviceEvent) {
        if let DeviceEvent::MouseMotion { delta } = event {
            self.seat.moved(*delta);
        }
    }

    /// Passes what the user does in a window to the guest.
    fn pass_on(&mut self, event_loop: &ActiveEventLoop, index: usize, event: WindowEvent) {
        let on_desktop = match &event {
            WindowEvent::CursorMoved { position, .. } => self.desktop_position(index, *position),
            WindowEvent::Touch(touch) => self.desktop_position(index, touch.location),
            _ => None,
        };
        let seat = &mut self.seat;
        let Some(window) = self.windows.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let action = match event {
            WindowEvent::KeyboardInput {
                event,
                is_synthetic,
                ..
            } => seat.key(
                event.physical_key,
                platform::apple_key(),
                event.state,
                event.repeat,
                is_synthetic,
            ),
            WindowEvent::ModifiersChanged(modifiers) => {
                seat.modifiers(modifiers.state());
                return;
            }
            WindowEvent::CursorMoved { position, .. } => {
                if let Some(position) = on_desktop {
                    seat.pointer_at(position);
                }
                if seat.grabbed() {
                    window.hold_pointer(position);
                }
                self.show_pointer(event_loop, index, true);
                return;
            }
            WindowEvent::CursorLeft { .. } => {
                self.show_pointer(event_loop, index, false);
                return;
            }
            WindowEvent::MouseInput { button, state, .. } => seat.button(button, state),
            WindowEvent::MouseWheel { delta, .. } => {
                seat.wheel(delta, window.winit_window().scale_factor());
                WindowAction::Nothing
            }
            WindowEvent::Touch(touch) => {
                if let Some(position) = on_desktop {
                    seat.touch(touch.id, touch.phase, position);
                }
                WindowAction::Nothing
            }
            WindowEvent::Focused(false) => seat.release_all(),
            // The guest may have got input devices, or lost them, while no window had the keyboard.
            WindowEvent::Focused(true) => {
                seat.focus(platform::caps_lock(), self.shared.leds().caps);
                self.retitle();
                return;
            }
            _ => return,
        };
        self.perform(index, action);
    }

    /// Updates what the pointer looks like. `here`: it is over this window.
    pub(super) fn show_pointer(&mut self, event_loop: &ActiveEventLoop, index: usize, here: bool) {
        let (Some(window), Some(scanout)) = (
            self.windows.get_mut(index).and_then(Option::as_mut),
            self.shared.scanouts.get(index),
        ) else {
            return;
        };
        let grabbed = self.seat.grabbed();
        let guests = here && !grabbed && self.seat.points();
        let pointer = match scanout.set_host_pointer_over(guests) {
            _ if grabbed => HostPointer::Hidden,
            GuestCursor::Image(cursor) if guests => {
                let size = window.winit_window().inner_size().into();
                let placement = scanout
                    .mode()
                    .and_then(|mode| Placement::new(mode, size, self.options.scaling));
                placement.map_or(HostPointer::System, |placement| {
                    HostPointer::for_cursor(cursor, placement.scale(), window.winit_window())
                })
            }
            GuestCursor::Hidden if guests => HostPointer::Hidden,
            _ => HostPointer::System,
        };
        let is_guests = matches!(pointer, HostPointer::Guests(..));
        let shown = window.show_pointer(pointer, event_loop);
        scanout.set_cursor_on_host(is_guests && shown);
    }

    /// Does what the user asked of the window and not of the guest.
    fn perform(&mut self, index: usize, action: WindowAction) {
        let Some(window) = self.windows.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        match action {
            WindowAction::Nothing => return,
            WindowAction::FullScreen => {
                window.toggle_full_screen();
                return;
            }
            WindowAction::Overlay => {
                if let Some(scanout) = self.shared.scanouts.get(index) {
                    scanout.toggle_overlay();
                }
                return;
            }
            WindowAction::Screenshot => {
                screenshot::save_in(&self.options.screenshots, &self.shared, index);
                return;
            }
            WindowAction::Grab => match window.grab_pointer() {
                Ok(()) => self.set_grabbed(true),
                Err(error) => {
                    log::warn!("cannot grab the pointer: {error}")
                }
            },
            WindowAction::Release => {
                window.release_pointer();
                self.set_grabbed(false);
            }
        }
        self.retitle();
    }
}
