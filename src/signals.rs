//! Calls handlers on signals, each kind of signal on a thread of its own.

use std::ffi::c_int;
use std::io;
use std::thread;

use signal_hook::iterator::Signals;

/// Calls `act` with each of `signals` that arrives from now on, on a thread called `name`.
///
/// # Errors
/// The system refused the handler or the thread.
pub(crate) fn watch(
    name: &str,
    signals: &[c_int],
    act: impl Fn(c_int) + Send + 'static,
) -> io::Result<()> {
    let mut signals = Signals::new(signals)?;
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || signals.forever().for_each(act))?;
    Ok(())
}
