//! Why a command is refused: the text for the log and the code for the guest.

use crate::renderer::RendererError;
use crate::wire;

/// Why a command of the guest is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("the request ends {missing} bytes too early")]
    Short { missing: u64 },
    #[error("descriptor at {address:#x} with {length} bytes is not in guest memory")]
    BadDescriptor { address: u64, length: u64 },
    #[error("command {0:#x} does not exist on this queue")]
    UnknownCommand(u32),
    #[error("{0} needs a renderer that handles it; start Hesper with one to use it")]
    NoRenderer(&'static str),
    #[error("the answer takes {need} bytes, the chain has room for {have}")]
    NoRoom { need: u64, have: u64 },
    #[error("resource {0} does not exist")]
    NoResource(u32),
    #[error("resource id {0} is taken, or 0; unreference it first or choose another")]
    BadNewResource(u32),
    #[error("resource {id} is {is}, the command needs {needs}")]
    WrongResource {
        id: u32,
        is: &'static str,
        needs: &'static str,
    },
    #[error("resource {0} has no backing; attach one first")]
    NoBacking(u32),
    #[error("resource {0} already has a backing; detach it first")]
    HasBacking(u32),
    #[error("scanout {id} does not exist, there are {count}")]
    NoScanout { id: u32, count: u32 },
    #[error("context {0} does not exist")]
    NoContext(u32),
    #[error("context id {0} is taken, or 0; destroy it first or choose another")]
    BadNewContext(u32),
    #[error("no renderer offers capability set {0}")]
    NoCapset(u32),
    #[error("format {0} is none of the eight 2D formats")]
    BadFormat(u32),
    #[error("{what} is {value}, it must be {must}")]
    BadValue {
        what: &'static str,
        value: u64,
        must: &'static str,
    },
    #[error("rectangle {0:?} is empty or not inside {1}×{2} pixels")]
    BadRect(crate::pixels::Rect, u32, u32),
    #[error("bytes {start:#x} + {length:#x} are outside of the {size:#x} bytes of {of}")]
    OutOfRange {
        start: u64,
        length: u64,
        size: u64,
        of: &'static str,
    },
    #[error(
        "window range {start:#x} + {length:#x} is not a multiple of {alignment}; a guest kernel with \
             VIRTIO_GPU_F_BLOB_ALIGNMENT (Linux 7.2), or with pages of that size, aligns it"
    )]
    Misaligned {
        start: u64,
        length: u64,
        alignment: u64,
    },
    #[error(
        "the size of the blob is {0:#x}, not a multiple of {1}, the host's page size; the guest needs Linux 7.2 and \
             Mesa 26.2.4 or newer (and a Hesper without --blob-alignment=4096), or pages of that size"
    )]
    UnalignedSize(u64, u64),
    #[error("window bytes {0:#x} + {1:#x} overlap a live mapping")]
    WindowTaken(u64, u64),
    #[error("the limit of {limit} {what} is reached")]
    Limit { what: &'static str, limit: u64 },
    #[error("the host has no memory for {0} bytes: {1}")]
    HostMemory(u64, std::io::Error),
    #[error("the VMM refused to {what}: {error}")]
    Vmm {
        what: &'static str,
        error: std::io::Error,
    },
    #[error("the device has no transport yet")]
    NoTransport,
    #[error("renderer: {0}")]
    Renderer(#[from] RendererError),
    #[error("the device was reset meanwhile")]
    Reset,
}

impl CommandError {
    /// The `RESP_ERR_*` code that the guest gets (virtio-v1.4 §5.7.6.7).
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::UnknownCommand(_)
            | Self::NoRenderer(_)
            | Self::NoRoom { .. }
            | Self::BadDescriptor { .. }
            | Self::NoBacking(_)
            | Self::HasBacking(_)
            | Self::Vmm { .. }
            | Self::NoTransport
            | Self::Renderer(RendererError::ContextLost(_))
            | Self::Reset => wire::RESP_ERR_UNSPEC,
            Self::NoResource(_) | Self::BadNewResource(_) | Self::WrongResource { .. } => {
                wire::RESP_ERR_INVALID_RESOURCE_ID
            }
            Self::NoScanout { .. } => wire::RESP_ERR_INVALID_SCANOUT_ID,
            Self::NoContext(_) | Self::BadNewContext(_) => wire::RESP_ERR_INVALID_CONTEXT_ID,
            Self::Short { .. }
            | Self::NoCapset(_)
            | Self::BadFormat(_)
            | Self::BadValue { .. }
            | Self::BadRect(..)
            | Self::OutOfRange { .. }
            | Self::Misaligned { .. }
            | Self::UnalignedSize(..)
            | Self::WindowTaken(..)
            | Self::Renderer(RendererError::Invalid(_)) => wire::RESP_ERR_INVALID_PARAMETER,
            Self::Limit { .. }
            | Self::HostMemory(..)
            | Self::Renderer(RendererError::OutOfMemory(_)) => wire::RESP_ERR_OUT_OF_MEMORY,
        }
    }
}
