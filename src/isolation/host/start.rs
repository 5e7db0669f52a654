//! Starts a worker, with its thread in this process.

use std::sync::Arc;

use super::house::House;
use super::serve;
use super::worker::Worker;
use crate::isolation::spawner::End;

/// Starts a worker. Its process starts when there is a place for it to load the driver.
///
/// # Errors
/// The system has too little of something: of what.
pub(super) fn start(house: &Arc<House>) -> Result<Arc<Worker>, String> {
    let (worker, control, budget) = Worker::new(house)?;
    worker.enter();
    if let Err(error) = serve::start(&worker, control, budget) {
        worker.has_ended(End::NotStarted(error.to_string()));
        return Err(format!("cannot start a thread: {error}"));
    }
    Ok(worker)
}
