//! The X server's view of our windows, and a user's hands on them.

use std::time::{Duration, Instant};

use x11rb::connection::Connection;
use x11rb::protocol::xproto::{
    AtomEnum, ClientMessageEvent, ConfigureWindowAux, ConnectionExt, CreateWindowAux, EventMask,
    ImageFormat, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;

use crate::bench::Shot;

/// A connection of our own.
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

    /// Waits until the server has done what was asked. Requests of a client that hangs up before
    /// may be forgotten.
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

    /// The window with this title; waits until there is one.
    pub(crate) fn window(&self, title: &str) -> Window {
        let deadline = Instant::now() + Duration::from_secs(10);
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

    /// Class and instance, as desktops see them.
    pub(crate) fn class(&self, window: Window) -> String {
        String::from_utf8_lossy(&self.property(window, "WM_CLASS")).into_owned()
    }

    /// What is on the screen where the window is.
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

    /// Presses the window's close button.
    pub(crate) fn close(&self, window: Window) {
        let (protocols, delete) = (self.atom("WM_PROTOCOLS"), self.atom("WM_DELETE_WINDOW"));
        let event = ClientMessageEvent::new(32, window, protocols, [delete, 0, 0, 0, 0]);
        self.connection
            .send_event(false, window, EventMask::NO_EVENT, event)
            .unwrap();
        self.sync();
    }

    /// Drags the window's edge.
    pub(crate) fn resize(&self, window: Window, width: u32, height: u32) {
        let size = ConfigureWindowAux::new().width(width).height(height);
        self.connection.configure_window(window, &size).unwrap();
        self.sync();
    }

    /// Puts a window over everything.
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

    /// Takes it away.
    pub(crate) fn uncover(&self, window: Window) {
        self.connection.destroy_window(window).unwrap();
        self.sync();
    }
}
