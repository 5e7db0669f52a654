//! Where the guest's screens are shown, and with which windows.

use hesper_display::{DisplayOptions, KeyboardOptions, VulkanEntry};
use hesper_venus::host::Vulkan;

use crate::cli::{DisplayMode, ServeOptions, Switch};
use crate::hidden_windows;
use crate::placement;
use crate::platform;
use crate::renderers::UnmetOption;

/// Where the guest's screens are shown: what `--display` comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScreenTarget {
    /// In windows.
    Window {
        /// In so many words.
        is_asked: bool,
    },
    /// In QEMU's console.
    Qemu,
    /// Nowhere.
    Headless {
        /// But in QEMU's console, if QEMU has one for us.
        or_qemu: bool,
    },
}

impl ScreenTarget {
    /// Who starts Hesper with a descriptor, as libvirt does, has a way to show the guest, or wants none.
    pub(crate) fn choose(options: &ServeOptions) -> Self {
        match options.display {
            DisplayMode::Window => Self::Window { is_asked: true },
            DisplayMode::Qemu => Self::Qemu,
            DisplayMode::Headless => Self::Headless { or_qemu: false },
            DisplayMode::Auto if options.socket.fd.is_none() && platform::has_desktop() => {
                Self::Window { is_asked: false }
            }
            DisplayMode::Auto => Self::Headless { or_qemu: true },
        }
    }

    /// What only windows have.
    pub(crate) fn check(self, options: &ServeOptions) -> Result<(), UnmetOption> {
        let Self::Headless { .. } = self else {
            return Ok(());
        };
        if options.record.is_some() {
            return Err(UnmetOption::new(
                "--record",
                "it writes what a window shows, and there is no window here: start from a desktop, or set DISPLAY or WAYLAND_DISPLAY",
            ));
        }
        if !options.input_sockets.is_empty() {
            log::warn!("--input-socket: nobody can type or point, since there is no window");
        }
        Ok(())
    }
}

impl std::fmt::Display for ScreenTarget {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Window { .. } => "shown in a window",
            Self::Qemu => "shown in QEMU's console",
            Self::Headless { or_qemu: true } => {
                "shown in QEMU's console if its device has one, else nowhere (--display=window opens a window)"
            }
            Self::Headless { or_qemu: false } => "shown nowhere (--display=headless)",
        })
    }
}

/// How the windows are to be.
pub(crate) fn display_options(
    options: &ServeOptions,
    target: ScreenTarget,
    vulkan: Option<&Vulkan>,
) -> DisplayOptions {
    let headless = !matches!(target, ScreenTarget::Window { .. });
    DisplayOptions {
        scanouts: options.scanouts as usize,
        size: options.first_mode(),
        explicit_size: options.size.is_some(),
        title: options.name.clone().unwrap_or_else(|| "Hesper".to_owned()),
        window_positions: placement::file(options).filter(|_| !headless),
        headless,
        resize: options.resize.into(),
        scaling: options.scaling.into(),
        full_screen: options.full_screen,
        on_close: options.on_close.into(),
        show_hint: hidden_windows::show_hint(options),
        keyboard: KeyboardOptions {
            grab_mod: options.grab_mod.into(),
            cmd_key: options.cmd_key.into(),
        },
        vsync: options.vsync == Switch::On,
        overlay: options.overlay,
        screenshots: options.screenshots.clone(),
        record: options.record.clone().map(|path| path.0),
        vulkan: vulkan.map(|vulkan| VulkanEntry(vulkan.entry().clone())),
        ..DisplayOptions::default()
    }
}
