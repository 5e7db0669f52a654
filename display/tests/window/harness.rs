//! Runs scenarios, each in a process of its own, and gives them a display to work with.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::BufReader;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hesper_display::{
    Display, DisplayEvent, DisplayHandle, DisplayOptions, FlushToken, InputSink, Picture,
    PictureLayout, PixelFormat, Rect,
};

use crate::pages::Pages;

/// How long a scenario may take. A software renderer on a busy machine is slow, and a virtual
/// machine was once seen to stand still for two and a half minutes.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long an event, or anything else that must happen, may take.
pub(crate) const EVENT: Duration = Duration::from_secs(60);
/// The variable that names the scenario for this process.
const CHOSEN: &str = "HESPER_WINDOW_SCENARIO";

/// A test.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The scenario inspects or drives an X server, so it does not run in a Wayland session.
    pub(crate) x11: bool,
    pub(crate) run: fn(),
}

/// Runs the scenario that the environment names, or all of them one after another.
pub(crate) fn main(scenarios: &[Scenario]) -> ExitCode {
    if let Ok(chosen) = std::env::var(CHOSEN) {
        let found = scenarios.iter().find(|scenario| scenario.name == chosen);
        (found.expect("a scenario of that name").run)();
        return ExitCode::SUCCESS;
    }
    let wayland = std::env::var_os("WAYLAND_DISPLAY").is_some();
    if !wayland && std::env::var_os("DISPLAY").is_none() {
        eprintln!(
            "no display server (DISPLAY, WAYLAND_DISPLAY): run what you have just built with"
        );
        eprintln!("    tests/env/run xvfb-run -a cargo test -p hesper-display --test window");
        return ExitCode::FAILURE;
    }
    // An X server resets when its last client leaves, and accepts no client meanwhile.
    let _client = (!wayland).then(crate::x11::Server::connect);
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let is_exact = std::env::args().any(|argument| argument == "--exact");
    let wanted = |scenario: &&Scenario| {
        filter.as_ref().is_none_or(|filter| match is_exact {
            true => scenario.name == filter,
            false => scenario.name.contains(filter.as_str()),
        })
    };
    let (mut passed, mut failed) = (0, Vec::new());
    for scenario in scenarios.iter().filter(wanted) {
        if scenario.x11 && wayland {
            println!("test {} ... needs X11, this is Wayland", scenario.name);
            continue;
        }
        let started = Instant::now();
        let verdict = in_child(scenario.name);
        let seconds = started.elapsed().as_secs_f32();
        match verdict {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok ({seconds:.1} s)", scenario.name);
            }
            Err(why) => {
                failed.push(scenario.name);
                println!("test {} ... FAILED: {why} ({seconds:.1} s)", scenario.name);
            }
        }
    }
    // As cargo's own tests end, so that tests/run-all can read it, and try again what failed.
    if failed.is_empty() && passed > 0 {
        println!("\ntest result: ok. {passed} passed; 0 failed;");
        return ExitCode::SUCCESS;
    }
    println!("\nfailures:");
    failed.iter().for_each(|name| println!("    {name}"));
    let failed = failed.len();
    println!("\ntest result: FAILED. {passed} passed; {failed} failed;");
    ExitCode::FAILURE
}

fn in_child(name: &str) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .env(CHOSEN, name)
        .spawn()
        .map_err(|error| error.to_string())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(status.to_string()),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => {
                // Failing means that the child has just ended. It took too long all the same.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("not done after {} s", PATIENCE.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// A running display.
pub(crate) struct TestDisplay {
    pub(crate) handle: DisplayHandle,
    events: mpsc::Receiver<DisplayEvent>,
}

/// Opens windows, runs `scenario` beside them, and closes them.
pub(crate) fn with_display(options: DisplayOptions, scenario: impl FnOnce(&TestDisplay) + Send) {
    run_display(options, None, scenario);
}

/// Does the same with input devices.
pub(crate) fn with_input(
    options: DisplayOptions,
    input: Arc<dyn InputSink>,
    scenario: impl FnOnce(&TestDisplay) + Send,
) {
    run_display(options, Some(input), scenario);
}

fn run_display(
    options: DisplayOptions,
    input: Option<Arc<dyn InputSink>>,
    scenario: impl FnOnce(&TestDisplay) + Send,
) {
    // Bounded, because an unbounded channel allocates now and then.
    let (sender, events) = mpsc::sync_channel(4096);
    // Failing means that the scenario is over.
    let report = Box::new(move |event| drop(sender.send(event)));
    let (mut display, handle) =
        Display::new(options, report).unwrap_or_else(|error| panic!("{error}"));
    if let Some(input) = input {
        display.set_input(input);
    }
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            /// Ends the display even when the scenario panics.
            struct Quit(DisplayHandle);
            impl Drop for Quit {
                fn drop(&mut self) {
                    self.0.quit();
                }
            }
            let _quit = Quit(handle.clone());
            scenario(&TestDisplay { handle, events });
        });
        let ended = display.run();
        worker.join().expect("the scenario failed");
        ended.unwrap_or_else(|error| panic!("{error}"));
    });
}

impl TestDisplay {
    /// Flushes and waits until the pixels have been read.
    pub(crate) fn flush(&self, scanout: usize, damage: Rect) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let token = FlushToken(NEXT.fetch_add(1, Ordering::Relaxed));
        self.handle.flush(scanout, damage, Some(token)).unwrap();
        self.expect(|event| *event == DisplayEvent::FlushDone(token));
    }

    /// Shows a canvas, and waits until its pixels have been read.
    pub(crate) fn show(&self, scanout: usize, canvas: &Canvas) {
        let picture = Some(canvas.picture());
        self.handle.set_scanout(scanout, picture).unwrap();
        self.flush(scanout, canvas.whole());
    }

    /// Returns the next event that is `wanted`, and skips others.
    pub(crate) fn expect(&self, wanted: impl Fn(&DisplayEvent) -> bool) -> DisplayEvent {
        let deadline = Instant::now() + EVENT;
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            let event = self
                .events
                .recv_timeout(patience)
                .expect("the event in time");
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Waits until no event has come for a while.
    pub(crate) fn settle(&self) {
        while self.events.recv_timeout(Duration::from_millis(300)).is_ok() {}
    }

    /// All events of the next `time`.
    pub(crate) fn events_for(&self, time: Duration) -> Vec<DisplayEvent> {
        std::thread::sleep(time);
        self.events.try_iter().collect()
    }

    /// A screenshot of a window.
    pub(crate) fn screenshot(&self, scanout: usize) -> Shot {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shot.png");
        self.handle.screenshot(scanout, &path).unwrap();
        let decoder = png::Decoder::new(BufReader::new(File::open(path).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let pixels = pixels.as_chunks::<3>().0.to_vec();
        Shot {
            width: info.width,
            height: info.height,
            pixels,
        }
    }
}

/// Red, green, blue.
pub(crate) type Color = [u8; 3];

/// An image of the screen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shot {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixels: Vec<Color>,
}

impl Shot {
    pub(crate) fn at(&self, x: u32, y: u32) -> Color {
        self.pixels[(y * self.width + x) as usize]
    }

    /// Fails at the first pixel that differs from `expected` by more than `tolerance`.
    pub(crate) fn check(&self, tolerance: u8, expected: impl Fn(u32, u32) -> Color) {
        for y in 0..self.height {
            for x in 0..self.width {
                let (seen, wanted) = (self.at(x, y), expected(x, y));
                let close = seen
                    .iter()
                    .zip(wanted)
                    .all(|(s, w)| s.abs_diff(w) <= tolerance);
                assert!(close, "at {x}, {y}: {seen:?} instead of {wanted:?}");
            }
        }
    }
}

/// Reads a PNG file; `None` if it is not complete yet.
pub(crate) fn read_png(path: &std::path::Path) -> Option<Shot> {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path).ok()?))
        .read_info()
        .ok()?;
    let mut pixels = vec![0; reader.output_buffer_size()?];
    let info = reader.next_frame(&mut pixels).ok()?;
    Some(Shot {
        width: info.width,
        height: info.height,
        pixels: pixels.as_chunks::<3>().0.to_vec(),
    })
}

/// A guest's framebuffer.
pub(crate) struct Canvas {
    pages: Arc<Pages>,
    layout: PictureLayout,
}

impl Canvas {
    /// A black framebuffer. Its rows have gaps, and it does not start at the beginning of its
    /// memory.
    pub(crate) fn new(
        (width, height): (u32, u32),
        format: PixelFormat,
        importable: bool,
    ) -> Canvas {
        let (offset, stride) = (4096 + 64, width * 4 + 64);
        let pages = Pages::new((offset + stride * height) as usize, importable);
        let layout = PictureLayout {
            offset: offset.into(),
            stride,
            width,
            height,
            format,
        };
        Canvas { pages, layout }
    }

    pub(crate) fn picture(&self) -> Picture {
        Picture::new(self.pages.clone(), self.layout).unwrap()
    }

    /// A part of the framebuffer, as the picture of another monitor.
    pub(crate) fn part(&self, part: Rect) -> Picture {
        let start = part.y * self.layout.stride + part.x * 4;
        let layout = PictureLayout {
            offset: self.layout.offset + u64::from(start),
            width: part.width,
            height: part.height,
            ..self.layout
        };
        Picture::new(self.pages.clone(), layout).unwrap()
    }

    /// Draws a rectangle. `color` is called with positions in the whole framebuffer.
    pub(crate) fn draw(&self, rect: Rect, color: impl Fn(u32, u32) -> Color) {
        let name = format!("{:?}", self.layout.format);
        let order: Vec<char> = name.chars().filter(|c| c.is_alphabetic()).collect();
        for y in rect.y..rect.y + rect.height {
            for x in rect.x..rect.x + rect.width {
                let [red, green, blue] = color(x, y);
                let mut bytes = [0; 4];
                for (byte, channel) in bytes.iter_mut().zip(&order) {
                    *byte = match channel {
                        'R' => red,
                        'G' => green,
                        'B' => blue,
                        // Alpha and padding mean nothing in a picture.
                        _ => (x * 31 + y) as u8,
                    };
                }
                let offset = self.layout.offset + u64::from(y * self.layout.stride + x * 4);
                self.pages.set(offset as usize, bytes);
            }
        }
    }

    pub(crate) fn whole(&self) -> Rect {
        Rect::whole(self.layout.width, self.layout.height)
    }
}

/// Waits until `right` is true; `what` names it.
pub(crate) fn until(what: &str, right: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !right() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// User and system time of this process.
pub(crate) fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|t| t.parse::<u64>().unwrap())
        .sum();
    // Linux reports in hundredths of a second on every current machine.
    Duration::from_millis(ticks * 10)
}

/// How many threads and open descriptors this process has.
pub(crate) fn held() -> (usize, usize) {
    let count = |folder| std::fs::read_dir(folder).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Waits until there are no more threads and descriptors than `before`. Some may still be ending.
pub(crate) fn expect_no_more_than(before: (usize, usize), when: &str) {
    let deadline = Instant::now() + EVENT;
    loop {
        let now = held();
        if now.0 <= before.0 && now.1 <= before.1 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{when}: {now:?} threads and descriptors, {before:?} before"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// How often the Rust code of this process has allocated.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
