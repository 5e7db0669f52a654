//! The main process' side: contexts that live in workers.
//!
//! [`IsolatedContexts`] makes them. A call of the device on a context becomes a message; it never
//! waits, except for guest memory that must be given back. One thread for each worker hears what
//! the worker says, and reports it to the device.
//!
//! | file | what it is |
//! |---|---|
//! | [`contexts`] | the maker of contexts, with a spare worker |
//! | [`context`] | a context, as the device has it |
//! | [`worker`], [`state`] | a worker, as this process has it, and where it is in its life |
//! | [`start`], [`serve`], [`death`] | starts a worker, hears what it says, ends what was its |
//! | [`outgoing`], [`incoming`] | messages to a worker, messages and questions from it |
//! | [`fences`], [`blobs`], [`rings`] | what a worker was asked for, and its rings |
//! | [`untrusted`] | memory that a worker has sent |
//! | [`books`] | budgets: what all may take, and what each worker has of it |
//! | [`census`], [`traces`], [`logs`] | counters, traces and log lines of all workers |
//! | [`house`] | what all workers have in common |
//! | [`wake`], [`patience`] | wakes a worker's thread; how long the device waits for workers |
//!
//! The hard thing is that a worker may be a guest's. Whatever it says is checked, and the first
//! wrong word ends it. And it may end at any point: then every fence retires, every blob is
//! answered, and every ring says so, exactly once.

mod blobs;
mod books;
mod census;
mod context;
mod contexts;
mod death;
mod fences;
mod house;
mod incoming;
mod logs;
mod outgoing;
mod patience;
mod rings;
mod serve;
mod start;
mod state;
#[cfg(test)]
mod tests;
mod traces;
mod untrusted;
mod wake;
mod worker;

pub(crate) use contexts::IsolatedContexts;
