//! Commands of `VkEvent`: the driver carries out all of them as they are.

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
