//! A cross-domain context in the device: every call becomes a message to the context's thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use hesper_vhost::budget::Charge;
use hesper_vhost::renderer::{Blob, BlobRequest, Context, ResourceId};

use super::instance;
use super::mailbox::{Mailbox, Message};
use super::shared::Shared;

/// One guest context.
pub(super) struct CrossDomainContext {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
}

impl CrossDomainContext {
    /// Starts the context's thread.
    pub(super) fn start(compositor: PathBuf, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (sender, mailbox) = mpsc::channel();
        let sender = Arc::new(sender);
        let for_blobs = Arc::downgrade(&sender);
        let thread_shared = Arc::clone(&shared);
        thread::Builder::new()
            .name(format!("wayland-{}", shared.life.id))
            .spawn(move || {
                instance::run(&compositor, &thread_shared, &mailbox, &for_blobs);
            })?;
        Ok(Self {
            shared,
            mailbox: sender,
        })
    }

    fn post(&self, message: Message) {
        self.shared.life.charge(message.weight());
        // Fails when the thread has ended. It has answered every request by then.
        let _ = self.mailbox.send(message);
    }
}

impl Context for CrossDomainContext {
    fn submit(&self, commands: Vec<u8>, charge: Charge) {
        if self.shared.life.is_running() {
            self.post(Message::Submit(commands, charge));
        }
    }

    fn fence(&self, ring: u8, fence: u64) {
        if self.shared.life.open(ring, fence) {
            self.post(Message::Fence(ring, fence));
        }
    }

    fn create_blob(&self, resource: ResourceId, request: BlobRequest) {
        if self.shared.life.is_running() {
            self.post(Message::CreateBlob(resource, request));
        } else {
            let error = self.shared.life.lost_error();
            self.shared.life.answer_blob(resource, Err(error));
        }
    }

    fn attach_resource(&self, resource: ResourceId, blob: &Blob) {
        if self.shared.life.is_running() {
            self.post(match &blob.guest {
                Some(pages) => Message::AttachGuest(resource, Arc::clone(pages)),
                None => Message::AttachHost(resource),
            });
        }
    }

    fn detach_resource(&self, resource: ResourceId) {
        if self.shared.life.is_running() {
            self.post(Message::Detach(resource));
        }
    }
}

impl Drop for CrossDomainContext {
    fn drop(&mut self) {
        self.shared.life.end();
    }
}
