//! Platforms without a vhost-user server.
//!
//! What is missing, on macOS above all: the `vhost` crate, which parses the messages, does not compile
//! there (`vmm_sys_util::eventfd`, `SO_DOMAIN`), and neither does `vhost-user-backend`. Everything else of the
//! transport is portable: kicks and calls may be pipes, nothing needs epoll. A port calls the methods of
//! `Connection` from a message loop of its own, as `linux` does.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::super::Error;
use super::super::connection::Connection;
use super::super::model::Model;

/// Says that there is no server here.
pub(in super::super) fn serve_connection(
    stream: UnixStream,
    model: Arc<dyn Model>,
) -> Result<(), Error> {
    drop(stream);
    drop(Connection::new(model)?);
    Err(Error::Unsupported)
}
