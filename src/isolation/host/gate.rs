//! [`Gate`]: how many workers may load the driver at the same time.
//!
//! To load a driver takes a processor for as long as it lasts. A guest that opens fifty contexts at
//! once would take all processors of the host, and programs that draw would lose frames. So workers
//! start one after the other, or a few at a time on a large machine. If more and more wait, the
//! gate rests after each for as long as it took. What is sent to a worker that waits stays in its
//! socket.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hesper_system::sync::{Lock, Wait};

/// A worker that takes longer to load makes no other wait.
const LONGEST: Duration = Duration::from_secs(1);

/// So many come in one after the other without a rest.
const FREE: u32 = 8;

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
    /// How many have loaded since nobody waited.
    streak: u32,
    /// Nobody comes in before.
    rests_until: Option<Instant>,
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

    /// A worker loads no more.
    fn has_loaded(&mut self, worker: u64, now: Instant) {
        let place = self.loading.iter().position(|(other, _)| *other == worker);
        let Some(place) = place else {
            return;
        };
        let (_, since) = self.loading.swap_remove(place);
        self.streak = match self.waiting.is_empty() {
            true => 0,
            false => self.streak.saturating_add(1),
        };
        let took = now.saturating_duration_since(since).min(LONGEST);
        self.rests_until = (self.streak > FREE).then(|| now + took);
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
            let rest = state
                .rests_until
                .map_or(Duration::ZERO, |end| end.saturating_duration_since(now));
            let has_place = place == 0 && state.loading.len() < self.places && rest.is_zero();
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
            // Only the first looks again after the rest. It tells the next one.
            let patience = match place {
                0 if !rest.is_zero() => rest,
                _ => LONGEST,
            };
            state = bell.waited_for(state, patience).0;
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
        state.has_loaded(worker, Instant::now());
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
    fn the_gate_rests_when_more_and_more_come() {
        let gate = Arc::new(Gate::new(1));
        let (sender, told) = mpsc::channel();
        let all = 2 * u64::from(FREE);
        (1..=all).for_each(|worker| come(&gate, worker, &sender));
        for worker in 1..=all {
            assert_eq!(told.recv_timeout(PATIENCE), Ok((worker, true)));
            gate.leave(worker);
            let rests = gate.state.locked().rests_until.is_some();
            assert_eq!(rests, worker > FREE.into() && worker < all, "{worker}");
        }
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
