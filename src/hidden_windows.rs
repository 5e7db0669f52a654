//! Hidden windows, and how a person sees them again.

use signal_hook::consts::SIGUSR2;

use crate::cli::ServeOptions;
use crate::signals;

/// The command that shows hidden windows again.
pub(crate) fn show_hint(options: &ServeOptions) -> String {
    let path = options.control.as_ref().map(std::path::absolute);
    match path {
        Some(Ok(path)) => format!("hesper ctl {} show", path.display()),
        _ => format!("kill -USR2 {}", std::process::id()),
    }
}

/// From now on SIGUSR2 calls `show`: without a control socket windows come back, too.
pub(crate) fn show_on_signal(show: impl Fn() -> Result<(), String> + Send + 'static) {
    let shown = move |_| {
        if let Err(error) = show() {
            log::warn!("SIGUSR2 shows no window: {error}");
        }
    };
    // Rendering goes on without it.
    if let Err(error) = signals::watch("show", &[SIGUSR2], shown) {
        log::warn!("SIGUSR2 will not show hidden windows: {error}");
    }
}
