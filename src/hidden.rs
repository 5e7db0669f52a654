//! Hidden windows, and how a person sees them again.

use std::thread;

use signal_hook::consts::SIGUSR2;
use signal_hook::iterator::Signals;

use crate::cli::ServeOptions;

/// The command that shows hidden windows again.
pub(crate) fn come_back(options: &ServeOptions) -> String {
    let path = options.control.as_ref().map(std::path::absolute);
    match path {
        Some(Ok(path)) => format!("hesper ctl {} show", path.display()),
        _ => format!("kill -USR2 {}", std::process::id()),
    }
}

/// From now on SIGUSR2 calls `show`: without a control socket windows come back, too.
pub(crate) fn show_on_signal(show: impl Fn() -> Result<(), String> + Send + 'static) {
    let watch = |mut signals: Signals| {
        let wait = move || {
            for _ in &mut signals {
                if let Err(error) = show() {
                    log::warn!("SIGUSR2 shows no window: {error}");
                }
            }
        };
        thread::Builder::new()
            .name("show".to_owned())
            .spawn(wait)
            .map(|_| ())
    };
    // Rendering goes on without it.
    if let Err(error) = Signals::new([SIGUSR2]).and_then(watch) {
        log::warn!("SIGUSR2 will not show hidden windows: {error}");
    }
}
