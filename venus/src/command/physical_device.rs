//! Commands of `VkPhysicalDevice`: what the guest is told of the host's GPU.
//!
//! Nearly all answers are the driver's own. Different are extensions (see [`crate::emulate`]),
//! versions (the protocol ends at 1.4), and memory types and heaps (see [`MemoryView`]).

use std::ffi::CStr;
use std::sync::Arc;

use hesper_venus_protocol::call::{Call, InstanceTable};
use hesper_venus_protocol::command::{
    EnumerateDeviceExtensionProperties, EnumeratePhysicalDeviceGroups, EnumeratePhysicalDevices,
    GetPhysicalDeviceCalibrateableTimeDomainsKHR, GetPhysicalDeviceFeatures,
    GetPhysicalDeviceFeatures2, GetPhysicalDeviceMemoryProperties,
    GetPhysicalDeviceMemoryProperties2, GetPhysicalDeviceProperties, GetPhysicalDeviceProperties2,
    GetPhysicalDeviceQueueFamilyProperties, GetPhysicalDeviceQueueFamilyProperties2,
};
use hesper_venus_protocol::runtime::{Array, Object, Text, find_mut};
use hesper_venus_protocol::{CommandId, vk};

use super::arrays::fill;
use super::shape::{Family, of_extension, special};
use crate::context::state::ContextState;
use crate::emulate::{Policy, capture_replay, extensions, sparse};
use crate::fatal::Fatal;
use crate::host::GpuFacts;
use crate::memory::{HeapBudgets, MemoryView};
use crate::object::instance::Instance;
use crate::object::physical_device::PhysicalDevice;
use crate::session::{Session, call, name};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        EnumeratePhysicalDevices => enumerate,
        EnumeratePhysicalDeviceGroups => groups,
        EnumerateDeviceExtensionProperties => extensions,
        GetPhysicalDeviceProperties => properties,
        GetPhysicalDeviceProperties2 => properties2,
        GetPhysicalDeviceFeatures => features,
        GetPhysicalDeviceFeatures2 => features2,
        GetPhysicalDeviceMemoryProperties => memory_properties,
        GetPhysicalDeviceMemoryProperties2 => memory_properties2,
        GetPhysicalDeviceQueueFamilyProperties => queue_families,
        GetPhysicalDeviceQueueFamilyProperties2 => queue_families2,
        GetPhysicalDeviceCalibrateableTimeDomainsKHR => time_domains,
    ),
    of_extension!(
        GetPhysicalDeviceMultisamplePropertiesEXT => c"VK_EXT_sample_locations",
        GetPhysicalDeviceFragmentShadingRatesKHR => c"VK_KHR_fragment_shading_rate",
        GetPhysicalDeviceCooperativeMatrixPropertiesKHR => c"VK_KHR_cooperative_matrix",
        GetPhysicalDeviceDescriptorSizeEXT => c"VK_EXT_descriptor_heap",
    ),
];

/// `vkEnumeratePhysicalDevices`
fn enumerate(
    session: &mut Session<'_>,
    c: &mut EnumeratePhysicalDevices<'_>,
) -> Result<vk::Result, Fatal> {
    let devices = match devices(session, CommandId::EnumeratePhysicalDevices)? {
        Ok(devices) => devices,
        Err(result) => return Ok(result),
    };
    let instance = Arc::clone(session.instance(CommandId::EnumeratePhysicalDevices)?);
    // The array holds the ids that the guest has chosen. They are returned unchanged.
    let mut named = 0;
    for (id, device) in c.p_physical_devices.iter().zip(&devices) {
        let is_known = session
            .find(id.0)
            .is_some_and(|entry| entry.host == device.handle.0);
        if !is_known {
            let objects = &session.state.objects;
            objects.insert(instance.owner, id.0, device.handle, &instance.is_gone)?;
        }
        named += 1;
    }
    let total = u32::try_from(devices.len()).unwrap_or(u32::MAX);
    if c.p_physical_devices.is_null() {
        *c.p_physical_device_count = total;
        return Ok(vk::Result::SUCCESS);
    }
    *c.p_physical_device_count = named;
    Ok(if named < total {
        vk::Result::INCOMPLETE
    } else {
        vk::Result::SUCCESS
    })
}

/// The physical devices of the current command's instance.
fn devices(
    session: &mut Session<'_>,
    command: CommandId,
) -> Result<Result<Vec<Arc<PhysicalDevice>>, vk::Result>, Fatal> {
    let state = Arc::clone(session.state);
    let instance = Arc::clone(session.instance(command)?);
    Ok(instance.physical_devices(|| {
        let mut found = Vec::new();
        for handle in host_devices(&instance)? {
            let uuid = uuid(instance.functions(), handle);
            // Only GPUs that were found at start, by their UUID. Others are not for this guest.
            if let Some(facts) = state.gpus.iter().find(|facts| Some(facts.gpu.uuid) == uuid) {
                let facts = Arc::clone(facts);
                let device = describe(&instance, handle, facts, &state)?;
                found.push(Arc::new(device));
            }
        }
        Ok(found)
    }))
}

fn host_devices(instance: &Instance) -> Result<Vec<vk::PhysicalDevice>, vk::Result> {
    let mut count = 0;
    let mut handles: Vec<vk::PhysicalDevice> = Vec::new();
    loop {
        let room = if handles.is_empty() {
            Array::NULL
        } else {
            handles.as_mut_slice().into()
        };
        let mut command = EnumeratePhysicalDevices {
            instance: Object {
                id: 0,
                handle: instance.handle(),
            },
            p_physical_device_count: &mut count,
            p_physical_devices: room,
        };
        // SAFETY: the instance is alive, and there is room for as many handles as the count says.
        let result = unsafe { command.call(instance.functions()) };
        match result {
            Some(vk::Result::SUCCESS) if handles.is_empty() && count > 0 => {
                handles = vec![vk::PhysicalDevice::default(); count as usize];
            }
            Some(vk::Result::SUCCESS) => {
                handles.truncate(count as usize);
                return Ok(handles);
            }
            // A GPU was plugged in between the calls.
            Some(vk::Result::INCOMPLETE) => handles.clear(),
            Some(error) => return Err(error),
            None => return Err(vk::Result::ERROR_INITIALIZATION_FAILED),
        }
    }
}

fn uuid(functions: &InstanceTable, handle: vk::PhysicalDevice) -> Option<[u8; 16]> {
    let mut id = vk::PhysicalDeviceIDProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2 {
        p_next: (&raw mut id).cast(),
        ..Default::default()
    };
    let mut command = GetPhysicalDeviceProperties2 {
        physical_device: Object { id: 0, handle },
        p_properties: &mut properties,
    };
    // SAFETY: the physical device was just listed, the chain is of live structs.
    unsafe { command.call(functions) }?;
    Some(id.device_uuid)
}

fn describe(
    instance: &Instance,
    handle: vk::PhysicalDevice,
    facts: Arc<GpuFacts>,
    state: &ContextState,
) -> Result<PhysicalDevice, vk::Result> {
    let object = Object { id: 0, handle };
    let mut memory = vk::PhysicalDeviceMemoryProperties::default();
    let mut command = GetPhysicalDeviceMemoryProperties {
        physical_device: object,
        p_memory_properties: &mut memory,
    };
    // SAFETY: the physical device was just listed.
    unsafe { command.call(instance.functions()) }.ok_or(vk::Result::ERROR_INITIALIZATION_FAILED)?;
    let memory = MemoryView::new(
        &memory,
        facts.importable_types,
        &facts.optimal,
        state.window,
    )
    .within(state.device_memory);
    let mut extensions = Vec::new();
    loop {
        let mut count = u32::try_from(extensions.len()).unwrap_or(u32::MAX);
        let room = if extensions.is_empty() {
            Array::NULL
        } else {
            extensions.as_mut_slice().into()
        };
        let mut command = EnumerateDeviceExtensionProperties {
            physical_device: object,
            p_layer_name: Text::NULL,
            p_property_count: &mut count,
            p_properties: room,
        };
        // SAFETY: as above, and there is room for as many as the count says.
        match unsafe { command.call(instance.functions()) } {
            Some(vk::Result::SUCCESS) if extensions.is_empty() && count > 0 => {
                extensions = vec![vk::ExtensionProperties::default(); count as usize];
            }
            Some(vk::Result::SUCCESS) => {
                extensions.truncate(count as usize);
                break;
            }
            Some(vk::Result::INCOMPLETE) => extensions.clear(),
            Some(error) => return Err(error),
            None => return Err(vk::Result::ERROR_INITIALIZATION_FAILED),
        }
    }
    let policy = Policy::new(state.wsi, &facts.gpu);
    Ok(PhysicalDevice::new(
        handle, facts, extensions, policy, memory,
    ))
}

/// `vkGetPhysicalDeviceCalibrateableTimeDomainsKHR`, also for the older extension's command.
fn time_domains(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceCalibrateableTimeDomainsKHR<'_>,
) -> Result<vk::Result, Fatal> {
    let id = CommandId::GetPhysicalDeviceCalibrateableTimeDomainsKHR;
    let device = session.physical_device(id, c.physical_device.handle)?;
    if device.has(c"VK_KHR_calibrated_timestamps") {
        return call(session, c);
    }
    let missing = Fatal::NotEnabled(name(id));
    if !device.has(c"VK_EXT_calibrated_timestamps") {
        return Err(missing);
    }
    // The loader also has the newer name, with nothing behind it.
    let instance = session.instance(id)?;
    let mut older = |name: &CStr| match name.to_bytes().ends_with(b"KHR") {
        true => None,
        false => instance.host().instance_function(instance.handle(), name),
    };
    // SAFETY: the loader answers by name.
    let functions = unsafe { InstanceTable::load(&mut older) };
    // SAFETY: the physical device was looked up a moment ago, and the decoder has checked count and
    // room.
    unsafe { c.call(&functions) }.ok_or(missing)
}

/// `vkEnumeratePhysicalDeviceGroups`: the host's groups with the devices that the guest may see,
/// under the guest's ids.
fn groups(
    session: &mut Session<'_>,
    c: &mut EnumeratePhysicalDeviceGroups<'_>,
) -> Result<vk::Result, Fatal> {
    let id = CommandId::EnumeratePhysicalDeviceGroups;
    let (all, devices) = match (host_groups(session, c.instance)?, devices(session, id)?) {
        (Ok(all), Ok(devices)) => (all, devices),
        (Err(error), _) | (_, Err(error)) => return Ok(error),
    };
    let is_seen = |handle: &vk::PhysicalDevice| devices.iter().any(|d| d.handle == *handle);
    let seen: Vec<(Vec<vk::PhysicalDevice>, vk::Bool32)> = all
        .iter()
        .map(|group| {
            let members = group.physical_devices.iter();
            let members = members.take(group.physical_device_count as usize);
            let members = members.copied().filter(is_seen).collect();
            (members, group.subset_allocation)
        })
        .filter(|(members, _): &(Vec<_>, _)| !members.is_empty())
        .collect();
    let total = u32::try_from(seen.len()).unwrap_or(u32::MAX);
    if c.p_physical_device_group_properties.is_null() {
        *c.p_physical_device_group_count = total;
        return Ok(vk::Result::SUCCESS);
    }
    let instance = Arc::clone(session.instance(id)?);
    let (owner, objects) = (instance.owner, &session.state.objects);
    let mut written = 0;
    let room = c.p_physical_device_group_properties.iter_mut();
    for (group, (members, subset_allocation)) in room.zip(seen) {
        // The array holds ids that the guest offers.
        let offered = group.physical_devices;
        group.physical_devices = Default::default();
        group.physical_device_count = u32::try_from(members.len()).unwrap_or(0);
        group.subset_allocation = subset_allocation;
        let places = group.physical_devices.iter_mut().zip(offered);
        for ((place, offered), handle) in places.zip(members) {
            // The id of an earlier enumeration, else the one that is offered here.
            place.0 = match objects.id_of(owner, handle) {
                Some(known) => known,
                None => {
                    objects.insert(owner, offered.0, handle, &instance.is_gone)?;
                    offered.0
                }
            };
        }
        written += 1;
    }
    *c.p_physical_device_group_count = written;
    Ok(match written < total {
        true => vk::Result::INCOMPLETE,
        false => vk::Result::SUCCESS,
    })
}

/// All groups of the host.
fn host_groups(
    session: &mut Session<'_>,
    instance: Object<vk::Instance>,
) -> Result<Result<Vec<vk::PhysicalDeviceGroupProperties>, vk::Result>, Fatal> {
    let mut groups: Vec<vk::PhysicalDeviceGroupProperties> = Vec::new();
    loop {
        let mut count = u32::try_from(groups.len()).unwrap_or(u32::MAX);
        let mut command = EnumeratePhysicalDeviceGroups {
            instance,
            p_physical_device_group_count: &mut count,
            p_physical_device_group_properties: match groups.is_empty() {
                true => Array::NULL,
                false => groups.as_mut_slice().into(),
            },
        };
        match call(session, &mut command)? {
            vk::Result::SUCCESS if groups.is_empty() && count > 0 => {
                groups.resize(count as usize, Default::default());
            }
            vk::Result::SUCCESS => {
                groups.truncate(count as usize);
                return Ok(Ok(groups));
            }
            // A GPU was plugged in between the calls.
            vk::Result::INCOMPLETE => groups.clear(),
            error => return Ok(Err(error)),
        }
    }
}

/// `vkEnumerateDeviceExtensionProperties`
fn extensions(
    session: &mut Session<'_>,
    c: &mut EnumerateDeviceExtensionProperties<'_>,
) -> Result<vk::Result, Fatal> {
    let id = CommandId::EnumerateDeviceExtensionProperties;
    let device = session.physical_device(id, c.physical_device.handle)?;
    let listed = extensions::listed(&device.extensions, device.policy);
    Ok(fill(&listed, c.p_property_count, &mut c.p_properties))
}

/// `vkGetPhysicalDeviceProperties`
fn properties(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceProperties<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceProperties;
    let device = session.physical_device(id, c.physical_device.handle)?;
    call(session, c)?;
    c.p_properties.api_version = device.facts.version;
    device.limit(&mut c.p_properties.limits);
    sparse::hide_properties(&device, c.p_properties);
    Ok(())
}

/// `vkGetPhysicalDeviceProperties2`
fn properties2(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceProperties2<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceProperties2;
    let device = session.physical_device(id, c.physical_device.handle)?;
    call(session, c)?;
    c.p_properties.properties.api_version = device.facts.version;
    device.limit(&mut c.p_properties.properties.limits);
    sparse::hide_properties(&device, &mut c.p_properties.properties);
    Ok(())
}

/// `vkGetPhysicalDeviceMemoryProperties`
fn memory_properties(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceMemoryProperties<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceMemoryProperties;
    let device = session.physical_device(id, c.physical_device.handle)?;
    *c.p_memory_properties = device.memory.properties();
    Ok(())
}

/// `vkGetPhysicalDeviceMemoryProperties2`
fn memory_properties2(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceMemoryProperties2<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceMemoryProperties2;
    let device = session.physical_device(id, c.physical_device.handle)?;
    // The chain may ask for the budget, which the driver knows.
    call(session, c)?;
    c.p_memory_properties.memory_properties = device.memory.properties();
    // SAFETY: the chain was decoded, and nobody else uses it.
    let budget = unsafe {
        find_mut::<vk::PhysicalDeviceMemoryBudgetPropertiesEXT>(c.p_memory_properties.p_next)
    };
    if let Some(budget) = budget {
        let host = HeapBudgets {
            budget: budget.heap_budget,
            usage: budget.heap_usage,
        };
        let used = device.allocated();
        let shared = session.state.taken_of_window();
        let free = session.state.shares.device_memory.left();
        let free = free.saturating_add(session.state.freed_room.device_memory());
        let told = device.memory.budgets(&host, used, shared, free);
        budget.heap_budget = told.budget;
        budget.heap_usage = told.usage;
    }
    Ok(())
}

/// `vkGetPhysicalDeviceFeatures`
fn features(session: &mut Session<'_>, c: &mut GetPhysicalDeviceFeatures<'_>) -> Result<(), Fatal> {
    let device = session.physical_device(
        CommandId::GetPhysicalDeviceFeatures,
        c.physical_device.handle,
    )?;
    call(session, c)?;
    sparse::hide_features(&device, c.p_features);
    Ok(())
}

/// `vkGetPhysicalDeviceFeatures2`, without what else is hidden.
fn features2(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceFeatures2<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceFeatures2;
    let device = session.physical_device(id, c.physical_device.handle)?;
    call(session, c)?;
    sparse::hide_features(&device, &mut c.p_features.features);
    // SAFETY: the chain was decoded, and nobody else uses it.
    unsafe { capture_replay::hide(c.p_features.p_next) };
    Ok(())
}

/// `vkGetPhysicalDeviceQueueFamilyProperties`
fn queue_families(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceQueueFamilyProperties<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceQueueFamilyProperties;
    let device = session.physical_device(id, c.physical_device.handle)?;
    call(session, c)?;
    if sparse::is_hidden(&device) {
        c.p_queue_family_properties
            .iter_mut()
            .for_each(sparse::hide_queue_flag);
    }
    Ok(())
}

/// `vkGetPhysicalDeviceQueueFamilyProperties2`
fn queue_families2(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceQueueFamilyProperties2<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceQueueFamilyProperties2;
    let device = session.physical_device(id, c.physical_device.handle)?;
    call(session, c)?;
    if sparse::is_hidden(&device) {
        let families = c.p_queue_family_properties.iter_mut();
        families.for_each(|family| sparse::hide_queue_flag(&mut family.queue_family_properties));
    }
    Ok(())
}
