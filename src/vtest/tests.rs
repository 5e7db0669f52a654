//! Tests of the server with a mock client and a mock renderer: what Mesa sends, and what no client
//! should send.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use hesper_system::budget::{Charge, Pool};
use hesper_venus::{
    Blob, BlobError, BlobRequest, Caching, ContextEvents, Counters, DisplayServer, Error,
    GuestPages, Lender, SharedMemory,
};
use rustix::event::Timespec;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::wire::number::*;
use super::*;
use crate::contexts::{CAPSET_SIZE, TraceError, VenusContext};

/// A call that reached the mock renderer.
#[derive(Debug, PartialEq)]
enum Call {
    Created(String),
    Submit(Vec<u8>),
    Fence(u8, u64),
    Blob(u32, BlobRequest),
    Detach(u32),
    Returned(bool),
    Dropped,
}

/// A renderer that records its calls and answers requests for blobs below 1 MiB at once. Tests
/// retire the fences.
struct False {
    calls: Mutex<Sender<Call>>,
    events: Arc<Mutex<Vec<Arc<dyn ContextEvents>>>>,
}

struct FalseContext {
    calls: Mutex<Sender<Call>>,
    events: Arc<dyn ContextEvents>,
}

const SILENT: u64 = 0xdead;

/// The size of blobs whose end is noted.
const TELLING: u64 = 64 << 10;

#[derive(Debug)]
struct Note(Mutex<Sender<Call>>);

impl Lender for Note {
    fn returned(&self, is_given_away: bool) {
        let _ = self.0.lock().unwrap().send(Call::Returned(is_given_away));
    }
}

impl Contexts for False {
    fn capset(&self) -> [u8; CAPSET_SIZE] {
        std::array::from_fn(|index| index as u8)
    }

    fn create_context(
        &self,
        id: u32,
        name: &str,
        _server: DisplayServer,
        events: Arc<dyn ContextEvents>,
    ) -> Result<Arc<dyn VenusContext>, String> {
        assert_ne!(id, 0);
        let calls = self.calls.lock().unwrap().clone();
        calls.send(Call::Created(name.to_owned())).unwrap();
        self.events.lock().unwrap().push(Arc::clone(&events));
        Ok(Arc::new(FalseContext {
            calls: Mutex::new(calls),
            events,
        }))
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn start_trace(&self) -> Result<(), TraceError> {
        Ok(())
    }

    fn stop_trace(&self) -> Result<Vec<u8>, TraceError> {
        Err(TraceError::NotStarted)
    }

    fn settle(&self) {}
}

impl FalseContext {
    fn note(&self, call: Call) {
        // The test may have ended without reading all calls.
        let _ = self.calls.lock().unwrap().send(call);
    }
}

impl VenusContext for FalseContext {
    fn submit(&self, commands: Vec<u8>, _charge: Charge) {
        self.note(Call::Submit(commands));
    }
    fn fence(&self, ring: u8, fence: u64) {
        self.note(Call::Fence(ring, fence));
    }
    fn create_blob(&self, resource: u32, request: BlobRequest) {
        self.note(Call::Blob(resource, request));
        if request.blob_id == SILENT {
            return;
        }
        let blob = match request.size {
            ..0x10_0000 => {
                let mut memory = SharedMemory::create(request.size).unwrap();
                if request.size == TELLING {
                    let calls = self.calls.lock().unwrap().clone();
                    memory.set_lender(Arc::new(Note(Mutex::new(calls))));
                }
                Ok(Blob {
                    memory: Arc::new(memory),
                    caching: Caching::Cached,
                })
            }
            _ => Err(BlobError::OutOfMemory("too large for a test".to_owned())),
        };
        self.events.blob_created(resource, blob);
    }
    fn attach_resource(&self, _resource: u32, _blob: &Blob) {}
    fn attach_guest_memory(&self, _resource: u32, _pages: &[GuestPages]) -> Result<(), Error> {
        Ok(())
    }
    fn detach_resource(&self, resource: u32) {
        self.note(Call::Detach(resource));
    }
}

impl Drop for FalseContext {
    fn drop(&mut self) {
        self.note(Call::Dropped);
    }
}

/// A server on a socket in a temporary folder.
struct Server {
    path: PathBuf,
    calls: Receiver<Call>,
    events: Arc<Mutex<Vec<Arc<dyn ContextEvents>>>>,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vtest.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (sender, calls) = channel();
        let events = Arc::default();
        let contexts: Arc<dyn Contexts> = Arc::new(False {
            calls: Mutex::new(sender),
            events: Arc::clone(&events),
        });
        let (stopped, stop) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || serve(&listener, &contexts, &stopped).unwrap());
        Self {
            path,
            calls,
            events,
            stop,
            thread: Some(thread),
            _folder: folder,
        }
    }

    fn client(&self) -> FalseClient {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        FalseClient(stream)
    }

    /// A client that has sent everything that Mesa sends before it works.
    fn ready_client(&self) -> FalseClient {
        let mut client = self.client();
        client.send(CREATE_RENDERER, 7, b"vkcube\0");
        client.words(PROTOCOL_VERSION, &[4]);
        assert_eq!(client.reply(PROTOCOL_VERSION), [4]);
        client.words(CONTEXT_INIT, &[4]);
        assert_eq!(self.call(), Call::Created("vkcube".to_owned()));
        client
    }

    #[track_caller]
    fn call(&self) -> Call {
        self.calls
            .recv_timeout(Duration::from_secs(20))
            .expect("a call reaches the renderer")
    }

    fn stop(&mut self) {
        let _ = self.stop.write_all(b"!");
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct FalseClient(UnixStream);

impl FalseClient {
    fn send(&mut self, number: u32, length: u32, payload: &[u8]) {
        let mut bytes = [length.to_le_bytes(), number.to_le_bytes()].concat();
        bytes.extend(payload);
        // A failure shows in the missing answer.
        let _ = self.0.write_all(&bytes);
    }

    fn words(&mut self, number: u32, payload: &[u32]) {
        let bytes: Vec<u8> = payload.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.send(number, payload.len() as u32, &bytes);
    }

    #[track_caller]
    fn reply(&mut self, number: u32) -> Vec<u32> {
        let mut word = || {
            let mut bytes = [0; 4];
            self.0.read_exact(&mut bytes).expect("the server answers");
            u32::from_le_bytes(bytes)
        };
        let (length, answered) = (word(), word());
        assert_eq!(answered, number);
        (0..length).map(|_| word()).collect()
    }

    #[track_caller]
    fn descriptor(&mut self) -> OwnedFd {
        let mut byte = [7];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        assert_eq!(got.unwrap().bytes, 1);
        let mut all = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        all.next().expect("a descriptor comes with the byte")
    }

    /// Whether the server has closed the connection.
    fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}

fn readable(fd: &OwnedFd, patience: Duration) -> bool {
    let timeout = Timespec::try_from(patience).unwrap();
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).unwrap() == 1 && fds[0].revents().contains(PollFlags::IN)
}

const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_client_says_hello_as_mesa_does() {
    let server = Server::start();
    let mut client = server.client();
    client.send(CREATE_RENDERER, 11, b"vulkaninfo\0");
    client.words(PING_PROTOCOL_VERSION, &[]);
    client.words(BUSY_WAIT, &[0, 0]);
    assert!(client.reply(PING_PROTOCOL_VERSION).is_empty());
    assert_eq!(client.reply(BUSY_WAIT), [0]);
    client.words(PROTOCOL_VERSION, &[3]);
    assert_eq!(client.reply(PROTOCOL_VERSION), [3]);
    client.words(PROTOCOL_VERSION, &[77]);
    assert_eq!(client.reply(PROTOCOL_VERSION), [4]);
    client.words(GET_PARAM, &[1]);
    assert_eq!(client.reply(GET_PARAM), [1, 64]);
    client.words(GET_PARAM, &[2]);
    assert_eq!(client.reply(GET_PARAM), [0, 0]);
    client.words(GET_CAPSET, &[4, 0]);
    let capset = client.reply(GET_CAPSET);
    assert_eq!((capset.len(), capset[0], capset[1]), (41, 1, 0x0302_0100));
    client.words(GET_CAPSET, &[2, 0]);
    assert_eq!(client.reply(GET_CAPSET), [0]);
    client.words(CONTEXT_INIT, &[4]);
    assert_eq!(server.call(), Call::Created("vulkaninfo".to_owned()));
    drop(client);
    assert_eq!(server.call(), Call::Dropped);
}

#[test]
fn a_blobs_descriptor_follows_the_reply_and_its_end_reaches_the_renderer() {
    let server = Server::start();
    let mut client = server.ready_client();
    client.words(RESOURCE_CREATE_BLOB, &[2, 5, 4096, 0, 9, 1]);
    let resource = client.reply(RESOURCE_CREATE_BLOB)[0];
    let memory = SharedMemory::from_fd(Arc::new(client.descriptor()), 0, 4096);
    assert!(memory.is_ok(), "it can be mapped");
    let request = BlobRequest {
        blob_id: 9 | 1 << 32,
        size: 4096,
        mappable: true,
        shareable: false,
        cross_device: true,
    };
    assert_eq!(server.call(), Call::Blob(resource, request));
    client.words(RESOURCE_UNREF, &[resource]);
    assert_eq!(server.call(), Call::Detach(resource));
    client.words(RESOURCE_UNREF, &[resource]);
    assert!(client.is_ended(), "a resource is unreferenced once");
}

#[test]
fn memory_that_a_client_can_share_is_not_used_for_something_else() {
    let server = Server::start();
    let mut client = server.ready_client();
    for flags in [1_u32, 1 | 2, 1 | 4, 1 | 2 | 4] {
        client.words(RESOURCE_CREATE_BLOB, &[2, flags, TELLING as u32, 0, 9, 1]);
        let resource = client.reply(RESOURCE_CREATE_BLOB)[0];
        drop(client.descriptor());
        assert!(matches!(server.call(), Call::Blob(..)));
        client.words(RESOURCE_UNREF, &[resource]);
        assert_eq!(server.call(), Call::Detach(resource));
        assert_eq!(server.call(), Call::Returned(flags != 1), "{flags}");
    }
}

#[test]
fn a_blob_that_cannot_be_had_gives_a_descriptor_that_cannot_be_mapped() {
    let server = Server::start();
    let mut client = server.ready_client();
    client.words(RESOURCE_CREATE_BLOB, &[2, 1, 1 << 30, 0, 0, 0]);
    let resource = client.reply(RESOURCE_CREATE_BLOB)[0];
    let memory = SharedMemory::from_fd(Arc::new(client.descriptor()), 0, 4096);
    assert!(memory.is_err());
    client.words(RESOURCE_UNREF, &[resource]);
    client.words(BUSY_WAIT, &[0, 0]);
    assert_eq!(client.reply(BUSY_WAIT), [0], "the client goes on");
}

#[test]
fn a_submission_is_consumed_before_its_fence_and_its_syncs_rise_when_that_retires() {
    let server = Server::start();
    let mut client = server.ready_client();
    client.words(SYNC_CREATE, &[5, 1]);
    let sync = client.reply(SYNC_CREATE)[0];
    client.words(SYNC_READ, &[sync]);
    assert_eq!(client.reply(SYNC_READ), [5, 1]);
    client.words(SYNC_WRITE, &[sync, 0, 0]);
    client.words(SYNC_WAIT, &[0, u32::MAX, sync, 6, 0]);
    assert!(client.reply(SYNC_WAIT).is_empty());
    let wait = client.descriptor();
    assert!(!readable(&wait, NOW));

    client.words(
        SUBMIT_CMD2,
        &[1, 1, 9, 2, 11, 1, 3, 0, 0, 0xaa, 0xbb, sync, 6, 0],
    );
    assert_eq!(
        server.call(),
        Call::Submit([0xaa_u32.to_le_bytes(), 0xbb_u32.to_le_bytes()].concat())
    );
    let Call::Fence(3, fence) = server.call() else {
        panic!("a fence on ring 3 follows")
    };
    client.words(SYNC_READ, &[sync]);
    assert_eq!(client.reply(SYNC_READ), [0, 0]);
    assert!(!readable(&wait, NOW));
    let events = Arc::clone(&server.events.lock().unwrap()[0]);
    events.fence_retired(3, fence);
    assert!(readable(&wait, SOON));
    client.words(SYNC_READ, &[sync]);
    assert_eq!(client.reply(SYNC_READ), [6, 0]);
    client.words(SYNC_WAIT, &[1, 0, sync, 6, 0]);
    client.reply(SYNC_WAIT);
    assert!(
        readable(&client.descriptor(), NOW),
        "a wait that is over already"
    );
    client.words(SYNC_UNREF, &[sync]);
    client.words(SYNC_READ, &[sync]);
    assert!(client.is_ended(), "a sync that is gone has no value");
}

#[test]
fn a_bad_client_is_ended_and_others_go_on() {
    let server = Server::start();
    let mut good = server.ready_client();
    let before_init: [(u32, &[u32]); 4] = [
        (RESOURCE_CREATE_BLOB, &[2, 1, 4096, 0, 0, 0]),
        (SUBMIT_CMD2, &[1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (CONTEXT_INIT, &[2]),
        (PROTOCOL_VERSION, &[2]),
    ];
    let after_init: [(u32, &[u32]); 12] = [
        (CONTEXT_INIT, &[4]),
        (RESOURCE_CREATE_BLOB, &[1, 1, 4096, 0, 0, 0]),
        (RESOURCE_CREATE_BLOB, &[2, 1, 0, 0, 0, 0]),
        (RESOURCE_CREATE_BLOB, &[2, 1, 0]),
        (RESOURCE_UNREF, &[1]),
        (SYNC_READ, &[0]),
        (SYNC_WAIT, &[0, 0, 5, 0, 0]),
        (SYNC_WAIT, &[0, 0, 5]),
        (SUBMIT_CMD2, &[1, 0, 0, 0, 0, 1, 0, 0, 0]),
        (SUBMIT_CMD2, &[u32::MAX; 9]),
        (25, &[0]),
        (0, &[]),
    ];
    for (number, payload) in before_init {
        let mut bad = server.client();
        bad.words(number, payload);
        if number == PROTOCOL_VERSION {
            assert_eq!(bad.reply(PROTOCOL_VERSION), [2]);
        }
        assert!(bad.is_ended(), "{number} {payload:?}");
    }
    for (number, payload) in after_init {
        let mut bad = server.ready_client();
        bad.words(number, payload);
        assert!(bad.is_ended(), "{number} {payload:?}");
        assert_eq!(server.call(), Call::Dropped);
    }
    let mut endless = server.ready_client();
    endless.send(SUBMIT_CMD2, u32::MAX, &[]);
    assert!(endless.is_ended(), "64 GiB of commands");
    assert_eq!(server.call(), Call::Dropped);
    good.words(BUSY_WAIT, &[0, 0]);
    assert_eq!(good.reply(BUSY_WAIT), [0]);
}

#[test]
fn a_client_killed_in_the_middle_of_a_command_leaves_nothing() {
    let server = Server::start();
    let whole = [9_u32, 24, 1, 0, 0, 0, 0, 0, 0, 0, 0]
        .map(u32::to_le_bytes)
        .concat();
    for size in 0..whole.len() {
        let mut client = server.ready_client();
        client.0.write_all(&whole[..size]).unwrap();
        drop(client);
        assert_eq!(server.call(), Call::Dropped, "after {size} bytes");
    }
}

/// A session with every command that Mesa uses, well-formed.
fn session() -> Vec<u8> {
    let commands: [(u32, &[u32]); 13] = [
        (PING_PROTOCOL_VERSION, &[]),
        (BUSY_WAIT, &[0, 0]),
        (PROTOCOL_VERSION, &[4]),
        (GET_PARAM, &[1]),
        (GET_CAPSET, &[4, 0]),
        (CONTEXT_INIT, &[4]),
        (RESOURCE_CREATE_BLOB, &[2, 1, 4096, 0, 0, 0]),
        (SYNC_CREATE, &[0, 0]),
        (
            SUBMIT_CMD2,
            &[1, 1, 9, 2, 11, 1, 3, 0, 0, 0xaa, 0xbb, 1, 6, 0],
        ),
        (SYNC_WRITE, &[1, 7, 0]),
        (SYNC_WAIT, &[0, 100, 1, 6, 0]),
        (SYNC_UNREF, &[1]),
        (RESOURCE_UNREF, &[1]),
    ];
    let mut bytes = [3_u32, CREATE_RENDERER].map(u32::to_le_bytes).concat();
    bytes.extend(b"ab\0");
    for (number, payload) in commands {
        let words = [payload.len() as u32, number]
            .into_iter()
            .chain(payload.iter().copied());
        bytes.extend(words.flat_map(u32::to_le_bytes));
    }
    bytes
}

#[test]
fn a_session_with_wrong_bytes_in_it_ends_and_never_panics() {
    let whole = session();
    let (sender, calls) = channel();
    let contexts: Arc<dyn Contexts> = Arc::new(False {
        calls: Mutex::new(sender),
        events: Arc::default(),
    });
    let mut random = 1_u32;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % limit
    };
    for round in 0..4000 {
        let mut bytes = whole.clone();
        for _ in 0..round % 4 {
            let at = below(bytes.len());
            bytes[at] = [0, 1, 0x80, 0xff, below(256) as u8][below(5)];
        }
        if round % 3 == 2 {
            bytes.truncate(below(bytes.len()));
        }
        // All of it, and all answers, fit into the socket's buffers.
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&bytes).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        Client::new(1, theirs, Arc::clone(&contexts), &Pool::new(1 << 20))
            .unwrap()
            .serve();
        let end = calls.try_iter().last();
        assert!(end.is_none() || end == Some(Call::Dropped), "{end:?}");
        if bytes == whole {
            let mut answers = Vec::new();
            ours.read_to_end(&mut answers).unwrap();
            // Eight replies with their headers, and the bytes of two descriptors.
            assert_eq!(answers.len(), 8 * 8 + 4 * (1 + 1 + 2 + 41 + 1 + 1) + 2);
        }
    }
}

#[test]
fn a_client_that_goes_while_its_blob_is_made_does_not_stay() {
    let server = Server::start();
    let mut client = server.ready_client();
    client.words(RESOURCE_CREATE_BLOB, &[2, 1, 4096, 0, SILENT as u32, 0]);
    assert!(matches!(server.call(), Call::Blob(..)));
    drop(client);
    assert_eq!(server.call(), Call::Dropped);
}

#[test]
fn a_lost_context_ends_its_client_even_while_that_waits_for_a_blob() {
    let server = Server::start();
    let mut client = server.ready_client();
    client.words(RESOURCE_CREATE_BLOB, &[2, 1, 4096, 0, SILENT as u32, 0]);
    assert!(matches!(server.call(), Call::Blob(..)));
    let events = Arc::clone(&server.events.lock().unwrap()[0]);
    events.lost("vkCmdDraw: no such command buffer");
    assert!(client.is_ended());
    assert_eq!(server.call(), Call::Dropped);
}

#[test]
fn stopping_ends_all_clients_quickly() {
    let mut server = Server::start();
    let mut clients: Vec<FalseClient> = (0..16).map(|_| server.ready_client()).collect();
    clients[0].words(RESOURCE_CREATE_BLOB, &[2, 1, 4096, 0, SILENT as u32, 0]);
    assert!(matches!(server.call(), Call::Blob(..)));
    let begin = Instant::now();
    server.stop();
    assert!(begin.elapsed() < GRACE);
    assert!(clients.iter_mut().all(FalseClient::is_ended));
    assert_eq!(
        (0..16)
            .map(|_| server.call())
            .filter(|call| *call == Call::Dropped)
            .count(),
        16
    );
}

#[test]
fn clients_come_and_go_by_the_hundred() {
    let server = Server::start();
    for _ in 0..MAX_CLIENTS + 44 {
        drop(server.ready_client());
        assert_eq!(server.call(), Call::Dropped);
    }
    let mut at_once: Vec<FalseClient> = (0..MAX_CLIENTS).map(|_| server.ready_client()).collect();
    assert!(server.client().is_ended(), "there is a limit");
    at_once.pop();
    assert_eq!(server.call(), Call::Dropped);
    // The server notices an ended thread at its next connection.
    let late = (0..100).find_map(|_| {
        thread::sleep(Duration::from_millis(10));
        let mut client = server.client();
        client.words(BUSY_WAIT, &[0, 0]);
        let mut byte = [0; 12];
        client.0.read_exact(&mut byte).is_ok().then_some(client)
    });
    assert!(late.is_some_and(|ref mut client| {
        client.words(BUSY_WAIT, &[0, 0]);
        client.reply(BUSY_WAIT) == [0]
    }));
}
