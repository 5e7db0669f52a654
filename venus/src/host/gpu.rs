//! GPUs as a user sees them: name, kind, driver, UUID.

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char};
use std::fmt;

use ash::vk;
use hesper_venus_protocol::EXTENSIONS;
use hesper_venus_protocol::table::ExtensionKind;

use super::library::{Host, ProbeInstance};
use super::version::CoreFunctions;
use crate::error::Result;
use crate::options::{Driver, GpuSelection, RenderNode};

/// A GPU of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// `deviceName`.
    pub name: String,
    /// What kind of device.
    pub kind: GpuKind,
    /// Vulkan version of the driver: major, minor, patch.
    pub api_version: (u32, u32, u32),
    /// Vulkan version that guests see: the driver's, at most 1.4, or less if the driver lacks core
    /// commands. Known after a renderer was made with the GPU.
    pub guest_version: Option<(u32, u32, u32)>,
    /// The core command that the driver lacks, which is why guests see a lower version.
    pub missing_command: Option<String>,
    /// `driverName` and `driverInfo` of the driver.
    pub driver: String,
    /// `driverID`; 0 if the driver does not tell it.
    pub(crate) driver_id: vk::DriverId,
    /// `deviceUUID`.
    pub uuid: [u8; 16],
    /// Its DRM render node, if the driver tells it (`VK_EXT_physical_device_drm`).
    pub render_node: Option<RenderNode>,
    /// Whether the driver has `VK_EXT_external_memory_host`, so that guests can map device memory.
    pub host_memory_import: bool,
    /// Device extensions that guests could use and this driver does not have.
    pub missing_extensions: Vec<String>,
    /// Why guests do not see the driver's sparse binding, if the renderer's self-test found it
    /// wrong. Known once a [`crate::Renderer`] has started.
    pub hidden_sparse: Option<String>,
    /// Why guests' images with optimal tiling are kept out of memory that guests can map. Known
    /// once a renderer has started.
    pub separate_images: Option<String>,
    /// Why guests' programs copy pictures to their display servers under
    /// [`crate::WsiPolicy::Auto`], rather than share them. Known once a renderer has started.
    pub copied_pictures: Option<String>,
    /// Whether the GPU copies each picture that a guest's program shares, because its driver draws
    /// into no linear image. Known once a renderer has started.
    pub mirrored_pictures: bool,
    /// Parts of Vulkan that the driver lacks (`VK_KHR_portability_subset`) and that guests expect,
    /// since the protocol cannot tell them. Known once a renderer has started.
    pub missing_features: Vec<String>,
}

/// `VkPhysicalDeviceType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuKind {
    /// Part of the processor.
    Integrated,
    /// A card.
    Discrete,
    /// Itself virtual.
    Virtual,
    /// Software on the processor.
    Cpu,
    /// Something else.
    Other,
}

impl fmt::Display for GpuKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Integrated => "integrated",
            Self::Discrete => "discrete",
            Self::Virtual => "virtual",
            Self::Cpu => "software",
            Self::Other => "other",
        })
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.api_version;
        let Self {
            name, kind, driver, ..
        } = self;
        write!(f, "{name} ({kind}, Vulkan {major}.{minor}.{patch}")?;
        if !driver.is_empty() {
            write!(f, ", {driver}")?;
        }
        f.write_str(")")
    }
}

/// Major, minor and patch number.
pub(super) fn parts(version: u32) -> (u32, u32, u32) {
    (
        vk::api_version_major(version),
        vk::api_version_minor(version),
        vk::api_version_patch(version),
    )
}

impl Gpu {
    /// Whether a submission may wait in the driver until earlier ones are done.
    pub(crate) fn bounds_submissions(&self) -> bool {
        self.driver_id == vk::DriverId::MOLTENVK
    }

    /// Keeps what guests see of the version, and returns it.
    pub(crate) fn show(&mut self, core: &CoreFunctions) -> u32 {
        let (major, minor, patch) = self.api_version;
        let shown = core.shown(vk::make_api_version(0, major, minor, patch));
        self.guest_version = Some(parts(shown));
        if let Some((command, of)) = core.missing {
            let command = command.to_string_lossy();
            log::warn!(
                "guests see Vulkan 1.{} of {self}: its driver lacks {command}, which is part of Vulkan 1.{of}; update the driver",
                vk::api_version_minor(shown)
            );
            self.missing_command = Some(command.into_owned());
        }
        shown
    }
}

impl GpuSelection {
    /// Whether guests see the GPU at `index` of the host's list.
    #[must_use]
    pub fn matches(&self, index: usize, gpu: &Gpu) -> bool {
        match self {
            Self::All => true,
            Self::Index(wanted) => *wanted == index,
            Self::Name(part) => gpu.name.to_lowercase().contains(&part.to_lowercase()),
            Self::Uuid(uuid) => *uuid == gpu.uuid,
            Self::RenderNode(node) => gpu.render_node == Some(*node),
        }
    }
}

impl fmt::Display for GpuSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("any GPU"),
            Self::Index(index) => write!(f, "GPU number {index}"),
            Self::Name(part) => write!(f, "a name with \"{part}\""),
            Self::Uuid(uuid) => {
                f.write_str("UUID ")?;
                uuid.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::RenderNode(node) => write!(f, "the DRM render node {node}"),
        }
    }
}

/// The host's GPUs with Vulkan 1.1 or newer, in the driver's order.
///
/// # Errors
/// [`crate::Error::Load`] without a Vulkan library, [`crate::Error::TooOld`],
/// [`crate::Error::Vulkan`].
pub fn gpus(driver: &Driver) -> Result<Vec<Gpu>> {
    let host = Host::load(driver)?;
    let instance = host.probe_instance()?;
    Ok(instance
        .physical_devices()?
        .into_iter()
        .map(|(_, gpu)| gpu)
        .collect())
}

impl ProbeInstance<'_> {
    /// Every physical device with Vulkan 1.1 or newer.
    pub(crate) fn physical_devices(&self) -> Result<Vec<(vk::PhysicalDevice, Gpu)>> {
        // SAFETY: the instance is alive.
        let devices = unsafe { self.raw().enumerate_physical_devices() }.map_err(|result| {
            crate::Error::Vulkan {
                call: "vkEnumeratePhysicalDevices",
                result,
            }
        })?;
        let described = devices
            .into_iter()
            .map(|device| (device, self.describe(device)));
        Ok(described
            .filter(|(_, gpu)| gpu.api_version >= (1, 1, 0))
            .collect())
    }

    fn describe(&self, device: vk::PhysicalDevice) -> Gpu {
        let extensions = self.device_extensions(device);
        let has = |name: &CStr| extensions.contains(name);
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut id = vk::PhysicalDeviceIDProperties::default();
        let mut drm = vk::PhysicalDeviceDrmPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut id);
        if has(ash::ext::physical_device_drm::NAME) {
            properties = properties.push_next(&mut drm);
        }
        if has(ash::khr::driver_properties::NAME) {
            properties = properties.push_next(&mut driver);
        }
        // SAFETY: the device belongs to the instance, and the chain holds structs that the device
        // knows.
        unsafe {
            self.raw()
                .get_physical_device_properties2(device, &mut properties)
        };
        let base = properties.properties;
        let version = base.api_version;
        Gpu {
            name: text(&base.device_name),
            kind: match base.device_type {
                vk::PhysicalDeviceType::INTEGRATED_GPU => GpuKind::Integrated,
                vk::PhysicalDeviceType::DISCRETE_GPU => GpuKind::Discrete,
                vk::PhysicalDeviceType::VIRTUAL_GPU => GpuKind::Virtual,
                vk::PhysicalDeviceType::CPU => GpuKind::Cpu,
                _ => GpuKind::Other,
            },
            api_version: parts(version),
            guest_version: None,
            missing_command: None,
            driver: format!(
                "{} {}",
                text(&driver.driver_name),
                text(&driver.driver_info)
            )
            .trim()
            .to_owned(),
            driver_id: driver.driver_id,
            uuid: id.device_uuid,
            render_node: render_node(&drm),
            host_memory_import: has(ash::ext::external_memory_host::NAME),
            missing_extensions: EXTENSIONS
                .iter()
                .filter(|known| known.advertised && known.kind == ExtensionKind::Device)
                .filter(|known| !has(known.name))
                .map(|known| known.name.to_string_lossy().into_owned())
                .collect(),
            hidden_sparse: None,
            separate_images: None,
            copied_pictures: None,
            mirrored_pictures: false,
            missing_features: Vec::new(),
        }
    }

    fn device_extensions(&self, device: vk::PhysicalDevice) -> HashSet<CString> {
        // SAFETY: the device belongs to the instance.
        let listed = unsafe { self.raw().enumerate_device_extension_properties(device) };
        // A driver that cannot list its extensions has none that could be used. A name without an
        // end is none.
        let listed = listed.unwrap_or_default();
        let names = listed
            .iter()
            .filter_map(|extension| extension.extension_name_as_c_str().ok());
        names.map(CStr::to_owned).collect()
    }
}

/// The render node that a driver tells.
fn render_node(drm: &vk::PhysicalDeviceDrmPropertiesEXT<'_>) -> Option<RenderNode> {
    let number = |number: i64| u32::try_from(number).ok();
    let node = number(drm.render_major).zip(number(drm.render_minor))?;
    (drm.has_render != vk::FALSE).then_some(RenderNode {
        major: node.0,
        minor: node.1,
    })
}

/// A fixed-size name from the driver, up to its NUL.
fn text(name: &[c_char]) -> String {
    let bytes: Vec<u8> = name
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| (*c).to_ne_bytes()[0])
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::host) fn gpu(name: &str) -> Gpu {
        Gpu {
            name: name.into(),
            kind: GpuKind::Discrete,
            api_version: (1, 3, 0),
            guest_version: None,
            missing_command: None,
            driver: "test".into(),
            driver_id: vk::DriverId::default(),
            uuid: [7; 16],
            render_node: Some(RenderNode {
                major: 226,
                minor: 129,
            }),
            host_memory_import: true,
            missing_extensions: Vec::new(),
            hidden_sparse: None,
            separate_images: None,
            copied_pictures: None,
            mirrored_pictures: false,
            missing_features: Vec::new(),
        }
    }

    #[test]
    fn a_selection_matches_by_place_name_uuid_or_render_node() {
        let card = gpu("Radeon RX");
        assert!(GpuSelection::All.matches(3, &card));
        assert!(GpuSelection::Index(3).matches(3, &card));
        assert!(!GpuSelection::Index(2).matches(3, &card));
        assert!(GpuSelection::Name("radeon".into()).matches(0, &card));
        assert!(!GpuSelection::Name("geforce".into()).matches(0, &card));
        assert!(GpuSelection::Uuid([7; 16]).matches(0, &card));
        assert!(!GpuSelection::Uuid([8; 16]).matches(0, &card));
        let node = |minor| GpuSelection::RenderNode(RenderNode { major: 226, minor });
        assert!(node(129).matches(0, &card));
        assert!(!node(128).matches(0, &card));
    }

    #[test]
    fn a_render_node_is_told_only_by_a_driver_that_has_one() {
        let told = |has_render, render_major, render_minor| {
            render_node(&vk::PhysicalDeviceDrmPropertiesEXT {
                has_render,
                render_major,
                render_minor,
                ..Default::default()
            })
        };
        let node = told(vk::TRUE, 226, 128).map(|node| node.to_string());
        assert_eq!(node.as_deref(), Some("226:128"));
        assert_eq!(told(vk::FALSE, 226, 128), None);
        assert_eq!(told(vk::TRUE, 226, -1), None);
    }

    #[test]
    fn a_name_ends_at_its_nul() {
        let mut name = [0; 256];
        name[0] = b'a' as c_char;
        name[1] = b'b' as c_char;
        name[3] = b'x' as c_char;
        assert_eq!(text(&name), "ab");
    }
}
