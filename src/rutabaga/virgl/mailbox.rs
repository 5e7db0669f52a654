//! The way to the library's thread: a queue with a descriptor, so that the thread can wait for the library's own events too.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;
use hesper_vhost::renderer::{ContextId, ResourceId};
use hesper_vhost::resource3d::{AttachedPages, Direction, Done, Pixels, Shape3d, Transfer};
use hesper_vhost::screen::Rect;
use rustix::event::{EventfdFlags, eventfd};

use crate::rutabaga::life::Life;

/// What the thread is asked to do.
pub(super) enum Message {
    /// With its capability set.
    CreateContext(Arc<Life>, u32),
    DestroyContext(Arc<Life>),
    Submit(Arc<Life>, Vec<u8>),
    Fence(Arc<Life>, u64),
    AttachResource(Arc<Life>, ResourceId),
    DetachResource(Arc<Life>, ResourceId),
    Create(ResourceId, Shape3d, Done),
    Destroy(ResourceId, Done),
    AttachMemory(ResourceId, AttachedPages, Done),
    DetachMemory(ResourceId, Done),
    Transfer(ResourceId, ContextId, Direction, Transfer, Done),
    Read(ResourceId, Rect, Pixels),
    /// All resources go; the sender is dropped when they have.
    Clear(SyncSender<()>),
    Stop,
}

impl Message {
    /// The context that it is for, and the bytes that it takes of that one's queue.
    pub(super) fn weight(&self) -> Option<(&Arc<Life>, usize)> {
        match self {
            Self::Submit(life, commands) => Some((life, commands.len() + 64)),
            Self::AttachResource(life, _) | Self::DetachResource(life, _) => Some((life, 64)),
            // Of the others there are as many as contexts, or as commands that are not answered.
            _ => None,
        }
    }
}

struct Queue {
    /// The thread has ended: nothing is taken any more.
    closed: bool,
    messages: VecDeque<Message>,
}

/// See the module.
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

    /// Puts a message in line. When the thread has ended, the message is dropped, and says so to who waits for it.
    pub(super) fn post(&self, message: Message) {
        if let Some((life, weight)) = message.weight() {
            life.charge(weight);
        }
        let mut queue = self.queue();
        if queue.closed {
            // What it says may come back here.
            drop(queue);
            drop(message);
            return;
        }
        queue.messages.push_back(message);
        if queue.messages.len() == 1 {
            // Fails only when it is full of wakes.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// The next message, if there is one.
    pub(super) fn take(&self) -> Option<Message> {
        let mut queue = self.queue();
        let message = queue.messages.pop_front();
        if message.is_none() {
            // Under the same lock as the look: a message that comes now wakes again.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        drop(queue);
        if let Some((life, weight)) = message.as_ref().and_then(Message::weight) {
            life.backlog.remove(weight);
        }
        message
    }

    /// Readable while there may be messages.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The thread ends: drops what waits.
    pub(super) fn close(&self) {
        let left = {
            let mut queue = self.queue();
            queue.closed = true;
            std::mem::take(&mut queue.messages)
        };
        drop(left);
    }
}
