//! The calls that wait for a context's thread: a bounded first-in-first-out queue.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use hesper_system::budget::Charge;
use hesper_system::share::Share;
use hesper_system::sync::{Lock, Wait};

use super::resources::Attachment;
use crate::blob::BlobRequest;
use crate::object::queue::GuestFence;

/// A call of [`crate::Context`].
#[derive(Debug)]
pub(crate) enum Message {
    /// Consume commands, and give back what they are charged with.
    Submit(Vec<u8>, Charge),
    /// Make a fence.
    Fence(GuestFence),
    /// Make a blob.
    CreateBlob {
        /// The caller's id.
        resource: u32,
        /// What is wanted.
        request: BlobRequest,
    },
    /// Forget a resource, unless it was attached anew since.
    Detach(Attachment),
    /// The context is lost.
    Lost,
    /// End the context.
    Stop,
}

#[derive(Default)]
struct Queue {
    /// Each with its place of the guest's.
    messages: VecDeque<(Message, Charge)>,
    /// The context's thread waits for the next message.
    is_waiting: bool,
    /// Of the commands in `messages`.
    bytes: usize,
}

impl Message {
    /// How many bytes of commands it holds.
    fn bytes(&self) -> usize {
        match self {
            Self::Submit(commands, _) => commands.len(),
            _ => 0,
        }
    }
}

/// The queue.
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    filled: Condvar,
    places: Arc<Share>,
    limit_bytes: usize,
}

impl Mailbox {
    /// An empty queue. Each message takes one of `places`. It takes `limit_bytes` of commands in
    /// all; a single batch of commands may be larger.
    pub(crate) fn new(places: Arc<Share>, limit_bytes: usize) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Condvar::new(),
            places,
            limit_bytes,
        }
    }

    /// Appends a message, or gives it back when the queue is full.
    pub(crate) fn send(&self, message: Message) -> Result<(), Message> {
        let mut queue = self.queue.locked();
        let bytes = message.bytes();
        let is_too_much = queue.bytes > 0 && queue.bytes.saturating_add(bytes) > self.limit_bytes;
        let place = match is_too_much {
            true => None,
            false => self.places.charge(1),
        };
        let Some(place) = place else {
            return Err(message);
        };
        queue.bytes += bytes;
        queue.messages.push_back((message, place));
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Appends a message even when the queue is full.
    pub(crate) fn force(&self, message: Message) {
        let mut queue = self.queue.locked();
        queue.bytes += message.bytes();
        queue.messages.push_back((message, Charge::default()));
        drop(queue);
        self.filled.notify_one();
    }

    /// Whether every message was taken and carried out. The next call may then be carried out by
    /// any thread.
    pub(crate) fn is_idle(&self) -> bool {
        let queue = self.queue.locked();
        queue.is_waiting && queue.messages.is_empty()
    }

    /// Takes the oldest message, or waits for one. The caller has carried out the one before.
    pub(crate) fn receive(&self) -> Message {
        loop {
            if let Some(message) = self.receive_within(None) {
                return message;
            }
        }
    }

    /// The same, for at most so long.
    pub(crate) fn receive_within(&self, patience: Option<Duration>) -> Option<Message> {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut queue = self.queue.locked();
        loop {
            if let Some((message, _place)) = queue.messages.pop_front() {
                queue.is_waiting = false;
                queue.bytes -= message.bytes();
                return Some(message);
            }
            queue.is_waiting = true;
            let Some(until) = until else {
                queue = self.filled.waited(queue);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The caller does something else now.
                queue.is_waiting = false;
                return None;
            }
            queue = self.filled.waited_for(queue, left).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use hesper_system::budget::Pool;

    use super::*;

    /// A mailbox for so many messages.
    fn mailbox(limit: u64, limit_bytes: usize) -> Mailbox {
        Mailbox::new(Share::new(&Pool::new(1000), limit), limit_bytes)
    }

    #[test]
    fn messages_come_out_in_order_and_the_limit_holds() {
        let mailbox = mailbox(2, 100);
        mailbox
            .send(Message::Submit(vec![1], Charge::default()))
            .unwrap();
        mailbox
            .send(Message::Submit(vec![2], Charge::default()))
            .unwrap();
        assert!(matches!(
            mailbox.send(Message::Submit(vec![3], Charge::default())),
            Err(Message::Submit(bytes, _)) if bytes == [3]
        ));
        mailbox.force(Message::Stop);
        assert_eq!(mailbox.places.used(), 2);
        assert!(matches!(mailbox.receive(), Message::Submit(bytes, _) if bytes == [1]));
        assert!(matches!(mailbox.receive(), Message::Submit(bytes, _) if bytes == [2]));
        assert!(matches!(mailbox.receive(), Message::Stop));
    }

    #[test]
    fn bytes_have_a_limit_that_one_large_batch_may_exceed() {
        let mailbox = mailbox(10, 8);
        mailbox
            .send(Message::Submit(vec![0; 100], Charge::default()))
            .unwrap();
        assert!(
            mailbox
                .send(Message::Submit(vec![0; 1], Charge::default()))
                .is_err()
        );
        mailbox.receive();
        mailbox
            .send(Message::Submit(vec![0; 5], Charge::default()))
            .unwrap();
        assert!(
            mailbox
                .send(Message::Submit(vec![0; 4], Charge::default()))
                .is_err()
        );
        mailbox
            .send(Message::Submit(vec![0; 3], Charge::default()))
            .unwrap();
    }

    #[test]
    fn it_is_idle_only_while_its_reader_waits() {
        let mailbox = mailbox(2, 100);
        assert!(!mailbox.is_idle(), "nobody reads yet");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                mailbox.receive();
                assert!(!mailbox.is_idle(), "a message is being carried out");
                mailbox.receive();
            });
            while !mailbox.is_idle() {
                std::thread::yield_now();
            }
            mailbox
                .send(Message::Submit(vec![], Charge::default()))
                .unwrap();
            mailbox.send(Message::Stop).unwrap();
        });
    }
}
