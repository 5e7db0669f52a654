//! Recording and submitting on a [`Gpu`]: command buffers, barriers, fences and semaphores.

use ash::vk;

use crate::gpu::Gpu;
use crate::outcome::Stop;
use crate::resources::Image;

/// The timeout of a wait that must succeed, in nanoseconds. Emulated guests are slow.
pub(crate) const LONG: u64 = 30_000_000_000;

impl Gpu<'_> {
    /// Creates a command pool for `family`, whose buffers can be reset.
    pub(crate) fn pool(&self, family: u32) -> Result<vk::CommandPool, Stop> {
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(family)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: the device is alive, `info` holds no pointers.
        let pool = unsafe { self.create_command_pool(&info, None) }?;
        Ok(self.own(pool, ash::Device::destroy_command_pool))
    }

    /// Allocates command buffers of `pool`. They are freed with the pool.
    pub(crate) fn command_buffers(
        &self,
        pool: vk::CommandPool,
        level: vk::CommandBufferLevel,
        count: u32,
    ) -> Result<Vec<vk::CommandBuffer>, Stop> {
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .level(level)
            .command_buffer_count(count);
        // SAFETY: the pool is alive.
        Ok(unsafe { self.allocate_command_buffers(&info) }?)
    }

    /// Records `body` into `commands`, a primary command buffer that is not in use.
    pub(crate) fn record_into(
        &self,
        commands: vk::CommandBuffer,
        usage: vk::CommandBufferUsageFlags,
        body: impl FnOnce(vk::CommandBuffer),
    ) -> Result<(), Stop> {
        let info = vk::CommandBufferBeginInfo::default().flags(usage);
        // SAFETY: the command buffer is of this device and not in use.
        unsafe { self.begin_command_buffer(commands, &info) }?;
        body(commands);
        // SAFETY: recording was begun above.
        Ok(unsafe { self.end_command_buffer(commands) }?)
    }

    /// Records `body` into a new command buffer of the main family, which can be submitted any
    /// number of times.
    pub(crate) fn record(
        &self,
        body: impl FnOnce(vk::CommandBuffer),
    ) -> Result<vk::CommandBuffer, Stop> {
        let pool = self.pool(self.family)?;
        let commands = self.command_buffers(pool, vk::CommandBufferLevel::PRIMARY, 1)?[0];
        self.record_into(
            commands,
            vk::CommandBufferUsageFlags::SIMULTANEOUS_USE,
            body,
        )?;
        Ok(commands)
    }

    /// Records `body`, submits it to the main queue and waits.
    pub(crate) fn run(&self, body: impl FnOnce(vk::CommandBuffer)) -> Result<(), Stop> {
        let commands = self.record(body)?;
        let fence = self.fence(false)?;
        self.submit(&[commands], fence)?;
        self.wait(fence)
    }

    /// Creates a fence.
    pub(crate) fn fence(&self, signalled: bool) -> Result<vk::Fence, Stop> {
        let flags = match signalled {
            true => vk::FenceCreateFlags::SIGNALED,
            false => vk::FenceCreateFlags::empty(),
        };
        let info = vk::FenceCreateInfo::default().flags(flags);
        // SAFETY: the device is alive, `info` holds no pointers.
        let fence = unsafe { self.create_fence(&info, None) }?;
        Ok(self.own(fence, ash::Device::destroy_fence))
    }

    /// Creates a binary semaphore.
    pub(crate) fn semaphore(&self) -> Result<vk::Semaphore, Stop> {
        // SAFETY: the device is alive.
        let semaphore = unsafe { self.create_semaphore(&Default::default(), None) }?;
        Ok(self.own(semaphore, ash::Device::destroy_semaphore))
    }

    /// Creates a timeline semaphore at `value`.
    pub(crate) fn timeline(&self, value: u64) -> Result<vk::Semaphore, Stop> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(value);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the device is alive, the chain lives on this stack frame.
        let semaphore = unsafe { self.create_semaphore(&info, None) }?;
        Ok(self.own(semaphore, ash::Device::destroy_semaphore))
    }

    /// Submits work to the main queue. The work begins when the timeline semaphore `gate` reaches
    /// 1.
    pub(crate) fn submit_behind(
        &self,
        gate: vk::Semaphore,
        commands: &[vk::CommandBuffer],
        fence: vk::Fence,
    ) -> Result<(), Stop> {
        let (gates, values, stages) = ([gate], [1], [vk::PipelineStageFlags::ALL_COMMANDS]);
        let mut timeline =
            vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&values);
        let submit = vk::SubmitInfo::default()
            .wait_semaphores(&gates)
            .wait_dst_stage_mask(&stages)
            .command_buffers(commands)
            .push_next(&mut timeline);
        // SAFETY: all handles are of this device.
        unsafe { self.queue_submit(self.queue, &[submit], fence) }?;
        Ok(())
    }

    /// Submits to the main queue.
    pub(crate) fn submit(
        &self,
        commands: &[vk::CommandBuffer],
        fence: vk::Fence,
    ) -> Result<(), Stop> {
        let submit = vk::SubmitInfo::default().command_buffers(commands);
        // SAFETY: command buffers and fence are of this device; the queue is used by one thread.
        Ok(unsafe { self.queue_submit(self.queue, &[submit], fence) }?)
    }

    /// Waits for a fence.
    pub(crate) fn wait(&self, fence: vk::Fence) -> Result<(), Stop> {
        // SAFETY: the fence is of this device.
        Ok(unsafe { self.wait_for_fences(&[fence], true, LONG) }?)
    }

    /// Records a full barrier: all earlier work is done and visible, also to the CPU, before later
    /// work begins.
    pub(crate) fn barrier(&self, commands: vk::CommandBuffer) {
        let barrier = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE)
            .dst_access_mask(
                vk::AccessFlags::MEMORY_READ
                    | vk::AccessFlags::MEMORY_WRITE
                    | vk::AccessFlags::HOST_READ,
            );
        let all = vk::PipelineStageFlags::ALL_COMMANDS;
        // SAFETY: the command buffer is recording.
        unsafe {
            self.cmd_pipeline_barrier(
                commands,
                all,
                all | vk::PipelineStageFlags::HOST,
                vk::DependencyFlags::empty(),
                &[barrier],
                &[],
                &[],
            );
        }
    }

    /// Records a layout transition of a whole image, with the effect of [`Gpu::barrier`].
    pub(crate) fn transition(
        &self,
        commands: vk::CommandBuffer,
        image: &Image,
        from: vk::ImageLayout,
        to: vk::ImageLayout,
    ) {
        let access = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
        let barrier = vk::ImageMemoryBarrier::default()
            .src_access_mask(access)
            .dst_access_mask(access)
            .old_layout(from)
            .new_layout(to)
            .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .image(image.handle)
            .subresource_range(image.kind.whole());
        let all = vk::PipelineStageFlags::ALL_COMMANDS;
        // SAFETY: the command buffer is recording and the image is of this device.
        unsafe {
            self.cmd_pipeline_barrier(
                commands,
                all,
                all,
                vk::DependencyFlags::empty(),
                &[],
                &[],
                &[barrier],
            );
        }
    }
}
