//! `VkDeviceMemory`: shared memory where the guest can map it, the driver's own memory elsewhere.
//!
//! This is decided when the memory is allocated. The guest asks for a mapping later, by a blob
//! whose id is that of the memory object.

use std::sync::Arc;

use hesper_system::budget::Charge;
use hesper_system::sync::Lock;
use hesper_venus_protocol::command::{AllocateMemory, GetMemoryResourcePropertiesMESA};
use hesper_venus_protocol::runtime::{Chained, Handle, find, find_mut, unlink};
use hesper_venus_protocol::{CommandId, vk};

use super::bind_memory;
use super::lifetime::create_object;
use super::shape::{Family, destroy, forward, special};
use crate::error::Error;
use crate::fatal::Fatal;
use crate::host::GpuKind;
use crate::memory::{SharedMemory, import_info};
use crate::object::device::{Device, Memory};
use crate::object::reclamation::Class;
use crate::session::Session;

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        AllocateMemory => allocate,
        GetMemoryResourcePropertiesMESA => resource_properties,
    ),
    destroy!(
        FreeMemory => memory,
    ),
    forward!(
        GetDeviceMemoryCommitment,
        GetDeviceMemoryOpaqueCaptureAddress,
    ),
];

/// [`crate::GuestBudget::device_memory`], for the log.
#[derive(Debug, thiserror::Error)]
#[error(
    "the guest has as much memory of the GPU as it may have, or this program as much as is fair; --gpu-memory allows more"
)]
struct NoDeviceMemory;

/// `vkAllocateMemory`
fn allocate(session: &mut Session<'_>, c: &mut AllocateMemory<'_>) -> Result<vk::Result, Fatal> {
    let device = Arc::clone(session.device(CommandId::AllocateMemory)?);
    let bytes = c.p_allocate_info.allocation_size;
    // What the guest has freed must be free before it allocates again.
    session.synchronize(Class::Other);
    // The driver may make all pages now. It uses only the buffer or image of a dedicated
    // allocation.
    session.with_only(Class::Resource, |session| {
        let result = try_to_allocate(session, &device, c)?;
        if result != vk::Result::SUCCESS && !session.is_asked() {
            bind_memory::stand_in(session, c, bytes)?;
        }
        Ok(result)
    })
}

fn try_to_allocate(
    session: &mut Session<'_>,
    device: &Arc<Device>,
    c: &mut AllocateMemory<'_>,
) -> Result<vk::Result, Fatal> {
    let info = &mut *c.p_allocate_info;
    let view = &device.physical.memory;
    let memory_type = info.memory_type_index;
    let size = info.allocation_size;
    let Some(host_type) = view.host_type(memory_type) else {
        return Err(Fatal::Invalid {
            command: "vkAllocateMemory",
            reason: "there is no such memory type",
        });
    };
    info.memory_type_index = host_type;
    // SAFETY: the chain was decoded, and nobody else uses it.
    let resource = unsafe { find::<vk::ImportMemoryResourceInfoMESA>(info.p_next) }
        .map(|import| import.resource_id);
    // Structs that only the protocol has, or that are about file descriptors, are not for the
    // driver.
    for stype in [
        vk::ImportMemoryResourceInfoMESA::STYPE,
        vk::ExportMemoryAllocateInfo::STYPE,
    ] {
        // SAFETY: as above.
        unsafe { unlink(&mut *info, stype) };
    }
    // Memory of a resource is charged where it was allocated.
    let charge = match resource {
        Some(_) => Charge::default(),
        None => match session.state.shares.device_memory.charge(size) {
            Some(charge) => charge,
            None => {
                session.state.warn_of_memory(&NoDeviceMemory);
                return Ok(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
            }
        },
    };
    let shared = match resource {
        Some(resource) => {
            let memory = session
                .state
                .resources
                .get(resource)
                .map(|blob| blob.memory);
            // A guest may try to import what its kernel knows and Hesper does not, such as a 2D
            // resource.
            let memory = memory.ok().filter(|memory| {
                // A GPU keeps pages that it has imported, even after the guest has taken them back.
                // A software driver looks them up.
                if memory.is_of_guest() && device.physical.facts.gpu.kind != GpuKind::Cpu {
                    return false;
                }
                let types = importable_types(device, memory);
                view.is_visible(memory_type) && types & 1_u32.unbounded_shl(host_type) != 0
            });
            match memory {
                Some(memory) => Some(memory),
                None => return Ok(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE),
            }
        }
        None if view.is_visible(memory_type) => {
            // If nobody asks for the result, refusing would do harm: memory that is too large to be
            // mapped still works for the GPU.
            if session.is_asked() && !view.is_mappable(memory_type, size) {
                return Ok(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
            }
            match pages(session, device, size) {
                Ok(memory) => Some(Arc::new(memory)),
                Err(result) => return Ok(result),
            }
        }
        None => None,
    };
    // Lives until the driver was called.
    let import;
    if let Some(memory) = &shared {
        let size = device
            .import
            .as_ref()
            .and_then(|import| import.rounded(info.allocation_size));
        match size.filter(|size| *size <= memory.len() as u64) {
            Some(size) => info.allocation_size = size,
            None => return Ok(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE),
        }
        // An import belongs to no single buffer or image.
        // SAFETY: as above.
        unsafe { unlink(&mut *info, vk::MemoryDedicatedAllocateInfo::STYPE) };
        import = import_info(memory, info.p_next);
        info.p_next = (&raw const import).cast();
    }
    let is_new = resource.is_none();
    create_object(
        session,
        c,
        |c| &mut *c.p_memory,
        |device, host| {
            let memory = Memory {
                shared,
                stands_in_for: None,
                _allocated: is_new.then(|| device.physical.count(memory_type, size, charge)),
            };
            device.memories.locked().insert(host.raw(), memory);
        },
    )
}

/// The host's memory types, as bits, that `memory` can be imported as.
fn importable_types(device: &Device, memory: &SharedMemory) -> u32 {
    let import = device.import.as_ref();
    let types = import.map_or(0, |import| import.types(memory));
    types & device.physical.facts.importable_types
}

/// Fresh shared memory for an allocation, within the context's budget. The error is the result for
/// the guest.
fn pages(session: &Session<'_>, device: &Device, size: u64) -> Result<SharedMemory, vk::Result> {
    let none = vk::Result::ERROR_OUT_OF_HOST_MEMORY;
    let import = device.import.as_ref().ok_or(none)?;
    let size = import.shared(size).ok_or(none)?;
    let made = session.state.shared_memory(size, import.alignment());
    made.map_err(|error| {
        session.state.warn_of_memory(&error);
        match error {
            Error::TooManyPieces => vk::Result::ERROR_TOO_MANY_OBJECTS,
            _ => none,
        }
    })
}

/// `vkGetMemoryResourcePropertiesMESA`: as what a resource can be imported.
fn resource_properties(
    session: &mut Session<'_>,
    c: &mut GetMemoryResourcePropertiesMESA<'_>,
) -> Result<vk::Result, Fatal> {
    let Ok(memory) = session.state.resources.get(c.resource_id) else {
        return Ok(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE);
    };
    let memory = memory.memory;
    let device = session.device(CommandId::GetMemoryResourcePropertiesMESA)?;
    let properties = &mut *c.p_memory_resource_properties;
    let types = importable_types(device, &memory);
    properties.memory_type_bits = device.physical.memory.mappable_bits(types);
    // SAFETY: the chain was decoded, and nobody else uses it.
    let size =
        unsafe { find_mut::<vk::MemoryResourceAllocationSizePropertiesMESA>(properties.p_next) };
    if let Some(size) = size {
        size.allocation_size = memory.len() as u64;
    }
    Ok(vk::Result::SUCCESS)
}
