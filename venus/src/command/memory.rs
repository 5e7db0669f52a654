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
use super::lifetime::enter_object;
use super::shape::{Family, destroy, forward, special};
use crate::counters::add;
use crate::error::Error;
use crate::fatal::Fatal;
use crate::host::GpuKind;
use crate::memory::{SharedMemory, import_info};
use crate::object::device::{Device, Memory};
use crate::object::freed_memory::{self, Use};
use crate::object::reclamation::Class;
use crate::session::{Session, call};

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

/// What an allocation wants. The structs of its chain that are not for the driver are taken out.
struct Wanted {
    /// The guest's memory type, and the host's.
    memory_type: u32,
    host_type: u32,
    /// Bytes, as the guest says.
    size: u64,
    /// The resource whose memory is imported.
    resource: Option<u32>,
    /// The guest can map it.
    is_visible: bool,
    /// For which allocations its memory can be used again.
    reusable: Option<Use>,
}

impl Wanted {
    fn new(device: &Device, info: &mut vk::MemoryAllocateInfo) -> Result<Self, Fatal> {
        let view = &device.physical.memory;
        let (memory_type, size) = (info.memory_type_index, info.allocation_size);
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
        // SAFETY: as above.
        unsafe { unlink(&mut *info, vk::ImportMemoryResourceInfoMESA::STYPE) };
        // SAFETY: as above.
        let export = unsafe { unlink(&mut *info, vk::ExportMemoryAllocateInfo::STYPE) };
        let is_visible = view.is_visible(memory_type);
        let mut reusable = None;
        if resource.is_some() || is_visible {
            // An import belongs to no single buffer or image.
            // SAFETY: as above.
            unsafe { unlink(&mut *info, vk::MemoryDedicatedAllocateInfo::STYPE) };
            let import = device.import.as_ref();
            let rounded = import.and_then(|import| import.rounded(size));
            let is_own = resource.is_none() && export.is_none();
            reusable = rounded.filter(|_| is_own).and_then(|rounded| {
                // SAFETY: as above.
                unsafe { Use::of(info, rounded) }
            });
        }
        Ok(Self {
            memory_type,
            host_type,
            size,
            resource,
            is_visible,
            reusable,
        })
    }

    /// Takes the bytes of the guest's device memory.
    fn charge(&self, session: &Session<'_>) -> Result<Charge, Failed> {
        match self.resource {
            // Memory of a resource is charged where it was allocated.
            Some(_) => Ok(Charge::default()),
            None => {
                let charge = session.state.shares.device_memory.charge(self.size);
                charge.ok_or(Failed {
                    result: vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
                    why: Why::Budget,
                })
            }
        }
    }
}

/// An allocation that failed: what the guest gets, and why.
struct Failed {
    result: vk::Result,
    why: Why,
}

enum Why {
    /// The driver says so.
    Driver,
    /// The resource cannot be imported.
    Resource,
    /// The guest has too much.
    Budget,
    /// There are no pages.
    Pages(Error),
}

impl Failed {
    /// Whether there may be enough when what is kept is released.
    fn is_short(&self) -> bool {
        matches!(
            self.result,
            vk::Result::ERROR_OUT_OF_HOST_MEMORY
                | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
                | vk::Result::ERROR_TOO_MANY_OBJECTS
        )
    }
}

fn try_to_allocate(
    session: &mut Session<'_>,
    device: &Arc<Device>,
    c: &mut AllocateMemory<'_>,
) -> Result<vk::Result, Fatal> {
    let wanted = Wanted::new(device, &mut *c.p_allocate_info)?;
    let view = &device.physical.memory;
    // If nobody asks for the result, refusing would do harm: memory that is too large to be mapped
    // still works for the GPU.
    if wanted.resource.is_none()
        && wanted.is_visible
        && session.is_asked()
        && !view.is_mappable(wanted.memory_type, wanted.size)
    {
        return Ok(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
    }
    if let Some(done) = reuse(session, device, c, &wanted)? {
        return Ok(done);
    }
    let most = device.facts.limits.core.max_memory_allocation_count;
    let live = device.memories.locked().len();
    if device.freed.is_in_the_way(live, most) {
        device.release_freed(None);
    }
    let id = *c.p_memory;
    let mut made = make(session, device, c, &wanted)?;
    if made.as_ref().is_err_and(Failed::is_short) && session.state.release_freed() {
        // What the program has freed is free now.
        *c.p_memory = id;
        made = make(session, device, c, &wanted)?;
    }
    let host = std::mem::replace(&mut *c.p_memory, id);
    match made {
        Ok(memory) => {
            let keep = |device: &Device, host: vk::DeviceMemory| {
                device.memories.locked().insert(host.raw(), memory);
            };
            enter_object(session, CommandId::AllocateMemory, id, host, keep)?;
            Ok(vk::Result::SUCCESS)
        }
        Err(Failed { result, why }) => {
            match why {
                Why::Driver => session.remember_failed(id),
                Why::Resource => {}
                Why::Budget => session.state.warn_of_memory(&NoDeviceMemory),
                Why::Pages(error) => session.state.warn_of_memory(&error),
            }
            Ok(result)
        }
    }
}

/// Gives the allocation memory that the guest has freed before, if some is kept that fits.
fn reuse(
    session: &mut Session<'_>,
    device: &Arc<Device>,
    c: &mut AllocateMemory<'_>,
    wanted: &Wanted,
) -> Result<Option<vk::Result>, Fatal> {
    let Some((used_for, kept)) = wanted
        .reusable
        .and_then(|wanted| Some((wanted, device.freed.take(wanted)?)))
    else {
        return Ok(None);
    };
    let (host, shared) = kept.into_parts();
    let Ok(charge) = wanted.charge(session) else {
        freed_memory::free(device.raw(), host);
        return Ok(None);
    };
    add(&session.state.tally.reused, 1);
    let keep = |device: &Device, host: vk::DeviceMemory| {
        device.facts.memories.insert(host, used_for.size());
        let memory = Memory {
            shared: Some(shared),
            stands_in_for: None,
            allocated: Some(
                device
                    .physical
                    .count(wanted.memory_type, wanted.size, charge),
            ),
            reusable: Some(used_for),
        };
        device.memories.locked().insert(host.raw(), memory);
    };
    enter_object(session, CommandId::AllocateMemory, *c.p_memory, host, keep)?;
    Ok(Some(vk::Result::SUCCESS))
}

/// Lets the driver make the memory. Its handle replaces the guest's id.
fn make(
    session: &mut Session<'_>,
    device: &Arc<Device>,
    c: &mut AllocateMemory<'_>,
    wanted: &Wanted,
) -> Result<Result<Memory, Failed>, Fatal> {
    let no_resource = Failed {
        result: vk::Result::ERROR_INVALID_EXTERNAL_HANDLE,
        why: Why::Resource,
    };
    let charge = match wanted.charge(session) {
        Ok(charge) => charge,
        Err(failed) => return Ok(Err(failed)),
    };
    let shared = match (wanted.resource, wanted.is_visible) {
        (Some(resource), _) => match memory_of(session, device, wanted, resource) {
            Some(memory) => Some(memory),
            None => return Ok(Err(no_resource)),
        },
        (None, true) => match pages(session, device, wanted.size) {
            Ok(memory) => Some(Arc::new(memory)),
            Err(failed) => return Ok(Err(failed)),
        },
        (None, false) => None,
    };
    let info = &mut *c.p_allocate_info;
    let chain = info.p_next;
    // Lives until the driver was called.
    let import;
    info.allocation_size = wanted.size;
    if let Some(memory) = &shared {
        let size = device
            .import
            .as_ref()
            .and_then(|import| import.rounded(wanted.size));
        match size.filter(|size| *size <= memory.len() as u64) {
            Some(size) => info.allocation_size = size,
            None => return Ok(Err(no_resource)),
        }
        import = import_info(memory, info.p_next);
        info.p_next = (&raw const import).cast();
    }
    let result = call(session, c);
    c.p_allocate_info.p_next = chain;
    let result = result?;
    if result != vk::Result::SUCCESS {
        let why = Why::Driver;
        return Ok(Err(Failed { result, why }));
    }
    let is_new = wanted.resource.is_none();
    Ok(Ok(Memory {
        shared,
        stands_in_for: None,
        allocated: is_new.then(|| {
            device
                .physical
                .count(wanted.memory_type, wanted.size, charge)
        }),
        reusable: wanted.reusable,
    }))
}

/// The memory of a resource, if the device can import it.
fn memory_of(
    session: &Session<'_>,
    device: &Device,
    wanted: &Wanted,
    resource: u32,
) -> Option<Arc<SharedMemory>> {
    // A guest may try to import what its kernel knows and Hesper does not, such as a 2D resource.
    let memory = session.state.resources.get(resource).ok()?.memory;
    // A GPU keeps pages that it has imported, even after the guest has taken them back. A software
    // driver looks them up.
    if memory.is_of_guest() && device.physical.facts.gpu.kind != GpuKind::Cpu {
        return None;
    }
    let types = importable_types(device, &memory);
    let can_be = wanted.is_visible && types & 1_u32.unbounded_shl(wanted.host_type) != 0;
    can_be.then_some(memory)
}

/// The host's memory types, as bits, that `memory` can be imported as.
fn importable_types(device: &Device, memory: &SharedMemory) -> u32 {
    let import = device.import.as_ref();
    let types = import.map_or(0, |import| import.types(memory));
    types & device.physical.facts.importable_types
}

/// Fresh shared memory for an allocation, within the context's budget. A device that imports
/// nothing has no memory that guests can map.
fn pages(session: &Session<'_>, device: &Device, wanted: u64) -> Result<SharedMemory, Failed> {
    let none = vk::Result::ERROR_OUT_OF_HOST_MEMORY;
    let import = device.import.as_ref();
    let size = import.and_then(|import| Some((import.alignment(), import.shared(wanted)?)));
    let (alignment, size) = size.ok_or(Failed {
        result: none,
        why: Why::Driver,
    })?;
    let made = session.state.shared_memory(size, alignment);
    made.map_err(|error| Failed {
        result: match error {
            Error::TooManyPieces => vk::Result::ERROR_TOO_MANY_OBJECTS,
            _ => none,
        },
        why: Why::Pages(error),
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
