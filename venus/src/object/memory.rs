//! `VkDeviceMemory`: what the guest can map is shared memory, the rest is the driver's.
//!
//! Which it is has to be decided when the memory is allocated: the guest asks for a mapping later, by a blob
//! whose id is that of the memory object.

use std::sync::Arc;

use hesper_venus_protocol::command::{AllocateMemory, FreeMemory, GetMemoryResourcePropertiesMESA};
use hesper_venus_protocol::runtime::{Chained, Handle, find, find_mut, unlink};
use hesper_venus_protocol::{CommandId, vk};

use crate::dispatch::{Session, call};
use crate::fatal::Fatal;
use crate::handlers::{create_one, take};
use crate::host::GpuKind;
use crate::memory::{SharedMemory, import_info};
use crate::object::device::{Device, Memory};
use crate::sync::Lock;

/// `vkAllocateMemory`
pub(crate) fn allocate(
    session: &mut Session<'_>,
    c: &mut AllocateMemory<'_>,
) -> Result<vk::Result, Fatal> {
    let device = Arc::clone(session.device(CommandId::AllocateMemory)?);
    let info = &mut *c.p_allocate_info;
    let Some(memory_type) = device.physical.memory_type(info.memory_type_index) else {
        return Err(Fatal::Invalid {
            command: "vkAllocateMemory",
            reason: "there is no such memory type",
        });
    };
    // SAFETY: the chain was decoded, and nobody else uses it.
    let resource = unsafe { find::<vk::ImportMemoryResourceInfoMESA>(info.p_next) }
        .map(|import| import.resource_id);
    // Structs that only the protocol has, or that speak of file descriptors, are not for the driver.
    for stype in [
        vk::ImportMemoryResourceInfoMESA::STYPE,
        vk::ExportMemoryAllocateInfo::STYPE,
    ] {
        // SAFETY: as above.
        unsafe { unlink(&mut *info, stype) };
    }
    let shared = match resource {
        Some(resource) => {
            let memory = session.state.resource(resource).map(|blob| blob.memory);
            // A guest may try what its kernel knows and we do not: a 2D resource, for example.
            let memory = memory.ok().filter(|memory| {
                // A GPU that has taken pages keeps them, even when the guest has them back. A processor looks them up.
                if memory.is_of_guest() && device.physical.facts.gpu.kind != GpuKind::Cpu {
                    return false;
                }
                let types = importable_types(&device, memory);
                types & 1_u32.unbounded_shl(info.memory_type_index) != 0
            });
            match memory {
                Some(memory) => Some(memory),
                None => return Ok(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE),
            }
        }
        None if memory_type
            .property_flags
            .contains(vk::MemoryPropertyFlags::HOST_VISIBLE) =>
        {
            match pages(session, &device, info.allocation_size) {
                Some(memory) => Some(Arc::new(memory)),
                None => return Ok(vk::Result::ERROR_OUT_OF_HOST_MEMORY),
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
        // An import is of no single buffer or image.
        // SAFETY: as above.
        unsafe { unlink(&mut *info, vk::MemoryDedicatedAllocateInfo::STYPE) };
        import = import_info(memory, info.p_next);
        info.p_next = (&raw const import).cast();
    }
    let (result, host) = create_one(session, c, |c| &mut *c.p_memory)?;
    if let Some(host) = host {
        let memory = Memory { shared };
        device.memories.locked().insert(host.raw(), memory);
    }
    Ok(result)
}

/// Memory types, as bits, that `memory` can be imported as.
fn importable_types(device: &Device, memory: &SharedMemory) -> u32 {
    let import = device.import.as_ref();
    let types = import.map_or(0, |import| import.types(memory));
    types & device.physical.facts.importable_types
}

/// Fresh shared memory for an allocation, within the context's budget.
fn pages(session: &Session<'_>, device: &Device, size: u64) -> Option<SharedMemory> {
    let size = device.import.as_ref()?.rounded(size)?;
    match session.state.shared_memory(size) {
        Ok(memory) => Some(memory),
        Err(error) => {
            session.state.warn_of_memory(&error);
            None
        }
    }
}

/// `vkFreeMemory`
pub(crate) fn free(session: &mut Session<'_>, c: &mut FreeMemory) -> Result<(), Fatal> {
    let memory = c.memory;
    if memory.is_null() {
        return Ok(());
    }
    take(session, memory, CommandId::FreeMemory)?;
    // By the driver's handle, which cannot be given out again before the driver was called.
    let device = session.device(CommandId::FreeMemory)?;
    let kept = device.memories.locked().remove(&memory.handle.raw());
    call(session, c)?;
    // The pages go after the driver has let go of them.
    drop(kept);
    Ok(())
}

/// `vkGetMemoryResourcePropertiesMESA`: as what a resource can be imported.
pub(crate) fn resource_properties(
    session: &mut Session<'_>,
    c: &mut GetMemoryResourcePropertiesMESA<'_>,
) -> Result<vk::Result, Fatal> {
    let Ok(memory) = session.state.resource(c.resource_id) else {
        return Ok(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE);
    };
    let memory = memory.memory;
    let device = session.device(CommandId::GetMemoryResourcePropertiesMESA)?;
    let properties = &mut *c.p_memory_resource_properties;
    properties.memory_type_bits = importable_types(device, &memory);
    // SAFETY: the chain was decoded, and nobody else uses it.
    let size =
        unsafe { find_mut::<vk::MemoryResourceAllocationSizePropertiesMESA>(properties.p_next) };
    if let Some(size) = size {
        size.allocation_size = memory.len() as u64;
    }
    Ok(vk::Result::SUCCESS)
}
