//! A Wayland program that uses the host's compositor through a cross-domain context.

use std::io;

use hesper_test_guest::cross_domain::{
    BLOB, DISPLAY, Event, GET_IMAGE_REQUIREMENTS, INIT, MESSAGE, POLL, RECEIVE, REGISTRY, XRGB8888,
    command, request, send, string, word, words,
};

use hesper_test_guest::virtgpu::{Blob, Context};

/// `VIRTIO_GPU_CAPSET_CROSS_DOMAIN`.
const CAPSET: u64 = 5;
const RING: u64 = 4096;

/// A connection with a window.
pub(crate) struct Wayland {
    context: Context,
    query: Blob,
    channel: Blob,
    next_id: u32,
    bytes: Vec<u8>,
    globals: Vec<(u32, String, u32)>,
    keymap: Option<String>,
    /// The window's pixels.
    pixels: Option<Blob>,
}

impl Wayland {
    /// Connects and reads the list of globals.
    pub(crate) fn connect() -> io::Result<Self> {
        let context = Context::open(CAPSET)?;
        let (query, channel) = (context.guest_blob(RING)?, context.guest_blob(RING)?);
        let init = words(&[query.resource, channel.resource, 1]);
        context.submit(&command(INIT, &init))?;
        let mut wayland = Self {
            context,
            query,
            channel,
            next_id: 3,
            bytes: Vec::new(),
            globals: Vec::new(),
            keymap: None,
            pixels: None,
        };
        wayland.call(DISPLAY, 1, &[REGISTRY])?;
        wayland.roundtrip()?;
        Ok(wayland)
    }

    /// The names of the globals, for the test to check.
    pub(crate) fn globals(&self) -> String {
        let names: Vec<_> = self
            .globals
            .iter()
            .map(|(_, name, _)| name.as_str())
            .collect();
        names.join(" ")
    }

    /// Opens a window of one colour. It stays open as long as the connection.
    pub(crate) fn window(&mut self, colour: [u8; 3], width: u32, height: u32) -> io::Result<()> {
        let compositor = self.bind("wl_compositor", 1)?;
        let memory = self.bind("wl_shm", 1)?;
        let shell = self.bind("xdg_wm_base", 1)?;
        let image = words(&[width, height, XRGB8888, 1 << 4]);
        self.context
            .submit_and_wait(&command(GET_IMAGE_REQUIREMENTS, &image))?;
        let answer = self.query.read();
        // The size has 64 bits. The sizes of the tests fit into 32.
        let (stride, size, object) = (word(&answer, 0), word(&answer, 40), word(&answer, 48));
        let pixels = self.context.host_blob(object, size.into())?;
        let [red, green, blue] = colour;
        pixels.fill([blue, green, red, 0]);
        let resource = pixels.resource;
        self.pixels = Some(pixels);
        let pool = self.id();
        let body = words(&[pool, size]);
        let descriptors = [(resource, BLOB)];
        self.context
            .submit(&send(&request(memory, 0, &body), &descriptors))?;
        let buffer = self.make(pool, 0, &[0, width, height, stride, 1])?;
        let surface = self.make(compositor, 0, &[])?;
        let shell_surface = self.make(shell, 2, &[surface])?;
        self.make(shell_surface, 1, &[])?;
        self.call(surface, 6, &[])?;
        let configure = self.until(shell_surface, 0)?;
        self.call(shell_surface, 4, &[configure.word(0)])?;
        self.call(surface, 1, &[buffer, 0, 0])?;
        self.call(surface, 2, &[0, 0, width, height])?;
        self.call(surface, 6, &[])?;
        self.roundtrip()
    }

    /// The first word of the compositor's keymap.
    pub(crate) fn keymap(&mut self) -> io::Result<String> {
        let seat = self.bind("wl_seat", 5)?;
        let keyboard = self.make(seat, 1, &[])?;
        self.until(keyboard, 0)?;
        self.keymap
            .take()
            .ok_or_else(|| io::Error::other("no file came with the keymap"))
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn call(&self, object: u32, opcode: u16, arguments: &[u32]) -> io::Result<()> {
        let bytes = request(object, opcode, &words(arguments));
        self.context.submit(&send(&bytes, &[]))
    }

    fn make(&mut self, object: u32, opcode: u16, arguments: &[u32]) -> io::Result<u32> {
        let id = self.id();
        self.call(object, opcode, &[&[id], arguments].concat())?;
        Ok(id)
    }

    fn bind(&mut self, interface: &str, version: u32) -> io::Result<u32> {
        let id = self.id();
        let global = self.globals.iter().find(|(_, name, _)| name == interface);
        let (name, _, _) =
            global.ok_or_else(|| io::Error::other(format!("there is no {interface}")))?;
        let body = [words(&[*name]), string(interface), words(&[version, id])];
        let bytes = request(REGISTRY, 0, &body.concat());
        self.context.submit(&send(&bytes, &[]))?;
        Ok(id)
    }

    fn roundtrip(&mut self) -> io::Result<()> {
        let callback = self.make(DISPLAY, 0, &[])?;
        self.until(callback, 0).map(|_| ())
    }

    /// Waits for this event of this object.
    fn until(&mut self, object: u32, opcode: u16) -> io::Result<Event> {
        loop {
            while let Some(event) = Event::take(&mut self.bytes) {
                if (event.object, event.opcode) == (DISPLAY, 0) {
                    let text = String::from_utf8_lossy(&event.body).into_owned();
                    return Err(io::Error::other(text));
                }
                self.globals.extend(event.global());
                if (event.object, event.opcode) == (object, opcode) {
                    return Ok(event);
                }
            }
            self.context.poll(&command(POLL, &[]))?;
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let ring = self.channel.read();
        if ring.first() != Some(&RECEIVE) {
            return Err(io::Error::other(format!("{:?} came", ring.first())));
        }
        let length = word(&ring, 12) as usize;
        let text = ring
            .get(MESSAGE..MESSAGE + length)
            .filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| io::Error::other("the compositor hung up"))?;
        self.bytes.extend(text);
        if word(&ring, 8) > 0 {
            let size = word(&ring, 16 + 8 * 28).next_multiple_of(4096);
            let file = self.context.host_blob(word(&ring, 16), size.into())?.read();
            let text = String::from_utf8_lossy(&file);
            self.keymap = text.split_whitespace().next().map(str::to_owned);
        }
        Ok(())
    }
}
