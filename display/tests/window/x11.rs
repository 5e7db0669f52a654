//! The X server as the tests use it: what it shows, and what a user does with our windows.

use std::time::{Duration, Instant};

use x11rb::connection::Connection;
use x11rb::properties::WmSizeHints;
use x11rb::protocol::Event;
use x11rb::protocol::xfixes::ConnectionExt as _;
use x11rb::protocol::xproto::{
    self, AtomEnum, ChangeWindowAttributesAux, ClientMessageEvent, ConfigureNotifyEvent,
    ConfigureWindowAux, ConnectionExt, CreateWindowAux, EventMask, ImageFormat, InputFocus,
    PropMode, Property, PropertyNotifyEvent, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use crate::harness::{EVENT, Shot};

/// Presses keys as a user would.
pub(crate) fn press(keys: &str) {
    let pressed = std::process::Command::new("xdotool")
        .args(["key", keys])
        .status();
    assert!(pressed.expect("xdotool is installed").success());
}

/// The image of the pointer as the server shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PointerImage {
    pub(crate) size: (u32, u32),
    pub(crate) hot: (u32, u32),
    /// `0xAARRGGBB`, premultiplied.
    pub(crate) pixels: Vec<u32>,
}

/// The test's own connection to the server.
pub(crate) struct Server {
    connection: RustConnection,
    root: Window,
}

impl Server {
    pub(crate) fn connect() -> Server {
        let (connection, screen) = x11rb::connect(None).expect("an X server (xvfb-run starts one)");
        let root = connection.setup().roots[screen].root;
        Server { connection, root }
    }

    /// Waits until the server has carried out all requests. It may drop those of a client that
    /// disconnects earlier.
    fn sync(&self) {
        self.connection.get_input_focus().unwrap().reply().unwrap();
    }

    fn atom(&self, name: &str) -> u32 {
        let cookie = self.connection.intern_atom(false, name.as_bytes()).unwrap();
        cookie.reply().unwrap().atom
    }

    fn property(&self, window: Window, name: &str) -> Vec<u8> {
        let (name, any) = (self.atom(name), AtomEnum::ANY);
        let cookie = self
            .connection
            .get_property(false, window, name, any, 0, 1024)
            .unwrap();
        cookie.reply().map(|reply| reply.value).unwrap_or_default()
    }

    /// The window with this title. Waits until there is one.
    pub(crate) fn window(&self, title: &str) -> Window {
        let deadline = Instant::now() + EVENT;
        while Instant::now() < deadline {
            let tree = self
                .connection
                .query_tree(self.root)
                .unwrap()
                .reply()
                .unwrap();
            let found = tree
                .children
                .into_iter()
                .find(|window| self.property(*window, "_NET_WM_NAME") == title.as_bytes());
            if let Some(window) = found {
                return window;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no window is called {title:?}");
    }

    /// Waits until this window is gone.
    pub(crate) fn await_gone(&self, window: Window) {
        let deadline = Instant::now() + EVENT;
        while let Ok(cookie) = self.connection.get_geometry(window)
            && cookie.reply().is_ok()
        {
            assert!(Instant::now() < deadline, "the window is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Class and instance, as desktops see them.
    pub(crate) fn class(&self, window: Window) -> String {
        String::from_utf8_lossy(&self.property(window, "WM_CLASS")).into_owned()
    }

    /// The part of the screen where the window is.
    pub(crate) fn screen_at(&self, window: Window) -> Shot {
        let place = self
            .connection
            .get_geometry(window)
            .unwrap()
            .reply()
            .unwrap();
        let (x, y, width, height) = (place.x, place.y, place.width, place.height);
        let format = ImageFormat::Z_PIXMAP;
        let cookie = self
            .connection
            .get_image(format, self.root, x, y, width, height, !0);
        let image = cookie.unwrap().reply().unwrap();
        let pixel = |bytes: &[u8; 4]| [bytes[2], bytes[1], bytes[0]];
        Shot {
            width: width.into(),
            height: height.into(),
            pixels: image.data.as_chunks::<4>().0.iter().map(pixel).collect(),
        }
    }

    /// The current image of the pointer.
    pub(crate) fn pointer(&self) -> PointerImage {
        let version = self.connection.xfixes_query_version(5, 0).unwrap();
        version.reply().unwrap();
        let image = self.connection.xfixes_get_cursor_image().unwrap();
        let image = image.reply().unwrap();
        PointerImage {
            size: (image.width.into(), image.height.into()),
            hot: (image.xhot.into(), image.yhot.into()),
            pixels: image.cursor_image,
        }
    }

    /// Moves the pointer to a position in a window.
    pub(crate) fn point(&self, window: Window, (x, y): (i16, i16)) {
        let moved = self
            .connection
            .warp_pointer(x11rb::NONE, window, 0, 0, 0, 0, x, y);
        moved.unwrap().check().unwrap();
    }

    /// Moves the pointer to a position on the screen.
    pub(crate) fn point_at_screen(&self, at: (i16, i16)) {
        self.point(self.root, at);
    }

    /// Presses or releases the left button.
    pub(crate) fn press_button(&self, down: bool) {
        let action = if down { "mousedown" } else { "mouseup" };
        let done = std::process::Command::new("xdotool")
            .args([action, "1"])
            .status();
        assert!(done.expect("xdotool is installed").success());
    }

    /// Closes the window as its close button would.
    pub(crate) fn close(&self, window: Window) {
        let (protocols, delete) = (self.atom("WM_PROTOCOLS"), self.atom("WM_DELETE_WINDOW"));
        let event = ClientMessageEvent::new(32, window, protocols, [delete, 0, 0, 0, 0]);
        self.connection
            .send_event(false, window, EventMask::NO_EVENT, event)
            .unwrap();
        self.sync();
    }

    /// Resizes the window as a user would by dragging its edge.
    pub(crate) fn resize(&self, window: Window, width: u32, height: u32) {
        let size = ConfigureWindowAux::new().width(width).height(height);
        self.connection.configure_window(window, &size).unwrap();
        self.sync();
    }

    /// Moves the window and reports its position, as window managers do.
    pub(crate) fn place(&self, window: Window, x: i32, y: i32) {
        let place = ConfigureWindowAux::new().x(x).y(y);
        self.connection.configure_window(window, &place).unwrap();
        let now = self.connection.get_geometry(window).unwrap();
        let now = now.reply().unwrap();
        let event = ConfigureNotifyEvent {
            response_type: xproto::CONFIGURE_NOTIFY_EVENT,
            sequence: 0,
            event: window,
            window,
            above_sibling: x11rb::NONE,
            x: now.x,
            y: now.y,
            width: now.width,
            height: now.height,
            border_width: 0,
            override_redirect: false,
        };
        let mask = EventMask::STRUCTURE_NOTIFY;
        self.connection
            .send_event(false, window, mask, event)
            .unwrap();
        self.sync();
    }

    /// The smallest and the largest size to which a window manager lets a user drag the window.
    pub(crate) fn size_limits(&self, window: Window) -> Option<((u32, u32), (u32, u32))> {
        let hints = WmSizeHints::get_normal_hints(&self.connection, window).unwrap();
        let hints = hints.reply().unwrap()?;
        let size = |(width, height): (i32, i32)| (width as u32, height as u32);
        Some((size(hints.min_size?), size(hints.max_size?)))
    }

    /// Gives the window the keyboard.
    pub(crate) fn focus(&self, window: Window) {
        // From now on the test receives the events that a window manager would receive.
        let events = ChangeWindowAttributesAux::new().event_mask(EventMask::SUBSTRUCTURE_NOTIFY);
        self.connection
            .change_window_attributes(self.root, &events)
            .unwrap();
        let time = x11rb::CURRENT_TIME;
        self.connection
            .set_input_focus(InputFocus::PARENT, window, time)
            .unwrap();
        self.sync();
    }

    /// Waits until the window asks the window manager to enter or to leave full screen. Returns
    /// whether it is to enter.
    pub(crate) fn asked_for_full_screen(&self, window: Window) -> bool {
        let (state, full) = (
            self.atom("_NET_WM_STATE"),
            self.atom("_NET_WM_STATE_FULLSCREEN"),
        );
        let deadline = Instant::now() + EVENT;
        while Instant::now() < deadline {
            match self.connection.poll_for_event().unwrap() {
                Some(Event::ClientMessage(message))
                    if message.window == window && message.type_ == state =>
                {
                    let [action, what, ..] = message.data.as_data32();
                    if what == full {
                        return action == 1;
                    }
                }
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        panic!("nothing was asked of the window manager");
    }

    /// Sets the size of all things on the desktop, and tells the window.
    pub(crate) fn set_dpi(&self, window: Window, dpi: u32) {
        let text = format!("Xft.dpi:\t{dpi}\n");
        let (mode, name, kind) = (
            PropMode::REPLACE,
            AtomEnum::RESOURCE_MANAGER,
            AtomEnum::STRING,
        );
        self.connection
            .change_property8(mode, self.root, name, kind, text.as_bytes())
            .unwrap();
        // A settings daemon would tell winit, but this server has none.
        let event = PropertyNotifyEvent {
            response_type: xproto::PROPERTY_NOTIFY_EVENT,
            sequence: 0,
            window,
            atom: name.into(),
            time: x11rb::CURRENT_TIME,
            state: Property::NEW_VALUE,
        };
        self.connection
            .send_event(false, window, EventMask::PROPERTY_CHANGE, event)
            .unwrap();
        self.sync();
    }

    /// Minimises the window, as window managers do.
    pub(crate) fn unmap(&self, window: Window) {
        self.connection.unmap_window(window).unwrap();
        self.sync();
    }

    /// Shows a minimised window again.
    pub(crate) fn map(&self, window: Window) {
        self.connection.map_window(window).unwrap();
        self.sync();
    }

    /// Whether the window has an icon for window managers.
    pub(crate) fn has_icon(&self, window: Window) -> bool {
        self.property(window, "_NET_WM_ICON").len() > 64
    }

    /// Covers everything with another window.
    pub(crate) fn cover(&self) -> Window {
        let window = self.connection.generate_id().unwrap();
        let class = WindowClass::INPUT_OUTPUT;
        let values = CreateWindowAux::new()
            .override_redirect(1)
            .background_pixel(0x00ff00);
        self.connection
            .create_window(0, window, self.root, 0, 0, 4000, 4000, 0, class, 0, &values)
            .unwrap();
        self.connection.map_window(window).unwrap();
        self.sync();
        window
    }

    /// Removes the window that covers everything.
    pub(crate) fn uncover(&self, window: Window) {
        self.connection.destroy_window(window).unwrap();
        self.sync();
    }
}
