//! [`IsolatedContexts`]: makes contexts that live in workers, and keeps a spare worker warm.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hesper_system::sync::Lock;
use hesper_venus::{ContextEvents, Counters, DisplayServer, Error, RendererOptions};

use super::context::IsolatedContext;
use super::house::House;
use super::start::start;
use super::state::Owner;
use super::worker::Worker;
use crate::contexts::{CAPSET_SIZE, Contexts, GRACE, TraceError, VenusContext};
use crate::isolation::spawner::{Spawner, Starter};
use crate::{limits, platform};

/// How long it waits for those that it killed.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// The worker that waits for the next context.
#[derive(Default)]
struct Spare {
    worker: Option<Arc<Worker>>,
    /// There are no more contexts.
    is_closed: bool,
}

/// A maker of contexts that live in processes of their own.
pub(crate) struct IsolatedContexts {
    capset: [u8; CAPSET_SIZE],
    house: Arc<House>,
    spare: Mutex<Spare>,
}

impl IsolatedContexts {
    /// Starts the first worker at once. `capset` is what guests are told of Venus, `findings` the
    /// bytes of what was found of the GPUs. Of the `options`, the budgets and limits are taken; the
    /// workers have the others from the spawner.
    pub(crate) fn start(
        spawner: Arc<Spawner>,
        capset: [u8; CAPSET_SIZE],
        findings: Vec<u8>,
        options: &RendererOptions,
    ) -> Arc<Self> {
        Arc::new(Self::with(spawner, capset, findings, options))
    }

    /// The same with another way to start processes.
    pub(super) fn with(
        starter: Arc<dyn Starter>,
        capset: [u8; CAPSET_SIZE],
        findings: Vec<u8>,
        options: &RendererOptions,
    ) -> Self {
        let contexts = Self {
            capset,
            house: Arc::new(House::new(starter, options, pieces(options), findings)),
            spare: Mutex::default(),
        };
        contexts.start_spare();
        contexts
    }

    /// Starts a spare, unless there is one, or the last has failed.
    fn start_spare(&self) {
        let failed = &self.house.spare_failed;
        let mut spare = self.spare.locked();
        if spare.worker.is_some()
            || spare.is_closed
            || failed.load(Ordering::SeqCst)
            || !self.house.pools.has_context()
        {
            return;
        }
        match start(&self.house) {
            Ok(worker) => spare.worker = Some(worker),
            Err(error) => {
                if !failed.swap(true, Ordering::SeqCst) {
                    log::warn!("no process waits for the next context: {error}");
                }
            }
        }
    }

    /// Makes a worker a context: the spare, or else a new one.
    fn begin(&self, owner: Owner) -> Result<Arc<Worker>, String> {
        let spare = {
            let mut spare = self.spare.locked();
            if spare.is_closed {
                return Err("Hesper ends".to_owned());
            }
            spare.worker.take()
        };
        let owner = match spare {
            None => owner,
            Some(spare) => match spare.begin(owner) {
                Ok(()) => return Ok(spare),
                Err(owner) => owner,
            },
        };
        let worker = start(&self.house)?;
        match worker.begin(owner) {
            Ok(()) => Ok(worker),
            Err(_) => Err("its process ended at once".to_owned()),
        }
    }

    /// The numbers of all workers.
    #[cfg(test)]
    pub(super) fn workers(&self) -> Vec<u64> {
        self.house.census.numbers()
    }

    /// Whether the next context will have a spare.
    #[cfg(test)]
    pub(super) fn has_no_failed_spare(&self) -> bool {
        !self.house.spare_failed.load(Ordering::SeqCst)
    }

    /// Ends the spare; there is no further one.
    fn close(&self) {
        let mut spare = self.spare.locked();
        spare.is_closed = true;
        if let Some(spare) = spare.worker.take() {
            spare.discard();
        }
    }
}

impl Contexts for IsolatedContexts {
    fn capset(&self) -> [u8; CAPSET_SIZE] {
        self.capset
    }

    fn create_context(
        &self,
        id: u32,
        name: &str,
        server: DisplayServer,
        events: Arc<dyn ContextEvents>,
    ) -> Result<Arc<dyn VenusContext>, String> {
        let pools = &self.house.pools;
        let place = pools.context().ok_or_else(|| {
            let most = usize::try_from(pools.most_contexts()).unwrap_or(usize::MAX);
            Error::TooManyContexts(most).to_string()
        })?;
        let lane = self.house.traces.lane(id);
        let owner = Owner {
            id,
            name: hesper_venus::name_for_logs(name),
            server,
            events: Arc::clone(&events),
            lane: lane.clone(),
            _place: place,
        };
        let worker = self.begin(owner)?;
        self.start_spare();
        Ok(Arc::new(IsolatedContext::new(worker, events, lane)))
    }

    fn counters(&self) -> Counters {
        let mut counters = self.house.census.counters();
        let outliving = self.house.pools.outliving();
        counters.shared_bytes = counters.shared_bytes.saturating_add(outliving);
        counters
    }

    fn start_trace(&self) -> Result<(), TraceError> {
        self.house.traces.start()
    }

    fn stop_trace(&self) -> Result<Vec<u8>, TraceError> {
        self.house.traces.stop()
    }

    fn settle(&self) {
        self.close();
        let census = &self.house.census;
        if census.wait(GRACE) == 0 {
            return;
        }
        let contexts = census.counters().contexts;
        log::warn!(
            "{contexts} programs of the guest have not ended after {GRACE:?}; their processes are killed"
        );
        (0..contexts).for_each(|_| census.add_given_up());
        for number in census.numbers() {
            self.house.starter.kill(number);
        }
        let left = census.wait(KILL_PATIENCE);
        if left > 0 {
            log::error!("{left} processes of contexts do not end though they were killed");
        }
    }
}

impl Drop for IsolatedContexts {
    fn drop(&mut self) {
        self.close();
    }
}

/// How many pieces of shared memory this process may have: each takes a mapping and a descriptor.
/// An eighth of the descriptors is for sockets and events. Three eighths of the mappings are for
/// the guest's own memory and the window's driver.
fn pieces(options: &RendererOptions) -> u64 {
    let descriptors = options.descriptors.map(|most| most as u64);
    let descriptors = descriptors.or_else(limits::descriptors_now);
    let mappings = options.mappings.map(|most| most as u64);
    let mappings = mappings.or_else(platform::max_map_count);
    let all = u64::MAX;
    let (descriptors, mappings) = (descriptors.unwrap_or(all), mappings.unwrap_or(all));
    (descriptors - descriptors / 8).min(mappings / 8 * 5)
}
