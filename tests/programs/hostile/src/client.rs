//! A context of the attacker.

use std::sync::atomic::{AtomicU64, Ordering};

use hesper_mock_venus::{Memory, Shared, VenusGuest};
use hesper_test_guest::virtgpu;

/// The Venus capability set.
const VENUS: u64 = 4;

/// An attack: its name, and what it does.
pub(crate) type Attack = (&'static str, fn());

/// Memory of a blob.
pub(crate) struct BlobMemory(virtgpu::Blob);

impl Memory for BlobMemory {
    fn read(&self, offset: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.read()[offset..][..bytes.len()]);
    }
    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(self.0.write(offset, bytes), "outside of a blob");
    }
    fn word(&self, offset: usize) -> u32 {
        self.0.word(offset).unwrap().load(Ordering::SeqCst)
    }
    fn set_word(&self, offset: usize, word: u32) {
        self.0.word(offset).unwrap().store(word, Ordering::SeqCst);
    }
}

/// A context of the kernel's driver.
pub(crate) struct Client {
    context: virtgpu::Context,
    replies: Shared<BlobMemory>,
    next: AtomicU64,
}

impl Client {
    pub(crate) fn new() -> Self {
        let context = virtgpu::Context::open(VENUS).expect("a Venus context");
        let replies = shared(&context, Self::REPLIES);
        Self {
            context,
            replies,
            next: AtomicU64::new(1),
        }
    }

    /// Submits without asking whether it went well: the host may refuse it.
    pub(crate) fn try_submit(&self, stream: &[u8]) -> bool {
        self.context.submit(stream).is_ok()
    }

    /// Submits, and waits until the host has consumed it or has ended the context.
    pub(crate) fn attack(&self, stream: &[u8]) {
        // The fence retires in either case. If it does not, that is the attack's success.
        self.context
            .submit_and_wait(stream)
            .expect("the host answers");
    }

    /// The same with a fence of the queue.
    pub(crate) fn attack_queue(&self, stream: &[u8]) {
        self.context.poll(stream).expect("the host answers");
    }

    /// Makes a blob, if the host does.
    pub(crate) fn blob(&self) -> std::io::Result<()> {
        self.context.host_blob(0, 4096).map(drop)
    }
}

fn shared(context: &virtgpu::Context, size: usize) -> Shared<BlobMemory> {
    let blob = context.host_blob(0, size as u64).expect("a blob");
    Shared {
        resource: blob.resource,
        memory: BlobMemory(blob),
    }
}

impl VenusGuest for Client {
    type Memory = BlobMemory;
    const REPLIES: usize = 16 << 10;

    fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
    fn submit_bytes(&self, stream: &[u8]) {
        self.context.submit(stream).expect("a submit");
    }
    fn wait_fence(&self, _ring: u8) {
        self.context.submit_and_wait(&[]).expect("a fence");
    }
    fn share(&self, size: usize) -> Shared<BlobMemory> {
        shared(&self.context, size.next_multiple_of(4096))
    }
    fn replies(&self) -> &Shared<BlobMemory> {
        &self.replies
    }
}
