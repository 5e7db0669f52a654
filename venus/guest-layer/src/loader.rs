//! The Vulkan loader's layer interface, version 2, which ash lacks.

use std::ffi::{c_char, c_void};

use ash::vk;

use crate::{Function, device_function, instance_function};

/// The version of the interface that this layer implements.
const VERSION: u32 = 2;

/// The type of `vkGetInstanceProcAddr` and `vkGetDeviceProcAddr` in a link.
pub(crate) type Find<H> = unsafe extern "system" fn(H, *const c_char) -> Option<Function>;

/// The struct that the loader adds to the `pNext` chain of instance and device create infos.
#[repr(C)]
pub(crate) struct LayerCreateInfo<L> {
    s_type: vk::StructureType,
    next: *const c_void,
    function: i32,
    link: *mut L,
}

/// A link to the next layer of an instance.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct InstanceLink {
    next: *mut InstanceLink,
    pub(crate) find: Find<vk::Instance>,
    find_physical: Option<Function>,
}

/// A link to the next layer of a device.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceLink {
    next: *mut DeviceLink,
    pub(crate) find_instance: Find<vk::Instance>,
    pub(crate) find: Find<vk::Device>,
}

/// A link of either kind.
pub(crate) trait Link: Copy {
    /// The type of the struct that holds the link.
    const TYPE: vk::StructureType;

    /// The link behind this one.
    fn rest(&self) -> *mut Self;
}

impl Link for InstanceLink {
    const TYPE: vk::StructureType = vk::StructureType::LOADER_INSTANCE_CREATE_INFO;

    fn rest(&self) -> *mut Self {
        self.next
    }
}

impl Link for DeviceLink {
    const TYPE: vk::StructureType = vk::StructureType::LOADER_DEVICE_CREATE_INFO;

    fn rest(&self) -> *mut Self {
        self.next
    }
}

/// Returns the link to the next layer, and advances the chain so that the next layer finds the link
/// behind it.
///
/// # Safety
/// The loader made the chain, for links of this kind.
pub(crate) unsafe fn take_link<L: Link>(chain: *const c_void) -> Option<L> {
    let mut at = chain.cast::<LayerCreateInfo<L>>().cast_mut();
    // SAFETY: the caller's promise. The loader lets layers write to these structs.
    while let Some(info) = unsafe { at.as_mut() } {
        // Function 0 is the link. Other functions use the same struct type.
        if info.s_type == L::TYPE && info.function == 0 {
            // SAFETY: as above; the loader gives each layer a link.
            let link = unsafe { *info.link };
            info.link = link.rest();
            return Some(link);
        }
        at = info.next.cast::<LayerCreateInfo<L>>().cast_mut();
    }
    None
}

/// The argument of the loader's first call into a layer.
#[repr(C)]
pub(crate) struct Negotiation {
    s_type: i32,
    next: *mut c_void,
    version: u32,
    instance: Option<Find<vk::Instance>>,
    device: Option<Find<vk::Device>>,
    physical: Option<Function>,
}

/// The layer's entry point: negotiates the version of the interface.
///
/// # Safety
/// `negotiation` comes from the loader.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "system" fn vkNegotiateLoaderLayerInterfaceVersion(
    negotiation: *mut Negotiation,
) -> vk::Result {
    // SAFETY: the caller's promise.
    let Some(negotiation) = (unsafe { negotiation.as_mut() }) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    if negotiation.version < VERSION {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    }
    negotiation.version = VERSION;
    negotiation.instance = Some(instance_function);
    negotiation.device = Some(device_function);
    negotiation.physical = None;
    vk::Result::SUCCESS
}
