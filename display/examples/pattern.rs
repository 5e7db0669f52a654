//! A moving test pattern with a cursor, for looking at the display without a guest.
//!
//! `cargo run -p hesper-display --example pattern [-- OPTION…]`, with the options
//!
//! - `cpu` or `vulkan`: draw this way only (Vulkan, else the CPU)
//! - `headless`: no window
//! - `upload`: do not let the GPU import the picture's memory
//! - `shot=FILE`: write a screenshot after two seconds and end
//! - `seconds=N`: end after so many seconds
//! - `fps=N`: draw no more than N frames a second
//! - `WIDTHxHEIGHT`: the picture's size (1280x800)
//! - `window=WIDTHxHEIGHT`: the window's size (1280x800)

mod pages;

use std::error::Error;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hesper_display::{
    Cursor, Display, DisplayEvent, DisplayHandle, DisplayOptions, FlushToken, Picture,
    PictureLayout, PixelFormat, Rect, Renderer,
};

use self::pages::Pages;

struct Arguments {
    options: DisplayOptions,
    size: (u32, u32),
    importable: bool,
    shot: Option<PathBuf>,
    seconds: Option<u64>,
    frame: Duration,
}

fn size(text: &str) -> Option<(u32, u32)> {
    let (width, height) = text.split_once('x')?;
    Some((width.parse().ok()?, height.parse().ok()?))
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut found = Arguments {
        options: DisplayOptions::default(),
        size: (1280, 800),
        importable: true,
        shot: None,
        seconds: None,
        frame: Duration::ZERO,
    };
    for argument in std::env::args().skip(1) {
        let unknown = || format!("unknown argument {argument}; the source lists them");
        match argument.split_once('=') {
            None if argument == "cpu" => found.options.renderer = Renderer::Cpu,
            None if argument == "vulkan" => found.options.renderer = Renderer::Vulkan,
            None if argument == "headless" => found.options.headless = true,
            None if argument == "upload" => found.importable = false,
            None => found.size = size(&argument).ok_or_else(unknown)?,
            Some(("window", value)) => found.options.size = size(value).ok_or_else(unknown)?,
            Some(("shot", file)) => found.shot = Some(file.into()),
            Some(("seconds", value)) => found.seconds = Some(value.parse()?),
            Some(("fps", value)) => {
                found.frame = Duration::from_secs_f64(1.0 / value.parse::<f64>()?)
            }
            Some(_) => return Err(unknown().into()),
        }
    }
    Ok(found)
}

/// A round pointer with soft edges, to see how it is blended.
fn cursor() -> Result<Cursor, Box<dyn Error>> {
    let mut pixels = Vec::new();
    for y in 0..64 {
        for x in 0..64 {
            let distance = f32::hypot(x as f32 - 31.5, y as f32 - 31.5);
            let alpha = ((31.0 - distance) / 8.0).clamp(0.0, 1.0);
            let level = |channel: f32| (channel * alpha * 255.0) as u8;
            pixels.extend([level(0.1), level(0.3), level(1.0), level(1.0)]);
        }
    }
    Ok(Cursor::new(
        (64, 64),
        (32, 32),
        PixelFormat::B8G8R8A8,
        &pixels,
    )?)
}

/// Draws the columns `from` to `to`: a checkerboard whose colours depend on the position.
fn draw(pages: &Pages, (width, height): (u32, u32), columns: std::ops::Range<u32>, step: u32) {
    for y in 0..height {
        for x in columns.clone() {
            let check = ((x + step) / 32 + y / 32).is_multiple_of(2);
            let blue = if check { 160 } else { 40 };
            let edge = x == 0 || y == 0 || x == width - 1 || y == height - 1;
            let pixel = match edge {
                true => [255, 255, 255, 0],
                false => [blue, (y * 255 / height) as u8, (x * 255 / width) as u8, 0],
            };
            pages.set(((y * width + x) * 4) as usize, pixel);
        }
    }
}

fn animate(
    handle: &DisplayHandle,
    arguments: &Arguments,
    done: &mpsc::Receiver<FlushToken>,
) -> Result<(), Box<dyn Error>> {
    let (width, height) = arguments.size;
    let pages = Pages::new((width * height * 4) as usize, arguments.importable);
    draw(&pages, (width, height), 0..width, 0);
    let layout = PictureLayout {
        offset: 0,
        stride: width * 4,
        width,
        height,
        format: PixelFormat::B8G8R8X8,
    };
    handle.set_scanout(0, Some(Picture::new(pages.clone(), layout)?))?;
    handle.set_cursor(0, Some(cursor()?))?;
    handle.set_status("test pattern")?;
    let start = Instant::now();
    for step in 0u32.. {
        // A moving band, so that the damage is smaller than the picture.
        let left = (step * 4) % (width / 2);
        draw(&pages, (width, height), left..left + width / 4, step);
        let damage = Rect {
            x: left,
            y: 0,
            width: width / 4,
            height,
        };
        handle.flush(0, damage, Some(FlushToken(step.into())))?;
        let angle = f64::from(step) / 40.0;
        let at = |side: u32, wave: f64| (f64::from(side) * (0.5 + 0.4 * wave)) as i32;
        handle.move_cursor(0, at(width, angle.cos()), at(height, angle.sin()))?;
        done.recv_timeout(Duration::from_secs(5))?;
        let passed = start.elapsed();
        if let Some(file) = &arguments.shot
            && passed > Duration::from_secs(2)
        {
            handle.screenshot(0, file)?;
            break;
        }
        if arguments
            .seconds
            .is_some_and(|seconds| passed > Duration::from_secs(seconds))
        {
            println!(
                "{:.1} frames a second",
                f64::from(step) / passed.as_secs_f64()
            );
            break;
        }
        let next = arguments.frame * (step + 1);
        std::thread::sleep(next.saturating_sub(passed));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let (answered, done) = mpsc::channel();
    let events = Box::new(move |event| match event {
        DisplayEvent::FlushDone(token) => {
            // Fails only at the end, when nobody listens any more.
            let _ = answered.send(token);
        }
        event => println!("{event:?}"),
    });
    let (display, handle) = Display::new(arguments.options.clone(), events)?;
    std::thread::scope(|scope| {
        let arguments = &arguments;
        scope.spawn(move || {
            if let Err(error) = animate(&handle, arguments, &done) {
                eprintln!("{error}");
            }
            handle.quit();
        });
        display.run()
    })?;
    Ok(())
}
