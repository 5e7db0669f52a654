//! Functions of the host's Vulkan by their names.

use std::ffi::CStr;

use hesper_venus_protocol::call::{EntryTable, Function};
use hesper_venus_protocol::vk;

use super::library::Host;

impl Host {
    /// The driver's functions that need no object.
    pub(crate) fn entry_table(&self) -> EntryTable {
        let mut get = |name: &CStr| self.instance_function(vk::Instance::default(), name);
        // SAFETY: the loader answers by name.
        unsafe { EntryTable::load(&mut get) }
    }

    /// `vkGetInstanceProcAddr`.
    pub(crate) fn instance_function(
        &self,
        instance: vk::Instance,
        name: &CStr,
    ) -> Option<Function> {
        let get = self.entry().static_fn().get_instance_proc_addr;
        let instance = ash::vk::Handle::from_raw(instance.0);
        // SAFETY: the instance is null or alive, the name ends with NUL.
        unsafe { get(instance, name.as_ptr()) }
    }
}
