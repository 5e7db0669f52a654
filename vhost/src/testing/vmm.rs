//! A VMM that sends arbitrary messages: the fuzzer runs this, and so does a normal test with random
//! input.
//!
//! [`run`] reads its input as a list of steps: a message with its descriptors, bytes for the
//! guest's memory, a kick. A real [`Server`] serves them over a socket pair. It must neither panic
//! nor hang, whatever comes.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use zerocopy::IntoBytes;

use super::{FakeRenderer, Recorder, options};
use crate::device::Device;
use crate::system::event;
use crate::transport::{Error, GpuBackend, GpuSocketScreen, Server};

/// Bytes of the guest's memory.
const MEMORY: u64 = 1 << 20;

/// A step that is not a message: bytes for the guest's memory.
const WRITE: u8 = 0xfe;
/// A step that is not a message: both queues are kicked.
const KICK: u8 = 0xff;

/// Kinds of descriptors that a message brings.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Memory,
    ShortMemory,
    Event,
    Socket,
    ClosedSocket,
    Pipe,
    Device,
}

const KINDS: [Kind; 7] = [
    Kind::Memory,
    Kind::ShortMemory,
    Kind::Event,
    Kind::Socket,
    Kind::ClosedSocket,
    Kind::Pipe,
    Kind::Device,
];

/// What the VMM has.
struct Vmm {
    stream: UnixStream,
    memory: File,
    short_memory: File,
    /// Ends of pipes whose other ends the server got as events, and sockets.
    kept: Vec<OwnedFd>,
    kicks: Vec<OwnedFd>,
}

/// Runs one input.
///
/// # Errors
/// How the VMM broke the protocol.
pub fn run(input: &[u8]) -> Result<(), String> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let in_qemu = input.first().is_some_and(|first| first & 1 == 1);
    let mut server = Server::from_fd(theirs.into()).unwrap();
    let serving = thread::spawn(move || server.serve(&mut || backend(in_qemu)));
    let mut vmm = Vmm {
        stream: ours,
        memory: file(MEMORY),
        short_memory: file(4096),
        kept: Vec::new(),
        kicks: Vec::new(),
    };
    // Answers fill the socket, and a server that cannot answer would wait.
    let mut answers = vmm.stream.try_clone().unwrap();
    let reading = thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    let mut input = Bytes(input.get(1..).unwrap_or_default());
    while !input.0.is_empty() && !serving.is_finished() {
        vmm.step(&mut input);
    }
    let _ = vmm.stream.shutdown(std::net::Shutdown::Write);
    vmm.kept.clear();
    let served = serving.join().unwrap();
    drop(vmm);
    let _ = reading.join();
    match served {
        Ok(()) => Ok(()),
        Err(error @ (Error::Protocol(_) | Error::System { .. })) => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

/// A file of so many bytes, without a name.
fn file(size: u64) -> File {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("hesper-vmm-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(path).unwrap();
    file.set_len(size).unwrap();
    file
}

fn backend(in_qemu: bool) -> GpuBackend {
    let console = in_qemu.then(|| Arc::new(GpuSocketScreen::new()));
    let options = options();
    let host_visible_size = options.host_visible_size;
    let renderer = FakeRenderer::new();
    let device = match &console {
        Some(console) => Device::new(options, console.clone(), Vec::new()),
        None => Device::new(options, Arc::new(Recorder::default()), vec![renderer]),
    };
    GpuBackend {
        device: Arc::new(device),
        host_visible_size,
        console,
    }
}

/// What is left of the input. It ends with zeros.
struct Bytes<'i>(&'i [u8]);

impl<'i> Bytes<'i> {
    fn next(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn take(&mut self, most: usize) -> &'i [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

impl Vmm {
    fn step(&mut self, input: &mut Bytes<'_>) {
        match input.next() {
            WRITE => {
                let at = u16::from_le_bytes([input.next(), input.next()]);
                let count = input.next();
                let bytes = input.take(count.into());
                self.memory.write_at(bytes, u64::from(at) * 16).unwrap();
            }
            KICK => {
                for kick in &self.kicks {
                    let _ = rustix::io::write(kick, &1_u64.to_ne_bytes());
                }
            }
            request => self.message(request, input),
        }
    }

    /// A message: its number, its flags, how many descriptors of which kinds, and its body.
    fn message(&mut self, request: u8, input: &mut Bytes<'_>) {
        let flags = input.next();
        let kinds = input.next();
        let mut fds = Vec::new();
        for _ in 0..kinds & 15 {
            let kind = KINDS[usize::from(input.next()) % KINDS.len()];
            fds.push(self.descriptor(kind));
        }
        let count = input.next();
        let body = input.take(count.into());
        // The size is right, unless a flag of the input says otherwise.
        let size = match kinds & 16 {
            0 => body.len() as u32,
            _ => u32::from(input.next()) << (input.next() & 31),
        };
        let header = [u32::from(request), u32::from(flags), size];
        let bytes = [header.as_bytes(), body].concat();
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let part = [std::io::IoSlice::new(&bytes)];
        // The server may have ended.
        let _ = sendmsg(&self.stream, &part, &mut control, SendFlags::NOSIGNAL);
    }

    fn descriptor(&mut self, kind: Kind) -> OwnedFd {
        let copy = |file: &File| OwnedFd::from(file.try_clone().unwrap());
        match kind {
            Kind::Memory => copy(&self.memory),
            Kind::ShortMemory => copy(&self.short_memory),
            Kind::Event => {
                let (theirs, ours) = event().unwrap();
                self.kicks.push(ours);
                theirs
            }
            Kind::Socket => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                self.kept.push(ours.into());
                theirs.into()
            }
            Kind::ClosedSocket => UnixStream::pair().unwrap().1.into(),
            Kind::Pipe => {
                let (reader, writer) = std::io::pipe().unwrap();
                self.kept.push(writer.into());
                reader.into()
            }
            Kind::Device => File::open("/dev/null").unwrap().into(),
        }
    }
}

/// Inputs with high coverage: each sets a device up as QEMU does, and goes on in its own way.
pub fn seeds() -> Vec<Vec<u8>> {
    use crate::transport::features::protocol;
    use crate::transport::wire::request::*;
    let message = |request: u32, kinds: &[Kind], body: &[u8]| {
        let mut step = vec![request as u8, 1 | 8, kinds.len() as u8];
        step.extend(kinds.iter().map(|kind| *kind as u8));
        step.push(body.len() as u8);
        step.extend_from_slice(body);
        step
    };
    let words = |words: &[u64]| words.as_bytes().to_vec();
    let number = |request, number: u64| message(request, &[], &words(&[number]));
    let plain = |request| message(request, &[], &[]);
    let queue = |index: u64, base: u64| {
        let state = |request, num: u64| number(request, index | num << 32);
        let address = VMM + base;
        let addresses = [index, address, address + 0x2000, address + 0x1000, 0];
        [
            state(SET_VRING_NUM, 64),
            state(SET_VRING_BASE, 0),
            message(SET_VRING_ADDR, &[], &words(&addresses)),
            message(SET_VRING_KICK, &[Kind::Event], &words(&[index])),
            message(SET_VRING_CALL, &[Kind::Event], &words(&[index])),
            state(SET_VRING_ENABLE, 1),
        ]
        .concat()
    };
    let table = [1, 0, MEMORY, VMM, 0];
    // VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES, and those of the device; without
    // renderers it has neither VIRGL nor CONTEXT_INIT.
    let features = 1 << 32 | 1 << 30;
    let (in_qemu, all) = (features | 0x0e, features | 0x1f);
    let set_up = |features| {
        [
            vec![u8::from(features == in_qemu)],
            plain(GET_FEATURES),
            plain(GET_PROTOCOL_FEATURES),
            number(SET_PROTOCOL_FEATURES, protocol::OFFERED | protocol::SHMEM),
            plain(GET_QUEUE_NUM),
            plain(SET_OWNER),
            number(SET_FEATURES, features),
            message(SET_MEM_TABLE, &[Kind::Memory], &words(&table)),
            queue(0, 0x1_0000),
            queue(1, 0x2_0000),
        ]
        .concat()
    };
    // One descriptor of 24 bytes with GET_DISPLAY_INFO, and one of 512 bytes for its answer.
    let descriptors = words(&[0x4000, 24 | 1 << 32 | 1 << 48, 0x5000, 512 | 2 << 32]);
    let write = |at: u64, bytes: Vec<u8>| {
        let at = u16::try_from(at / 16).unwrap().to_le_bytes();
        [&[WRITE, at[0], at[1], bytes.len() as u8], &bytes[..]].concat()
    };
    let ask = [
        write(0x4000, words(&[0x100, 0, 0])),
        write(0x1_0000, descriptors),
        write(0x1_1000, vec![0, 0, 1, 0, 0, 0]),
        vec![KICK],
    ]
    .concat();
    let range = |size: u8| {
        [
            vec![0, 0, 0, 0, size, 0, 0, 0, 0, 0, 0, 0],
            vec![0; size.into()],
        ]
        .concat()
    };
    let rest = [
        message(SET_BACKEND_REQ_FD, &[Kind::Socket], &[]),
        message(GPU_SET_SOCKET, &[Kind::Socket], &[]),
        message(GET_CONFIG, &[], &range(24)),
        message(SET_CONFIG, &[], &range(4)),
        plain(GET_SHMEM_CONFIG),
        plain(GET_MAX_MEM_SLOTS),
        message(
            ADD_MEM_REG,
            &[Kind::ShortMemory],
            &words(&[0, MEMORY, 4096, VMM * 2, 0]),
        ),
        message(REM_MEM_REG, &[], &words(&[0, MEMORY, 4096, VMM * 2, 0])),
        number(GET_VRING_BASE, 0),
        number(GET_VRING_BASE, 1),
        plain(RESET_DEVICE),
        plain(RESET_OWNER),
    ];
    let mut seeds = vec![[set_up(all), ask.clone()].concat()];
    for way in 0..rest.len() {
        seeds.push([set_up(all), ask.clone(), rest[way..].concat()].concat());
    }
    seeds.push([set_up(in_qemu), ask, rest.concat()].concat());
    seeds
}

/// Where the VMM has the guest's memory.
const VMM: u64 = 0x7f00_0000_0000;
