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
pub(crate) struct CapsetOptions {
    /// CapsetOptions the guest these ways to draw: venus (Vulkan), virgl (OpenGL) and cross-domain (windows of its programs on this host's
    /// Wayland compositor). Default: venus, if it works here.
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
    pub(crate) fn has(&self, capset: Capset) -> bool {
        self.is_asked(capset) || self.capsets.is_none() && capset == Capset::Venus
    }

    /// Whether it was named.
    pub(crate) fn is_asked(&self, capset: Capset) -> bool {
        self.capsets
            .as_ref()
            .is_some_and(|asked| asked.contains(&capset))
    }
}
