//! What the threads share of one context: its open fences, and whether it still runs.
//!
//! The device's thread opens fences, and the library's thread retires them. Either may find that
//! the context cannot go on. [`Life`] retires each fence exactly once, whatever happens.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use hesper_system::LogLimit;
use hesper_system::sync::Lock;
use hesper_vhost::renderer::{Blob, Completions, ContextId, RendererError, ResourceId};

use super::backlog::Backlog;

/// Limits the log lines of lost contexts: a guest can lose as many as it likes.
static LOST_CONTEXTS: LogLimit = LogLimit::new("hesper");

/// The kind of a context, for the log.
pub(super) struct Kind {
    /// The name of the capability set.
    pub(super) name: &'static str,
    /// The reason in the log when more than [`super::backlog::MOST`] bytes wait for the library.
    pub(super) overflow: &'static str,
}

struct Fences {
    running: bool,
    /// Ring and number of the open fences, oldest first.
    open: VecDeque<(u8, u64)>,
}

/// A context's open fences, and whether it still runs.
pub(super) struct Life {
    /// The device's id of the context.
    pub(super) id: ContextId,
    /// The guest's name for it, for logs.
    name: String,
    kind: &'static Kind,
    completions: Arc<dyn Completions>,
    fences: Mutex<Fences>,
    /// Bytes of messages that wait for the library.
    pub(super) backlog: Backlog,
    /// Counts this context against the limit on contexts until it is dropped.
    _slot: Arc<()>,
}

impl Life {
    /// The life of a new context. `slot` is held until it is dropped.
    pub(super) fn new(
        kind: &'static Kind,
        id: ContextId,
        name: &str,
        completions: Arc<dyn Completions>,
        slot: Arc<()>,
    ) -> Self {
        Self {
            id,
            name: name.to_owned(),
            kind,
            completions,
            fences: Mutex::new(Fences {
                running: true,
                open: VecDeque::new(),
            }),
            backlog: Backlog::default(),
            _slot: slot,
        }
    }

    fn fences(&self) -> MutexGuard<'_, Fences> {
        self.fences.locked()
    }

    /// The guest's name for the context; may be empty.
    #[cfg(feature = "virgl")]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the context is neither lost nor ended.
    pub(super) fn is_running(&self) -> bool {
        self.fences().running
    }

    /// Whether a fence has not retired yet.
    #[cfg(feature = "virgl")]
    pub(super) fn has_open_fences(&self) -> bool {
        !self.fences().open.is_empty()
    }

    /// Notes a new fence. True when the library will retire it. False when the context has ended:
    /// the fence is retired at once.
    pub(super) fn open(&self, ring: u8, fence: u64) -> bool {
        {
            let mut fences = self.fences();
            if fences.running {
                fences.open.push_back((ring, fence));
                return true;
            }
        }
        self.completions.fence_retired(self.id, ring, fence);
        false
    }

    /// Retires an open fence, and those before it on the same ring. Does nothing when it is retired
    /// already.
    pub(super) fn retire(&self, ring: u8, fence: u64) {
        self.retire_open(|fences| {
            let found = fences.open.iter().position(|one| *one == (ring, fence));
            let Some(index) = found else {
                return Vec::new();
            };
            let mut retired = Vec::new();
            let mut at = 0..;
            fences.open.retain(|one| {
                let stays = at.next() > Some(index) || one.0 != ring;
                if !stays {
                    retired.push(*one);
                }
                stays
            });
            retired
        });
    }

    /// Retires the open fences of all rings up to this number. The numbers of a context only grow.
    #[cfg(feature = "virgl")]
    pub(super) fn retire_up_to(&self, fence: u64) {
        self.retire_open(|fences| {
            let count = fences.open.partition_point(|(_, open)| *open <= fence);
            fences.open.drain(..count).collect()
        });
    }

    /// Reports the fences that `take` removes, after the lock is released: a report may call this
    /// context again.
    fn retire_open(&self, take: impl FnOnce(&mut Fences) -> Vec<(u8, u64)>) {
        let retired = take(&mut self.fences());
        for (ring, fence) in retired {
            self.completions.fence_retired(self.id, ring, fence);
        }
    }

    /// Marks the context as lost: logs the reason and retires its open fences.
    pub(super) fn lose(&self, reason: &str) {
        if self.stop() {
            LOST_CONTEXTS.warn(format_args!(
                "{} context {} ({:?}) is lost: {reason}",
                self.kind.name, self.id, self.name
            ));
        }
    }

    /// Ends the context at the guest's request and retires its open fences.
    pub(super) fn end(&self) {
        self.stop();
    }

    /// Retires all open fences and refuses new ones. Returns whether the context was running.
    fn stop(&self) -> bool {
        let mut was_running = false;
        self.retire_open(|fences| {
            was_running = std::mem::replace(&mut fences.running, false);
            fences.open.drain(..).collect()
        });
        was_running
    }

    /// Answers a request for a blob.
    pub(super) fn answer_blob(&self, resource: ResourceId, result: Result<Blob, RendererError>) {
        self.completions.blob_created(self.id, resource, result);
    }

    /// The error for requests to a context that has ended.
    pub(super) fn lost_error(&self) -> RendererError {
        RendererError::ContextLost(format!("{} context {}", self.kind.name, self.id))
    }

    /// Charges a message of that many bytes to the backlog. The context is lost when too much
    /// waits.
    pub(super) fn charge(&self, bytes: usize) {
        if !self.backlog.add(bytes) {
            self.lose(self.kind.overflow);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::rutabaga::backlog::MOST;

    static KIND: Kind = Kind {
        name: "test",
        overflow: "too much waits",
    };

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

    /// A running context with these open fences.
    fn context(open: &[(u8, u64)]) -> (Life, Arc<Retired>, Arc<()>) {
        let (retired, slot) = (Arc::new(Retired::default()), Arc::new(()));
        let life = Life::new(&KIND, 1, "", Arc::clone(&retired) as _, Arc::clone(&slot));
        for (ring, fence) in open {
            assert!(life.open(*ring, *fence));
        }
        (life, retired, slot)
    }

    #[cfg(feature = "virgl")]
    #[test]
    fn fences_of_all_rings_retire_in_order_and_each_once() {
        let (life, retired, slot) = context(&[(0, 10), (3, 12), (0, 15)]);
        life.retire_up_to(9);
        assert_eq!(*retired.0.lock().unwrap(), []);
        // The library may name only the last of several fences.
        life.retire_up_to(12);
        life.retire_up_to(10);
        assert_eq!(*retired.0.lock().unwrap(), [(0, 10), (3, 12)]);
        life.lose("a test");
        assert!(!life.open(1, 20));
        let all = [(0, 10), (3, 12), (0, 15), (1, 20)];
        assert_eq!(*retired.0.lock().unwrap(), all);
        drop(life);
        assert_eq!(Arc::strong_count(&slot), 1);
    }

    #[test]
    fn a_fence_retires_those_before_it_on_its_ring_alone() {
        let (life, retired, _slot) = context(&[(0, 1), (1, 2), (0, 3), (0, 4)]);
        life.retire(0, 3);
        life.retire(0, 3);
        assert_eq!(*retired.0.lock().unwrap(), [(0, 1), (0, 3)]);
        life.end();
        life.end();
        assert_eq!(*retired.0.lock().unwrap(), [(0, 1), (0, 3), (1, 2), (0, 4)]);
    }

    #[test]
    fn a_context_that_floods_the_library_is_lost() {
        let (life, ..) = context(&[]);
        life.charge(MOST);
        assert!(life.is_running());
        life.backlog.remove(1);
        life.charge(1);
        assert!(life.is_running());
        life.charge(1);
        assert!(!life.is_running());
    }
}
