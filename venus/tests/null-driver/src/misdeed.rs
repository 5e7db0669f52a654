//! What a driver does at a shader's request: it crashes, aborts or never returns.
//!
//! A test reaches a driver in another process only through Vulkan, so the request is a text in the
//! SPIR-V of a shader module, such as an `OpString`:
//!
//! | text | what the driver does |
//! |---|---|
//! | `hesper: crash` | it reads an address that is not mapped (`SIGSEGV`) |
//! | `hesper: abort` | it calls `abort()` (`SIGABRT`) |
//! | `hesper: hang` | the call never returns |
//!
//! It happens in `vkCreateShaderModule`. With ` at submit` behind the text, it happens when a
//! command buffer is submitted that binds a pipeline with this shader; with ` in a thread`, that
//! submission returns, and it happens in a thread of the driver's own.
//!
//! This file is shared by drivers, which include it.

use std::thread;
use std::time::Duration;

/// What the driver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdeed {
    Crash,
    Abort,
    Hang,
}

/// Where it does so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In `vkCreateShaderModule`.
    Creation,
    /// In `vkQueueSubmit` or `vkQueueSubmit2`.
    Submission,
    /// In a thread that such a submission starts.
    Thread,
}

/// The request of a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) misdeed: Misdeed,
    pub(crate) place: Place,
}

/// How each request begins.
const BEGIN: &[u8] = b"hesper: ";

impl Request {
    /// The request in the bytes of a shader, if there is one.
    pub(crate) fn of(code: &[u8]) -> Option<Self> {
        let start = code.windows(BEGIN.len()).position(|part| part == BEGIN)?;
        let rest = code.get(start..)?.strip_prefix(BEGIN)?;
        let known: [(&[u8], Misdeed); 3] = [
            (b"crash", Misdeed::Crash),
            (b"abort", Misdeed::Abort),
            (b"hang", Misdeed::Hang),
        ];
        let (rest, misdeed) = known
            .into_iter()
            .find_map(|(word, misdeed)| Some((rest.strip_prefix(word)?, misdeed)))?;
        let place = if rest.starts_with(b" at submit") {
            Place::Submission
        } else if rest.starts_with(b" in a thread") {
            Place::Thread
        } else {
            Place::Creation
        };
        Some(Self { misdeed, place })
    }

    /// Does it, here or in a thread.
    pub(crate) fn fulfil(self) {
        if self.place == Place::Thread {
            thread::spawn(move || self.misdeed.commit());
        } else {
            self.misdeed.commit();
        }
    }
}

impl Misdeed {
    fn commit(self) {
        match self {
            Self::Crash => {
                // The address is in the first page, which no process has.
                let nowhere = std::ptr::without_provenance::<u32>(16);
                // SAFETY: none: it is the crash that was asked for.
                unsafe { nowhere.read_volatile() };
            }
            Self::Abort => std::process::abort(),
            Self::Hang => loop {
                thread::sleep(Duration::from_secs(3600));
            },
        }
    }
}
