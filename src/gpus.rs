//! `hesper gpus`: lists the host's GPUs by the numbers, UUIDs and names that `--gpu` takes.

use std::fmt::Write;
use std::path::Path;

use hesper_venus::host::{self, Gpu, GpuMemory};
use hesper_venus::{Driver, RenderNode};
use serde_json::{Value, json};

use crate::driver;

/// The error for a host without GPUs.
const NONE: &str = "no GPU with Vulkan 1.1; install a driver (`hesper doctor` says which)";

/// One line for each GPU: its number, UUID and description.
///
/// # Errors
/// Why Vulkan does not load, or that this host has no GPU.
pub(crate) fn list(driver: &Driver) -> Result<String, String> {
    let mut text = String::new();
    for (index, gpu) in gpus(driver)?.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{index}  {}  {gpu}", uuid(&gpu.uuid));
        if let Some(node) = gpu.render_node {
            let _ = write!(text, "  {}", path(node));
        }
        text.push('\n');
    }
    Ok(text)
}

/// The same list as a JSON array, with each GPU's memory.
///
/// # Errors
/// The same as of [`list`].
pub(crate) fn json(driver: &Driver) -> Result<String, String> {
    let gpus = gpus(driver)?;
    let survey = host::survey(driver).map_err(|error| error.to_string())?;
    let memories = survey
        .memory
        .iter()
        .map(Some)
        .chain(std::iter::repeat(None));
    let all: Vec<Value> = gpus
        .iter()
        .zip(memories)
        .enumerate()
        .map(|(index, (gpu, memory))| object(index, gpu, memory))
        .collect();
    Ok(format!("{:#}\n", Value::Array(all)))
}

fn gpus(driver: &Driver) -> Result<Vec<Gpu>, String> {
    let gpus = host::gpus(driver).map_err(|error| error.to_string())?;
    match gpus.is_empty() {
        true => Err(NONE.to_owned()),
        false => Ok(gpus),
    }
}

fn object(index: usize, gpu: &Gpu, memory: Option<&GpuMemory>) -> Value {
    let (major, minor, patch) = gpu.api_version;
    let heaps = memory.map(|memory| {
        let heap = |heap: &host::MemoryHeap| json!({"bytes": heap.size, "flags": heap.flags});
        memory.heaps.iter().map(heap).collect::<Vec<_>>()
    });
    json!({
        "number": index,
        "uuid": uuid(&gpu.uuid),
        "name": gpu.name,
        "kind": gpu.kind.to_string(),
        "vulkan": format!("{major}.{minor}.{patch}"),
        "driver": gpu.driver,
        "render_node": gpu.render_node.map(path),
        "heaps": heaps,
        "serves_guests": gpu.host_memory_import,
    })
}

/// Whether this host has DRM render nodes and each of them belongs to a GPU that Vulkan finds
/// without options.
pub(crate) fn have_all_render_nodes() -> bool {
    let nodes = nodes(Path::new("/dev/dri"));
    if nodes.is_empty() {
        return false;
    }
    let gpus = driver::choose(None).map(|driver| host::gpus(&driver).unwrap_or_default());
    let gpus = gpus.unwrap_or_default();
    let known: Vec<u32> = gpus
        .iter()
        .filter_map(|gpu| gpu.render_node.map(|node| node.minor))
        .collect();
    nodes.iter().all(|minor| known.contains(minor))
}

/// The minor numbers of the render nodes in a folder.
fn nodes(folder: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_prefix("renderD")?
                .parse()
                .ok()
        })
        .collect()
}

/// The device file of a render node, as Linux names it.
fn path(node: RenderNode) -> String {
    format!("/dev/dri/renderD{}", node.minor)
}

/// The UUID in the form that `--gpu` takes.
pub(crate) fn uuid(bytes: &[u8; 16]) -> String {
    let number = u128::from_be_bytes(*bytes);
    let part =
        |from: u32, digits: u32| (number >> (128 - from - digits * 4)) & ((1 << (digits * 4)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(0, 8),
        part(32, 4),
        part(48, 4),
        part(64, 4),
        part(80, 12)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::GpuChoice;

    #[test]
    fn render_nodes_are_found_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["card0", "renderD128", "renderD", "by-path", "renderD129"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let mut found = nodes(folder.path());
        found.sort_unstable();
        assert_eq!(found, [128, 129]);
        assert_eq!(nodes(Path::new("/nowhere")), [0; 0]);
    }

    #[test]
    fn a_listed_uuid_chooses_its_gpu() {
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xff];
        assert_eq!(uuid(&bytes), "00010203-0405-0607-0809-0a0b0c0d0eff");
        assert_eq!(uuid(&bytes).parse(), Ok(GpuChoice::Uuid(bytes)));
    }
}
