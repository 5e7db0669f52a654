//! [`Gate`]: how many workers may load the driver at the same time.
//!
//! To load a driver takes a processor for as long as it lasts. A guest that opens fifty contexts at
//! once would take all processors of the host, and programs that draw would lose frames. So workers
//! start one after the other, or a few at a time on a large machine. What is sent to a worker that
//! waits stays in its socket.
//!
//! The gate does not rest between them: a pause after each worker, as long as it took to load, made
//! four programs that were started again and again 20 to 50 % slower.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hesper_system::sync::{Lock, Wait};

/// A worker that takes longer to load makes no other wait.
const LONGEST: Duration = Duration::from_secs(1);

/// Lets workers in, in the order in which they came.
#[derive(Debug)]
pub(super) struct Gate {
    places: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Those that load, and since when.
    loading: Vec<(u64, Instant)>,
}

#[derive(Debug)]
struct Waiting {
    worker: u64,
    /// Tells it that something has changed.
    bell: Arc<Condvar>,
    /// It need not wait for a place.
    is_urgent: bool,
}

impl State {
    fn place(&self, worker: u64) -> Option<usize> {
        self.waiting.iter().position(|other| other.worker == worker)
    }

    fn tell_first(&self) {
        if let Some(first) = self.waiting.front() {
            first.bell.notify_all();
        }
    }
}

impl Default for Gate {
    /// Half of the processors may load.
    fn default() -> Self {
        Self::new(thread::available_parallelism().map_or(1, |all| all.get() / 2))
    }
}

impl Gate {
    /// A gate for so many at the same time, at least one.
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            state: Mutex::default(),
        }
    }

    /// This worker comes last.
    pub(super) fn queue(&self, worker: u64) {
        self.state.locked().waiting.push_back(Waiting {
            worker,
            bell: Arc::default(),
            is_urgent: false,
        });
    }

    /// Waits until this worker may load. False when it [left](Gate::leave).
    pub(super) fn enter(&self, worker: u64) -> bool {
        let mut state = self.state.locked();
        loop {
            let now = Instant::now();
            state.loading.retain(|(_, since)| now - *since < LONGEST);
            let Some(place) = state.place(worker) else {
                return false;
            };
            let has_place = place == 0 && state.loading.len() < self.places;
            let Some(own) = state.waiting.get(place) else {
                return false;
            };
            if has_place || own.is_urgent {
                state.waiting.remove(place);
                state.loading.push((worker, now));
                // There may be another place.
                state.tell_first();
                return true;
            }
            let bell = Arc::clone(&own.bell);
            state = bell.waited_for(state, LONGEST).0;
        }
    }

    /// Somebody waits for this worker, so it may load now if it has not begun to.
    pub(super) fn hasten(&self, worker: u64) {
        let mut state = self.state.locked();
        let place = state.place(worker);
        if let Some(own) = place.and_then(|place| state.waiting.get_mut(place)) {
            own.is_urgent = true;
            own.bell.notify_all();
        }
    }

    /// This worker waits no more, and loads no more.
    pub(super) fn leave(&self, worker: u64) {
        let mut state = self.state.locked();
        let place = state.place(worker);
        if let Some(own) = place.and_then(|place| state.waiting.remove(place)) {
            own.bell.notify_all();
        }
        state.loading.retain(|(other, _)| *other != worker);
        state.tell_first();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A worker that comes now. It tells whether it was let in.
    fn come(gate: &Arc<Gate>, worker: u64, told: &mpsc::Sender<(u64, bool)>) {
        gate.queue(worker);
        let (gate, told) = (Arc::clone(gate), told.clone());
        thread::spawn(move || told.send((worker, gate.enter(worker))));
    }

    #[test]
    fn workers_come_in_one_after_the_other() {
        let gate = Arc::new(Gate::new(0));
        let (sender, told) = mpsc::channel();
        (1..=4).for_each(|worker| come(&gate, worker, &sender));
        for worker in 1..=4 {
            assert_eq!(told.recv_timeout(PATIENCE), Ok((worker, true)));
            assert_eq!(gate.state.locked().loading.len(), 1);
            gate.leave(worker);
        }
        assert!(gate.state.locked().loading.is_empty());
    }

    #[test]
    fn who_leaves_while_it_waits_is_not_let_in_and_holds_nobody_up() {
        let gate = Arc::new(Gate::new(1));
        let (sender, told) = mpsc::channel();
        come(&gate, 1, &sender);
        assert_eq!(told.recv_timeout(PATIENCE), Ok((1, true)));
        (2..=3).for_each(|worker| come(&gate, worker, &sender));
        gate.leave(2);
        assert_eq!(told.recv_timeout(PATIENCE), Ok((2, false)));
        gate.leave(1);
        assert_eq!(told.recv_timeout(PATIENCE), Ok((3, true)));
        gate.queue(4);
        gate.leave(4);
        assert!(!gate.enter(4), "it left before it waited");
        (5..=6).for_each(|worker| come(&gate, worker, &sender));
        gate.hasten(6);
        assert_eq!(told.recv_timeout(PATIENCE), Ok((6, true)));
        gate.leave(5);
        assert_eq!(told.recv_timeout(PATIENCE), Ok((5, false)));
    }

    #[test]
    fn who_never_ends_to_load_holds_the_others_up_for_a_moment_only() {
        let gate = Arc::new(Gate::new(2));
        let (sender, told) = mpsc::channel();
        (1..=3).for_each(|worker| come(&gate, worker, &sender));
        let mut all: Vec<_> = (0..3).map(|_| told.recv_timeout(PATIENCE)).collect();
        all.sort_by_key(|told| told.map_or(0, |(worker, _)| worker));
        assert_eq!(all, [Ok((1, true)), Ok((2, true)), Ok((3, true))]);
    }
}
