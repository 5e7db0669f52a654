//! The renderer's counters on SIGUSR1: one JSON object on one line of standard error.

use std::sync::Arc;
use std::thread;

use hesper_venus::Renderer;
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;

/// From now on SIGUSR1 prints the counters of `renderer`.
pub(crate) fn dump_on_signal(renderer: Arc<Renderer>) {
    let dump = |mut signals: Signals| {
        let wait = move || {
            for _ in &mut signals {
                eprintln!("{}", renderer.counters().to_json());
            }
        };
        thread::Builder::new()
            .name("counters".to_owned())
            .spawn(wait)
            .map(|_| ())
    };
    // Watching is a convenience: rendering goes on without it.
    if let Err(error) = Signals::new([SIGUSR1]).and_then(dump) {
        log::warn!("SIGUSR1 will not print the counters: {error}");
    }
}
