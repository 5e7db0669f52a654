//! A device of a guest's, and the few objects that tests need of it.

use std::ffi::CStr;

use hesper_venus_protocol::runtime::{Array, Object};
use hesper_venus_protocol::{command, vk};

use super::Guest;

/// Ids of a guest's objects.
pub struct Gpu {
    pub instance: u64,
    pub physical: u64,
    pub device: u64,
    pub queue: u64,
}

/// The ring index that the queue is bound to.
pub const RING: u8 = 1;
const SUCCESS: u64 = 0;

impl Guest {
    /// Instance, first physical device, device and a queue on ring index [`RING`].
    pub fn gpu(&self) -> Gpu {
        let (instance, physical) = (self.id(), self.id());
        let application = vk::ApplicationInfo {
            api_version: 1 << 22 | 3 << 12,
            ..Default::default()
        };
        let mut info = vk::InstanceCreateInfo {
            p_application_info: &raw const application,
            ..Default::default()
        };
        let result = self.call(command::CreateInstance {
            p_create_info: &mut info,
            p_instance: &mut vk::Instance(instance),
        });
        assert_eq!(result, SUCCESS);
        let mut count = 1;
        let mut ids = [vk::PhysicalDevice(physical)];
        self.call(command::EnumeratePhysicalDevices {
            instance: Object::guest(instance),
            p_physical_device_count: &mut count,
            p_physical_devices: ids.as_mut_slice().into(),
        });
        assert_eq!(count, 1);
        let device = self.device(physical);
        let queue = self.queue(device, u32::from(RING));
        Gpu {
            instance,
            physical,
            device,
            queue,
        }
    }

    /// A device with one queue.
    pub fn device(&self, physical: u64) -> u64 {
        self.device_with(physical, &[])
    }

    /// A device with one queue and extensions, of which host image copy's feature is enabled.
    pub fn device_with(&self, physical: u64, extensions: &[&CStr]) -> u64 {
        let device = self.id();
        let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
        let priority = 1.0;
        let queues = vk::DeviceQueueCreateInfo {
            queue_count: 1,
            p_queue_priorities: &raw const priority,
            ..Default::default()
        };
        let mut host_copy = vk::PhysicalDeviceHostImageCopyFeatures {
            host_image_copy: 1,
            ..Default::default()
        };
        let mut features = vk::PhysicalDeviceTimelineSemaphoreFeatures {
            p_next: match extensions.is_empty() {
                true => std::ptr::null_mut(),
                false => (&raw mut host_copy).cast(),
            },
            timeline_semaphore: 1,
            ..Default::default()
        };
        let mut info = vk::DeviceCreateInfo {
            p_next: (&raw mut features).cast(),
            queue_create_info_count: 1,
            p_queue_create_infos: &raw const queues,
            enabled_extension_count: names.len() as u32,
            pp_enabled_extension_names: names.as_ptr(),
            ..Default::default()
        };
        let result = self.call(command::CreateDevice {
            physical_device: Object::guest(physical),
            p_create_info: &mut info,
            p_device: &mut vk::Device(device),
        });
        assert_eq!(result, SUCCESS);
        device
    }

    /// What making a device with these queues (family, count) results in. It is destroyed at once if it was made.
    pub fn try_queues(&self, physical: u64, families: &[(u32, u32)]) -> vk::Result {
        let device = self.id();
        let result = self.create_with_queues(physical, device, families);
        if result == vk::Result::SUCCESS {
            self.call(command::DestroyDevice {
                device: Object::guest(device),
            });
        }
        result
    }

    /// What making `device` with these queues (family, count) results in.
    pub fn create_with_queues(
        &self,
        physical: u64,
        device: u64,
        families: &[(u32, u32)],
    ) -> vk::Result {
        let most = families.iter().map(|(_, count)| *count).max();
        let priorities = vec![1.0; most.unwrap_or(0) as usize];
        let queues: Vec<_> = families
            .iter()
            .map(|(family, count)| vk::DeviceQueueCreateInfo {
                queue_family_index: *family,
                queue_count: *count,
                p_queue_priorities: priorities.as_ptr(),
                ..Default::default()
            })
            .collect();
        let mut info = vk::DeviceCreateInfo {
            queue_create_info_count: queues.len() as u32,
            p_queue_create_infos: queues.as_ptr(),
            ..Default::default()
        };
        let result = self.call(command::CreateDevice {
            physical_device: Object::guest(physical),
            p_create_info: &mut info,
            p_device: &mut vk::Device(device),
        });
        // The bits of a 32-bit number.
        vk::Result(result as i32)
    }

    /// The queue of a device, bound to a ring index.
    pub fn queue(&self, device: u64, ring: u32) -> u64 {
        let queue = self.id();
        let timeline = vk::DeviceQueueTimelineInfoMESA {
            ring_idx: ring,
            ..Default::default()
        };
        let mut info = vk::DeviceQueueInfo2 {
            p_next: (&raw const timeline).cast(),
            ..Default::default()
        };
        self.call(command::GetDeviceQueue2 {
            device: Object::guest(device),
            p_queue_info: &mut info,
            p_queue: &mut vk::Queue(queue),
        });
        queue
    }

    /// The first memory type that the guest can map.
    pub fn visible_type(&self, gpu: &Gpu) -> u32 {
        let mut properties = vk::PhysicalDeviceMemoryProperties::default();
        self.call(command::GetPhysicalDeviceMemoryProperties {
            physical_device: Object::guest(gpu.physical),
            p_memory_properties: &mut properties,
        });
        let types = properties.memory_types.iter();
        let visible = vk::MemoryPropertyFlags::HOST_VISIBLE;
        let index = types
            .take(properties.memory_type_count as usize)
            .position(|memory_type| memory_type.property_flags.contains(visible));
        index.expect("a memory type that the guest can map") as u32
    }

    /// A buffer bound to memory that the guest can map: ids of both.
    pub fn buffer(&self, gpu: &Gpu, size: u64) -> (u64, u64) {
        let (buffer, memory) = (self.id(), self.id());
        let mut info = vk::BufferCreateInfo {
            size,
            usage: vk::BufferUsageFlags::TRANSFER_DST,
            ..Default::default()
        };
        let result = self.call(command::CreateBuffer {
            device: Object::guest(gpu.device),
            p_create_info: &mut info,
            p_buffer: &mut vk::Buffer(buffer),
        });
        assert_eq!(result, SUCCESS);
        let mut info = vk::MemoryAllocateInfo {
            allocation_size: size,
            memory_type_index: self.visible_type(gpu),
            ..Default::default()
        };
        let result = self.call(command::AllocateMemory {
            device: Object::guest(gpu.device),
            p_allocate_info: &mut info,
            p_memory: &mut vk::DeviceMemory(memory),
        });
        assert_eq!(result, SUCCESS);
        let result = self.call(command::BindBufferMemory {
            device: Object::guest(gpu.device),
            buffer: Object::guest(buffer),
            memory: Object::guest(memory),
            memory_offset: 0,
        });
        assert_eq!(result, SUCCESS);
        (buffer, memory)
    }

    /// A command buffer that fills a buffer, and its pool.
    pub fn fill(&self, gpu: &Gpu, buffer: u64, pattern: u32) -> (u64, u64) {
        let (pool, commands) = (self.id(), self.id());
        let mut info = vk::CommandPoolCreateInfo::default();
        self.call(command::CreateCommandPool {
            device: Object::guest(gpu.device),
            p_create_info: &mut info,
            p_command_pool: &mut vk::CommandPool(pool),
        });
        let mut info = vk::CommandBufferAllocateInfo {
            command_pool: vk::CommandPool(pool),
            command_buffer_count: 1,
            ..Default::default()
        };
        self.call(command::AllocateCommandBuffers {
            device: Object::guest(gpu.device),
            p_allocate_info: &mut info,
            p_command_buffers: [vk::CommandBuffer(commands)].as_mut_slice().into(),
        });
        self.send(&command::BeginCommandBuffer {
            command_buffer: Object::guest(commands),
            p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
        });
        self.send(&command::CmdFillBuffer {
            command_buffer: Object::guest(commands),
            dst_buffer: Object::guest(buffer),
            dst_offset: 0,
            size: u64::MAX,
            data: pattern,
        });
        self.send(&command::EndCommandBuffer {
            command_buffer: Object::guest(commands),
        });
        (commands, pool)
    }

    /// Submits command buffers, which may be none.
    pub fn submit(&self, gpu: &Gpu, commands: &[u64]) {
        let handles: Vec<_> = commands.iter().map(|id| vk::CommandBuffer(*id)).collect();
        let mut submit = vk::SubmitInfo {
            command_buffer_count: handles.len() as u32,
            p_command_buffers: handles.as_ptr(),
            ..Default::default()
        };
        self.send_submit(gpu, &mut submit);
    }

    /// Submits what `submit` says.
    pub fn send_submit(&self, gpu: &Gpu, submit: &mut vk::SubmitInfo) {
        self.send(&command::QueueSubmit {
            queue: Object::guest(gpu.queue),
            submit_count: 1,
            p_submits: std::slice::from_mut(submit).into(),
            fence: Object::guest(0),
        });
    }

    /// A timeline semaphore.
    pub fn timeline(&self, gpu: &Gpu) -> u64 {
        let semaphore = self.id();
        let kind = vk::SemaphoreTypeCreateInfo {
            semaphore_type: vk::SemaphoreType::TIMELINE,
            ..Default::default()
        };
        let mut info = vk::SemaphoreCreateInfo {
            p_next: (&raw const kind).cast(),
            ..Default::default()
        };
        let result = self.call(command::CreateSemaphore {
            device: Object::guest(gpu.device),
            p_create_info: &mut info,
            p_semaphore: &mut vk::Semaphore(semaphore),
        });
        assert_eq!(result, SUCCESS);
        semaphore
    }

    /// Lets the queue wait for a value of a timeline semaphore.
    pub fn submit_wait(&self, gpu: &Gpu, semaphore: u64, value: u64) {
        let semaphore = vk::Semaphore(semaphore);
        let stage = vk::PipelineStageFlags::ALL_COMMANDS;
        let values = vk::TimelineSemaphoreSubmitInfo {
            wait_semaphore_value_count: 1,
            p_wait_semaphore_values: &raw const value,
            ..Default::default()
        };
        let mut submit = vk::SubmitInfo {
            p_next: (&raw const values).cast(),
            wait_semaphore_count: 1,
            p_wait_semaphores: &raw const semaphore,
            p_wait_dst_stage_mask: &raw const stage,
            ..Default::default()
        };
        self.send_submit(gpu, &mut submit);
    }

    /// Signals a timeline semaphore from the host's side.
    pub fn signal(&self, gpu: &Gpu, semaphore: u64, value: u64) {
        let mut info = vk::SemaphoreSignalInfo {
            semaphore: vk::Semaphore(semaphore),
            value,
            ..Default::default()
        };
        let result = self.call(command::SignalSemaphore {
            device: Object::guest(gpu.device),
            p_signal_info: &mut info,
        });
        assert_eq!(result, SUCCESS);
    }
}

/// No array.
pub fn none<'a, T>() -> Array<'a, T> {
    Array::NULL
}
