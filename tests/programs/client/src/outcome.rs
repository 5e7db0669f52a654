//! The outcome of a case: [`Outcome`], and the checks that produce one.
//!
//! A case returns `Ok(details)`, or stops with `?` at the first failure. A Vulkan error records the
//! line where it happened.

use std::panic::Location;

use ash::vk;

/// Why a case ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A check failed.
    Fail(String),
    /// The driver lacks what the case tests. The same driver must give the same skips natively and
    /// through Hesper.
    Skip(String),
}

/// The details of a success. They are the same in every run over the same driver, and may be empty.
pub(crate) type Outcome = Result<String, Stop>;

impl From<vk::Result> for Stop {
    #[track_caller]
    fn from(error: vk::Result) -> Self {
        fail(&format!("{error:?}"))
    }
}

/// Makes a failure that names the caller's source line.
#[track_caller]
pub(crate) fn fail(reason: &str) -> Stop {
    let at = Location::caller();
    Stop::Fail(format!("{reason} ({}:{})", at.file(), at.line()))
}

/// Makes a skip.
pub(crate) fn skip(reason: &str) -> Stop {
    Stop::Skip(reason.to_owned())
}

/// Fails unless both values are equal; `what` names the value.
#[track_caller]
pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: T,
    expected: T,
) -> Result<(), Stop> {
    if found == expected {
        return Ok(());
    }
    Err(fail(&format!("{what} is {found:?}, expected {expected:?}")))
}

/// Fails unless `holds`; `what` says what should be true.
#[track_caller]
pub(crate) fn ensure(what: &str, holds: bool) -> Result<(), Stop> {
    if holds {
        Ok(())
    } else {
        Err(fail(&format!("not so: {what}")))
    }
}

/// Skips unless `holds`; `what` names the missing feature.
pub(crate) fn need(what: &str, holds: bool) -> Result<(), Stop> {
    if holds {
        Ok(())
    } else {
        Err(skip(&format!("no {what}")))
    }
}

/// Returns a hash of `bytes` for the details of a case (FNV-1a, 64 bits).
pub(crate) fn digest(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
