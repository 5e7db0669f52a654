//! The messages of the VMM: each is received, understood and answered.
//!
//! [`serve`] is the loop. It needs only a unix stream socket, `recvmsg` and `send`, so that one
//! loop serves Linux and macOS. The crates `vhost` and `vhost-user-backend` are not used here.
//! Neither compiles for macOS, the first hides the descriptors of the two channels, and the
//! second's daemon stops a queue without waiting for it. The `vhost` crate's front end checks this
//! one in this crate's tests.
//!
//! | file | what it knows |
//! |---|---|
//! | `receive` | whole messages with their descriptors |
//! | `requests` | what each request carries, what it asks of the connection, how it is answered |

mod receive;
mod requests;
#[cfg(test)]
mod tests;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use hesper_system::guest_memory::Owner;

use super::Error;
use super::connection::Connection;
use super::model::Model;
use receive::{Message, ReceiveError};
use requests::{Requests, ServeError};

/// How long a VMM may be silent between its first message and `SET_OWNER`, which begins a session.
/// VMMs send these messages one after the other. A client that stays silent would keep all others
/// out.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Serves a device on a connected socket until the VM hangs up.
///
/// `owner` is the VMM at the other end, which shares its guest's memory.
///
/// The device is made when the first message is there. A client that only checks whether somebody
/// listens (as [`super::Server::bind`] does) costs no device and no window.
///
/// # Errors
/// [`Error::Protocol`] for a VMM that breaks the protocol, and errors of setting up a connection.
pub(super) fn serve(
    stream: &UnixStream,
    owner: &Arc<Owner>,
    model: &mut dyn FnMut() -> Arc<dyn Model>,
) -> Result<(), Error> {
    let Some(mut message) = receive(stream, None)? else {
        return Ok(());
    };
    let mut requests = Requests::new(Connection::new(model(), Some(Arc::clone(owner)))?, stream);
    loop {
        match requests.serve(message) {
            Ok(()) => {}
            Err(ServeError::Gone) => return Ok(()),
            Err(error @ ServeError::Request { .. }) => {
                return Err(Error::Protocol(error.to_string()));
            }
        }
        let patience = (!requests.has_owner()).then_some(HANDSHAKE);
        match receive(stream, patience)? {
            Some(next) => message = next,
            None => return Ok(()),
        }
    }
}

/// The next message, or `None` once the VMM has gone.
fn receive(stream: &UnixStream, patience: Option<Duration>) -> Result<Option<Message>, Error> {
    match Message::receive(stream, patience) {
        Ok(message) => Ok(Some(message)),
        Err(ReceiveError::Closed) => Ok(None),
        Err(error) => Err(Error::Protocol(error.to_string())),
    }
}
