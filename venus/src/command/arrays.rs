//! Arrays of commands: strings in, lists out.

use std::ffi::{CStr, c_char};

use hesper_venus_protocol::runtime::Array;
use hesper_venus_protocol::vk;

/// The strings of a decoded array.
///
/// # Safety
/// `names` must be null or `count` pointers to NUL-terminated strings, which live for `'a`.
pub(super) unsafe fn strings<'a>(names: *const *const c_char, count: u32) -> Vec<&'a CStr> {
    if names.is_null() {
        return Vec::new();
    }
    // SAFETY: as the caller promises.
    unsafe {
        let names = std::slice::from_raw_parts(names, count as usize);
        names.iter().map(|name| CStr::from_ptr(*name)).collect()
    }
}

/// Answers Vulkan's two calls for a list: how many there are, then as many as there is room for.
pub(super) fn fill<T: Copy>(all: &[T], count: &mut u32, room: &mut Array<'_, T>) -> vk::Result {
    let total = u32::try_from(all.len()).unwrap_or(u32::MAX);
    if room.is_null() {
        *count = total;
        return vk::Result::SUCCESS;
    }
    let mut written = 0;
    for (to, from) in room.iter_mut().zip(all) {
        *to = *from;
        written += 1;
    }
    *count = written;
    if written < total {
        vk::Result::INCOMPLETE
    } else {
        vk::Result::SUCCESS
    }
}
