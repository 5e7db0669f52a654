//! [`Contexts`] and [`VenusContext`]: the Venus renderer as its front ends use it.
//!
//! The device (`venus.rs`) and vtest use these traits. Contexts are either in this process
//! ([`hesper_venus::Renderer`]) or in processes of their own (`isolation`).

use std::sync::Arc;
use std::time::Duration;

use hesper_system::budget::Charge;
use hesper_venus::trace::{Trace, TraceFile};
use hesper_venus::{
    Blob, BlobRequest, Context, ContextEvents, Counters, DisplayServer, Error, GuestPages, Renderer,
};

/// Size of the Venus capability set in bytes.
pub(crate) const CAPSET_SIZE: usize = 160;

/// Why a trace cannot be started or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TraceError {
    /// It is recorded already.
    #[error("a trace is being recorded already; `trace stop FILE` ends it and writes it")]
    Started,
    /// It is not.
    #[error("no trace is being recorded; `trace start` begins one")]
    NotStarted,
    /// There is no memory to record in.
    #[error(
        "there is no memory to record in, as the log said when Hesper started; free some memory or descriptors and start Hesper again"
    )]
    NoMemory,
    /// There are no contexts to record.
    #[error(
        "the guest has no Vulkan, so there is nothing to record; `hesper doctor` says what is missing"
    )]
    NoVulkan,
}

/// Memory for traces, as a renderer's option. `None`, with a line in the log, when there is none.
pub(crate) fn trace_memory() -> Option<Trace> {
    let created = Trace::create();
    created
        .inspect_err(|error| log::warn!("no traces can be recorded: {error}"))
        .ok()
}

/// How long Hesper waits at its end for contexts to end.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// A maker of Venus contexts.
pub(crate) trait Contexts: Send + Sync {
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
        server: DisplayServer,
        events: Arc<dyn ContextEvents>,
    ) -> Result<Arc<dyn VenusContext>, String>;

    /// What was counted so far, in all contexts.
    fn counters(&self) -> Counters;

    /// Begins to record what the contexts' threads do.
    ///
    /// # Errors
    /// Why nothing can be recorded.
    fn start_trace(&self) -> Result<(), TraceError>;

    /// Ends the recording. Returns the file that Perfetto reads.
    ///
    /// # Errors
    /// Nothing is recorded.
    fn stop_trace(&self) -> Result<Vec<u8>, TraceError>;

    /// Waits until all contexts have ended. They must have been dropped. After two seconds, logs
    /// that some have not, and returns.
    fn settle(&self);
}

/// A context: the calls of [`Context`], with the same meaning. Dropping it ends the context.
pub(crate) trait VenusContext: Send + Sync {
    /// Submits commands; see [`Context::submit_charged`].
    fn submit(&self, commands: Vec<u8>, charge: Charge);

    /// Creates a fence; see [`Context::fence`].
    fn fence(&self, ring: u8, fence: u64);

    /// Creates a blob; see [`Context::create_blob`].
    fn create_blob(&self, resource: u32, request: BlobRequest);

    /// Attaches a blob that another context made; see [`Context::attach_resource`].
    fn attach_resource(&self, resource: u32, blob: &Blob);

    /// Attaches memory of the guest's own; see [`Context::attach_guest_memory`].
    ///
    /// # Errors
    /// The pages cannot be mapped.
    fn attach_guest_memory(&self, resource: u32, pages: &[GuestPages]) -> Result<(), Error>;

    /// Detaches a resource; see [`Context::detach_resource`].
    fn detach_resource(&self, resource: u32);
}

impl Contexts for Renderer {
    fn capset(&self) -> [u8; CAPSET_SIZE] {
        Renderer::capset(self)
    }

    fn create_context(
        &self,
        id: u32,
        name: &str,
        server: DisplayServer,
        events: Arc<dyn ContextEvents>,
    ) -> Result<Arc<dyn VenusContext>, String> {
        match Renderer::create_context(self, id, name, server, events) {
            Ok(context) => Ok(Arc::new(context)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn counters(&self) -> Counters {
        Renderer::counters(self)
    }

    fn start_trace(&self) -> Result<(), TraceError> {
        match self.trace().ok_or(TraceError::NoMemory)?.start() {
            true => Ok(()),
            false => Err(TraceError::Started),
        }
    }

    fn stop_trace(&self) -> Result<Vec<u8>, TraceError> {
        let mut file = TraceFile::default();
        let recorded = self.trace().and_then(|trace| trace.stop(file.room()));
        file.add(recorded.ok_or(TraceError::NotStarted)?);
        Ok(file.to_json())
    }

    fn settle(&self) {
        if Renderer::settle(self, GRACE) {
            return;
        }
        let given_up = Renderer::counters(self).given_up;
        if given_up > 0 {
            log::warn!(
                "{given_up} programs of the guest could not end, because the GPU's driver does not return; Hesper ends without them"
            );
        } else {
            log::warn!(
                "the GPU is still busy with the guest's programs after {GRACE:?}; Hesper ends without waiting longer"
            );
        }
    }
}

impl VenusContext for Context {
    fn submit(&self, commands: Vec<u8>, charge: Charge) {
        Context::submit_charged(self, commands, charge);
    }

    fn fence(&self, ring: u8, fence: u64) {
        Context::fence(self, ring, fence);
    }

    fn create_blob(&self, resource: u32, request: BlobRequest) {
        Context::create_blob(self, resource, request);
    }

    fn attach_resource(&self, resource: u32, blob: &Blob) {
        Context::attach_resource(self, resource, blob);
    }

    fn attach_guest_memory(&self, resource: u32, pages: &[GuestPages]) -> Result<(), Error> {
        Context::attach_guest_memory(self, resource, pages)
    }

    fn detach_resource(&self, resource: u32) {
        Context::detach_resource(self, resource);
    }
}
