//! Blobs on the screen, of the host and of the guest: every format, any offset and stride, and
//! flushes that say when the guest may draw again.

use hesper_mock_venus::VenusGuest as _;
use hesper_vhost::screen::Rect;
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::Served;
use crate::guest::{Guest, Mapped, Vm};
use crate::support::picture::Picture;
use crate::support::xserver::XServer;
use hesper_mock_frontend::{Machine, PIXELS, eventually};

fn whole(width: u32, height: u32) -> Rect {
    Rect {
        x: 0,
        y: 0,
        width,
        height,
    }
}

/// The eight formats: their numbers, and where blue, green and red stand in a pixel.
const FORMATS: [(u32, [usize; 3]); 8] = [
    (1, [0, 1, 2]),
    (2, [0, 1, 2]),
    (3, [3, 2, 1]),
    (4, [3, 2, 1]),
    (67, [2, 1, 0]),
    (68, [1, 2, 3]),
    (121, [1, 2, 3]),
    (134, [2, 1, 0]),
];

/// Writes the test picture as a client of the GPU does that draws into its own mapping.
fn draw(vm: &Vm, blob: Mapped, seed: u32, size: (u32, u32), layout: (u32, u32), at: [usize; 3]) {
    let ((width, height), (offset, stride)) = (size, layout);
    for y in 0..height {
        let mut row = vec![0xff; width as usize * 4];
        for x in 0..width {
            let colours = hesper_test_guest::pattern(seed, x, y);
            for (place, colour) in at.into_iter().zip(colours) {
                row[x as usize * 4 + place] = colour;
            }
        }
        let start = blob.offset + u64::from(offset) + u64::from(y) * u64::from(stride);
        vm.machine().window().write(start, &row);
    }
}

#[test]
fn a_blob_of_the_gpus_memory_is_shown_in_every_format_at_any_offset_and_stride() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let bytes = 1 << 20;
    let (_, memory) = guest.buffer(&gpu, bytes);
    let blob = guest.map(memory, bytes);
    let size @ (width, height) = (200, 150);
    // Without padding, with padding, and at an offset inside a page.
    for (round, layout) in (0..).zip([(0, 800), (0, 1024), (4096, 832), (516, 804)]) {
        for (format, at) in FORMATS {
            let seed = round * 256 + format;
            draw(&vm, blob, seed, size, layout, at);
            let view = whole(width, height);
            let show = Request::set_scanout_frame(0, blob.resource, format, size, layout, view);
            let flush = Request::flush(blob.resource, view).fence(u64::from(seed));
            let mut machine = vm.machine();
            machine.ok(&show);
            machine.ok(&flush);
            drop(machine);
            let expected = Picture::pattern(seed, width, height);
            served.hesper.await_picture(0, &expected, 0);
        }
    }
    // A part of the framebuffer, and one that is outside of the memory.
    let view = Rect {
        x: 20,
        y: 30,
        width: 100,
        height: 70,
    };
    draw(&vm, blob, 9, size, (0, 800), [0, 1, 2]);
    let part = Request::set_scanout_frame(0, blob.resource, 1, size, (0, 800), view);
    vm.machine().ok(&part);
    vm.machine().ok(&Request::flush(blob.resource, view));
    eventually("the part is shown", || {
        let shot = served.hesper.screenshot(0);
        (shot.width, shot.height) == (100, 70) && {
            let all = Picture::pattern(9, width, height);
            let bounds = crate::support::picture::Rectangle {
                left: 20,
                top: 30,
                right: 119,
                bottom: 99,
            };
            shot.equals(&all.part(bounds))
        }
    });
    for (size, layout) in [
        ((200, 1311), (0, 800)),
        (size, (0, 796)),
        (size, (1 << 20, 800)),
        ((u32::MAX, u32::MAX), (0, u32::MAX)),
    ] {
        let view = whole(size.0, size.1);
        let show = Request::set_scanout_frame(0, blob.resource, 1, size, layout, view);
        let code = vm.machine().code(&show);
        assert_eq!(
            code,
            wire::RESP_ERR_INVALID_PARAMETER,
            "{size:?} {layout:?}"
        );
    }
    // The context ends. Its picture stays as long as the resource; then the resource ends, too.
    vm.machine().ok(&Request::destroy_context(1));
    vm.machine().ok(&Request::flush(blob.resource, view));
    vm.machine().ok(&Request::unref(blob.resource));
    served.hesper.await_nothing(0);
    drop(guest);
    served.leaves_nothing(vm);
}

/// A framebuffer of a whole screen.
trait Framebuffer {
    fn resource(&self) -> u32;
    fn write(&self, machine: &mut Machine, pixels: &[u8]);
}

impl Framebuffer for Mapped {
    fn resource(&self) -> u32 {
        self.resource
    }

    fn write(&self, machine: &mut Machine, pixels: &[u8]) {
        machine.window().write(self.offset, pixels);
    }
}

const PAGE: usize = 4096;
const SCREEN_BYTES: u64 = 640 * 480 * 4;
const PAGES: usize = SCREEN_BYTES as usize / PAGE;

/// A framebuffer in guest memory, whose pages are in reverse order.
struct Scattered {
    resource: u32,
    /// Where it begins in the tests' free memory, in bytes.
    start: u64,
}

impl Scattered {
    fn new(machine: &mut Machine, start: u64) -> Self {
        let resource = machine.resource();
        let framebuffer = Self { resource, start };
        let entries = framebuffer.entries();
        machine.ok(&Request::guest_blob(resource, SCREEN_BYTES, &entries));
        framebuffer
    }

    fn address(&self, page: usize) -> u64 {
        PIXELS + self.start + ((PAGES - 1 - page) * PAGE) as u64
    }

    fn entries(&self) -> Vec<(u64, u32)> {
        (0..PAGES)
            .map(|page| (self.address(page), PAGE as u32))
            .collect()
    }
}

impl Framebuffer for Scattered {
    fn resource(&self) -> u32 {
        self.resource
    }

    fn write(&self, machine: &mut Machine, pixels: &[u8]) {
        for (page, pixels) in pixels.chunks(PAGE).enumerate() {
            machine.write(self.address(page), pixels);
        }
    }
}

#[test]
fn a_guest_that_draws_again_as_soon_as_its_flush_is_answered_never_shows_a_mixture() {
    never_a_mixture(1, host_framebuffer);
}

#[test]
fn page_flips_never_show_a_mixture() {
    never_a_mixture(2, host_framebuffer);
}

#[test]
fn framebuffers_in_guest_memory_never_show_a_mixture() {
    never_a_mixture(1, guest_framebuffer);
}

#[test]
fn page_flips_in_guest_memory_never_show_a_mixture() {
    never_a_mixture(2, guest_framebuffer);
}

fn host_framebuffer(guest: &Guest, _index: usize) -> Box<dyn Framebuffer> {
    Box::new(guest.map(0, SCREEN_BYTES))
}

fn guest_framebuffer(guest: &Guest, index: usize) -> Box<dyn Framebuffer> {
    let start = index as u64 * SCREEN_BYTES;
    Box::new(Scattered::new(&mut guest.vm.machine(), start))
}

/// The guest's memory is shown in place until the guest has that memory back.
#[test]
fn guest_memory_is_shown_in_place_and_given_back_in_time() {
    let screen = XServer::start(1000, 700);
    let served = Served::start_with(&["--size=640x480"], Some(&screen));
    let vm = served.boot();
    let mut machine = vm.machine();
    let mapped = || served.hesper.process.mappings("memfd:guest");
    let without = mapped();
    let framebuffer = Scattered::new(&mut machine, 0);
    let resource = framebuffer.resource;
    let shows = |seed| {
        let picture = Picture::pattern(seed, 640, 480);
        served.hesper.await_picture(0, &picture, 0);
    };
    let draw = |machine: &mut Machine, seed| {
        let pixels: Vec<u8> = (0..480)
            .flat_map(|y| (0..640).map(move |x| hesper_test_guest::pattern(seed, x, y)))
            .flat_map(|[blue, green, red]| [blue, green, red, 0])
            .collect();
        framebuffer.write(machine, &pixels);
    };
    let show = |machine: &mut Machine| {
        machine.ok(&Request::set_scanout_blob(0, resource, 2, 640, 480));
        machine.ok(&Request::flush(resource, whole(640, 480)));
    };
    assert_eq!(mapped(), without, "nothing is mapped before it is shown");
    draw(&mut machine, 3);
    show(&mut machine);
    shows(3);
    assert_eq!(mapped(), without + PAGES, "each page by itself");
    draw(&mut machine, 4);
    machine.ok(&Request::flush(resource, whole(640, 480)));
    shows(4);

    // The guest takes the memory away while it is shown, and reuses it.
    machine.ok(&Request::detach_backing(resource));
    assert_eq!(mapped(), without);
    draw(&mut machine, 5);
    eventually("the window says so", || {
        let status = served.hesper.control("status");
        status.contains("turned this monitor off")
    });
    let show_nothing = Request::set_scanout_blob(0, resource, 2, 640, 480);
    machine.ok(&show_nothing);
    let code = machine.code(&Request::flush(resource, whole(640, 480)));
    assert_ne!(code, wire::RESP_OK_NODATA, "there is no memory to show");

    // With memory attached again, it is shown again.
    machine.ok(&Request::attach_backing(resource, &framebuffer.entries()));
    show(&mut machine);
    shows(5);
    assert_eq!(mapped(), without + PAGES);
    machine.ok(&Request::unref(resource));
    assert_eq!(mapped(), without);

    // Framebuffers are copied when there are no mappings left for their pages.
    let many: Vec<_> = (0..30).map(|_| Scattered::new(&mut machine, 0)).collect();
    for (seed, framebuffer) in (10..).zip(&many) {
        draw(&mut machine, seed);
        let resource = framebuffer.resource;
        machine.ok(&Request::set_scanout_blob(0, resource, 2, 640, 480));
        machine.ok(&Request::flush(resource, whole(640, 480)));
        shows(seed);
    }
    assert_eq!(mapped(), without + 8192 / PAGES * PAGES);
    drop(machine);
    drop(vm);
    eventually("nothing of the guest's memory is left", || mapped() == 0);
}

/// Draws frame after frame of one colour into `buffers` framebuffers in turn, each as soon as the
/// last flush is answered, while the window's picture is checked.
fn never_a_mixture(buffers: usize, framebuffer: impl Fn(&Guest, usize) -> Box<dyn Framebuffer>) {
    let screen = XServer::start(1000, 700);
    let served = Served::start_with(&["--size=640x480"], Some(&screen));
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let buffers: Vec<_> = (0..buffers)
        .map(|index| framebuffer(&guest, index))
        .collect();
    let view = whole(640, 480);
    let mut frame = 0_u32;
    let mut draw = || {
        let buffer = &buffers[frame as usize % buffers.len()];
        frame += 1;
        let colour = [frame as u8, (frame >> 3) as u8, 77, 0];
        let pixels = colour.repeat(SCREEN_BYTES as usize / 4);
        let mut machine = vm.machine();
        buffer.write(&mut machine, &pixels);
        let resource = buffer.resource();
        let show = Request::set_scanout_blob(0, resource, 2, 640, 480);
        machine.ok(&show);
        machine.ok(&Request::flush(resource, view).fence(frame.into()));
        frame
    };
    draw();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (screen, folder) = (&screen, served.folder.path());
    std::thread::scope(|scope| {
        let looks = scope.spawn(move || {
            let _stop = stop;
            let mut seen = std::collections::HashSet::new();
            for look in 0..25 {
                let picture = screen.window_picture(folder);
                assert_eq!(picture.colours(2), 1, "look {look}: parts of two frames");
                seen.insert(picture.pixel(0, 0));
            }
            seen.len()
        });
        let mut frames = 0;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            frames = draw();
        }
        let seen = looks.join().unwrap();
        assert!(
            seen > 5 && frames > 25,
            "{seen} of {frames} frames were seen"
        );
    });
    // The processor does not copy the pixels: the presenter's driver reads the blob's own pages.
    let log = served.hesper.process.errors();
    assert!(!log.contains("it is uploaded"), "{log}");
}
