//! Fuzzes the vtest server's client: arbitrary bytes on its socket, over a renderer that answers at
//! once. `../run SECONDS` builds and runs it.
#![no_main]

#[path = "../../../src/vtest/client.rs"]
mod client;
#[path = "../../../src/vtest/connection.rs"]
mod connection;
#[allow(dead_code, reason = "a part of the program that vtest does not use")]
#[path = "../../../src/contexts.rs"]
mod contexts;
#[path = "../../../src/vtest/platform.rs"]
mod platform;
#[path = "../../../src/vtest/sync.rs"]
mod sync;
#[allow(dead_code, reason = "what only tests use")]
#[path = "../../../src/vtest/wire.rs"]
mod wire;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use client::Client;
use contexts::{CAPSET_SIZE, Contexts, TraceError, VenusContext};
use hesper_system::budget::{Charge, Pool};
use hesper_venus::{
    Blob, BlobError, BlobRequest, Caching, ContextEvents, Counters, DisplayServer, Error, GuestPages, SharedMemory,
};
use libfuzzer_sys::fuzz_target;
use wire::number;

/// A renderer that makes small blobs, and retires fences one call late.
struct Renderer;

struct Context {
    events: Arc<dyn ContextEvents>,
    /// A fence that is not retired yet, and its ring.
    open: AtomicU64,
}

impl Contexts for Renderer {
    fn capset(&self) -> [u8; CAPSET_SIZE] {
        [7; CAPSET_SIZE]
    }

    fn create_context(
        &self,
        _id: u32,
        _name: &str,
        _server: DisplayServer,
        events: Arc<dyn ContextEvents>,
    ) -> Result<Arc<dyn VenusContext>, String> {
        let open = AtomicU64::new(u64::MAX);
        Ok(Arc::new(Context { events, open }))
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn start_trace(&self) -> Result<(), TraceError> {
        Err(TraceError::NotStarted)
    }

    fn stop_trace(&self) -> Result<Vec<u8>, TraceError> {
        Err(TraceError::NotStarted)
    }

    fn settle(&self) {}
}

impl VenusContext for Context {
    fn submit(&self, commands: Vec<u8>, _charge: Charge) {
        if commands.starts_with(b"lost") {
            self.events.lost("the input says so");
        }
    }

    fn fence(&self, ring: u8, fence: u64) {
        let before = self.open.swap(fence, Ordering::Relaxed);
        if before != u64::MAX {
            self.events.fence_retired(ring, before);
        }
    }

    fn create_blob(&self, resource: u32, request: BlobRequest) {
        let made = match request.size {
            ..0x1_0000 => SharedMemory::create(request.size).ok(),
            _ => None,
        };
        let made = made.map(|memory| Blob {
            memory: Arc::new(memory),
            caching: Caching::Cached,
        });
        let refused = || BlobError::OutOfMemory("too large for a fuzzer".to_owned());
        self.events.blob_created(resource, made.ok_or_else(refused));
    }

    fn attach_resource(&self, _resource: u32, _blob: &Blob) {}

    fn attach_guest_memory(&self, _resource: u32, _pages: &[GuestPages]) -> Result<(), Error> {
        Ok(())
    }

    fn detach_resource(&self, _resource: u32) {}
}

/// A command of these words.
fn command(number: u32, words: &[u32]) -> Vec<u8> {
    let header = [words.len() as u32, number];
    let all = header.iter().chain(words);
    all.flat_map(|word| word.to_le_bytes()).collect()
}

/// Sessions as Mesa's driver has them.
fn seeds() -> Vec<Vec<u8>> {
    let mut name = vec![6, 0, 0, 0, 8, 0, 0, 0];
    name.extend_from_slice(b"cube\0\0");
    let start = [
        name,
        command(number::PING_PROTOCOL_VERSION, &[]),
        command(number::BUSY_WAIT, &[0, 0]),
        command(number::PROTOCOL_VERSION, &[3]),
        command(number::GET_PARAM, &[1]),
        command(number::GET_CAPSET, &[4, 0]),
        command(number::CONTEXT_INIT, &[4]),
    ]
    .concat();
    let work = [
        command(number::RESOURCE_CREATE_BLOB, &[2, 1, 4096, 0, 0, 0]),
        command(number::SYNC_CREATE, &[0, 0]),
        command(number::SYNC_CREATE, &[5, 0]),
        // One batch of two words, then a point: object 1 reaches 9.
        command(
            number::SUBMIT_CMD2,
            &[1, 1, 7, 2, 9, 1, 1, 0xaa, 0xbb, 1, 9, 0],
        ),
        command(number::SYNC_WAIT, &[0, 0, 1, 9, 0]),
        command(number::SYNC_READ, &[1]),
        command(number::SYNC_WRITE, &[2, 6, 0]),
        command(number::SYNC_UNREF, &[2]),
        command(number::RESOURCE_UNREF, &[1]),
    ];
    (0..=work.len())
        .map(|most| [&start[..], &work[..most].concat()].concat())
        .collect()
}

/// Writes the seeds into the directory that the run script names, before the fuzzer reads it.
fn prepare() {
    // Rust programs ignore this signal, and libFuzzer's `main` is not Rust's.
    // SAFETY: this changes what a signal does, and no handler is called.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let Ok(directory) = std::env::var("HESPER_FUZZ_SEEDS") else {
        return;
    };
    for (index, seed) in seeds().iter().enumerate() {
        let path = Path::new(&directory).join(format!("seed-{index}"));
        if let Err(error) = std::fs::write(&path, seed) {
            eprintln!("cannot write the seed {}: {error}", path.display());
        }
    }
}

/// What all clients' commands are charged to.
static BYTES: LazyLock<Arc<Pool>> = LazyLock::new(|| Pool::new(1 << 20));

fuzz_target!(init: prepare(), |bytes: &[u8]| {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    let contexts: Arc<dyn Contexts> = Arc::new(Renderer);
    let client = Client::new(1, theirs, contexts, &BYTES).expect("a client");
    let mut answers = ours.try_clone().expect("a second descriptor");
    let serving = thread::spawn(move || client.serve());
    let reading = thread::spawn(move || {
        let mut buffer = [0; 4096];
        // A read that gets descriptors closes them.
        while answers.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    // The client may have ended the connection.
    let _ = ours.write_all(bytes);
    let _ = ours.shutdown(Shutdown::Write);
    serving.join().expect("the client panicked");
    drop(ours);
    reading.join().expect("the reader panicked");
    assert_eq!(BYTES.used(), 0);
});
