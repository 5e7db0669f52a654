//! A context of a guest, its commands and replies, and the few objects that tests need.

use std::ffi::CStr;

use hesper_venus_protocol::runtime::{Command, Object};
use hesper_venus_protocol::{command, guest, vk};

/// Ids of a guest's objects.
pub struct Gpu {
    /// The instance.
    pub instance: u64,
    /// Its first physical device.
    pub physical: u64,
    /// A device of it.
    pub device: u64,
    /// Its queue.
    pub queue: u64,
}

/// The ring index that the queue is bound to.
pub const RING: u8 = 1;
const SUCCESS: u64 = 0;

/// Memory that guest and renderer share.
pub trait Memory {
    /// Reads bytes.
    fn read(&self, offset: usize, bytes: &mut [u8]);
    /// Writes bytes.
    fn write(&self, offset: usize, bytes: &[u8]);
    /// Reads a word that both sides use as a signal.
    fn word(&self, offset: usize) -> u32;
    /// Writes one.
    fn set_word(&self, offset: usize, word: u32);
}

/// A resource with such memory.
pub struct Shared<M> {
    /// Its id.
    pub resource: u32,
    /// Its bytes.
    pub memory: M,
}

/// Calls `act` with a submission that waits for a value of a timeline semaphore.
pub fn with_wait<R>(semaphore: u64, value: u64, act: impl FnOnce(&mut vk::SubmitInfo) -> R) -> R {
    let semaphore = vk::Semaphore(semaphore);
    let stage = vk::PipelineStageFlags::ALL_COMMANDS;
    let values = vk::TimelineSemaphoreSubmitInfo {
        wait_semaphore_value_count: 1,
        p_wait_semaphore_values: &raw const value,
        ..Default::default()
    };
    act(&mut vk::SubmitInfo {
        p_next: (&raw const values).cast(),
        wait_semaphore_count: 1,
        p_wait_semaphores: &raw const semaphore,
        p_wait_dst_stage_mask: &raw const stage,
        ..Default::default()
    })
}

/// A context, and what a guest's driver knows of it.
pub trait VenusGuest {
    /// How the guest sees shared memory.
    type Memory: Memory;
    /// Bytes of the memory for replies.
    const REPLIES: usize;

    /// A fresh object id.
    fn id(&self) -> u64;

    /// Submits bytes.
    fn submit_bytes(&self, stream: &[u8]);

    /// Makes a fence on a ring and waits for it; panics when the context is lost first.
    fn wait_fence(&self, ring: u8);

    /// Makes a resource with fresh memory.
    fn share(&self, size: usize) -> Shared<Self::Memory>;

    /// The memory for replies.
    fn replies(&self) -> &Shared<Self::Memory>;

    /// Sends a command without a reply.
    fn send<'a, C: Command<'a>>(&self, command: &C) {
        self.submit_bytes(&bytes(command));
    }

    /// Sends a command, waits for it and decodes its reply. Gives back the return value's bits.
    #[track_caller]
    fn call<'a, C: Command<'a>>(&self, mut command: C) -> u64 {
        let replies = self.replies();
        let mut stream = reply_stream(replies.resource, 0, Self::REPLIES);
        stream.extend(query(&command));
        self.submit_bytes(&stream);
        self.wait_fence(0);
        let mut reply = vec![0; Self::REPLIES];
        replies.memory.read(0, &mut reply);
        read_reply(&mut command, &reply)
    }

    /// The instance's version: the shortest proof that the context is served.
    #[track_caller]
    fn version(&self) -> u32 {
        let mut version = 0;
        self.call(command::EnumerateInstanceVersion {
            p_api_version: &mut version,
        });
        version
    }

    /// Instance, first physical device, device and a queue on ring index [`RING`].
    fn gpu(&self) -> Gpu {
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
    fn device(&self, physical: u64) -> u64 {
        self.device_with(physical, &[])
    }

    /// A device with one queue and extensions, of which host image copy's feature is enabled.
    fn device_with(&self, physical: u64, extensions: &[&CStr]) -> u64 {
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

    /// The result of making a device with these queues (family, count). A device that was made is
    /// destroyed at once.
    fn try_queues(&self, physical: u64, families: &[(u32, u32)]) -> vk::Result {
        let device = self.id();
        let result = self.create_with_queues(physical, device, families);
        if result == vk::Result::SUCCESS {
            self.call(command::DestroyDevice {
                device: Object::guest(device),
            });
        }
        result
    }

    /// The result of making `device` with these queues (family, count).
    fn create_with_queues(
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
    fn queue(&self, device: u64, ring: u32) -> u64 {
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
    fn visible_type(&self, gpu: &Gpu) -> u32 {
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

    /// A buffer bound to memory that the guest can map; returns the ids of both.
    fn buffer(&self, gpu: &Gpu, size: u64) -> (u64, u64) {
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

    /// A command buffer, and its pool.
    fn command_buffer(&self, gpu: &Gpu) -> (u64, u64) {
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
        (commands, pool)
    }

    /// A command buffer that fills a buffer, and its pool.
    fn fill(&self, gpu: &Gpu, buffer: u64, pattern: u32) -> (u64, u64) {
        let (commands, pool) = self.command_buffer(gpu);
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
    fn submit(&self, gpu: &Gpu, commands: &[u64]) {
        let handles: Vec<_> = commands.iter().map(|id| vk::CommandBuffer(*id)).collect();
        let mut submit = vk::SubmitInfo {
            command_buffer_count: handles.len() as u32,
            p_command_buffers: handles.as_ptr(),
            ..Default::default()
        };
        self.send_submit(gpu, &mut submit);
    }

    /// Submits what `submit` says.
    fn send_submit(&self, gpu: &Gpu, submit: &mut vk::SubmitInfo) {
        self.send(&command::QueueSubmit {
            queue: Object::guest(gpu.queue),
            submit_count: 1,
            p_submits: std::slice::from_mut(submit).into(),
            fence: Object::guest(0),
        });
    }

    /// A timeline semaphore.
    fn timeline(&self, gpu: &Gpu) -> u64 {
        let kind = vk::SemaphoreTypeCreateInfo {
            semaphore_type: vk::SemaphoreType::TIMELINE,
            ..Default::default()
        };
        self.semaphore(gpu, (&raw const kind).cast())
    }

    /// A binary semaphore, from which sync files can be exported.
    fn binary(&self, gpu: &Gpu) -> u64 {
        let export = vk::ExportSemaphoreCreateInfo {
            handle_types: vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD,
            ..Default::default()
        };
        self.semaphore(gpu, (&raw const export).cast())
    }

    /// A semaphore with this chain.
    fn semaphore(&self, gpu: &Gpu, p_next: *const std::ffi::c_void) -> u64 {
        let semaphore = self.id();
        let mut info = vk::SemaphoreCreateInfo {
            p_next,
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

    /// Submits waits for and signals of binary semaphores.
    fn submit_binary(&self, gpu: &Gpu, waits: &[u64], signals: &[u64]) {
        let handles = |ids: &[u64]| ids.iter().map(|id| vk::Semaphore(*id)).collect::<Vec<_>>();
        let (waits, signals) = (handles(waits), handles(signals));
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.len()];
        let mut submit = vk::SubmitInfo {
            wait_semaphore_count: waits.len() as u32,
            p_wait_semaphores: waits.as_ptr(),
            p_wait_dst_stage_mask: stages.as_ptr(),
            signal_semaphore_count: signals.len() as u32,
            p_signal_semaphores: signals.as_ptr(),
            ..Default::default()
        };
        self.send_submit(gpu, &mut submit);
    }

    /// Submits a wait for a value of a timeline semaphore.
    fn submit_wait(&self, gpu: &Gpu, semaphore: u64, value: u64) {
        with_wait(semaphore, value, |submit| self.send_submit(gpu, submit));
    }

    /// Signals a timeline semaphore from the host's side.
    fn signal(&self, gpu: &Gpu, semaphore: u64, value: u64) {
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

/// The bytes of a command without a reply.
pub fn bytes<'a, C: Command<'a>>(command: &C) -> Vec<u8> {
    let mut stream = Vec::new();
    // SAFETY: the tests' arguments point to live values.
    unsafe { guest::encode(command, false, &mut stream) };
    stream
}

/// The bytes of a command with a reply.
pub fn query<'a, C: Command<'a>>(command: &C) -> Vec<u8> {
    let mut stream = Vec::new();
    // SAFETY: the tests' arguments point to live values.
    unsafe { guest::encode(command, true, &mut stream) };
    stream
}

/// Decodes a command's reply into its arguments. Gives back the return value's bits.
#[track_caller]
pub fn read_reply<'a, C: Command<'a>>(command: &mut C, reply: &[u8]) -> u64 {
    // SAFETY: the tests' arguments point to live values.
    let (value, _) = unsafe { guest::decode_reply(command, reply) }.unwrap();
    value
}

/// The bytes of the command that sets where replies go.
pub fn reply_stream(resource: u32, offset: usize, size: usize) -> Vec<u8> {
    bytes(&command::SetReplyCommandStreamMESA {
        p_stream: &mut vk::CommandStreamDescriptionMESA {
            resource_id: resource,
            offset,
            size,
        },
    })
}
