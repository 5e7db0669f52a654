//! Shared memory as device memory: `VK_EXT_external_memory_host`.
//!
//! The driver takes pages of this process, which are the pages that the guest maps. So guest, host
//! and GPU see the same bytes without copies and without flushes.

use std::ffi::{CStr, c_void};

use ash::vk as host;
use hesper_venus_protocol::call::Function;
use hesper_venus_protocol::vk;

use super::{SharedMemory, page_size};

/// The handle type that the driver gets in place of a dma-buf.
pub(crate) const HOST_ALLOCATION: vk::ExternalMemoryHandleTypeFlags =
    vk::ExternalMemoryHandleTypeFlags(
        host::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT.as_raw(),
    );

/// The largest page of any guest, in bytes: kernels of arm64 have pages of 4, 16 or 64 KiB. A guest
/// makes a blob of an allocation in whole pages of its own, which may be larger than the host's.
const GUEST_PAGE: u64 = 64 << 10;

/// How a device imports host memory.
pub(crate) struct HostImport {
    device: vk::Device,
    properties: host::PFN_vkGetMemoryHostPointerPropertiesEXT,
    /// Of addresses.
    alignment: u64,
    /// Of sizes.
    unit: u64,
}

impl HostImport {
    /// Loads the function of `device` by `get`; the device was created with the extension.
    /// `alignment` is `minImportedHostPointerAlignment` or a multiple of it. Sizes are multiples of
    /// it and of `unit`.
    pub(crate) fn load(
        get: impl FnOnce(&CStr) -> Option<Function>,
        device: vk::Device,
        alignment: u64,
        unit: u64,
    ) -> Option<Self> {
        let name = c"vkGetMemoryHostPointerPropertiesEXT";
        let function = get(name)?;
        // SAFETY: the loader answers by name, and this is the type of that function.
        let properties = unsafe {
            std::mem::transmute::<Function, host::PFN_vkGetMemoryHostPointerPropertiesEXT>(function)
        };
        Some(Self {
            device,
            properties,
            alignment: alignment.max(page_size()),
            unit: unit.max(alignment).max(page_size()),
        })
    }

    /// The alignment of addresses that are imported.
    pub(crate) fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Bytes that the driver imports for an allocation of `size`. `None` when that overflows.
    pub(crate) fn rounded(&self, size: u64) -> Option<u64> {
        size.max(1).checked_next_multiple_of(self.unit)
    }

    /// Bytes of shared memory for an allocation of `size`: what the driver imports, rounded up to
    /// the guest's last page. Untouched pages take no memory.
    pub(crate) fn shared(&self, size: u64) -> Option<u64> {
        self.rounded(size)?.checked_next_multiple_of(GUEST_PAGE)
    }

    /// Memory types (as bits) that this memory can be imported as.
    pub(crate) fn types(&self, memory: &SharedMemory) -> u32 {
        let address = memory.as_ptr().addr() as u64;
        if !address.is_multiple_of(self.alignment) {
            return 0;
        }
        let mut properties = host::MemoryHostPointerPropertiesEXT::default();
        let device = host::Handle::from_raw(self.device.0);
        let kind = host::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        // SAFETY: the device is alive, and the pointer is a mapping that the driver only looks up.
        let result =
            unsafe { (self.properties)(device, kind, memory.as_ptr().cast(), &mut properties) };
        if result == host::Result::SUCCESS {
            properties.memory_type_bits
        } else {
            0
        }
    }
}

/// The struct that makes an allocation an import of `memory`, for the chain of the allocation.
pub(crate) fn import_info(
    memory: &SharedMemory,
    next: *const c_void,
) -> host::ImportMemoryHostPointerInfoEXT<'static> {
    host::ImportMemoryHostPointerInfoEXT {
        p_next: next,
        handle_type: host::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT,
        p_host_pointer: memory.as_ptr().cast(),
        ..Default::default()
    }
}
