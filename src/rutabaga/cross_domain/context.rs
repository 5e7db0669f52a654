//! A cross-domain context as the device has it: every call is a message to the context's thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use hesper_vhost::renderer::{Blob, BlobRequest, Context, GuestPages, ResourceId};

use super::instance;
use super::shared::Shared;

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

/// One guest context.
pub(super) struct CrossDomainContext {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    /// Held as long as the context lives.
    _place: Arc<()>,
}

impl CrossDomainContext {
    /// Starts the context's thread.
    pub(super) fn start(
        compositor: PathBuf,
        shared: Arc<Shared>,
        place: Arc<()>,
    ) -> std::io::Result<Self> {
        let (sender, mailbox) = mpsc::channel();
        let sender = Arc::new(sender);
        let for_blobs = Arc::downgrade(&sender);
        let thread_shared = Arc::clone(&shared);
        let thread_place = Arc::clone(&place);
        thread::Builder::new()
            .name(format!("wayland-{}", shared.id))
            .spawn(move || {
                instance::run(&compositor, &thread_shared, &mailbox, &for_blobs);
                drop(thread_place);
            })?;
        Ok(Self {
            shared,
            mailbox: sender,
            _place: place,
        })
    }

    fn post(&self, message: Message) {
        self.shared.take_room(message.weight());
        // Fails when the thread has ended, which it does after everything was said that there was to say.
        let _ = self.mailbox.send(message);
    }
}

impl Context for CrossDomainContext {
    fn submit(&self, commands: Vec<u8>) {
        if self.shared.is_running() {
            self.post(Message::Submit(commands));
        }
    }

    fn fence(&self, ring: u8, fence: u64) {
        if self.shared.open(ring, fence) {
            self.post(Message::Fence(ring, fence));
        }
    }

    fn create_blob(&self, resource: ResourceId, request: BlobRequest) {
        if self.shared.is_running() {
            self.post(Message::CreateBlob(resource, request));
        } else {
            let error = self.shared.lost_error();
            self.shared.answer_blob(resource, Err(error));
        }
    }

    fn attach_resource(&self, resource: ResourceId, blob: &Blob) {
        if self.shared.is_running() {
            self.post(match &blob.guest {
                Some(pages) => Message::AttachGuest(resource, Arc::clone(pages)),
                None => Message::AttachHost(resource),
            });
        }
    }

    fn detach_resource(&self, resource: ResourceId) {
        if self.shared.is_running() {
            self.post(Message::Detach(resource));
        }
    }
}

impl Drop for CrossDomainContext {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// What a blob leaves with the device: when the last one has let go of it, the context does too.
pub(super) struct Origin {
    pub(super) resource: ResourceId,
    pub(super) generation: u64,
    pub(super) size: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: std::sync::Weak<Mailbox>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.give_memory(self.size);
        if let Some(mailbox) = self.mailbox.upgrade() {
            // The device may hold its locks here: nothing may be reported.
            let _ = mailbox.send(Message::Forget(self.resource, self.generation));
        }
    }
}
