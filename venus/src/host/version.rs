//! Which Vulkan version a guest sees of a GPU.
//!
//! Version 1.4 is the highest that the protocol carries. Every instance on the host is made with
//! it: a library of version 1.1 or newer must accept any, and a driver gives a device no function
//! above the instance's version. So an old loader takes nothing from a newer driver.
//!
//! The driver's version is checked. For each core command of a device there must be a function,
//! under its own name or under one that it was promoted from ([`CORE_COMMANDS`]). If one is
//! missing, guests see the version before it.

use std::ffi::CStr;

use ash::vk;
use hesper_venus_protocol::CORE_COMMANDS;
use hesper_venus_protocol::table::CoreCommand;
use serde::{Deserialize, Serialize};

use super::findings::CoreNames;

/// The highest version that the protocol carries.
pub(crate) const HIGHEST: u32 = vk::make_api_version(0, 1, 4, 0);
/// The lowest version that the renderer works with.
pub(crate) const LOWEST: u32 = vk::API_VERSION_1_1;

/// A version limited to [`HIGHEST`]. Patch numbers stay.
pub(crate) fn capped(version: u32) -> u32 {
    let is_newer = version >= vk::make_api_version(0, 1, 5, 0);
    if is_newer { HIGHEST } else { version }
}

/// What a driver has of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "CoreNames", try_from = "CoreNames")]
pub(crate) struct CoreFunctions {
    /// Extensions that must be enabled, since the driver has core commands under their older names
    /// only.
    pub(crate) extensions: Vec<&'static CStr>,
    /// The first command that it has under no name, and the minor number of its version.
    pub(crate) missing: Option<(&'static CStr, u32)>,
}

impl CoreFunctions {
    /// Looks for the core commands up to `version`. `has` says whether a device has the function of
    /// this name. With an extension, it says whether a device with that extension has it, which is
    /// false if the driver lacks the extension.
    pub(crate) fn of(version: u32, mut has: impl FnMut(&CStr, Option<&CStr>) -> bool) -> Self {
        let minor = vk::api_version_minor(capped(version));
        let mut found = Self::default();
        // They are in the order of versions: the first that is missing has the lowest one.
        for command in CORE_COMMANDS
            .iter()
            .filter(|command| command.minor <= minor)
        {
            if has(command.name, None) {
                continue;
            }
            match older(command, &mut has) {
                Some(extension) if found.extensions.contains(&extension) => {}
                Some(extension) => found.extensions.push(extension),
                None => {
                    found.missing = Some((command.name, command.minor));
                    break;
                }
            }
        }
        found
    }

    /// The version that a guest sees of a device with `version`.
    pub(crate) fn shown(&self, version: u32) -> u32 {
        match self.missing {
            Some((_, minor)) => vk::make_api_version(0, 1, minor.saturating_sub(1), 0),
            None => capped(version),
        }
    }
}

/// The extension whose name for the command the driver has.
fn older(
    command: &CoreCommand,
    has: &mut impl FnMut(&CStr, Option<&CStr>) -> bool,
) -> Option<&'static CStr> {
    let names = command.older.iter();
    let mut there = names.filter(|(name, extension)| has(name, Some(extension)));
    there.next().map(|(_, extension)| *extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_driver_is_believed_up_to_what_the_protocol_carries() {
        let found = CoreFunctions::of(vk::make_api_version(0, 1, 7, 3), |_, _| true);
        assert_eq!(found, CoreFunctions::default());
        assert_eq!(found.shown(vk::make_api_version(0, 1, 7, 3)), HIGHEST);
        let patch = vk::make_api_version(0, 1, 3, 250);
        assert_eq!(found.shown(patch), patch);
    }

    #[test]
    fn an_older_name_does_with_its_extension() {
        let found = CoreFunctions::of(vk::API_VERSION_1_3, |name, extension| {
            name != c"vkCmdBeginRendering" && extension.is_none()
                || extension == Some(c"VK_KHR_dynamic_rendering")
        });
        assert_eq!(found.extensions, [c"VK_KHR_dynamic_rendering"]);
        assert_eq!(found.shown(vk::API_VERSION_1_3), vk::API_VERSION_1_3);
    }

    #[test]
    fn what_is_missing_under_all_names_lowers_the_version() {
        let found = CoreFunctions::of(HIGHEST, |name, _| {
            !name.to_bytes().starts_with(b"vkCmdPushDescriptorSet")
        });
        assert_eq!(found.missing.map(|(_, minor)| minor), Some(4));
        assert_eq!(found.shown(HIGHEST), vk::API_VERSION_1_3);
        // Commands above the driver's version are not looked for.
        let found = CoreFunctions::of(vk::API_VERSION_1_2, |name, _| {
            name != c"vkCmdBeginRendering"
        });
        assert_eq!(found, CoreFunctions::default());
    }
}
