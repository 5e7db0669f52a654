//! Which extensions a guest sees, and which of those it enables the host is asked for.

use std::ffi::{CStr, CString};

use hesper_venus_protocol::table::ExtensionKind;
use hesper_venus_protocol::{EXTENSIONS, vk};

use super::Policy;
use crate::object::instance::property;

/// What shares pictures with display servers. Provided under [`Policy::DmaBuf`], hidden under [`Policy::Software`].
const SHARING: &[&CStr] = &[
    c"VK_EXT_external_memory_dma_buf",
    c"VK_EXT_image_drm_format_modifier",
    c"VK_EXT_queue_family_foreign",
];

/// What a guest never sees.
const HIDDEN: &[&CStr] = &[
    // Presenting needs no sync files of fences.
    c"VK_KHR_external_fence_fd",
    // Descriptors would have to be written on the host's side, which no handler does.
    c"VK_EXT_descriptor_heap",
];

/// What a guest sees whether the host has it or not, because this crate provides it.
///
/// `VK_KHR_external_memory_fd` must be listed or guest drivers do not start; they never use it.
const PROVIDED: &[&CStr] = &[
    c"VK_KHR_external_memory_fd",
    c"VK_KHR_external_semaphore_fd",
];

/// What the renderer itself needs of the host.
const NEEDED: &[&CStr] = &[
    c"VK_EXT_external_memory_host",
    // A driver that lists it demands that it is enabled.
    c"VK_KHR_portability_subset",
];

/// Whether this crate provides the extension, so that the host is not asked for it.
fn is_provided(name: &CStr, policy: Policy) -> bool {
    PROVIDED.contains(&name) || policy == Policy::DmaBuf && SHARING.contains(&name)
}

/// Whether the guest does not see the extension even if the host has it.
fn is_hidden(name: &CStr, policy: Policy) -> bool {
    HIDDEN.contains(&name) || policy == Policy::Software && SHARING.contains(&name)
}

/// The extensions that a guest sees on a host with `host`.
pub(crate) fn listed(
    host: &[vk::ExtensionProperties],
    policy: Policy,
) -> Vec<vk::ExtensionProperties> {
    let carried = EXTENSIONS
        .iter()
        .filter(|e| e.advertised && e.kind == ExtensionKind::Device);
    let seen = carried.filter_map(|extension| {
        let on_host = host
            .iter()
            .find(|property| name(property) == Some(extension.name));
        if is_provided(extension.name, policy) {
            return Some(property(extension.name, extension.spec_version));
        }
        let on_host = on_host.filter(|_| !is_hidden(extension.name, policy))?;
        Some(property(
            extension.name,
            extension.spec_version.min(on_host.spec_version),
        ))
    });
    seen.collect()
}

/// What to ask the host for when a guest enables `wanted`; `None` when that holds something it never saw.
pub(crate) fn enabled<'a>(
    wanted: impl Iterator<Item = &'a CStr>,
    host: &[vk::ExtensionProperties],
    policy: Policy,
) -> Option<Vec<CString>> {
    let seen = listed(host, policy);
    let is_on_host = |wanted: &CStr| host.iter().any(|property| name(property) == Some(wanted));
    let mut names: Vec<CString> = Vec::new();
    for wanted in wanted {
        if !seen.iter().any(|property| name(property) == Some(wanted)) {
            return None;
        }
        let is_ours = is_provided(wanted, policy);
        if !is_ours && !names.iter().any(|known| known.as_c_str() == wanted) {
            names.push(wanted.to_owned());
        }
    }
    for needed in NEEDED.iter().filter(|needed| is_on_host(needed)) {
        names.push((*needed).to_owned());
    }
    Some(names)
}

/// The name in a `VkExtensionProperties`.
pub(crate) fn name(property: &vk::ExtensionProperties) -> Option<&CStr> {
    CStr::from_bytes_until_nul(&property.extension_name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(names: &[&CStr]) -> Vec<vk::ExtensionProperties> {
        names.iter().map(|name| property(name, 100)).collect()
    }

    fn names(properties: &[vk::ExtensionProperties]) -> Vec<&CStr> {
        properties.iter().filter_map(name).collect()
    }

    #[test]
    fn software_hides_what_shares_and_provides_what_guests_demand() {
        let host = host(&[
            c"VK_EXT_external_memory_dma_buf",
            c"VK_EXT_robustness2",
            c"VK_KHR_swapchain",
            c"VK_EXT_external_memory_host",
        ]);
        let seen = listed(&host, Policy::Software);
        let mut seen = names(&seen);
        seen.sort();
        assert_eq!(
            seen,
            [
                c"VK_EXT_robustness2",
                c"VK_KHR_external_memory_fd",
                c"VK_KHR_external_semaphore_fd",
            ]
        );
    }

    #[test]
    fn dma_buf_provides_what_shares_and_spares_the_host() {
        let host = host(&[
            c"VK_EXT_external_memory_host",
            c"VK_EXT_image_drm_format_modifier",
            c"VK_KHR_external_fence_fd",
        ]);
        let seen = listed(&host, Policy::DmaBuf);
        let mut seen = names(&seen);
        seen.sort();
        assert_eq!(
            seen,
            [
                c"VK_EXT_external_memory_dma_buf",
                c"VK_EXT_image_drm_format_modifier",
                c"VK_EXT_queue_family_foreign",
                c"VK_KHR_external_memory_fd",
                c"VK_KHR_external_semaphore_fd",
            ]
        );
        let asked = enabled(seen.into_iter(), &host, Policy::DmaBuf).unwrap();
        assert_eq!(asked, [c"VK_EXT_external_memory_host".to_owned()]);
    }

    #[test]
    fn the_host_is_asked_for_what_it_has_and_what_the_renderer_needs() {
        let host = host(&[c"VK_EXT_robustness2", c"VK_EXT_external_memory_host"]);
        let wanted = [
            c"VK_KHR_external_memory_fd",
            c"VK_EXT_robustness2",
            c"VK_EXT_robustness2",
        ];
        let asked = enabled(wanted.into_iter(), &host, Policy::Software).unwrap();
        assert_eq!(
            asked,
            [
                c"VK_EXT_robustness2".into(),
                c"VK_EXT_external_memory_host".to_owned()
            ]
        );
        let unseen = [c"VK_KHR_swapchain"];
        assert!(enabled(unseen.into_iter(), &host, Policy::Software).is_none());
    }
}
