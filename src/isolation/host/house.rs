//! [`House`]: what all workers have in common on the main process' side.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hesper_venus::{Budget, RendererOptions};

use super::books::Pools;
use super::census::Census;
use super::logs::Logs;
use super::patience::Patience;
use super::traces::Traces;
use crate::isolation::spawner::Starter;

/// How long the device waits for all workers together, whoever makes them.
const PATIENCE: Duration = Duration::from_secs(3);

/// What all workers have in common.
pub(super) struct House {
    pub(super) starter: Arc<dyn Starter>,
    pub(super) pools: Pools,
    /// What one context may take.
    pub(super) limits: Budget,
    pub(super) census: Census,
    pub(super) logs: Logs,
    pub(super) traces: Traces,
    /// The last spare has failed, and no worker has become ready since.
    pub(super) spare_failed: AtomicBool,
    /// How much longer the device waits for all workers together.
    pub(super) patience: Mutex<Patience>,
    /// What the main process has found of the GPUs, for [`ToWorker::Configure`].
    ///
    /// [`ToWorker::Configure`]: crate::isolation::message::ToWorker::Configure
    findings: Vec<u8>,
    /// A worker was ready, and none was unable since. The first has tested the driver itself,
    /// inside of its sandbox, so later ones need not.
    pub(super) is_tested: AtomicBool,
    last: AtomicU64,
}

impl House {
    /// Nothing has started yet. `pieces` is how many descriptors and mappings this process can have
    /// for blobs and rings, `findings` what it has found of the GPUs.
    pub(super) fn new(
        starter: Arc<dyn Starter>,
        options: &RendererOptions,
        pieces: u64,
        findings: Vec<u8>,
    ) -> Self {
        Self {
            starter,
            pools: Pools::new(&options.guest, options.window, pieces),
            limits: options.budget,
            census: Census::default(),
            logs: Logs::default(),
            traces: Traces::new(options.trace.clone()),
            spare_failed: AtomicBool::new(false),
            patience: Mutex::new(Patience::new(PATIENCE, Instant::now())),
            findings,
            is_tested: AtomicBool::new(false),
            last: AtomicU64::new(0),
        }
    }

    /// What a new worker is told of the GPUs. Nothing, if it must test them itself.
    pub(super) fn findings(&self) -> &[u8] {
        match self.is_tested.load(Ordering::SeqCst) {
            true => &self.findings,
            false => &[],
        }
    }

    /// A number for a new worker.
    pub(super) fn number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }
}
