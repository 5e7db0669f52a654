//! The requests: what each carries, what it asks of the [`Connection`], and how it is answered.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::sockopt::socket_type;
use rustix::net::{SendFlags, SocketType, send};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::connection::{Connection, QUEUES, RequestError};
use super::super::features::protocol;
use super::super::memory::Region;
use super::super::wire::{
    ConfigRange, HEADER_BYTES, Header, MAX_BODY, MemoryRegion, MemoryTable, NEED_REPLY, REPLY,
    SharedMemoryConfig, SingleMemoryRegion, VERSION, VRING_INDEX, VRING_NO_FD, VringAddresses,
    VringState, request,
};
use super::receive::Message;

/// The host-visible window is shared memory region 1 (`VIRTIO_GPU_SHM_ID_HOST_VISIBLE`, virtio-v1.4
/// §5.7.6).
const WINDOW_ID: usize = 1;

/// The most memory regions at a time. QEMU 11.1 has room for 512 and takes the smaller number.
const MEMORY_SLOTS: u64 = 512;

/// Why the connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// The VMM takes no answers any more.
    #[error("the VMM closed the socket")]
    Gone,
    /// A request cannot be served.
    #[error("{name} (code {code}): {source}")]
    Request {
        /// The request's name.
        name: &'static str,
        /// Its number.
        code: u32,
        /// What is wrong.
        source: RequestError,
    },
}

/// How a request that went well is answered.
enum Answer {
    /// By an acknowledgement, if the VMM asked for one.
    Done,
    /// By a refusal, if the VMM asked for one. Nothing is wrong, and the connection goes on.
    Declined,
    /// By these bytes.
    Bytes(Vec<u8>),
}

impl Answer {
    fn number(value: u64) -> Self {
        Self::Bytes(value.as_bytes().to_vec())
    }
}

type RequestResult = Result<Answer, RequestError>;

/// Serves the requests of one connection.
pub(super) struct Requests<'s> {
    connection: Connection,
    stream: &'s UnixStream,
    has_owner: bool,
}

impl<'s> Requests<'s> {
    /// Answers go to `stream`.
    pub(super) fn new(connection: Connection, stream: &'s UnixStream) -> Self {
        Self {
            connection,
            stream,
            has_owner: false,
        }
    }

    /// Whether the VMM has begun its session by `SET_OWNER`.
    pub(super) fn has_owner(&self) -> bool {
        self.has_owner
    }

    /// Carries a request out and answers it. An error ends the connection.
    pub(super) fn serve(&mut self, message: Message) -> Result<(), ServeError> {
        let header = message.header;
        let served = self.carry_out(message);
        let acknowledged =
            header.flags & NEED_REPLY != 0 && self.connection.accepted(protocol::REPLY_ACK);
        match &served {
            Ok(Answer::Bytes(bytes)) => self.answer(&header, bytes)?,
            Ok(Answer::Done) if acknowledged => self.answer(&header, 0_u64.as_bytes())?,
            Ok(Answer::Declined) if acknowledged => self.answer(&header, 1_u64.as_bytes())?,
            Ok(Answer::Done | Answer::Declined) => {}
            // The VMM is told, so that it can say what failed before it sees the socket close.
            Err(_) if acknowledged => self.answer(&header, 1_u64.as_bytes())?,
            Err(_) => {}
        }
        served.map(|_| ()).map_err(|source| ServeError::Request {
            name: request::name(header.request),
            code: header.request,
            source,
        })
    }

    fn carry_out(&mut self, message: Message) -> RequestResult {
        let Message { header, body, fds } = message;
        let body = body.as_slice();
        let mut fds = Descriptors(fds);
        if let Some(feature) = feature_of(header.request)
            && !self.connection.accepted(feature)
        {
            return Err(RequestError::NotAccepted(feature));
        }
        if carries_nothing(header.request) {
            exactly::<[u8; 0]>(body)?;
        }
        if !carries_descriptors(header.request) {
            fds.none_left()?;
        }
        let answer = match header.request {
            request::GET_FEATURES => Answer::number(self.connection.features()),
            request::SET_FEATURES => {
                self.connection.accept_features(exactly(body)?)?;
                Answer::Done
            }
            request::SET_OWNER => {
                self.has_owner = true;
                Answer::Done
            }
            request::RESET_OWNER => {
                // Obsolete; the specification suggests to disable all rings.
                for index in [0, 1] {
                    self.connection.enable_queue(index, false)?;
                }
                Answer::Done
            }
            request::RESET_DEVICE => {
                self.connection.reset_device();
                Answer::Done
            }
            request::GET_PROTOCOL_FEATURES => Answer::number(self.connection.protocol_features()),
            request::SET_PROTOCOL_FEATURES => {
                self.connection.accept_protocol_features(exactly(body)?)?;
                Answer::Done
            }
            request::GET_QUEUE_NUM => Answer::number(QUEUES),
            request::SET_MEM_TABLE => self.set_memory(body, &mut fds)?,
            request::GET_MAX_MEM_SLOTS => Answer::number(MEMORY_SLOTS),
            request::ADD_MEM_REG => {
                let one: SingleMemoryRegion = exactly(body)?;
                match self
                    .connection
                    .add_memory(region(&one.region, fds.one()?)?)?
                {
                    true => Answer::Done,
                    false => Answer::Declined,
                }
            }
            request::REM_MEM_REG => {
                let MemoryRegion {
                    guest, size, vmm, ..
                } = exactly::<SingleMemoryRegion>(body)?.region;
                // A descriptor may come along (vhost-user.rst). It is not used.
                fds.0.truncate(0);
                self.connection.remove_memory(guest, size, vmm)?;
                Answer::Done
            }
            request::SET_VRING_NUM..=request::GET_VRING_BASE
            | request::SET_VRING_KICK..=request::SET_VRING_ERR
            | request::SET_VRING_ENABLE => self.vring(header.request, body, &mut fds)?,
            request::GET_CONFIG => self.read_config(body)?,
            request::SET_CONFIG => {
                let (range, bytes) = config_range(body)?;
                self.connection.write_config(range.offset, bytes);
                Answer::Done
            }
            request::SET_BACKEND_REQ_FD => {
                let socket = fds.socket()?;
                self.connection.set_backend_channel(socket)?;
                Answer::Done
            }
            request::GPU_SET_SOCKET => {
                let socket = fds.socket()?;
                self.connection.set_gpu_socket(socket)?;
                Answer::Done
            }
            // There are no shared objects: the answer comes without a descriptor.
            request::GET_SHARED_OBJECT => Answer::Bytes(body.to_vec()),
            request::GET_SHMEM_CONFIG => self.shared_memory(),
            _ => return Err(RequestError::NotOffered),
        };
        fds.none_left()?;
        Ok(answer)
    }

    fn set_memory(&mut self, body: &[u8], fds: &mut Descriptors) -> RequestResult {
        let (table, rest) = MemoryTable::read_from_prefix(body)
            .map_err(|_| wrong_size(body, size_of::<MemoryTable>()))?;
        let count = table.regions as usize;
        let regions = <[MemoryRegion]>::ref_from_bytes_with_elems(rest, count).map_err(|_| {
            let wanted = count.saturating_mul(size_of::<MemoryRegion>());
            wrong_size(body, wanted.saturating_add(size_of::<MemoryTable>()))
        })?;
        if fds.0.len() != count {
            return Err(RequestError::Descriptors {
                wanted: count,
                got: fds.0.len(),
            });
        }
        let regions = regions.iter().zip(fds.0.drain(..));
        let regions: Result<_, _> = regions.map(|(place, fd)| region(place, fd)).collect();
        self.connection.set_memory(regions?)?;
        Ok(Answer::Done)
    }

    /// The requests that set up one queue.
    fn vring(&mut self, code: u32, body: &[u8], fds: &mut Descriptors) -> RequestResult {
        match code {
            request::SET_VRING_ADDR => {
                let set: VringAddresses = exactly(body)?;
                let addresses = [set.descriptor, set.available, set.used];
                self.connection.set_queue_addresses(set.index, addresses)?;
            }
            request::SET_VRING_KICK | request::SET_VRING_CALL | request::SET_VRING_ERR => {
                let value: u64 = exactly(body)?;
                let index = u32::try_from(value & VRING_INDEX).unwrap_or(u32::MAX);
                let event = match value & VRING_NO_FD {
                    0 => Some(File::from(fds.one()?)),
                    _ => None,
                };
                match code {
                    request::SET_VRING_KICK => self.connection.set_queue_kick(index, event)?,
                    request::SET_VRING_CALL => self.connection.set_queue_call(index, event)?,
                    _ => self.connection.set_queue_error(index, event)?,
                }
            }
            _ => {
                let VringState { index, num } = exactly(body)?;
                match code {
                    request::SET_VRING_NUM => self.connection.set_queue_size(index, num)?,
                    request::SET_VRING_BASE => self.connection.set_queue_base(index, num)?,
                    request::SET_VRING_ENABLE if num > 1 => {
                        return Err(RequestError::Switch(num));
                    }
                    request::SET_VRING_ENABLE => {
                        self.connection.enable_queue(index, num == 1)?;
                    }
                    _ => {
                        let num = self.connection.stop_queue(index)?.into();
                        let state = VringState { index, num };
                        return Ok(Answer::Bytes(state.as_bytes().to_vec()));
                    }
                }
            }
        }
        Ok(Answer::Done)
    }

    fn read_config(&mut self, body: &[u8]) -> RequestResult {
        let (range, _) = config_range(body)?;
        let mut answer = body.to_vec();
        if let Some(bytes) = answer.get_mut(size_of::<ConfigRange>()..) {
            self.connection.read_config(range.offset, bytes);
        }
        Ok(Answer::Bytes(answer))
    }

    fn shared_memory(&mut self) -> Answer {
        let mut config = SharedMemoryConfig::new();
        let window = self.connection.make_window();
        config.regions = u32::from(window > 0);
        if let Some(size) = config.sizes.get_mut(WINDOW_ID) {
            *size = window;
        }
        Answer::Bytes(config.as_bytes().to_vec())
    }

    fn answer(&self, to: &Header, body: &[u8]) -> Result<(), ServeError> {
        debug_assert!(body.len() <= MAX_BODY, "answers are small");
        let header = Header {
            request: to.request,
            flags: VERSION | REPLY,
            size: u32::try_from(body.len()).unwrap_or(u32::MAX),
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match send(self.stream, rest, SendFlags::empty()) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => {
                    log::debug!("an answer to the VMM cannot be sent: {error}");
                    return Err(ServeError::Gone);
                }
            }
        }
        Ok(())
    }
}

fn region(place: &MemoryRegion, fd: OwnedFd) -> Result<Region, RequestError> {
    let file = File::from(fd);
    let metadata = file.metadata().map_err(RequestError::NoMemory)?;
    Ok(Region {
        guest: place.guest,
        size: place.size,
        vmm: place.vmm,
        offset: place.offset,
        file,
        metadata,
    })
}

/// The descriptors of a message that no request has taken yet.
struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    /// The only descriptor of the message.
    fn one(&mut self) -> Result<OwnedFd, RequestError> {
        let got = self.0.len();
        match self.0.pop() {
            Some(fd) if got == 1 => Ok(fd),
            _ => Err(RequestError::Descriptors { wanted: 1, got }),
        }
    }

    /// The only descriptor of the message, which is one end of a stream socket.
    fn socket(&mut self) -> Result<UnixStream, RequestError> {
        let fd = self.one()?;
        match socket_type(&fd) {
            Ok(SocketType::STREAM) => Ok(UnixStream::from(fd)),
            Ok(_) | Err(_) => Err(RequestError::NotASocket),
        }
    }

    /// Fails when descriptors are left: a message with more descriptors than its request takes is
    /// wrong.
    fn none_left(&self) -> Result<(), RequestError> {
        match self.0.len() {
            0 => Ok(()),
            got => Err(RequestError::Descriptors { wanted: 0, got }),
        }
    }
}

/// The protocol feature that a request belongs to.
fn feature_of(code: u32) -> Option<u64> {
    Some(match code {
        request::GET_QUEUE_NUM => protocol::MQ,
        request::SET_BACKEND_REQ_FD => protocol::BACKEND_REQ,
        request::GET_CONFIG | request::SET_CONFIG => protocol::CONFIG,
        request::RESET_DEVICE => protocol::RESET_DEVICE,
        request::GET_SHARED_OBJECT => protocol::SHARED_OBJECT,
        request::GET_SHMEM_CONFIG => protocol::SHMEM,
        request::GET_MAX_MEM_SLOTS | request::ADD_MEM_REG | request::REM_MEM_REG => {
            protocol::CONFIGURE_MEM_SLOTS
        }
        _ => return None,
    })
}

fn carries_nothing(code: u32) -> bool {
    matches!(
        code,
        request::GET_FEATURES
            | request::SET_OWNER
            | request::RESET_OWNER
            | request::RESET_DEVICE
            | request::GET_PROTOCOL_FEATURES
            | request::GET_QUEUE_NUM
            | request::GET_SHMEM_CONFIG
            | request::GET_MAX_MEM_SLOTS
    )
}

fn carries_descriptors(code: u32) -> bool {
    matches!(
        code,
        request::SET_MEM_TABLE
            | request::ADD_MEM_REG
            | request::REM_MEM_REG
            | request::SET_VRING_KICK
            ..=request::SET_VRING_ERR | request::SET_BACKEND_REQ_FD | request::GPU_SET_SOCKET
    )
}

/// The body as a value of exactly its size.
fn exactly<T: FromBytes + KnownLayout + Immutable>(body: &[u8]) -> Result<T, RequestError> {
    T::read_from_bytes(body).map_err(|_| wrong_size(body, size_of::<T>()))
}

fn wrong_size(body: &[u8], wanted: usize) -> RequestError {
    RequestError::Size {
        wanted,
        got: body.len(),
    }
}

/// A part of the config space, and as many bytes as it says.
fn config_range(body: &[u8]) -> Result<(ConfigRange, &[u8]), RequestError> {
    let (range, bytes) = ConfigRange::read_from_prefix(body)
        .map_err(|_| wrong_size(body, size_of::<ConfigRange>()))?;
    let wanted = (range.size as usize).saturating_add(size_of::<ConfigRange>());
    if body.len() != wanted {
        return Err(wrong_size(body, wanted));
    }
    Ok((range, bytes))
}
