//! Tests that vulkaninfo says the same over Hesper as natively on the same driver, apart from the
//! differences listed here.
//!
//! Each difference has its reason. The tool is the same in all runs (the environment's own); Mesa's
//! Venus is the suite's. Lists of extensions are exact in both directions: an entry that is no
//! difference any more must be removed.
//!
//! virglrenderer's test server (1.3.0, with the same driver and Mesa) shows a guest the same,
//! except for `VK_EXT_external_memory_dma_buf` and `VK_EXT_queue_family_foreign`, which Hesper
//! hides under `--wsi=software`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use hesper_venus_protocol::{EXTENSIONS, table::ExtensionKind};
use serde_json::Value;

use crate::server::{LAVAPIPE, Server, in_environment, succeed, suites};

/// Extensions of the host that a guest does not see. Hesper hides some (see docs/venus.md). For
/// others, Mesa gives descriptors of external objects to applications only in a virtual machine,
/// where they are DRM objects.
const HIDDEN_SOFTWARE: &[&str] = &[
    "VK_EXT_external_memory_dma_buf",
    "VK_EXT_queue_family_foreign",
    "VK_KHR_external_fence_fd",
    "VK_KHR_external_memory_fd",
    "VK_KHR_external_semaphore_fd",
];
const HIDDEN_DMABUF: &[&str] = &["VK_KHR_external_fence_fd", "VK_KHR_external_semaphore_fd"];

/// Extensions that Mesa's Venus provides by itself, whatever the host has.
const ADDED: &[&str] = &[
    "VK_EXT_device_memory_report",
    "VK_EXT_image_drm_format_modifier",
    "VK_EXT_map_memory_placed",
    "VK_EXT_physical_device_drm",
    "VK_KHR_present_id",
    "VK_KHR_present_id2",
    "VK_KHR_present_wait",
    "VK_KHR_present_wait2",
];

/// Extensions for presenting, which is the guest's own: its Mesa decides which it has. Natively,
/// lavapipe's depend on the environment.
const PRESENTING: &[&str] = &[
    "VK_EXT_hdr_metadata",
    "VK_EXT_swapchain_maintenance1",
    "VK_KHR_incremental_present",
    "VK_KHR_swapchain",
    "VK_KHR_swapchain_maintenance1",
    "VK_KHR_swapchain_mutable_format",
];

/// Extensions that the protocol carries and this suite's Venus does not use yet. Hesper offers all
/// of them, and newer Venus drivers use them.
fn unknown_to(suite: &str) -> &'static [&'static str] {
    match suite {
        "trixie" => UNKNOWN_TO_TRIXIE,
        "forky" => &["VK_EXT_ycbcr_image_arrays"],
        _ => &[],
    }
}

const UNKNOWN_TO_TRIXIE: &[&str] = &[
    "VK_ARM_rasterization_order_attachment_access",
    "VK_EXT_attachment_feedback_loop_dynamic_state",
    "VK_EXT_blend_operation_advanced",
    "VK_EXT_depth_bias_control",
    "VK_EXT_depth_range_unrestricted",
    "VK_EXT_global_priority",
    "VK_EXT_global_priority_query",
    "VK_EXT_host_image_copy",
    "VK_EXT_image_sliced_view_of_3d",
    "VK_EXT_legacy_vertex_attributes",
    // This Venus hides it, and has no option yet to show it.
    "VK_EXT_memory_budget",
    "VK_EXT_mesh_shader",
    "VK_EXT_multisampled_render_to_single_sampled",
    "VK_EXT_nested_command_buffer",
    "VK_EXT_pipeline_library_group_handles",
    "VK_EXT_pipeline_protected_access",
    "VK_EXT_pipeline_robustness",
    "VK_EXT_post_depth_coverage",
    "VK_EXT_sample_locations",
    "VK_EXT_shader_atomic_float",
    "VK_EXT_shader_atomic_float2",
    "VK_EXT_shader_image_atomic_int64",
    "VK_EXT_shader_replicated_composites",
    "VK_EXT_shader_subgroup_vote",
    "VK_EXT_ycbcr_image_arrays",
    "VK_GOOGLE_decorate_string",
    "VK_GOOGLE_hlsl_functionality1",
    "VK_GOOGLE_user_type",
    "VK_KHR_acceleration_structure",
    "VK_KHR_compute_shader_derivatives",
    "VK_KHR_cooperative_matrix",
    "VK_KHR_deferred_host_operations",
    "VK_KHR_dynamic_rendering_local_read",
    "VK_KHR_global_priority",
    "VK_KHR_index_type_uint8",
    "VK_KHR_line_rasterization",
    "VK_KHR_load_store_op_none",
    "VK_KHR_maintenance6",
    "VK_KHR_maintenance7",
    "VK_KHR_map_memory2",
    "VK_KHR_ray_query",
    "VK_KHR_ray_tracing_maintenance1",
    "VK_KHR_ray_tracing_pipeline",
    "VK_KHR_ray_tracing_position_fetch",
    "VK_KHR_robustness2",
    "VK_KHR_shader_expect_assume",
    "VK_KHR_shader_float_controls2",
    "VK_KHR_shader_maximal_reconvergence",
    "VK_KHR_shader_quad_control",
    "VK_KHR_shader_relaxed_extended_instruction",
    "VK_KHR_shader_subgroup_rotate",
    "VK_KHR_vertex_attribute_divisor",
    "VK_KHR_workgroup_memory_explicit_layout",
];

/// Values that may differ: how their path begins or ends, in which suites (empty: all), and why.
const VALUES: &[(&str, &str, &str)] = &[
    // The guest's driver reports its own name and version, and ids made of its own and the host's.
    (
        "/properties/VkPhysicalDeviceProperties/deviceName",
        "",
        "names Venus",
    ),
    (
        "/properties/VkPhysicalDeviceProperties/driverVersion",
        "",
        "Venus's version",
    ),
    (
        "/properties/VkPhysicalDeviceProperties/pipelineCacheUUID",
        "",
        "made of both drivers'",
    ),
    (
        "/properties/VkPhysicalDeviceVulkan11Properties/deviceUUID",
        "",
        "made of both drivers'",
    ),
    (
        "/properties/VkPhysicalDeviceVulkan11Properties/driverUUID",
        "",
        "made of both drivers'",
    ),
    (
        "/properties/VkPhysicalDeviceVulkan12Properties/driver",
        "",
        "Venus's id, name and version",
    ),
    (
        "/properties/VkPhysicalDeviceVulkan12Properties/conformanceVersion",
        "",
        "Venus's",
    ),
    (
        "/properties/VkPhysicalDeviceProperties/apiVersion",
        "",
        "its patch is the protocol's, and trixie's Venus ends at 1.3",
    ),
    // Venus is a layered implementation, and reports the driver below it.
    (
        "/properties/VkPhysicalDeviceLayeredApiPropertiesListKHR",
        "",
        "describes the host's driver",
    ),
    // These belong to VK_EXT_physical_device_drm, which Venus adds.
    (
        "/properties/VkPhysicalDeviceDrmPropertiesEXT",
        "",
        "the guest's device nodes",
    ),
    // These belong to VK_KHR_maintenance9, which the protocol lacks.
    (
        "/queueFamiliesProperties[0]/VkQueueFamilyOwnershipTransferPropertiesKHR",
        "",
        "of maintenance9",
    ),
    // Vulkan has no blits of formats that need a Y'CbCr conversion. lavapipe offers them
    // nevertheless, and newer Venus hides them.
    (
        "/formats/VK_FORMAT_R10X6G10X6B10X6A10X6_UNORM_4PACK16/VkFormatProperties",
        "forky sid",
        "Venus masks",
    ),
    // lavapipe cannot bind imported memory sparsely, and all memory that guests map is imported.
    // Hesper's self-test finds wrong contents, so Hesper hides sparse binding.
    (
        "/features/VkPhysicalDeviceFeatures/sparse",
        "",
        "lavapipe with imported memory",
    ),
    (
        "/properties/VkPhysicalDeviceProperties/limits/sparseAddressSpaceSize",
        "",
        "lavapipe with imported memory",
    ),
    (
        "/properties/VkPhysicalDeviceProperties/sparseProperties",
        "",
        "lavapipe with imported memory",
    ),
    (
        "/queueFamiliesProperties[0]/VkQueueFamilyProperties/queueFlags",
        "",
        "lavapipe with imported memory: without VK_QUEUE_SPARSE_BINDING_BIT",
    ),
    // Venus 25.0 supports up to Vulkan 1.3. It has what 1.4 made core as extensions, as far as it
    // knows them.
    (
        "/features/VkPhysicalDeviceVulkan14Features",
        "trixie",
        "1.3",
    ),
    (
        "/properties/VkPhysicalDeviceVulkan14Properties",
        "trixie",
        "1.3",
    ),
    // This belongs to VK_EXT_multisampled_render_to_single_sampled.
    (
        "/VkSubpassResolvePerformanceQueryEXT/optimal",
        "trixie",
        "its extension is missing",
    ),
];

/// Collects the leaves of a JSON tree by their paths. A list of flags is one leaf.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                flatten(&format!("{path}/{name}"), member, into);
            }
        }
        Value::Array(elements) if elements.iter().any(Value::is_object) => {
            for (index, element) in elements.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), element, into);
            }
        }
        leaf => {
            into.insert(path.to_owned(), leaf.to_string());
        }
    }
}

/// What vulkaninfo says about the first device.
struct Info {
    leaves: BTreeMap<String, String>,
    extensions: BTreeSet<String>,
    /// The memory section of its text output, which the JSON lacks.
    memory: Vec<String>,
}

impl Info {
    fn read(mut vulkaninfo: impl FnMut() -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("info.json");
        succeed(vulkaninfo().arg("--json").arg("-o").arg(&file));
        let json: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let mut leaves = BTreeMap::new();
        flatten("", &json["capabilities"]["device"], &mut leaves);
        let extensions = leaves
            .keys()
            .filter_map(|path| path.strip_prefix("/extensions/"));
        // These options print everything, apart from what makes the tool itself crash on lavapipe.
        let text = succeed(vulkaninfo().args([
            "--show-formats",
            "--show-promoted-structs",
            "--show-tool-props",
        ]));
        let memory = text
            .lines()
            .skip_while(|line| !line.starts_with("VkPhysicalDeviceMemoryProperties:"))
            .take_while(|line| !line.starts_with("VkPhysicalDeviceFeatures:"))
            // The used memory changes from one moment to the next.
            .filter(|line| {
                !["budget", "usage "]
                    .iter()
                    .any(|word| line.trim().starts_with(word))
            })
            .map(|line| line.trim_end().to_owned())
            .collect();
        Self {
            extensions: extensions.map(str::to_owned).collect(),
            leaves,
            memory,
        }
    }
}

/// An extension's vendor and its name without separators: what `VkPhysicalDeviceImage2DFeaturesEXT`
/// and `VK_EXT_image_2d` have in common.
fn core_of(extension: &str) -> (String, String) {
    let mut parts = extension.splitn(3, '_').skip(1);
    let vendor = parts.next().unwrap_or_default().to_owned();
    let name = parts.next().unwrap_or_default().replace('_', "");
    (vendor, name)
}

/// Whether a structure of features or properties belongs to one of these extensions.
fn belongs(structure: &str, extensions: &BTreeSet<&str>) -> bool {
    let name = structure
        .trim_start_matches("VkPhysicalDevice")
        .to_lowercase();
    extensions.iter().any(|extension| {
        let (vendor, core) = core_of(extension);
        name.starts_with(&core) && name.ends_with(&vendor.to_lowercase())
    })
}

/// Lists the unexpected differences between the native and the guest's view.
fn differences(suite: &str, hidden: &[&str], native: &Info, guest: &Info) -> Vec<String> {
    let mut problems = Vec::new();
    let mut problem = |text: String| problems.push(text);
    let strings = |set: &'static [&'static str]| set.iter().copied();
    let carried: BTreeSet<&str> = EXTENSIONS
        .iter()
        .filter(|extension| extension.advertised && extension.kind == ExtensionKind::Device)
        .filter_map(|extension| extension.name.to_str().ok())
        .collect();
    let presenting: BTreeSet<&str> = strings(PRESENTING).collect();
    let lacking: BTreeSet<&str> = hidden
        .iter()
        .copied()
        .chain(strings(unknown_to(suite)))
        .collect();
    let gone: BTreeSet<&str> = native
        .extensions
        .difference(&guest.extensions)
        .map(String::as_str)
        .collect();
    let added: BTreeSet<&str> = guest
        .extensions
        .difference(&native.extensions)
        .map(String::as_str)
        .collect();
    for extension in &gone {
        let may_go = presenting.contains(extension) && suite == "trixie";
        if carried.contains(extension) && !lacking.contains(extension) && !may_go {
            problem(format!("{extension} is lost"));
        }
    }
    for extension in lacking
        .iter()
        .filter(|name| guest.extensions.contains(**name))
    {
        problem(format!("{extension} is there, but listed as missing"));
    }
    for extension in added.iter().filter(|name| !ADDED.contains(name)) {
        problem(format!("{extension} comes from nowhere"));
    }
    // Compare members of structures by name, because an extension that became core has them in
    // another structure.
    let members = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let known: BTreeSet<(String, &String)> = native
        .leaves
        .iter()
        .map(|(path, value)| (members(path), value))
        .collect();
    let paths: BTreeSet<&String> = native.leaves.keys().chain(guest.leaves.keys()).collect();
    for path in paths
        .into_iter()
        .filter(|path| !path.starts_with("/extensions/"))
    {
        let (natively, in_guest) = (native.leaves.get(path), guest.leaves.get(path));
        let allowed = VALUES.iter().any(|(part, suites, _)| {
            (path.starts_with(part) || path.ends_with(part))
                && (suites.is_empty() || suites.contains(suite))
        });
        let structure = path.split('/').nth(2).unwrap_or_default();
        let fine = natively == in_guest
            || allowed
            || in_guest.is_none() && belongs(structure, &gone)
            || natively.is_none() && belongs(structure, &added)
            || natively.is_none()
                && in_guest.is_some_and(|value| known.contains(&(members(path), value)));
        if !fine {
            problem(format!(
                "{path}: {natively:?} natively, {in_guest:?} in the guest"
            ));
        }
    }
    // Without sparse binding, memory types are not listed separately for it.
    let memory = |info: &Info| -> Vec<String> {
        let lines = info.memory.iter().cloned();
        lines
            .filter(|line| !line.contains("(non-sparse)"))
            .collect()
    };
    let (natively, in_guest) = (memory(native), memory(guest));
    if natively != in_guest || natively.len() < 10 {
        problem(format!(
            "memory: {natively:#?} natively, {in_guest:#?} in the guest"
        ));
    }
    problems
}

#[test]
fn vulkaninfo_says_the_same_over_hesper_as_natively() {
    let native = Info::read(|| {
        let mut command = in_environment("vulkaninfo");
        command.env(LAVAPIPE.0, LAVAPIPE.1);
        command
    });
    assert!(native.leaves.len() > 1000 && native.extensions.len() > 100);
    for (wsi, hidden) in [
        ("--wsi=software", HIDDEN_SOFTWARE),
        ("--wsi=dmabuf", HIDDEN_DMABUF),
    ] {
        let server = Server::with(&[wsi], &[LAVAPIPE]);
        for suite in suites() {
            let guest = Info::read(|| {
                let mut command = server.with_venus_of(&suite, "vulkaninfo");
                // Venus hides VK_EXT_memory_budget unless it is asked for.
                command.env("VN_DEBUG", "vtest,mem_budget");
                command
            });
            let problems = differences(&suite, hidden, &native, &guest);
            assert!(problems.is_empty(), "{suite} with {wsi}: {problems:#?}");
        }
        server.assert_calm();
    }
}
