//! Commands of `VkInstance`: instances are made on the host without what exists in the guest only.

use std::ffi::CStr;
use std::sync::Arc;

use hesper_venus_protocol::call::{Call, InstanceTable};
use hesper_venus_protocol::command::{
    CreateInstance, DestroyInstance, EnumerateInstanceExtensionProperties, EnumerateInstanceVersion,
};
use hesper_venus_protocol::table::ExtensionKind;
use hesper_venus_protocol::{CommandId, EXTENSIONS, vk};

use super::arrays::{fill, strings};
use super::shape::{Family, special};
use crate::emulate::extensions::{self, property};
use crate::fatal::Fatal;
use crate::host::version;
use crate::object::Domain;
use crate::object::instance::Instance;
use crate::session::Session;

/// The commands of this file.
pub(super) const HANDLERS: Family = &[special!(
    EnumerateInstanceVersion => enumerate_version,
    EnumerateInstanceExtensionProperties => extensions,
    CreateInstance => create,
    DestroyInstance => destroy,
)];

/// `vkCreateInstance`
fn create(session: &mut Session<'_>, c: &mut CreateInstance<'_>) -> Result<vk::Result, Fatal> {
    let info = &mut *c.p_create_info;
    // All that can be enabled is implemented in the guest's driver. Programs see that driver's own
    // list.
    if info.enabled_layer_count > 0 {
        return Ok(vk::Result::ERROR_LAYER_NOT_PRESENT);
    }
    // SAFETY: the decoder made an array of as many pointers to NUL-terminated strings as the count
    // says, or a null pointer.
    let wanted = unsafe {
        strings(
            info.pp_enabled_extension_names,
            info.enabled_extension_count,
        )
    };
    if let Some(unknown) = wanted.iter().find(|name| !extensions::is_of_instance(name)) {
        session.state.complain(format_args!(
            "vkCreateInstance fails: guests cannot have the extension {}",
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
    // The guest's driver keeps its program to the version that it asked for. Its own commands may
    // be newer.
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
    let instance = Instance::new(owner, handle, functions, host);
    let domain = Domain::Instance(Arc::new(instance));
    session
        .state
        .objects
        .insert_domain(owner, id, handle, domain)?;
    Ok(result)
}

/// `vkDestroyInstance`
fn destroy(session: &mut Session<'_>, c: &mut DestroyInstance) -> Result<(), Fatal> {
    let owner = session.instance(CommandId::DestroyInstance)?.owner;
    if !c.instance.is_null() {
        session.forget_domain();
        session.at_rest(|session| session.state.objects.remove_instance(owner));
    }
    Ok(())
}

/// `vkEnumerateInstanceVersion`
fn enumerate_version(
    _session: &mut Session<'_>,
    c: &mut EnumerateInstanceVersion<'_>,
) -> Result<vk::Result, Fatal> {
    *c.p_api_version = version::HIGHEST;
    Ok(vk::Result::SUCCESS)
}

/// `vkEnumerateInstanceExtensionProperties`: the two extensions of the protocol itself.
fn extensions(
    _session: &mut Session<'_>,
    c: &mut EnumerateInstanceExtensionProperties<'_>,
) -> Result<vk::Result, Fatal> {
    let own = EXTENSIONS
        .iter()
        .filter(|extension| extension.kind == ExtensionKind::Private);
    let listed: Vec<_> = own
        .map(|own| property(own.name, own.spec_version))
        .collect();
    Ok(fill(&listed, c.p_property_count, &mut c.p_properties))
}
