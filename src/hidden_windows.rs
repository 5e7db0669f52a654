//! How a person shows hidden windows again.

use signal_hook::consts::SIGUSR2;

use crate::cli::ServeOptions;
use crate::signals;

/// The shell command that shows hidden windows again.
pub(crate) fn show_hint(options: &ServeOptions) -> String {
    let path = options.control.as_ref().map(std::path::absolute);
    match path {
        Some(Ok(path)) => format!("hesper ctl {} show", path.display()),
        _ => format!("kill -USR2 {}", std::process::id()),
    }
}

/// Calls `show` at each SIGUSR2 from now on, so that windows can be shown without a control socket.
pub(crate) fn show_on_signal(show: impl Fn() -> Result<(), String> + Send + 'static) {
    let shown = move |_| {
        if let Err(error) = show() {
            log::warn!("SIGUSR2 shows no window: {error}");
        }
    };
    // Without the signal handler rendering still works.
    if let Err(error) = signals::watch("show", &[SIGUSR2], shown) {
        log::warn!("SIGUSR2 will not show hidden windows: {error}");
    }
}
