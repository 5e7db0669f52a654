//! The events between VMM and ring.

use std::fs::File;
use std::sync::Arc;

use hesper_system::LogLimit;

use crate::system::never_wait;

/// Limits the lines about the events of a VMM.
static EVENTS: LogLimit = LogLimit::new("hesper_vhost");

/// Prepares an event of the VMM for being signalled or read.
pub(super) fn never_blocks(event: File) -> Arc<File> {
    if let Err(error) = never_wait(&event) {
        EVENTS.warn(format_args!(
            "an event of the VMM may block a queue: {error}"
        ));
    }
    Arc::new(event)
}

/// Signals an event: an eventfd, or a pipe where there are none.
pub(super) fn write_event(event: &File) {
    match rustix::io::write(event, &1u64.to_ne_bytes()) {
        // A full event is as good as a written one.
        Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
        Err(error) => log::debug!("cannot signal the VMM: {error}"),
    }
}
