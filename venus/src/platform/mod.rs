//! What differs between operating systems: anonymous shared memory, the names of Vulkan libraries.
//!
//! Linux makes memfds that cannot shrink; other systems make a POSIX shm object and unlink it at once.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{
    DRIVER_LIBRARIES, count_mappings, create_shared_memory, mappings, release_stack,
    return_free_memory,
};

#[cfg(not(target_os = "linux"))]
mod posix;
#[cfg(not(target_os = "linux"))]
pub(crate) use posix::{
    DRIVER_LIBRARIES, count_mappings, create_shared_memory, mappings, release_stack,
    return_free_memory,
};
