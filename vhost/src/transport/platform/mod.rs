//! Reading vhost-user messages, which needs the operating system's help.
//!
//! A platform has one function, `serve_connection`: it serves a session on a connected socket until the VM
//! hangs up.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(super) use linux::serve_connection;

#[cfg(not(target_os = "linux"))]
mod unsupported;
#[cfg(not(target_os = "linux"))]
pub(super) use unsupported::serve_connection;
