//! [`SyncFiles`]: which semaphores of a device got their payload from a sync file, and which can
//! give theirs to one.
//!
//! Both are about binary semaphores (Vulkan 1.4, 7.4.3, "Importing Semaphore Payloads").

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hesper_system::sync::Lock;
use hesper_venus_protocol::vk;

/// Semaphores of a device, by the driver's handles.
#[derive(Default)]
pub(crate) struct SyncFiles {
    known: Mutex<Known>,
    /// Whether any semaphore is known, readable without the lock. The guest creates or imports a
    /// semaphore before it submits with it.
    is_used: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// Semaphores that are signalled by an imported payload. The driver knows nothing of it.
    imported: HashSet<u64>,
    /// Semaphores that may be exported, and the queue that was last asked to signal them.
    exportable: HashMap<u64, Option<vk::Queue>>,
}

/// Where the payload is that a guest exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// It was imported, so the driver's semaphore is not signalled.
    Imported,
    /// This queue signals the driver's semaphore.
    On(vk::Queue),
    /// A queue signals it, but which is not known.
    Somewhere,
}

/// A submission, with its waits and signals.
pub(crate) trait Submission {
    /// Takes out the waits for binary semaphores of which `is_signalled` says yes. It asks once for
    /// each wait, in their order.
    fn drop_waits(&mut self, is_signalled: &mut dyn FnMut(vk::Semaphore) -> bool);

    /// Calls `see` for each semaphore that is signalled.
    fn signals(&self, see: &mut dyn FnMut(vk::Semaphore));
}

impl SyncFiles {
    /// A semaphore from which a sync file may be exported.
    pub(crate) fn exportable(&self, semaphore: vk::Semaphore) {
        self.known.locked().exportable.insert(semaphore.0, None);
        self.is_used.store(true, Ordering::Release);
    }

    /// A semaphore got the payload of a signalled sync file. The next wait for it takes the payload
    /// away again.
    pub(crate) fn import(&self, semaphore: vk::Semaphore) {
        self.known.locked().imported.insert(semaphore.0);
        self.is_used.store(true, Ordering::Release);
    }

    /// Takes the payload of a semaphore for a sync file.
    pub(crate) fn export(&self, semaphore: vk::Semaphore) -> Payload {
        let mut known = self.known.locked();
        if known.imported.remove(&semaphore.0) {
            return Payload::Imported;
        }
        match known.exportable.get(&semaphore.0) {
            Some(Some(queue)) => Payload::On(*queue),
            _ => Payload::Somewhere,
        }
    }

    /// Prepares submissions to `queue`: takes out waits for imported payloads, and returns the
    /// semaphores that lost theirs by that. If the driver refuses the submissions, they must be
    /// [imported](Self::import) again.
    pub(crate) fn submit<S: Submission>(
        &self,
        queue: vk::Queue,
        submissions: &mut [S],
    ) -> Vec<vk::Semaphore> {
        let mut taken = Vec::new();
        if !self.is_used.load(Ordering::Acquire) {
            return taken;
        }
        let mut known = self.known.locked();
        let Known {
            imported,
            exportable,
        } = &mut *known;
        for submission in submissions {
            if !imported.is_empty() {
                submission.drop_waits(&mut |semaphore| {
                    let is_signalled = imported.remove(&semaphore.0);
                    if is_signalled {
                        taken.push(semaphore);
                    }
                    is_signalled
                });
            }
            submission.signals(&mut |semaphore| {
                if let Some(by) = exportable.get_mut(&semaphore.0) {
                    *by = Some(queue);
                }
            });
        }
        taken
    }

    /// Forgets a semaphore, which is being destroyed.
    pub(crate) fn remove(&self, semaphore: u64) {
        if !self.is_used.load(Ordering::Acquire) {
            return;
        }
        let mut known = self.known.locked();
        known.imported.remove(&semaphore);
        known.exportable.remove(&semaphore);
        let is_used = !known.imported.is_empty() || !known.exportable.is_empty();
        self.is_used.store(is_used, Ordering::Release);
    }
}
