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
//! | [`message`] | what main process and worker tell each other |
//! | [`channel`] | a socket for messages with descriptors |
//! | [`options`] | what a worker is told at its start |
//! | [`spawner`] | the process that starts workers, and the main process' handle to it |
//! | [`worker`] | the worker's process |
//! | [`host`] | the main process' side: contexts that live in workers |
//!
//! The hard thing is trust: a guest may own a worker. The main process checks whatever a worker
//! says, waits for it nowhere without a limit, and ends it when it breaks the rules.

mod channel;
mod message;
