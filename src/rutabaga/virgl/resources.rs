//! The 3D resources of virgl as the device has them: every call is a message to the library's thread.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use hesper_vhost::renderer::{ContextId, ResourceId};
use hesper_vhost::resource3d::{
    AttachedPages, Direction, Done, Pixels, Resources3d, Shape3d, Transfer,
};
use hesper_vhost::screen::Rect;

use super::mailbox::{Mailbox, Message};

/// See the module.
pub(super) struct VirglResources {
    mailbox: Arc<Mailbox>,
}

impl VirglResources {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox }
    }
}

impl Resources3d for VirglResources {
    fn create(&self, resource: ResourceId, shape: &Shape3d, done: Done) {
        self.mailbox.post(Message::Create(resource, *shape, done));
    }

    fn destroy(&self, resource: ResourceId, done: Done) {
        self.mailbox.post(Message::Destroy(resource, done));
    }

    fn attach_memory(&self, resource: ResourceId, pages: AttachedPages, done: Done) {
        self.mailbox
            .post(Message::AttachMemory(resource, pages, done));
    }

    fn detach_memory(&self, resource: ResourceId, done: Done) {
        self.mailbox.post(Message::DetachMemory(resource, done));
    }

    fn transfer(
        &self,
        resource: ResourceId,
        context: ContextId,
        direction: Direction,
        transfer: &Transfer,
        done: Done,
    ) {
        let message = Message::Transfer(resource, context, direction, *transfer, done);
        self.mailbox.post(message);
    }

    fn read(&self, resource: ResourceId, rect: Rect, pixels: Pixels) {
        self.mailbox.post(Message::Read(resource, rect, pixels));
    }

    fn clear(&self, patience: Duration) -> bool {
        let (done, cleared) = mpsc::sync_channel(1);
        self.mailbox.post(Message::Clear(done));
        !matches!(
            cleared.recv_timeout(patience),
            Err(mpsc::RecvTimeoutError::Timeout)
        )
    }
}
