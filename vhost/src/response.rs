//! The response to a command.

use crate::wire;

/// A response. The header of the answer also echoes the fence of the request.
pub(crate) struct Response {
    /// `RESP_*`.
    pub(crate) kind: u32,
    /// What follows the header. Only responses off the hot paths have a body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A response without a body.
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
