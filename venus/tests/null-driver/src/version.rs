//! The Vulkan version that the driver plays, and that of the loader above it.
//!
//! Without [`PLAY_VERSION`], it is a 1.3 driver under a 1.3 loader, and it has every function.

use std::ffi::{CStr, c_char};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ash::vk;
use hesper_venus_protocol::CORE_COMMANDS;

/// Name of the function, `extern "system" fn(*const Version)`, that chooses the version. It is
/// called before the driver is used.
pub const PLAY_VERSION: &CStr = c"hesperNullDriverPlayVersion";

/// Names of functions that a driver can be told to lack.
pub const HIDDEN: usize = 4;

/// A version to play. A device has core functions up to the lower of the driver's version and the
/// instance's, as with real drivers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Version {
    /// `vkEnumerateInstanceVersion`.
    pub loader: u32,
    /// `VkPhysicalDeviceProperties::apiVersion`.
    pub driver: u32,
    /// Functions that devices lack, or null. The strings live as long as the driver.
    pub hidden: [*const c_char; HIDDEN],
}

/// The version that is played, and what was asked for.
struct Versions {
    played: Option<Version>,
    /// `VkApplicationInfo::apiVersion` of the last instance.
    asked: u32,
}

// SAFETY: the strings are never written to.
unsafe impl Send for Versions {}

static VERSIONS: Mutex<Versions> = Mutex::new(Versions {
    played: None,
    asked: 0,
});

fn versions() -> MutexGuard<'static, Versions> {
    VERSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// # Safety
/// The version is of this version of the crate. Its strings live as long as the driver, or are null
/// pointers.
pub(crate) unsafe extern "system" fn play(version: *const Version) {
    // SAFETY: the caller's promise.
    versions().played = Some(unsafe { *version });
}

/// `vkEnumerateInstanceVersion`
pub(crate) fn of_loader() -> u32 {
    versions()
        .played
        .map_or(vk::API_VERSION_1_3, |version| version.loader)
}

/// `VkPhysicalDeviceProperties::apiVersion`
pub(crate) fn of_driver() -> u32 {
    versions()
        .played
        .map_or(vk::API_VERSION_1_3, |version| version.driver)
}

/// An instance is made with this version.
pub(crate) fn asked(version: u32) {
    versions().asked = version;
}

/// Whether a device has a function with this name, as far as versions say.
pub(crate) fn has(name: &CStr) -> bool {
    let Versions { played, asked } = &*versions();
    let Some(version) = played else {
        return true;
    };
    let is = |hidden: &*const c_char| {
        // SAFETY: whoever made the version promised that it is a string.
        !hidden.is_null() && unsafe { CStr::from_ptr(*hidden) } == name
    };
    let core = CORE_COMMANDS.iter().find(|command| command.name == name);
    let highest = vk::api_version_minor(version.driver.min(*asked));
    !version.hidden.iter().any(is) && core.is_none_or(|command| command.minor <= highest)
}
