//! lavapipe with the gaps and the behaviour of a Mac's Vulkan drivers, so that tests on Linux show
//! how Hesper works on a Mac.
//!
//! The crates `moltenvk` and `kosmickrisp` beside this one build it into libraries with the exports
//! of each driver. The environment variable [`VARIABLE`] selects the driver to play. docs/macos.md
//! says what is played and where each fact comes from. The differences from lavapipe:
//!
//! - **Extensions** (`physical`): there are no file descriptors, dma-bufs, modifiers, foreign
//!   queues, transform feedback, mesh shaders or ray tracing. MoltenVK lists
//!   `VK_KHR_portability_subset`, fills in its structs, and creates no device without it.
//! - **Features** (`features`): geometry shaders, logic operations, wide lines, sparse binding,
//!   robust buffer access 2 and (MoltenVK) null descriptors are off. A device that asks for them is
//!   refused. Events need the portability subset's feature.
//! - **Memory** (`memory`): MoltenVK has three types: private, shared and memoryless. Only shared
//!   memory can be mapped or imported by host pointer. Pointer and size are multiples of
//!   [`ALIGNMENT`]. KosmicKrisp has one type.
//! - **Images** with optimal tiling that are bound to imported memory lie somewhere else
//!   (MoltenVK), or have no texture (KosmicKrisp; here binding them fails).
//! - **Queues** (`queue`): MoltenVK has four families of one queue. A submission waits while 64
//!   command buffers of its queue are unfinished.
//!   `MVK_CONFIG_MAX_ACTIVE_METAL_COMMAND_BUFFERS_PER_QUEUE` sets another number.
//!
//! The driver reports a program's mistakes on standard error, in lines that begin with `mac
//! driver:`.
//!
//! The driver does not check that a program asked for portability drivers: Vulkan's loader hides
//! such drivers by their manifests, and MoltenVK ignores the flag.

mod chain;
mod device;
mod features;
mod memory;
mod next;
mod physical;
mod queue;

use std::ffi::{CStr, c_char};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ash::vk;

/// The environment variable that names the mode: `moltenvk`, `moltenvk-1.4.0` or `kosmickrisp`.
pub const VARIABLE: &str = "HESPER_MAC_DRIVER";

/// The beginning of the driver's lines on standard error.
pub const PREFIX: &str = "mac driver:";

/// `minImportedHostPointerAlignment`: the page size of Apple's processors.
pub const ALIGNMENT: u64 = 16 << 10;

/// A Vulkan function pointer before it is cast to its own type.
pub type Function = unsafe extern "system" fn();

/// The driver that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// MoltenVK 1.4.1 or newer.
    MoltenVk,
    /// MoltenVK up to 1.4.0. Buffers and images cannot be declared for memory that is imported by
    /// host pointer.
    MoltenVk140,
    /// KosmicKrisp.
    KosmicKrisp,
}

static MODE: LazyLock<Mode> = LazyLock::new(|| {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    match text.as_str() {
        "moltenvk" | "" => Mode::MoltenVk,
        "moltenvk-1.4.0" => Mode::MoltenVk140,
        "kosmickrisp" => Mode::KosmicKrisp,
        other => {
            eprintln!(
                "{PREFIX} {VARIABLE}={other}: moltenvk, moltenvk-1.4.0 or kosmickrisp is allowed"
            );
            std::process::abort()
        }
    }
});

impl Mode {
    fn get() -> Self {
        *MODE
    }

    fn is_moltenvk(self) -> bool {
        self != Self::KosmicKrisp
    }
}

/// Reports a program's mistake on standard error.
pub(crate) fn complain(what: std::fmt::Arguments<'_>) {
    eprintln!("{PREFIX} {what}");
}

/// Casts a function to the type that the function tables use.
macro_rules! function {
    ($function:path, $type:ty) => {{
        let typed: $type = $function;
        // SAFETY: a caller that asks by name casts it back to the type of that name.
        Some(unsafe { std::mem::transmute::<$type, crate::Function>(typed) })
    }};
}
pub(crate) use function;

/// The replacement for lavapipe's function of that name; `None` if lavapipe's function is used.
fn replaced(name: &str) -> Option<Function> {
    match name {
        "vkGetInstanceProcAddr" => {
            type Typed = unsafe extern "system" fn(vk::Instance, *const c_char) -> Option<Function>;
            function!(instance_function, Typed)
        }
        "vkGetDeviceProcAddr" => {
            type Typed = unsafe extern "system" fn(vk::Device, *const c_char) -> Option<Function>;
            function!(device_function, Typed)
        }
        _ => physical::find(name)
            .or_else(|| features::find(name))
            .or_else(|| device::find(name))
            .or_else(|| memory::find(name))
            .or_else(|| queue::find(name)),
    }
}

/// `vkGetInstanceProcAddr`, for callers that have negotiated or need no negotiation.
///
/// # Safety
/// The arguments are valid, as Vulkan requires: `name` ends with NUL.
pub unsafe extern "system" fn instance_function(
    instance: vk::Instance,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    // A function that lavapipe lacks is not replaced either.
    let found = next::instance_function(instance, name);
    let ours = name.to_str().ok().and_then(replaced);
    // Vulkan's loader asks for this one with every instance, but drivers need not return
    // themselves.
    let is_entry = name == c"vkGetInstanceProcAddr";
    if found.is_none() && !is_entry {
        return None;
    }
    ours.or(found)
}

unsafe extern "system" fn device_function(
    device: vk::Device,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    let found = next::device_function(device, name)?;
    Some(name.to_str().ok().and_then(replaced).unwrap_or(found))
}

/// Whether the loader has negotiated the interface version.
static NEGOTIATED: AtomicBool = AtomicBool::new(false);

/// Exports the two functions that Vulkan's loader calls, from the crates that build the libraries.
#[macro_export]
macro_rules! export_to_loader {
    () => {
        /// The loader's entry point into the driver.
        ///
        /// # Safety
        /// The arguments are valid, as Vulkan requires: `name` ends with NUL.
        #[unsafe(no_mangle)]
        pub unsafe extern "system" fn vk_icdGetInstanceProcAddr(
            instance: ::ash::vk::Instance,
            name: *const ::std::ffi::c_char,
        ) -> Option<$crate::Function> {
            // SAFETY: the caller's promise.
            unsafe { $crate::loaders_function(instance, name) }
        }

        /// Negotiates the interface version. The loader calls it before the entry point.
        ///
        /// # Safety
        /// `version` can be written, as the loader guarantees.
        #[unsafe(no_mangle)]
        pub unsafe extern "system" fn vk_icdNegotiateLoaderICDInterfaceVersion(
            version: *mut u32,
        ) -> ::ash::vk::Result {
            // SAFETY: the caller's promise.
            unsafe { $crate::negotiate(version) }
        }
    };
}

/// `vk_icdGetInstanceProcAddr`, the loader's entry point into the driver.
///
/// # Safety
/// The arguments are valid, as Vulkan requires: `name` ends with NUL.
pub unsafe fn loaders_function(instance: vk::Instance, name: *const c_char) -> Option<Function> {
    if !NEGOTIATED.load(Ordering::Relaxed) {
        complain(format_args!(
            "vk_icdGetInstanceProcAddr without vk_icdNegotiateLoaderICDInterfaceVersion before it"
        ));
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { instance_function(instance, name) }
}

/// `vk_icdNegotiateLoaderICDInterfaceVersion`, which asks lavapipe.
///
/// # Safety
/// `version` can be written, as the loader guarantees.
pub unsafe fn negotiate(version: *mut u32) -> vk::Result {
    NEGOTIATED.store(true, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    unsafe { next::negotiate(version) }
}

/// The name of a function that the libraries export, `extern "system" fn() -> u64`: how many
/// submissions wait for room in their queue.
pub const WAITING: &CStr = c"hesperMacDriverWaiting";

/// How many submissions wait for room; see [`WAITING`].
pub fn waiting() -> u64 {
    queue::WAITING.load(Ordering::SeqCst)
}
