//! Commands of `VkAccelerationStructureKHR`.

use hesper_venus_protocol::command::WriteAccelerationStructuresPropertiesKHR;
use hesper_venus_protocol::{CommandId, vk};

use super::shape::{Family, create, destroy, forward, special};
use crate::fatal::Fatal;
use crate::session::{Session, call, name};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        WriteAccelerationStructuresPropertiesKHR => write_properties,
    ),
    create!(
        CreateAccelerationStructureKHR => p_acceleration_structure,
    ),
    destroy!(
        DestroyAccelerationStructureKHR => acceleration_structure,
    ),
    forward!(
        GetAccelerationStructureBuildSizesKHR,
        GetAccelerationStructureDeviceAddressKHR,
        GetDeviceAccelerationStructureCompatibilityKHR,
    ),
];

/// Whether `count` elements of `size` bytes each fit into `room` bytes.
fn fits(count: u32, size: u64, room: usize) -> bool {
    u64::from(count)
        .checked_mul(size)
        .is_some_and(|bytes| bytes <= room as u64)
}

/// `vkWriteAccelerationStructuresPropertiesKHR`
fn write_properties(
    session: &mut Session<'_>,
    c: &mut WriteAccelerationStructuresPropertiesKHR<'_>,
) -> Result<vk::Result, Fatal> {
    if !fits(
        c.acceleration_structure_count,
        c.stride as u64,
        c.p_data.len(),
    ) || c.stride < 8
    {
        return Err(Fatal::Invalid {
            command: name(CommandId::WriteAccelerationStructuresPropertiesKHR),
            reason: "the properties do not fit",
        });
    }
    call(session, c)
}
