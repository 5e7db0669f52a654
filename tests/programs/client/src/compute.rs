//! Compute pipelines and descriptor sets: [`Program`] and its arguments.

use ash::vk;

use crate::gpu::Gpu;
use crate::outcome::Stop;
use crate::resources::Buffer;
use crate::shaders::{SCRAMBLE, words};

/// A compute pipeline with one descriptor set. Its bindings 0, 1, … have one descriptor each.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    /// The layout of its descriptor set.
    pub(crate) set_layout: vk::DescriptorSetLayout,
    /// The pipeline layout: that set and 32 bytes of push constants.
    pub(crate) layout: vk::PipelineLayout,
    pub(crate) pipeline: vk::Pipeline,
}

/// The size in bytes of the push constants of every [`Program`] and drawing pipeline.
pub(crate) const PUSH_SIZE: u32 = 32;

/// The specialization constants 0 and 1 of `scramble.comp`: workgroup size and rounds.
pub(crate) type Constants = [u32; 2];

impl Gpu<'_> {
    /// Creates a shader module.
    pub(crate) fn shader(&self, shader: &[u8]) -> Result<vk::ShaderModule, Stop> {
        let code = words(shader);
        let info = vk::ShaderModuleCreateInfo::default().code(&code);
        // SAFETY: the device is alive, and the code is a compiler's output.
        let module = unsafe { self.create_shader_module(&info, None) }?;
        Ok(self.own(module, ash::Device::destroy_shader_module))
    }

    /// Creates a set layout with one descriptor per binding, for all stages.
    pub(crate) fn set_layout(
        &self,
        types: &[vk::DescriptorType],
        flags: vk::DescriptorSetLayoutCreateFlags,
    ) -> Result<vk::DescriptorSetLayout, Stop> {
        let bindings: Vec<_> = (0..)
            .zip(types)
            .map(|(binding, &kind)| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(kind)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::ALL)
            })
            .collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default()
            .bindings(&bindings)
            .flags(flags);
        // SAFETY: the device is alive, `bindings` outlives the call.
        let layout = unsafe { self.create_descriptor_set_layout(&info, None) }?;
        Ok(self.own(layout, ash::Device::destroy_descriptor_set_layout))
    }

    /// Creates a pipeline layout with [`PUSH_SIZE`] bytes of push constants for all stages.
    pub(crate) fn pipeline_layout(
        &self,
        sets: &[vk::DescriptorSetLayout],
    ) -> Result<vk::PipelineLayout, Stop> {
        let push = [vk::PushConstantRange {
            stage_flags: vk::ShaderStageFlags::ALL,
            offset: 0,
            size: PUSH_SIZE,
        }];
        let info = vk::PipelineLayoutCreateInfo::default()
            .set_layouts(sets)
            .push_constant_ranges(&push);
        // SAFETY: the set layouts are of this device.
        let layout = unsafe { self.create_pipeline_layout(&info, None) }?;
        Ok(self.own(layout, ash::Device::destroy_pipeline_layout))
    }

    /// Creates a compute pipeline with an existing layout.
    pub(crate) fn compute_pipeline(
        &self,
        shader: &[u8],
        layout: vk::PipelineLayout,
        constants: Constants,
        cache: vk::PipelineCache,
    ) -> Result<vk::Pipeline, Stop> {
        let module = self.shader(shader)?;
        let entries = [0_u32, 1].map(|id| vk::SpecializationMapEntry {
            constant_id: id,
            offset: id * 4,
            size: 4,
        });
        let bytes: Vec<u8> = constants.into_iter().flat_map(u32::to_ne_bytes).collect();
        let special = vk::SpecializationInfo::default()
            .map_entries(&entries)
            .data(&bytes);
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main")
            .specialization_info(&special);
        let info = vk::ComputePipelineCreateInfo::default()
            .stage(stage)
            .layout(layout);
        // SAFETY: all handles are of this device, all pointers on this stack frame.
        let made = unsafe { self.create_compute_pipelines(cache, &[info], None) };
        let pipeline = made.map_err(|(_, error)| error)?[0];
        Ok(self.own(pipeline, ash::Device::destroy_pipeline))
    }

    /// Creates a program with its layouts.
    pub(crate) fn program(
        &self,
        shader: &[u8],
        types: &[vk::DescriptorType],
        constants: Constants,
    ) -> Result<Program, Stop> {
        let set_layout = self.set_layout(types, Default::default())?;
        let layout = self.pipeline_layout(&[set_layout])?;
        let pipeline =
            self.compute_pipeline(shader, layout, constants, vk::PipelineCache::null())?;
        Ok(Program {
            set_layout,
            layout,
            pipeline,
        })
    }

    /// Creates the program of `scramble.comp`, which has one buffer.
    pub(crate) fn scrambler(&self, constants: Constants) -> Result<Program, Stop> {
        self.program(SCRAMBLE, &[vk::DescriptorType::STORAGE_BUFFER], constants)
    }

    /// Creates a pool for `sets` sets with `each` descriptors of every type in `types`.
    pub(crate) fn descriptor_pool(
        &self,
        sets: u32,
        types: &[vk::DescriptorType],
        each: u32,
        flags: vk::DescriptorPoolCreateFlags,
    ) -> Result<vk::DescriptorPool, Stop> {
        let sizes: Vec<_> = types
            .iter()
            .map(|&ty| vk::DescriptorPoolSize {
                ty,
                descriptor_count: each,
            })
            .collect();
        let info = vk::DescriptorPoolCreateInfo::default()
            .max_sets(sets)
            .pool_sizes(&sizes)
            .flags(flags);
        // SAFETY: the device is alive, `sizes` outlives the call.
        let pool = unsafe { self.create_descriptor_pool(&info, None) }?;
        Ok(self.own(pool, ash::Device::destroy_descriptor_pool))
    }

    /// Allocates a descriptor set in a pool of its own.
    pub(crate) fn descriptor_set(
        &self,
        layout: vk::DescriptorSetLayout,
        types: &[vk::DescriptorType],
    ) -> Result<vk::DescriptorSet, Stop> {
        let pool = self.descriptor_pool(1, types, 1, Default::default())?;
        let layouts = [layout];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(pool)
            .set_layouts(&layouts);
        // SAFETY: pool and layout are of this device.
        Ok(unsafe { self.allocate_descriptor_sets(&info) }?[0])
    }

    /// Allocates a descriptor set whose bindings 0, 1, … are `buffers`, as storage buffers.
    pub(crate) fn storage_set(
        &self,
        program: &Program,
        buffers: &[vk::Buffer],
    ) -> Result<vk::DescriptorSet, Stop> {
        let types = vec![vk::DescriptorType::STORAGE_BUFFER; buffers.len()];
        let set = self.descriptor_set(program.set_layout, &types)?;
        for (binding, &buffer) in (0..).zip(buffers) {
            self.write_buffer(set, binding, vk::DescriptorType::STORAGE_BUFFER, buffer);
        }
        Ok(set)
    }

    /// Writes one descriptor that covers a whole buffer.
    pub(crate) fn write_buffer(
        &self,
        set: vk::DescriptorSet,
        binding: u32,
        kind: vk::DescriptorType,
        buffer: vk::Buffer,
    ) {
        let whole = [whole(buffer)];
        let write = vk::WriteDescriptorSet::default()
            .dst_set(set)
            .dst_binding(binding)
            .descriptor_type(kind)
            .buffer_info(&whole);
        // SAFETY: set and buffer are of this device, and the set is not in use.
        unsafe { self.update_descriptor_sets(&[write], &[]) };
    }

    /// Records push constants.
    pub(crate) fn push(
        &self,
        commands: vk::CommandBuffer,
        layout: vk::PipelineLayout,
        values: &[u32],
    ) {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_ne_bytes())
            .collect();
        // SAFETY: the command buffer is recording, and every layout of this crate has PUSH_SIZE
        // bytes for all stages.
        unsafe { self.cmd_push_constants(commands, layout, vk::ShaderStageFlags::ALL, 0, &bytes) };
    }

    /// Records a dispatch of `program` with `set` and push constants, in `groups` workgroups, and a
    /// barrier after it.
    pub(crate) fn dispatch(
        &self,
        commands: vk::CommandBuffer,
        program: &Program,
        set: vk::DescriptorSet,
        arguments: &[u32],
        groups: [u32; 2],
    ) {
        let point = vk::PipelineBindPoint::COMPUTE;
        self.push(commands, program.layout, arguments);
        // SAFETY: the command buffer is recording, and all handles are of this device.
        unsafe {
            self.cmd_bind_pipeline(commands, point, program.pipeline);
            self.cmd_bind_descriptor_sets(commands, point, program.layout, 0, &[set], &[]);
            self.cmd_dispatch(commands, groups[0], groups[1], 1);
        }
        self.barrier(commands);
    }

    /// Scrambles `buffer` once on the GPU. The cases use it as some work whose result can be
    /// checked.
    pub(crate) fn scramble_once(&self, buffer: &Buffer<'_>, seed: u32) -> Result<(), Stop> {
        let program = self.scrambler([64, 4])?;
        let set = self.storage_set(&program, &[buffer.handle])?;
        let count = u32::try_from(buffer.words.len()).unwrap_or(0);
        self.run(|commands| {
            self.dispatch(
                commands,
                &program,
                set,
                &[count, seed],
                [count.div_ceil(64), 1],
            );
        })
    }
}

/// Describes a whole buffer, for a descriptor.
pub(crate) fn whole(buffer: vk::Buffer) -> vk::DescriptorBufferInfo {
    vk::DescriptorBufferInfo::default()
        .buffer(buffer)
        .range(vk::WHOLE_SIZE)
}
