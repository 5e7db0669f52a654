//! [`GpuFacts`]: what a renderer must know of a GPU before a guest sees it.

use std::ffi::CStr;
use std::sync::Arc;

use ash::vk;

use super::findings::Findings;
use super::gpu::{Gpu, GpuKind};
use super::library::Host;
use super::portability::Subset;
use super::queues::Queues;
use crate::error::{Error, Result};
use crate::memory::{Declares, Importable, Optimal, Sparse, importable};
use crate::options::GpuSelection;

/// A GPU and what was found out about it at start.
#[derive(Clone, Debug)]
pub(crate) struct GpuFacts {
    /// How a user sees it.
    pub(crate) gpu: Gpu,
    /// Memory types, as bits, that a guest can map.
    pub(crate) importable_types: u32,
    /// Alignment of what is imported, in bytes.
    pub(crate) alignment: u64,
    /// The Vulkan version that guests see.
    pub(crate) version: u32,
    /// Extensions that every device needs for core functions of that version.
    pub(crate) core_extensions: Vec<&'static CStr>,
    /// Whether guests can bind memory sparsely.
    pub(crate) sparse: Sparse,
    /// Where guests' images with optimal tiling may lie.
    pub(crate) optimal: Optimal,
    /// What can be declared for imported memory.
    pub(crate) declares: Declares,
    /// The driver's part of the portability subset. `None` for a driver that has all of Vulkan.
    pub(crate) subset: Option<Subset>,
    /// Its queues, and how many of them all contexts together may have.
    pub(crate) queues: Arc<Queues>,
}

impl GpuFacts {
    /// The GPUs of a selection that can serve guests, each with `queues` for them, and what was
    /// found of them. Each GPU that `known` does not have is tested. Those that fail are logged and
    /// left out.
    pub(crate) fn gather(
        host: &Host,
        selection: &GpuSelection,
        queues: Option<u32>,
        known: &Findings,
    ) -> Result<(Vec<Arc<Self>>, Findings)> {
        let instance = host.probe_instance()?;
        let found = instance.physical_devices()?;
        let mut facts = Vec::new();
        let mut findings = Findings::default();
        for (index, (handle, gpu)) in found.iter().enumerate() {
            if !selection.matches(index, gpu) {
                continue;
            }
            if !gpu.host_memory_import {
                log::warn!(
                    "{gpu} is left out: its driver lacks VK_EXT_external_memory_host; update the driver"
                );
                continue;
            }
            let found = match known.of(gpu) {
                Some(found) => Ok(found.clone()),
                None => importable(instance.raw(), *handle),
            };
            match found {
                Ok(Importable { types: 0, .. }) => {
                    log::warn!("{gpu} is left out: none of its memory can be mapped into guests");
                }
                Ok(found) => {
                    findings.add(gpu, &found);
                    let Importable {
                        types,
                        alignment,
                        core,
                        sparse,
                        optimal,
                        declares,
                        subset,
                        library: _,
                    } = found;
                    let mut gpu = gpu.clone();
                    let version = gpu.show(&core);
                    if let Sparse::Broken(reason) = &sparse {
                        log::info!("{gpu}: guests see no sparse binding: {reason}");
                        gpu.hidden_sparse = Some(reason.clone());
                    }
                    if let Optimal::Elsewhere { reason, .. } = &optimal {
                        log::info!(
                            "{gpu}: guests' images with optimal tiling are kept out of memory that they can map: {reason}"
                        );
                        gpu.separate_images = Some(reason.clone());
                    }
                    if gpu.kind == GpuKind::Cpu {
                        let reason = "it is no real GPU, and so guests' desktops do not use it";
                        gpu.copied_pictures = Some(reason.to_owned());
                    }
                    gpu.mirrored_pictures = lacks_linear_targets(instance.raw(), *handle);
                    if let Some(subset) = &subset {
                        gpu.missing_features = subset.untold();
                    }
                    let raw = instance.raw();
                    // SAFETY: the instance has just listed it.
                    let families =
                        unsafe { raw.get_physical_device_queue_family_properties(*handle) };
                    let families = families.iter().map(|family| family.queue_count);
                    let queues = Queues::new(families.collect(), queues, gpu.driver_id);
                    facts.push(Arc::new(Self {
                        gpu,
                        importable_types: types,
                        alignment,
                        version,
                        core_extensions: core.extensions,
                        sparse,
                        optimal,
                        declares,
                        subset,
                        queues: Arc::new(queues),
                    }));
                }
                Err(error) => log::warn!("{gpu} is left out: {error}"),
            }
        }
        if facts.is_empty() {
            let names: Vec<String> = found.iter().map(|(_, gpu)| gpu.to_string()).collect();
            return Err(Error::NoGpu {
                wanted: selection.to_string(),
                found: if names.is_empty() {
                    "none".into()
                } else {
                    names.join(", ")
                },
            });
        }
        instance.keep();
        Ok((facts, findings))
    }
}

/// Whether the driver draws into no image with linear tiling that shaders can read.
fn lacks_linear_targets(instance: &ash::Instance, gpu: vk::PhysicalDevice) -> bool {
    // The format of almost every desktop.
    let format = vk::Format::B8G8R8A8_UNORM;
    // SAFETY: the instance has just listed it.
    let properties = unsafe { instance.get_physical_device_format_properties(gpu, format) };
    let wanted = vk::FormatFeatureFlags::COLOR_ATTACHMENT | vk::FormatFeatureFlags::SAMPLED_IMAGE;
    !properties.linear_tiling_features.contains(wanted)
}
