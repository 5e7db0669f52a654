//! [`Context`]: one guest context as its front end holds it.
//!
//! Every call goes into the context's mailbox and returns at once. One thread per context takes the
//! calls out in order. So a fence covers what was submitted before it, and a blob finds the memory
//! object that an earlier submit made. When the guest breaks the rules, the context is *lost*: from
//! then on fences retire at once and blobs are refused, until the front end drops the context.

pub(crate) mod endings;
pub(crate) mod events;
pub(crate) mod immediate;
pub(crate) mod mailbox;
pub(crate) mod resources;
pub(crate) mod state;
pub(crate) mod thread;

use std::sync::Arc;

use hesper_system::budget::Charge;

use crate::blob::{Blob, BlobRequest};
use crate::error::Error;
use crate::memory::GuestPages;
use crate::object::queue::GuestFence;
use immediate::Immediate;
use mailbox::Message;
use state::ContextState;

/// One guest context. Dropping it ends it in the background: its threads stop, its open fences
/// retire, and everything it made is destroyed.
pub struct Context {
    state: Arc<ContextState>,
}

impl Context {
    pub(crate) fn new(state: Arc<ContextState>) -> Self {
        Self { state }
    }

    /// The id it was created with.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.state.id
    }

    /// Consumes a command stream.
    pub fn submit(&self, commands: Vec<u8>) {
        self.submit_charged(commands, Charge::default());
    }

    /// The same for bytes that are charged to a budget of the front end's, until they are consumed
    /// and freed.
    pub fn submit_charged(&self, commands: Vec<u8>, charge: Charge) {
        // Without the context's thread, the guest has its answer sooner.
        let is_done = match Immediate::of(&commands) {
            Some(Immediate::Notify(ring)) => self.state.notify_by_id(ring),
            Some(Immediate::Wait(ring, seqno)) => {
                self.state.mailbox.is_idle() && self.state.has_reached(ring, seqno)
            }
            Some(Immediate::Submitted(ring, seqno)) => {
                self.state.mailbox.is_idle() && self.state.submit_virtqueue(ring, seqno)
            }
            None => false,
        };
        if !is_done {
            self.send(Message::Submit(commands, charge));
        }
    }

    /// Makes a fence on timeline `ring`. A fence of timeline 0 retires when everything before it is
    /// consumed. A fence of another retires when the work that was submitted to the queue of that
    /// index is done.
    pub fn fence(&self, ring: u8, fence: u64) {
        self.send(Message::Fence(GuestFence {
            ring,
            id: fence,
            sent: self.state.lane.begin(),
        }));
    }

    /// Makes the memory of a blob resource. [`crate::ContextEvents::blob_created`] answers.
    ///
    /// The context may use the resource from then on, until [`Context::detach_resource`]. Mesa uses
    /// it as soon as it has mapped the blob. Linux' driver queues `CTX_ATTACH_RESOURCE` only behind
    /// the commands that make and map the blob, so a ring can be faster than the device.
    pub fn create_blob(&self, resource: u32, request: BlobRequest) {
        // Nothing is left to do before it, and it waits for nothing: no need to wake the context's
        // thread.
        if self.state.mailbox.is_idle() {
            self.state.create_blob(resource, request);
        } else {
            self.send(Message::CreateBlob { resource, request });
        }
    }

    /// Lets the context use `resource`, which another context made, from now on. It works when this
    /// returns, since a ring may use the resource before the context's thread takes the next call.
    /// A resource that is attached again is replaced.
    pub fn attach_resource(&self, resource: u32, blob: &Blob) {
        if !self.state.is_stopping() {
            self.state.resources.attach(resource, blob.clone());
        }
    }

    /// As [`Context::attach_resource`], for a blob whose memory is the guest's own. The `pages` are
    /// mapped a second time, in their order, once for all contexts that attach them.
    ///
    /// # Errors
    /// [`Error::SharedMemory`] when they are not whole pages of their files, or when guests have
    /// named too many pieces of memory (16,384 for all contexts of a renderer).
    /// [`Error::TooManyMappings`] when the system has no more mappings.
    pub fn attach_guest_memory(&self, resource: u32, pages: &[GuestPages]) -> Result<(), Error> {
        self.state.attach_guest(resource, pages)
    }

    /// Detaches `resource`, once everything before this call is done. Rings and replies that lie in
    /// it continue to work.
    ///
    /// If the memory is the guest's own, it is released before this returns, even if it is still in
    /// use: the guest has its pages back then, unless another context has attached the resource.
    pub fn detach_resource(&self, resource: u32) {
        self.state.resources.give_back(resource);
        if let Some(attachment) = self.state.resources.attachment(resource) {
            // An earlier call may still use it.
            if self.state.mailbox.is_idle() {
                self.state.resources.detach(attachment);
            } else {
                self.send(Message::Detach(attachment));
            }
        }
    }

    fn send(&self, message: Message) {
        if let Err(refused) = self.state.mailbox.send(message) {
            self.state.fail(crate::fatal::Fatal::MailboxFull);
            // A lost context carries out nothing. The queue is over its limit, but nobody may wait
            // for an answer forever.
            if !matches!(refused, Message::Submit(..)) {
                self.state.mailbox.force(refused);
            }
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Ending the context takes time, and the guest may need its memory before.
        self.state.resources.give_all_back();
        self.state.stop();
    }
}
