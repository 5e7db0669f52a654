//! The virtio-gpu device of Hesper, its input devices, and the vhost-user transport that carries
//! them.
//!
//! A program makes a device for each VM that connects, and serves it:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use hesper_vhost::device::{Device, DeviceOptions};
//! use hesper_vhost::screen::NoScreen;
//! use hesper_vhost::transport::{Error, GpuBackend, Server};
//!
//! # fn serve(options: DeviceOptions) -> Result<(), Error> {
//! Server::bind("/run/user/1000/gpu.sock".as_ref())?.serve(&mut || GpuBackend {
//!     device: Arc::new(Device::new(options.clone(), Arc::new(NoScreen), Vec::new())),
//!     host_visible_size: options.host_visible_size,
//!     console: None,
//! })
//! # }
//! ```
//!
//! A [`device::Device`] is the whole device model of virtio-v1.4 §5.7, without any transport. It
//! takes descriptor chains and guest memory, and answers them. It draws on a
//! [`screen::ScanoutSink`] and renders with a set of [`renderer::Renderer`]s. Both are traits, so
//! that a window, QEMU's own console, a test, Venus and rutabaga plug in alike. The [`transport`]
//! module puts a device behind a vhost-user socket.
//!
//! The way of a request is one line: transport → [`device`] → command family → renderer or screen →
//! (fence) → answer. The only calls back up this line go through [`device::Transport`] and
//! [`renderer::Completions`].
//!
//! The code has four floors, and imports go down only:
//!
//! 1. [`device`] and [`transport`]: what a program uses.
//! 2. `dispatch.rs`, `command/`: commands are carried out, one file for each family.
//! 3. `engine/`: the state of the guest, and the answers.
//! 4. Plain things below: resources, fences, chains, pixels, [`wire`] layouts.
//!
//! | to find | look in |
//! |---|---|
//! | layouts and numbers of the wire | [`wire`] |
//! | a command as the guest sent it | `request.rs`, `chain.rs` |
//! | what a command does | `command/`, one file for each family |
//! | how a command is held, deferred, answered | `fence.rs`, `deferred.rs`, `engine/` |
//! | what the guest's ids name | `resource.rs`, `backing.rs`, `surface.rs` |
//! | the host-visible window | `hostmem.rs` |
//! | keyboards, pointers, touch | [`input`] |
//! | vhost-user: sockets, messages, queues | [`transport`] |
//! | limits | [`budget`] |
//! | why a command is refused | `error.rs` |

pub mod budget;
pub mod device;
pub mod input;
pub mod renderer;
pub mod resource3d;
pub mod screen;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transport;
pub mod wire;

mod backing;
mod chain;
mod command;
mod copy_pipeline;
mod deferred;
mod dispatch;
mod edid;
mod engine;
mod error;
mod exchange;
mod fence;
mod guest_framebuffer;
mod guest_pages;
mod hostmem;
mod options;
mod pixels;
mod queue;
mod request;
mod resource;
mod response;
mod surface;
mod system;
