//! Starts a worker, with its thread in this process.

use std::sync::Arc;

use super::house::House;
use super::serve;
use super::worker::Worker;

/// Starts a worker.
///
/// # Errors
/// The system has too little of something: of what.
pub(super) fn start(house: &Arc<House>) -> Result<Arc<Worker>, String> {
    let (worker, control, budget) = Worker::new(house)?;
    serve::start(&worker).map_err(|error| format!("cannot start a thread: {error}"))?;
    worker.spawn(control, budget);
    Ok(worker)
}
