//! A window's swapchain: the images that can be presented. It is rebuilt whenever the window
//! changes.

use std::sync::Arc;

use ash::vk;

use super::gpu::Gpu;
use super::instance::Surface;
use super::memory::COLOR;
use super::pipeline::Pipeline;
use crate::presenter::PresenterEnd;

/// How long to wait for an image. A compositor that shows our window returns one at every refresh.
/// One that does not must not keep the guest waiting.
const PATIENCE_NS: u64 = 100_000_000;

/// The swapchain of a window, and everything that is rebuilt with it.
pub(super) struct Swapchain {
    gpu: Arc<Gpu>,
    surface: Surface,
    format: vk::SurfaceFormatKHR,
    mode: vk::PresentModeKHR,
    raw: vk::SwapchainKHR,
    extent: vk::Extent2D,
    targets: Vec<Target>,
    /// The size of the window when it was built.
    made_for: (u32, u32),
    /// It no longer fits its window.
    stale: bool,
    /// Signalled when the acquired image may be drawn to. One is enough, because a frame ends
    /// before the next begins.
    acquired: vk::Semaphore,
}

/// An image of the swapchain.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) index: u32,
    pub(super) framebuffer: vk::Framebuffer,
    /// Signalled when the image has been drawn. Each image has its own: it is in use until the
    /// image comes back.
    pub(super) drawn: vk::Semaphore,
    view: vk::ImageView,
}

impl Swapchain {
    /// A swapchain for `surface`, without images yet.
    pub(super) fn new(gpu: &Arc<Gpu>, surface: Surface, vsync: bool) -> Result<Swapchain, String> {
        let surfaces = &surface.instance.surfaces;
        // FIFO does not tear, makes no more frames than the screen shows, and is supported
        // everywhere.
        let mut mode = vk::PresentModeKHR::FIFO;
        if !vsync {
            // SAFETY: the device can present to this surface.
            let modes = unsafe {
                surfaces.get_physical_device_surface_present_modes(gpu.physical, surface.raw)
            }
            .map_err(|error| format!("no present modes: {error}"))?;
            // MAILBOX is preferred: it shows whole frames only.
            let wanted = [vk::PresentModeKHR::MAILBOX, vk::PresentModeKHR::IMMEDIATE];
            let found = wanted.into_iter().find(|wanted| modes.contains(wanted));
            mode = found.unwrap_or(mode);
        }
        log::debug!("frames are presented in mode {mode:?}");
        // SAFETY: the device can present to this surface.
        let formats =
            unsafe { surfaces.get_physical_device_surface_formats(gpu.physical, surface.raw) }
                .map_err(|error| format!("no surface formats: {error}"))?;
        // The guest's colours are already encoded for the screen. An sRGB format would encode them
        // again.
        let wanted = [vk::Format::B8G8R8A8_UNORM, vk::Format::R8G8B8A8_UNORM];
        let format = wanted
            .into_iter()
            .find_map(|wanted| formats.iter().find(|offer| offer.format == wanted))
            .copied()
            .ok_or_else(|| format!("the window has no 8-bit UNORM format, only {formats:?}"))?;
        let info = vk::SemaphoreCreateInfo::default();
        // SAFETY: a valid description.
        let acquired = unsafe { gpu.device.create_semaphore(&info, None) }
            .map_err(|error| format!("no semaphore: {error}"))?;
        Ok(Swapchain {
            gpu: gpu.clone(),
            surface,
            format,
            mode,
            raw: vk::SwapchainKHR::null(),
            extent: vk::Extent2D::default(),
            targets: Vec::new(),
            made_for: (0, 0),
            stale: true,
            acquired,
        })
    }

    pub(super) fn is_mapped(&self) -> bool {
        self.surface.is_mapped()
    }

    pub(super) fn format(&self) -> vk::Format {
        self.format.format
    }

    /// The size of the images.
    pub(super) fn extent(&self) -> vk::Extent2D {
        self.extent
    }

    /// Signalled when the image that was acquired last may be drawn to.
    pub(super) fn acquired(&self) -> vk::Semaphore {
        self.acquired
    }

    /// Acquires an image to draw to, for a window of `size` pixels. `None` when there is none now:
    /// the window is minimised, or the compositor does not show it. Every acquired image must be
    /// [presented](Self::present).
    pub(super) fn acquire(
        &mut self,
        size: (u32, u32),
        pipeline: &Pipeline,
    ) -> Result<Option<Target>, PresenterEnd> {
        // A window can change again while its swapchain is rebuilt, but not forever.
        for _ in 0..3 {
            if (self.stale || self.made_for != size) && !self.rebuild(size, pipeline)? {
                return Ok(None);
            }
            let swapchains = &self.gpu.swapchains;
            // SAFETY: the semaphore is not in use: the frame that waited for it has ended.
            let image = unsafe {
                let fence = vk::Fence::null();
                swapchains.acquire_next_image(self.raw, PATIENCE_NS, self.acquired, fence)
            };
            match image {
                Ok((index, suboptimal)) => {
                    self.stale |= suboptimal;
                    return Ok(self.targets.get(index as usize).copied());
                }
                Err(vk::Result::TIMEOUT | vk::Result::NOT_READY) => return Ok(None),
                Err(vk::Result::ERROR_OUT_OF_DATE_KHR) => self.stale = true,
                Err(error) => return Err(self.gpu.end(error)),
            }
        }
        Ok(None)
    }

    /// Presents an image once it has been drawn. Returns `false` if the window has changed
    /// meanwhile and does not show it.
    pub(super) fn present(&mut self, target: &Target) -> Result<bool, PresenterEnd> {
        let (drawn, swapchains, images) = ([target.drawn], [self.raw], [target.index]);
        let info = vk::PresentInfoKHR::default()
            .wait_semaphores(&drawn)
            .swapchains(&swapchains)
            .image_indices(&images);
        let functions = &self.gpu.swapchains;
        let present = |queue| {
            // SAFETY: the image was acquired and drawn; the queue is ours while `with_queue` runs.
            unsafe { functions.queue_present(queue, &info) }
        };
        match self.gpu.with_queue(present) {
            Ok(suboptimal) => {
                self.stale |= suboptimal;
                Ok(true)
            }
            Err(vk::Result::ERROR_OUT_OF_DATE_KHR) => {
                self.stale = true;
                Ok(false)
            }
            Err(error) => Err(self.gpu.end(error)),
        }
    }

    /// Rebuilds the images. Returns `false` if the window has no pixels.
    fn rebuild(&mut self, size: (u32, u32), pipeline: &Pipeline) -> Result<bool, PresenterEnd> {
        let (surfaces, surface) = (&self.surface.instance.surfaces, self.surface.raw);
        // SAFETY: the device can present to this surface.
        let can = unsafe {
            surfaces.get_physical_device_surface_capabilities(self.gpu.physical, surface)
        }
        .map_err(|error| self.gpu.end(error))?;
        let (least, most) = (can.min_image_extent, can.max_image_extent);
        let extent = match can.current_extent {
            // This window takes the size of its images.
            vk::Extent2D {
                width: u32::MAX, ..
            } => vk::Extent2D {
                width: size.0.clamp(least.width, most.width.max(least.width)),
                height: size.1.clamp(least.height, most.height.max(least.height)),
            },
            current => current,
        };
        if extent.width == 0 || extent.height == 0 || size.0 == 0 || size.1 == 0 {
            return Ok(false);
        }
        // One image to show, one to wait, one to draw. Each further one would be a frame of
        // latency.
        let most = if can.max_image_count == 0 {
            u32::MAX
        } else {
            can.max_image_count
        };
        let count = (can.min_image_count + 1).min(most);
        let alphas = [
            vk::CompositeAlphaFlagsKHR::OPAQUE,
            vk::CompositeAlphaFlagsKHR::INHERIT,
        ];
        let alpha = alphas
            .into_iter()
            .find(|alpha| can.supported_composite_alpha.contains(*alpha));
        let info = vk::SwapchainCreateInfoKHR::default()
            .surface(surface)
            .min_image_count(count)
            .image_format(self.format.format)
            .image_color_space(self.format.color_space)
            .image_extent(extent)
            .image_array_layers(1)
            .image_usage(vk::ImageUsageFlags::COLOR_ATTACHMENT)
            .image_sharing_mode(vk::SharingMode::EXCLUSIVE)
            .pre_transform(can.current_transform)
            .composite_alpha(alpha.unwrap_or(vk::CompositeAlphaFlagsKHR::PRE_MULTIPLIED))
            .present_mode(self.mode)
            .clipped(true)
            .old_swapchain(self.raw);
        // SAFETY: a description after the surface's capabilities; the old swapchain is ours.
        let made = unsafe { self.gpu.swapchains.create_swapchain(&info, None) };
        // Even a failed call retires the old one.
        self.gpu.wait_idle()?;
        self.drop_images();
        self.raw = made.map_err(|error| self.gpu.end(error))?;
        self.extent = extent;
        // SAFETY: the swapchain was just made.
        let images = unsafe { self.gpu.swapchains.get_swapchain_images(self.raw) }
            .map_err(|error| self.gpu.end(error))?;
        for (index, image) in (0..).zip(images) {
            self.add_target(index, image, pipeline)?;
        }
        (self.made_for, self.stale) = (size, false);
        Ok(true)
    }

    fn add_target(
        &mut self,
        index: u32,
        image: vk::Image,
        pipeline: &Pipeline,
    ) -> Result<(), PresenterEnd> {
        let info = vk::ImageViewCreateInfo::default()
            .image(image)
            .view_type(vk::ImageViewType::TYPE_2D)
            .format(self.format.format)
            .subresource_range(COLOR);
        let device = &self.gpu.device;
        // Null at first and stored at once: freed with the others whatever fails.
        let (view, framebuffer, drawn) = Default::default();
        self.targets.push(Target {
            index,
            view,
            framebuffer,
            drawn,
        });
        let Some(target) = self.targets.last_mut() else {
            return Ok(());
        };
        // SAFETY: the image is the swapchain's, of this format.
        target.view = unsafe { device.create_image_view(&info, None) }
            .map_err(|error| self.gpu.end(error))?;
        // SAFETY: a valid description.
        target.drawn = unsafe { device.create_semaphore(&Default::default(), None) }
            .map_err(|error| self.gpu.end(error))?;
        target.framebuffer = pipeline.framebuffer(target.view, self.extent)?;
        Ok(())
    }

    /// Frees the swapchain and what belongs to its images. The GPU must be idle.
    fn drop_images(&mut self) {
        for target in self.targets.drain(..) {
            // SAFETY: all are ours (or null, which is allowed) and idle.
            unsafe {
                self.gpu
                    .device
                    .destroy_framebuffer(target.framebuffer, None);
                self.gpu.device.destroy_image_view(target.view, None);
                self.gpu.device.destroy_semaphore(target.drawn, None);
            }
        }
        let raw = std::mem::replace(&mut self.raw, vk::SwapchainKHR::null());
        // SAFETY: it is ours (or null, which is allowed), and none of its images is in use.
        unsafe { self.gpu.swapchains.destroy_swapchain(raw, None) };
    }
}

impl Drop for Swapchain {
    fn drop(&mut self) {
        // A lost device is idle, too.
        let _ = self.gpu.wait_idle();
        self.drop_images();
        // SAFETY: it is ours, and nothing waits for it any more.
        unsafe { self.gpu.device.destroy_semaphore(self.acquired, None) };
    }
}
