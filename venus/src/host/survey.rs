//! What a bug report says about the host's Vulkan: the library's version, memory, and which
//! extensions guests see differently than the driver has them.

use ash::vk;
use vk::{MemoryHeapFlags, MemoryPropertyFlags};

use super::gpu::{Gpu, parts};
use super::library::{Host, Vulkan};
use crate::emulate::{Policy, extensions};
use crate::error::Result;
use crate::options::{Driver, WsiPolicy};

/// The host's Vulkan, as far as it can be queried without making a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The library that was opened: a loader or a driver.
    pub library: Driver,
    /// Its version: major, minor, patch.
    pub library_version: (u32, u32, u32),
    /// The memory of each GPU, in the order of [`super::gpus`].
    pub memory: Vec<GpuMemory>,
}

/// The memory of a GPU as its driver tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuMemory {
    /// Its heaps, by number.
    pub heaps: Vec<MemoryHeap>,
    /// Its types, by number.
    pub types: Vec<MemoryType>,
}

/// `VkMemoryHeap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryHeap {
    /// Its size in bytes.
    pub size: u64,
    /// The names of its flags.
    pub flags: String,
}

/// `VkMemoryType`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryType {
    /// The number of its heap.
    pub heap: u32,
    /// The names of its flags.
    pub flags: String,
}

/// Which of a GPU's memory guests can map, as a [`crate::Renderer`] found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Importable {
    /// The host's memory types that shared memory can be imported as, as bits.
    pub types: u32,
    /// The alignment of imported memory, in bytes.
    pub alignment: u64,
}

/// Extensions that guests see differently than the driver has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The extensions' names.
    pub names: Vec<String>,
    /// What is different, and why.
    pub what: &'static str,
}

/// Queries the host's Vulkan.
///
/// # Errors
/// Those of [`super::gpus`].
pub fn survey(driver: &Driver) -> Result<Survey> {
    let vulkan = Vulkan::open(driver)?;
    let host = Host::load(vulkan.driver())?;
    // SAFETY: a plain query of the library.
    let version = unsafe { host.entry().try_enumerate_instance_version() };
    let instance = host.probe_instance()?;
    let gpus = instance.physical_devices()?;
    let memory = gpus.iter().map(|(device, _)| {
        // SAFETY: the device belongs to the instance, which is alive.
        let properties = unsafe {
            instance
                .raw()
                .get_physical_device_memory_properties(*device)
        };
        GpuMemory::from(&properties)
    });
    Ok(Survey {
        library: vulkan.driver().clone(),
        library_version: parts(version.ok().flatten().unwrap_or(vk::API_VERSION_1_0)),
        memory: memory.collect(),
    })
}

/// The extensions that guests see differently than the driver of this GPU has them, with this
/// setting. The GPU is one that a renderer has shown.
#[must_use]
pub fn differences(wsi: WsiPolicy, gpu: &Gpu) -> Vec<Difference> {
    let groups = extensions::different(Policy::new(wsi, gpu)).into_iter();
    let named = groups.map(|(extensions, what)| Difference {
        names: extensions
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect(),
        what,
    });
    named.collect()
}

impl From<&vk::PhysicalDeviceMemoryProperties> for GpuMemory {
    fn from(told: &vk::PhysicalDeviceMemoryProperties) -> Self {
        let heaps = told
            .memory_heaps
            .iter()
            .take(told.memory_heap_count as usize);
        let types = told
            .memory_types
            .iter()
            .take(told.memory_type_count as usize);
        Self {
            heaps: heaps
                .map(|heap| MemoryHeap {
                    size: heap.size,
                    flags: heap_flags(heap.flags),
                })
                .collect(),
            types: types
                .map(|one| MemoryType {
                    heap: one.heap_index,
                    flags: type_flags(one.property_flags),
                })
                .collect(),
        }
    }
}

/// The names of a heap's flags as in the specification, without their common prefix and suffix.
fn heap_flags(flags: MemoryHeapFlags) -> String {
    names(
        flags.as_raw(),
        &[
            (MemoryHeapFlags::DEVICE_LOCAL.as_raw(), "DEVICE_LOCAL"),
            (MemoryHeapFlags::MULTI_INSTANCE.as_raw(), "MULTI_INSTANCE"),
        ],
    )
}

/// The same for a memory type.
fn type_flags(flags: MemoryPropertyFlags) -> String {
    names(
        flags.as_raw(),
        &[
            (MemoryPropertyFlags::DEVICE_LOCAL.as_raw(), "DEVICE_LOCAL"),
            (MemoryPropertyFlags::HOST_VISIBLE.as_raw(), "HOST_VISIBLE"),
            (MemoryPropertyFlags::HOST_COHERENT.as_raw(), "HOST_COHERENT"),
            (MemoryPropertyFlags::HOST_CACHED.as_raw(), "HOST_CACHED"),
            (
                MemoryPropertyFlags::LAZILY_ALLOCATED.as_raw(),
                "LAZILY_ALLOCATED",
            ),
            (MemoryPropertyFlags::PROTECTED.as_raw(), "PROTECTED"),
        ],
    )
}

/// The names of the bits that are set. A bit without a name is a number. "none" when no bit is set.
fn names(flags: u32, known: &[(u32, &str)]) -> String {
    let set = known.iter().filter(|(bit, _)| flags & bit != 0);
    let mut names: Vec<String> = set.map(|(_, name)| (*name).to_owned()).collect();
    let rest = known.iter().fold(flags, |rest, (bit, _)| rest & !bit);
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_as_the_driver_has_it() {
        let mut told = vk::PhysicalDeviceMemoryProperties {
            memory_heap_count: 1,
            memory_type_count: 2,
            ..Default::default()
        };
        told.memory_heaps[0].size = 8 << 30;
        told.memory_heaps[0].flags = MemoryHeapFlags::DEVICE_LOCAL;
        told.memory_types[1].property_flags =
            MemoryPropertyFlags::HOST_VISIBLE | MemoryPropertyFlags::from_raw(0x40);
        let memory = GpuMemory::from(&told);
        assert_eq!(memory.heaps.len(), 1);
        assert_eq!(memory.heaps[0].flags, "DEVICE_LOCAL");
        let flags: Vec<&str> = memory.types.iter().map(|one| one.flags.as_str()).collect();
        assert_eq!(flags, ["none", "HOST_VISIBLE 0x40"]);
    }

    #[test]
    fn a_count_that_no_driver_may_tell_is_no_panic() {
        let told = vk::PhysicalDeviceMemoryProperties {
            memory_heap_count: u32::MAX,
            memory_type_count: u32::MAX,
            ..Default::default()
        };
        let memory = GpuMemory::from(&told);
        assert_eq!((memory.heaps.len(), memory.types.len()), (16, 32));
    }

    #[test]
    fn what_is_shared_with_display_servers_is_hidden_or_emulated_as_the_setting_says() {
        let shares = crate::host::gpu::tests::gpu("a card");
        let mut copies = shares.clone();
        copies.copied_pictures = Some("it is slow".to_owned());
        let dma_buf = |wsi, gpu| {
            let found = differences(wsi, gpu).into_iter();
            let names = |one: &Difference| one.names.iter().any(|name| name.ends_with("dma_buf"));
            let mut with = found.filter(names).map(|one| one.what);
            (with.next(), with.next())
        };
        for (wsi, gpu, answer) in [
            (WsiPolicy::Auto, &copies, "hidden"),
            (WsiPolicy::Auto, &shares, "emulated"),
            (WsiPolicy::Software, &shares, "hidden"),
            (WsiPolicy::Dmabuf, &copies, "emulated"),
        ] {
            let (Some(what), None) = dma_buf(wsi, gpu) else {
                panic!("dma-bufs are named once");
            };
            assert!(what.starts_with(answer), "{wsi}: {what}");
        }
    }
}
