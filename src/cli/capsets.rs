//! The capability sets that a guest can be offered: what `--capsets` names.

use clap::{Args, ValueEnum};

/// A capability set: what a kind of guest driver speaks (virtio-v1.4 §5.7.6.8).
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

/// Which capability sets the guest is offered.
#[derive(Debug, Args)]
pub(crate) struct CapsetOptions {
    /// Capability sets that the guest is offered: venus (Vulkan), virgl (OpenGL), cross-domain (the
    /// guest's Wayland windows on this host's compositor). Default: venus, if it works here.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        help_heading = super::serve::heading::GPU,
        hide_possible_values = true
    )]
    capsets: Option<Vec<Capset>>,
}

impl CapsetOptions {
    /// Whether the guest is offered this one, as far as it works.
    pub(crate) fn has(&self, capset: Capset) -> bool {
        self.is_asked(capset) || self.capsets.is_none() && capset == Capset::Venus
    }

    /// Whether `--capsets` names it.
    pub(crate) fn is_asked(&self, capset: Capset) -> bool {
        self.capsets
            .as_ref()
            .is_some_and(|asked| asked.contains(&capset))
    }
}
