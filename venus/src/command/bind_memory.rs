//! Binding memory to buffers and images, and what happens if the host had no room for the memory.
//!
//! Mesa does not wait for the answer to `vkAllocateMemory`. It tells its program success, and the
//! program learns of a failure when it maps. So a failed allocation whose result nobody asked for
//! leaves a *stand-in*: a page of the same type under the guest's id. It can be freed like any
//! memory. It cannot be mapped, which programs can cope with. Only a buffer or an image that is
//! bound to it cannot work. A guest that asks for the result of the binding gets an error.
//! Otherwise the context ends, with a reason that names the memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hesper_system::sync::Lock;
use hesper_venus_protocol::call::{Call, DeviceTable};
use hesper_venus_protocol::command::{
    AllocateMemory, BindBufferMemory, BindBufferMemory2, BindImageMemory, BindImageMemory2,
    GetImageMemoryRequirements, GetImageMemoryRequirements2,
};
use hesper_venus_protocol::runtime::{Handle, Object, find};
use hesper_venus_protocol::{CommandId, vk};

use super::lifetime::create_object;
use super::shape::{Family, special};
use crate::fatal::Fatal;
use crate::memory::page_size;
use crate::object::device::{Device, Memory};
use crate::session::{Session, call, name};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[special!(
    BindBufferMemory => bind_buffer,
    BindBufferMemory2 => bind_buffers,
    BindImageMemory => bind_image,
    BindImageMemory2 => bind_images,
)];

/// Gives the id of a failed allocation of `bytes` bytes to a stand-in. If the host has no memory
/// for that either, nothing has the id.
pub(crate) fn stand_in(
    session: &mut Session<'_>,
    c: &mut AllocateMemory<'_>,
    bytes: u64,
) -> Result<(), Fatal> {
    let info = &mut *c.p_allocate_info;
    info.p_next = std::ptr::null();
    info.allocation_size = page_size();
    let keep = |device: &Device, host: vk::DeviceMemory| {
        let memory = Memory {
            shared: None,
            stands_in_for: Some(bytes),
            allocated: None,
            reusable: None,
        };
        device.memories.locked().insert(host.raw(), memory);
        device.stand_ins.fetch_add(1, Ordering::Release);
    };
    create_object(session, c, |c| &mut *c.p_memory, keep).map(|_| ())
}

/// Binds `memories` by the command `c`, unless one of them is a stand-in.
fn bind<'m, C>(
    session: &mut Session<'_>,
    memories: impl Fn(&C) -> Vec<vk::DeviceMemory>,
    c: &mut C,
) -> Result<vk::Result, Fatal>
where
    C: Call<'m, Return = vk::Result, Table = DeviceTable>,
{
    // Nearly always there is no stand-in, and nothing has to be collected.
    if session.device(C::ID)?.stand_ins.load(Ordering::Acquire) != 0 {
        let memories = memories(c);
        if let Some(bytes) = found(session.device(C::ID)?, &memories) {
            return session.refuse(bytes);
        }
    }
    call(session, c)
}

/// The size in bytes that the first stand-in among `memories` should have had.
fn found(device: &Device, memories: &[vk::DeviceMemory]) -> Option<u64> {
    let known = device.memories.locked();
    memories
        .iter()
        .find_map(|memory| known.get(&memory.raw())?.stands_in_for)
}

/// `vkBindBufferMemory`
fn bind_buffer(session: &mut Session<'_>, c: &mut BindBufferMemory) -> Result<vk::Result, Fatal> {
    bind(session, |c| vec![c.memory.handle], c)
}

/// `vkBindImageMemory`
fn bind_image(session: &mut Session<'_>, c: &mut BindImageMemory) -> Result<vk::Result, Fatal> {
    let info = vk::BindImageMemoryInfo {
        image: c.image.handle,
        memory: c.memory.handle,
        memory_offset: c.memory_offset,
        ..Default::default()
    };
    let binds = std::slice::from_ref(&info);
    images_fit(session, CommandId::BindImageMemory, c.device, binds)?;
    if let Some(result) = bind_mirror(session, CommandId::BindImageMemory, &info)? {
        return Ok(result);
    }
    bind(session, |c| vec![c.memory.handle], c)
}

/// Binds the memory of an image that has a mirror. `None` for another image.
fn bind_mirror(
    session: &mut Session<'_>,
    command: CommandId,
    info: &vk::BindImageMemoryInfo,
) -> Result<Option<vk::Result>, Fatal> {
    let device = Arc::clone(session.device(command)?);
    let Some(mirror) = device.mirrors.get(info.image) else {
        return Ok(None);
    };
    if let Some(bytes) = found(&device, &[info.memory]) {
        return session.refuse(bytes).map(Some);
    }
    let pool = &session.state.shares.device_memory;
    let memory = (info.memory, info.memory_offset);
    let result = mirror.bind(&device, info.image, memory, |bytes| pool.charge(bytes));
    Ok(Some(result))
}

/// `vkBindBufferMemory2`
fn bind_buffers(
    session: &mut Session<'_>,
    c: &mut BindBufferMemory2<'_>,
) -> Result<vk::Result, Fatal> {
    bind(
        session,
        |c| c.p_bind_infos.iter().map(|info| info.memory).collect(),
        c,
    )
}

/// `vkBindImageMemory2`
fn bind_images(
    session: &mut Session<'_>,
    c: &mut BindImageMemory2<'_>,
) -> Result<vk::Result, Fatal> {
    images_fit(
        session,
        CommandId::BindImageMemory2,
        c.device,
        &c.p_bind_infos,
    )?;
    if session
        .device(CommandId::BindImageMemory2)?
        .mirrors
        .is_empty()
    {
        return bind(session, memories_of_images, c);
    }
    let mut others = Vec::new();
    for info in c.p_bind_infos.iter() {
        match bind_mirror(session, CommandId::BindImageMemory2, info)? {
            None => others.push(*info),
            Some(vk::Result::SUCCESS) => {}
            Some(error) => return Ok(error),
        }
    }
    if others.is_empty() {
        return Ok(vk::Result::SUCCESS);
    }
    let mut rest = BindImageMemory2 {
        device: c.device,
        bind_info_count: others.len() as u32,
        p_bind_infos: others.as_mut_slice().into(),
    };
    bind(session, memories_of_images, &mut rest)
}

fn memories_of_images(c: &BindImageMemory2<'_>) -> Vec<vk::DeviceMemory> {
    c.p_bind_infos.iter().map(|info| info.memory).collect()
}

/// Fails unless images are bound inside their memory. Only the driver knows how large they are.
fn images_fit(
    session: &mut Session<'_>,
    command: CommandId,
    device: Object<vk::Device>,
    binds: &[vk::BindImageMemoryInfo],
) -> Result<(), Fatal> {
    for bind in binds {
        let memory = session.device(command)?.memories.locked();
        let stands_in = memory.get(&bind.memory.raw());
        let stands_in = stands_in.is_some_and(|memory| memory.stands_in_for.is_some());
        drop(memory);
        // `bind` refuses a stand-in. Images of a swapchain have no memory.
        if stands_in || bind.memory.raw() == 0 {
            continue;
        }
        // SAFETY: the chain was decoded, and nobody else uses it.
        let plane = unsafe { find::<vk::BindImagePlaneMemoryInfo>(bind.p_next) };
        let mirror = session.device(command)?.mirrors.get(bind.image);
        let size = match (mirror, plane) {
            (Some(mirror), _) => mirror.requirements.size,
            (None, Some(plane)) => plane_size(session, device, bind.image, plane.plane_aspect)?,
            (None, None) => image_size(session, device, bind.image)?,
        };
        let facts = &session.device(command)?.facts;
        let fits = facts.check_memory(bind.memory, bind.memory_offset, size);
        fits.map_err(|broken| Fatal::OutOfRange {
            command: name(command),
            broken,
        })?;
    }
    Ok(())
}

/// Bytes of memory that an image needs.
fn image_size(
    session: &mut Session<'_>,
    device: Object<vk::Device>,
    handle: vk::Image,
) -> Result<u64, Fatal> {
    let mut requirements = vk::MemoryRequirements::default();
    let mut query = GetImageMemoryRequirements {
        device,
        image: Object { id: 0, handle },
        p_memory_requirements: &mut requirements,
    };
    call(session, &mut query)?;
    Ok(requirements.size)
}

/// Bytes of memory that one plane of a disjoint image needs.
fn plane_size(
    session: &mut Session<'_>,
    device: Object<vk::Device>,
    image: vk::Image,
    plane_aspect: vk::ImageAspectFlags,
) -> Result<u64, Fatal> {
    let plane = vk::ImagePlaneMemoryRequirementsInfo {
        plane_aspect,
        ..Default::default()
    };
    let mut info = vk::ImageMemoryRequirementsInfo2 {
        p_next: (&raw const plane).cast(),
        image,
        ..Default::default()
    };
    let mut requirements = vk::MemoryRequirements2::default();
    let mut query = GetImageMemoryRequirements2 {
        device,
        p_info: &mut info,
        p_memory_requirements: &mut requirements,
    };
    call(session, &mut query)?;
    Ok(requirements.memory_requirements.size)
}

/// For `vkQueueBindSparse`: the size in bytes that a stand-in should have had, if one is bound.
pub(crate) fn bound_sparsely(device: &Device, infos: &[vk::BindSparseInfo]) -> Option<u64> {
    /// The elements of a decoded array.
    ///
    /// # Safety
    /// `start` is null or has as many as `count` says.
    unsafe fn all<'a, T>(start: *const T, count: u32) -> &'a [T] {
        match start.is_null() {
            true => &[],
            // SAFETY: the caller's promise.
            false => unsafe { std::slice::from_raw_parts(start, count as usize) },
        }
    }
    if device.stand_ins.load(Ordering::Acquire) == 0 {
        return None;
    }
    let mut memories = Vec::new();
    for info in infos {
        // SAFETY: the decoder has checked all counts, and nobody changes the arrays.
        unsafe {
            for one in all(info.p_buffer_binds, info.buffer_bind_count) {
                memories.extend(
                    all(one.p_binds, one.bind_count)
                        .iter()
                        .map(|bind| bind.memory),
                );
            }
            for one in all(info.p_image_opaque_binds, info.image_opaque_bind_count) {
                memories.extend(
                    all(one.p_binds, one.bind_count)
                        .iter()
                        .map(|bind| bind.memory),
                );
            }
            for one in all(info.p_image_binds, info.image_bind_count) {
                memories.extend(
                    all(one.p_binds, one.bind_count)
                        .iter()
                        .map(|bind| bind.memory),
                );
            }
        }
    }
    found(device, &memories)
}
