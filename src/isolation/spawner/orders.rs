//! [`Orders`]: what the main process has ordered and the spawner does not have yet.
//!
//! A guest can make a thousand contexts at once. If as many processes loaded their drivers at once,
//! nothing else would get a processor for minutes. So only some load at a time, and the others
//! start when these have loaded, or have ended.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::frame::{DESCRIPTORS, Frame, Outbox};

/// A worker that loads its driver for longer holds nobody up any more.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is ordered.
#[derive(Debug)]
pub(super) struct Orders {
    outbox: Outbox,
    /// Workers that were started and load their drivers, and since when.
    loading: HashMap<u64, Instant>,
    /// How many may do so.
    most: usize,
    /// Workers that are not started yet.
    queued: VecDeque<(u64, [OwnedFd; DESCRIPTORS])>,
    /// Workers that were killed before they started.
    cancelled: Vec<u64>,
}

impl Orders {
    pub(super) fn new(most: usize) -> Self {
        Self {
            outbox: Outbox::default(),
            loading: HashMap::new(),
            most,
            queued: VecDeque::new(),
            cancelled: Vec::new(),
        }
    }

    /// Starts a worker, perhaps later.
    pub(super) fn start(&mut self, worker: u64, sockets: [OwnedFd; DESCRIPTORS], now: Instant) {
        self.queued.push_back((worker, sockets));
        self.advance(now);
    }

    /// A worker has loaded its driver, or has ended.
    pub(super) fn is_loaded(&mut self, worker: u64, now: Instant) {
        if self.loading.remove(&worker).is_some() {
            self.advance(now);
        }
    }

    /// Starts a worker that is queued, however many load.
    pub(super) fn hasten(&mut self, worker: u64, now: Instant) {
        let place = self.place(worker);
        if let Some((worker, sockets)) = place.and_then(|place| self.queued.remove(place)) {
            self.load(worker, sockets, now);
        }
    }

    fn place(&self, worker: u64) -> Option<usize> {
        self.queued.iter().position(|(queued, _)| *queued == worker)
    }

    fn load(&mut self, worker: u64, sockets: [OwnedFd; DESCRIPTORS], now: Instant) {
        self.loading.insert(worker, now);
        self.outbox.push(Frame::Start { worker }, sockets.into());
    }

    /// Kills a worker, or cancels its start.
    pub(super) fn kill(&mut self, worker: u64) {
        match self.place(worker) {
            Some(place) => {
                self.queued.remove(place);
                self.cancelled.push(worker);
            }
            None => self.outbox.push(Frame::Kill { worker }, Vec::new()),
        }
    }

    /// Starts as many as may load.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.queued.is_empty() {
            return;
        }
        self.loading
            .retain(|_, since| now.saturating_duration_since(*since) < PATIENCE);
        while self.loading.len() < self.most
            && let Some((worker, sockets)) = self.queued.pop_front()
        {
            self.load(worker, sockets, now);
        }
    }

    /// The workers that were killed before they started, once.
    pub(super) fn take_cancelled(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.cancelled)
    }

    /// Sends as much as the socket takes.
    ///
    /// # Errors
    /// The other end is gone.
    pub(super) fn flush(&mut self, socket: &UnixStream) -> io::Result<()> {
        self.outbox.flush(socket)
    }

    /// Whether something waits for the socket.
    pub(super) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether workers wait for their start.
    pub(super) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Whether there is something for the thread to do.
    pub(super) fn is_waiting(&self) -> bool {
        self.has_unsent() || self.has_queued() || !self.cancelled.is_empty()
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.outbox.clear();
        self.queued.clear();
        self.cancelled.clear();
        self.loading.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Inbox, Received};
    use super::*;

    /// The frames that were sent.
    fn sent(orders: &mut Orders) -> Vec<Frame> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        orders.flush(&ours).unwrap();
        let mut inbox = Inbox::default();
        let mut frames = Vec::new();
        while let Received::Frame(frame, _) = inbox.receive(&theirs).unwrap() {
            frames.push(frame);
        }
        frames
    }

    fn sockets() -> [OwnedFd; DESCRIPTORS] {
        let (one, other) = UnixStream::pair().unwrap();
        [one.into(), other.into()]
    }

    #[test]
    fn only_so_many_workers_load_their_drivers_at_a_time() {
        let now = Instant::now();
        let start = |worker| Frame::Start { worker };
        let mut orders = Orders::new(2);
        for worker in 1..=6 {
            orders.start(worker, sockets(), now);
        }
        assert_eq!(sent(&mut orders), [start(1), start(2)]);
        // One that waits is killed, and one that loads.
        orders.kill(4);
        orders.kill(2);
        assert_eq!(orders.take_cancelled(), [4]);
        assert_eq!(orders.take_cancelled(), [0; 0]);
        assert_eq!(sent(&mut orders), [Frame::Kill { worker: 2 }]);
        orders.is_loaded(2, now);
        orders.is_loaded(4, now);
        assert_eq!(sent(&mut orders), [start(3)]);
        // Drivers that do not return hold the others up for a while.
        orders.advance(now + PATIENCE / 2);
        assert_eq!(sent(&mut orders), []);
        orders.advance(now + PATIENCE);
        assert_eq!(sent(&mut orders), [start(5), start(6)]);
        assert!(!orders.is_waiting());
    }

    #[test]
    fn a_worker_for_which_somebody_waits_starts_before_all_others() {
        let now = Instant::now();
        let start = |worker| Frame::Start { worker };
        let mut orders = Orders::new(1);
        for worker in 1..=3 {
            orders.start(worker, sockets(), now);
        }
        assert_eq!(sent(&mut orders), [start(1)]);
        orders.hasten(3, now);
        // These have started, or never will.
        orders.hasten(3, now);
        orders.hasten(1, now);
        orders.hasten(9, now);
        assert_eq!(sent(&mut orders), [start(3)]);
        orders.is_loaded(1, now);
        assert_eq!(sent(&mut orders), []);
        orders.is_loaded(3, now);
        assert_eq!(sent(&mut orders), [start(2)]);
    }
}
