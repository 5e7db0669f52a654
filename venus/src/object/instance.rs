//! `VkInstance`: the host's instance, and its physical devices that the guest has seen.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;
use hesper_venus_protocol::call::{Call, InstanceTable};
use hesper_venus_protocol::command::DestroyInstance;
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::vk;

use super::physical_device::PhysicalDevice;
use crate::host::Host;

/// An instance of the host, destroyed after the last of its devices.
pub(crate) struct Instance {
    /// Its ordinal as an owner of objects.
    pub(crate) owner: u32,
    /// Set when it is removed. No object is entered after that.
    pub(crate) is_gone: AtomicBool,
    handle: vk::Instance,
    functions: InstanceTable,
    host: Arc<Host>,
    /// Those that the guest has seen.
    physical_devices: Mutex<Vec<Arc<PhysicalDevice>>>,
}

impl Instance {
    /// An instance that the driver has made; `owner` is fresh.
    pub(crate) fn new(
        owner: u32,
        handle: vk::Instance,
        functions: InstanceTable,
        host: Arc<Host>,
    ) -> Self {
        Self {
            owner,
            is_gone: AtomicBool::new(false),
            handle,
            functions,
            host,
            physical_devices: Mutex::default(),
        }
    }

    /// The driver's functions.
    pub(crate) fn functions(&self) -> &InstanceTable {
        &self.functions
    }

    /// The driver's handle.
    pub(crate) fn handle(&self) -> vk::Instance {
        self.handle
    }

    /// The host's Vulkan.
    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The physical devices that the guest may see, in the driver's order. They are looked up once.
    pub(crate) fn physical_devices(
        &self,
        look: impl FnOnce() -> Result<Vec<Arc<PhysicalDevice>>, vk::Result>,
    ) -> Result<Vec<Arc<PhysicalDevice>>, vk::Result> {
        let mut known = self.physical_devices.locked();
        if known.is_empty() {
            *known = look()?;
        }
        Ok(known.clone())
    }

    /// The physical device with this handle.
    pub(crate) fn physical_device(
        &self,
        handle: vk::PhysicalDevice,
    ) -> Option<Arc<PhysicalDevice>> {
        let known = self.physical_devices.locked();
        known.iter().find(|device| device.handle == handle).cloned()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let mut destroy = DestroyInstance {
            instance: Object {
                id: 0,
                handle: self.handle,
            },
        };
        // SAFETY: every device holds the instance, so none is left.
        unsafe { destroy.call(&self.functions) };
    }
}
