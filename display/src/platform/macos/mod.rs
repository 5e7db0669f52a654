//! macOS: the Metal layer of a window, the menu bar, and what AppKit knows about a key beyond
//! winit.
//!
//! `activation.rs` reports when the application is activated.
//!
//! Everything but a layer's surface belongs on the main thread, where winit's event loop runs.

mod activation;

use ash::prelude::VkResult;
use ash::{ext, vk};
use objc2::ClassType;
use objc2::rc::Retained;
use objc2::runtime::Sel;
use objc2::sel;
use objc2_app_kit::{
    NSApplication, NSEvent, NSEventModifierFlags, NSEventType, NSMenu, NSMenuItem,
};
use objc2_foundation::{MainThreadMarker, NSString, ns_string};
use objc2_quartz_core::CALayer;
use raw_window_handle::RawWindowHandle;
use raw_window_metal::Layer;
use winit::event_loop::EventLoopProxy;

use self::activation::Watch;
use crate::input::AppleKey;
use crate::request::EventLoopRequest;

/// The menu bar: winit's menu of the application (About, Services, Hide, Quit) and a menu for the
/// window.
///
/// AppKit offers a key with Cmd to the menus before the window. While the guest has grabbed the
/// pointer, the menus have no keys, so that the guest gets Cmd-Q, Cmd-H and Cmd-W.
#[derive(Default)]
pub(crate) struct Menu {
    /// The menu items that have keys, and their keys.
    items: Vec<(Retained<NSMenuItem>, Retained<NSString>)>,
    /// Kept for as long as the menus.
    _activation: Option<Watch>,
}

impl Menu {
    /// Adds the window's menu to those of winit. Call this once the application has been launched.
    pub(crate) fn complete(proxy: &EventLoopProxy<EventLoopRequest>) -> Menu {
        let Some(main) = MainThreadMarker::new() else {
            return Menu::default();
        };
        let activation = Some(Watch::start(proxy.clone(), main));
        let application = NSApplication::sharedApplication(main);
        // SAFETY: on the main thread, as all menus want; `main` proves it.
        let Some(bar) = (unsafe { application.mainMenu() }) else {
            log::warn!("the menu bar is missing, so there is no Cmd-Q, Cmd-W or Ctrl-Cmd-F");
            return Menu {
                items: Vec::new(),
                _activation: activation,
            };
        };
        bar.addItem(&window_menu(&application, main));

        let mut items = Vec::new();
        // SAFETY: as above; the items are only read.
        let menus = unsafe { bar.itemArray() };
        for menu in menus.iter().filter_map(|item| unsafe { item.submenu() }) {
            // SAFETY: as above.
            let all = unsafe { menu.itemArray() };
            // SAFETY: as above.
            let keyed = all
                .iter()
                .map(|item| (item, unsafe { item.keyEquivalent() }));
            items.extend(
                keyed
                    .filter(|(_, key)| !key.is_empty())
                    .map(|(item, key)| (item.retain(), key)),
            );
        }
        Menu {
            items,
            _activation: activation,
        }
    }

    /// Says whether the guest gets all keys.
    pub(crate) fn set_grabbed(&mut self, grabbed: bool) {
        for (item, key) in &self.items {
            let key = if grabbed { ns_string!("") } else { key };
            // SAFETY: the window's events come on the main thread.
            unsafe { item.setKeyEquivalent(key) };
        }
    }
}

/// Hides the application or shows it again. See [`super::set_application_hidden`].
pub(crate) fn set_application_hidden(hidden: bool) {
    if let Some(main) = MainThreadMarker::new() {
        let application = NSApplication::sharedApplication(main);
        if hidden {
            application.hide(None);
        } else {
            // SAFETY: on the main thread, without a sender.
            unsafe { application.unhide(None) };
        }
    }
}

/// The menu with Close, Minimize and full screen. Its items have no target: AppKit sends their
/// actions to the window that has the keyboard. winit reports them like the buttons in the window's
/// frame.
fn window_menu(application: &NSApplication, main: MainThreadMarker) -> Retained<NSMenuItem> {
    let title = ns_string!("Window");
    // SAFETY: on the main thread, with a title that is alive.
    let menu = unsafe { NSMenu::initWithTitle(main.alloc(), title) };
    let command = NSEventModifierFlags::NSEventModifierFlagCommand;
    let control = NSEventModifierFlags::NSEventModifierFlagControl;
    let items: [(&NSString, Sel, &NSString, NSEventModifierFlags); 3] = [
        (
            ns_string!("Close"),
            sel!(performClose:),
            ns_string!("w"),
            command,
        ),
        (
            ns_string!("Minimize"),
            sel!(performMiniaturize:),
            ns_string!("m"),
            command,
        ),
        (
            ns_string!("Enter Full Screen"),
            sel!(toggleFullScreen:),
            ns_string!("f"),
            command | control,
        ),
    ];
    for (title, action, key, modifiers) in items {
        // SAFETY: the actions are NSWindow's, with a sender as their only argument, as a menu's
        // actions have.
        let item = unsafe {
            NSMenuItem::initWithTitle_action_keyEquivalent(main.alloc(), title, Some(action), key)
        };
        item.setKeyEquivalentModifierMask(modifiers);
        menu.addItem(&item);
    }
    // SAFETY: on the main thread; the application keeps the menu.
    unsafe { application.setWindowsMenu(Some(&menu)) };
    let item = NSMenuItem::new(main);
    item.setSubmenu(Some(&menu));
    item
}

#[link(name = "Carbon", kind = "framework")]
unsafe extern "C" {
    /// The type of the keyboard that was used last.
    safe fn LMGetKbdType() -> u8;
    /// The shape of a keyboard of this type.
    safe fn KBGetLayoutType(keyboard: i16) -> u32;
}

/// `kKeyboardISO`.
const KEYBOARD_ISO: u32 = u32::from_be_bytes(*b"ISO ");

/// The key of the event that AppKit is handling; `None` if it has no key.
pub(crate) fn key() -> Option<AppleKey> {
    let application = NSApplication::sharedApplication(MainThreadMarker::new()?);
    let event = application.currentEvent()?;
    // SAFETY: every event has a type.
    let kind = unsafe { event.r#type() };
    let keys = [
        NSEventType::KeyDown,
        NSEventType::KeyUp,
        NSEventType::FlagsChanged,
    ];
    // SAFETY: asked only of events that have a key. For others AppKit throws.
    let code = keys.contains(&kind).then(|| unsafe { event.keyCode() })?;
    Some(AppleKey {
        code,
        iso: KBGetLayoutType(LMGetKbdType().into()) == KEYBOARD_ISO,
    })
}

/// Whether Caps Lock is on.
pub(crate) fn caps_lock() -> bool {
    // SAFETY: asks for the state of the keyboard, without an event.
    let flags = unsafe { NSEvent::modifierFlags_class() };
    flags.contains(NSEventModifierFlags::NSEventModifierFlagCapsLock)
}

/// The layer that shows a window's frames. It follows the size and the scale factor of the window's
/// view: `raw-window-metal` does so from version 1.0 on. (`ash-window` uses an older version, which
/// sets them only once.)
pub(crate) struct MetalLayer(Layer);

// SAFETY: Core Animation's layers may be used by any thread, and this value is only dropped.
unsafe impl Send for MetalLayer {}

impl MetalLayer {
    /// The layer of an AppKit window; `None` for another handle. Call this on the main thread.
    pub(crate) fn of(window: RawWindowHandle) -> Option<MetalLayer> {
        let RawWindowHandle::AppKit(window) = window else {
            return None;
        };
        // SAFETY: winit's handle is that of a view, which is alive while the window is.
        Some(MetalLayer(unsafe { Layer::from_ns_view(window.ns_view) }))
    }

    /// A surface that draws into the layer.
    pub(crate) fn surface(
        &self,
        entry: &ash::Entry,
        instance: &ash::Instance,
    ) -> VkResult<vk::SurfaceKHR> {
        let info = vk::MetalSurfaceCreateInfoEXT::default().layer(self.0.as_ptr().as_ptr().cast());
        let surfaces = ext::metal_surface::Instance::new(entry, instance);
        // SAFETY: the layer lives longer than the surface, whose owner keeps both.
        unsafe { surfaces.create_metal_surface(&info, None) }
    }
}

impl Drop for MetalLayer {
    /// Removes the layer: the next presenter of the window adds its own.
    fn drop(&mut self) {
        if self.0.pre_existing() {
            return;
        }
        // SAFETY: a CAMetalLayer is a CALayer, and this one is kept alive by `self`.
        let layer = unsafe { self.0.as_ptr().cast::<CALayer>().as_ref() };
        layer.removeFromSuperlayer();
    }
}
