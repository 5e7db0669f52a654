//! The device and virglrenderer together. Guest and VMM are this test: real sockets and virtqueues,
//! raw commands.

use std::path::Path;
use std::time::{Duration, Instant};

use hesper_mock_venus::VenusGuest as _;
use hesper_vhost::screen::Rect;
use hesper_vhost::testing::Request;
use hesper_vhost::wire::{self, *};
use zerocopy::FromZeros;

use crate::guest::{Guest, Vm};
use crate::support::hesper::Hesper;
use crate::support::picture::{Picture, Rectangle};
use hesper_mock_frontend::{Machine, PATIENCE, PIXELS};

const WIDTH: u32 = 200;
const HEIGHT: u32 = 150;
/// Bytes of a picture of that size.
const BYTES: usize = (WIDTH * HEIGHT * 4) as usize;
const WHOLE: Rect = Rect {
    x: 0,
    y: 0,
    width: WIDTH,
    height: HEIGHT,
};
/// virgl's bits for a texture that is a render target, sampled and shown.
const BIND: u32 = 1 << 1 | 1 << 3 | 1 << 18;

fn serve(folder: &Path) -> (Hesper, Vm) {
    let arguments = [
        "--display=headless",
        "--size=640x480",
        "--capsets=venus,virgl",
    ];
    let hesper = Hesper::start(folder, &arguments, None);
    let vm = Vm::new(Machine::boot_with_window(&hesper.socket(), 4096));
    (hesper, vm)
}

fn create_with(id: u32, change: impl FnOnce(&mut ResourceCreate3d)) -> Request {
    let mut body = ResourceCreate3d::new_zeroed();
    body.resource_id = id.into();
    body.target = 2.into();
    body.format = FORMAT_B8G8R8X8.into();
    body.bind = BIND.into();
    body.width = WIDTH.into();
    body.height = HEIGHT.into();
    body.depth = 1.into();
    body.array_size = 1.into();
    change(&mut body);
    Request::new(CMD_RESOURCE_CREATE_3D, &body)
}

fn create(id: u32) -> Request {
    create_with(id, |_| ())
}

fn to_host(id: u32, rect: Rect, offset: u64, stride: u32) -> Request {
    Request::transfer_3d(CMD_TRANSFER_TO_HOST_3D, id, rect, offset, stride)
}

fn from_host(id: u32, rect: Rect, offset: u64, stride: u32) -> Request {
    Request::transfer_3d(CMD_TRANSFER_FROM_HOST_3D, id, rect, offset, stride)
}

/// The test picture as pixels.
fn pattern(seed: u32) -> Vec<u8> {
    let pixel = |x, y| {
        let [blue, green, red] = hesper_test_guest::pattern(seed, x, y);
        [blue, green, red, 255]
    };
    (0..HEIGHT)
        .flat_map(|y| (0..WIDTH).flat_map(move |x| pixel(x, y)))
        .collect()
}

/// Commands of virgl, which are words.
#[derive(Default)]
struct Stream(Vec<u32>);

impl Stream {
    fn command(&mut self, command: u32, object: u32, words: &[u32]) {
        self.0
            .push(command | object << 8 | (words.len() as u32) << 16);
        self.0.extend_from_slice(words);
    }

    /// Makes a surface of a resource and makes it the render target.
    fn target(&mut self, surface: u32, resource: u32) {
        self.command(1, 8, &[surface, resource, FORMAT_B8G8R8X8, 0, 0]);
        self.command(5, 0, &[1, 0, surface]);
    }

    /// Clears the render target.
    fn clear(&mut self, [red, green, blue]: [f32; 3]) {
        let [red, green, blue] = [red, green, blue].map(f32::to_bits);
        let one = 1_f32.to_bits();
        self.command(7, 0, &[4, red, green, blue, one, 0, 0, 0]);
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// A virgl context with a texture, whose backing is at [`PIXELS`].
fn texture(vm: &Vm, context: u32) -> u32 {
    let mut machine = vm.machine();
    let id = machine.resource();
    machine.ok(&Request::create_context(context, 2, "virgl"));
    machine.ok(&create(id));
    // In two pieces, the second one first in memory.
    let (first, rest) = (PIXELS + (1 << 20), PIXELS);
    let pieces = [(first, 4096), (rest, BYTES as u32 - 4096)];
    machine.ok(&Request::attach_backing(id, &pieces));
    machine.ok(&Request::attach(context, id));
    id
}

/// Writes or reads the texture's memory.
fn write(vm: &Vm, bytes: &[u8]) {
    vm.machine().write(PIXELS + (1 << 20), &bytes[..4096]);
    vm.machine().write(PIXELS, &bytes[4096..]);
}

fn read(vm: &Vm) -> Vec<u8> {
    let mut bytes = vm.machine().read(PIXELS + (1 << 20), 4096);
    bytes.append(&mut vm.machine().read(PIXELS, BYTES - 4096));
    bytes
}

/// Clears the texture in a context and waits, which proves that the context renders.
#[track_caller]
fn renders(vm: &Vm, context: u32, texture: u32, grey: u8) {
    let mut stream = Stream::default();
    stream.target(100 + u32::from(grey), texture);
    stream.clear([f32::from(grey) / 255.0; 3]);
    let mut machine = vm.machine();
    machine.ok(&Request::submit(context, &stream.bytes()).fence(1));
    machine.ok(&from_host(texture, WHOLE, 0, 0).context(context));
    drop(machine);
    let pixels = read(vm);
    assert!(
        pixels.chunks(4).all(|pixel| pixel[..3] == [grey; 3]),
        "{:?}",
        &pixels[..8]
    );
}

/// Waits until the scanout shows the texture in one colour (blue, green, red).
#[track_caller]
fn assert_shown(hesper: &Hesper, colour: [u8; 3]) {
    let until = Instant::now() + PATIENCE;
    loop {
        let shown = hesper.screenshot(0);
        let bounds = shown.bounds_of(colour).map(Rectangle::size);
        if bounds == Some((WIDTH, HEIGHT)) && shown.colours(2) == 1 {
            return;
        }
        assert!(Instant::now() < until, "{:?}", shown.pixel(0, 0));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_guest_is_told_of_venus_and_both_capability_sets_of_virgl() {
    let folder = tempfile::tempdir().unwrap();
    let (_hesper, vm) = serve(folder.path());
    let mut machine = vm.machine();
    let mut found = Vec::new();
    for index in 0..4_u32 {
        let info = wire::GetCapsetInfo {
            index: index.into(),
            padding: 0.into(),
        };
        let answer = machine.ask(&Request::new(CMD_GET_CAPSET_INFO, &info));
        if answer.kind() != RESP_OK_CAPSET_INFO {
            break;
        }
        let (id, version, size) = (answer.word(24), answer.word(28), answer.word(32));
        let get = wire::GetCapset {
            capset_id: id.into(),
            version: version.into(),
        };
        let capset = machine.ask(&Request::new(CMD_GET_CAPSET, &get));
        assert_eq!(capset.kind(), RESP_OK_CAPSET, "{id}");
        assert_eq!(capset.0.len(), 24 + size as usize, "{id}");
        found.push(id);
    }
    assert_eq!(found, [4, 1, 2]);
}

#[test]
fn a_texture_is_filled_shown_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (hesper, vm) = serve(folder.path());
    let id = texture(&vm, 1);
    write(&vm, &pattern(7));
    {
        let mut machine = vm.machine();
        machine.ok(&to_host(id, WHOLE, 0, 0));
        machine.ok(&Request::set_scanout(0, id, WHOLE));
        machine.ok(&Request::flush(id, WHOLE).fence(1));
    }
    let expected = Picture::pattern(7, WIDTH, HEIGHT);
    hesper.await_picture(0, &expected, 0);
    // Reads a part of it back, with another stride, inside and outside of the context.
    for context in [0, 1] {
        write(&vm, &vec![0; BYTES]);
        let part = Rect {
            x: 30,
            y: 20,
            width: 10,
            height: 40,
        };
        let back = from_host(id, part, 5000, 400).context(context);
        vm.machine().ok(&back);
        let (all, memory) = (pattern(7), read(&vm));
        for row in 0..40 {
            let from = ((20 + row) * WIDTH as usize + 30) * 4;
            let into = 5000 + row * 400;
            let (seen, wanted) = (&memory[into..into + 40], &all[from..from + 40]);
            for (seen, wanted) in seen.chunks(4).zip(wanted.chunks(4)) {
                assert_eq!(seen[..3], wanted[..3], "row {row}, context {context}");
            }
        }
        assert_eq!(memory[..5000], [0; 5000]);
    }
}

#[test]
fn what_a_context_draws_is_shown_and_its_fences_retire_on_any_ring() {
    let folder = tempfile::tempdir().unwrap();
    let (hesper, vm) = serve(folder.path());
    let id = texture(&vm, 1);
    renders(&vm, 1, id, 51);
    let mut stream = Stream::default();
    stream.target(5, id);
    stream.clear([1.0, 0.2, 0.6]);
    let mut machine = vm.machine();
    machine.ok(&Request::set_scanout(0, id, WHOLE));
    machine.ok(&Request::submit(1, &stream.bytes()).ring_fence(0, 9));
    machine.ok(&Request::submit(1, &[]).ring_fence(3, 1));
    machine.ok(&Request::flush(id, WHOLE).fence(2));
    drop(machine);
    assert_shown(&hesper, [153, 51, 255]);
    // Later ones show what is new.
    renders(&vm, 1, id, 102);
    vm.machine().ok(&Request::flush(id, WHOLE));
    assert_shown(&hesper, [102; 3]);
}

#[test]
fn broken_commands_end_their_context_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (hesper, vm) = serve(folder.path());
    let venus = Guest::new(&vm, 40);
    let gpu = venus.gpu();
    let good = texture(&vm, 1);
    let mut unknown = Stream::default();
    unknown.command(250, 0, &[1, 2, 3]);
    let mut nothing = Stream::default();
    nothing.target(1, 9999);
    nothing.clear([0.0; 3]);
    let mut long = Stream::default();
    long.target(1, good);
    long.0.push(7 | 0xffff << 16);
    let streams = [
        unknown.bytes(),
        nothing.bytes(),
        long.bytes(),
        vec![1; 7],
        vec![0xff; 4096],
    ];
    for (context, stream) in (10..).zip(&streams) {
        let mut machine = vm.machine();
        machine.ok(&Request::create_context(context, 2, "broken"));
        machine.ok(&Request::attach(context, good));
        let submit = Request::submit(context, stream);
        machine.ok(&submit.fence(context.into()));
        // It answers in any case.
        machine.ok(&Request::submit(context, &[0; 4]).ring_fence(2, 1));
        drop(machine);
        renders(&vm, 1, good, context as u8);
        venus.renders(&gpu, context);
        vm.machine().ok(&Request::destroy_context(context));
    }
    drop((venus, vm));
    // This is Hesper's last line for the VM.
    let until = Instant::now() + PATIENCE;
    let mut log = hesper.process.errors();
    while !log.contains("the VM disconnected") {
        assert!(Instant::now() < until, "{log}");
        std::thread::sleep(Duration::from_millis(10));
        log = hesper.process.errors();
    }
    let lost = log.lines().filter(|line| line.contains("is lost")).count();
    assert_eq!(lost, streams.len(), "one line for each:\n{log}");
}

#[test]
fn malformed_3d_commands_get_errors_from_the_real_library_too() {
    const MAX: u32 = u32::MAX;
    let folder = tempfile::tempdir().unwrap();
    let (_hesper, vm) = serve(folder.path());
    let id = texture(&vm, 1);
    type Change = fn(&mut ResourceCreate3d);
    let bad_creates: [(&str, Change); 6] = [
        ("format", |body| body.format = 0xffff.into()),
        ("target", |body| body.target = 99.into()),
        ("levels", |body| body.last_level = 31.into()),
        ("width", |body| body.width = 1_000_000.into()),
        ("layers of a 2D texture", |body| body.array_size = 7.into()),
        ("depth of a 2D texture", |body| body.depth = 7.into()),
    ];
    for (name, change) in bad_creates {
        let fresh = vm.machine().resource();
        let code = vm.machine().code(&create_with(fresh, change));
        assert!(
            [RESP_ERR_INVALID_PARAMETER, RESP_ERR_OUT_OF_MEMORY].contains(&code),
            "{name}: {code:#x}"
        );
        // The id is free.
        vm.machine().ok(&create(fresh));
        vm.machine().ok(&Request::unref(fresh));
        renders(&vm, 1, id, 11);
    }
    let row = u64::from(WIDTH) * 4;
    let end = BYTES as u64;
    for (name, offset, stride, kind) in [
        ("a byte too far", 1, 0, CMD_TRANSFER_TO_HOST_3D),
        ("a row too far", row, 0, CMD_TRANSFER_TO_HOST_3D),
        ("at the end", end - 4, 0, CMD_TRANSFER_TO_HOST_3D),
        (
            "a stride too long",
            0,
            WIDTH * 4 + 4,
            CMD_TRANSFER_TO_HOST_3D,
        ),
        ("any stride", 0, MAX, CMD_TRANSFER_TO_HOST_3D),
        ("a stride too short", 0, 4, CMD_TRANSFER_TO_HOST_3D),
        (
            "a stride that overflows",
            0,
            (1 << 31) / HEIGHT * 2,
            CMD_TRANSFER_TO_HOST_3D,
        ),
        ("reads a row too far", row, 0, CMD_TRANSFER_FROM_HOST_3D),
        ("reads with any stride", 0, MAX, CMD_TRANSFER_FROM_HOST_3D),
    ] {
        // A context is lost by it. Outside of a context nothing is.
        let mut machine = vm.machine();
        machine.ok(&Request::create_context(50, 2, "breaks"));
        machine.ok(&Request::attach(50, id));
        drop(machine);
        for context in [0, 50] {
            let request = Request::transfer_3d(kind, id, WHOLE, offset, stride);
            let code = vm.machine().code(&request.context(context));
            assert_eq!(code, RESP_ERR_INVALID_PARAMETER, "{name}, {context}");
            renders(&vm, 1, id, 12);
        }
        vm.machine().ok(&Request::destroy_context(50));
    }
    // A context of Venus, one without the resource attached, and one that is gone.
    let _venus = Guest::new(&vm, 40);
    let in_venus = to_host(id, WHOLE, 0, 0).context(40);
    assert_eq!(vm.machine().code(&in_venus), RESP_ERR_INVALID_PARAMETER);
    vm.machine().ok(&Request::create_context(2, 1, "other"));
    let other = vm.machine().code(&to_host(id, WHOLE, 0, 0).context(2));
    assert_eq!(other, RESP_ERR_INVALID_PARAMETER);
    vm.machine().ok(&Request::destroy_context(2));
    let gone = vm.machine().code(&to_host(id, WHOLE, 0, 0).context(2));
    assert_eq!(gone, RESP_ERR_INVALID_CONTEXT_ID);
    renders(&vm, 1, id, 13);
}

#[test]
fn work_of_virgl_delays_neither_venus_nor_2d() {
    let folder = tempfile::tempdir().unwrap();
    let (_hesper, vm) = serve(folder.path());
    let venus = Guest::new(&vm, 40);
    let gpu = venus.gpu();
    venus.renders(&gpu, 4);
    let mut machine = vm.machine();
    machine.ok(&Request::create_context(1, 2, "busy"));
    let [from, to, image] = [(); 3].map(|()| machine.resource());
    for id in [from, to] {
        machine.ok(&create_with(id, |body| {
            body.width = 4096.into();
            body.height = 4096.into();
        }));
        machine.ok(&Request::attach(1, id));
    }
    let shown = Rect {
        width: 64,
        height: 64,
        ..WHOLE
    };
    machine.ok(&Request::set_scanout(0, to, shown));
    drop(machine);
    // Enough copies of 64 MiB; more if they ended before Venus had its turn.
    let stalled = [50, 200, 400].into_iter().any(|copies| {
        let mut stream = Stream::default();
        for _ in 0..copies {
            let words = [to, 0, 0, 0, 0, from, 0, 0, 0, 0, 4096, 4096, 1];
            stream.command(17, 0, &words);
        }
        let work = {
            let mut machine = vm.machine();
            let submit = Request::submit(1, &stream.bytes()).fence(1);
            // The library's own thread waits for the pixels of this one.
            [
                machine.post(&submit),
                machine.post(&Request::flush(to, shown)),
            ]
        };
        venus.renders(&gpu, copies);
        let mut machine = vm.machine();
        machine.ok(&Request::create_2d(image + copies, FORMAT_B8G8R8X8, 64, 64));
        let stalled = work.iter().all(|one| !machine.is_answered(*one));
        for one in work {
            assert_eq!(machine.answer(one).kind(), RESP_OK_NODATA);
        }
        stalled
    });
    assert!(stalled, "it was no work");
}

#[test]
fn a_reset_and_the_end_of_a_vm_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (hesper, vm) = serve(folder.path());
    let mut last = None;
    let mut vm = Some(vm);
    for round in 0..3 {
        let now = vm
            .take()
            .unwrap_or_else(|| Vm::new(Machine::boot_with_window(&hesper.socket(), 4096)));
        let id = texture(&now, 1);
        renders(&now, 1, id, 30 + round);
        // Commands of before the reset do not touch the memory of after it.
        now.machine().post(&from_host(id, WHOLE, 0, 0).context(1));
        now.machine().reset();
        write(&now, &pattern(3));
        let again = texture(&now, 1);
        assert_eq!(read(&now), pattern(3));
        renders(&now, 1, again, 40 + round);
        drop(now);
        // What the library keeps for ever is there after the first round.
        hesper.holds_the_same(&mut last);
    }
}
