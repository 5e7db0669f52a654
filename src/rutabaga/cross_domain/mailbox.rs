//! Messages to a context's thread.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};

use hesper_vhost::budget::Charge;
use hesper_vhost::renderer::{BlobRequest, GuestPages, ResourceId};

use super::shared::BlobBytes;

/// Sends messages to a context's thread.
pub(super) type Mailbox = Sender<Message>;

/// A request to a context's thread.
pub(super) enum Message {
    /// With what counts the commands against the guest's budget.
    Submit(Vec<u8>, Charge),
    Fence(u8, u64),
    CreateBlob(ResourceId, BlobRequest),
    AttachGuest(ResourceId, Arc<dyn GuestPages>),
    AttachHost(ResourceId),
    Detach(ResourceId),
    /// The device has dropped this blob.
    Forget(ResourceId, u64),
}

impl Message {
    /// About how many bytes the message occupies while it waits.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Submit(commands, _) => commands.len() + 64,
            // There are at most as many as there are blobs, and blobs are limited.
            Self::Forget(..) => 0,
            _ => 64,
        }
    }
}

/// The device keeps this with a blob. When the device drops the last copy, the context removes the
/// blob.
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
            // The device may hold locks here, so nothing may be reported.
            let _ = mailbox.send(Message::Forget(self.resource, self.generation));
        }
    }
}
