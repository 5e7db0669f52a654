//! One client: [`Client::serve`] performs its commands until it disconnects or makes an error.
//!
//! The client's thread performs the commands in order. It waits in two places only: for the next
//! command, and for the memory of a blob. The renderer's threads call [`Events`]: they retire
//! fences, answer requests for blobs, and report a lost context. A lost context closes the
//! connection, which wakes the client's thread.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hesper_system::budget::Pool;
use hesper_system::share::Share;
use hesper_system::sync::Lock;
use hesper_venus::{Blob, BlobError, BlobRequest, ContextEvents, DisplayServer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Connection, reply, send_descriptor};
use super::platform::Latch;
use super::sync::{SyncError, Syncs};
use super::wire::{Command, MIN_VERSION, RINGS, Submission, VERSION, WireError, number};
use crate::contexts::{Contexts, VenusContext};

/// The capability set of Venus.
const CAPSET_VENUS: u32 = 4;
/// `VCMD_BLOB_TYPE_HOST3D`.
const BLOB_HOST3D: u32 = 2;
/// `VCMD_PARAM_MAX_TIMELINE_COUNT`.
const PARAM_RINGS: u32 = 1;
/// The largest number of resources of a client.
const MAX_RESOURCES: usize = 1 << 18;
/// How often a thread that waits for a blob checks whether its client is still connected.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How many characters of a process name are kept, for the log.
const NAME_KEPT: usize = 64;

/// Why a client is disconnected.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    #[error("{0} before CONTEXT_INIT")]
    NoContext(&'static str),
    #[error("a second CONTEXT_INIT")]
    SecondContext,
    #[error("protocol version {0}; Venus needs {MIN_VERSION} or {VERSION}")]
    Version(u32),
    #[error("a context for capability set {0}; only Venus ({CAPSET_VENUS}) is served")]
    Capset(u32),
    #[error("a blob of type {0}; only HOST3D ({BLOB_HOST3D}) is served")]
    BlobKind(u32),
    #[error("a blob without a size")]
    EmptyBlob,
    #[error("there is no resource {0}")]
    NoResource(u32),
    #[error("more than {MAX_RESOURCES} resources")]
    TooManyResources,
    #[error("more bytes of commands wait for the renderer than all clients together may have")]
    TooManyBytes,
    #[error("no context: {0}")]
    Renderer(String),
    #[error("{0}")]
    Lost(String),
}

/// What the renderer's threads report to a client's thread.
struct Events {
    stream: Arc<UnixStream>,
    syncs: Mutex<Syncs>,
    news: Mutex<News>,
    changed: Condvar,
}

#[derive(Default)]
struct News {
    /// The answer to the request for a blob. A client has only one at a time.
    blob: Option<(u32, Result<Blob, BlobError>)>,
    /// Why the client is disconnected.
    lost: Option<String>,
    /// Whether the client's thread waits for `blob` or `lost`.
    is_awaited: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic that held the lock has been reported. The data is consistent after each statement.
    mutex.locked()
}

impl Events {
    /// Ends the connection for `reason`, unless it has ended for another one. The client's thread
    /// wakes up, because its socket or its wait ends.
    fn hang_up(&self, reason: &str) {
        lock(&self.news)
            .lost
            .get_or_insert_with(|| reason.to_owned());
        self.changed.notify_all();
        // Fails when the client has already disconnected.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Waits for the answer to the request for `resource`.
    fn blob(&self, resource: u32) -> Result<Result<Blob, BlobError>, ClientError> {
        let mut news = lock(&self.news);
        loop {
            if let Some(reason) = &news.lost {
                return Err(ClientError::Lost(reason.clone()));
            }
            match news.blob.take() {
                Some((answered, blob)) if answered == resource => return Ok(blob),
                Some((answered, _)) => log::debug!("resource {answered} was not requested"),
                None => {
                    news.is_awaited = true;
                    let waited = self.changed.wait_timeout(news, CHECK_INTERVAL);
                    news = waited.unwrap_or_else(PoisonError::into_inner).0;
                    news.is_awaited = false;
                }
            }
            // A client that has disconnected may never do what the answer depends on.
            if news.blob.is_none() && self.client_is_gone() {
                return Err(ClientError::Socket(io::ErrorKind::BrokenPipe.into()));
            }
        }
    }

    fn client_is_gone(&self) -> bool {
        let mut stream = [PollFd::new(&*self.stream, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut stream, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

impl ContextEvents for Events {
    fn fence_retired(&self, _ring: u8, fence: u64) {
        lock(&self.syncs).retire(fence);
    }

    fn blob_created(&self, resource: u32, result: Result<Blob, BlobError>) {
        let mut news = lock(&self.news);
        news.blob = Some((resource, result));
        // Usually the client's own thread calls this before it waits.
        if news.is_awaited {
            self.changed.notify_all();
        }
    }

    fn lost(&self, reason: &str) {
        self.hang_up(reason);
    }
}

/// A client of the server.
pub(crate) struct Client {
    id: u32,
    events: Arc<Events>,
    contexts: Arc<dyn Contexts>,
    /// What its commands are charged to until the renderer has consumed them.
    bytes: Arc<Share>,
}

impl Client {
    /// A client for a new connection. `id` is for logs. Commands that wait for the renderer are
    /// charged to `bytes`, which all clients share.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub(crate) fn new(
        id: u32,
        stream: UnixStream,
        contexts: Arc<dyn Contexts>,
        bytes: &Arc<Pool>,
    ) -> io::Result<Self> {
        let events = Arc::new(Events {
            stream: Arc::new(stream),
            syncs: Mutex::new(Syncs::new()?),
            news: Mutex::default(),
            changed: Condvar::new(),
        });
        Ok(Self {
            id,
            events,
            contexts,
            bytes: Share::new(bytes, u64::MAX),
        })
    }

    /// Makes [`Client::serve`] return.
    pub(crate) fn hang_up(&self, reason: &str) {
        self.events.hang_up(reason);
    }

    /// Performs commands until the client disconnects, then frees everything that it had.
    pub(crate) fn serve(&self) {
        let mut session = Session {
            id: self.id,
            name: "unnamed".to_owned(),
            version: VERSION,
            events: &self.events,
            contexts: &*self.contexts,
            bytes: &self.bytes,
            context: None,
            resources: HashMap::new(),
            next_resource: 1,
        };
        let end = session.run();
        let lost = lock(&self.events.news).lost.clone();
        // `hang_up` shows as an end or a failure of the socket. The reason given to it comes first.
        match lost.map_or(end, |reason| Err(ClientError::Lost(reason))) {
            Ok(()) => log::debug!(
                "vtest client {} ({}) has disconnected",
                session.id,
                session.name
            ),
            // Whoever called `hang_up` has logged the reason.
            Err(ClientError::Lost(reason)) => {
                log::debug!(
                    "vtest client {} ({}) is disconnected: {reason}",
                    session.id,
                    session.name
                );
            }
            // The client's process was probably killed, which is not an error of the client.
            Err(ClientError::Socket(error)) if is_disconnect(&error) => log::debug!(
                "vtest client {} ({}) disconnected in the middle of a command",
                session.id,
                session.name
            ),
            Err(error) => {
                log::warn!(
                    "vtest client {} ({}) is disconnected: {error}",
                    session.id,
                    session.name
                );
            }
        }
        // Otherwise the client could wait for an answer forever.
        let _ = self.events.stream.shutdown(Shutdown::Both);
    }
}

/// Whether the other side has closed the connection.
fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// The state of a client's thread.
struct Session<'c> {
    id: u32,
    name: String,
    version: u32,
    events: &'c Arc<Events>,
    contexts: &'c dyn Contexts,
    bytes: &'c Arc<Share>,
    context: Option<Arc<dyn VenusContext>>,
    /// The client's resources. `None` is a resource whose memory could not be created.
    resources: HashMap<u32, Option<Blob>>,
    next_resource: u32,
}

impl Session<'_> {
    fn run(&mut self) -> Result<(), ClientError> {
        let mut connection = Connection::new(self.events.stream.try_clone()?);
        while let Some(header) = connection.header()? {
            let payload = connection.payload(header.payload_size()?)?;
            let command = Command::parse(header.number, self.version, payload)?;
            log::trace!("vtest client {}: {command:?}", self.id);
            self.perform(command)?;
        }
        Ok(())
    }

    fn perform(&mut self, command: Command<'_>) -> Result<(), ClientError> {
        match command {
            Command::CreateRenderer(name) => self.introduce(name),
            Command::Ping => self.reply(number::PING_PROTOCOL_VERSION, &[])?,
            Command::Version(theirs) => {
                let version = theirs.min(VERSION);
                self.reply(number::PROTOCOL_VERSION, &[version])?;
                if version < MIN_VERSION {
                    return Err(ClientError::Version(theirs));
                }
                self.version = version;
            }
            // Nothing of a Venus client is ever busy in this sense.
            Command::BusyWait => self.reply(number::BUSY_WAIT, &[0])?,
            Command::GetParam(PARAM_RINGS) => self.reply(number::GET_PARAM, &[1, RINGS])?,
            Command::GetParam(_) => self.reply(number::GET_PARAM, &[0, 0])?,
            Command::GetCapset {
                id: CAPSET_VENUS,
                version: 0,
            } => self.send_capset()?,
            Command::GetCapset { .. } => self.reply(number::GET_CAPSET, &[0])?,
            Command::ContextInit(capset) => self.init_context(capset)?,
            Command::CreateBlob {
                kind,
                flags,
                size,
                id,
            } => {
                self.create_blob(kind, flags, size, id)?;
            }
            Command::ResourceUnref(resource) => {
                let had = self.resources.remove(&resource);
                let blob = had.ok_or(ClientError::NoResource(resource))?;
                if let (Some(context), Some(_)) = (&self.context, blob) {
                    context.detach_resource(resource);
                }
            }
            Command::SyncCreate(value) => {
                let sync = self.syncs().create(value)?;
                self.reply(number::SYNC_CREATE, &[sync])?;
            }
            Command::SyncUnref(sync) => self.syncs().unref(sync)?,
            Command::SyncRead(sync) => {
                let value = self.syncs().read(sync)?;
                self.reply(number::SYNC_READ, &[value as u32, (value >> 32) as u32])?;
            }
            Command::SyncWrite(point) => self.syncs().write(point)?,
            Command::SyncWait {
                any,
                timeout,
                points,
            } => {
                let latch = self.syncs().wait(points.iter(), any, timeout)?;
                self.reply(number::SYNC_WAIT, &[])?;
                send_descriptor(&self.events.stream, latch.for_client())?;
            }
            Command::Submit(submission) => self.submit(submission)?,
        }
        Ok(())
    }

    fn introduce(&mut self, name: &[u8]) {
        // The name goes to the log, so control characters are replaced.
        let printable = |letter: char| if letter.is_control() { '?' } else { letter };
        let name = String::from_utf8_lossy(name);
        self.name = name.chars().take(NAME_KEPT).map(printable).collect();
        log::debug!("vtest client {} is {}", self.id, self.name);
    }

    fn send_capset(&self) -> Result<(), ClientError> {
        let capset = self.contexts.capset();
        let words = capset.chunks_exact(4).map(|bytes| {
            bytes
                .iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u32::from(byte))
        });
        let answer: Vec<u32> = [1].into_iter().chain(words).collect();
        self.reply(number::GET_CAPSET, &answer)
    }

    fn init_context(&mut self, capset: u32) -> Result<(), ClientError> {
        if capset != CAPSET_VENUS {
            return Err(ClientError::Capset(capset));
        }
        if self.context.is_some() {
            return Err(ClientError::SecondContext);
        }
        let events = Arc::clone(self.events) as Arc<dyn ContextEvents>;
        let server = DisplayServer::Unknown;
        let context = self
            .contexts
            .create_context(self.id, &self.name, server, events);
        self.context = Some(context.map_err(ClientError::Renderer)?);
        Ok(())
    }

    fn create_blob(
        &mut self,
        kind: u32,
        flags: u32,
        size: u64,
        id: u64,
    ) -> Result<(), ClientError> {
        let context = self
            .context
            .as_ref()
            .ok_or(ClientError::NoContext("RESOURCE_CREATE_BLOB"))?;
        if kind != BLOB_HOST3D {
            return Err(ClientError::BlobKind(kind));
        }
        if size == 0 {
            return Err(ClientError::EmptyBlob);
        }
        if self.resources.len() >= MAX_RESOURCES {
            return Err(ClientError::TooManyResources);
        }
        while self.next_resource == 0 || self.resources.contains_key(&self.next_resource) {
            self.next_resource = self.next_resource.wrapping_add(1);
        }
        let resource = self.next_resource;
        self.next_resource = resource.wrapping_add(1);
        let request = BlobRequest {
            blob_id: id,
            size,
            mappable: flags & 1 != 0,
            shareable: flags & 2 != 0,
            cross_device: flags & 4 != 0,
        };
        context.create_blob(resource, request);
        let blob = match self.events.blob(resource)? {
            // A client maps from the start of the descriptor.
            Ok(blob) if blob.memory.fd_offset() == 0 && blob.memory.lent_fd().is_some() => {
                Some(blob)
            }
            Ok(_) => {
                context.detach_resource(resource);
                self.refused(&request, "its memory is part of a larger allocation");
                None
            }
            Err(BlobError::Lost(reason)) => return Err(ClientError::Lost(reason)),
            Err(error) => {
                self.refused(&request, &error.to_string());
                None
            }
        };
        self.reply(number::RESOURCE_CREATE_BLOB, &[resource])?;
        match blob.as_ref().and_then(|blob| blob.memory.lent_fd()) {
            Some(fd) => {
                // The client hands it to others, who keep it as long as they like. The client
                // itself may keep any, and see what its own program writes.
                if let (true, Some(blob)) = (request.shareable || request.cross_device, &blob) {
                    blob.memory.give_away();
                }
                send_descriptor(&self.events.stream, fd.as_fd())?;
            }
            // The client's mmap of this descriptor fails, and the client reports to the application
            // that memory is exhausted.
            None => send_descriptor(&self.events.stream, Latch::new()?.for_client())?,
        }
        self.resources.insert(resource, blob);
        Ok(())
    }

    fn refused(&self, request: &BlobRequest, reason: &str) {
        // Logged at debug level, because an application may cause it thousands of times.
        log::debug!(
            "vtest client {} ({}): no {request:?}: {reason}",
            self.id,
            self.name
        );
    }

    fn submit(&self, submission: Submission<'_>) -> Result<(), ClientError> {
        let context = self
            .context
            .as_ref()
            .ok_or(ClientError::NoContext("SUBMIT_CMD2"))?;
        for batch in submission.batches() {
            let batch = batch?;
            if !batch.commands.is_empty() {
                let charge = self.bytes.charge(batch.commands.len() as u64);
                let charge = charge.ok_or(ClientError::TooManyBytes)?;
                context.submit(batch.commands.to_vec(), charge);
            }
            if batch.points.iter().len() > 0 {
                // The lock is released before the call, because the fence may retire during it.
                let fence = self.syncs().fence(batch.points.iter())?;
                context.fence(batch.ring, fence);
            }
        }
        Ok(())
    }

    fn syncs(&self) -> MutexGuard<'_, Syncs> {
        lock(&self.events.syncs)
    }

    fn reply(&self, number: u32, words: &[u32]) -> Result<(), ClientError> {
        Ok(reply(&self.events.stream, number, words)?)
    }
}
