//! A Wayland program in the guest: the requests and events of the Wayland protocol, in the messages
//! of a cross-domain context.

use std::time::Instant;

use hesper_test_guest::cross_domain as messages;
use hesper_test_guest::cross_domain::*;
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::guest::{Mapped, Vm};
use hesper_mock_frontend::{PATIENCE, PIXELS, Ticket};

pub const CAPSET_CROSS_DOMAIN: u32 = 5;
/// Where each context's two rings lie in guest memory.
const RINGS: u64 = PIXELS + (8 << 20);
const RING: u64 = 4096;

/// A descriptor of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub id: u32,
    pub kind: u32,
    pub size: u32,
}

/// What arrives on the channel's ring.
enum Arrived {
    Message(Vec<u8>, Vec<Descriptor>),
    /// The bytes of a pipe, and whether it ended.
    Pipe(u32, Vec<u8>, bool),
}

/// A client's connection.
pub struct Client {
    pub vm: Vm,
    pub context: u32,
    pub query_ring: u32,
    pub channel_ring: u32,
    poll: Option<Ticket>,
    fences: u64,
    next_id: u32,
    pending: Vec<u8>,
    /// Descriptors that arrived and were not taken.
    pub descriptors: Vec<Descriptor>,
    /// All events so far.
    past: Vec<Event>,
    /// All that pipes have delivered: identifier, bytes, whether it ended.
    pub pipes: Vec<(u32, Vec<u8>, bool)>,
    /// Name, interface and version of each global.
    pub globals: Vec<(u32, String, u32)>,
}

impl Client {
    /// A context with rings that is not connected.
    pub fn new(vm: &Vm, context: u32) -> Self {
        let mut machine = vm.machine();
        machine.ok(&Request::create_context(
            context,
            CAPSET_CROSS_DOMAIN,
            "wayland",
        ));
        let mut ring = |number: u64| {
            let resource = machine.resource();
            let place = RINGS + RING * (2 * u64::from(context) + number);
            machine.write(place, &[0xee; RING as usize]);
            machine.ok(&Request::guest_blob(
                resource,
                RING,
                &[(place, RING as u32)],
            ));
            machine.ok(&Request::attach(context, resource));
            resource
        };
        let (query_ring, channel_ring) = (ring(0), ring(1));
        drop(machine);
        Self {
            vm: vm.clone(),
            context,
            query_ring,
            channel_ring,
            poll: None,
            fences: 1,
            next_id: 3,
            pending: Vec::new(),
            descriptors: Vec::new(),
            past: Vec::new(),
            pipes: Vec::new(),
            globals: Vec::new(),
        }
    }

    /// Connects to the compositor and learns its globals.
    #[track_caller]
    pub fn connect(vm: &Vm, context: u32) -> Self {
        let mut client = Self::new(vm, context);
        client.submit(&client.init());
        client.request(DISPLAY, 1, &words(&[REGISTRY]), &[]);
        client.roundtrip();
        client
    }

    /// The bytes that connect to Wayland.
    pub fn init(&self) -> Vec<u8> {
        command(INIT, &words(&[self.query_ring, self.channel_ring, 1]))
    }

    fn ring(&self, number: u64) -> Vec<u8> {
        let place = RINGS + RING * (2 * u64::from(self.context) + number);
        self.vm.machine().read(place, RING as usize)
    }

    pub fn submit(&self, commands: &[u8]) -> Ticket {
        let request = Request::submit(self.context, commands);
        self.vm.machine().post(&request)
    }

    /// Submits with a fence on a ring.
    pub fn submit_fenced(&mut self, commands: &[u8], ring: u8) -> Ticket {
        self.fences += 1;
        let request = Request::submit(self.context, commands).ring_fence(ring, self.fences);
        self.vm.machine().post(&request)
    }

    /// Sends bytes with descriptors, each an identifier and its kind.
    pub fn send(&self, bytes: &[u8], descriptors: &[(u32, u32)]) {
        self.submit(&messages::send(bytes, descriptors));
    }

    /// A request to an object.
    pub fn request(&self, object: u32, opcode: u16, body: &[u8], descriptors: &[(u32, u32)]) {
        self.send(&messages::request(object, opcode, body), descriptors);
    }

    /// The same with numbers.
    pub fn call(&self, object: u32, opcode: u16, arguments: &[u32]) {
        self.request(object, opcode, &words(arguments), &[]);
    }

    /// A request that makes an object, whose id is the first argument.
    pub fn make(&mut self, object: u32, opcode: u16, arguments: &[u32]) -> u32 {
        let id = self.id();
        self.call(object, opcode, &[&[id], arguments].concat());
        id
    }

    pub fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Binds a global.
    #[track_caller]
    pub fn bind(&mut self, interface: &str, version: u32) -> u32 {
        let id = self.id();
        let global = self.globals.iter().find(|(_, name, _)| name == interface);
        let (name, _, offered) = global.expect("the compositor has the global");
        assert!(*offered >= version);
        let body = [words(&[*name]), string(interface), words(&[version, id])];
        self.request(REGISTRY, 0, &body.concat(), &[]);
        id
    }

    /// Waits for something from the host.
    #[track_caller]
    fn arrival(&mut self) -> Arrived {
        let poll = match self.poll.take() {
            Some(poll) => poll,
            None => self.submit_fenced(&command(POLL, &[]), 1),
        };
        let answer = self.vm.machine().answer(poll);
        assert_eq!(answer.kind(), wire::RESP_OK_NODATA);
        let ring = self.ring(1);
        match ring[0] {
            RECEIVE => {
                let (count, length) = (word(&ring, 8) as usize, word(&ring, 12) as usize);
                let field = |list: usize, index| word(&ring, 16 + 4 * (list * IDENTIFIERS + index));
                let descriptors = (0..count).map(|index| Descriptor {
                    id: field(0, index),
                    kind: field(1, index),
                    size: field(2, index),
                });
                let start = MESSAGE;
                assert!(length > 0, "the compositor hung up");
                Arrived::Message(ring[start..start + length].to_vec(), descriptors.collect())
            }
            READ => {
                let length = word(&ring, 16) as usize;
                let bytes = ring[24..24 + length].to_vec();
                Arrived::Pipe(word(&ring, 8), bytes, word(&ring, 12) != 0)
            }
            other => panic!("{other} arrived"),
        }
    }

    /// Receives the next message; returns its events.
    #[track_caller]
    pub fn events(&mut self) -> Vec<Event> {
        match self.arrival() {
            Arrived::Pipe(id, bytes, end) => self.pipes.push((id, bytes, end)),
            Arrived::Message(bytes, descriptors) => {
                self.pending.extend(bytes);
                self.descriptors.extend(descriptors);
            }
        }
        let mut events = Vec::new();
        while let Some(event) = Event::take(&mut self.pending) {
            if (event.object, event.opcode) == (DISPLAY, 0) {
                panic!("{:?}", String::from_utf8_lossy(&event.body));
            }
            self.globals.extend(event.global());
            events.push(event);
        }
        self.past.extend_from_slice(&events);
        events
    }

    /// An event that has arrived, or arrives later.
    #[track_caller]
    pub fn until_past(&mut self, object: u32, opcode: u16) -> Event {
        let is_it = |event: &&Event| (event.object, event.opcode) == (object, opcode);
        match self.past.iter().find(is_it).cloned() {
            Some(event) => event,
            None => self.until(object, opcode),
        }
    }

    /// Receives events until one matches, and returns it.
    #[track_caller]
    pub fn until(&mut self, object: u32, opcode: u16) -> Event {
        let until = Instant::now() + PATIENCE;
        loop {
            let events = self.events();
            let found = events
                .into_iter()
                .find(|event| (event.object, event.opcode) == (object, opcode));
            if let Some(event) = found {
                return event;
            }
            assert!(Instant::now() < until, "no event {opcode} of {object}");
        }
    }

    /// Waits until the compositor has done everything that it was asked for.
    #[track_caller]
    pub fn roundtrip(&mut self) {
        let callback = self.make(DISPLAY, 0, &[]);
        self.until(callback, 0);
    }

    /// Asks for the layout of an image: stride, size, and the object that becomes a blob.
    #[track_caller]
    pub fn image(&mut self, width: u32, height: u32) -> (u32, u64, u32) {
        // The processor reads and writes it.
        let body = words(&[width, height, XRGB8888, 1 << 4]);
        let asked = self.submit_fenced(&command(GET_IMAGE_REQUIREMENTS, &body), 0);
        self.vm.machine().answer(asked);
        let answer = self.ring(0);
        let size = u64::from_le_bytes(answer[40..48].try_into().unwrap());
        (word(&answer, 0), size, word(&answer, 48))
    }

    /// Makes a blob of a host object and maps it.
    #[track_caller]
    pub fn map(&self, object: u32, size: u64) -> Mapped {
        let mut machine = self.vm.machine();
        let (resource, offset) = (machine.resource(), machine.offset(size));
        machine.ok(&Request::host_blob(
            self.context,
            resource,
            object.into(),
            size,
        ));
        machine.ok(&Request::attach(self.context, resource));
        let code = machine.code(&Request::map_blob(resource, offset));
        assert_eq!(code, wire::RESP_OK_MAP_INFO, "{code:#x}");
        Mapped { resource, offset }
    }
}
