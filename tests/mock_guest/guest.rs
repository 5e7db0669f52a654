//! A guest's driver: a Venus context of a [`Machine`], which speaks with the protocol crate's encoders.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::time::Instant;

use hesper_venus_protocol::runtime::Command;
use hesper_venus_protocol::{command, guest, vk};
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::machine::{Machine, PATIENCE, Ticket};

pub const CAPSET_VENUS: u32 = 4;
/// Size of the memory for replies.
const REPLIES: u64 = 64 << 10;

/// Ids of a guest's objects, and how they are made.
#[path = "../mocks/venus/src/guest.rs"]
pub mod gpu;

/// A machine that several contexts share.
#[derive(Clone)]
pub struct Vm(Rc<RefCell<Machine>>);

impl Vm {
    pub fn new(machine: Machine) -> Self {
        Self(Rc::new(RefCell::new(machine)))
    }

    pub fn machine(&self) -> RefMut<'_, Machine> {
        self.0.borrow_mut()
    }
}

/// A blob in the window.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    pub resource: u32,
    pub offset: u64,
}

/// A context and what its driver knows of it.
pub struct Guest {
    pub vm: Vm,
    pub context: u32,
    replies: Mapped,
    next_id: Cell<u64>,
    next_fence: Cell<u64>,
}

impl Guest {
    /// A context with memory for replies.
    pub fn new(vm: &Vm, context: u32) -> Self {
        let name = format!("mock-{context}");
        vm.machine()
            .ok(&Request::create_context(context, CAPSET_VENUS, &name));
        let replies = map_new(vm, context, 0, REPLIES);
        Self {
            vm: vm.clone(),
            context,
            replies,
            next_id: Cell::new(1),
            next_fence: Cell::new(1),
        }
    }

    /// A fresh object id.
    pub fn id(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.next_id.get() - 1
    }

    /// Makes, attaches and maps a blob; 0 asks for fresh memory.
    #[track_caller]
    pub fn map(&self, blob_id: u64, size: u64) -> Mapped {
        map_new(&self.vm, self.context, blob_id, size)
    }

    /// Submits bytes.
    pub fn submit_bytes(&self, commands: &[u8]) -> Ticket {
        let request = Request::submit(self.context, commands);
        self.vm.machine().post(&request)
    }

    /// Makes a fence on a ring.
    pub fn fence(&self, ring: u8) -> Ticket {
        self.next_fence.set(self.next_fence.get() + 1);
        let request = Request::submit(self.context, &[]).ring_fence(ring, self.next_fence.get());
        self.vm.machine().post(&request)
    }

    /// Makes a fence on a ring and waits for it.
    #[track_caller]
    pub fn wait_fence(&self, ring: u8) {
        let ticket = self.fence(ring);
        let answer = self.vm.machine().answer(ticket);
        assert_eq!(answer.kind(), wire::RESP_OK_NODATA);
    }

    /// Sends a command without a reply.
    pub fn send<'a, C: Command<'a>>(&self, command: &C) {
        self.submit_bytes(&bytes(command));
    }

    /// Sends a command, waits for it and decodes its reply. Gives back the return value's bits.
    #[track_caller]
    pub fn call<'a, C: Command<'a>>(&self, mut command: C) -> u64 {
        let mut stream = reply_stream(self.replies.resource, 0, REPLIES as usize);
        // SAFETY: the tests' arguments point to live values.
        unsafe { guest::encode(&command, true, &mut stream) };
        self.submit_bytes(&stream);
        self.wait_fence(0);
        let reply = self
            .vm
            .machine()
            .window()
            .read(self.replies.offset, REPLIES as usize);
        // SAFETY: as above.
        let (value, _) = unsafe { guest::decode_reply(&mut command, &reply) }.unwrap();
        value
    }

    /// The instance's version: the shortest proof that the context is served.
    #[track_caller]
    pub fn version(&self) -> u32 {
        let mut version = 0;
        self.call(command::EnumerateInstanceVersion {
            p_api_version: &mut version,
        });
        version
    }

    /// Fills a fresh buffer and looks at it through the window: the proof that the context renders.
    #[track_caller]
    pub fn renders(&self, gpu: &gpu::Gpu, pattern: u32) {
        let (buffer, memory) = self.buffer(gpu, 4096);
        // The memory is one of the host's pages at least, and so is the blob.
        let size = self.vm.machine().whole_pages(4096);
        let mapped = self.map(memory, size);
        let (commands, _) = self.fill(gpu, buffer, pattern);
        self.submit(gpu, &[commands]);
        self.wait_fence(gpu::RING);
        let seen = self.vm.machine().window().read(mapped.offset, 4096);
        assert!(seen.chunks(4).all(|word| word == pattern.to_le_bytes()));
        let mut machine = self.vm.machine();
        machine.ok(&Request::unmap_blob(mapped.resource));
        machine.ok(&Request::unref(mapped.resource));
    }
}

/// The bytes of a command without a reply.
pub fn bytes<'a, C: Command<'a>>(command: &C) -> Vec<u8> {
    let mut stream = Vec::new();
    // SAFETY: the tests' arguments point to live values.
    unsafe { guest::encode(command, false, &mut stream) };
    stream
}

/// The bytes that say where replies go.
pub fn reply_stream(resource: u32, offset: usize, size: usize) -> Vec<u8> {
    bytes(&command::SetReplyCommandStreamMESA {
        p_stream: &mut vk::CommandStreamDescriptionMESA {
            resource_id: resource,
            offset,
            size,
        },
    })
}

#[track_caller]
fn map_new(vm: &Vm, context: u32, blob_id: u64, size: u64) -> Mapped {
    let mut machine = vm.machine();
    let (resource, offset) = (machine.resource(), machine.offset(size));
    machine.ok(&Request::host_blob(context, resource, blob_id, size));
    machine.ok(&Request::attach(context, resource));
    let code = machine.code(&Request::map_blob(resource, offset));
    assert_eq!(code, wire::RESP_OK_MAP_INFO, "{code:#x}");
    Mapped { resource, offset }
}

/// A ring as a guest's driver has it: head, tail, status and buffer in one resource.
pub struct Ring<'g> {
    guest: &'g Guest,
    id: u64,
    mapped: Mapped,
    tail: u32,
}

const BUFFER: usize = 4096;
const IDLE: u32 = 1;

impl<'g> Ring<'g> {
    pub fn new(guest: &'g Guest, id: u64) -> Self {
        let size = guest.vm.machine().whole_pages(8192);
        let mapped = guest.map(0, size);
        let mut info = vk::RingCreateInfoMESA {
            resource_id: mapped.resource,
            size: 192 + BUFFER,
            idle_timeout: 1_000_000,
            tail_offset: 64,
            status_offset: 128,
            buffer_offset: 192,
            buffer_size: BUFFER,
            ..Default::default()
        };
        guest.send(&command::CreateRingMESA {
            ring: id,
            p_create_info: &mut info,
        });
        guest.wait_fence(0);
        Self {
            guest,
            id,
            mapped,
            tail: 0,
        }
    }

    pub fn head(&self) -> u32 {
        self.guest.vm.machine().window().word(self.mapped.offset)
    }

    /// Bytes that fit until the ring is full.
    pub fn room(&self) -> usize {
        BUFFER - self.tail.wrapping_sub(self.head()) as usize
    }

    /// Writes commands, and notifies if the ring sleeps.
    pub fn write(&mut self, stream: &[u8]) {
        assert!(stream.len() <= self.room());
        let status = {
            let machine = self.guest.vm.machine();
            let window = machine.window();
            for byte in stream {
                let at = 192 + u64::from(self.tail & (BUFFER as u32 - 1));
                window.write(self.mapped.offset + at, &[*byte]);
                self.tail = self.tail.wrapping_add(1);
            }
            window.set_word(self.mapped.offset + 64, self.tail);
            window.word(self.mapped.offset + 128)
        };
        if status & IDLE != 0 {
            self.guest.send(&command::NotifyRingMESA {
                ring: self.id,
                seqno: self.tail,
                flags: vk::RingNotifyFlagsMESA::default(),
            });
        }
    }

    /// Waits until everything is consumed.
    #[track_caller]
    pub fn wait(&self) {
        let until = Instant::now() + PATIENCE;
        while self.head() != self.tail {
            assert!(Instant::now() < until, "the ring does not go on");
            std::thread::yield_now();
        }
    }
}
