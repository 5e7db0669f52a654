//! What the guest is answered.

use crate::wire;

/// An answer without its header's echo.
pub(crate) struct Response {
    /// `RESP_*`.
    pub(crate) kind: u32,
    /// What follows the header. Only answers off the hot paths have a body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// An answer that is its header.
    pub(crate) fn bare(kind: u32) -> Self {
        Self {
            kind,
            body: Vec::new(),
        }
    }

    /// `OK_NODATA`.
    pub(crate) fn ok() -> Self {
        Self::bare(wire::RESP_OK_NODATA)
    }
}
