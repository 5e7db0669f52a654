//! The virtio-gpu device of Hesper, its input devices, and the vhost-user transport that carries them.
//!
//! A [`device::Device`] is the whole device model of virtio-v1.4 §5.7 without any transport: it takes
//! descriptor chains and guest memory, and answers them. What it draws on is a [`screen::ScanoutSink`],
//! what it renders with is a set of [`renderer::Renderer`]s; both are traits, so that a window, QEMU's
//! own console, a test, Venus or rutabaga plug in alike. The [`transport`] module puts a device behind
//! a vhost-user socket.
//!
//! The way of a request is one line: transport → [`device`] → command family → renderer or screen →
//! (fence) → answer. Nothing calls back up the line except through [`device::Transport`] and
//! [`renderer::Completions`].
//!
//! | to find | look in |
//! |---|---|
//! | layouts and numbers of the wire | [`wire`] |
//! | what a command does | `command/`, one file a family |
//! | keyboards, pointers, touch | [`input`] |
//! | how a command is held, parked, answered | `engine/`, `fence.rs`, `deferred.rs` |
//! | what the guest's ids name | `resource.rs`, `backing.rs`, `surface.rs`, `hostmem.rs` |
//! | how a VM gets at it | [`transport`] |
//! | limits | [`budget`] |
//! | why a command was refused | `error.rs` |

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
