//! Linux: messages are parsed by the `vhost` crate's [`BackendReqHandler`].
//!
//! Not by `vhost-user-backend`: its daemon serves listeners and paths only, no connected descriptor, its
//! queue threads cannot end without leaking a descriptor per connection, and it stops a queue without
//! waiting for it.

mod peek;
mod requests;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use vhost::vhost_user::{BackendReqHandler, Error as VhostError};

use super::super::Error;
use super::super::connection::Connection;
use super::super::model::Model;
use peek::peek_request;
use requests::Requests;

/// Serves a device on a connected socket until the VM hangs up.
pub(in super::super) fn serve_connection(
    stream: UnixStream,
    model: Arc<dyn Model>,
) -> Result<(), Error> {
    let watched = stream
        .try_clone()
        .map_err(Error::system("cannot duplicate the connection"))?;
    // The mutex is the crate's way to make a handler mutable. Only this thread ever locks it.
    let requests = Arc::new(Mutex::new(Requests::new(Connection::new(model)?)));
    let mut messages = BackendReqHandler::from_stream(stream, requests.clone());
    loop {
        match peek_request(&watched) {
            Ok(peeked) => {
                requests
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .expect_channel(peeked);
            }
            Err(error) => return ended(VhostError::SocketError(error)),
        }
        if let Err(error) = messages.handle_request() {
            return ended(error);
        }
    }
}

/// Tells a VM that went away from one that broke the protocol.
fn ended(error: VhostError) -> Result<(), Error> {
    match error {
        VhostError::Disconnected | VhostError::SocketBroken(_) => Ok(()),
        VhostError::SocketError(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
            Ok(())
        }
        error => Err(Error::Protocol(error.to_string())),
    }
}
