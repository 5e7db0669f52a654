//! A virgl context in the device: every call becomes a message to the library's thread.

use std::sync::Arc;

use hesper_vhost::budget::Charge;
use hesper_vhost::renderer::{Blob, BlobRequest, Context, RendererError, ResourceId};

use super::mailbox::{Mailbox, Message};
use crate::rutabaga::life::Life;

/// One guest context.
pub(super) struct VirglContext {
    life: Arc<Life>,
    mailbox: Arc<Mailbox>,
}

impl VirglContext {
    pub(super) fn start(life: Arc<Life>, capset: u32, mailbox: Arc<Mailbox>) -> Self {
        mailbox.post(Message::CreateContext(Arc::clone(&life), capset));
        Self { life, mailbox }
    }

    fn post(&self, message: impl FnOnce(Arc<Life>) -> Message) {
        if self.life.is_running() {
            self.mailbox.post(message(Arc::clone(&self.life)));
        }
    }
}

impl Context for VirglContext {
    fn submit(&self, commands: Vec<u8>, charge: Charge) {
        self.post(|life| Message::Submit(life, commands, charge));
    }

    fn fence(&self, ring: u8, fence: u64) {
        if self.life.open(ring, fence) {
            self.mailbox
                .post(Message::Fence(Arc::clone(&self.life), fence));
        }
    }

    fn create_blob(&self, resource: ResourceId, _request: BlobRequest) {
        // The library's buffers have no descriptor that a VMM could map, and the guest is not
        // offered blobs.
        let error = RendererError::Invalid("virgl contexts have no blobs".to_owned());
        self.life.answer_blob(resource, Err(error));
    }

    fn attach_resource(&self, resource: ResourceId, _blob: &Blob) {
        log::debug!(
            "resource {resource} is not a 3D resource: the virgl context {} cannot use it",
            self.life.id
        );
    }

    fn attach_3d(&self, resource: ResourceId) {
        self.post(|life| Message::AttachResource(life, resource));
    }

    fn detach_resource(&self, resource: ResourceId) {
        self.post(|life| Message::DetachResource(life, resource));
    }
}

impl Drop for VirglContext {
    fn drop(&mut self) {
        self.life.end();
        self.mailbox
            .post(Message::DestroyContext(Arc::clone(&self.life)));
    }
}
