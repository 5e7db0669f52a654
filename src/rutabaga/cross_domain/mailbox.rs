//! The messages to a context's thread.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};

use hesper_vhost::renderer::{BlobRequest, GuestPages, ResourceId};

use super::shared::BlobBytes;

/// The way to a context's thread.
pub(super) type Mailbox = Sender<Message>;

/// What a context's thread is asked to do.
pub(super) enum Message {
    Submit(Vec<u8>),
    Fence(u8, u64),
    CreateBlob(ResourceId, BlobRequest),
    AttachGuest(ResourceId, Arc<dyn GuestPages>),
    AttachHost(ResourceId),
    Detach(ResourceId),
    /// Nobody has this blob any more.
    Forget(ResourceId, u64),
}

impl Message {
    /// Bytes that it takes of the queue while it waits, about.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Submit(commands) => commands.len() + 64,
            // As many as there are blobs, which have a limit.
            Self::Forget(..) => 0,
            _ => 64,
        }
    }
}

/// Goes with a blob to the device. When the device drops the last one, the context forgets the blob.
pub(super) struct Origin {
    pub(super) resource: ResourceId,
    pub(super) generation: u64,
    pub(super) size: u64,
    pub(super) budget: Arc<BlobBytes>,
    pub(super) mailbox: Weak<Mailbox>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.budget.give_back(self.size);
        if let Some(mailbox) = self.mailbox.upgrade() {
            // The device may hold its locks here: nothing may be reported.
            let _ = mailbox.send(Message::Forget(self.resource, self.generation));
        }
    }
}
