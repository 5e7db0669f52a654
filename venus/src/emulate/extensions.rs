//! Which extensions a guest sees, and which of those that it enables are enabled on the host.
//!
//! [`Kind`] says what happens with an extension that a guest enables. Anything else gets
//! `VK_ERROR_EXTENSION_NOT_PRESENT`.

use std::ffi::{CStr, CString};

use hesper_venus_protocol::table::ExtensionKind;
use hesper_venus_protocol::{EXTENSIONS, vk};

use super::Policy;

/// Extensions that share pictures with display servers. Provided under [`Policy::DmaBuf`], hidden
/// under [`Policy::Software`].
const SHARING: &[&CStr] = &[
    c"VK_EXT_external_memory_dma_buf",
    c"VK_EXT_image_drm_format_modifier",
    c"VK_EXT_queue_family_foreign",
    // Compositors want it beside the others. A program that presents copies needs none.
    c"VK_KHR_external_fence_fd",
];

/// Extensions that a guest never sees.
const HIDDEN: &[&CStr] = &[
    // Descriptors would have to be written on the host's side, which no handler does.
    c"VK_EXT_descriptor_heap",
];

/// Extensions that a guest sees even if the host lacks them, because this crate provides them.
///
/// Guest drivers do not start without `VK_KHR_external_memory_fd`; they never use it.
const PROVIDED: &[&CStr] = &[
    c"VK_KHR_external_memory_fd",
    c"VK_KHR_external_semaphore_fd",
];

/// Extensions that the guest's driver implements itself, lists without asking, and still passes on
/// when a program enables them.
///
/// Found by trying every extension that Mesa 25.0, 26.1 and 26.2 list
/// (`hesper-test-client extensions`). Mesa does not pass on those for presenting when a program
/// enables `VK_KHR_swapchain`, too. The list also has extensions that these versions do not have
/// yet. They are of the same kind: they are about swapchains, host pointers or file descriptors,
/// which exist on the guest's side only.
const OF_GUEST: &[&CStr] = &[
    c"VK_ANDROID_external_memory_android_hardware_buffer",
    c"VK_ANDROID_native_buffer",
    c"VK_EXT_device_memory_report",
    c"VK_EXT_display_control",
    c"VK_EXT_hdr_metadata",
    c"VK_EXT_map_memory_placed",
    c"VK_EXT_pci_bus_info",
    c"VK_EXT_physical_device_drm",
    c"VK_EXT_present_mode_fifo_latest_ready",
    c"VK_EXT_present_timing",
    c"VK_EXT_swapchain_maintenance1",
    c"VK_EXT_tooling_info",
    c"VK_GOOGLE_display_timing",
    c"VK_KHR_incremental_present",
    c"VK_KHR_map_memory2",
    c"VK_KHR_present_id",
    c"VK_KHR_present_id2",
    c"VK_KHR_present_mode_fifo_latest_ready",
    c"VK_KHR_present_wait",
    c"VK_KHR_present_wait2",
    c"VK_KHR_shared_presentable_image",
    c"VK_KHR_swapchain",
    c"VK_KHR_swapchain_maintenance1",
    c"VK_KHR_swapchain_mutable_format",
];

/// Extensions that the guest's driver implements itself, but that others need on the host:
/// `VK_KHR_acceleration_structure` needs deferred operations.
const OF_BOTH: &[&CStr] = &[c"VK_KHR_deferred_host_operations"];

/// Instance extensions that the guest's driver implements itself. Mesa does not pass them on so
/// far.
const OF_GUEST_INSTANCE: &[&CStr] = &[
    c"VK_EXT_acquire_drm_display",
    c"VK_EXT_acquire_xlib_display",
    c"VK_EXT_debug_report",
    c"VK_EXT_debug_utils",
    c"VK_EXT_direct_mode_display",
    c"VK_EXT_display_surface_counter",
    c"VK_EXT_headless_surface",
    c"VK_EXT_surface_maintenance1",
    c"VK_EXT_swapchain_colorspace",
    c"VK_KHR_display",
    c"VK_KHR_get_display_properties2",
    c"VK_KHR_get_surface_capabilities2",
    c"VK_KHR_portability_enumeration",
    c"VK_KHR_surface",
    c"VK_KHR_surface_maintenance1",
    c"VK_KHR_surface_protected_capabilities",
    c"VK_KHR_wayland_surface",
    c"VK_KHR_xcb_surface",
    c"VK_KHR_xlib_surface",
];

/// Extensions that the renderer itself needs on the host.
const NEEDED: &[&CStr] = &[
    c"VK_EXT_external_memory_host",
    // A driver that lists it demands that it is enabled.
    c"VK_KHR_portability_subset",
];

/// What to do when a guest enables an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The host has it and the guest sees it: it is enabled on the host.
    OfHost,
    /// This crate or the guest's driver implements it: it is not enabled on the host.
    Dropped,
    /// The guest did not see it.
    Unknown,
}

impl Kind {
    fn of(
        name: &CStr,
        seen: &[vk::ExtensionProperties],
        host: &[vk::ExtensionProperties],
        policy: Policy,
    ) -> Self {
        if is_provided(name, policy) || OF_GUEST.contains(&name) {
            return Self::Dropped;
        }
        if OF_BOTH.contains(&name) {
            return match has(host, name) {
                true => Self::OfHost,
                false => Self::Dropped,
            };
        }
        match has(seen, name) {
            true => Self::OfHost,
            false => Self::Unknown,
        }
    }
}

/// Whether `extension` is one of `properties`.
pub(crate) fn has(properties: &[vk::ExtensionProperties], extension: &CStr) -> bool {
    properties
        .iter()
        .any(|property| name(property) == Some(extension))
}

/// The extensions that guests see differently than the host has them, each list with the reason as
/// text for users.
pub(crate) fn different(policy: Policy) -> [(&'static [&'static CStr], &'static str); 3] {
    let sharing = match policy {
        Policy::Software => {
            "hidden: the guest copies pictures to its display server by CPU (--wsi=dmabuf emulates them)"
        }
        Policy::DmaBuf => "emulated on shared memory, whatever the driver has (--wsi=dmabuf)",
    };
    [
        (SHARING, sharing),
        (
            PROVIDED,
            "emulated, whatever the driver has: guests do not start without them",
        ),
        (
            HIDDEN,
            "hidden, whatever the driver has: nothing carries them out for guests",
        ),
    ]
}

/// Whether this crate provides the extension, so that it is not enabled on the host.
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

/// The extensions to enable on the host when a guest enables `wanted`.
///
/// # Errors
/// The first that the guest does not see and that its driver does not implement itself.
pub(crate) fn enabled<'a>(
    wanted: impl Iterator<Item = &'a CStr>,
    host: &[vk::ExtensionProperties],
    policy: Policy,
) -> Result<Vec<CString>, &'a CStr> {
    let seen = listed(host, policy);
    let mut names: Vec<CString> = Vec::new();
    for wanted in wanted {
        match Kind::of(wanted, &seen, host, policy) {
            Kind::Unknown => return Err(wanted),
            Kind::OfHost if !names.iter().any(|known| known.as_c_str() == wanted) => {
                names.push(wanted.to_owned());
            }
            Kind::OfHost | Kind::Dropped => {}
        }
    }
    for needed in NEEDED.iter().filter(|needed| has(host, needed)) {
        names.push((*needed).to_owned());
    }
    Ok(names)
}

/// Whether an instance may enable the extension. It is never enabled on the host: instance
/// extensions are implemented by the guest's driver (surfaces, debugging), are part of Vulkan 1.1,
/// or belong to the protocol.
pub(crate) fn is_of_instance(name: &CStr) -> bool {
    let mut carried = EXTENSIONS
        .iter()
        .filter(|extension| extension.kind != ExtensionKind::Device);
    carried.any(|extension| extension.name == name) || OF_GUEST_INSTANCE.contains(&name)
}

/// The name in a `VkExtensionProperties`.
pub(crate) fn name(property: &vk::ExtensionProperties) -> Option<&CStr> {
    CStr::from_bytes_until_nul(&property.extension_name).ok()
}

/// A `VkExtensionProperties`.
pub(crate) fn property(name: &CStr, spec_version: u32) -> vk::ExtensionProperties {
    let mut property = vk::ExtensionProperties {
        spec_version,
        ..Default::default()
    };
    for (to, from) in property.extension_name.iter_mut().zip(name.to_bytes()) {
        *to = *from;
    }
    property
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
                c"VK_KHR_external_fence_fd",
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
    }

    #[test]
    fn what_the_guests_driver_does_itself_is_dropped_and_what_nobody_has_is_named() {
        let host = host(&[c"VK_EXT_external_memory_host"]);
        let wanted = [
            c"VK_KHR_swapchain",
            c"VK_KHR_present_id",
            c"VK_KHR_deferred_host_operations",
        ];
        let asked = enabled(wanted.into_iter(), &host, Policy::Software).unwrap();
        assert_eq!(asked, [c"VK_EXT_external_memory_host".to_owned()]);
        for unseen in [
            c"VK_EXT_robustness2",
            c"VK_EXT_queue_family_foreign",
            c"VK_HESPER_no",
        ] {
            let refused = enabled(
                [c"VK_KHR_swapchain", unseen].into_iter(),
                &host,
                Policy::Software,
            );
            assert_eq!(refused, Err(unseen));
        }
    }

    #[test]
    fn deferred_operations_are_asked_of_a_host_that_has_them() {
        let host = host(&[
            c"VK_KHR_acceleration_structure",
            c"VK_KHR_deferred_host_operations",
        ]);
        let seen = listed(&host, Policy::Software);
        assert!(
            !has(&seen, c"VK_KHR_deferred_host_operations"),
            "the guest's driver lists it"
        );
        let wanted = [
            c"VK_KHR_deferred_host_operations",
            c"VK_KHR_acceleration_structure",
        ];
        let asked = enabled(wanted.into_iter(), &host, Policy::Software).unwrap();
        assert_eq!(asked, wanted.map(ToOwned::to_owned));
    }
}
