//! Checks the Vulkan library, each GPU, and a renderer on it.

use hesper_venus::host::{self, Gpu, GpuKind, Vulkan};
use hesper_venus::{Driver, GpuSelection, Renderer, RendererOptions, WsiPolicy};

use crate::renderers;

use super::{Mark, Remedy, Report, ServedGpu};

/// How to install a loader and drivers.
const INSTALL: Remedy = Remedy {
    debian: "apt-get install libvulkan1 mesa-vulkan-drivers (NVIDIA: nvidia-driver)",
    fedora: "dnf install vulkan-loader mesa-vulkan-drivers (NVIDIA: akmod-nvidia of RPM Fusion)",
    arch: "pacman -S vulkan-icd-loader, and vulkan-radeon, vulkan-intel or nvidia-utils",
    macos: "brew install molten-vk",
};

/// The remedy for a GPU that cannot serve guests.
const OTHER: Remedy = Remedy::everywhere("use another GPU (--gpu), or a newer driver");

impl Report {
    pub(super) fn vulkan(&mut self, driver: &Driver) {
        let vulkan = Vulkan::open(driver);
        let driver = vulkan.as_ref().map_or(driver, Vulkan::driver);
        let gpus = match host::gpus(driver) {
            Ok(gpus) => gpus,
            Err(error) => return self.needs(format!("Vulkan does not load: {error}"), INSTALL),
        };
        if gpus.is_empty() {
            return self.needs("Vulkan loads, but finds no GPU with Vulkan 1.1", INSTALL);
        }
        self.ok(format!("Vulkan loads and finds {} GPU(s)", gpus.len()));
        let before = self.served.len();
        for (index, gpu) in gpus.iter().enumerate() {
            self.gpu(driver, index, gpu);
        }
        if self.served.len() == before {
            return self.needs("no GPU here can serve guests", OTHER);
        }
        if gpus.iter().all(|gpu| gpu.kind == GpuKind::Cpu) {
            self.warning("all rendering is done by the processor: there is only a software driver, which is slow", INSTALL);
        }
    }

    fn gpu(&mut self, driver: &Driver, index: usize, gpu: &Gpu) {
        let name = format!("GPU {index}, {gpu}");
        if !gpu.host_memory_import {
            return self.missing(
                format!("{name}: guests cannot map its memory, because the driver lacks VK_EXT_external_memory_host"),
                OTHER,
            );
        }
        let gpu_only = RendererOptions {
            driver: driver.clone(),
            gpu: GpuSelection::Index(index),
            ..RendererOptions::default()
        };
        let renderer = match Renderer::new(gpu_only) {
            Ok(renderer) => renderer,
            Err(error) => {
                return self.missing(
                    format!("{name}: the renderer does not start: {error}"),
                    OTHER,
                );
            }
        };
        let found = renderer.gpus().zip(renderer.importable());
        self.served.extend(found.map(|(gpu, importable)| ServedGpu {
            index,
            gpu: gpu.clone(),
            importable,
        }));
        self.ok(format!(
            "{name}: rendering works, and the GPU's writes appear in shared memory (self-test)"
        ));
        let mut different = Vec::new();
        for gpu in renderer.gpus() {
            let policy = renderers::policy(WsiPolicy::Auto, gpu);
            self.ok(format!("pictures for the guest's desktop are {policy}"));
            different.extend(host::differences(WsiPolicy::Auto, gpu));
            self.version(gpu);
            self.subset(gpu);
            if let Some(reason) = &gpu.hidden_sparse {
                self.warning(
                    format!("guests see no sparse binding: with imported memory, {reason}"),
                    Remedy::everywhere(
                        "programs that need it do not work; a newer driver may support it",
                    ),
                );
            }
        }
        // Hesper emulates these extensions or hides them from guests: whether the driver has them
        // does not matter.
        let different = different.into_iter();
        let different: Vec<String> = different.flat_map(|one| one.names).collect();
        let missing = gpu.missing_extensions.iter();
        let missing: Vec<String> = missing
            .filter(|name| !different.contains(name))
            .cloned()
            .collect();
        if !missing.is_empty() {
            self.add(
                Mark::Ok,
                format!(
                    "{} extensions that guests could use are not in this driver (--verbose lists them)",
                    missing.len()
                ),
                None,
            );
            self.list(missing);
        }
    }

    /// Reports how a driver that lacks parts of Vulkan differs for guests.
    fn subset(&mut self, gpu: &Gpu) {
        if let Some(reason) = &gpu.separate_images {
            self.ok(format!(
                "guests' images with optimal tiling are kept out of memory that they can map: {reason}"
            ));
        }
        if !gpu.missing_features.is_empty() {
            self.warning(
                format!(
                    "this driver lacks features that guests expect, and the protocol cannot report that: {}",
                    gpu.missing_features.join(", ")
                ),
                Remedy::everywhere("programs that use them draw wrongly; a newer driver may have them"),
            );
        }
    }

    /// Reports which Vulkan version guests see.
    fn version(&mut self, gpu: &Gpu) {
        let Some((major, minor, patch)) = gpu.guest_version else {
            return;
        };
        let seen = format!("guests see Vulkan {major}.{minor}.{patch}");
        match &gpu.missing_command {
            None => self.ok(seen),
            Some(command) => {
                let (major, minor, _) = gpu.api_version;
                self.warning(
                    format!("{seen}: the driver reports {major}.{minor}, but lacks {command}"),
                    Remedy::everywhere("update the driver"),
                );
            }
        }
    }
}
