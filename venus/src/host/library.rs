//! Opens the Vulkan library, and makes short-lived instances for queries.
//!
//! The library is Vulkan's loader or a driver. A driver without a loader is opened by
//! `vkGetInstanceProcAddr` if its library has that (MoltenVK). Otherwise Hesper does what the
//! loader does: it calls `vk_icdNegotiateLoaderICDInterfaceVersion`, then
//! `vk_icdGetInstanceProcAddr`.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ash::vk;

use super::version;
use crate::error::{Error, Result};
use crate::options::Driver;

/// An open Vulkan library: the system's loader, or a driver alone. It stays open as long as the
/// process lives.
#[derive(Clone)]
pub struct Vulkan {
    entry: ash::Entry,
    driver: Driver,
}

impl Vulkan {
    /// Opens what `driver` names.
    ///
    /// # Errors
    /// [`Error::Load`] with everything that was tried.
    pub fn open(driver: &Driver) -> Result<Self> {
        Ok(Self::choose(driver)?.0)
    }

    /// The same, with the host if GPUs had to be looked for. It keeps the instance that was made
    /// for that.
    fn choose(driver: &Driver) -> Result<(Self, Option<Host>)> {
        let failed = |tried: Vec<(PathBuf, String)>| {
            let tried = tried
                .iter()
                .map(|(library, reason)| format!("{}: {reason}", library.display()));
            Error::Load {
                tried: tried.collect::<Vec<_>>().join("; "),
            }
        };
        match driver {
            Driver::System => {
                // SAFETY: running the initialisers of the Vulkan library is what the user asked
                // for.
                let loaded = unsafe { ash::Entry::load() };
                let loaded = loaded.map_err(|error| {
                    let system = PathBuf::from("the system's Vulkan loader");
                    failed(vec![(system, error.to_string())])
                });
                let vulkan = Self {
                    entry: loaded?,
                    driver: Driver::System,
                };
                Ok((vulkan, None))
            }
            Driver::Library(path) => {
                let opened = Self::of(path);
                let vulkan = opened.map_err(|reason| failed(vec![(path.clone(), reason)]));
                Ok((vulkan?, None))
            }
            Driver::FirstOf(libraries) => {
                let mut tried = Vec::new();
                for library in libraries {
                    match Self::of(library) {
                        // The last one is taken anyway: its user reports what is wrong with it.
                        Ok(vulkan) if tried.len() + 1 == libraries.len() => {
                            return Ok((vulkan, None));
                        }
                        Ok(vulkan) => match vulkan.host_with_gpu() {
                            Ok(Some(host)) => return Ok((vulkan, Some(host))),
                            Ok(None) => tried.push((library.clone(), "it has no GPU".to_owned())),
                            Err(error) => tried.push((library.clone(), error.to_string())),
                        },
                        Err(reason) => tried.push((library.clone(), reason)),
                    }
                }
                Err(failed(tried))
            }
        }
    }

    fn of(library: &Path) -> std::result::Result<Self, String> {
        Ok(Self {
            entry: entry(library)?,
            driver: Driver::Library(library.to_owned()),
        })
    }

    /// The library's functions.
    #[must_use]
    pub fn entry(&self) -> &ash::Entry {
        &self.entry
    }

    /// What was opened, to be opened again.
    #[must_use]
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// The host, if it has a GPU.
    fn host_with_gpu(&self) -> Result<Option<Host>> {
        let host = Host::of(self.clone())?;
        let instance = host.probe_instance()?;
        let has_gpu = !instance.physical_devices()?.is_empty();
        instance.keep();
        Ok(has_gpu.then_some(host))
    }
}

/// Opens a library by its path or by a name that the dynamic linker finds.
fn entry(library: &Path) -> std::result::Result<ash::Entry, String> {
    // SAFETY: running the initialisers of the Vulkan library is what the user asked for.
    match unsafe { ash::Entry::load_from(library) } {
        Ok(entry) => Ok(entry),
        // A driver that has only the loader's interface, such as KosmicKrisp.
        Err(ash::LoadingError::MissingEntryPoint(_)) => driver_entry(library),
        Err(ash::LoadingError::LibraryLoadFailure(error)) => {
            Err(without_name(library, &error.to_string()).to_owned())
        }
    }
}

/// The dynamic linker's message without the library's name at its beginning: the name is reported
/// anyway.
fn without_name<'a>(library: &Path, message: &'a str) -> &'a str {
    let name = library.display();
    // glibc and musl, then macOS: `dlopen(NAME, 0x0005): tried: …`.
    let rest = message.strip_prefix(&format!("{name}: ")).or_else(|| {
        let rest = message.strip_prefix(&format!("dlopen({name}, "))?;
        rest.split_once("): ").map(|(_, rest)| rest)
    });
    rest.unwrap_or(message)
}

/// The version of the interface between loader and driver that is asked for. It is the first that
/// lets programs ask for any version of Vulkan.
const INTERFACE: u32 = 5;

type Negotiate = unsafe extern "system" fn(*mut u32) -> vk::Result;

/// Opens a driver that is made for Vulkan's loader, in the loader's place.
fn driver_entry(library: &Path) -> std::result::Result<ash::Entry, String> {
    // SAFETY: as in `entry`, which opened it a moment ago.
    let opened = unsafe { libloading::Library::new(library) };
    let opened = opened.map_err(|error| without_name(library, &error.to_string()).to_owned())?;
    // SAFETY: the loader's interface gives functions of these names these types; the library stays
    // open, see below.
    let (negotiate, get) = unsafe {
        let negotiate = opened.get::<Negotiate>(b"vk_icdNegotiateLoaderICDInterfaceVersion\0");
        let get = opened.get::<vk::PFN_vkGetInstanceProcAddr>(b"vk_icdGetInstanceProcAddr\0");
        (
            negotiate.ok().map(|symbol| *symbol),
            get.map(|symbol| *symbol),
        )
    };
    let get = get.map_err(|_| {
        "it is not a Vulkan library: it has neither vkGetInstanceProcAddr nor vk_icdGetInstanceProcAddr"
            .to_owned()
    })?;
    // A driver without it has the interface's first version, which is enough.
    if let Some(negotiate) = negotiate {
        let mut version = INTERFACE;
        // SAFETY: the version can be written.
        let result = unsafe { negotiate(&raw mut version) };
        if result != vk::Result::SUCCESS {
            return Err(format!(
                "its vk_icdNegotiateLoaderICDInterfaceVersion fails with {result}"
            ));
        }
    }
    // The driver's functions may be called as long as the process lives.
    std::mem::forget(opened);
    let functions = ash::StaticFn {
        get_instance_proc_addr: get,
    };
    // SAFETY: the function is what Vulkan says of `vkGetInstanceProcAddr`, and the library stays
    // open.
    Ok(unsafe { ash::Entry::from_static_fn(functions) })
}

/// The loaded Vulkan library. Instances made with it must not outlive it.
pub(crate) struct Host {
    entry: ash::Entry,
    /// Destroyed with the library.
    kept: OnceLock<ash::Instance>,
    needs_portability: OnceLock<bool>,
}

impl Host {
    /// Opens the library and checks its version.
    pub(crate) fn load(driver: &Driver) -> Result<Self> {
        match Vulkan::choose(driver)? {
            (_, Some(host)) => Ok(host),
            (vulkan, None) => Self::of(vulkan),
        }
    }

    /// Checks an open library's version.
    fn of(vulkan: Vulkan) -> Result<Self> {
        let entry = vulkan.entry;
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
            needs_portability: OnceLock::new(),
        })
    }

    /// The library's functions.
    pub(crate) fn entry(&self) -> &ash::Entry {
        &self.entry
    }

    /// Whether the library needs `VK_KHR_portability_enumeration` to show drivers such as MoltenVK.
    ///
    /// It is asked once: Vulkan's loader reads all its manifests for the answer.
    pub(crate) fn needs_portability(&self) -> bool {
        *self.needs_portability.get_or_init(|| {
            // SAFETY: a plain query of the library.
            let listed = unsafe { self.entry.enumerate_instance_extension_properties(None) };
            // A library that cannot list its extensions has none.
            listed.unwrap_or_default().iter().any(|extension| {
                extension.extension_name_as_c_str() == Ok(ash::khr::portability_enumeration::NAME)
            })
        })
    }

    /// An instance for queries, without extensions that a guest asked for. It is the one that is
    /// kept, if there is one.
    pub(crate) fn probe_instance(&self) -> Result<ProbeInstance<'_>> {
        if let Some(kept) = self.kept.get() {
            return Ok(ProbeInstance {
                instance: kept.clone(),
                host: self,
                is_kept: true,
            });
        }
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
        // SAFETY: the info points to live data; the guard below destroys the instance before `self`
        // goes.
        let instance =
            unsafe { self.entry.create_instance(&info, None) }.map_err(|result| Error::Vulkan {
                call: "vkCreateInstance",
                result,
            })?;
        Ok(ProbeInstance {
            instance,
            host: self,
            is_kept: false,
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

/// An instance that is destroyed on drop, unless it is kept.
pub(crate) struct ProbeInstance<'a> {
    instance: ash::Instance,
    host: &'a Host,
    is_kept: bool,
}

impl ProbeInstance<'_> {
    /// The instance's functions.
    pub(crate) fn raw(&self) -> &ash::Instance {
        &self.instance
    }

    /// Keeps it alive as long as the library is open.
    ///
    /// Vulkan's loader unloads a driver with the last of its instances, and loads it again for the
    /// next one. That costs tens of milliseconds when a guest starts. Large drivers also never free
    /// all their memory: lavapipe leaves 10 KiB each time.
    pub(crate) fn keep(mut self) {
        let ours = self.instance.clone();
        self.is_kept |= self.host.kept.set(ours).is_ok();
    }
}

impl Drop for ProbeInstance<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // SAFETY: nothing made from the instance outlives this guard: users borrow it.
            unsafe { self.instance.destroy_instance(None) };
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

    #[test]
    fn what_the_dynamic_linker_says_names_no_library_twice() {
        let library = Path::new("/no/libvulkan.so.1");
        for (message, expected) in [
            (
                "/no/libvulkan.so.1: cannot open shared object file",
                "cannot open shared object file",
            ),
            (
                "dlopen(/no/libvulkan.so.1, 0x0005): tried: '/no/libvulkan.so.1' (no such file)",
                "tried: '/no/libvulkan.so.1' (no such file)",
            ),
            // Of another library, which it needs.
            (
                "libX11.so.6: cannot open shared object file",
                "libX11.so.6: cannot open shared object file",
            ),
        ] {
            assert_eq!(without_name(library, message), expected);
        }
        let Err(error) = Host::load(&Driver::Library(library.to_owned())) else {
            panic!("loaded a library that does not exist")
        };
        let text = error.to_string();
        if cfg!(target_os = "linux") {
            assert_eq!(text.matches("/no/libvulkan.so.1").count(), 1, "{text}");
        }
    }

    #[test]
    fn all_that_was_tried_is_named_with_what_was_wrong_with_it() {
        // A library that exists, but has nothing of Vulkan.
        let other = "libm.so.6";
        let libraries = ["/no/such/loader.so", other, "/no/such/driver.so"];
        let driver = Driver::FirstOf(libraries.map(PathBuf::from).to_vec());
        let text = match Vulkan::open(&driver) {
            Ok(_) => panic!("loaded a library that does not exist"),
            Err(error) => error.to_string(),
        };
        for library in libraries {
            assert!(text.contains(library), "{text}");
        }
        if cfg!(target_os = "linux") {
            assert!(text.contains("vk_icdGetInstanceProcAddr"), "{text}");
        }
        assert!(text.contains("--driver"), "{text}");
    }
}
