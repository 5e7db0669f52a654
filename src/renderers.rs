//! Chooses the renderers that the guest gets.
//!
//! A GPU, a driver or a capability set that an option names is there, or Hesper does not start.
//! Without such an option, the guest gets what works on this host.

use std::path::Path;
use std::sync::Arc;

use hesper_venus::host::{Gpu, Vulkan};
use hesper_venus::memory::page_size;
use hesper_venus::{Driver, GpuSelection, RenderNode, RendererOptions, WsiPolicy};
use hesper_vhost::renderer::Renderer;

use crate::cli::capsets::Capset;
use crate::cli::{BlobAlignment, ServeOptions};
use crate::contexts::trace_memory;
use crate::driver;
use crate::isolation::Isolation;
use crate::rutabaga;
use crate::venus::{self, VenusRenderer};

/// The renderers of a device, and the Vulkan library.
#[derive(Default)]
pub(crate) struct Renderers {
    /// The Vulkan library. The windows use it, too.
    pub(crate) vulkan: Option<Vulkan>,
    /// The Venus renderer, which is also in `renderers`.
    pub(crate) venus: Option<Arc<VenusRenderer>>,
    pub(crate) renderers: Vec<Arc<dyn Renderer>>,
}

/// An option that cannot be met.
#[derive(Debug, thiserror::Error)]
#[error("{asked}: {reason}")]
pub(crate) struct UnmetOption {
    /// The option as it was given.
    asked: String,
    /// Why it cannot be met, with the remedy.
    reason: String,
}

impl UnmetOption {
    /// `asked` is the option as it was given, `reason` says why it cannot be met and names the
    /// remedy.
    pub(crate) fn new(asked: &str, reason: &str) -> Self {
        Self {
            asked: asked.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

impl Renderers {
    /// Makes the renderers that the options ask for or that work here. With `in_window`, opens
    /// Vulkan for the window, too.
    ///
    /// # Errors
    /// An option that asks for something that this host does not have.
    pub(crate) fn make(
        options: &ServeOptions,
        isolation: Isolation,
        in_window: bool,
    ) -> Result<Self, UnmetOption> {
        if options.hostmem.0 == 0 {
            log::info!("GPU: none, the guest gets 2D (--hostmem=0)");
            return Self::without_3d(options, in_window);
        }
        let mut renderers = Self::without_3d(options, in_window || options.wants_venus())?;
        if options.wants_venus() {
            renderers.venus = renderers.make_venus(options, isolation)?;
            let venus = renderers.venus.iter();
            renderers.renderers = venus
                .map(|venus| Arc::clone(venus) as Arc<dyn Renderer>)
                .collect();
        }
        if options.socket.fd.is_some() && !options.wants_venus() {
            log::info!(
                "GPU: no Vulkan for the guest, because --fd is how libvirt starts QEMU's classic device; pass --capsets=venus for the full device (docs/libvirt.md)"
            );
        }
        renderers.add(options, Capset::Virgl, rutabaga::virgl)?;
        renderers.add(options, Capset::CrossDomain, rutabaga::cross_domain)?;
        Ok(renderers)
    }

    /// No renderers; the Vulkan library if `opens` is set and the library is there.
    fn without_3d(options: &ServeOptions, opens: bool) -> Result<Self, UnmetOption> {
        Ok(Self {
            vulkan: if opens { open(options)? } else { None },
            ..Self::default()
        })
    }

    /// Makes the Venus renderer; `None` if it cannot work and no option asks for it.
    fn make_venus(
        &self,
        options: &ServeOptions,
        isolation: Isolation,
    ) -> Result<Option<Arc<VenusRenderer>>, UnmetOption> {
        let Some(vulkan) = &self.vulkan else {
            return Ok(None);
        };
        let renderer_options = RendererOptions {
            trace: trace_memory(),
            ..renderer_options(options, vulkan.driver().clone())?
        };
        match hesper_venus::Renderer::new(renderer_options.clone()) {
            Ok(renderer) => {
                log_gpus(renderer.gpus(), options.wsi);
                let contexts = isolation
                    .contexts(renderer, &renderer_options)
                    .map_err(|reason| UnmetOption::new("--isolate=on", &reason))?;
                Ok(Some(Arc::new(VenusRenderer::new(contexts))))
            }
            Err(error) => {
                report_no_vulkan(options, &error.to_string())?;
                Ok(None)
            }
        }
    }

    /// Adds the renderer of a capability set that rutabaga serves, if an option asks for it.
    fn add(
        &mut self,
        options: &ServeOptions,
        capset: Capset,
        make: fn() -> Result<Arc<dyn Renderer>, rutabaga::Unavailable>,
    ) -> Result<(), UnmetOption> {
        // Off unless an option asks for it.
        let Some(asked) = options.asks_for(capset) else {
            return Ok(());
        };
        let made = make().map_err(|missing| UnmetOption {
            asked,
            reason: missing.to_string(),
        });
        self.renderers.push(made?);
        Ok(())
    }
}

/// The options of a Venus renderer; `None` if the guest is not offered Vulkan.
///
/// # Errors
/// An option that cannot be met.
pub(crate) fn venus_options(
    options: &ServeOptions,
) -> Result<Option<RendererOptions>, UnmetOption> {
    if options.hostmem.0 == 0 || !options.wants_venus() {
        return Ok(None);
    }
    match driver::choose(options.driver.driver.as_deref()) {
        Ok(driver) => renderer_options(options, driver).map(Some),
        // `open` reports it.
        Err(_) => Ok(None),
    }
}

fn renderer_options(
    options: &ServeOptions,
    driver: Driver,
) -> Result<RendererOptions, UnmetOption> {
    Ok(RendererOptions {
        driver,
        gpu: selection(options)?,
        wsi: options.wsi,
        budget: options.budget.budget(),
        guest: options.budget.guest(),
        blob_alignment: blob_alignment(options).into(),
        window: Some(options.hostmem.0),
        save_streams: venus::save_streams(),
        ..RendererOptions::default()
    })
}

/// Opens the Vulkan library. If that fails and no option asks for Vulkan, warns and returns `None`.
fn open(options: &ServeOptions) -> Result<Option<Vulkan>, UnmetOption> {
    let opened = driver::choose(options.driver.driver.as_deref())
        .and_then(|driver| Vulkan::open(&driver).map_err(|error| error.to_string()));
    match opened {
        Ok(vulkan) => Ok(Some(vulkan)),
        Err(reason) => {
            report_no_vulkan(options, &reason)?;
            Ok(None)
        }
    }
}

/// Reports that the guest has no Vulkan: an error if an option asks for it, else a warning.
fn report_no_vulkan(options: &ServeOptions, reason: &str) -> Result<(), UnmetOption> {
    match options.gpu_options().into_iter().next() {
        Some(asked) => Err(UnmetOption {
            asked,
            reason: reason.to_owned(),
        }),
        None => {
            log::warn!("GPU: none, the guest gets 2D: {reason}; `hesper doctor` says more");
            Ok(())
        }
    }
}

/// Which GPUs the guest gets.
fn selection(options: &ServeOptions) -> Result<GpuSelection, UnmetOption> {
    if let Some(path) = &options.render_node {
        return render_node(path)
            .map(GpuSelection::RenderNode)
            .map_err(|reason| UnmetOption {
                asked: format!("--render-node={}", path.display()),
                reason,
            });
    }
    let gpu = options.gpu.clone();
    Ok(gpu.map(GpuSelection::from).unwrap_or_default())
}

/// The device numbers of a device file.
fn render_node(path: &Path) -> Result<RenderNode, String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let remedy = "name a render node such as /dev/dri/renderD128; `hesper gpus` lists them";
    let metadata = std::fs::metadata(path).map_err(|error| format!("{error}; {remedy}"))?;
    if !metadata.file_type().is_char_device() {
        return Err(format!("this is no device; {remedy}"));
    }
    // `rdev` and `Dev` have other widths on some systems.
    let device = metadata.rdev();
    Ok(RenderNode {
        major: rustix::fs::major(device as rustix::fs::Dev),
        minor: rustix::fs::minor(device as rustix::fs::Dev),
    })
}

/// Logs which GPUs guests see and how pictures come to display servers.
pub(crate) fn log_gpus<'gpu>(gpus: impl Iterator<Item = &'gpu Gpu>, wsi: WsiPolicy) {
    for gpu in gpus {
        log::info!(
            "GPU: {gpu}; pictures for display servers are {}",
            policy(wsi, gpu)
        );
    }
}

/// A policy in words, for a GPU that a renderer has shown.
pub(crate) fn policy(policy: WsiPolicy, gpu: &Gpu) -> String {
    let copies = match gpu.mirrored_pictures {
        true => " (the GPU copies each, because its driver draws into no linear image)",
        false => "",
    };
    match (policy, &gpu.copied_pictures) {
        (WsiPolicy::Auto, None) => format!(
            "shared as dma-bufs{copies}, or copied by the guest's CPU while its desktop draws with the CPU (--wsi=auto)"
        ),
        (WsiPolicy::Auto, Some(reason)) => format!(
            "copied by the guest's CPU, because {reason} (--wsi=auto; a guest with Mesa before 25.2 needs --wsi=dmabuf)"
        ),
        (WsiPolicy::Software, _) => "copied by the guest's CPU (--wsi=software)".to_owned(),
        (WsiPolicy::Dmabuf, _) => format!("shared as dma-bufs{copies} (--wsi=dmabuf)"),
    }
}

/// The alignment of blobs that the guest is told: at least the host's page size, because the host
/// can only map whole pages.
pub(crate) fn blob_alignment(options: &ServeOptions) -> u32 {
    // A page is far below 4 GiB.
    let page = page_size() as u32;
    match options.blob_alignment {
        // 4096 is not announced: a Mesa that does not know the feature fails on a kernel that has
        // it.
        Some(BlobAlignment(4096)) => 4096,
        Some(BlobAlignment(alignment)) => alignment.max(page),
        None => page,
    }
}
