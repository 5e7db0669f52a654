//! The capability sets that a guest can be offered: what `--capsets` names.

use clap::{Args, ValueEnum};

/// A way for the guest's drivers to speak with the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Capset {
    /// Vulkan, by Hesper's own renderer.
    Venus,
    /// OpenGL, by virglrenderer through rutabaga_gfx (capability sets 1 and 2).
    #[value(name = "virgl", alias = "virgl2")]
    Virgl,
    /// Wayland windows on the host's compositor, through rutabaga_gfx.
    CrossDomain,
}

/// What of it is wanted.
#[derive(Debug, Args)]
pub(crate) struct Offer {
    /// What the guest is offered, as far as it works here. cross-domain lets programs in the guest open windows on this
    /// host's Wayland compositor.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "venus"
    )]
    capsets: Vec<Capset>,
}

impl Offer {
    pub(crate) fn has(&self, capset: Capset) -> bool {
        self.capsets.contains(&capset)
    }
}
