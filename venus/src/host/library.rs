//! Opening the Vulkan library, and short-lived instances for looking around.

use std::ffi::CStr;
use std::sync::OnceLock;

use ash::vk;

use super::version;
use crate::error::{Error, Result};
use crate::options::Driver;
use crate::platform;

/// The loaded Vulkan library. Instances made with it must not outlive it.
pub(crate) struct Host {
    entry: ash::Entry,
    /// Destroyed with the library.
    kept: OnceLock<ash::Instance>,
}

impl Host {
    /// Opens the library and checks its version.
    pub(crate) fn load(driver: &Driver) -> Result<Self> {
        let entry = open(driver)?;
        // SAFETY: a plain query of the library.
        let version = unsafe { entry.try_enumerate_instance_version() };
        let api_version = match version {
            Ok(version) => version.unwrap_or(vk::API_VERSION_1_0),
            Err(result) => {
                return Err(Error::Vulkan {
                    call: "vkEnumerateInstanceVersion",
                    result,
                });
            }
        };
        if api_version < version::LOWEST {
            return Err(Error::TooOld {
                major: vk::api_version_major(api_version),
                minor: vk::api_version_minor(api_version),
            });
        }
        Ok(Self {
            entry,
            kept: OnceLock::new(),
        })
    }

    /// The library's functions.
    pub(crate) fn entry(&self) -> &ash::Entry {
        &self.entry
    }

    /// Whether the library wants `VK_KHR_portability_enumeration` to show drivers such as MoltenVK.
    pub(crate) fn needs_portability(&self) -> bool {
        // SAFETY: a plain query of the library.
        let listed = unsafe { self.entry.enumerate_instance_extension_properties(None) };
        // A library that cannot list its extensions has none.
        listed.unwrap_or_default().iter().any(|extension| {
            extension.extension_name_as_c_str() == Ok(ash::khr::portability_enumeration::NAME)
        })
    }

    /// An instance for queries, without extensions a guest asked for.
    pub(crate) fn probe_instance(&self) -> Result<ProbeInstance<'_>> {
        let application = vk::ApplicationInfo::default()
            .application_name(c"hesper")
            .api_version(version::HIGHEST);
        let mut names: Vec<*const std::ffi::c_char> = Vec::new();
        let mut flags = vk::InstanceCreateFlags::empty();
        if self.needs_portability() {
            names.push(CStr::as_ptr(ash::khr::portability_enumeration::NAME));
            flags |= vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR;
        }
        let info = vk::InstanceCreateInfo::default()
            .application_info(&application)
            .enabled_extension_names(&names)
            .flags(flags);
        // SAFETY: the info points to live data; the guard below destroys the instance before `self` goes.
        let instance =
            unsafe { self.entry.create_instance(&info, None) }.map_err(|result| Error::Vulkan {
                call: "vkCreateInstance",
                result,
            })?;
        Ok(ProbeInstance {
            instance,
            host: self,
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(instance) = self.kept.take() {
            // SAFETY: nothing made from it is left, and it was not destroyed before.
            unsafe { instance.destroy_instance(None) };
        }
    }
}

/// An instance that is destroyed on drop.
pub(crate) struct ProbeInstance<'a> {
    instance: ash::Instance,
    host: &'a Host,
}

impl ProbeInstance<'_> {
    /// The instance's functions.
    pub(crate) fn raw(&self) -> &ash::Instance {
        &self.instance
    }

    /// Leaves it alive as long as the library is open.
    ///
    /// Vulkan's loader unloads a driver with the last of its instances, and loads it again for the next. That takes tens of
    /// milliseconds of a guest's start, and large drivers never free all that they had: lavapipe leaves 10 KiB each time.
    pub(crate) fn keep(self) {
        let ours = self.instance.clone();
        if self.host.kept.set(ours).is_ok() {
            std::mem::forget(self);
        }
    }
}

impl Drop for ProbeInstance<'_> {
    fn drop(&mut self) {
        // SAFETY: nothing made from the instance outlives this guard: users borrow it.
        unsafe { self.instance.destroy_instance(None) };
    }
}

fn open(driver: &Driver) -> Result<ash::Entry> {
    let load = |path: &std::ffi::OsStr| {
        // SAFETY: running the initialisers of the Vulkan library is what the user asked for.
        unsafe { ash::Entry::load_from(path) }.map_err(|error| Error::Load {
            library: path.to_string_lossy().into_owned(),
            reason: error.to_string(),
        })
    };
    match driver {
        Driver::Library(path) => load(path.as_os_str()),
        Driver::System => {
            // SAFETY: as above.
            let failure = match unsafe { ash::Entry::load() } {
                Ok(entry) => return Ok(entry),
                Err(error) => error.to_string(),
            };
            for library in platform::DRIVER_LIBRARIES {
                if let Ok(entry) = load(library.as_ref()) {
                    return Ok(entry);
                }
            }
            Err(Error::Load {
                library: "the system".into(),
                reason: failure,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_with_the_remedy() {
        let Err(error) = Host::load(&Driver::Library("/no/such/driver.so".into())) else {
            panic!("loaded a library that does not exist")
        };
        let text = error.to_string();
        assert!(text.contains("/no/such/driver.so"), "{text}");
        assert!(text.contains("install"), "{text}");
    }
}
