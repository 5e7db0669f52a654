//! `VkInstance`: the guest's, made on the host without anything that only the guest's side has.

use std::ffi::{CStr, c_char};
use std::sync::{Arc, Mutex};

use hesper_venus_protocol::call::{Call, EntryTable, Function, InstanceTable};
use hesper_venus_protocol::command::{
    CreateInstance, DestroyInstance, EnumerateInstanceExtensionProperties, EnumerateInstanceVersion,
};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{CommandId, vk};

use crate::emulate::extensions;
use crate::fatal::Fatal;
use crate::host::{Host, version};
use crate::object::Domain;
use crate::object::physical_device::PhysicalDevice;
use crate::session::Session;
use crate::sync::Lock;

/// An instance of the host's; destroyed when the last of its devices is gone.
pub(crate) struct Instance {
    /// Its ordinal as an owner of objects.
    pub(crate) owner: u32,
    handle: vk::Instance,
    functions: InstanceTable,
    host: Arc<Host>,
    /// Those that the guest has seen.
    physical_devices: Mutex<Vec<Arc<PhysicalDevice>>>,
}

impl Instance {
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

    /// The physical devices that the guest may see, in the driver's order; looked up once.
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

/// `vkCreateInstance`
pub(crate) fn create(
    session: &mut Session<'_>,
    c: &mut CreateInstance<'_>,
) -> Result<vk::Result, Fatal> {
    let info = &mut *c.p_create_info;
    // All that can be enabled lives in the guest's driver; its own list is what it may show to applications.
    if info.enabled_layer_count > 0 {
        return Ok(vk::Result::ERROR_LAYER_NOT_PRESENT);
    }
    // SAFETY: the decoder made an array of as many pointers to NUL-terminated strings as the count says, or a null pointer.
    let wanted = unsafe {
        names(
            info.pp_enabled_extension_names,
            info.enabled_extension_count,
        )
    };
    if let Some(unknown) = wanted.iter().find(|name| !extensions::is_of_instance(name)) {
        session.state.complain(format_args!(
            "vkCreateInstance fails: extension {} is none that a guest can have",
            unknown.to_string_lossy()
        ));
        return Ok(vk::Result::ERROR_EXTENSION_NOT_PRESENT);
    }
    info.enabled_extension_count = 0;
    info.pp_enabled_extension_names = std::ptr::null();
    let host = Arc::clone(&session.state.host);
    let default = vk::ApplicationInfo::default();
    // SAFETY: decoded as null or a valid struct.
    let application = unsafe { info.p_application_info.as_ref() }.unwrap_or(&default);
    // The guest's driver keeps its program to the version that the program asked for. Its own commands need not be of that.
    let application = vk::ApplicationInfo {
        api_version: version::HIGHEST,
        ..*application
    };
    info.p_application_info = &raw const application;
    let portability = [ash::khr::portability_enumeration::NAME.as_ptr()];
    info.flags = vk::InstanceCreateFlags::default();
    if host.needs_portability() {
        let flag = ash::vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR;
        info.flags = vk::InstanceCreateFlags(flag.as_raw());
        info.enabled_extension_count = 1;
        info.pp_enabled_extension_names = portability.as_ptr();
    }
    let id = c.p_instance.0;
    let owner = session.state.objects.new_owner()?;
    // SAFETY: the arguments were decoded and adjusted above; there are no handles in them.
    let result =
        unsafe { c.call(&host.entry_table()) }.ok_or(Fatal::NotEnabled("vkCreateInstance"))?;
    let handle = std::mem::replace(c.p_instance, vk::Instance(id));
    if result != vk::Result::SUCCESS {
        return Ok(result);
    }
    let mut get = |name: &CStr| host.instance_function(handle, name);
    // SAFETY: the loader answers by name.
    let functions = unsafe { InstanceTable::load(&mut get) };
    let physical_devices = Mutex::default();
    let instance = Instance {
        owner,
        handle,
        functions,
        host,
        physical_devices,
    };
    let domain = Domain::Instance(Arc::new(instance));
    session
        .state
        .objects
        .insert_domain(owner, id, handle, domain)?;
    Ok(result)
}

/// The strings of a decoded array.
///
/// # Safety
/// `names` must be null or `count` pointers to NUL-terminated strings, which live for `'a`.
pub(crate) unsafe fn names<'a>(names: *const *const c_char, count: u32) -> Vec<&'a CStr> {
    if names.is_null() {
        return Vec::new();
    }
    // SAFETY: as the caller promises.
    unsafe {
        let names = std::slice::from_raw_parts(names, count as usize);
        names.iter().map(|name| CStr::from_ptr(*name)).collect()
    }
}

/// `vkDestroyInstance`
pub(crate) fn destroy(session: &mut Session<'_>, c: &mut DestroyInstance) -> Result<(), Fatal> {
    let owner = session.instance(CommandId::DestroyInstance)?.owner;
    if !c.instance.is_null() {
        session.forget_domain();
        session.state.objects.remove_instance(owner);
    }
    Ok(())
}

/// `vkEnumerateInstanceVersion`
pub(crate) fn enumerate_version(
    _session: &mut Session<'_>,
    c: &mut EnumerateInstanceVersion<'_>,
) -> Result<vk::Result, Fatal> {
    *c.p_api_version = version::HIGHEST;
    Ok(vk::Result::SUCCESS)
}

/// `vkEnumerateInstanceExtensionProperties`: the protocol's own two, which tell the guest what it speaks with.
pub(crate) fn extensions(
    _session: &mut Session<'_>,
    c: &mut EnumerateInstanceExtensionProperties<'_>,
) -> Result<vk::Result, Fatal> {
    use hesper_venus_protocol::{EXTENSIONS, table::ExtensionKind};
    let own = EXTENSIONS
        .iter()
        .filter(|extension| extension.kind == ExtensionKind::Private);
    let listed: Vec<_> = own
        .map(|own| property(own.name, own.spec_version))
        .collect();
    Ok(fill(&listed, c.p_property_count, &mut c.p_properties))
}

/// A `VkExtensionProperties`.
pub(crate) fn property(name: &CStr, spec_version: u32) -> vk::ExtensionProperties {
    let mut property = vk::ExtensionProperties {
        spec_version,
        ..Default::default()
    };
    for (to, from) in property.extension_name.iter_mut().zip(name.to_bytes()) {
        *to = *from;
    }
    property
}

/// Answers the two calls by which Vulkan lists things: how many there are, then as many as there is room for.
pub(crate) fn fill<T: Copy>(
    all: &[T],
    count: &mut u32,
    room: &mut hesper_venus_protocol::runtime::Array<'_, T>,
) -> vk::Result {
    let total = u32::try_from(all.len()).unwrap_or(u32::MAX);
    if room.is_null() {
        *count = total;
        return vk::Result::SUCCESS;
    }
    let mut written = 0;
    for (to, from) in room.iter_mut().zip(all) {
        *to = *from;
        written += 1;
    }
    *count = written;
    if written < total {
        vk::Result::INCOMPLETE
    } else {
        vk::Result::SUCCESS
    }
}
