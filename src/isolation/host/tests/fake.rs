//! A fake worker, and a device that notes what it hears.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hesper_system::sync::{Lock, Wait};
use hesper_venus::{
    Blob, BlobError, BlobRequest, Caching, ContextEvents, DisplayServer, RendererOptions,
    SharedMemory,
};

use super::super::contexts::IsolatedContexts;
use crate::contexts::{CAPSET_SIZE, Contexts, VenusContext};
use crate::isolation::channel::{LARGEST_TO_WORKER, Receiver, Sender};
use crate::isolation::encoding::Message;
use crate::isolation::message::{Budget, FromWorker, Piece, ToWorker};
use crate::isolation::spawner::{End, Ended, Starter};

/// How long anything may take on a machine that is busy with other things.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// What the main process has found of the GPUs.
pub(super) const FINDINGS: &[u8] = b"findings";

/// What is added to a resource's number for the number of its blob.
pub(super) const SERIALS: u64 = 1000;

/// Waits until something is so.
#[track_caller]
pub(super) fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A process that lives.
struct Living {
    sockets: [UnixStream; 2],
    ended: Ended,
}

/// Where fake workers start and end.
pub(super) struct Yard {
    living: Mutex<HashMap<u64, Living>>,
    killed: Mutex<Vec<u64>>,
    /// Workers that are known to be ready.
    loaded: Mutex<Vec<u64>>,
    /// Most workers that lived at a time.
    most: Mutex<usize>,
    /// Processes that cannot be killed.
    is_stubborn: Mutex<bool>,
    born: Mutex<mpsc::Sender<Fake>>,
}

impl Yard {
    /// The process ends.
    pub(super) fn end(&self, worker: u64, end: End) {
        let Some(living) = self.living.locked().remove(&worker) else {
            return;
        };
        for socket in &living.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
        // On a thread of its own, as the spawner does.
        thread::spawn(move || (living.ended)(end));
    }

    /// The process ends, but somebody else still has its sockets.
    pub(super) fn end_quietly(&self, worker: u64, end: End) {
        let living = self.living.locked().remove(&worker).unwrap();
        thread::spawn(move || (living.ended)(end));
    }

    pub(super) fn is_killed(&self, worker: u64) -> bool {
        self.killed.locked().contains(&worker)
    }

    pub(super) fn living(&self) -> usize {
        self.living.locked().len()
    }

    pub(super) fn most(&self) -> usize {
        *self.most.locked()
    }

    pub(super) fn be_stubborn(&self, is_stubborn: bool) {
        *self.is_stubborn.locked() = is_stubborn;
    }
}

impl Starter for Yard {
    fn spawn(&self, worker: u64, socket: OwnedFd, budget: OwnedFd, ended: Ended) {
        let (control, budget) = (UnixStream::from(socket), UnixStream::from(budget));
        let sockets = [control.try_clone().unwrap(), budget.try_clone().unwrap()];
        let mut living = self.living.locked();
        living.insert(worker, Living { sockets, ended });
        let mut most = self.most.locked();
        *most = living.len().max(*most);
        drop((living, most));
        // A test that is over needs none.
        let _ = self.born.locked().send(Fake::new(worker, control, budget));
    }

    fn is_loaded(&self, worker: u64) {
        self.loaded.locked().push(worker);
    }

    fn hasten(&self, _: u64) {
        // All have started.
    }

    fn kill(&self, worker: u64) {
        self.killed.locked().push(worker);
        if !*self.is_stubborn.locked() {
            self.end(worker, End::Signalled(9));
        }
    }
}

/// The worker's side.
pub(super) struct Fake {
    pub(super) number: u64,
    pub(super) control: Arc<UnixStream>,
    sender: Sender,
    receiver: Receiver,
    pub(super) questions: Sender,
    answers: Receiver,
}

impl Fake {
    fn new(number: u64, control: UnixStream, budget: UnixStream) -> Self {
        let (control, budget) = (Arc::new(control), Arc::new(budget));
        Self {
            number,
            sender: Sender::new(Arc::clone(&control)),
            receiver: Receiver::new(Arc::clone(&control), LARGEST_TO_WORKER),
            questions: Sender::new(Arc::clone(&budget)),
            answers: Receiver::new(budget, LARGEST_TO_WORKER),
            control,
        }
    }

    /// The next call; `None` when the socket is closed.
    pub(super) fn try_hear(&mut self) -> Option<(ToWorker, Vec<OwnedFd>)> {
        Some(self.receiver.receive().ok()?.decode().unwrap())
    }

    pub(super) fn hear(&mut self) -> ToWorker {
        self.try_hear().expect("the socket is closed").0
    }

    /// Hears until this call.
    pub(super) fn hear_until(&mut self, is_it: impl Fn(&ToWorker) -> bool) -> ToWorker {
        loop {
            let call = self.hear();
            if is_it(&call) {
                return call;
            }
        }
    }

    pub(super) fn hear_end(&mut self) {
        self.hear_until(|call| *call == ToWorker::End);
    }

    pub(super) fn try_say(&self, message: FromWorker, fds: &[BorrowedFd<'_>]) -> bool {
        self.sender.send(&message, fds).is_ok()
    }

    pub(super) fn say(&self, message: FromWorker) {
        // Once it is killed it cannot be heard.
        let _ = self.try_say(message, &[]);
    }

    pub(super) fn say_with(&self, message: FromWorker, fd: BorrowedFd<'_>) {
        let _ = self.try_say(message, &[fd]);
    }

    /// Bytes that are no message.
    pub(super) fn babble(&self, bytes: &[u8]) {
        let _ = (&*self.control).write_all(bytes);
    }

    pub(super) fn try_ask(&mut self, question: Budget) -> Option<u64> {
        self.questions.send(&question, &[]).ok()?;
        match self.answers.receive().ok()?.decode().unwrap().0 {
            Budget::Granted { amount } => Some(amount),
            other => panic!("{other:?} answers nothing"),
        }
    }

    /// Makes a blob of this memory.
    pub(super) fn make_blob(&self, resource: u32, offset: u64, size: u64, fd: BorrowedFd<'_>) {
        let memory = Piece {
            offset,
            size,
            caching: Caching::Cached,
        };
        let created = FromWorker::BlobCreated {
            resource,
            serial: u64::from(resource) + SERIALS,
            memory,
        };
        self.say_with(created, fd);
    }
}

/// What the device heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Retired(u8, u64),
    /// Resource and size.
    Blob(u32, usize),
    Refused(u32, BlobError),
    Lost(String),
}

/// Called at each event, without a lock.
type Hook = Box<dyn Fn(&Event) + Send + Sync>;

/// The device's side.
#[derive(Default)]
pub(super) struct Ears {
    events: Mutex<(Vec<Event>, Vec<Blob>)>,
    changed: Condvar,
    hook: Mutex<Option<Arc<Hook>>>,
}

impl Ears {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Calls this at each event from now on.
    pub(super) fn set_hook(&self, hook: impl Fn(&Event) + Send + Sync + 'static) {
        *self.hook.locked() = Some(Arc::new(Box::new(hook)));
    }

    pub(super) fn remove_hook(&self) {
        *self.hook.locked() = None;
    }

    fn note(&self, event: Event, blob: Option<Blob>) {
        let hook = self.hook.locked().clone();
        if let Some(hook) = hook {
            hook(&event);
        }
        let mut events = self.events.locked();
        events.0.push(event);
        events.1.extend(blob);
        drop(events);
        self.changed.notify_all();
    }

    pub(super) fn all(&self) -> Vec<Event> {
        self.events.locked().0.clone()
    }

    /// Waits for so many events.
    #[track_caller]
    pub(super) fn wait(&self, count: usize) -> Vec<Event> {
        let events = self.events.locked();
        let is_early = |events: &mut (Vec<Event>, Vec<Blob>)| events.0.len() < count;
        let (events, late) = self.changed.waited_while(events, PATIENCE, is_early);
        assert!(!late.timed_out(), "only {:?}, not {count}", events.0);
        events.0.clone()
    }

    /// The last blob that was made.
    pub(super) fn blob(&self) -> Blob {
        self.events.locked().1.last().unwrap().clone()
    }

    /// Drops all blobs.
    pub(super) fn drop_blobs(&self) {
        let blobs = std::mem::take(&mut self.events.locked().1);
        drop(blobs);
    }
}

impl ContextEvents for Ears {
    fn fence_retired(&self, ring: u8, fence: u64) {
        self.note(Event::Retired(ring, fence), None);
    }

    fn blob_created(&self, resource: u32, result: Result<Blob, BlobError>) {
        match result {
            Ok(blob) => self.note(Event::Blob(resource, blob.memory.len()), Some(blob)),
            Err(error) => self.note(Event::Refused(resource, error), None),
        }
    }

    fn lost(&self, reason: &str) {
        self.note(Event::Lost(reason.to_owned()), None);
    }
}

/// Contexts whose workers are fakes.
pub(super) struct Stage {
    pub(super) contexts: IsolatedContexts,
    pub(super) yard: Arc<Yard>,
    born: mpsc::Receiver<Fake>,
}

impl Stage {
    pub(super) fn new(options: &RendererOptions) -> Self {
        let (sender, born) = mpsc::channel();
        let yard = Arc::new(Yard {
            living: Mutex::default(),
            killed: Mutex::default(),
            loaded: Mutex::default(),
            most: Mutex::default(),
            is_stubborn: Mutex::default(),
            born: Mutex::new(sender),
        });
        let starter = Arc::clone(&yard) as Arc<dyn Starter>;
        Self {
            contexts: IsolatedContexts::with(starter, [7; CAPSET_SIZE], FINDINGS.to_vec(), options),
            yard,
            born,
        }
    }

    /// The next worker that has started.
    #[track_caller]
    pub(super) fn fake(&self) -> Fake {
        self.born.recv_timeout(PATIENCE).expect("no worker starts")
    }

    /// The same, if there is one.
    pub(super) fn try_fake(&self) -> Option<Fake> {
        self.born.try_recv().ok()
    }

    #[track_caller]
    pub(super) fn create(&self, id: u32, ears: &Arc<Ears>) -> Arc<dyn VenusContext> {
        let events = Arc::clone(ears) as Arc<dyn ContextEvents>;
        match self
            .contexts
            .create_context(id, "a\nprogram", DisplayServer::NeedsCopies, events)
        {
            Ok(context) => context,
            Err(error) => panic!("no context: {error}"),
        }
    }

    /// A context, and its worker. Both sides know that it is ready and a context.
    #[track_caller]
    pub(super) fn begin(&self, ears: &Arc<Ears>) -> (Arc<dyn VenusContext>, Fake) {
        let mut fake = self.fake();
        fake.say(FromWorker::Ready);
        let context = self.create(3, ears);
        assert!(matches!(fake.hear(), ToWorker::Configure(_)));
        let begin = fake.hear();
        assert!(
            matches!(&begin, ToWorker::Begin { id: 3, name, server: DisplayServer::NeedsCopies } if name == "aprogram"),
            "{begin:?}"
        );
        until("it is known to be ready", || {
            self.yard.loaded.locked().contains(&fake.number)
        });
        (context, fake)
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new(&RendererOptions::default())
    }
}

/// A request for a blob of this size.
pub(super) fn request(size: u64) -> BlobRequest {
    BlobRequest {
        blob_id: 0,
        size,
        mappable: true,
        shareable: false,
        cross_device: false,
    }
}

/// Memory as a worker makes it.
pub(super) fn memory(size: u64) -> (SharedMemory, OwnedFd) {
    let memory = SharedMemory::create(size).unwrap();
    let fd = memory.fd().unwrap().try_clone_to_owned().unwrap();
    (memory, fd)
}

/// A frame of a message, as bytes.
pub(super) fn frame(message: &impl Message, fds: u16) -> Vec<u8> {
    let mut fields = Vec::new();
    message.encode(&mut fields);
    fields.extend_from_slice(message.tail());
    let mut bytes = u32::try_from(fields.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(fds.to_le_bytes());
    bytes.extend([message.kind(), 0]);
    bytes.extend(fields);
    bytes
}

/// A file with this text, in guest memory's place.
pub(super) fn file(bytes: u64) -> Arc<std::fs::File> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    Arc::new(file)
}

/// A descriptor, to be sent.
pub(super) fn fd(of: &impl AsFd) -> BorrowedFd<'_> {
    of.as_fd()
}
