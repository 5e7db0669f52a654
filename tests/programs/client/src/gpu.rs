//! The driver under test: [`Host`] is a Vulkan instance with one chosen physical device. [`Gpu`] is
//! a logical device on it with every feature that the cases use and the driver has.
//!
//! A case passes each object that it creates to [`Gpu::own`], and then uses it as a plain handle.
//! When the [`Gpu`] is dropped, it waits until the device is idle and destroys all objects in
//! reverse order, even if the case stopped half-way.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use ash::vk;

use crate::outcome::{Stop, fail};

/// The device extensions that are enabled where the driver has them.
const WANTED: [&CStr; 3] = [
    ash::khr::push_descriptor::NAME,
    ash::ext::memory_budget::NAME,
    ash::khr::portability_subset::NAME,
];

/// An instance and the physical device that is tested.
pub(crate) struct Host {
    /// Keeps the loader's library loaded.
    entry: ash::Entry,
    index: usize,
    pub(crate) instance: ash::Instance,
    /// The device under test.
    pub(crate) physical: vk::PhysicalDevice,
    pub(crate) properties: vk::PhysicalDeviceProperties,
    /// Its memory heaps and types.
    pub(crate) memory: vk::PhysicalDeviceMemoryProperties,
    /// Its queue families.
    pub(crate) families: Vec<vk::QueueFamilyProperties>,
    /// Names of its extensions.
    pub(crate) extensions: BTreeSet<String>,
}

impl Host {
    /// Loads Vulkan and selects physical device number `index`.
    pub(crate) fn new(index: usize) -> Result<Self, String> {
        // SAFETY: the loader library is trusted to be a Vulkan loader, and stays loaded as long as
        // `entry`.
        let entry = unsafe { ash::Entry::load() }
            .map_err(|error| format!("no Vulkan loader: {error}; install libvulkan1"))?;
        Self::with_entry(entry, index, vk::API_VERSION_1_3).map_err(|error| match error {
            Stop::Fail(text) | Stop::Skip(text) => text,
        })
    }

    /// Selects the same physical device in an instance of another version.
    pub(crate) fn of_version(&self, version: u32) -> Result<Self, Stop> {
        Self::with_entry(self.entry.clone(), self.index, version)
    }

    fn with_entry(entry: ash::Entry, index: usize, version: u32) -> Result<Self, Stop> {
        let application = vk::ApplicationInfo::default()
            .application_name(c"hesper-test-client")
            .api_version(version);
        // SAFETY: no preconditions.
        let offered = unsafe { entry.enumerate_instance_extension_properties(None) }?;
        let portable = ash::khr::portability_enumeration::NAME;
        let mut names: Vec<*const c_char> = Vec::new();
        let mut flags = vk::InstanceCreateFlags::empty();
        if offered
            .iter()
            .any(|e| e.extension_name_as_c_str() == Ok(portable))
        {
            names.push(portable.as_ptr());
            flags = vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR;
        }
        let info = vk::InstanceCreateInfo::default()
            .application_info(&application)
            .enabled_extension_names(&names)
            .flags(flags);
        // SAFETY: everything `info` points to lives on this stack frame.
        let instance = unsafe { entry.create_instance(&info, None) }?;
        // SAFETY: the instance is alive, also for the queries below.
        let devices = unsafe { instance.enumerate_physical_devices() }?;
        let Some(&physical) = devices.get(index) else {
            return Err(fail(&format!(
                "GPU {index} is asked for, the driver has {}",
                devices.len()
            )));
        };
        // SAFETY: as above.
        unsafe {
            let properties = instance.get_physical_device_properties(physical);
            if properties.api_version < vk::API_VERSION_1_1 {
                return Err(fail("the device offers only Vulkan 1.0"));
            }
            let extensions = instance
                .enumerate_device_extension_properties(physical)?
                .iter()
                .filter_map(|e| Some(e.extension_name_as_c_str().ok()?.to_str().ok()?.to_owned()))
                .collect();
            Ok(Self {
                properties,
                memory: instance.get_physical_device_memory_properties(physical),
                families: instance.get_physical_device_queue_family_properties(physical),
                extensions,
                entry,
                index,
                instance,
                physical,
            })
        }
    }

    /// The names of the extensions that instances can have.
    pub(crate) fn instance_extensions(&self) -> BTreeSet<String> {
        // SAFETY: no preconditions.
        let listed = unsafe { self.entry.enumerate_instance_extension_properties(None) };
        let listed = listed.unwrap_or_default();
        listed
            .iter()
            .filter_map(|e| Some(e.extension_name_as_c_str().ok()?.to_str().ok()?.to_owned()))
            .collect()
    }

    /// Creates another instance with these extensions, lists its devices, and destroys it.
    pub(crate) fn try_instance<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<(), vk::Result> {
        let names: Vec<CString> = names
            .into_iter()
            .filter_map(|name| CString::new(name).ok())
            .collect();
        let pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default()
            .application_info(&application)
            .enabled_extension_names(&pointers);
        // SAFETY: everything `info` points to lives until the call has returned. Nothing else is
        // created from the instance.
        unsafe {
            let instance = self.entry.create_instance(&info, None)?;
            let devices = instance.enumerate_physical_devices();
            instance.destroy_instance(None);
            match devices?.is_empty() {
                true => Err(vk::Result::ERROR_INITIALIZATION_FAILED),
                false => Ok(()),
            }
        }
    }

    /// Whether the physical device has the extension.
    pub(crate) fn has(&self, extension: &CStr) -> bool {
        extension
            .to_str()
            .is_ok_and(|name| self.extensions.contains(name))
    }

    /// The features of the physical device. Those above its API version are off.
    pub(crate) fn features(&self) -> Features {
        let mut features = Features::default();
        let mut all = features.chain(self.properties.api_version);
        // SAFETY: the chain holds only structures that the device's version defines.
        unsafe {
            self.instance
                .get_physical_device_features2(self.physical, &mut all)
        };
        features.core = all.features;
        features
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: every `Gpu` borrows its host, so none exists any more.
        unsafe { self.instance.destroy_instance(None) };
    }
}

/// The features that the cases ask about.
#[derive(Default)]
pub(crate) struct Features {
    /// Vulkan 1.0.
    pub(crate) core: vk::PhysicalDeviceFeatures,
    /// Vulkan 1.1.
    pub(crate) v11: vk::PhysicalDeviceVulkan11Features<'static>,
    /// Vulkan 1.2.
    pub(crate) v12: vk::PhysicalDeviceVulkan12Features<'static>,
    /// Vulkan 1.3.
    pub(crate) v13: vk::PhysicalDeviceVulkan13Features<'static>,
}

impl Features {
    /// Chains the structures that `api_version` knows behind `core`.
    fn chain(&mut self, api_version: u32) -> vk::PhysicalDeviceFeatures2<'_> {
        // Clears the pointers of an earlier chain, because the structures have moved since.
        self.v11.p_next = std::ptr::null_mut();
        self.v12.p_next = std::ptr::null_mut();
        self.v13.p_next = std::ptr::null_mut();
        let mut head = vk::PhysicalDeviceFeatures2::default().features(self.core);
        if api_version >= vk::API_VERSION_1_2 {
            head = head.push_next(&mut self.v11).push_next(&mut self.v12);
        }
        if api_version >= vk::API_VERSION_1_3 {
            head = head.push_next(&mut self.v13);
        }
        head
    }
}

/// A logical device with queues of all families (see [`queues_of`]).
pub(crate) struct Gpu<'h> {
    /// The host it is on.
    pub(crate) host: &'h Host,
    /// The enabled features.
    pub(crate) features: Features,
    /// The main queue: the first queue of the first family that draws and computes.
    pub(crate) queue: vk::Queue,
    /// The main queue's family.
    pub(crate) family: u32,
    device: ash::Device,
    owned: Mutex<Vec<Destroy>>,
}

/// Destroys one object.
type Destroy = Box<dyn FnOnce(&ash::Device) + Send>;

/// `ash`'s signature of a function that destroys a `T`.
type DestroyFn<T> = unsafe fn(&ash::Device, T, Option<&vk::AllocationCallbacks<'_>>);

impl Deref for Gpu<'_> {
    type Target = ash::Device;

    fn deref(&self) -> &ash::Device {
        &self.device
    }
}

/// The largest number of queues of a family that a device here has. A Venus guest has 63 timelines
/// for all queues of all its devices, and a large GPU alone can have 34 queues.
const QUEUES_PER_FAMILY: u32 = 4;

/// The number of queues of this family that a device here has.
pub(crate) fn queues_of(family: &vk::QueueFamilyProperties) -> u32 {
    family.queue_count.min(QUEUES_PER_FAMILY)
}

impl<'h> Gpu<'h> {
    /// Creates a device with everything that the cases use.
    pub(crate) fn new(host: &'h Host) -> Result<Self, Stop> {
        Self::with(host, &[], None::<&mut vk::DeviceGroupDeviceCreateInfo<'_>>)
    }

    /// Creates a device like [`Gpu::new`] with additional extensions and structures.
    pub(crate) fn with<T: vk::ExtendsDeviceCreateInfo>(
        host: &'h Host,
        extensions: &[&CStr],
        more: Option<&mut T>,
    ) -> Result<Self, Stop> {
        let both = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE;
        let family = host
            .families
            .iter()
            .position(|f| f.queue_flags.contains(both));
        let family = family.ok_or_else(|| fail("no queue family draws and computes"))?;
        let priorities = [1.0_f32; QUEUES_PER_FAMILY as usize];
        let queues: Vec<_> = (0_u32..)
            .zip(&host.families)
            .map(|(index, f)| {
                vk::DeviceQueueCreateInfo::default()
                    .queue_family_index(index)
                    .queue_priorities(&priorities[..queues_of(f) as usize])
            })
            .collect();
        let names: Vec<_> = WANTED
            .iter()
            .filter(|name| host.has(name))
            .chain(extensions)
            .map(|name| name.as_ptr())
            .collect();
        let mut features = host.features();
        // Robust buffer access is slow on some drivers, and no case reads out of bounds.
        features.core.robust_buffer_access = vk::FALSE;
        // Both features are for capture tools, and the second needs several physical devices.
        features.v12.buffer_device_address_capture_replay = vk::FALSE;
        features.v12.buffer_device_address_multi_device = vk::FALSE;
        let mut chain = features.chain(host.properties.api_version);
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&names)
            .push_next(&mut chain);
        if let Some(more) = more {
            info = info.push_next(more);
        }
        // SAFETY: everything that `info` points to lives until the call has returned.
        let device = unsafe { host.instance.create_device(host.physical, &info, None) }?;
        let family = u32::try_from(family).unwrap_or(0);
        // SAFETY: the device was created with this queue.
        let queue = unsafe { device.get_device_queue(family, 0) };
        Ok(Self {
            host,
            features,
            queue,
            family,
            device,
            owned: Mutex::default(),
        })
    }

    /// Takes over `handle`, to destroy it when this device is dropped. Returns the handle.
    pub(crate) fn own<T: Copy + Send + 'static>(&self, handle: T, destroy: DestroyFn<T>) -> T {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: this is called once, after the device is idle and everything created from
        // `handle` is destroyed.
        owned.push(Box::new(move |device| unsafe {
            destroy(device, handle, None)
        }));
        handle
    }

    /// Loads the functions of an extension with `ash`.
    pub(crate) fn extension<T>(&self, load: fn(&ash::Instance, &ash::Device) -> T) -> T {
        load(&self.host.instance, &self.device)
    }
}

impl Drop for Gpu<'_> {
    fn drop(&mut self) {
        let owned = std::mem::take(&mut *self.owned.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: no other thread uses the device any more, because the case has ended and joined
        // its threads. Waiting for idle fails only on a lost device, which may be destroyed too.
        unsafe {
            let _ = self.device.device_wait_idle();
            for destroy in owned.into_iter().rev() {
                destroy(&self.device);
            }
            self.device.destroy_device(None);
        }
    }
}
