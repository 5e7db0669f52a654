//! Memory that a worker has sent: checked, and mapped.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use hesper_venus::{Error, SharedMemory};

/// Size of the file behind a descriptor.
///
/// # Errors
/// It has none: what is wrong with it.
pub(super) fn file_size(fd: impl AsFd) -> Result<u64, String> {
    let stat = rustix::fs::fstat(fd).map_err(|error| format!("a descriptor: {error}"))?;
    u64::try_from(stat.st_size).map_err(|_| "a file of a negative size".to_owned())
}

/// Maps `size` bytes of the file from `offset`. `held` is dropped with the memory. `None` when this
/// process has no memory or mapping left for it.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn map(
    fd: OwnedFd,
    offset: u64,
    size: u64,
    held: Box<dyn Any + Send + Sync>,
) -> Result<Option<SharedMemory>, String> {
    match SharedMemory::from_untrusted(Arc::new(fd), offset, size, held) {
        Ok(memory) => Ok(Some(memory)),
        Err(Error::SharedMemory { source, .. }) if source.kind() == io::ErrorKind::OutOfMemory => {
            log::debug!("{size} bytes of a worker cannot be mapped: {source}");
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}
