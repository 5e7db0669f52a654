//! The Vulkan presenter.
//!
//! A frame is one submission. It copies the damage from the guest's memory (see [`imports`]), or
//! from a staging buffer, into an image ([`texture`]). Then it draws that image and the cursor into
//! an image of the [`swapchain`] ([`pipeline`]). The presenter waits for the submission before it
//! returns. So one of everything is enough, and the guest knows when its pixels have been read. The
//! next frame could not be shown earlier anyway.
//!
//! All windows share one device ([`gpu`]); each has its own presenter and thread.

mod gpu;
mod imports;
mod instance;
mod memory;
mod pipeline;
mod readback;
mod swapchain;
mod texture;

use std::sync::Arc;

use ash::vk;
use winit::window::Window;

use self::gpu::Gpu;
use self::imports::Imports;
use self::instance::{Instance, Surface};
use self::memory::Buffer;
use self::pipeline::{Blending, Pipeline};
use self::readback::Readback;
use self::swapchain::Swapchain;
use self::texture::Texture;
use super::{Presenter, PresenterEnd};
use crate::cursor::Cursor;
use crate::frame::{Frame, FrameOutcome};
use crate::layout::{self, Placement, Scaling};
use crate::options::DisplayOptions;
use crate::picture::{BYTES, Channels, Picture, PixelFormat};

/// What all Vulkan presenters share, on the main thread.
#[derive(Default)]
pub(super) struct Vulkan {
    // Declared first, so that it is dropped first.
    gpu: Option<Arc<Gpu>>,
    instance: Option<Arc<Instance>>,
}

impl Vulkan {
    /// A presenter for `window` on the device with this serial number. A device with another number
    /// is lost.
    pub(super) fn presenter(
        &mut self,
        window: &Arc<Window>,
        options: &DisplayOptions,
        serial: u32,
    ) -> Result<VulkanPresenter, String> {
        let instance = match &self.instance {
            Some(instance) => instance.clone(),
            None => {
                let instance = Instance::new(window, options.vulkan.as_ref())?;
                self.instance.insert(instance).clone()
            }
        };
        let surface = Surface::new(&instance, window)?;
        let gpu = match self.gpu.take().filter(|gpu| gpu.serial == serial) {
            Some(gpu) => gpu,
            None => Gpu::new(&instance, &surface, options.gpu, serial)?,
        };
        self.gpu = Some(gpu.clone());
        let swapchain = Swapchain::new(&gpu, surface, options.vsync)?;
        VulkanPresenter::new(&gpu, swapchain, options.scaling).map_err(|end| end.to_string())
    }
}

/// Draws one window with Vulkan.
pub(super) struct VulkanPresenter {
    // In the order in which they must be dropped. The swapchain waits for the GPU first.
    swapchain: Swapchain,
    commands: Commands,
    picture: Texture,
    cursor: Sprite,
    /// The texts in the middle and in the corner of the window.
    centre: Sprite,
    corner: Sprite,
    imports: Imports,
    staging: Option<Buffer>,
    /// The copies of this frame, kept for their capacity.
    regions: Vec<vk::BufferImageCopy>,
    pipeline: Pipeline,
    scaling: Scaling,
    gpu: Arc<Gpu>,
}

impl VulkanPresenter {
    fn new(gpu: &Arc<Gpu>, swapchain: Swapchain, scaling: Scaling) -> Result<Self, PresenterEnd> {
        let pipeline = Pipeline::new(gpu, swapchain.format())?;
        Ok(VulkanPresenter {
            commands: Commands::new(gpu)?,
            picture: Texture::new(gpu, &pipeline)?,
            cursor: Sprite::new(gpu, &pipeline)?,
            centre: Sprite::new(gpu, &pipeline)?,
            corner: Sprite::new(gpu, &pipeline)?,
            imports: Imports::new(gpu),
            staging: None,
            regions: Vec::with_capacity(16),
            swapchain,
            pipeline,
            scaling,
            gpu: gpu.clone(),
        })
    }

    pub(super) fn gpu_name(&self) -> &str {
        &self.gpu.name
    }

    /// Records commands that update the picture's texture.
    fn copy_picture(&mut self, frame: &Frame, picture: &Picture) -> Result<(), PresenterEnd> {
        let size = (picture.width(), picture.height());
        let mut damage = frame.damage;
        if !self.picture.resize(size, &self.pipeline)? {
            damage.set(picture.whole());
        }
        let layout = picture.layout();
        self.regions.clear();
        if let Some(import) = self.imports.import(picture) {
            for rect in damage.rects() {
                let offset = picture.byte_of(rect.x, rect.y) - import.start;
                self.regions
                    .push(texture::region(*rect, offset, layout.stride / BYTES));
            }
            self.picture
                .copy(self.commands.raw, import.buffer.raw, &self.regions);
            return Ok(());
        }
        let row_bytes = |width: u32| (width * BYTES) as usize;
        let bytes = |rect: &crate::Rect| row_bytes(rect.width) as u64 * u64::from(rect.height);
        let needed = damage.rects().iter().map(bytes).sum();
        if needed == 0 {
            return Ok(());
        }
        let regions = &mut self.regions;
        let staging = staging(&self.gpu, &mut self.staging, needed)?;
        let mut start = 0;
        for rect in damage.rects() {
            regions.push(texture::region(*rect, start, rect.width));
            let room = staging
                .bytes()
                .get_mut(start as usize..)
                .unwrap_or_default();
            let rows = room
                .chunks_exact_mut(row_bytes(rect.width))
                .take(rect.height as usize);
            for (y, row) in (rect.y..).zip(rows) {
                picture.read_row(rect.x, y, row);
            }
            start += bytes(rect);
        }
        let buffer = staging.raw;
        self.picture.copy(self.commands.raw, buffer, regions);
        Ok(())
    }

    /// Updates the textures of cursor and labels.
    fn copy_sprites(&mut self, frame: &Frame) -> Result<(), PresenterEnd> {
        for (sprite, image) in [
            (&mut self.cursor, &frame.cursor),
            (&mut self.centre, &frame.centre),
            (&mut self.corner, &frame.corner),
        ] {
            if let Some(image) = image
                && !sprite.shows(image)
            {
                let staging = staging(&self.gpu, &mut self.staging, image.rgba.len() as u64)?;
                sprite.show(image, staging, &self.commands, &self.pipeline)?;
            }
        }
        Ok(())
    }

    /// Records commands that draw everything into a target, with the cursor if it is given.
    fn record_draw(
        &self,
        frame: &Frame,
        cursor: Option<(&Cursor, (i32, i32))>,
        pass: vk::RenderPass,
        framebuffer: vk::Framebuffer,
        extent: vk::Extent2D,
    ) {
        let (commands, device) = (self.commands.raw, &self.gpu.device);
        let black = [vk::ClearValue {
            color: vk::ClearColorValue {
                float32: [0.0, 0.0, 0.0, 1.0],
            },
        }];
        let all = vk::Rect2D {
            offset: vk::Offset2D::default(),
            extent,
        };
        let begin = vk::RenderPassBeginInfo::default()
            .render_pass(pass)
            .framebuffer(framebuffer)
            .render_area(all)
            .clear_values(&black);
        let viewport = [vk::Viewport {
            width: extent.width as f32,
            height: extent.height as f32,
            max_depth: 1.0,
            ..Default::default()
        }];
        // SAFETY: the command buffer is being recorded; pass and framebuffer belong together.
        unsafe {
            device.cmd_begin_render_pass(commands, &begin, vk::SubpassContents::INLINE);
            device.cmd_set_viewport(commands, 0, &viewport);
        }
        let window = (extent.width, extent.height);
        let placement = frame.picture.as_ref().and_then(|picture| {
            let size = (picture.width(), picture.height());
            Some((
                Placement::new(size, window, self.scaling)?,
                picture.layout().format,
            ))
        });
        if let Some((placement, format)) = placement {
            let inside = [vk::Rect2D {
                // This is inside the window, whose sides Vulkan limits to far less than an i32.
                offset: vk::Offset2D {
                    x: placement.x as i32,
                    y: placement.y as i32,
                },
                extent: vk::Extent2D {
                    width: placement.width,
                    height: placement.height,
                },
            }];
            // SAFETY: as above.
            unsafe { device.cmd_set_scissor(commands, 0, &inside) };
            let sampled = |texture: &Texture| {
                let both = texture.samplings;
                if placement.is_integer() {
                    both.nearest
                } else {
                    both.linear
                }
            };
            let channels = Channels {
                alpha: None,
                ..format.channels()
            };
            let (image, area) = (sampled(&self.picture), (placement.area(), extent));
            self.pipeline
                .draw(commands, Blending::Opaque, image, channels, area);
            if let Some((cursor, at)) = cursor {
                let channels = PixelFormat::R8G8B8A8.channels();
                let image = sampled(&self.cursor.texture);
                let area = placement.cursor_area(cursor, at);
                self.pipeline
                    .draw(commands, Blending::Blended, image, channels, (area, extent));
            }
        }
        // SAFETY: as above.
        unsafe { device.cmd_set_scissor(commands, 0, &[all]) };
        for (sprite, label, in_the_middle) in [
            (&self.centre, &frame.centre, true),
            (&self.corner, &frame.corner, false),
        ] {
            if let Some(label) = label {
                let area = layout::label_area(label, window, in_the_middle);
                let channels = PixelFormat::R8G8B8A8.channels();
                let image = sprite.texture.samplings.nearest;
                self.pipeline
                    .draw(commands, Blending::Blended, image, channels, (area, extent));
            }
        }
        // SAFETY: as above.
        unsafe { device.cmd_end_render_pass(commands) };
    }
}

/// A staging buffer of at least `size` bytes. The present one is used if it is large enough.
fn staging<'a>(
    gpu: &Arc<Gpu>,
    place: &'a mut Option<Buffer>,
    size: u64,
) -> Result<&'a mut Buffer, PresenterEnd> {
    let buffer = match place.take() {
        Some(buffer) if buffer.size() >= size => buffer,
        _ => {
            let size = size.next_power_of_two();
            Buffer::mapped(gpu, size, vk::BufferUsageFlags::TRANSFER_SRC)?
        }
    };
    Ok(place.insert(buffer))
}

/// A small image over the picture that seldom changes.
struct Sprite {
    texture: Texture,
    /// What the texture shows.
    shown: Option<Arc<Cursor>>,
}

impl Sprite {
    fn new(gpu: &Arc<Gpu>, pipeline: &Pipeline) -> Result<Sprite, PresenterEnd> {
        Ok(Sprite {
            texture: Texture::new(gpu, pipeline)?,
            shown: None,
        })
    }

    fn shows(&self, image: &Arc<Cursor>) -> bool {
        let shown = self.shown.as_ref();
        shown.is_some_and(|shown| Arc::ptr_eq(shown, image))
    }

    /// Changes the image in a submission of its own. That is rare, and the picture may need the
    /// staging buffer.
    fn show(
        &mut self,
        image: &Arc<Cursor>,
        staging: &mut Buffer,
        commands: &Commands,
        pipeline: &Pipeline,
    ) -> Result<(), PresenterEnd> {
        let (width, height) = (image.width, image.height);
        self.texture.resize((width, height), pipeline)?;
        if let Some(bytes) = staging.bytes().get_mut(..image.rgba.len()) {
            bytes.copy_from_slice(&image.rgba);
        }
        let whole = texture::region(crate::Rect::whole(width, height), 0, width);
        commands.begin()?;
        self.texture.copy(commands.raw, staging.raw, &[whole]);
        commands.submit(None)?;
        commands.wait()?;
        self.shown = Some(image.clone());
        Ok(())
    }
}

impl Presenter for VulkanPresenter {
    fn name(&self) -> String {
        format!("drawn by Vulkan on {}", self.gpu.name)
    }

    fn is_mapped(&self) -> bool {
        self.swapchain.is_mapped()
    }

    fn draw(
        &mut self,
        frame: &mut Frame,
        presenting: &dyn Fn(),
    ) -> Result<FrameOutcome, PresenterEnd> {
        let target = match frame.present {
            true => self.swapchain.acquire(frame.size, &self.pipeline)?,
            false => None,
        };
        let extent = match target {
            Some(_) => self.swapchain.extent(),
            None => vk::Extent2D {
                width: frame.size.0,
                height: frame.size.1,
            },
        };
        let mut readback =
            match frame.image_replies.is_empty() || extent.width == 0 || extent.height == 0 {
                true => None,
                false => Some(Readback::new(
                    &self.gpu,
                    &self.pipeline,
                    self.swapchain.format(),
                    extent,
                )?),
            };
        if target.is_none() && readback.is_none() {
            return Ok(FrameOutcome::NONE);
        }
        self.imports.sweep(frame.picture.as_ref());
        self.copy_sprites(frame)?;
        self.commands.begin()?;
        if let Some(picture) = &frame.picture {
            self.copy_picture(frame, picture)?;
        }
        if let Some(readback) = &readback {
            self.record_draw(
                frame,
                frame.cursor(),
                self.pipeline.to_copy,
                readback.framebuffer,
                extent,
            );
            readback.copy(self.commands.raw);
        }
        if let Some(target) = &target {
            let cursor = frame.cursor().filter(|_| !frame.cursor_on_host);
            self.record_draw(
                frame,
                cursor,
                self.pipeline.to_window,
                target.framebuffer,
                extent,
            );
        }
        let window = target.map(|target| (self.swapchain.acquired(), target.drawn));
        self.commands.submit(window)?;
        let presented = match &target {
            Some(target) => {
                presenting();
                self.swapchain.present(target)?
            }
            None => false,
        };
        self.commands.wait()?;
        if let Some(readback) = &mut readback {
            for reply in frame.image_replies.drain(..) {
                // Failing means that nobody waits for the image any more.
                let _ = reply.try_send(Ok(readback.shot()));
            }
        }
        Ok(FrameOutcome {
            copied: true,
            presented,
        })
    }
}

/// The command buffer of a presenter, and the fence that says when it has been executed.
struct Commands {
    gpu: Arc<Gpu>,
    pool: vk::CommandPool,
    raw: vk::CommandBuffer,
    done: vk::Fence,
}

impl Commands {
    fn new(gpu: &Arc<Gpu>) -> Result<Commands, PresenterEnd> {
        let (pool, raw, done) = Default::default();
        // Null at first: dropping a half-made value frees what there is.
        let mut commands = Commands {
            gpu: gpu.clone(),
            pool,
            raw,
            done,
        };
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(gpu.family);
        // SAFETY: valid descriptions, here and below.
        commands.pool = unsafe { gpu.device.create_command_pool(&info, None) }
            .map_err(|error| gpu.end(error))?;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(commands.pool)
            .command_buffer_count(1);
        // SAFETY: as above.
        let buffers = unsafe { gpu.device.allocate_command_buffers(&info) }
            .map_err(|error| gpu.end(error))?;
        commands.raw = buffers.first().copied().unwrap_or_default();
        // SAFETY: as above.
        commands.done = unsafe { gpu.device.create_fence(&Default::default(), None) }
            .map_err(|error| gpu.end(error))?;
        Ok(commands)
    }

    /// Starts to record. The previous submission must have been waited for.
    fn begin(&self) -> Result<(), PresenterEnd> {
        let info = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let (device, none) = (&self.gpu.device, vk::CommandPoolResetFlags::empty());
        // SAFETY: nothing of the pool is being executed.
        unsafe {
            device
                .reset_command_pool(self.pool, none)
                .and_then(|()| device.begin_command_buffer(self.raw, &info))
        }
        .map_err(|error| self.gpu.end(error))
    }

    /// Submits what was recorded. For a window it waits for `acquired` before it draws to the
    /// image, and signals `drawn` afterwards.
    fn submit(&self, window: Option<(vk::Semaphore, vk::Semaphore)>) -> Result<(), PresenterEnd> {
        let (acquired, drawn) = window.unwrap_or_default();
        let (buffers, acquired, drawn) = ([self.raw], [acquired], [drawn]);
        let stages = [vk::PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT];
        let mut info = vk::SubmitInfo::default().command_buffers(&buffers);
        if window.is_some() {
            info = info
                .wait_semaphores(&acquired)
                .wait_dst_stage_mask(&stages)
                .signal_semaphores(&drawn);
        }
        let device = &self.gpu.device;
        // SAFETY: recording ends here; fence and semaphores are not in use; the queue is ours
        // while `with_queue` runs.
        unsafe {
            device
                .end_command_buffer(self.raw)
                .and_then(|()| device.reset_fences(&[self.done]))
                .and_then(|()| {
                    self.gpu
                        .with_queue(|queue| device.queue_submit(queue, &[info], self.done))
                })
        }
        .map_err(|error| self.gpu.end(error))
    }

    /// Waits until the GPU has executed the last submission.
    fn wait(&self) -> Result<(), PresenterEnd> {
        // SAFETY: the fence was submitted. Drivers end the wait of a GPU that hangs with
        // DEVICE_LOST.
        unsafe {
            self.gpu
                .device
                .wait_for_fences(&[self.done], true, u64::MAX)
        }
        .map_err(|error| self.gpu.end(error))
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        // A presenter can end in the middle of a frame: nothing may be executing then.
        let _ = self.gpu.wait_idle();
        // SAFETY: all are ours (or null, which is allowed) and idle.
        unsafe {
            self.gpu.device.destroy_fence(self.done, None);
            self.gpu.device.destroy_command_pool(self.pool, None);
        }
    }
}
