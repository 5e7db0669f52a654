//! A worker's process, and the main process and the guest that the test is for it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use hesper_mock_venus::{Memory, PATIENCE, Shared, VenusGuest};
use hesper_venus::trace::Trace;
use hesper_venus::{
    Bells, BlobRequest, DisplayServer, Driver, RendererOptions, Report, Resource, SharedMemory,
};

use super::super::super::channel::{LARGEST_FROM_WORKER, ReceiveError, Receiver, Sender};
use super::super::super::message::{Budget, FromWorker, ToWorker};
use super::super::super::options::WorkerOptions;
use super::library;
use crate::sandbox::SandboxMode;

/// The variable with what [`given`] reads.
const GIVEN: &str = "HESPER_TEST_WORKER";

/// Sockets and options of the worker that this process is.
pub(super) fn given() -> (OwnedFd, OwnedFd, WorkerOptions) {
    let given = std::env::var(GIVEN).expect("only other cases start this one");
    let mut parts = given.splitn(3, ' ');
    let mut fd = || {
        let number = parts.next().unwrap().parse().unwrap();
        // SAFETY: whoever started this process left this descriptor open for it alone.
        unsafe { OwnedFd::from_raw_fd(number) }
    };
    let (socket, budget) = (fd(), fd());
    let options = serde_json::from_str(parts.next().unwrap()).unwrap();
    (socket, budget, options)
}

/// Options for the null driver.
pub(super) fn options() -> WorkerOptions {
    options_with(|_| ())
}

/// The same with a change.
pub(super) fn options_with(change: impl FnOnce(&mut RendererOptions)) -> WorkerOptions {
    WorkerOptions::new(&renderer(change), None)
}

/// The same with a sandbox.
pub(super) fn options_in(sandbox: SandboxMode) -> WorkerOptions {
    WorkerOptions::new(&renderer(|_| ()), Some(sandbox))
}

fn renderer(change: impl FnOnce(&mut RendererOptions)) -> RendererOptions {
    let mut options = RendererOptions {
        driver: Driver::Library(library::built("hesper_null_driver")),
        ..RendererOptions::default()
    };
    change(&mut options);
    options
}

/// Grants everything, but for a limit on shared memory.
pub(super) struct Clerk {
    shared_bytes: u64,
}

impl Default for Clerk {
    fn default() -> Self {
        Self::with_shared_bytes(u64::MAX)
    }
}

impl Clerk {
    pub(super) fn with_shared_bytes(shared_bytes: u64) -> Self {
        Self { shared_bytes }
    }

    /// Answers until the worker is gone.
    fn serve(mut self, socket: UnixStream) {
        let socket = Arc::new(socket);
        let sender = Sender::new(Arc::clone(&socket));
        let mut receiver = Receiver::new(socket, LARGEST_FROM_WORKER);
        while let Ok(frame) = receiver.receive() {
            let amount = match frame.decode::<Budget>().unwrap().0 {
                Budget::Ask { pool, amount } if pool == Resource::SharedBytes as u8 => {
                    match self.shared_bytes.checked_sub(amount) {
                        Some(left) => {
                            self.shared_bytes = left;
                            amount
                        }
                        None => 0,
                    }
                }
                Budget::Ask { amount, .. } => amount,
                Budget::Left { .. } => self.shared_bytes,
                Budget::GiveBack { pool, amount } => {
                    if pool == Resource::SharedBytes as u8 {
                        self.shared_bytes = self.shared_bytes.saturating_add(amount);
                    }
                    continue;
                }
                Budget::Granted { .. } => panic!("a worker grants nothing"),
            };
            // An error means that the worker is gone.
            let _ = sender.send(&Budget::Granted { amount }, &[]);
        }
    }
}

/// A worker's process, which is killed on drop.
pub(super) struct Process {
    child: RefCell<Child>,
    socket: Arc<UnixStream>,
    /// What wakes the threads of its rings.
    pub(super) bells: Bells,
    sender: Sender,
    receiver: RefCell<Receiver>,
    /// What it has told.
    seen: RefCell<Vec<FromWorker>>,
    /// The places of those that were waited for.
    waited: RefCell<HashSet<usize>>,
    fds: RefCell<Vec<OwnedFd>>,
}

impl Process {
    pub(super) fn start(options: &WorkerOptions, clerk: Clerk) -> Self {
        let (socket, far) = UnixStream::pair().unwrap();
        let (budget, far_budget) = UnixStream::pair().unwrap();
        let json = serde_json::to_string(options).unwrap();
        let fds = [far.as_raw_fd(), far_budget.as_raw_fd()];
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
            .arg("isolation::worker::tests::as_a_worker")
            .env(GIVEN, format!("{} {} {json}", fds[0], fds[1]))
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // SAFETY: the descriptors are open, and the calls allocate nothing.
        unsafe {
            command.pre_exec(move || {
                for fd in fds {
                    let fd = BorrowedFd::borrow_raw(fd);
                    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
                }
                Ok(())
            })
        };
        let child = command.spawn().unwrap();
        let bells = Bells::create().unwrap();
        thread::spawn(move || clerk.serve(budget));
        let socket = Arc::new(socket);
        let process = Self {
            child: RefCell::new(child),
            bells,
            sender: Sender::new(Arc::clone(&socket)),
            receiver: RefCell::new(Receiver::new(Arc::clone(&socket), LARGEST_FROM_WORKER)),
            socket,
            seen: RefCell::default(),
            waited: RefCell::default(),
            fds: RefCell::default(),
        };
        let report = Report::create().unwrap();
        let trace = Trace::create().unwrap();
        process.send(
            ToWorker::Configure(Vec::new()),
            &[report.fd(), trace.fd(), process.bells.fd()],
        );
        process
    }

    /// Makes it a context.
    pub(super) fn begin(self, id: u32, name: &str) -> Guest {
        let name = name.to_owned();
        self.send(
            ToWorker::Begin {
                id,
                name,
                server: DisplayServer::Unknown,
            },
            &[],
        );
        Guest::new(self)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.borrow().id()
    }

    pub(super) fn send(&self, message: ToWorker, fds: &[BorrowedFd<'_>]) {
        // A worker that has ended is looked at by the caller.
        let _ = self.sender.send(&message, fds);
    }

    /// Sends bytes that need not be a message.
    pub(super) fn send_bytes(&self, bytes: &[u8]) {
        (&*self.socket).write_all(bytes).unwrap();
    }

    /// Reads what has come. False when the worker is gone.
    pub(super) fn read(&self) -> bool {
        let mut receiver = self.receiver.borrow_mut();
        loop {
            match receiver.try_receive() {
                Ok(Some(frame)) => {
                    let (message, fds) = frame.decode::<FromWorker>().unwrap();
                    self.fds.borrow_mut().extend(fds);
                    self.seen.borrow_mut().push(message);
                }
                Ok(None) => return true,
                Err(ReceiveError::Closed) => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What it has told until now.
    pub(super) fn seen(&self) -> Vec<FromWorker> {
        self.read();
        self.seen.borrow().clone()
    }

    /// Waits for a message that nobody waited for.
    #[track_caller]
    pub(super) fn wait_for(&self, what: &str, is_it: impl Fn(&FromWorker) -> bool) -> FromWorker {
        let end = Instant::now() + PATIENCE;
        loop {
            let is_open = self.read();
            let seen = self.seen.borrow();
            let mut waited = self.waited.borrow_mut();
            let mut new = seen.iter().enumerate();
            let is_new = |at: &usize| !waited.contains(at);
            if let Some((at, message)) = new.find(|(at, one)| is_new(at) && is_it(one)) {
                waited.insert(at);
                return message.clone();
            }
            assert!(is_open, "{what}: the worker is gone after {seen:?}");
            assert!(Instant::now() < end, "{what}: only {seen:?}");
            drop(seen);
            thread::yield_now();
        }
    }

    /// The descriptors that have come.
    pub(super) fn take_fds(&self) -> Vec<OwnedFd> {
        self.fds.take()
    }

    /// Waits for its end; `None` when a signal ended it.
    pub(super) fn ended(&self) -> Option<i32> {
        // It waits while it cannot send.
        while self.read() {
            thread::yield_now();
        }
        self.child.borrow_mut().wait().unwrap().code()
    }

    /// Closes the socket and waits for its end.
    pub(super) fn hang_up(&self) -> Option<i32> {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        self.child.borrow_mut().wait().unwrap().code()
    }

    pub(super) fn kill(&self) {
        let mut child = self.child.borrow_mut();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // It may have ended.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A worker with a context, and what a guest's driver knows of it.
pub(super) struct Guest {
    pub(super) process: Process,
    replies: Option<Shared<SharedBlob>>,
    next: Cell<u32>,
}

impl Guest {
    fn new(process: Process) -> Self {
        let mut guest = Self {
            process,
            replies: None,
            next: Cell::new(1),
        };
        guest.replies = Some(guest.share(Self::REPLIES));
        guest
    }

    fn number(&self) -> u32 {
        self.next.replace(self.next.get() + 1)
    }

    /// Makes a blob.
    pub(super) fn blob(&self, size: u64) -> (u32, Arc<SharedMemory>) {
        let (resource, _, memory) = self.blob_of(0, size);
        (resource, memory)
    }

    /// Makes a blob of a memory object: its resource, the worker's number for it, its memory.
    pub(super) fn blob_of(&self, blob_id: u64, size: u64) -> (u32, u64, Arc<SharedMemory>) {
        let resource = self.number();
        let request = BlobRequest {
            blob_id,
            size,
            mappable: true,
            shareable: true,
            cross_device: false,
        };
        self.process.take_fds();
        self.process
            .send(ToWorker::CreateBlob { resource, request }, &[]);
        let created = self.process.wait_for("a blob", |message| {
            matches!(message, FromWorker::BlobCreated { resource: made, .. } if *made == resource)
        });
        let FromWorker::BlobCreated { memory, serial, .. } = created else {
            panic!("{created:?}")
        };
        let fd = Arc::new(self.process.take_fds().pop().unwrap());
        let mapped = SharedMemory::from_untrusted(fd, memory.offset, memory.size, Box::new(()));
        (resource, serial, Arc::new(mapped.unwrap()))
    }
}

/// A blob, as the guest sees its memory.
pub(super) struct SharedBlob(Arc<SharedMemory>);

impl Memory for SharedBlob {
    fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.0.read(offset, bytes).unwrap();
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.0.write(offset, bytes).unwrap();
    }

    fn word(&self, offset: usize) -> u32 {
        self.0.word(offset).unwrap().load(Ordering::SeqCst)
    }

    fn set_word(&self, offset: usize, word: u32) {
        self.0.word(offset).unwrap().store(word, Ordering::SeqCst);
    }
}

impl VenusGuest for Guest {
    type Memory = SharedBlob;
    const REPLIES: usize = 1 << 16;

    fn id(&self) -> u64 {
        self.number().into()
    }

    fn submit_bytes(&self, stream: &[u8]) {
        self.process.send(ToWorker::Submit(stream.to_vec()), &[]);
    }

    fn wait_fence(&self, ring: u8) {
        let fence = self.number().into();
        self.process.send(ToWorker::Fence { ring, fence }, &[]);
        let retired = FromWorker::FenceRetired { ring, fence };
        self.process
            .wait_for("a fence", |message| *message == retired);
    }

    fn share(&self, size: usize) -> Shared<SharedBlob> {
        let (resource, memory) = self.blob(size as u64);
        let memory = SharedBlob(memory);
        Shared { resource, memory }
    }

    fn replies(&self) -> &Shared<SharedBlob> {
        self.replies.as_ref().unwrap()
    }
}
