//! `hesper doctor`: what works on this host, what does not, and what to do about it.
//!
//! Every check is one line, `ok`, `note` or `FAIL`; a failure is followed by its remedy. The checks do what a guest's
//! first commands make the renderer do, so that a host which passes serves.

use std::fmt::Write;

use hesper_venus::host::{self, Gpu, Importable, Vulkan};
use hesper_venus::{Driver, GpuSelection, Renderer, RendererOptions, WsiPolicy};

use crate::rutabaga;

/// What was found.
pub(crate) struct Report {
    /// The lines.
    pub(crate) text: String,
    /// Whether a guest can have Vulkan on this host.
    pub(crate) healthy: bool,
    /// The GPUs that serve guests, by number, and what of their memory guests can map.
    pub(crate) importable: Vec<(usize, Importable)>,
}

/// Checks this host, with the Vulkan of `driver`.
pub(crate) fn examine(driver: &Driver) -> Report {
    let mut report = Report {
        text: String::new(),
        healthy: false,
        importable: Vec::new(),
    };
    let vulkan = Vulkan::open(driver);
    let driver = vulkan.as_ref().map_or(driver, Vulkan::driver);
    match host::gpus(driver) {
        Ok(gpus) if gpus.is_empty() => report.failure(
            "Vulkan loads, but finds no GPU with Vulkan 1.1",
            "install a driver (Debian: mesa-vulkan-drivers; it has a software one, lavapipe, too)",
        ),
        Ok(gpus) => {
            report.line("ok  ", &format!("Vulkan loads and finds {} GPU(s)", gpus.len()));
            for (index, gpu) in gpus.iter().enumerate() {
                report.gpu(driver, index, gpu);
            }
        }
        Err(error) => report.failure(
            &format!("Vulkan does not load: {error}"),
            "install the Vulkan loader and a driver (Debian: libvulkan1 mesa-vulkan-drivers; macOS: MoltenVK)",
        ),
    }
    match rutabaga::virgl() {
        Ok(_) => report.line("ok  ", "virglrenderer starts (--capsets=venus,virgl)"),
        Err(missing) => report.line("note", &format!("no virgl (--capsets): {missing}")),
    }
    match rutabaga::cross_domain() {
        Ok(_) => report.line(
            "ok  ",
            "the Wayland compositor answers (--capsets=venus,cross-domain)",
        ),
        Err(missing) => report.line("note", &format!("no cross-domain (--capsets): {missing}")),
    }
    report.line(
        "note",
        "QEMU 11.1 ends if a VM that was paused is reset while 3D programs from before the pause still run: end them first (docs/qemu.md)",
    );
    report
}

impl Report {
    fn gpu(&mut self, driver: &Driver, index: usize, gpu: &Gpu) {
        self.line("    ", &format!("GPU {index}: {gpu}"));
        if !gpu.host_memory_import {
            return self.failure(
                "VK_EXT_external_memory_host is missing: guests cannot map this GPU's memory",
                "use another GPU (--gpu), or a newer driver",
            );
        }
        self.line("ok  ", "VK_EXT_external_memory_host is there");
        let gpu_only = RendererOptions {
            driver: driver.clone(),
            gpu: GpuSelection::Index(index),
            ..RendererOptions::default()
        };
        match Renderer::new(gpu_only) {
            Ok(renderer) => {
                self.healthy = true;
                let found = renderer.importable().map(|found| (index, found));
                self.importable.extend(found);
                renderer.gpus().for_each(|gpu| self.version(gpu));
                self.line(
                    "ok  ",
                    "the GPU's writes show in a second mapping of shared memory (self-test)",
                );
                renderer.gpus().for_each(|gpu| self.subset(gpu));
                for reason in renderer.gpus().filter_map(|gpu| gpu.hidden_sparse.as_ref()) {
                    self.line(
                        "note",
                        &format!("guests see no sparse binding: with imported memory, {reason}"),
                    );
                }
            }
            Err(error) => self.failure(
                &format!("the renderer does not start: {error}"),
                "use another GPU (--gpu), or a newer driver",
            ),
        }
        // Those are not the driver's business: they are emulated, or no guest sees them.
        let different = host::differences(WsiPolicy::Auto).into_iter();
        let different: Vec<String> = different.flat_map(|one| one.names).collect();
        let missing = gpu.missing_extensions.iter();
        let missing: Vec<&str> = missing
            .filter(|name| !different.contains(name))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            let names = missing.join(" ");
            self.line(
                "note",
                &format!("guests will miss what this driver does not have: {names}"),
            );
        }
    }

    /// What a driver that is not a whole Vulkan makes different.
    fn subset(&mut self, gpu: &Gpu) {
        if let Some(reason) = &gpu.separate_images {
            let kept =
                "guests' images with optimal tiling are kept out of memory that they can map";
            self.line("note", &format!("{kept}: {reason}"));
        }
        if !gpu.missing_features.is_empty() {
            let names = gpu.missing_features.join(", ");
            self.line(
                "note",
                &format!(
                    "guests take for granted what this driver lacks and cannot tell them: {names}"
                ),
            );
        }
    }

    /// Which Vulkan version guests see.
    fn version(&mut self, gpu: &Gpu) {
        let Some((major, minor, patch)) = gpu.guest_version else {
            return;
        };
        let seen = format!("guests see Vulkan {major}.{minor}.{patch}");
        match &gpu.missing_command {
            None => self.line("ok  ", &seen),
            Some(command) => {
                let (major, minor, _) = gpu.api_version;
                let why =
                    format!("the driver says {major}.{minor}, but lacks {command}: update it");
                self.line("note", &format!("{seen}: {why}"));
            }
        }
    }

    fn failure(&mut self, what: &str, remedy: &str) {
        self.line("FAIL", what);
        self.line("    ", &format!("remedy: {remedy}"));
    }

    fn line(&mut self, mark: &str, what: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{mark}  {what}");
    }
}
