//! Commands of `VkDevice`.

use std::ffi::{CStr, CString, c_char};
use std::sync::Arc;

use hesper_venus_protocol::call::{Call, DeviceTable, Function};
use hesper_venus_protocol::command::{
    CreateDevice, DestroyDevice, DeviceWaitIdle, GetPhysicalDeviceFeatures2,
};
use hesper_venus_protocol::features;
use hesper_venus_protocol::runtime::{Handle, Object};
use hesper_venus_protocol::{CommandId, vk};

use super::arrays::strings;
use super::limits;
use super::shape::{Family, create, destroy, forward, special};
use crate::emulate::{capture_replay, extensions, sparse};
use crate::fatal::Fatal;
use crate::host::queues::QueueRequest;
use crate::memory::HostImport;
use crate::object::Domain;
use crate::object::device::Device;
use crate::object::host_copy::HostCopy;
use crate::object::instance::Instance;
use crate::object::physical_device::PhysicalDevice;
use crate::object::raw_device::RawDevice;
use crate::session::Session;

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        CreateDevice => create,
        DestroyDevice => destroy,
        DeviceWaitIdle => wait,
    ),
    create!(
        CreatePrivateDataSlot => p_private_data_slot,
    ),
    destroy!(
        DestroyPrivateDataSlot => private_data_slot,
    ),
    forward!(GetDeviceGroupPeerMemoryFeatures, GetCalibratedTimestampsKHR),
];

/// `vkCreateDevice`
fn create(session: &mut Session<'_>, c: &mut CreateDevice<'_>) -> Result<vk::Result, Fatal> {
    let id = CommandId::CreateDevice;
    let physical = session.physical_device(id, c.physical_device.handle)?;
    let instance = Arc::clone(session.instance(id)?);
    let guest_id = c.p_device.0;
    let info = &mut *c.p_create_info;
    let names = match enabled_extensions(info, &physical) {
        Ok(names) => names,
        Err(unseen) => {
            session.state.complain(format_args!(
                "vkCreateDevice fails: extension {} is not offered to guests on this GPU; programs must look for an \
                 extension before they enable it",
                unseen.to_string_lossy()
            ));
            return Ok(vk::Result::ERROR_EXTENSION_NOT_PRESENT);
        }
    };
    // SAFETY: the chain was decoded, and nobody else uses it.
    if sparse::wants_hidden(info, &physical) || unsafe { capture_replay::is_wanted(info.p_next) } {
        return Ok(vk::Result::ERROR_FEATURE_NOT_PRESENT);
    }
    let pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    info.enabled_extension_count = u32::try_from(pointers.len()).unwrap_or(0);
    info.pp_enabled_extension_names = pointers.as_ptr();
    info.enabled_layer_count = 0;
    let requested = requested_queues(info);
    let share = match physical.facts.queues.take(&requested) {
        Ok(share) => share,
        Err(result) => return Ok(result),
    };
    // The driver's part of the portability subset. Guests know complete Vulkan only.
    let mut subset = physical.facts.subset.map(|subset| subset.enabled());
    if let Some(subset) = &mut subset {
        subset.p_next = info.p_next.cast_mut();
        info.p_next = std::ptr::from_mut(subset).cast();
    }
    // SAFETY: ids are replaced by handles, counts and pointers were checked or set above.
    let result =
        unsafe { c.call(instance.functions()) }.ok_or(Fatal::NotEnabled("vkCreateDevice"))?;
    let handle = std::mem::replace(c.p_device, vk::Device::from_raw(guest_id));
    if result != vk::Result::SUCCESS {
        complain(session, c, &instance, result, &names);
        return Ok(result);
    }
    let (functions, host_copy) = load(&instance, handle)?;
    let raw = RawDevice::new(handle, functions, Arc::clone(&instance), share);
    let import = names
        .iter()
        .any(|name| name.as_c_str() == ash::ext::external_memory_host::NAME)
        .then(|| {
            // The guest rounds a blob up to its alignment, and those pages must exist.
            let unit = session.state.blob_alignment;
            let get = |name: &CStr| instance.host().instance_function(instance.handle(), name);
            HostImport::load(get, handle, physical.facts.alignment, unit)
        })
        .flatten();
    let owner = session.state.objects.new_owner()?;
    let limits = limits::of(&instance, &physical);
    let room = &session.state.freed_room;
    let device = Device::new(
        owner, physical, raw, requested, import, host_copy, limits, room,
    );
    let domain = Domain::Device(Arc::new(device));
    session
        .state
        .objects
        .insert_domain(owner, guest_id, handle, domain)?;
    Ok(result)
}

/// Says why the host makes no device.
fn complain(
    session: &Session<'_>,
    c: &CreateDevice<'_>,
    instance: &Instance,
    result: vk::Result,
    names: &[CString],
) {
    if result != vk::Result::ERROR_FEATURE_NOT_PRESENT {
        return session.state.complain(format_args!(
            "vkCreateDevice fails on the host with {result:?}, asked for {names:?}"
        ));
    }
    let physical_device = Object {
        id: 0,
        handle: c.physical_device.handle,
    };
    let ask = |features: &mut vk::PhysicalDeviceFeatures2| {
        let mut command = GetPhysicalDeviceFeatures2 {
            physical_device,
            p_features: features,
        };
        // SAFETY: the physical device is alive, and the chain is of valid structs. Without the
        // function, nothing is filled in.
        unsafe { command.call(instance.functions()) };
    };
    // SAFETY: the info was decoded; the driver fills in features only.
    let missing = unsafe { features::missing(c.p_create_info, ask) };
    session.state.complain(format_args!(
        "vkCreateDevice fails: this GPU lacks {missing:?}; programs must query features before they enable them"
    ));
}

/// The extensions to enable on the host, or the first one that the guest wants and was not offered.
fn enabled_extensions<'i>(
    info: &'i vk::DeviceCreateInfo,
    physical: &PhysicalDevice,
) -> Result<Vec<CString>, &'i CStr> {
    // SAFETY: the decoder made an array of as many pointers to NUL-terminated strings as the count
    // says, or a null pointer.
    let wanted = unsafe {
        strings(
            info.pp_enabled_extension_names,
            info.enabled_extension_count,
        )
    };
    let mut names = extensions::enabled(wanted.into_iter(), &physical.extensions, physical.policy)?;
    for needed in &physical.facts.core_extensions {
        if !names.iter().any(|name| name.as_c_str() == *needed) {
            names.push((*needed).to_owned());
        }
    }
    Ok(names)
}

/// The queues that a device is created with.
fn requested_queues(info: &vk::DeviceCreateInfo) -> Vec<QueueRequest> {
    let count = info.queue_create_info_count as usize;
    if info.p_queue_create_infos.is_null() {
        return Vec::new();
    }
    // SAFETY: the decoder made an array of `count` structs, or a null pointer.
    let queues = unsafe { std::slice::from_raw_parts(info.p_queue_create_infos, count) };
    queues
        .iter()
        .map(|queue| QueueRequest {
            flags: queue.flags,
            family: queue.queue_family_index,
            count: queue.queue_count,
        })
        .collect()
}

fn load(instance: &Instance, device: vk::Device) -> Result<(DeviceTable, HostCopy), Fatal> {
    let get = instance
        .host()
        .instance_function(instance.handle(), c"vkGetDeviceProcAddr");
    let get = get.ok_or(Fatal::NotEnabled("vkGetDeviceProcAddr"))?;
    // SAFETY: the loader answers by name, and this is the type of that function.
    let get = unsafe {
        std::mem::transmute::<
            Function,
            unsafe extern "system" fn(vk::Device, *const c_char) -> Option<Function>,
        >(get)
    };
    // SAFETY: the device is alive, the name ends with NUL.
    let mut by_name = |name: &CStr| unsafe { get(device, name.as_ptr()) };
    // SAFETY: the driver answers by name.
    let functions = unsafe { DeviceTable::load(&mut by_name) };
    Ok((functions, HostCopy::load(&mut by_name)))
}

/// `vkDestroyDevice`
fn destroy(session: &mut Session<'_>, c: &mut DestroyDevice) -> Result<(), Fatal> {
    if c.device.is_null() {
        return Ok(());
    }
    let owner = session.device(CommandId::DestroyDevice)?.owner;
    session.forget_domain();
    session.state.queues.release(c.device.handle);
    // The device waits for the GPU.
    session.at_rest(|session| session.state.objects.remove_device(owner));
    Ok(())
}

/// `vkDeviceWaitIdle`
fn wait(session: &mut Session<'_>, _c: &mut DeviceWaitIdle) -> Result<vk::Result, Fatal> {
    let device = Arc::clone(session.device(CommandId::DeviceWaitIdle)?);
    session.publish();
    Ok(session.at_rest(|session| device.wait_idle(session.state.stop_flag())))
}
