//! The Vulkan device that draws all windows.

use std::ffi::CStr;
use std::sync::{Arc, Mutex};

use ash::{ext, khr, vk};
use hesper_system::sync::Lock;

use super::instance::{Instance, Surface};
use crate::presenter::PresenterEnd;

/// A device with one queue for drawing and presenting.
pub(super) struct Gpu {
    pub(super) device: ash::Device,
    pub(super) swapchains: khr::swapchain::Device,
    /// What is needed to import host memory, where the driver can.
    pub(super) host_import: Option<HostImport>,
    pub(super) physical: vk::PhysicalDevice,
    pub(super) family: u32,
    pub(super) name: String,
    /// The longest side an image can have.
    pub(super) max_side: u32,
    /// Tells devices apart in [`PresenterEnd::DeviceLost`].
    pub(super) serial: u32,
    /// All windows share this queue. Only one thread may use it at a time.
    queue: Mutex<vk::Queue>,
    memory: vk::PhysicalDeviceMemoryProperties,
    /// Outlives the device.
    _instance: Arc<Instance>,
}

/// VK_EXT_external_memory_host.
pub(super) struct HostImport {
    pub(super) functions: ext::external_memory_host::Device,
    /// Addresses and sizes must be multiples of this.
    pub(super) alignment: u64,
}

impl Gpu {
    /// The best device that can present to `surface`: the one with the UUID `wanted`, or else by
    /// type.
    pub(super) fn new(
        instance: &Arc<Instance>,
        surface: &Surface,
        wanted: Option<[u8; 16]>,
        serial: u32,
    ) -> Result<Arc<Gpu>, String> {
        // SAFETY: a plain query.
        let devices = unsafe { instance.raw.enumerate_physical_devices() }
            .map_err(|error| format!("no list of devices: {error}"))?;
        let best = devices
            .into_iter()
            .filter_map(|device| Candidate::of(instance, surface, device))
            .max_by_key(|candidate| candidate.rank(wanted))
            .ok_or("no device can present to this window")?;
        Gpu::open(instance, &best, serial)
    }

    fn open(
        instance: &Arc<Instance>,
        candidate: &Candidate,
        serial: u32,
    ) -> Result<Arc<Gpu>, String> {
        let Candidate {
            physical,
            family,
            properties,
            ..
        } = candidate;
        let mut extensions = vec![khr::swapchain::NAME.as_ptr()];
        // The specification demands that this extension is enabled where it is offered. Drawing a
        // picture needs none of its features.
        let is_subset = candidate.offers(khr::portability_subset::NAME);
        let mut subset = vk::PhysicalDevicePortabilitySubsetFeaturesKHR::default();
        if is_subset {
            extensions.push(khr::portability_subset::NAME.as_ptr());
            let mut offered = vk::PhysicalDeviceFeatures2::default().push_next(&mut subset);
            // SAFETY: core in 1.1, which the device has, with the structure of an extension that it
            // offers.
            unsafe {
                let raw = &instance.raw;
                raw.get_physical_device_features2(*physical, &mut offered);
            }
            subset.p_next = std::ptr::null_mut();
        }
        let imports = candidate.can_import_host_memory(instance);
        if imports {
            extensions.push(ext::external_memory_host::NAME.as_ptr());
        }
        let queues = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(*family)
            .queue_priorities(&[1.0])];
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions);
        if is_subset {
            info = info.push_next(&mut subset);
        }
        // SAFETY: family and extensions were taken from what the device offers.
        let device = unsafe { instance.raw.create_device(*physical, &info, None) }
            .map_err(|error| format!("no device: {error}"))?;
        // SAFETY: the device was made with one queue of this family.
        let queue = unsafe { device.get_device_queue(*family, 0) };
        // SAFETY: a plain query.
        let memory = unsafe {
            instance
                .raw
                .get_physical_device_memory_properties(*physical)
        };
        let host_import = imports.then(|| HostImport {
            functions: ext::external_memory_host::Device::new(&instance.raw, &device),
            alignment: candidate.import_alignment(instance),
        });
        Ok(Arc::new(Gpu {
            swapchains: khr::swapchain::Device::new(&instance.raw, &device),
            device,
            host_import,
            physical: *physical,
            family: *family,
            name: properties
                .device_name_as_c_str()
                .map_or("unnamed".into(), |name| name.to_string_lossy().into_owned()),
            max_side: properties.limits.max_image_dimension2_d,
            serial,
            queue: Mutex::new(queue),
            memory,
            _instance: instance.clone(),
        }))
    }

    /// Calls `work` with the queue while no one else uses it.
    pub(super) fn with_queue<R>(&self, work: impl FnOnce(vk::Queue) -> R) -> R {
        work(*self.queue.locked())
    }

    /// Waits until the queue is idle.
    pub(super) fn wait_idle(&self) -> Result<(), PresenterEnd> {
        // SAFETY: the queue is ours while `with_queue` runs.
        self.with_queue(|queue| unsafe { self.device.queue_wait_idle(queue) })
            .map_err(|error| self.end(error))
    }

    /// A memory type with all of `flags`, of those in `allowed` (one bit each).
    pub(super) fn memory_type(&self, allowed: u32, flags: vk::MemoryPropertyFlags) -> Option<u32> {
        (0..)
            .zip(self.memory.memory_types_as_slice())
            .find_map(|(index, kind)| {
                let fits = allowed & (1 << index) != 0 && kind.property_flags.contains(flags);
                fits.then_some(index)
            })
    }

    /// The end to which a failed call leads a presenter.
    pub(super) fn end(&self, error: vk::Result) -> PresenterEnd {
        match error {
            vk::Result::ERROR_SURFACE_LOST_KHR => PresenterEnd::SurfaceLost,
            vk::Result::ERROR_DEVICE_LOST => PresenterEnd::DeviceLost { gpu: self.serial },
            error => PresenterEnd::Failed(error.to_string()),
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: what was made from it holds an Arc of it, so nothing is left.
        unsafe { self.device.destroy_device(None) };
    }
}

/// A device that can present to our surface.
struct Candidate {
    physical: vk::PhysicalDevice,
    family: u32,
    properties: vk::PhysicalDeviceProperties,
    uuid: [u8; 16],
    extensions: Vec<vk::ExtensionProperties>,
}

impl Candidate {
    fn of(
        instance: &Instance,
        surface: &Surface,
        physical: vk::PhysicalDevice,
    ) -> Option<Candidate> {
        // SAFETY: plain queries of a device of this instance.
        let (properties, families, extensions) = unsafe {
            (
                instance.raw.get_physical_device_properties(physical),
                instance
                    .raw
                    .get_physical_device_queue_family_properties(physical),
                instance
                    .raw
                    .enumerate_device_extension_properties(physical)
                    .ok()?,
            )
        };
        if properties.api_version < vk::API_VERSION_1_1 {
            return None;
        }
        let presents = |family: u32| {
            let (surfaces, raw) = (&instance.surfaces, surface.raw);
            // SAFETY: the family is one of the device's; the surface is of this instance.
            let answer =
                unsafe { surfaces.get_physical_device_surface_support(physical, family, raw) };
            answer.unwrap_or(false)
        };
        let (family, _) = (0..).zip(&families).find(|(family, properties)| {
            properties.queue_flags.contains(vk::QueueFlags::GRAPHICS) && presents(*family)
        })?;
        let mut id = vk::PhysicalDeviceIDProperties::default();
        let mut more = vk::PhysicalDeviceProperties2::default().push_next(&mut id);
        // SAFETY: the structure is core in 1.1, which the device has.
        unsafe {
            instance
                .raw
                .get_physical_device_properties2(physical, &mut more)
        };
        let uuid = id.device_uuid;
        let candidate = Candidate {
            physical,
            family,
            properties,
            uuid,
            extensions,
        };
        candidate.offers(khr::swapchain::NAME).then_some(candidate)
    }

    fn offers(&self, name: &CStr) -> bool {
        self.extensions
            .iter()
            .any(|offer| offer.extension_name_as_c_str() == Ok(name))
    }

    fn rank(&self, wanted: Option<[u8; 16]>) -> (bool, u32) {
        let by_type = match self.properties.device_type {
            vk::PhysicalDeviceType::DISCRETE_GPU => 4,
            vk::PhysicalDeviceType::INTEGRATED_GPU => 3,
            vk::PhysicalDeviceType::VIRTUAL_GPU => 2,
            vk::PhysicalDeviceType::CPU => 1,
            _ => 0,
        };
        (wanted == Some(self.uuid), by_type)
    }

    fn can_import_host_memory(&self, instance: &Instance) -> bool {
        if !self.offers(ext::external_memory_host::NAME) {
            return false;
        }
        let info = vk::PhysicalDeviceExternalBufferInfo::default()
            .usage(vk::BufferUsageFlags::TRANSFER_SRC)
            .handle_type(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT);
        let mut answer = vk::ExternalBufferProperties::default();
        // SAFETY: the query is core in 1.1, which the device has.
        unsafe {
            instance.raw.get_physical_device_external_buffer_properties(
                self.physical,
                &info,
                &mut answer,
            );
        }
        let features = answer.external_memory_properties.external_memory_features;
        features.contains(vk::ExternalMemoryFeatureFlags::IMPORTABLE)
    }

    fn import_alignment(&self, instance: &Instance) -> u64 {
        let mut host = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
        let mut more = vk::PhysicalDeviceProperties2::default().push_next(&mut host);
        // SAFETY: the device offers the extension whose structure this is.
        unsafe {
            instance
                .raw
                .get_physical_device_properties2(self.physical, &mut more)
        };
        // The specification says that this is a power of two. The maximum protects against a driver
        // that says 0.
        host.min_imported_host_pointer_alignment.max(1)
    }
}
