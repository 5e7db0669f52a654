//! Commands of `VkEvent`: all of them are the driver's own.

use super::shape::{Family, create, destroy, forward};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    create!(
        CreateEvent => p_event,
    ),
    destroy!(
        DestroyEvent => event,
    ),
    forward!(GetEventStatus, SetEvent, ResetEvent),
];
