//! Hesper's windows: they show what a guest's scanouts show.
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
//! # How a frame comes about
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
//! - `scanout/` is where the sides meet: damage, frame pacing, and the promise that every
//!   [`FlushToken`] is answered exactly once.
//! - `layout.rs` says where picture, bars and cursor go. Two presenters follow it: the Vulkan one
//!   (`presenter/vulkan/`: guest memory imported, one copy of the damage, one draw) and the CPU one
//!   (`presenter/cpu.rs` with `canvas.rs`, which also makes headless screenshots).
//! - `event_loop/` and `window.rs` are the main thread's part: opening, resizing, closing,
//!   titles, and replacing a presenter whose surface or device is lost.
//! - `label.rs` draws text; `scanout/osd.rs` knows what is said where: messages, notices, the overlay with the figures
//!   of `statistics.rs`; `close_dialog.rs` is what a window asks before it closes.
//! - `record.rs` writes presented frames to files; `window_positions.rs` keeps the windows' places.
//! - `input/` turns what a person does in a window into events for the guest's devices; `desktop.rs` says where on the
//!   guest's desktop a window's picture is, `host_pointer.rs` shows the guest's cursor as the window system's.
//!
//! The crate knows neither virtio nor Venus: pixels come as [`PixelMemory`], a trait the program
//! implements.

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
