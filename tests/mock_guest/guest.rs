//! A guest's driver: a Venus context of a [`Machine`].

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;

use hesper_mock_frontend::{Machine, Ticket};
use hesper_mock_venus::{Gpu, Memory, RING, Shared, VenusGuest};
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

pub const CAPSET_VENUS: u32 = 4;

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

/// The bytes of a mapped blob.
pub struct InWindow {
    vm: Vm,
    offset: u64,
}

impl Memory for InWindow {
    fn read(&self, offset: usize, bytes: &mut [u8]) {
        let at = self.offset + offset as u64;
        bytes.copy_from_slice(&self.vm.machine().window().read(at, bytes.len()));
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let at = self.offset + offset as u64;
        self.vm.machine().window().write(at, bytes);
    }

    fn word(&self, offset: usize) -> u32 {
        self.vm.machine().window().word(self.offset + offset as u64)
    }

    fn set_word(&self, offset: usize, word: u32) {
        let at = self.offset + offset as u64;
        self.vm.machine().window().set_word(at, word);
    }
}

/// A context and what its driver knows of it.
pub struct Guest {
    pub vm: Vm,
    pub context: u32,
    replies: Shared<InWindow>,
    next_id: Cell<u64>,
    next_fence: Cell<u64>,
}

impl Guest {
    /// A context with memory for replies.
    pub fn new(vm: &Vm, context: u32) -> Self {
        let name = format!("mock-{context}");
        vm.machine()
            .ok(&Request::create_context(context, CAPSET_VENUS, &name));
        Self::of(vm, context)
    }

    /// The guest of a context that is made already.
    pub fn of(vm: &Vm, context: u32) -> Self {
        let mapped = map_new(vm, context, 0, Self::REPLIES as u64);
        let replies = in_window(vm, mapped);
        Self {
            vm: vm.clone(),
            context,
            replies,
            next_id: Cell::new(1),
            next_fence: Cell::new(1),
        }
    }

    /// Makes, attaches and maps a blob; 0 asks for fresh memory.
    #[track_caller]
    pub fn map(&self, blob_id: u64, size: u64) -> Mapped {
        map_new(&self.vm, self.context, blob_id, size)
    }

    /// Makes a fence on a ring.
    pub fn fence(&self, ring: u8) -> Ticket {
        self.next_fence.set(self.next_fence.get() + 1);
        let request = Request::submit(self.context, &[]).ring_fence(ring, self.next_fence.get());
        self.vm.machine().post(&request)
    }

    /// Fills a fresh buffer and reads it through the window, which proves that the context renders.
    #[track_caller]
    pub fn renders(&self, gpu: &Gpu, pattern: u32) {
        let (buffer, memory) = self.buffer(gpu, 4096);
        // The memory has at least one page of the host, and so has the blob.
        let size = self.vm.machine().whole_pages(4096);
        let mapped = self.map(memory, size);
        let (commands, _) = self.fill(gpu, buffer, pattern);
        self.submit(gpu, &[commands]);
        self.wait_fence(RING);
        let seen = self.vm.machine().window().read(mapped.offset, 4096);
        assert!(seen.chunks(4).all(|word| word == pattern.to_le_bytes()));
        let mut machine = self.vm.machine();
        machine.ok(&Request::unmap_blob(mapped.resource));
        machine.ok(&Request::unref(mapped.resource));
    }
}

impl VenusGuest for Guest {
    type Memory = InWindow;
    const REPLIES: usize = 64 << 10;

    fn id(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.next_id.get() - 1
    }

    fn submit_bytes(&self, stream: &[u8]) {
        let request = Request::submit(self.context, stream);
        self.vm.machine().post(&request);
    }

    #[track_caller]
    fn wait_fence(&self, ring: u8) {
        let ticket = self.fence(ring);
        let answer = self.vm.machine().answer(ticket);
        assert_eq!(answer.kind(), wire::RESP_OK_NODATA);
    }

    fn share(&self, size: usize) -> Shared<InWindow> {
        let size = self.vm.machine().whole_pages(size as u64);
        in_window(&self.vm, self.map(0, size))
    }

    fn replies(&self) -> &Shared<InWindow> {
        &self.replies
    }
}

fn in_window(vm: &Vm, mapped: Mapped) -> Shared<InWindow> {
    let (vm, offset) = (vm.clone(), mapped.offset);
    let memory = InWindow { vm, offset };
    Shared {
        resource: mapped.resource,
        memory,
    }
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
