//! Creates and destroys devices, and keeps what the driver knows about each.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ash::vk::{self, Handle};

use crate::chain::Hidden;
use crate::memory::Kept;
use crate::next::{self, Functions};
use crate::queue::{self, Queue};
use crate::{Function, Mode, chain, complain, features, function, physical};

pub(crate) fn find(name: &str) -> Option<Function> {
    match name {
        "vkCreateDevice" => function!(create, vk::PFN_vkCreateDevice),
        "vkDestroyDevice" => function!(destroy, vk::PFN_vkDestroyDevice),
        "vkCreateEvent" => function!(create_event, vk::PFN_vkCreateEvent),
        _ => None,
    }
}

/// A device that a program created.
pub(crate) struct Device {
    pub(crate) handle: vk::Device,
    pub(crate) next: Functions,
    /// The queue families that it was created with.
    pub(crate) families: Vec<u32>,
    /// Whether events work: the portability subset's feature is enabled, or the driver does not
    /// list the subset.
    has_events: bool,
    /// lavapipe's only queue. One caller at a time may use it.
    pub(crate) real_queue: Mutex<vk::Queue>,
    /// The queues that the program has asked for, by family. They live as long as the device.
    pub(crate) queues: Mutex<HashMap<u32, Box<Queue>>>,
    pub(crate) kept: Kept,
}

static DEVICES: RwLock<Option<HashMap<u64, Arc<Device>>>> = RwLock::new(None);

impl Device {
    /// The device with this handle.
    pub(crate) fn get(handle: vk::Device) -> Arc<Device> {
        let known = DEVICES.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.as_ref().and_then(|known| known.get(&handle.as_raw()));
        found.map_or_else(
            || {
                complain(format_args!("there is no device {handle:?}"));
                std::process::abort()
            },
            Arc::clone,
        )
    }
}

unsafe extern "system" fn create(
    gpu: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    device: *mut vk::Device,
) -> vk::Result {
    // SAFETY: the caller's promise about all arguments.
    unsafe {
        let mut info = *info;
        let mut names = physical::names(
            info.pp_enabled_extension_names,
            info.enabled_extension_count,
        );
        let name_of = |name: &*const std::ffi::c_char| CStr::from_ptr(*name);
        if let Some(hidden) = names
            .iter()
            .map(name_of)
            .find(|name| physical::is_hidden(name))
        {
            complain(format_args!(
                "vkCreateDevice enables {hidden:?}, which is not there"
            ));
            return vk::Result::ERROR_EXTENSION_NOT_PRESENT;
        }
        let asked = names.len();
        names.retain(|name| name_of(name) != physical::SUBSET);
        let (has_subset, lists_subset) = (names.len() < asked, Mode::get().is_moltenvk());
        if lists_subset && !has_subset {
            complain(format_args!(
                "vkCreateDevice without VK_KHR_portability_subset, which is listed"
            ));
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        }
        if has_subset && !lists_subset {
            complain(format_args!(
                "vkCreateDevice enables VK_KHR_portability_subset, which is not there"
            ));
            return vk::Result::ERROR_EXTENSION_NOT_PRESENT;
        }
        if features::asks_too_much(&info) {
            return vk::Result::ERROR_FEATURE_NOT_PRESENT;
        }
        let Some(families) = families(&info) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let subset = chain::find::<vk::PhysicalDevicePortabilitySubsetFeaturesKHR>(info.p_next);
        let has_events = !lists_subset || subset.is_some_and(|subset| subset.events != vk::FALSE);
        // lavapipe knows neither the portability subset nor the extra families.
        let hidden =
            Hidden::take::<vk::PhysicalDevicePortabilitySubsetFeaturesKHR>(&mut info.p_next);
        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        info.p_queue_create_infos = queues.as_ptr();
        info.queue_create_info_count = 1;
        info.pp_enabled_extension_names = names.as_ptr();
        info.enabled_extension_count = names.len() as u32;
        let create = next::instance().core.create_device;
        let result = create(gpu, &raw const info, allocator, device);
        drop(hidden);
        if result == vk::Result::SUCCESS {
            remember(*device, families, has_events);
        }
        result
    }
}

/// The families that the program asks queues of; `None` if it asks for queues that do not exist.
///
/// # Safety
/// The info is valid.
unsafe fn families(info: &vk::DeviceCreateInfo<'_>) -> Option<Vec<u32>> {
    let queues = match info.queue_create_info_count {
        0 => &[],
        // SAFETY: the caller's promise.
        count => unsafe { std::slice::from_raw_parts(info.p_queue_create_infos, count as usize) },
    };
    let mut families = Vec::new();
    for queue in queues {
        let family = queue.queue_family_index;
        if family >= queue::families() || queue.queue_count != 1 || families.contains(&family) {
            complain(format_args!(
                "vkCreateDevice asks for {} queues of family {family}; there are {} families of one queue",
                queue.queue_count,
                queue::families()
            ));
            return None;
        }
        families.push(family);
    }
    Some(families)
}

fn remember(handle: vk::Device, families: Vec<u32>, has_events: bool) {
    let next = Functions::load(handle);
    let mut queue = vk::Queue::null();
    // SAFETY: the device was created with this queue.
    unsafe { (next.core.get_device_queue)(handle, 0, 0, &raw mut queue) };
    let device = Arc::new(Device {
        handle,
        next,
        families,
        has_events,
        real_queue: Mutex::new(queue),
        queues: Mutex::default(),
        kept: Kept::default(),
    });
    let mut known = DEVICES.write().unwrap_or_else(PoisonError::into_inner);
    known
        .get_or_insert_default()
        .insert(handle.as_raw(), device);
}

unsafe extern "system" fn destroy(
    handle: vk::Device,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    if handle.is_null() {
        return;
    }
    let device = Device::get(handle);
    let mut known = DEVICES.write().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().remove(&handle.as_raw());
    drop(known);
    let mut queues = device.queues.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the caller's promise: nobody uses the device any more.
    unsafe {
        // Waiting fails only on a lost device, which is idle, too.
        let _ = (device.next.core.device_wait_idle)(handle);
        for (_, queue) in queues.drain() {
            queue.destroy_fences();
        }
        device.kept.free(&device);
        (device.next.core.destroy_device)(handle, allocator);
    }
}

unsafe extern "system" fn create_event(
    handle: vk::Device,
    info: *const vk::EventCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    event: *mut vk::Event,
) -> vk::Result {
    let device = Device::get(handle);
    if !device.has_events {
        complain(format_args!(
            "vkCreateEvent without the feature events of VkPhysicalDevicePortabilitySubsetFeaturesKHR"
        ));
        return vk::Result::ERROR_FEATURE_NOT_PRESENT;
    }
    // SAFETY: the caller's promise.
    unsafe { (device.next.core.create_event)(handle, info, allocator, event) }
}
