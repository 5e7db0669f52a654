//! The Vulkan instance and the surfaces of windows.

use std::ffi::CStr;
use std::sync::Arc;

use ash::{khr, vk};
use raw_window_handle::{HasDisplayHandle, HasWindowHandle};
use winit::window::Window;

use crate::options::VulkanEntry;
use crate::platform::Connection;
#[cfg(target_os = "macos")]
use crate::platform::macos::MetalLayer;

/// A Vulkan instance that can make surfaces for our windows.
pub(super) struct Instance {
    /// The loader. It must outlive everything that is made through it.
    entry: ash::Entry,
    pub(super) raw: ash::Instance,
    pub(super) surfaces: khr::surface::Instance,
}

impl Instance {
    /// An instance for windows like `window`, from the open library `vulkan` or else from the
    /// system's loader.
    pub(super) fn new(
        window: &Window,
        vulkan: Option<&VulkanEntry>,
    ) -> Result<Arc<Instance>, String> {
        let display = window
            .display_handle()
            .map_err(|error| error.to_string())?
            .as_raw();
        let needed = ash_window::enumerate_required_extensions(display)
            .map_err(|error| format!("no surfaces for this window system: {error}"))?;
        let entry = match vulkan {
            Some(vulkan) => vulkan.0.clone(),
            // SAFETY: the system's Vulkan loader is trusted code, like every library we link.
            None => unsafe { ash::Entry::load() }
                .map_err(|error| format!("no Vulkan loader: {error}"))?,
        };
        // SAFETY: a plain query.
        let offered = unsafe { entry.enumerate_instance_extension_properties(None) }
            .map_err(|error| format!("no list of instance extensions: {error}"))?;
        let offers = |name: &CStr| {
            offered
                .iter()
                .any(|offer| offer.extension_name_as_c_str() == Ok(name))
        };
        let mut extensions = needed.to_vec();
        let mut flags = vk::InstanceCreateFlags::empty();
        // MoltenVK and other drivers that are not fully conformant are hidden without this.
        if offers(khr::portability_enumeration::NAME) {
            extensions.push(khr::portability_enumeration::NAME.as_ptr());
            flags |= vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR;
        }
        let application = vk::ApplicationInfo::default()
            .application_name(c"Hesper")
            // 1.1 has external memory and device UUIDs, and every current driver offers it.
            .api_version(vk::API_VERSION_1_1);
        let info = vk::InstanceCreateInfo::default()
            .application_info(&application)
            .flags(flags)
            .enabled_extension_names(&extensions);
        // SAFETY: names and structures live through the call.
        let raw = unsafe { entry.create_instance(&info, None) }
            .map_err(|error| format!("no Vulkan instance: {error}"))?;
        let surfaces = khr::surface::Instance::new(&entry, &raw);
        Ok(Arc::new(Instance {
            entry,
            raw,
            surfaces,
        }))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: what was made from it holds an Arc of it, so nothing is left.
        unsafe { self.raw.destroy_instance(None) };
    }
}

/// A window's surface. Keeps the window open for as long as it lives.
pub(super) struct Surface {
    pub(super) raw: vk::SurfaceKHR,
    // Declared before the instance: drivers get to know when a connection is closed.
    connection: Connection,
    pub(super) instance: Arc<Instance>,
    #[cfg(target_os = "macos")]
    _layer: MetalLayer,
    _window: Arc<Window>,
}

impl Surface {
    /// The surface of `window`. On macOS this must happen on the main thread.
    pub(super) fn new(instance: &Arc<Instance>, window: &Arc<Window>) -> Result<Surface, String> {
        let handle_error = |error: raw_window_handle::HandleError| error.to_string();
        let connection = Connection::new(window)?;
        #[cfg(not(target_os = "macos"))]
        let display = connection.display_handle().map_err(handle_error)?.as_raw();
        let handle = window.window_handle().map_err(handle_error)?.as_raw();
        let failed = |error: vk::Result| format!("no surface: {error}");
        #[cfg(target_os = "macos")]
        let layer = MetalLayer::of(handle).ok_or("no Metal layer: this is no window of AppKit")?;
        #[cfg(target_os = "macos")]
        let raw = layer
            .surface(&instance.entry, &instance.raw)
            .map_err(failed)?;
        // SAFETY: the instance enabled the extensions for this display; both handles stay valid
        // while `connection` and `_window` live, which is longer than the surface.
        #[cfg(not(target_os = "macos"))]
        let raw = unsafe {
            ash_window::create_surface(&instance.entry, &instance.raw, display, handle, None)
        }
        .map_err(failed)?;
        let (instance, _window) = (instance.clone(), window.clone());
        Ok(Surface {
            raw,
            connection,
            instance,
            #[cfg(target_os = "macos")]
            _layer: layer,
            _window,
        })
    }
}

impl Surface {
    /// See [`Connection::is_mapped`].
    pub(super) fn is_mapped(&self) -> bool {
        self.connection.is_mapped()
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        // SAFETY: the swapchains made for it are gone: their owner holds the surface, too.
        unsafe { self.instance.surfaces.destroy_surface(self.raw, None) };
    }
}
