//! A device under arbitrary bytes: the fuzzer runs this, and so does a normal test with random
//! input.
//!
//! [`run`] reads its input as a list of steps: commands with small operands that are often valid,
//! chains of raw bytes, and what the other sides do meanwhile (the screen is done, a fence retires,
//! a blob is made, the driver resets). Along the way it checks what must hold for every input: no
//! panic, every chain answered at most once, the budgets kept, and everything gone after a reset.

use std::sync::Arc;

use super::{
    Chain, FakeContext, FakeRenderer, FakeResources3d, Guest, PAGE, Posted, Recorder, Reply,
    Request, monitor, options,
};
use crate::budget;
use crate::device::{Queue, Usage};
use crate::renderer::RendererError;
use crate::screen::{FlushToken, Monitor, Rect};
use crate::wire;

/// Open chains before the driver starts again: the mock queue has 256 descriptors.
const MOST_OPEN: usize = 16;
/// Contexts that commands name.
const CONTEXTS: u32 = 4;

/// Runs one input, and returns how many commands were answered `OK_*`.
pub fn run(input: &[u8]) -> usize {
    let mut life = Life::new();
    let mut input = Bytes(input);
    while !input.0.is_empty() {
        life.step(&mut input);
        life.check();
    }
    life.end()
}

/// Inputs with high coverage: each uses the device as a driver does.
pub fn seeds() -> Vec<Vec<u8>> {
    let image = [CREATE_2D, 1, 2, 64, 64];
    let attach = [ATTACH, 1, 1, 0, 0, 0, 16];
    let transfer = [TRANSFER, 0, 1, 0, 0, 64, 64, 0, 0];
    let show = [SET_SCANOUT, 0, 1, 0, 0, 64, 64];
    let flush = [FLUSH, FENCED, 7, 1, 0, 0, 64, 64];
    let slow = [SLOW, 1];
    let guest_blob = [GUEST_BLOB, 2, 16, 1, 0, 0, 0, 16];
    let show_blob = [SCANOUT_BLOB, 0, 2, 1, 32, 32, 0, 32];
    let flush_blob = [FLUSH, 0, 2, 0, 0, 32, 32];
    let cursor = [CURSOR, 0, 2, 3, 4, 0, MOVE, 0, 1, 1];
    let context = [CREATE_CONTEXT, 1];
    let blob = [HOST_BLOB, 1, 5, 2];
    let map = [MAP, 5, 1];
    let submit = [SUBMIT, FENCED_RING, 1, 1, 2, 0xaa, 0xbb];
    // CTX_DESTROY of context 1, cut after ten bytes.
    let mut raw = vec![RAW, 64, 1, 10, 1, 100];
    raw.extend_from_slice(&[
        1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    ]);
    let image_3d = [CREATE_3D, 3, 0, 64, 64];
    let attach_3d = [ATTACH, 3, 1, 0, 0, 0, 16];
    let move_3d = [TRANSFER_3D, FENCED, 9, 0, 3, 0, 0, 64, 64, 0, 0, 0, 0];
    let show_3d = [SET_SCANOUT, 0, 3, 0, 0, 64, 64];
    let flush_3d = [FLUSH, FENCED, 8, 3, 0, 0, 64, 64];
    let work = [WORK_3D; 3];
    let steps: [&[&[u8]]; 7] = [
        &[
            &image,
            &attach,
            &transfer,
            &show,
            &slow,
            &flush,
            &[SCREEN_DONE, 0],
            &[UNREF, 1],
        ],
        &[&guest_blob, &show_blob, &flush_blob, &cursor],
        &[
            &image_3d,
            &slow,
            &attach_3d,
            &move_3d,
            &show_3d,
            &flush_3d,
            &work,
            &[UNREF, 3, SCREEN_DONE, 0, DETACH, 3],
            &work,
        ],
        &[
            &context,
            &slow,
            &blob,
            &map,
            &[ATTACH_CONTEXT, 1, 5],
            &submit,
            &[MAKE_BLOB, 1, 5, 2, RETIRE, 0, UNMAP, 5, UNREF, 5],
        ],
        &[&context, &blob, &map, &[RESET], &context, &blob, &map],
        &[
            &context,
            &[MONITOR, 1, 9, 9, 0, CONFIG, 4, 1, 0, 0, 0],
            &raw,
        ],
        &[&[INFO, 0, INFO, 1, INFO, 2, INFO, 3], &image, &[INFO, 4, 1]],
    ];
    steps.map(<[&[u8]]>::concat).to_vec()
}

const CREATE_2D: u8 = 0;
const ATTACH: u8 = 1;
const DETACH: u8 = 2;
const TRANSFER: u8 = 3;
const SET_SCANOUT: u8 = 4;
const SCANOUT_BLOB: u8 = 5;
const FLUSH: u8 = 6;
const UNREF: u8 = 7;
const GUEST_BLOB: u8 = 8;
const HOST_BLOB: u8 = 9;
const MAP: u8 = 10;
const UNMAP: u8 = 11;
const CREATE_CONTEXT: u8 = 12;
const DESTROY_CONTEXT: u8 = 13;
const ATTACH_CONTEXT: u8 = 14;
const DETACH_CONTEXT: u8 = 15;
const SUBMIT: u8 = 16;
const CURSOR: u8 = 17;
const MOVE: u8 = 18;
const INFO: u8 = 19;
const RAW: u8 = 20;
const SCREEN_DONE: u8 = 21;
const RETIRE: u8 = 22;
const MAKE_BLOB: u8 = 23;
const FAIL_BLOB: u8 = 24;
const SLOW: u8 = 25;
const MONITOR: u8 = 26;
const CONFIG: u8 = 27;
const RESET: u8 = 28;
const CREATE_3D: u8 = 29;
const TRANSFER_3D: u8 = 30;
const WORK_3D: u8 = 31;
const STEPS: u8 = 32;

/// Second byte of a command: how it is fenced.
const FENCED: u8 = 1;
const FENCED_RING: u8 = 2;

/// Input, read from front to back; zeroes after its end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn take(&mut self, most: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    fn id(&mut self) -> u32 {
        u32::from(self.byte() % 8)
    }

    fn context(&mut self) -> u32 {
        u32::from(self.byte()) % CONTEXTS
    }

    /// A length in pixels: small, or a number near a limit.
    fn length(&mut self) -> u32 {
        match self.byte() {
            255 => u32::MAX,
            254 => u32::MAX - 3,
            253 => 1 << 31,
            252 => 16384,
            length => length.into(),
        }
    }

    fn rect(&mut self) -> Rect {
        Rect {
            x: self.length(),
            y: self.length(),
            width: self.length(),
            height: self.length(),
        }
    }

    fn format(&mut self) -> u32 {
        [1, 2, 3, 4, 67, 68, 121, 134, 0, 5][usize::from(self.byte() % 10)]
    }

    /// Pieces of guest memory. Some lie outside of it.
    fn entries(&mut self) -> Vec<(u64, u32)> {
        let count = self.byte() % 6;
        (0..count)
            .map(|_| {
                let page = u64::from(self.byte()) << 8 | u64::from(self.byte());
                // 0x10000 pages of 4 KiB are the whole memory. The last ones lie behind it.
                let address = page * PAGE + u64::from(self.byte() % 2) * 8;
                (address + (64 << 20), u32::from(self.byte()) * 1024)
            })
            .collect()
    }
}

struct Life {
    guest: Guest,
    screen: Arc<Recorder>,
    renderer: Arc<FakeRenderer>,
    resources: Arc<FakeResources3d>,
    tokens: Vec<FlushToken>,
    fences: Vec<(u32, u8, u64)>,
    good: usize,
}

impl Life {
    fn new() -> Self {
        let screen = Arc::new(Recorder::default());
        let renderer = FakeRenderer::new();
        let (virgl, resources) = FakeRenderer::with_3d();
        Self {
            guest: Guest::with(
                options(),
                Arc::clone(&screen) as _,
                vec![Arc::clone(&renderer) as _, virgl],
            ),
            screen,
            renderer,
            resources,
            tokens: Vec::new(),
            fences: Vec::new(),
            good: 0,
        }
    }

    fn step(&mut self, input: &mut Bytes<'_>) {
        let request = match input.byte() % STEPS {
            step @ (CREATE_2D..=SUBMIT | INFO | CREATE_3D | TRANSFER_3D) => {
                let fence = match step {
                    TRANSFER | TRANSFER_3D | FLUSH | SUBMIT => input.byte(),
                    _ => 0,
                };
                let number = if fence == 0 { 0 } else { input.byte() };
                let request = command(step, input);
                match fence {
                    FENCED => request.fence(number.into()),
                    FENCED_RING => request.ring_fence(number % 4, number.into()),
                    _ => request,
                }
            }
            CURSOR => {
                let request = Request::update_cursor(
                    input.id() % 3,
                    input.id(),
                    input.length(),
                    input.length(),
                    input.length(),
                );
                return self.post(Queue::Cursor, &Chain::of(&request));
            }
            MOVE => {
                let request = Request::move_cursor(input.id() % 3, input.length(), input.length());
                return self.post(Queue::Cursor, &Chain::of(&request));
            }
            RAW => return self.raw(input),
            event => return self.event(event, input),
        };
        self.post(Queue::Control, &Chain::of(&request));
    }

    /// A chain of any bytes, in any pieces.
    fn raw(&mut self, input: &mut Bytes<'_>) {
        let shape = input.byte();
        let cuts = (0..input.byte() % 4).map(|_| input.byte().into()).collect();
        let room = (0..input.byte() % 4)
            .map(|_| u32::from(input.byte()) * 8)
            .collect();
        let chain = Chain {
            request: input.take(usize::from(shape >> 2) + 8),
            cuts,
            room,
            indirect: shape & 1 != 0,
        };
        let queue = if shape & 2 == 0 {
            Queue::Control
        } else {
            Queue::Cursor
        };
        self.post(queue, &chain);
    }

    fn post(&mut self, queue: Queue, chain: &Chain) {
        if self.guest.open() >= MOST_OPEN {
            self.reset();
        }
        match self.guest.post(queue, chain) {
            Posted::Answered(reply) => {
                self.count(&reply);
                let room: u32 = chain.room.iter().sum();
                assert!(reply.written <= room);
                if queue == Queue::Control && room >= 24 {
                    assert!(reply.written >= 24, "an answer that fits is given");
                }
            }
            Posted::Held(_) => {}
        }
    }

    fn count(&mut self, reply: &Reply) {
        if reply.written >= 24 && reply.kind() & 0xff00 == 0x1100 {
            self.good += 1;
        }
    }

    /// What the screen, the renderer and the driver do.
    fn event(&mut self, event: u8, input: &mut Bytes<'_>) {
        match event {
            SCREEN_DONE => {
                self.tokens.append(&mut self.screen.tokens());
                let which = usize::from(input.byte());
                if !self.tokens.is_empty() {
                    let token = self.tokens.swap_remove(which % self.tokens.len());
                    self.guest.device.flush_done(token);
                }
            }
            RETIRE => {
                for context in 1..CONTEXTS {
                    for call in self.renderer.calls(context) {
                        if let FakeContext::Fence(ring, fence) = call {
                            self.fences.push((context, ring, fence));
                        }
                    }
                }
                let which = usize::from(input.byte());
                if !self.fences.is_empty() {
                    let (context, ring, fence) = self.fences.remove(which % self.fences.len());
                    self.renderer.retire(context, ring, fence);
                }
            }
            MAKE_BLOB => {
                let (context, id) = (input.context(), input.id());
                let size = u64::from(input.byte()) * PAGE;
                if self.renderer.name(context).is_some() {
                    self.renderer.make_blob(context, id, size);
                }
            }
            FAIL_BLOB => {
                let (context, id) = (input.context(), input.id());
                if self.renderer.name(context).is_some() {
                    let error = RendererError::OutOfMemory("a step of the stream".into());
                    self.renderer.fail_blob(context, id, error);
                }
            }
            SLOW => {
                let slow = input.byte() & 1 != 0;
                self.screen.be_slow(slow);
                self.renderer.be_slow(slow);
                self.resources.be_slow(slow);
            }
            WORK_3D => {
                self.resources.work();
            }
            MONITOR => {
                let changed = Monitor {
                    width: input.length(),
                    height: input.length(),
                    connected: input.byte() & 1 == 0,
                    ..monitor()
                };
                self.guest.device.set_monitor(input.id(), changed);
            }
            CONFIG => {
                let offset = input.length();
                let bytes = input.take(4);
                self.guest.device.write_config(offset, &bytes);
                let mut read = [0; 7];
                self.guest.device.read_config(offset, &mut read);
            }
            _ => self.reset(),
        }
    }

    fn reset(&mut self) {
        self.guest.reset();
        // The VMM forgets its mappings too.
        self.guest.host.forget_mappings();
        assert_eq!(self.guest.device.usage().held, 0);
        assert_eq!(self.guest.device.usage().resources, 0);
        assert_eq!(self.resources.live(), 0, "3D resources outlive a reset");
    }

    fn check(&mut self) {
        for head in self.guest.late() {
            let reply = self.guest.reply(head);
            self.count(&reply);
        }
        let usage = self.guest.device.usage();
        assert_eq!(
            usage.held,
            self.guest.open(),
            "every chain is answered or held"
        );
        assert!(usage.resources <= budget::RESOURCES);
        assert!(usage.pixel_bytes <= budget::PIXEL_BYTES);
        assert!(usage.render_bytes <= budget::RENDER_BYTES);
        assert!(usage.backing_entries <= budget::BACKING_ENTRIES);
        assert_eq!(usage.mappings, self.guest.host.mappings().len());
    }

    fn end(mut self) -> usize {
        self.reset();
        let good = Request::create_2d(1, wire::FORMAT_B8G8R8A8, 8, 8);
        self.guest.ok(&good);
        self.reset();
        self.screen.calls();
        self.resources.calls();
        assert_eq!(self.guest.device.usage(), Usage::default());
        self.good
    }
}

/// A command whose operands are the next bytes.
fn command(step: u8, input: &mut Bytes<'_>) -> Request {
    match step {
        CREATE_2D => Request::create_2d(input.id(), input.format(), input.length(), input.length()),
        ATTACH => Request::attach_backing(input.id(), &input.entries()),
        DETACH => Request::detach_backing(input.id()),
        TRANSFER => {
            let (id, rect) = (input.id(), input.rect());
            let offset = u64::from(input.length()) << (input.byte() % 40);
            Request::transfer(id, rect, offset)
        }
        SET_SCANOUT => Request::set_scanout(input.id() % 3, input.id(), input.rect()),
        SCANOUT_BLOB => {
            let (scanout, id, format) = (input.id() % 3, input.id(), input.format());
            let frame @ (width, height) = (input.length(), input.length());
            let layout = (input.length(), input.length().wrapping_mul(4));
            let view = Rect {
                x: 0,
                y: 0,
                width,
                height,
            };
            Request::set_scanout_frame(scanout, id, format, frame, layout, view)
        }
        CREATE_3D => {
            // A side is at most 252 pixels, or much too long, since the memory is really allocated.
            let (id, format) = (input.id(), input.format());
            let mut side = || match input.length() {
                side if side <= 255 => side,
                _ => 1 << 16,
            };
            Request::create_3d(id, format, side(), side())
        }
        TRANSFER_3D => {
            let kind = match input.byte() & 1 {
                0 => wire::CMD_TRANSFER_TO_HOST_3D,
                _ => wire::CMD_TRANSFER_FROM_HOST_3D,
            };
            let (id, rect) = (input.id(), input.rect());
            let offset = u64::from(input.length()) << (input.byte() % 40);
            Request::transfer_3d(kind, id, rect, offset, input.length()).context(input.context())
        }
        FLUSH => Request::flush(input.id(), input.rect()),
        UNREF => Request::unref(input.id()),
        GUEST_BLOB => {
            let (id, size) = (input.id(), u64::from(input.length()) * 1024);
            Request::guest_blob(id, size, &input.entries())
        }
        HOST_BLOB => {
            let (context, id) = (input.context(), input.id());
            Request::host_blob(context, id, 0, u64::from(input.byte()) * PAGE)
        }
        MAP => Request::map_blob(input.id(), u64::from(input.length()) * PAGE),
        UNMAP => Request::unmap_blob(input.id()),
        CREATE_CONTEXT => Request::create_context(input.context(), 4, "stream"),
        DESTROY_CONTEXT => Request::destroy_context(input.context()),
        ATTACH_CONTEXT => Request::attach(input.context(), input.id()),
        DETACH_CONTEXT => Request::detach(input.context(), input.id()),
        SUBMIT => {
            let context = input.context();
            let length = usize::from(input.byte() % 32);
            Request::submit(context, &input.take(length))
        }
        _ => {
            let zero = [0_u8; 8];
            match input.byte() % 5 {
                0 => Request::bare(wire::CMD_GET_DISPLAY_INFO),
                1 => Request::new(wire::CMD_GET_EDID, &zero),
                2 => Request::new(wire::CMD_GET_CAPSET_INFO, &zero),
                3 => Request::new(wire::CMD_GET_CAPSET, &[4_u8, 0, 0, 0, 0, 0, 0, 0]),
                _ => Request::resource(wire::CMD_RESOURCE_ASSIGN_UUID, input.id()),
            }
        }
    }
}
