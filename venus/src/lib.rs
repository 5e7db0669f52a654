//! Hesper's Venus renderer: Vulkan commands in, host Vulkan calls out.
//!
//! A Venus guest driver (Mesa's `virtio` Vulkan driver) serialises Vulkan calls. This crate decodes
//! them and calls the host's driver. It knows no virtio, no socket and no window. It takes bytes,
//! shared memory and fences. A virtio-gpu device, a vtest socket and a test drive it in the same
//! way.
//!
//! # Use
//! ```no_run
//! # use std::sync::Arc;
//! # use hesper_venus::{BlobError, Blob, BlobRequest, ContextEvents, DisplayServer};
//! # use hesper_venus::{Renderer, RendererOptions};
//! struct Events;
//! impl ContextEvents for Events {
//!     fn fence_retired(&self, ring: u8, fence: u64) { println!("fence {fence} of ring {ring}"); }
//!     fn blob_created(&self, resource: u32, blob: Result<Blob, BlobError>) {
//!         println!("{resource}: {:?}", blob.is_ok());
//!     }
//!     fn lost(&self, reason: &str) { println!("lost: {reason}"); }
//! }
//! # fn main() -> hesper_venus::Result<()> {
//! let renderer = Renderer::new(RendererOptions::default())?;
//! let capset: [u8; 160] = renderer.capset();            // tell the guest
//! let context = renderer.create_context(1, "vkcube", DisplayServer::Unknown, Arc::new(Events))?;
//! let request = BlobRequest {
//!     blob_id: 0,
//!     size: 4096,
//!     mappable: true,
//!     shareable: false,
//!     cross_device: false,
//! };
//! context.create_blob(7, request);
//! // blob_created(7, Ok(blob)) arrives. The guest maps blob.memory and may use the resource.
//! // For another context: other.attach_resource(7, &blob);
//! context.submit(vec![]);                               // commands, consumed in order
//! context.fence(0, 1);                                  // retires when they are consumed
//! # Ok(()) }
//! ```
//!
//! # How a command travels
//! [`Context`] hands every call to a thread of its own, so the device never waits. Most commands
//! come another way: the guest makes *rings* in shared memory (`ring`), and a thread polls each of
//! them. Both kinds of threads decode commands (`executor`, `session`) and call their handlers
//! (`command`). A handler finds objects by the guest's ids, without a lock, in the object table
//! (`object::table`). It calls the host's driver through function tables that hold only what the
//! guest enabled. What the guest expects and the host lacks is emulated in `emulate`, nowhere else.
//!
//! # Rules
//! - What a guest can rewrite is copied before it is checked.
//! - A guest's mistake ends its context ([`ContextEvents::lost`]), nothing else.
//! - Device memory that a guest can map is shared memory that the host's driver imports. Guest,
//!   host and GPU see the same pages. A self-test at start proves it.
//! - Dropping a [`Context`] frees all its host objects, mappings and descriptors.

mod bells;
mod blob;
mod capset;
mod command;
mod command_stream;
mod context;
mod counters;
mod emulate;
mod error;
mod executor;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]
mod executor_tests;
mod fatal;
mod grants;
mod guest_pools;
pub mod host;
pub mod memory;
mod object;
mod options;
mod platform;
mod renderer;
mod reply_stream;
mod report;
mod ring;
mod rules;
mod saved_stream;
mod session;
pub mod trace;

pub use bells::Bells;
pub use blob::{Blob, BlobError, BlobRequest, Caching};
pub use context::Context;
pub use context::events::ContextEvents;
pub use context::state::name_for_logs;
pub use counters::Counters;
pub use error::{Error, Result};
pub use grants::{Grants, Resource};
pub use memory::{GuestPages, Lender, Mappings, SharedMemory};
pub use options::{
    Budget, DisplayServer, Driver, GpuSelection, GuestBudget, RenderNode, RendererOptions,
    WsiPolicy,
};
pub use renderer::Renderer;
pub use report::Report;

/// Reads the key that shows which pipeline-cache data may go back to the driver, or makes it. It
/// lies in the user's state folder. [`Renderer::new`] does this, too; a program that confines
/// itself before that calls this first.
pub fn read_cache_key() {
    object::cache_seal::CacheSeal::of_user();
}
