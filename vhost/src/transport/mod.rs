//! The vhost-user transport: it puts a [`Device`] behind a unix socket, for QEMU and other VMMs.
//!
//! ```no_run
//! # use hesper_vhost::transport::{GpuBackend, Server};
//! # fn backend() -> GpuBackend { unimplemented!() }
//! # fn main() -> Result<(), hesper_vhost::transport::Error> {
//! let mut server = Server::bind("/run/user/1000/gpu.sock".as_ref())?;
//! let stop = server.shutdown_handle(); // for a signal handler's thread
//! server.serve(&mut backend)?; // one VM after the other, until `stop.shutdown()`
//! # drop(stop);
//! # Ok(())
//! # }
//! ```
//!
//! Every connection gets a fresh [`GpuBackend`]. When the VM goes away, its device, threads and
//! descriptors go with it, and the next connection starts clean.
//!
//! | file | what it knows |
//! |---|---|
//! | `server`, `listener` | listening sockets, serving one VM after the other |
//! | `pending_connections`, `stop` | connections that are silent yet; shutting down |
//! | `messages` | what the VMM asks: one message after the other, calls `connection` |
//! | `wire` | layouts and numbers of the messages |
//! | `model` | what a device is to the transport: the GPU, or an input device |
//! | `memory`, `mapped_blobs` | the regions of guest memory, and which of them are our own blobs |
//! | `connection` | the rules: features, starting and stopping queues, when the device is reset |
//! | `ring`, `worker` | one virtqueue and its thread |
//! | `vmm_link`, `backend_channel` | requests of the device: answers, maps, config changes |
//! | `console` | the GPU socket of QEMU's classic device: a screen drawn by QEMU |
//!
//! # Threads
//!
//! The thread that calls [`Server::serve`] reads messages. Each queue has a thread, so that the
//! cursor moves while a long command runs. The GPU socket has one when QEMU offers it. The hard
//! thing is waiting: QEMU's main loop waits for us in some messages, and we wait for it in others.
//! `connection`, `backend_channel` and `console` each say how their waits end.

mod backend_channel;
mod connection;
mod console;
mod error;
pub(crate) mod features;
mod interrupt;
mod listener;
mod mapped_blobs;
mod memory;
mod messages;
mod model;
mod pending_connections;
mod ring;
mod server;
mod socket;
mod stop;
mod vmm_link;
pub(crate) mod wire;
mod worker;

use std::sync::Arc;

pub use console::GpuSocketScreen;
pub use error::Error;
pub use listener::{Access, MAX_PATH, SocketFile, check_length, listen};
pub use server::{Server, ShutdownHandle};

use crate::device::Device;

/// What serves one VM.
pub struct GpuBackend {
    /// A device in its reset state that had no transport before.
    pub device: Arc<Device>,
    /// Size in bytes of the device's host-visible window: 0 for none, else a power of two.
    pub host_visible_size: u64,
    /// The device's screen, when QEMU's own console shows it (`--display=qemu`). With `None`, a GPU
    /// socket that QEMU offers is still accepted and answered, but nothing is drawn there.
    pub console: Option<Arc<GpuSocketScreen>>,
}
