//! Where the guest's screens are shown, and the windows' options.

use hesper_display::{DisplayOptions, KeyboardOptions, VulkanEntry};
use hesper_venus::host::Vulkan;

use crate::cli::{DisplayMode, ServeOptions, Switch};
use crate::hidden_windows;
use crate::placement;
use crate::platform;
use crate::renderers::UnmetOption;

/// Where the guest's screens are shown: the result of `--display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScreenTarget {
    /// In windows.
    Window {
        /// By an option, not by default.
        is_asked: bool,
    },
    /// In QEMU's console.
    Qemu,
    /// Without windows.
    Headless {
        /// In QEMU's console, if QEMU sends its socket.
        or_qemu: bool,
    },
}

impl ScreenTarget {
    /// Chooses by `--display`. With `auto`, a Hesper that is started with `--fd`, as libvirt does,
    /// opens no window.
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

    /// Checks the options that need windows.
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
            log::warn!("--input-socket has no effect without a window");
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

/// The display's options for this command line.
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
        screenshots: placement::screenshots(options),
        record: options.record.clone().map(|path| path.0),
        vulkan: vulkan.map(|vulkan| VulkanEntry(vulkan.entry().clone())),
        ..DisplayOptions::default()
    }
}
