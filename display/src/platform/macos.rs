//! macOS: the Metal layer of a window.

use ash::prelude::VkResult;
use ash::{ext, vk};
use objc2_quartz_core::CALayer;
use raw_window_handle::RawWindowHandle;
use raw_window_metal::Layer;

/// The layer in which a window's frames appear. It takes the size and the scale factor of the window's view, also when they change:
/// the crate `raw-window-metal` sees to that from version 1.0 on (the one that `ash-window` uses sets them once).
pub(crate) struct MetalLayer(Layer);

// SAFETY: Core Animation's layers may be used by any thread, and this value is only dropped.
unsafe impl Send for MetalLayer {}

impl MetalLayer {
    /// The layer of an AppKit window; `None` for another handle. To be called on the main thread.
    pub(crate) fn of(window: RawWindowHandle) -> Option<MetalLayer> {
        let RawWindowHandle::AppKit(window) = window else {
            return None;
        };
        // SAFETY: winit's handle is that of a view, which is alive while the window is.
        Some(MetalLayer(unsafe { Layer::from_ns_view(window.ns_view) }))
    }

    /// A surface that draws into it.
    pub(crate) fn surface(
        &self,
        entry: &ash::Entry,
        instance: &ash::Instance,
    ) -> VkResult<vk::SurfaceKHR> {
        let info = vk::MetalSurfaceCreateInfoEXT::default().layer(self.0.as_ptr().as_ptr().cast());
        let surfaces = ext::metal_surface::Instance::new(entry, instance);
        // SAFETY: the layer lives longer than the surface, whose owner keeps both.
        unsafe { surfaces.create_metal_surface(&info, None) }
    }
}

impl Drop for MetalLayer {
    /// The next presenter of the window puts a layer of its own there.
    fn drop(&mut self) {
        if self.0.pre_existing() {
            return;
        }
        // SAFETY: a CAMetalLayer is a CALayer, and this one is kept alive by `self`.
        let layer = unsafe { self.0.as_ptr().cast::<CALayer>().as_ref() };
        layer.removeFromSuperlayer();
    }
}
