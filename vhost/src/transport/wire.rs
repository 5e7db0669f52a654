//! Layouts and numbers of vhost-user messages (vhost-user.rst, "Message specification").
//!
//! Both channels use them: the one for requests of the VMM, and the one for requests of the
//! backend.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Bits 0 and 1 of a header's flags: the version of the protocol.
pub(super) const VERSION: u32 = 1;
/// Where the version is.
pub(super) const VERSION_MASK: u32 = 3;
/// Flag: this is an answer.
pub(super) const REPLY: u32 = 1 << 2;
/// Flag: the sender wants an acknowledgement (`VHOST_USER_PROTOCOL_F_REPLY_ACK`).
pub(super) const NEED_REPLY: u32 = 1 << 3;

/// The header of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    /// Which request this is, or is the answer to.
    pub(super) request: u32,
    /// Version and flags.
    pub(super) flags: u32,
    /// Bytes that follow.
    pub(super) size: u32,
}

/// Size of a header in bytes.
pub(super) const HEADER_BYTES: usize = size_of::<Header>();

const _: () = assert!(HEADER_BYTES == 12, "as the specification says");

/// Requests of the VMM ("Front-end message types"): those that Hesper serves, and those of features
/// that it does not offer, so that a refusal can name them.
#[allow(dead_code, reason = "the codes of what is not offered only have names")]
pub(crate) mod request {
    macro_rules! requests {
        ($($name:ident = $code:literal,)*) => {
            $(pub(crate) const $name: u32 = $code;)*

            /// The name of a request in the specification, without `VHOST_USER_`.
            pub(crate) fn name(code: u32) -> &'static str {
                match code {
                    $($code => stringify!($name),)*
                    _ => "an unknown request",
                }
            }
        };
    }

    requests! {
        GET_FEATURES = 1,
        SET_FEATURES = 2,
        SET_OWNER = 3,
        RESET_OWNER = 4,
        SET_MEM_TABLE = 5,
        SET_LOG_BASE = 6,
        SET_LOG_FD = 7,
        SET_VRING_NUM = 8,
        SET_VRING_ADDR = 9,
        SET_VRING_BASE = 10,
        GET_VRING_BASE = 11,
        SET_VRING_KICK = 12,
        SET_VRING_CALL = 13,
        SET_VRING_ERR = 14,
        GET_PROTOCOL_FEATURES = 15,
        SET_PROTOCOL_FEATURES = 16,
        GET_QUEUE_NUM = 17,
        SET_VRING_ENABLE = 18,
        SEND_RARP = 19,
        NET_SET_MTU = 20,
        SET_BACKEND_REQ_FD = 21,
        IOTLB_MSG = 22,
        SET_VRING_ENDIAN = 23,
        GET_CONFIG = 24,
        SET_CONFIG = 25,
        CREATE_CRYPTO_SESSION = 26,
        CLOSE_CRYPTO_SESSION = 27,
        POSTCOPY_ADVISE = 28,
        POSTCOPY_LISTEN = 29,
        POSTCOPY_END = 30,
        GET_INFLIGHT_FD = 31,
        SET_INFLIGHT_FD = 32,
        GPU_SET_SOCKET = 33,
        RESET_DEVICE = 34,
        VRING_KICK = 35,
        GET_MAX_MEM_SLOTS = 36,
        ADD_MEM_REG = 37,
        REM_MEM_REG = 38,
        SET_STATUS = 39,
        GET_STATUS = 40,
        GET_SHARED_OBJECT = 41,
        SET_DEVICE_STATE_FD = 42,
        CHECK_DEVICE_STATE = 43,
        GET_SHMEM_CONFIG = 44,
    }
}

/// What `SET_VRING_NUM`, `SET_VRING_BASE`, `GET_VRING_BASE` and `SET_VRING_ENABLE` carry.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct VringState {
    /// Which queue.
    pub(super) index: u32,
    /// A size, an index, or whether it is on.
    pub(super) num: u32,
}

/// What `SET_VRING_ADDR` carries: addresses in the VMM.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct VringAddresses {
    /// Which queue.
    pub(super) index: u32,
    /// Bit 0: write a log of dirty pages, which is not offered.
    pub(super) flags: u32,
    /// The descriptor table.
    pub(super) descriptor: u64,
    /// The used ring.
    pub(super) used: u64,
    /// The available ring.
    pub(super) available: u64,
    /// The log.
    pub(super) log: u64,
}

/// Bits 0 to 7 of what `SET_VRING_KICK`, `_CALL` and `_ERR` carry: which queue.
pub(super) const VRING_INDEX: u64 = 0xff;
/// Bit 8: no descriptor comes with it.
pub(super) const VRING_NO_FD: u64 = 1 << 8;

/// The start of what `SET_MEM_TABLE` carries.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct MemoryTable {
    /// How many regions follow, each with a descriptor.
    pub(super) regions: u32,
    /// Nothing.
    pub(super) padding: u32,
}

/// A region of guest memory.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct MemoryRegion {
    /// Address in the guest.
    pub(super) guest: u64,
    /// Size in bytes.
    pub(super) size: u64,
    /// Address in the VMM.
    pub(super) vmm: u64,
    /// Offset in the descriptor's memory.
    pub(super) offset: u64,
}

/// What `ADD_MEM_REG` and `REM_MEM_REG` carry.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SingleMemoryRegion {
    /// Nothing.
    pub(super) padding: u64,
    /// The region.
    pub(super) region: MemoryRegion,
}

/// The most descriptors that are received with a message. A memory table has eight regions
/// (`VHOST_MEMORY_BASELINE_NREGIONS`). There is room for more, so that a wrong message can be told
/// from a right one.
pub(super) const MAX_FDS: usize = 32;

/// The start of what `GET_CONFIG` and `SET_CONFIG` carry; bytes of the config space follow.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ConfigRange {
    /// Offset in the config space.
    pub(super) offset: u32,
    /// How many bytes follow.
    pub(super) size: u32,
    /// Whether the guest writes, or a migration does.
    pub(super) flags: u32,
}

/// How many shared memory regions an answer to `GET_SHMEM_CONFIG` has room for.
const SHARED_REGIONS: usize = 256;

/// The answer to `GET_SHMEM_CONFIG`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SharedMemoryConfig {
    /// How many of the sizes are not 0.
    pub(super) regions: u32,
    /// Nothing.
    pub(super) padding: u32,
    /// The size of each region in bytes, by its id.
    pub(super) sizes: [u64; SHARED_REGIONS],
}

impl SharedMemoryConfig {
    /// No region.
    pub(super) fn new() -> Self {
        Self::new_zeroed()
    }
}

/// The most bytes after a header that a VMM may send. The largest that are served are a memory
/// table and a write to the config space, which has at most 256 bytes
/// (`VHOST_USER_MAX_CONFIG_SIZE`).
pub(super) const MAX_BODY: usize = 4096;
