//! What differs between operating systems: anonymous shared memory, what memory and mappings cost.
//!
//! Linux makes memfds that cannot shrink; other systems make a POSIX shm object and unlink it at once.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::{
    count_mappings, create_shared_memory, mappings, release_stack, return_free_memory,
};

#[cfg(not(target_os = "linux"))]
mod posix;
#[cfg(not(target_os = "linux"))]
pub(crate) use posix::{
    count_mappings, create_shared_memory, mappings, release_stack, return_free_memory,
};
