//! What the threads share of one context: its open fences, and whether it still lives.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hesper_vhost::renderer::{Blob, Completions, ContextId, RendererError, ResourceId};

use crate::rutabaga::LOST_CONTEXTS;
use crate::rutabaga::backlog::Backlog;

struct State {
    running: bool,
    /// Ring and number of the open fences, oldest first. The library has one timeline for all rings.
    open: VecDeque<(u8, u64)>,
}

/// See the module.
pub(super) struct Life {
    pub(super) id: ContextId,
    name: String,
    completions: Arc<dyn Completions>,
    state: Mutex<State>,
    /// What waits for the library.
    pub(super) backlog: Backlog,
    /// Counts the contexts.
    contexts: Arc<AtomicUsize>,
}

impl Life {
    pub(super) fn new(
        id: ContextId,
        name: &str,
        completions: Arc<dyn Completions>,
        contexts: Arc<AtomicUsize>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            name: name.to_owned(),
            completions,
            state: Mutex::new(State {
                running: true,
                open: VecDeque::new(),
            }),
            backlog: Backlog::default(),
            contexts,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_running(&self) -> bool {
        self.state().running
    }

    pub(super) fn has_open_fences(&self) -> bool {
        !self.state().open.is_empty()
    }

    /// Notes a new fence. Says whether the library will retire it; else it is retired.
    pub(super) fn open(&self, ring: u8, fence: u64) -> bool {
        {
            let mut state = self.state();
            if state.running {
                state.open.push_back((ring, fence));
                return true;
            }
        }
        self.completions.fence_retired(self.id, ring, fence);
        false
    }

    /// Retires the fences up to this number, which only grow.
    pub(super) fn retire(&self, fence: u64) {
        let retired: Vec<_> = {
            let mut state = self.state();
            let count = state.open.partition_point(|(_, open)| *open <= fence);
            state.open.drain(..count).collect()
        };
        for (ring, fence) in retired {
            self.completions.fence_retired(self.id, ring, fence);
        }
    }

    /// The context breaks; what waits for it waits no more.
    pub(super) fn lose(&self, reason: &str) {
        if self.end() {
            LOST_CONTEXTS.warn(format_args!(
                "virgl context {} ({:?}) is lost: {reason}",
                self.id, self.name
            ));
        }
    }

    /// The context ends; says whether it was running.
    pub(super) fn end(&self) -> bool {
        let was_running = std::mem::replace(&mut self.state().running, false);
        self.retire(u64::MAX);
        was_running
    }

    pub(super) fn answer_blob(&self, resource: ResourceId, result: Result<Blob, RendererError>) {
        self.completions.blob_created(self.id, resource, result);
    }

    /// Takes room for a message; the context is lost when there is none.
    pub(super) fn take_room(&self, bytes: usize) {
        if !self.backlog.add(bytes) {
            self.lose("more than 64 MiB wait for virglrenderer, which is busy");
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.contexts.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::rutabaga::backlog::MOST;

    #[derive(Default)]
    struct Retired(Mutex<Vec<(u8, u64)>>);

    impl Completions for Retired {
        fn fence_retired(&self, _context: ContextId, ring: u8, fence: u64) {
            self.0.lock().unwrap().push((ring, fence));
        }

        fn blob_created(
            &self,
            _context: ContextId,
            _resource: ResourceId,
            _result: Result<Blob, RendererError>,
        ) {
        }
    }

    #[test]
    fn fences_of_all_rings_retire_in_order_and_each_once() {
        let retired = Arc::new(Retired::default());
        let contexts = Arc::new(AtomicUsize::new(1));
        let life = Life::new(1, "", Arc::clone(&retired) as _, Arc::clone(&contexts));
        for (ring, fence) in [(0, 10), (3, 12), (0, 15)] {
            assert!(life.open(ring, fence));
        }
        life.retire(9);
        assert_eq!(*retired.0.lock().unwrap(), []);
        // The library may say the last one of several only.
        life.retire(12);
        life.retire(10);
        assert_eq!(*retired.0.lock().unwrap(), [(0, 10), (3, 12)]);
        life.lose("a test");
        assert!(!life.open(1, 20));
        assert_eq!(
            *retired.0.lock().unwrap(),
            [(0, 10), (3, 12), (0, 15), (1, 20)]
        );
        drop(life);
        assert_eq!(contexts.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_context_that_floods_the_library_is_lost() {
        let contexts = Arc::new(AtomicUsize::new(1));
        let life = Life::new(1, "", Arc::new(Retired::default()), contexts);
        life.take_room(MOST);
        assert!(life.is_running());
        life.backlog.remove(1);
        life.take_room(1);
        assert!(life.is_running());
        life.take_room(1);
        assert!(!life.is_running());
    }
}
