//! The queue of the library's thread. It has a descriptor, so that the thread can also wait for the
//! library's events.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;
use hesper_vhost::budget::Charge;
use hesper_vhost::renderer::{ContextId, ResourceId};
use hesper_vhost::resource3d::{AttachedPages, Direction, Done, Pixels, Shape3d, Transfer};
use hesper_vhost::screen::Rect;
use rustix::event::{EventfdFlags, eventfd};

use crate::rutabaga::life::Life;

/// A request to the library's thread.
pub(super) enum Message {
    /// With the id of its capability set.
    CreateContext(Arc<Life>, u32),
    DestroyContext(Arc<Life>),
    /// With what counts the commands against the guest's budget.
    Submit(Arc<Life>, Vec<u8>, Charge),
    Fence(Arc<Life>, u64),
    AttachResource(Arc<Life>, ResourceId),
    DetachResource(Arc<Life>, ResourceId),
    Create(ResourceId, Shape3d, Done),
    Destroy(ResourceId, Done),
    AttachMemory(ResourceId, AttachedPages, Done),
    DetachMemory(ResourceId, Done),
    Transfer(ResourceId, ContextId, Direction, Transfer, Done),
    Read(ResourceId, Rect, Pixels),
    /// Destroys all resources. The sender is dropped when that is done.
    Clear(SyncSender<()>),
    Stop,
}

impl Message {
    /// The context that the message is for, and the bytes that it occupies in that context's
    /// backlog.
    pub(super) fn weight(&self) -> Option<(&Arc<Life>, usize)> {
        match self {
            Self::Submit(life, commands, _) => Some((life, commands.len() + 64)),
            Self::AttachResource(life, _) | Self::DetachResource(life, _) => Some((life, 64)),
            // There are only as many of the others as there are contexts or unanswered commands.
            _ => None,
        }
    }
}

struct Queue {
    /// The thread has ended: messages are dropped.
    closed: bool,
    messages: VecDeque<Message>,
}

/// The queue of the library's thread.
pub(super) struct Mailbox {
    queue: Mutex<Queue>,
    wake: OwnedFd,
}

impl Mailbox {
    pub(super) fn new() -> rustix::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            queue: Mutex::new(Queue {
                closed: false,
                messages: VecDeque::new(),
            }),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        }))
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.locked()
    }

    /// Appends a message. When the thread has ended, the message is dropped, which answers whoever
    /// waits for it.
    pub(super) fn post(&self, message: Message) {
        if let Some((life, weight)) = message.weight() {
            life.charge(weight);
        }
        let mut queue = self.queue();
        if queue.closed {
            // Dropping a message may post another one here.
            drop(queue);
            drop(message);
            return;
        }
        queue.messages.push_back(message);
        if queue.messages.len() == 1 {
            // Fails only when the counter is full of earlier wakes.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// The next message, if there is one.
    pub(super) fn take(&self) -> Option<Message> {
        let mut queue = self.queue();
        let message = queue.messages.pop_front();
        if message.is_none() {
            // Cleared under the lock that guarded the check, so that a message posted from now on
            // wakes the thread again.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        drop(queue);
        if let Some((life, weight)) = message.as_ref().and_then(Message::weight) {
            life.backlog.remove(weight);
        }
        message
    }

    /// A descriptor that is readable while there may be messages.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Closes the queue and drops what waits.
    pub(super) fn close(&self) {
        let left = {
            let mut queue = self.queue();
            queue.closed = true;
            std::mem::take(&mut queue.messages)
        };
        drop(left);
    }
}
