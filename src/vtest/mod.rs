//! The vtest front end: serves Mesa's Venus driver on this machine, or in a container, over a unix
//! socket and without a VM.
//!
//! ```text
//! hesper vtest --socket-path /run/user/1000/vtest.sock
//! VN_DEBUG=vtest VTEST_SOCKET_NAME=/run/user/1000/vtest.sock \
//!     VK_DRIVER_FILES=…/virtio_icd.json vulkaninfo
//! ```
//!
//! Every connection is one client, with one Venus context and one thread. A client that makes an
//! error is disconnected, with one line in the log; others are not affected. The protocol is Mesa's
//! and virglrenderer's vtest, versions 3 and 4, as far as Venus uses it. Venus does not use version
//! 4's additions (drm-sync objects, resource export): a client that sends them is disconnected.
//!
//! | file | what it does |
//! |---|---|
//! | [`wire`] | commands: numbers, layouts, allowed sizes |
//! | [`connection`] | the socket: buffered reading, replies, descriptors |
//! | [`client`] | performs each command |
//! | [`sync`] | synchronisation objects, fences and waits of a client |
//! | [`platform`] | descriptors that become readable |
//!
//! The difficulty: the protocol has no error replies, and a client waits for each reply. If a
//! client can handle the failure (memory that cannot be mapped), it gets a reply that makes it fail
//! there. Otherwise it is disconnected.

mod client;
mod connection;
mod platform;
mod sync;
#[cfg(test)]
mod tests;
mod wire;

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hesper_system::budget::Pool;
use hesper_vhost::transport::{self, Access, listen};
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use client::Client;

use crate::contexts::Contexts;

/// The largest number of clients. Each needs several threads and descriptors.
const MAX_CLIENTS: usize = 256;

/// Bytes of commands that may wait for the renderer, of all clients together. One client gets at
/// most seven eighths.
const WAITING_BYTES: u64 = 1 << 30;

/// How long the program waits at its end for clients to end.
const GRACE: Duration = Duration::from_secs(2);

/// Why the server could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VtestError {
    /// The socket cannot be made.
    #[error(transparent)]
    Socket(#[from] transport::Error),
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Serves clients on a new socket at `path` until SIGTERM or SIGINT, then removes the socket. Calls
/// `opened` between making the socket and serving the first client.
///
/// # Errors
/// The socket cannot be created, or the system cannot wait for connections.
pub(crate) fn run(
    path: &Path,
    contexts: Arc<dyn Contexts>,
    opened: impl FnOnce(),
) -> Result<(), VtestError> {
    let system = |what| move |source| VtestError::System { what, source };
    let (stopped, stop) = UnixStream::pair().map_err(system("make a socket pair"))?;
    for signal in [SIGTERM, SIGINT] {
        let stop = stop.try_clone().map_err(system("copy a descriptor"))?;
        signal_hook::low_level::pipe::register(signal, stop).map_err(system("handle signals"))?;
    }
    let (listener, _file) = listen(path, Access::Private)?;
    opened();
    log::info!("serving vtest clients on {}", path.display());
    serve(&listener, &contexts, &stopped)
}

/// Limits the lines about clients, which may connect as often as they like.
static CLIENTS: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper");

/// A client and the thread that serves it.
struct Served {
    client: Arc<Client>,
    /// Whether the thread has finished.
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Serves clients of `listener` until `stopped` is readable.
///
/// # Errors
/// The system cannot wait for connections.
fn serve(
    listener: &UnixListener,
    contexts: &Arc<dyn Contexts>,
    stopped: &UnixStream,
) -> Result<(), VtestError> {
    let system = |what| move |source| VtestError::System { what, source };
    // A connection that is closed before it is accepted must not block the loop.
    listener
        .set_nonblocking(true)
        .map_err(system("set a socket up"))?;
    let (gone, leaving) = UnixStream::pair().map_err(system("make a socket pair"))?;
    for end in [&gone, &leaving] {
        end.set_nonblocking(true)
            .map_err(system("set a socket up"))?;
    }
    let leaving = Arc::new(leaving);
    let bytes = Pool::new(WAITING_BYTES);
    let mut all: Vec<Served> = Vec::new();
    let mut next_id = 1;
    loop {
        let mut ready = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
            PollFd::new(&gone, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(system("wait for connections")(error.into())),
        }
        let [_, stop, left] = &ready;
        if !stop.revents().is_empty() {
            break;
        }
        if !left.revents().is_empty() {
            drain(&gone);
        }
        reap(&mut all);
        match listener.accept() {
            Ok((stream, _)) => {
                match start_client(stream, next_id, contexts, &bytes, &leaving, all.len()) {
                    Ok(served) => {
                        all.push(served);
                        next_id += 1;
                    }
                    Err(error) => {
                        CLIENTS.warn(format_args!("cannot serve a vtest client: {error}"));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                CLIENTS.warn(format_args!("cannot accept a vtest client: {error}"));
                // Probably out of descriptors. The connection stays in the queue, and an immediate
                // retry would spin.
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
    reap(&mut all);
    log::info!("vtest ends with {} clients", all.len());
    end(all);
    Ok(())
}

fn start_client(
    stream: UnixStream,
    id: u32,
    contexts: &Arc<dyn Contexts>,
    bytes: &Arc<Pool>,
    leaving: &Arc<UnixStream>,
    count: usize,
) -> io::Result<Served> {
    if count >= MAX_CLIENTS {
        return Err(io::Error::other(format!(
            "there are {MAX_CLIENTS} already; end one first"
        )));
    }
    // On some systems an accepted socket inherits this from the listener.
    stream.set_nonblocking(false)?;
    let client = Arc::new(Client::new(id, stream, Arc::clone(contexts), bytes)?);
    let serving = Arc::clone(&client);
    let farewell = Farewell {
        is_over: Arc::new(AtomicBool::new(false)),
        leaving: Arc::clone(leaving),
    };
    let is_over = Arc::clone(&farewell.is_over);
    let thread = thread::Builder::new()
        .name(format!("vtest-{id}"))
        .spawn(move || {
            // Dropped last in this thread, also when it panics.
            let _farewell = farewell;
            serving.serve();
        })?;
    Ok(Served {
        client,
        is_over,
        thread,
    })
}

/// Wakes the listening thread when a client's thread is about to end, so that its memory is freed
/// at once and not when the next client connects.
struct Farewell {
    is_over: Arc<AtomicBool>,
    leaving: Arc<UnixStream>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // A full socket wakes the listener anyway.
        let _ = (&*self.leaving).write(&[0]);
    }
}

/// Reads all bytes that are there.
fn drain(mut gone: &UnixStream) {
    let mut bytes = [0; 64];
    while gone.read(&mut bytes).is_ok_and(|read| read > 0) {}
}

/// Removes the clients whose threads have ended.
fn reap(all: &mut Vec<Served>) {
    for served in all.extract_if(.., |served| served.is_over.load(Ordering::Acquire)) {
        if served.thread.join().is_err() {
            log::error!(
                "the thread of a vtest client panicked; this is a bug in Hesper, please report it"
            );
        }
    }
}

/// Disconnects all clients and waits for their threads, at most for [`GRACE`].
fn end(mut all: Vec<Served>) {
    for served in &all {
        served.client.hang_up("Hesper ends");
    }
    let until = Instant::now() + GRACE;
    while all
        .iter()
        .any(|served| !served.is_over.load(Ordering::Acquire))
        && Instant::now() < until
    {
        thread::sleep(Duration::from_millis(2));
    }
    reap(&mut all);
    if !all.is_empty() {
        log::warn!(
            "{} vtest clients did not end within {GRACE:?}; Hesper ends without them",
            all.len()
        );
    }
}
