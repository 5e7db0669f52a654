//! Threads of one context that use the same objects at the same time, over a driver that ends the
//! process if an object is destroyed while it is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hesper_venus_protocol::runtime::{Array, Command, Object};
use hesper_venus_protocol::{command, guest, vk};

use crate::blob::{Blob, BlobError};
use crate::context::events::ContextEvents;
use crate::context::state::ContextState;
use crate::executor::Executor;
use crate::fatal::Fatal;
use crate::object::reclamation::{Class, Member};
use crate::renderer::Renderer;
use crate::session::{Handles, Source};
use crate::{Driver, RendererOptions};

#[path = "../tests/hostile/mutate.rs"]
#[allow(dead_code, unreachable_pub, reason = "only the generator is used")]
mod mutate;
#[path = "../tests/null/mod.rs"]
mod null;

/// Threads that use the same objects.
const THREADS: u64 = 8;
/// Objects of each type.
const EACH: u64 = 3;
/// Commands of all threads together, unless `HESPER_STRESS` says how many.
const COMMANDS: u64 = 60_000;

const INSTANCE: u64 = 1;
const PHYSICAL: u64 = 2;
const DEVICE: u64 = 3;
const QUEUE: u64 = 4;

struct Silent;

impl ContextEvents for Silent {
    fn fence_retired(&self, _ring: u8, _fence: u64) {}
    fn blob_created(&self, _resource: u32, _result: Result<Blob, BlobError>) {}
    fn lost(&self, _reason: &str) {}
}

/// A command as a guest writes it.
fn encoded<'a>(command: impl Command<'a>) -> Vec<u8> {
    let mut stream = Vec::new();
    // SAFETY: the arguments of all callers point to live values.
    unsafe { guest::encode(&command, false, &mut stream) };
    stream
}

/// The instance, its GPU, a device and its queue.
fn device() -> Vec<u8> {
    let mut all = encoded(command::CreateInstance {
        p_create_info: &mut vk::InstanceCreateInfo::default(),
        p_instance: &mut vk::Instance(INSTANCE),
    });
    all.extend(encoded(command::EnumeratePhysicalDevices {
        instance: Object::guest(INSTANCE),
        p_physical_device_count: &mut 1,
        p_physical_devices: [vk::PhysicalDevice(PHYSICAL)].as_mut_slice().into(),
    }));
    all.extend(device_again());
    all
}

fn device_again() -> Vec<u8> {
    let priority = 1.0;
    let queues = vk::DeviceQueueCreateInfo {
        queue_count: 1,
        p_queue_priorities: &raw const priority,
        ..Default::default()
    };
    let mut info = vk::DeviceCreateInfo {
        queue_create_info_count: 1,
        p_queue_create_infos: &raw const queues,
        ..Default::default()
    };
    let mut all = encoded(command::CreateDevice {
        physical_device: Object::guest(PHYSICAL),
        p_create_info: &mut info,
        p_device: &mut vk::Device(DEVICE),
    });
    all.extend(encoded(command::GetDeviceQueue2 {
        device: Object::guest(DEVICE),
        p_queue_info: &mut vk::DeviceQueueInfo2::default(),
        p_queue: &mut vk::Queue(QUEUE),
    }));
    all
}

/// How often a command is chosen. Objects must live often enough for others to use them.
fn weight(command: &str) -> usize {
    match command {
        _ if command.starts_with("Create") => 4,
        "AllocateDescriptorSets" | "AllocateCommandBuffers" => 12,
        "UpdateDescriptorSets" | "BeginCommandBuffer" | "CmdDispatch" => 12,
        "FreeDescriptorSets" | "ResetDescriptorPool" | "FreeCommandBuffers" => 6,
        _ if command.starts_with("Destroy") => 1,
        "WaitForFences" | "WaitSemaphores" | "QueueWaitIdle" => 1,
        _ => 2,
    }
}

/// All commands about the objects with number `n` of each type.
#[expect(clippy::too_many_lines, reason = "a list")]
fn commands(n: u64) -> Vec<Vec<u8>> {
    let device = Object::guest(DEVICE);
    let id = |kind: u64| 16 + kind * EACH + n;
    let fence = Object::guest(id(0));
    let semaphore = Object::guest(id(1));
    let event = Object::guest(id(2));
    let (buffer, memory) = (Object::guest(id(3)), Object::guest(id(4)));
    let image = Object::guest(id(5));
    let set_layout = Object::guest(id(6));
    let layout = Object::guest(id(7));
    let (pool, set) = (Object::guest(id(8)), id(9));
    let (command_pool, command_buffer) = (Object::guest(id(10)), Object::guest(id(11)));
    let (query_pool, view) = (Object::guest(id(12)), Object::guest(id(13)));
    let (sampler, cache) = (Object::guest(id(14)), Object::guest(id(15)));
    let sets = [vk::DescriptorSet(set)];
    let mut list = Vec::new();
    macro_rules! list {
        ($($command:ident { $($fields:tt)* })*) => {
            $({
                let command = encoded(command::$command { $($fields)* });
                list.extend(std::iter::repeat_n(command, weight(stringify!($command))));
            })*
        };
    }
    let set_layouts = [vk::DescriptorSetLayout(set_layout.id)];
    let mut timeline = vk::SemaphoreTypeCreateInfo {
        semaphore_type: vk::SemaphoreType::TIMELINE,
        ..Default::default()
    };
    let mut semaphore_info = vk::SemaphoreCreateInfo {
        p_next: (&raw mut timeline).cast(),
        ..Default::default()
    };
    let waited = [vk::Semaphore(semaphore.id)];
    let value = 1;
    let mut wait = vk::SemaphoreWaitInfo {
        semaphore_count: 1,
        p_semaphores: waited.as_ptr(),
        p_values: &raw const value,
        ..Default::default()
    };
    let mut buffer_info = vk::BufferCreateInfo {
        size: 256,
        ..Default::default()
    };
    let mut memory_info = vk::MemoryAllocateInfo {
        allocation_size: 4096,
        ..Default::default()
    };
    let mut image_info = vk::ImageCreateInfo {
        extent: vk::Extent3D {
            width: 1,
            height: 1,
            depth: 1,
        },
        mip_levels: 1,
        array_layers: 1,
        ..Default::default()
    };
    let mut view_info = vk::ImageViewCreateInfo {
        image: vk::Image(image.id),
        ..Default::default()
    };
    let mut layout_info = vk::PipelineLayoutCreateInfo {
        set_layout_count: 1,
        p_set_layouts: set_layouts.as_ptr(),
        ..Default::default()
    };
    let mut set_info = vk::DescriptorSetAllocateInfo {
        descriptor_pool: vk::DescriptorPool(pool.id),
        descriptor_set_count: 1,
        p_set_layouts: set_layouts.as_ptr(),
        ..Default::default()
    };
    let mut commands_info = vk::CommandBufferAllocateInfo {
        command_pool: vk::CommandPool(command_pool.id),
        command_buffer_count: 1,
        ..Default::default()
    };
    let mut write = vk::WriteDescriptorSet {
        dst_set: sets[0],
        ..Default::default()
    };
    let mut query_info = vk::QueryPoolCreateInfo {
        query_type: vk::QueryType::OCCLUSION,
        query_count: 4,
        ..Default::default()
    };
    let recorded = [vk::CommandBuffer(command_buffer.id)];
    let mut submit = vk::SubmitInfo {
        command_buffer_count: 1,
        p_command_buffers: recorded.as_ptr(),
        ..Default::default()
    };
    list! {
        CreateFence { device, p_create_info: &mut Default::default(), p_fence: &mut vk::Fence(fence.id) }
        DestroyFence { device, fence }
        GetFenceStatus { device, fence }
        ResetFenceResourceMESA { device, fence }
        WaitForFences {
            device, fence_count: 1, p_fences: [vk::Fence(fence.id)].as_mut_slice().into(), wait_all: 1,
            timeout: 3_000_000,
        }
        CreateSemaphore { device, p_create_info: &mut semaphore_info, p_semaphore: &mut vk::Semaphore(semaphore.id) }
        DestroySemaphore { device, semaphore }
        GetSemaphoreCounterValue { device, semaphore, p_value: &mut 0 }
        WaitSemaphores { device, p_wait_info: &mut wait, timeout: 3_000_000 }
        CreateEvent { device, p_create_info: &mut Default::default(), p_event: &mut vk::Event(event.id) }
        DestroyEvent { device, event }
        SetEvent { device, event }
        CreateBuffer { device, p_create_info: &mut buffer_info, p_buffer: &mut vk::Buffer(buffer.id) }
        DestroyBuffer { device, buffer }
        AllocateMemory { device, p_allocate_info: &mut memory_info, p_memory: &mut vk::DeviceMemory(memory.id) }
        FreeMemory { device, memory }
        BindBufferMemory { device, buffer, memory, memory_offset: 0 }
        CreateImage { device, p_create_info: &mut image_info, p_image: &mut vk::Image(image.id) }
        DestroyImage { device, image }
        CreateImageView { device, p_create_info: &mut view_info, p_view: &mut vk::ImageView(view.id) }
        DestroyImageView { device, image_view: view }
        CreateSampler { device, p_create_info: &mut Default::default(), p_sampler: &mut vk::Sampler(sampler.id) }
        DestroySampler { device, sampler }
        CreateDescriptorSetLayout {
            device, p_create_info: &mut Default::default(),
            p_set_layout: &mut vk::DescriptorSetLayout(set_layout.id),
        }
        DestroyDescriptorSetLayout { device, descriptor_set_layout: set_layout }
        CreatePipelineLayout {
            device, p_create_info: &mut layout_info, p_pipeline_layout: &mut vk::PipelineLayout(layout.id),
        }
        DestroyPipelineLayout { device, pipeline_layout: layout }
        CreatePipelineCache {
            device, p_create_info: &mut Default::default(), p_pipeline_cache: &mut vk::PipelineCache(cache.id),
        }
        DestroyPipelineCache { device, pipeline_cache: cache }
        MergePipelineCaches {
            device, dst_cache: cache, src_cache_count: 1,
            p_src_caches: [vk::PipelineCache(cache.id)].as_mut_slice().into(),
        }
        CreateDescriptorPool {
            device, p_create_info: &mut Default::default(),
            p_descriptor_pool: &mut vk::DescriptorPool(pool.id),
        }
        DestroyDescriptorPool { device, descriptor_pool: pool }
        ResetDescriptorPool { device, descriptor_pool: pool, flags: Default::default() }
        AllocateDescriptorSets {
            device, p_allocate_info: &mut set_info, p_descriptor_sets: sets.clone().as_mut_slice().into(),
        }
        FreeDescriptorSets {
            device, descriptor_pool: pool, descriptor_set_count: 1,
            p_descriptor_sets: sets.clone().as_mut_slice().into(),
        }
        UpdateDescriptorSets {
            device, descriptor_write_count: 1, p_descriptor_writes: std::slice::from_mut(&mut write).into(),
            descriptor_copy_count: 0, p_descriptor_copies: Array::NULL,
        }
        CreateCommandPool {
            device, p_create_info: &mut Default::default(), p_command_pool: &mut vk::CommandPool(command_pool.id),
        }
        DestroyCommandPool { device, command_pool }
        ResetCommandPool { device, command_pool, flags: Default::default() }
        AllocateCommandBuffers {
            device, p_allocate_info: &mut commands_info,
            p_command_buffers: recorded.clone().as_mut_slice().into(),
        }
        FreeCommandBuffers {
            device, command_pool, command_buffer_count: 1,
            p_command_buffers: recorded.clone().as_mut_slice().into(),
        }
        BeginCommandBuffer { command_buffer, p_begin_info: &mut Default::default() }
        CmdDispatch { command_buffer, group_count_x: 1, group_count_y: 1, group_count_z: 1 }
        CmdBindDescriptorSets {
            command_buffer, pipeline_bind_point: vk::PipelineBindPoint::COMPUTE, layout, first_set: 0,
            descriptor_set_count: 1, p_descriptor_sets: sets.clone().as_mut_slice().into(),
            dynamic_offset_count: 0, p_dynamic_offsets: Array::NULL,
        }
        QueueSubmit {
            queue: Object::guest(QUEUE), submit_count: 1,
            p_submits: std::slice::from_mut(&mut submit).into(), fence,
        }
        QueueWaitIdle { queue: Object::guest(QUEUE) }
        CreateQueryPool { device, p_create_info: &mut query_info, p_query_pool: &mut vk::QueryPool(query_pool.id) }
        DestroyQueryPool { device, query_pool }
        GetQueryPoolResults {
            device, query_pool, first_query: 0, query_count: 4, data_size: 32,
            p_data: [0; 32].as_mut_slice().into(), stride: 8, flags: vk::QueryResultFlags::RESULT_64,
        }
    }
    list
}

/// Runs one command after the other on a thread of the context, as they come. Most of them fail,
/// because another thread has destroyed their objects or taken their ids.
fn abuse(state: &Arc<ContextState>, seed: u64, left: &AtomicU64, done: &AtomicU64) {
    let handles = Handles::new(&state.objects);
    let mut executor = Executor::new(state, &handles, Source::Virtqueue);
    let lists: Vec<_> = (0..EACH).map(commands).collect();
    let mut random = mutate::Random(seed + 1);
    let mut batch = Vec::new();
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        })
        .is_ok()
    {
        batch.clear();
        match random.below(5000) {
            0 => batch.extend(encoded(command::DestroyDevice {
                device: Object::guest(DEVICE),
            })),
            1..60 => batch.extend(device_again()),
            _ => {
                // Several commands share a batch, as in a ring.
                for _ in 0..=random.below(3) {
                    let list = &lists[random.below(lists.len())];
                    batch.extend_from_slice(&list[random.below(list.len())]);
                }
            }
        }
        if executor.execute(&mut batch).is_ok() {
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn threads_of_a_context_never_use_what_another_destroys() {
    // A copy has statics of its own. While its calls linger, the self-tests of other tests would
    // fail.
    let folder = tempfile::tempdir().unwrap();
    let driver = folder.path().join("lingering");
    std::fs::copy(null::library(), &driver).unwrap();
    // SAFETY: a library of this workspace, which does nothing when it is loaded.
    let library = unsafe { libloading::Library::new(&driver) }.unwrap();
    // SAFETY: the function of that name has this type.
    let entry = unsafe {
        library.get::<unsafe extern "system" fn(
            u64,
            *const std::ffi::c_char,
        ) -> Option<unsafe extern "system" fn(u32)>>(b"vkGetInstanceProcAddr")
    }
    .unwrap();
    // SAFETY: as above.
    let linger = unsafe { entry(0, hesper_null_driver::LINGER.as_ptr()) }.unwrap();
    let renderer = Renderer::new(RendererOptions {
        driver: Driver::Library(driver),
        ..Default::default()
    })
    .unwrap();
    let state = renderer.state_for_tests(Arc::new(Silent));
    let commands = std::env::var("HESPER_STRESS").map_or(COMMANDS, |text| text.parse().unwrap());
    let (left, done) = (AtomicU64::new(commands), AtomicU64::new(0));
    {
        let handles = Handles::new(&state.objects);
        let mut executor = Executor::new(&state, &handles, Source::Virtqueue);
        executor.execute(&mut device()).unwrap();
        // Most batches fail, and the stress goes on.
        state.lose_and_go_on_for_tests();
        // SAFETY: as above.
        unsafe { linger(1) };
        std::thread::scope(|scope| {
            for seed in 0..THREADS {
                let (state, left, done) = (&state, &left, &done);
                scope.spawn(move || abuse(state, seed, left, done));
            }
        });
    }
    // SAFETY: as above.
    unsafe { linger(0) };
    assert_eq!(state.objects.reclamation.retired(), 0, "all are destroyed");
    state.clear();
    // A stress in which everything fails shows nothing.
    let done = done.into_inner();
    assert!(
        done > commands / 20,
        "{done} of {commands} batches did something"
    );
    let counters = state.tally.read();
    assert_eq!(counters.objects, 0, "objects left");
    println!(
        "{commands} batches, of which {done} whole; {} commands",
        counters.commands
    );
}

/// An executor of a context with a device, and another member of its reclamation.
fn with_other(test: impl FnOnce(&ContextState, &mut Executor<'_>, &Member<'_>)) {
    let renderer = Renderer::new(RendererOptions {
        driver: Driver::Library(null::library()),
        ..Default::default()
    })
    .unwrap();
    let state = renderer.state_for_tests(Arc::new(Silent));
    {
        let handles = Handles::new(&state.objects);
        let mut executor = Executor::new(&state, &handles, Source::Virtqueue);
        executor.execute(&mut device()).unwrap();
        let other = state.objects.reclamation.join();
        test(&state, &mut executor, &other);
    }
    state.clear();
    assert_eq!(state.tally.read().objects, 0, "objects left");
}

fn make_and_destroy_fence(executor: &mut Executor<'_>) {
    let device = Object::guest(DEVICE);
    let mut both = encoded(command::CreateFence {
        device,
        p_create_info: &mut vk::FenceCreateInfo::default(),
        p_fence: &mut vk::Fence(100),
    });
    let fence = Object::guest(100);
    both.extend(encoded(command::DestroyFence { device, fence }));
    executor.execute(&mut both).unwrap();
}

fn make_and_destroy_event(executor: &mut Executor<'_>) {
    let device = Object::guest(DEVICE);
    let mut both = encoded(command::CreateEvent {
        device,
        p_create_info: &mut vk::EventCreateInfo::default(),
        p_event: &mut vk::Event(101),
    });
    let event = Object::guest(101);
    both.extend(encoded(command::DestroyEvent { device, event }));
    executor.execute(&mut both).unwrap();
}

#[test]
fn an_object_is_destroyed_at_once_unless_another_thread_is_between_two_boundaries() {
    with_other(|state, executor, other| {
        let retired = || state.objects.reclamation.retired();
        make_and_destroy_event(executor);
        assert_eq!(retired(), 0, "the other thread is at rest");
        other.begin();
        make_and_destroy_event(executor);
        make_and_destroy_event(executor);
        assert_eq!(retired(), 2, "the other thread may have found both");
        other.boundary(|| false);
        assert_eq!(retired(), 0, "it has passed a boundary");
        make_and_destroy_event(executor);
        assert_eq!(retired(), 1);
        other.end();
        assert_eq!(retired(), 0, "it is at rest again");
    });
}

#[test]
fn a_waiting_thread_keeps_what_it_waits_for_and_nothing_else() {
    with_other(|state, executor, other| {
        let retired = || state.objects.reclamation.retired();
        other.begin();
        other.keep_only(Class::Sync);
        make_and_destroy_event(executor);
        assert_eq!(retired(), 0, "nobody waits for an event");
        make_and_destroy_fence(executor);
        assert_eq!(retired(), 1, "it may be what the other thread waits for");
        assert!(other.look_again(&[]), "it was another fence");
        assert_eq!(retired(), 0);
        other.end();
    });
}

#[test]
fn an_object_made_while_its_device_is_destroyed_is_refused_and_not_left_behind() {
    with_other(|state, executor, _| {
        let owner = state.objects.table.view().get(DEVICE).unwrap().owner;
        let kept = state.objects.device(owner).unwrap();
        let mut destroy = encoded(command::DestroyDevice {
            device: Object::guest(DEVICE),
        });
        executor.execute(&mut destroy).unwrap();
        let objects = &state.objects;
        let refused = objects.insert(owner, 102, vk::Event(7), &kept.is_gone);
        assert!(matches!(refused, Err(Fatal::OwnerGone(102))), "{refused:?}");
    });
}

#[test]
fn an_object_destroyed_while_its_device_is_destroyed_is_not_left_behind() {
    with_other(|state, executor, _| {
        let device = Object::guest(DEVICE);
        let mut create = encoded(command::CreateEvent {
            device,
            p_create_info: &mut vk::EventCreateInfo::default(),
            p_event: &mut vk::Event(103),
        });
        executor.execute(&mut create).unwrap();
        let objects = &state.objects;
        let owner = objects.table.view().get(DEVICE).unwrap().owner;
        // Another thread is in the middle of destroying the device.
        let hidden = objects.hide_device(owner).unwrap();
        let event = Object::guest(103);
        let mut destroy = encoded(command::DestroyEvent { device, event });
        assert!(executor.execute(&mut destroy).is_err());
        let found = objects.table.view().get(103);
        assert!(found.is_some(), "nobody would destroy it");
        objects.retire_hidden(&hidden);
    });
}
