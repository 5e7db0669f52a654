//! Hesper's windows: they show a guest's scanouts and take keyboard, pointer and touch input.
//!
//! The program makes a [`Display`] on its main thread and gives the [`DisplayHandle`] to the
//! device:
//!
//! ```no_run
//! # use hesper_display::*;
//! # fn picture() -> Picture { unimplemented!() }
//! # fn main() -> Result<(), DisplayError> {
//! let events = Box::new(|event| println!("{event:?}"));
//! let (display, handle) = Display::new(DisplayOptions::default(), events)?;
//! std::thread::spawn(move || {
//!     handle.set_scanout(0, Some(picture()))?;
//!     handle.flush(0, Rect::whole(1280, 800), Some(FlushToken(1)))
//! });
//! display.run() // until the window is closed
//! # }
//! ```
//!
//! # The way of a frame
//!
//! ```text
//! device thread                     presenter thread (one per window)      main thread
//! set_scanout, flush, cursor  ──►  Scanout: damage, cursor, tokens   ◄──  size, visibility
//!                                      │ next(): one Frame for any number of flushes
//!                                      ▼
//!                     copy damage from guest memory ─► compose ─► present
//!                                      │
//! FlushDone(token)  ◄──────────────────┘
//! ```
//!
//! # Where things are
//!
//! Files on each floor use those below and know nothing above.
//!
//! - For the program: `display.rs` for its main thread, `handle.rs` for the device's threads.
//! - The main thread: `event_loop/` opens, closes and hides windows and routes input; `window.rs`
//!   is one window. Without windows `headless.rs` takes their place.
//! - Drawing: `presenter/` has a thread for each window, with Vulkan (`vulkan/`) or the CPU
//!   (`cpu.rs`). `screenshot.rs` makes screenshots.
//! - Where the threads meet: `scanout/` has the damage, frame pacing, the texts on the screen, and
//!   the promise that every [`FlushToken`] is answered exactly once. `shared.rs` holds all
//!   scanouts.
//! - Input: `input/` turns keys, pointer and touch into evdev events. `desktop.rs` says where a
//!   window is on the guest's desktop. `host_pointer.rs` shows the guest's cursor as the host's.
//! - Tools: `layout.rs` (what goes where in a window), `canvas.rs` (composition on the CPU),
//!   `label.rs` (text), `close_dialog.rs`, `record.rs`, `statistics.rs`, `window_positions.rs`,
//!   `platform/`.
//! - Plain words: `options.rs`, `events.rs`, `error.rs`, `monitor.rs`, `picture.rs`, `cursor.rs`,
//!   `damage.rs`, `frame.rs`, `frame_image.rs`, `request.rs`.
//!
//! The crate knows neither virtio nor Venus: pixels come as [`PixelMemory`], a trait that the
//! program implements.

mod canvas;
mod close_dialog;
mod cursor;
mod damage;
mod desktop;
mod display;
mod error;
mod event_loop;
mod events;
mod frame;
mod frame_image;
mod handle;
mod headless;
mod host_pointer;
mod icon;
mod input;
mod label;
mod layout;
mod monitor;
mod options;
mod picture;
mod platform;
mod presenter;
mod record;
mod request;
mod scanout;
mod screenshot;
mod shared;
mod statistics;
#[cfg(test)]
mod testing;
mod window;
mod window_positions;

pub use cursor::{Cursor, MAX_CURSOR_SIZE};
pub use display::Display;
pub use error::DisplayError;
pub use events::{DisplayEvent, FlushToken};
pub use handle::DisplayHandle;
pub use input::{
    CmdKey, GrabMod, INPUT_AXIS_MAX, INPUT_CONTACTS, InputEvent, InputKind, InputSink,
    KeyboardLeds, KeyboardOptions,
};
pub use layout::Scaling;
pub use options::{DisplayOptions, MAX_SCANOUTS, OnClose, Renderer, Resize, VulkanEntry};
pub use picture::{MAX_SIZE, Picture, PictureLayout, PixelFormat, PixelMemory, Rect};
pub use statistics::{FrameStatistics, LATENCY_CLASSES};
