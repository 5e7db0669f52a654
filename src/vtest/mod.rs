//! The vtest front end: Mesa's Venus driver on this machine (or in a container) over a unix socket, without a VM.
//!
//! ```text
//! hesper vtest --socket-path /run/user/1000/vtest.sock
//! VN_DEBUG=vtest VTEST_SOCKET_NAME=/run/user/1000/vtest.sock VK_DRIVER_FILES=…/virtio_icd.json vulkaninfo
//! ```
//!
//! Every connection is a client of its own, with one Venus context and one thread; what it does wrong ends it
//! alone, with one line in the log. The protocol is the one of Mesa's and virglrenderer's vtest, versions 3 and
//! 4, as far as Venus uses it: of version 4's additions (drm-sync objects, resource export) it uses nothing, and
//! a client that asks for them is told so by being ended.
//!
//! | file | what it knows |
//! |---|---|
//! | [`wire`] | commands: numbers, layouts, allowed sizes |
//! | [`connection`] | the socket: buffered reading, replies, descriptors |
//! | [`client`] | what each command does |
//! | [`sync`] | synchronisation objects, fences and waits of a client |
//! | [`backend`] | what is asked of a renderer, so that tests can have a false one |
//! | [`platform`] | descriptors that become readable |
//!
//! The hard thing is that the protocol has no way to refuse: a client reads a reply that must come. Where the
//! client has a way to cope (memory that cannot be mapped) it gets what leads it there; else it is ended.

mod backend;
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

use hesper_vhost::transport::{self, Access, listen};
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) use backend::Backend;
use client::Client;

/// Clients at one time. Each has a handful of threads and descriptors.
const MAX_CLIENTS: usize = 256;

/// How long clients may take to end when the program does.
const GRACE: Duration = Duration::from_secs(2);

/// Why the server could not start or go on.
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

/// Serves clients on a new socket at `path` until SIGTERM or SIGINT; the socket is removed at the end.
///
/// # Errors
/// When the socket cannot be made, or no connection can be accepted any more.
pub(crate) fn run(path: &Path, backend: Arc<dyn Backend>) -> Result<(), VtestError> {
    let system = |what| move |source| VtestError::System { what, source };
    let (stopped, stop) = UnixStream::pair().map_err(system("make a socket pair"))?;
    for signal in [SIGTERM, SIGINT] {
        let stop = stop.try_clone().map_err(system("copy a descriptor"))?;
        signal_hook::low_level::pipe::register(signal, stop).map_err(system("handle signals"))?;
    }
    let (listener, _file) = listen(path, Access::Private)?;
    log::info!("vtest clients are served on {}", path.display());
    serve(&listener, &backend, &stopped)
}

/// A client and the thread that serves it.
struct Served {
    client: Arc<Client>,
    /// The thread has nothing more to do.
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Serves clients of `listener` until something can be read from `stopped`.
///
/// # Errors
/// When the system cannot wait for connections.
fn serve(
    listener: &UnixListener,
    backend: &Arc<dyn Backend>,
    stopped: &UnixStream,
) -> Result<(), VtestError> {
    let system = |what| move |source| VtestError::System { what, source };
    // A connection that is gone before it is accepted must not block the loop.
    listener
        .set_nonblocking(true)
        .map_err(system("set a socket up"))?;
    let (gone, leaving) = UnixStream::pair().map_err(system("make a socket pair"))?;
    for end in [&gone, &leaving] {
        end.set_nonblocking(true)
            .map_err(system("set a socket up"))?;
    }
    let leaving = Arc::new(leaving);
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
            Ok((stream, _)) => match welcome(stream, next_id, backend, &leaving, all.len()) {
                Ok(served) => {
                    all.push(served);
                    next_id += 1;
                }
                Err(error) => log::warn!("a vtest client is turned away: {error}"),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                log::warn!("a vtest client cannot be accepted: {error}");
                // Out of descriptors, most likely: the connection stays, and trying again at once would spin.
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
    reap(&mut all);
    log::info!("vtest ends with {} clients", all.len());
    end(all);
    Ok(())
}

fn welcome(
    stream: UnixStream,
    id: u32,
    backend: &Arc<dyn Backend>,
    leaving: &Arc<UnixStream>,
    count: usize,
) -> io::Result<Served> {
    if count >= MAX_CLIENTS {
        return Err(io::Error::other(format!(
            "there are {MAX_CLIENTS} already; end one first"
        )));
    }
    // Some systems let an accepted socket inherit this from the listener.
    stream.set_nonblocking(false)?;
    let client = Arc::new(Client::new(id, stream, Arc::clone(backend))?);
    let serving = Arc::clone(&client);
    let farewell = Farewell {
        is_over: Arc::new(AtomicBool::new(false)),
        leaving: Arc::clone(leaving),
    };
    let is_over = Arc::clone(&farewell.is_over);
    let thread = thread::Builder::new()
        .name(format!("vtest-{id}"))
        .spawn(move || {
            // The last that this thread does, also when it panics.
            let _farewell = farewell;
            serving.serve();
        })?;
    Ok(Served {
        client,
        is_over,
        thread,
    })
}

/// Tells the listening thread that a client's thread is as good as over, so that what they had is freed at once and not with
/// the next client.
struct Farewell {
    is_over: Arc<AtomicBool>,
    leaving: Arc<UnixStream>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // When the socket is full, the listener has enough to wake up for.
        let _ = (&*self.leaving).write(&[0]);
    }
}

/// Reads all that there is.
fn drain(mut gone: &UnixStream) {
    let mut bytes = [0; 64];
    while gone.read(&mut bytes).is_ok_and(|read| read > 0) {}
}

/// Forgets the clients that have gone.
fn reap(all: &mut Vec<Served>) {
    for served in all.extract_if(.., |served| served.is_over.load(Ordering::Acquire)) {
        if served.thread.join().is_err() {
            log::error!("the thread of a vtest client panicked; this is a bug, please report it");
        }
    }
}

/// Ends all clients and waits for their threads, but not forever.
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
            "{} vtest clients do not end within {GRACE:?} and are abandoned",
            all.len()
        );
    }
}
