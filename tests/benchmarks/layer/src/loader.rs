//! The interface between the Vulkan loader and its layers (the loader's layer interface, version
//! 2), which ash lacks.

use std::ffi::{c_char, c_void};

use ash::vk;

use crate::{Function, device_function, instance_function};

/// The version spoken here.
const VERSION: u32 = 2;

/// `vkGetInstanceProcAddr` and `vkGetDeviceProcAddr`, as links of the chain of layers.
pub(crate) type Find<H> = unsafe extern "system" fn(H, *const c_char) -> Option<Function>;

/// What the loader puts into the chains of the create infos of instances and devices.
#[repr(C)]
pub(crate) struct LayerCreateInfo<L> {
    s_type: vk::StructureType,
    next: *const c_void,
    function: i32,
    link: *mut L,
}

/// The next layer, of an instance.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct InstanceLink {
    next: *mut InstanceLink,
    pub(crate) find: Find<vk::Instance>,
    find_physical: Option<Function>,
}

/// The next layer, of a device.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceLink {
    next: *mut DeviceLink,
    pub(crate) find_instance: Find<vk::Instance>,
    pub(crate) find: Find<vk::Device>,
}

/// A link of either kind.
pub(crate) trait Link: Copy {
    /// Type of the struct that holds it.
    const TYPE: vk::StructureType;

    /// The one behind it.
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

/// Takes the next layer out of a chain, so that it will find the one behind it.
///
/// # Safety
/// The chain is the one that the loader made, for a link of this kind.
pub(crate) unsafe fn take_link<L: Link>(chain: *const c_void) -> Option<L> {
    let mut at = chain.cast::<LayerCreateInfo<L>>().cast_mut();
    // SAFETY: the caller's promise. The loader shares these structs with layers for writing.
    while let Some(info) = unsafe { at.as_mut() } {
        // Function 0 is the link, others share the type.
        if info.s_type == L::TYPE && info.function == 0 {
            // SAFETY: as above; the link is there for each layer.
            let link = unsafe { *info.link };
            info.link = link.rest();
            return Some(link);
        }
        at = info.next.cast::<LayerCreateInfo<L>>().cast_mut();
    }
    None
}

/// What the loader asks a layer for first.
#[repr(C)]
pub(crate) struct Negotiation {
    s_type: i32,
    next: *mut c_void,
    version: u32,
    instance: Option<Find<vk::Instance>>,
    device: Option<Find<vk::Device>>,
    physical: Option<Function>,
}

/// The way into the layer.
///
/// # Safety
/// `negotiation` is the loader's.
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
