//! Do the GPU's writes show in a guest's mapping? The renderer tries it at start, for every memory
//! type.
//!
//! Shared memory is imported as device memory, filled by the GPU, and read through a *second*
//! mapping, as a guest would do. A driver that copies, or that only claims to import, fails here
//! with a message. Without this test, the guest would wait forever for a fence.

use std::ffi::{CStr, c_char};

use ash::{Device, Instance, vk};
use serde::{Deserialize, Serialize};

use super::image_test::{self, Optimal};
use super::sparse_test::{self, Sparse};
use super::{SharedMemory, page_size};
use crate::error::{Error, Result};
use crate::host::portability::{self, Subset};
use crate::host::version::CoreFunctions;
use crate::platform;

/// What the GPU writes.
const PATTERN: u32 = 0x4845_5350;
/// How long a fill of one page may take, in nanoseconds.
const TIMEOUT: u64 = 10_000_000_000;

/// What a GPU can do with shared memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Importable {
    /// Memory types, as bits, that shared memory can be imported as and that passed the test.
    pub(crate) types: u32,
    /// `minImportedHostPointerAlignment` in bytes.
    pub(crate) alignment: u64,
    /// Which core functions the test device has.
    pub(crate) core: CoreFunctions,
    /// Whether imported memory can be bound sparsely.
    pub(crate) sparse: Sparse,
    /// Where images with optimal tiling may lie.
    pub(crate) optimal: Optimal,
    /// What can be declared for imported memory.
    pub(crate) declares: Declares,
    /// The driver's part of the portability subset. `None` for a driver that has all of Vulkan.
    pub(crate) subset: Option<Subset>,
    /// The file name of the driver's library, if the system tells it.
    pub(crate) library: Option<String>,
}

/// What the driver accepts as declared for memory that is imported by host pointer. MoltenVK up to
/// 1.4.0 says that it imports such memory, and does so, but refuses the declaration
/// (`VK_ERROR_FEATURE_NOT_PRESENT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declares {
    /// Buffers.
    pub(crate) buffers: bool,
    /// Images.
    pub(crate) images: bool,
}

impl Default for Declares {
    fn default() -> Self {
        Self {
            buffers: true,
            images: true,
        }
    }
}

/// Tries every host-visible, coherent memory type of `gpu`, and looks which core functions a device
/// of it has.
///
/// # Errors
/// [`Error::Vulkan`] when the driver fails. A type that does not pass is only logged and left out.
pub(crate) fn importable(instance: &Instance, gpu: vk::PhysicalDevice) -> Result<Importable> {
    let mut host = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut host);
    // SAFETY: the device belongs to the instance; the caller saw that it has the extension.
    unsafe { instance.get_physical_device_properties2(gpu, &mut properties) };
    let version = properties.properties.api_version;
    let alignment = host.min_imported_host_pointer_alignment.max(page_size());
    // SAFETY: as above.
    let memory = unsafe { instance.get_physical_device_memory_properties(gpu) };
    let test = Test::new(instance, gpu, alignment)?;
    let offered = test.offered();
    let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
    let mut types = 0;
    for (index, memory_type) in (0..).zip(memory.memory_types_as_slice()) {
        if offered & (1 << index) == 0 || !memory_type.property_flags.contains(wanted) {
            continue;
        }
        match test.fill(index) {
            Ok(()) => types |= 1 << index,
            Err(error) => log::warn!("{error}"),
        }
    }
    let core = CoreFunctions::of(version, |name, extension| {
        has_function(instance, gpu, &test, name, extension)
    });
    let sparse = sparse_test::examine(&test, types);
    let optimal = image_test::examine(&test, instance, gpu, types);
    Ok(Importable {
        types,
        alignment,
        core,
        sparse,
        optimal,
        declares: test.declares,
        subset: test.subset,
        library: test.library(),
    })
}

/// Whether the test device has a function. With an extension, whether another device that enables
/// it has the function.
fn has_function(
    instance: &Instance,
    gpu: vk::PhysicalDevice,
    test: &Test,
    name: &CStr,
    extension: Option<&CStr>,
) -> bool {
    // SAFETY: the device is alive, the name ends with NUL.
    let has = |device: &Device| unsafe {
        instance
            .get_device_proc_addr(device.handle(), name.as_ptr())
            .is_some()
    };
    let Some(extension) = extension else {
        return has(&test.device);
    };
    let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
    let mut names = extensions(test.subset);
    names.push(extension.as_ptr());
    let mut subset = test.subset.map(|subset| subset.enabled());
    let mut info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&names);
    if let Some(subset) = &mut subset {
        info = info.push_next(subset);
    }
    // SAFETY: the info points to live data. A driver without the extension makes no device.
    let Ok(device) = (unsafe { instance.create_device(gpu, &info, None) }) else {
        return false;
    };
    let has = has(&device);
    // SAFETY: nothing was made from the device.
    unsafe { device.destroy_device(None) };
    has
}

/// The extensions of every test device.
fn extensions(subset: Option<Subset>) -> Vec<*const c_char> {
    let mut names = vec![ash::ext::external_memory_host::NAME.as_ptr()];
    names.extend(subset.map(|_| portability::NAME.as_ptr()));
    names
}

pub(super) fn failed(call: &'static str) -> impl Fn(vk::Result) -> Error {
    move |result| Error::Vulkan { call, result }
}

/// A device and what one fill needs. All is destroyed on drop.
pub(super) struct Test {
    pub(super) device: Device,
    host: ash::ext::external_memory_host::Device,
    queue: vk::Queue,
    pool: vk::CommandPool,
    pub(super) shared: SharedMemory,
    alignment: u64,
    pub(super) declares: Declares,
    subset: Option<Subset>,
    /// The queue for sparse binding, and what the driver can do with it. `None` without sparse
    /// binding.
    pub(super) sparse: Option<(vk::Queue, sparse_test::Abilities)>,
}

/// What [`Test::with_imported`] made.
pub(super) struct Imported<'t> {
    /// Another mapping of the memory.
    pub(super) pages: &'t SharedMemory,
    /// The memory.
    pub(super) memory: vk::DeviceMemory,
    /// A buffer whose contents lie in [`Test::shared`].
    pub(super) results: vk::Buffer,
}

impl Test {
    fn new(instance: &Instance, gpu: vk::PhysicalDevice, alignment: u64) -> Result<Self> {
        let shared = SharedMemory::create_aligned(alignment, alignment)?;
        let subset = Subset::of(instance, gpu);
        // SAFETY: the device belongs to the instance.
        let families = unsafe { instance.get_physical_device_queue_family_properties(gpu) };
        let with = |flags: vk::QueueFlags| {
            let mut indexed = (0..).zip(&families);
            let found = indexed.find(|(_, family)| family.queue_flags.intersects(flags));
            found.map(|(index, _)| index)
        };
        let does_transfers =
            vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE | vk::QueueFlags::TRANSFER;
        let family = with(does_transfers).unwrap_or(0);
        let binds = with(vk::QueueFlags::SPARSE_BINDING);
        let abilities = binds.and_then(|_| sparse_test::Abilities::of(instance, gpu));
        let features = abilities.map_or_else(Default::default, |abilities| abilities.features());
        let mut queues = vec![
            vk::DeviceQueueCreateInfo::default()
                .queue_family_index(family)
                .queue_priorities(&[1.0]),
        ];
        if let Some(binds) = binds.filter(|binds| *binds != family && abilities.is_some()) {
            queues.push(
                vk::DeviceQueueCreateInfo::default()
                    .queue_family_index(binds)
                    .queue_priorities(&[1.0]),
            );
        }
        let names = extensions(subset);
        let mut portable = subset.map(|subset| subset.enabled());
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_features(&features)
            .enabled_extension_names(&names);
        if let Some(portable) = &mut portable {
            info = info.push_next(portable);
        }
        // SAFETY: the info points to live data; the guard destroys the device before the instance
        // goes.
        let device = unsafe { instance.create_device(gpu, &info, None) }
            .map_err(failed("vkCreateDevice"))?;
        let host = ash::ext::external_memory_host::Device::new(instance, &device);
        // SAFETY: the device was created with this queue.
        let queue = unsafe { device.get_device_queue(family, 0) };
        // SAFETY: as above.
        let queue_of = |binds| unsafe { device.get_device_queue(binds, 0) };
        let sparse = binds.map(queue_of).zip(abilities);
        let mut test = Self {
            device,
            host,
            queue,
            pool: vk::CommandPool::null(),
            shared,
            alignment,
            declares: Declares::default(),
            subset,
            sparse,
        };
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the device is alive.
        test.pool = unsafe { test.device.create_command_pool(&info, None) }
            .map_err(failed("vkCreateCommandPool"))?;
        test.declares = Declares {
            buffers: test.can_declare_buffers(),
            images: image_test::can_be_declared(&test, instance, gpu),
        };
        Ok(test)
    }

    /// Whether the driver makes buffers that are declared for imported memory.
    fn can_declare_buffers(&self) -> bool {
        match self.create_buffer(self.alignment, true) {
            // SAFETY: made a moment ago.
            Ok(buffer) => unsafe {
                self.device.destroy_buffer(buffer, None);
                true
            },
            Err(result) => result != vk::Result::ERROR_FEATURE_NOT_PRESENT,
        }
    }

    fn create_buffer(&self, size: u64, is_declared: bool) -> ash::prelude::VkResult<vk::Buffer> {
        let kind = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(kind);
        let mut info = vk::BufferCreateInfo::default()
            .size(size)
            .usage(vk::BufferUsageFlags::TRANSFER_DST);
        if is_declared {
            info = info.push_next(&mut external);
        }
        // SAFETY: the info points to live data.
        unsafe { self.device.create_buffer(&info, None) }
    }

    /// Fresh shared memory of at least `size` bytes that can be imported.
    pub(super) fn pages(&self, size: u64) -> Result<SharedMemory> {
        let whole = size.max(1).checked_next_multiple_of(self.alignment);
        SharedMemory::create_aligned(whole.unwrap_or(u64::MAX), self.alignment)
    }

    /// The memory types that the driver says it imports this memory as.
    /// The file name of the library that has the device's functions. Layers may be in between; then
    /// it is that of a layer.
    fn library(&self) -> Option<String> {
        let code = self.device.fp_v1_0().queue_submit as *const std::ffi::c_void;
        let library = platform::library_of(code)?;
        Some(library.file_name()?.to_str()?.to_owned())
    }

    fn offered(&self) -> u32 {
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        let kind = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        // SAFETY: the pointer is a mapping that stays.
        let result = unsafe {
            let function = self.host.fp().get_memory_host_pointer_properties_ext;
            function(
                self.device.handle(),
                kind,
                self.shared.as_ptr().cast(),
                &mut properties,
            )
        };
        // A driver that accepts no such memory returns an error.
        if result == vk::Result::SUCCESS {
            properties.memory_type_bits
        } else {
            0
        }
    }

    /// Imports the memory as type `index`, lets the GPU fill it and reads it through another
    /// mapping.
    fn fill(&self, index: u32) -> Result<()> {
        let second = self.shared.map_again()?;
        let pattern = PATTERN ^ index;
        let (mut memory, mut buffer) = (vk::DeviceMemory::null(), vk::Buffer::null());
        let filled = self
            .import(&self.shared, index, &mut memory, &mut buffer)
            .and_then(|()| {
                // SAFETY: the buffer is of this device and alive.
                self.run(|commands| unsafe {
                    let device = &self.device;
                    device.cmd_fill_buffer(commands, buffer, 0, vk::WHOLE_SIZE, pattern);
                })
            });
        // SAFETY: both are null or of this device, and `run` waited for the GPU.
        unsafe {
            self.device.destroy_buffer(buffer, None);
            self.device.free_memory(memory, None);
        }
        filled?;
        let mut words = vec![0; second.len()];
        let read = second.read(0, &mut words);
        let is_same = words
            .chunks_exact(4)
            .all(|word| word == pattern.to_ne_bytes());
        if read.is_some() && is_same {
            return Ok(());
        }
        let first = words
            .first_chunk()
            .map_or(0, |word| u32::from_ne_bytes(*word));
        let detail = format!("{first:#x} where the GPU wrote {pattern:#x}");
        Err(Error::SelfTest {
            memory_type: index,
            detail,
        })
    }

    /// Imports `shared` as memory of type `index`.
    ///
    /// # Safety
    /// `shared` must stay until the memory is freed.
    pub(super) unsafe fn import_memory(
        &self,
        shared: &SharedMemory,
        index: u32,
    ) -> Result<vk::DeviceMemory> {
        let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
            .handle_type(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT)
            .host_pointer(shared.as_ptr().cast());
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(shared.len() as u64)
            .memory_type_index(index)
            .push_next(&mut import);
        // SAFETY: the info points to live data; the caller keeps what is imported.
        unsafe { self.device.allocate_memory(&info, None) }.map_err(failed("vkAllocateMemory"))
    }

    /// The memory imported as type `index`, and a buffer on it.
    pub(super) fn import(
        &self,
        shared: &SharedMemory,
        index: u32,
        memory: &mut vk::DeviceMemory,
        buffer: &mut vk::Buffer,
    ) -> Result<()> {
        let size = shared.len() as u64;
        // SAFETY: the memory imported stays until after the test.
        unsafe {
            *memory = self.import_memory(shared, index)?;
            *buffer = self
                .create_buffer(size, self.declares.buffers)
                .map_err(failed("vkCreateBuffer"))?;
            self.device
                .bind_buffer_memory(*buffer, *memory, 0)
                .map_err(failed("vkBindBufferMemory"))
        }
    }

    /// Lets `look` try fresh memory of `size` bytes, which is imported as memory of type `index`
    /// and full of `word`. `look` must wait for what it submits, and must not use what it has bound
    /// to the memory afterwards. `error` makes the error for memory that cannot be written.
    pub(super) fn with_imported<T>(
        &self,
        size: u64,
        index: u32,
        word: u32,
        error: fn(String) -> Error,
        look: impl FnOnce(&Imported<'_>) -> Result<T>,
    ) -> Result<T> {
        let pages = self.pages(size)?;
        let second = pages.map_again()?;
        let before = vec![word.to_ne_bytes(); pages.len() / 4];
        let filled = second.write(0, before.as_flattened());
        filled.ok_or_else(|| error("its memory cannot be written".to_owned()))?;
        // SAFETY: the pages stay until the memory is freed.
        let memory = unsafe { self.import_memory(&pages, index) }?;
        let (mut behind, mut results) = (vk::DeviceMemory::null(), vk::Buffer::null());
        let seen = self
            .import(&self.shared, index, &mut behind, &mut results)
            .and_then(|()| {
                look(&Imported {
                    pages: &second,
                    memory,
                    results,
                })
            });
        // SAFETY: of this device or null, and every submission was waited for. What is bound to the
        // memory is not used any more.
        unsafe {
            self.device.destroy_buffer(results, None);
            self.device.free_memory(behind, None);
            self.device.free_memory(memory, None);
        }
        seen
    }

    /// Lets the GPU do what `record` records, and waits for it. The host then sees the GPU's
    /// writes.
    pub(super) fn run(&self, record: impl Fn(vk::CommandBuffer)) -> Result<()> {
        let device = &self.device;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.pool)
            .command_buffer_count(1);
        // SAFETY: every object is of this device and alive until the GPU is done.
        unsafe {
            let commands = device
                .allocate_command_buffers(&info)
                .map_err(failed("vkAllocateCommandBuffers"))?;
            for command in &commands {
                let begin = vk::CommandBufferBeginInfo::default();
                device
                    .begin_command_buffer(*command, &begin)
                    .map_err(failed("vkBeginCommandBuffer"))?;
                record(*command);
                let barrier = vk::MemoryBarrier::default()
                    .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
                    .dst_access_mask(vk::AccessFlags::HOST_READ | vk::AccessFlags::TRANSFER_READ);
                let (from, to) = (
                    vk::PipelineStageFlags::TRANSFER,
                    vk::PipelineStageFlags::HOST | vk::PipelineStageFlags::TRANSFER,
                );
                device.cmd_pipeline_barrier(
                    *command,
                    from,
                    to,
                    vk::DependencyFlags::empty(),
                    &[barrier],
                    &[],
                    &[],
                );
                device
                    .end_command_buffer(*command)
                    .map_err(failed("vkEndCommandBuffer"))?;
            }
            let submit = [vk::SubmitInfo::default().command_buffers(&commands)];
            self.wait(|fence| {
                device
                    .queue_submit(self.queue, &submit, fence)
                    .map_err(failed("vkQueueSubmit"))
            })
        }
    }

    /// Waits for what `submit` submits with a fence.
    pub(super) fn wait(&self, submit: impl FnOnce(vk::Fence) -> Result<()>) -> Result<()> {
        let device = &self.device;
        // SAFETY: the fence is of this device, and is destroyed when the device is idle.
        unsafe {
            let fence = device
                .create_fence(&vk::FenceCreateInfo::default(), None)
                .map_err(failed("vkCreateFence"))?;
            let submitted = submit(fence);
            let done = submitted.and_then(|()| {
                device
                    .wait_for_fences(&[fence], true, TIMEOUT)
                    .map_err(failed("vkWaitForFences"))
            });
            // After a timeout, nothing may be in use either.
            let idle = device
                .device_wait_idle()
                .map_err(failed("vkDeviceWaitIdle"));
            device.destroy_fence(fence, None);
            done.and(idle)
        }
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        // SAFETY: `run` waited for the GPU; nothing else was made that is still alive.
        unsafe {
            self.device.destroy_command_pool(self.pool, None);
            self.device.destroy_device(None);
        }
    }
}
