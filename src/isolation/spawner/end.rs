//! How a worker's process ended.

use std::fmt;

use rustix::process::Signal;

/// How a worker's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::isolation) enum End {
    /// It ended with this status.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// It never started: why.
    NotStarted(String),
    /// Nobody knows, because the spawner is gone.
    SpawnerGone,
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(0) => out.write_str("ended by itself"),
            Self::Exited(status) => write!(out, "ended with status {status}"),
            Self::Signalled(signal) if is_crash(*signal) => {
                write!(out, "crashed with {}", name(*signal))
            }
            Self::Signalled(signal) => write!(out, "was killed ({})", name(*signal)),
            Self::NotStarted(reason) => write!(out, "could not start: {reason}"),
            Self::SpawnerGone => {
                out.write_str("is unknown, because Hesper's process that starts them has ended")
            }
        }
    }
}

/// Whether a process causes this signal itself, by a mistake.
fn is_crash(signal: i32) -> bool {
    [
        Signal::SEGV,
        Signal::BUS,
        Signal::ILL,
        Signal::FPE,
        Signal::ABORT,
        Signal::SYS,
        Signal::TRAP,
    ]
    .iter()
    .any(|known| known.as_raw() == signal)
}

/// A signal's name.
fn name(signal: i32) -> String {
    match signal_hook::low_level::signal_name(signal) {
        Some(name) => name.to_owned(),
        None => format!("signal {signal}"),
    }
}
