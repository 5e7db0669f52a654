//! The renderer of a [`Client`](super::client::Client): the trait [`Backend`], which Hesper's
//! renderer implements.

use std::sync::Arc;

use hesper_system::budget::Charge;
use hesper_venus::{BlobRequest, Context, ContextEvents, Renderer};

/// Size of the Venus capability set in bytes.
pub(crate) const CAPSET_SIZE: usize = 160;

/// A renderer for Venus clients.
pub(crate) trait Backend: Send + Sync {
    /// The bytes of the Venus capability set.
    fn capset(&self) -> [u8; CAPSET_SIZE];

    /// Makes a context; see [`Renderer::create_context`].
    ///
    /// # Errors
    /// Why the context cannot be created.
    fn create_context(
        &self,
        id: u32,
        name: &str,
        events: Arc<dyn ContextEvents>,
    ) -> Result<Box<dyn BackendContext>, String>;
}

/// A context of a [`Backend`]: the calls of [`Context`], with the same meaning.
pub(crate) trait BackendContext: Send {
    /// Submits commands; see [`Context::submit_charged`].
    fn submit(&self, commands: Vec<u8>, charge: Charge);
    /// Creates a fence; see [`Context::fence`].
    fn fence(&self, ring: u8, fence: u64);
    /// Creates a blob; see [`Context::create_blob`].
    fn create_blob(&self, resource: u32, request: BlobRequest);
    /// Detaches a resource; see [`Context::detach_resource`].
    fn detach_resource(&self, resource: u32);
}

impl Backend for Renderer {
    fn capset(&self) -> [u8; CAPSET_SIZE] {
        Renderer::capset(self)
    }

    fn create_context(
        &self,
        id: u32,
        name: &str,
        events: Arc<dyn ContextEvents>,
    ) -> Result<Box<dyn BackendContext>, String> {
        match Renderer::create_context(self, id, name, events) {
            Ok(context) => Ok(Box::new(context)),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl BackendContext for Context {
    fn submit(&self, commands: Vec<u8>, charge: Charge) {
        Context::submit_charged(self, commands, charge);
    }
    fn fence(&self, ring: u8, fence: u64) {
        Context::fence(self, ring, fence);
    }
    fn create_blob(&self, resource: u32, request: BlobRequest) {
        Context::create_blob(self, resource, request);
    }
    fn detach_resource(&self, resource: u32) {
        Context::detach_resource(self, resource);
    }
}
