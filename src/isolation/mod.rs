//! Contexts in processes of their own (`--isolate`): a program of the guest that crashes the
//! driver, or keeps it busy, ends alone.
//!
//! ```text
//! Hesper ── spawner          starts and ends the workers; only it may execute programs
//!    ├───── worker 1         one context: driver, rings, executor
//!    └───── worker 2         (the next one, driver loaded, waits for a context)
//! ```
//!
//! A worker is the same program, executed again, never forked. It makes its memory and its rings
//! itself and polls the rings, so that a command goes from the guest to the driver without Hesper's
//! main process. Blobs cross once, as a descriptor.
//!
//! | file | what it is |
//! |---|---|
//! | [`choice`] | `--isolate`: whether all this is used |
//! | [`message`] | what main process and worker tell each other |
//! | [`encoding`] | the bytes of these messages |
//! | [`channel`] | a socket for messages with descriptors |
//! | [`options`] | what a worker is told at its start |
//! | [`spawner`] | the process that starts workers, and the main process' handle to it |
//! | [`worker`] | the worker's process |
//! | [`host`] | the main process' side: contexts that live in workers |
//!
//! The hard thing is trust: a guest may own a worker. The main process checks whatever a worker
//! says, waits for it nowhere without a limit, and ends it when it breaks the rules.

mod channel;
mod choice;
mod encoding;
mod host;
mod message;
mod options;
mod spawner;
mod worker;

use std::io;
use std::process::ExitCode;

pub(crate) use choice::Isolation;

use crate::cli::{SpawnerOptions, WorkerArguments};
use crate::inherited::inherited;
use crate::platform;

/// Exit status of subcommands that someone else than Hesper called.
const MISUSED: u8 = 2;

/// `hesper spawner`.
pub(crate) fn spawn_workers(options: SpawnerOptions) -> ExitCode {
    let socket = inherited(libc::STDIN_FILENO).and_then(|socket| {
        rustix::net::getsockname(&socket)?;
        Ok(socket)
    });
    match socket {
        Ok(socket) => spawner::process::run(socket, options.options),
        Err(error) => misused("spawner", &format!("standard input: {error}")),
    }
}

/// `hesper worker`.
pub(crate) fn work(arguments: &WorkerArguments) -> ExitCode {
    platform::end_with_parent();
    platform::name_process(c"hesper-worker");
    let sockets: io::Result<_> = inherited(arguments.socket_fd)
        .and_then(|socket| Ok((socket, inherited(arguments.budget_fd)?)));
    match (sockets, serde_json::from_str(&arguments.options)) {
        (Ok((socket, budget)), Ok(options)) => worker::run(socket, budget, options),
        (Err(error), _) => misused("worker", &error.to_string()),
        (_, Err(error)) => misused("worker", &error.to_string()),
    }
}

fn misused(subcommand: &str, reason: &str) -> ExitCode {
    eprintln!("hesper: only Hesper itself starts `hesper {subcommand}`: {reason}");
    ExitCode::from(MISUSED)
}
