//! Cases of ray tracing pipelines: groups and their handles, libraries, deferred compilation,
//! launches.

use ash::vk;

use super::{Case, case};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, digest, ensure, equal, fail, need};
use crate::resources::COHERENT;
use crate::shaders::LAUNCH;

pub(super) const CASES: &[Case] = &[
    case("ray-tracing-launch", launch),
    case("ray-tracing-handles", handles),
    case("ray-tracing-library", library),
    case("ray-tracing-deferred", deferred),
    case("ray-tracing-failure", failure),
];

/// The size of a launch, in rays.
const SIZE: [u32; 2] = [9, 5];

/// A device that traces rays.
struct Tracer<'h> {
    gpu: Gpu<'h>,
    trace: ash::khr::ray_tracing_pipeline::Device,
    sizes: Sizes,
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
}

/// The physical device's sizes and alignments of handles.
#[derive(Clone, Copy)]
struct Sizes {
    handle: usize,
    handle_alignment: u32,
    base_alignment: u32,
}

impl<'h> Tracer<'h> {
    fn new(gpu: &Gpu<'h>) -> Result<Self, Stop> {
        let host = gpu.host;
        let names = [
            ash::khr::ray_tracing_pipeline::NAME,
            ash::khr::acceleration_structure::NAME,
            ash::khr::deferred_host_operations::NAME,
            ash::khr::pipeline_library::NAME,
        ];
        for name in names {
            need(super::named(name), host.has(name))?;
        }
        need(
            "bufferDeviceAddress",
            gpu.features.v12.buffer_device_address != 0,
        )?;
        let mut structures = vk::PhysicalDeviceAccelerationStructureFeaturesKHR::default()
            .acceleration_structure(true);
        let mut features =
            vk::PhysicalDeviceRayTracingPipelineFeaturesKHR::default().ray_tracing_pipeline(true);
        features.p_next = (&raw mut structures).cast();
        let gpu = Gpu::with(host, &names, Some(&mut features))?;
        let trace = gpu.extension(ash::khr::ray_tracing_pipeline::Device::new);
        let mut own = vk::PhysicalDeviceRayTracingPipelinePropertiesKHR::default();
        let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut own);
        // SAFETY: the physical device is of this instance and has the extension.
        unsafe {
            let instance = &host.instance;
            instance.get_physical_device_properties2(host.physical, &mut all);
        }
        let bindings = [vk::DescriptorSetLayoutBinding::default()
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(1)
            .stage_flags(vk::ShaderStageFlags::RAYGEN_KHR)];
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: the device is alive, and `bindings` outlives the call.
        let set_layout = unsafe { gpu.create_descriptor_set_layout(&info, None) }?;
        let set_layout = gpu.own(set_layout, ash::Device::destroy_descriptor_set_layout);
        let layouts = [set_layout];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts);
        // SAFETY: the set layout is of this device.
        let layout = unsafe { gpu.create_pipeline_layout(&info, None) }?;
        let layout = gpu.own(layout, ash::Device::destroy_pipeline_layout);
        Ok(Self {
            sizes: Sizes {
                handle: own.shader_group_handle_size as usize,
                handle_alignment: own.shader_group_handle_alignment,
                base_alignment: own.shader_group_base_alignment,
            },
            gpu,
            trace,
            set_layout,
            layout,
        })
    }

    /// Creates a pipeline with a ray generation group for each of `numbers`, and the groups of
    /// `libraries`.
    fn make(&self, wanted: &Wanted<'_>) -> Result<(vk::Pipeline, vk::Result), Stop> {
        let gpu = &self.gpu;
        let module = gpu.shader(LAUNCH)?;
        let entries = [vk::SpecializationMapEntry {
            constant_id: 0,
            offset: 0,
            size: 4,
        }];
        let bytes: Vec<[u8; 4]> = wanted.numbers.iter().map(|n| n.to_ne_bytes()).collect();
        let special: Vec<_> = bytes
            .iter()
            .map(|data| {
                vk::SpecializationInfo::default()
                    .map_entries(&entries)
                    .data(data)
            })
            .collect();
        let stages: Vec<_> = special
            .iter()
            .map(|special| {
                vk::PipelineShaderStageCreateInfo::default()
                    .stage(vk::ShaderStageFlags::RAYGEN_KHR)
                    .module(module)
                    .name(c"main")
                    .specialization_info(special)
            })
            .collect();
        let groups: Vec<_> = (0..stages.len() as u32)
            .map(|stage| {
                vk::RayTracingShaderGroupCreateInfoKHR::default()
                    .ty(vk::RayTracingShaderGroupTypeKHR::GENERAL)
                    .general_shader(stage)
                    .closest_hit_shader(vk::SHADER_UNUSED_KHR)
                    .any_hit_shader(vk::SHADER_UNUSED_KHR)
                    .intersection_shader(vk::SHADER_UNUSED_KHR)
            })
            .collect();
        let libraries = vk::PipelineLibraryCreateInfoKHR::default().libraries(wanted.libraries);
        let interface = vk::RayTracingPipelineInterfaceCreateInfoKHR::default()
            .max_pipeline_ray_payload_size(4)
            .max_pipeline_ray_hit_attribute_size(8);
        let mut info = vk::RayTracingPipelineCreateInfoKHR::default()
            .flags(wanted.flags)
            .stages(&stages)
            .groups(&groups)
            .max_pipeline_ray_recursion_depth(1)
            .layout(self.layout);
        let is_library = wanted.flags.contains(vk::PipelineCreateFlags::LIBRARY_KHR);
        if is_library || !wanted.libraries.is_empty() {
            info = info.library_interface(&interface);
        }
        if !wanted.libraries.is_empty() {
            info = info.library_info(&libraries);
        }
        let mut pipeline = vk::Pipeline::null();
        // SAFETY: all handles are of this device. All pointers are into this stack frame, and a
        // deferred operation is joined before the frame ends.
        let result = unsafe {
            let create = self.trace.fp().create_ray_tracing_pipelines_khr;
            let cache = vk::PipelineCache::null();
            let result = create(
                gpu.handle(),
                wanted.operation,
                cache,
                1,
                &info,
                std::ptr::null(),
                &mut pipeline,
            );
            if result == vk::Result::OPERATION_DEFERRED_KHR {
                let deferred = gpu.extension(ash::khr::deferred_host_operations::Device::new);
                let _ = deferred.deferred_operation_join(wanted.operation);
            }
            result
        };
        if pipeline != vk::Pipeline::null() {
            gpu.own(pipeline, ash::Device::destroy_pipeline);
        }
        Ok((pipeline, result))
    }

    fn pipeline(&self, wanted: &Wanted<'_>) -> Result<vk::Pipeline, Stop> {
        let (pipeline, result) = self.make(wanted)?;
        equal("the result", result, vk::Result::SUCCESS)?;
        Ok(pipeline)
    }

    fn handles(&self, pipeline: vk::Pipeline, first: u32, count: u32) -> Result<Vec<u8>, Stop> {
        let size = count as usize * self.sizes.handle;
        // SAFETY: the pipeline is of this device and has these groups.
        let found = unsafe {
            self.trace
                .get_ray_tracing_shader_group_handles(pipeline, first, count, size)
        };
        Ok(found?)
    }

    /// Launches group `group` of `pipeline` and returns what it wrote.
    fn launch(&self, pipeline: vk::Pipeline, group: u32) -> Result<Vec<u32>, Stop> {
        let gpu = &self.gpu;
        let out = gpu.buffer((SIZE[0] * SIZE[1]) as usize)?;
        let set = gpu.descriptor_set(self.set_layout, &[vk::DescriptorType::STORAGE_BUFFER])?;
        gpu.write_buffer(set, 0, vk::DescriptorType::STORAGE_BUFFER, out.handle);
        let handle = self.handles(pipeline, group, 1)?;
        let align = |size: u32, alignment: u32| u64::from(size.next_multiple_of(alignment.max(1)));
        let stride = align(handle.len() as u32, self.sizes.handle_alignment)
            .next_multiple_of(self.sizes.base_alignment.into());
        let usage = vk::BufferUsageFlags::SHADER_BINDING_TABLE_KHR
            | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        let (table, needs) = gpu.bare_buffer(2 * stride, usage)?;
        let mut flags =
            vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(gpu.memory_type(needs.memory_type_bits, COHERENT)?)
            .push_next(&mut flags);
        // SAFETY: buffer and memory are of this device and fit each other.
        let start = unsafe {
            let memory = gpu.own(gpu.allocate_memory(&info, None)?, ash::Device::free_memory);
            gpu.bind_buffer_memory(table, memory, 0)?;
            let info = vk::BufferDeviceAddressInfo::default().buffer(table);
            let address = gpu.get_buffer_device_address(&info);
            let start = address.next_multiple_of(self.sizes.base_alignment.into());
            let words = gpu.map(memory, needs.size)?;
            let at = (start - address) as usize / 4;
            for (word, bytes) in words[at..].iter().zip(handle.chunks_exact(4)) {
                let value = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                word.store(value, std::sync::atomic::Ordering::Release);
            }
            start
        };
        let raygen = vk::StridedDeviceAddressRegionKHR::default()
            .device_address(start)
            .stride(stride)
            .size(stride);
        let none = vk::StridedDeviceAddressRegionKHR::default();
        let point = vk::PipelineBindPoint::RAY_TRACING_KHR;
        // SAFETY: `run` records; all handles are of this device, and the table holds the group's
        // handle.
        gpu.run(|commands| unsafe {
            gpu.cmd_bind_pipeline(commands, point, pipeline);
            gpu.cmd_bind_descriptor_sets(commands, point, self.layout, 0, &[set], &[]);
            let [width, height] = SIZE;
            self.trace
                .cmd_trace_rays(commands, &raygen, &none, &none, &none, width, height, 1);
            gpu.barrier(commands);
        })?;
        Ok(out.read_all())
    }
}

/// The parameters of a pipeline.
#[derive(Default)]
struct Wanted<'w> {
    numbers: &'w [u32],
    libraries: &'w [vk::Pipeline],
    flags: vk::PipelineCreateFlags,
    operation: vk::DeferredOperationKHR,
}

/// The words that the group of this number writes.
fn written(number: u32) -> Vec<u32> {
    let [width, height] = SIZE;
    (0..width * height)
        .map(|i| number << 16 | (i / width) << 8 | (i % width))
        .collect()
}

fn launch(gpu: &Gpu<'_>) -> Outcome {
    let tracer = Tracer::new(gpu)?;
    let pipeline = tracer.pipeline(&Wanted {
        numbers: &[3, 5],
        ..Default::default()
    })?;
    equal("the first group", tracer.launch(pipeline, 0)?, written(3))?;
    equal("the second group", tracer.launch(pipeline, 1)?, written(5))?;
    Ok(String::new())
}

fn handles(gpu: &Gpu<'_>) -> Outcome {
    let tracer = Tracer::new(gpu)?;
    let pipeline = tracer.pipeline(&Wanted {
        numbers: &[1, 2, 3],
        ..Default::default()
    })?;
    let size = tracer.sizes.handle;
    let all = tracer.handles(pipeline, 0, 3)?;
    for group in 0..3 {
        let one = tracer.handles(pipeline, group, 1)?;
        let start = group as usize * size;
        equal("a handle alone", &one[..], &all[start..start + size])?;
    }
    let last = tracer.handles(pipeline, 1, 2)?;
    equal("the last handles", &last[..], &all[size..])?;
    // SAFETY: the pipeline is of this device and has this group.
    let stack = unsafe {
        tracer.trace.get_ray_tracing_shader_group_stack_size(
            pipeline,
            2,
            vk::ShaderGroupShaderKHR::GENERAL,
        )
    };
    ensure("a stack has a size", stack < 1 << 30)?;
    let sizes = tracer.sizes;
    let numbers = [
        sizes.handle as u32,
        sizes.handle_alignment,
        sizes.base_alignment,
    ];
    Ok(format!(
        "{:016x}",
        digest(numbers.into_iter().flat_map(u32::to_le_bytes))
    ))
}

fn library(gpu: &Gpu<'_>) -> Outcome {
    let tracer = Tracer::new(gpu)?;
    let flags = vk::PipelineCreateFlags::LIBRARY_KHR;
    let library = |numbers| {
        tracer.pipeline(&Wanted {
            numbers,
            flags,
            ..Default::default()
        })
    };
    let libraries = [library(&[11, 12])?, library(&[13])?];
    let whole = tracer.pipeline(&Wanted {
        numbers: &[10],
        libraries: &libraries,
        ..Default::default()
    })?;
    // The pipeline's own groups come first, then those of the libraries in their order.
    for (group, number) in (0..).zip(10..14) {
        equal("a group", tracer.launch(whole, group)?, written(number))?;
    }
    Ok(String::new())
}

fn deferred(gpu: &Gpu<'_>) -> Outcome {
    let tracer = Tracer::new(gpu)?;
    let operations = tracer
        .gpu
        .extension(ash::khr::deferred_host_operations::Device::new);
    // SAFETY: the device is alive and has the extension.
    let operation = unsafe { operations.create_deferred_operation(None) }?;
    let made = tracer.make(&Wanted {
        numbers: &[21],
        operation,
        ..Default::default()
    });
    // SAFETY: the operation is of this device, and was joined if anything was deferred.
    let result = unsafe { operations.get_deferred_operation_result(operation) };
    let (pipeline, started) = made?;
    if started == vk::Result::OPERATION_DEFERRED_KHR {
        ensure("what was deferred is done", result.is_ok())?;
    } else if started != vk::Result::OPERATION_NOT_DEFERRED_KHR && started != vk::Result::SUCCESS {
        return Err(fail(&format!("{started:?}")));
    }
    equal("the group", tracer.launch(pipeline, 0)?, written(21))?;
    // SAFETY: the operation is complete, as above.
    unsafe { operations.destroy_deferred_operation(operation, None) };
    Ok(String::new())
}

fn failure(gpu: &Gpu<'_>) -> Outcome {
    let tracer = Tracer::new(gpu)?;
    let flags = vk::PipelineCreateFlags::FAIL_ON_PIPELINE_COMPILE_REQUIRED;
    let (pipeline, result) = tracer.make(&Wanted {
        numbers: &[1],
        flags,
        ..Default::default()
    })?;
    // A driver may have compiled the pipeline nevertheless. The result must agree with what it
    // returns.
    let is_there = pipeline != vk::Pipeline::null();
    equal(
        "whether there is one",
        is_there,
        result == vk::Result::SUCCESS,
    )?;
    Ok(format!("{result:?}"))
}
