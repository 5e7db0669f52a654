//! What can go wrong outside a guest's command stream. Each text says what failed, the value, and
//! the remedy.
//!
//! Violations by the guest are [`crate::fatal::Fatal`]. They end one context, and the caller hears
//! of them by [`crate::ContextEvents::lost`] only.

/// An error of the renderer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Vulkan loader or driver library could not be opened.
    #[error(
        "cannot load Vulkan ({tried}); install a Vulkan loader and a driver, or name a library with --driver"
    )]
    Load {
        /// Each library that was tried, with what was wrong with it.
        tried: String,
    },
    /// The host's Vulkan is too old.
    #[error(
        "the host's Vulkan is {major}.{minor}; 1.1 or newer is needed: update the loader or the driver"
    )]
    TooOld {
        /// Major version found.
        major: u32,
        /// Minor version found.
        minor: u32,
    },
    /// A call of the host's Vulkan failed.
    #[error(
        "{call} failed with {result} on the host's Vulkan; `hesper doctor` shows what works here"
    )]
    Vulkan {
        /// The function, such as `vkCreateInstance`.
        call: &'static str,
        /// Its result.
        result: ash::vk::Result,
    },
    /// The driver lacks a function that it must have.
    #[error("the host's Vulkan driver lacks {function}; update the driver")]
    MissingFunction {
        /// The function's name.
        function: &'static str,
    },
    /// No GPU fits the selection.
    #[error("no GPU matches {wanted}; this host has: {found}")]
    NoGpu {
        /// What was asked for.
        wanted: String,
        /// What there is, comma separated.
        found: String,
    },
    /// Shared memory could not be made or mapped.
    #[error(
        "{action} of {size} bytes of shared memory failed: {source}; raise the limits on memory, mappings and descriptors"
    )]
    SharedMemory {
        /// `creation`, `mapping`.
        action: &'static str,
        /// Bytes.
        size: u64,
        /// The cause.
        source: std::io::Error,
    },
    /// Another process sent a file that it could take away while this process uses it.
    #[error(
        "{size} bytes of another process' memory are refused: {reason}; Hesper's processes send none like that"
    )]
    Untrusted {
        /// Bytes.
        size: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}; raise the limit on threads")]
    Thread(#[source] std::io::Error),
    /// The process has as many mappings as it may have.
    #[error("this process has all mappings that it may have: raise sysctl vm.max_map_count")]
    TooManyMappings,
    /// The descriptors and mappings of this process are shared between contexts.
    #[error(
        "the context has all pieces of shared memory that it may have: raise ulimit -n and sysctl vm.max_map_count"
    )]
    TooManyPieces,
    /// [`crate::GuestBudget::contexts`].
    #[error(
        "the guest has {0} contexts already, those included that have not ended yet; it may have no more"
    )]
    TooManyContexts(usize),
    /// [`crate::GuestBudget::threads`].
    #[error("the guest's programs have as many threads as they may together; --rings allows more")]
    TooManyThreads,
    /// The self-test read something else than the GPU wrote.
    #[error(
        "a guest would not see the GPU's writes to memory type {memory_type} ({detail}) and would hang: choose another GPU"
    )]
    SelfTest {
        /// Index of the memory type.
        memory_type: u32,
        /// What was read.
        detail: String,
    },
    /// The self-test of sparse binding read something else than the GPU wrote.
    #[error(
        "memory that is bound sparsely has wrong content: {0}; sparse binding is hidden from guests"
    )]
    SparseTest(String),
    /// The self-test of images in imported memory read something else than the GPU wrote.
    #[error("images in imported memory have wrong content: {0}; guests' images are kept out of it")]
    ImageTest(String),
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
