//! The cases, one module per subject. Each case is a function that gets a device of its own and
//! returns an [`crate::outcome::Outcome`].

use std::ffi::CStr;

use crate::gpu::Gpu;
use crate::outcome::Outcome;

mod compute;
mod copies;
mod core14;
mod descriptors;
mod device;
mod drawing;
mod events;
mod fences;
mod host_copies;
mod large;
mod lost;
mod memory;
mod pipelines;
mod queries;
mod queues;
mod ray_tracing;
mod semaphores;
mod shared_pictures;
mod sparse;
mod synchronization2;
mod threads;

/// One case.
pub(crate) struct Case {
    /// Its name on the command line and in the results.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) run: fn(&Gpu<'_>) -> Outcome,
}

const fn case(name: &'static str, run: fn(&Gpu<'_>) -> Outcome) -> Case {
    Case { name, run }
}

/// Every case, in the order in which `all` runs them.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        device::CASES,
        core14::CASES,
        fences::CASES,
        semaphores::CASES,
        events::CASES,
        synchronization2::CASES,
        queries::CASES,
        queues::CASES,
        memory::CASES,
        copies::CASES,
        host_copies::CASES,
        compute::CASES,
        drawing::CASES,
        descriptors::CASES,
        pipelines::CASES,
        ray_tracing::CASES,
        shared_pictures::CASES,
        sparse::CASES,
        large::CASES,
        threads::CASES,
        lost::CASES,
    ]
    .into_iter()
    .flatten()
}

/// The name of an extension, for the reason of a skip.
fn named(extension: &CStr) -> &str {
    extension.to_str().unwrap_or("extension")
}
