//! Rules for parts of buffers and of memory.

use hesper_venus_protocol::rules::{Limit, Rules, all};
use hesper_venus_protocol::vk;

use super::checked::{Checked, gone, within};
use crate::object::facts::Facts;

/// `VK_WHOLE_SIZE`
const WHOLE: u64 = !0;

impl Facts {
    /// Fails unless a part is inside its buffer.
    pub(super) fn check_part(&self, buffer: vk::Buffer, offset: u64, size: u64) -> Checked {
        let known = self.buffers.get(buffer).ok_or_else(|| gone(buffer.0))?;
        within("bytes that the buffer does not have", offset, size, known)
    }

    /// The same, where `VK_WHOLE_SIZE` stands for the rest. The buffer may be null.
    pub(super) fn check_rest(&self, buffer: vk::Buffer, offset: u64, size: u64) -> Checked {
        if buffer.0 == 0 {
            return Ok(());
        }
        let size = if size == WHOLE { 0 } else { size };
        self.check_part(buffer, offset, size)
    }

    /// Fails unless buffers have their parts. There may be fewer sizes.
    pub(super) fn check_parts(
        &self,
        buffers: &[vk::Buffer],
        offsets: &[u64],
        sizes: &[u64],
    ) -> Checked {
        let sizes = sizes.iter().copied().chain(std::iter::repeat(WHOLE));
        let mut parts = buffers.iter().zip(offsets).zip(sizes);
        parts.try_for_each(|((buffer, offset), size)| self.check_rest(*buffer, *offset, size))
    }

    /// Fails unless buffers, which may be null, have room for a counter.
    pub(super) fn check_counters(&self, buffers: &[vk::Buffer], offsets: &[u64]) -> Checked {
        let offsets = offsets.iter().copied().chain(std::iter::repeat(0));
        let mut counters = buffers.iter().zip(offsets);
        counters.try_for_each(|(buffer, offset)| self.check_rest(*buffer, offset, 4))
    }

    /// Fails unless `count` structs of `size` bytes at distance `stride` are inside the buffer.
    pub(super) fn check_indirect(
        &self,
        buffer: vk::Buffer,
        offset: u64,
        count: u64,
        stride: u64,
        size: u64,
    ) -> Checked {
        let Some(before_last) = count.checked_sub(1) else {
            return Ok(());
        };
        let bytes = before_last.checked_mul(stride);
        let bytes = bytes.and_then(|bytes| bytes.checked_add(size));
        self.check_part(buffer, offset, bytes.unwrap_or(WHOLE))
    }

    /// Fails unless memory has these bytes.
    pub(crate) fn check_memory(&self, memory: vk::DeviceMemory, offset: u64, size: u64) -> Checked {
        let known = self.memories.get(memory).ok_or_else(|| gone(memory.0))?;
        within("bytes that the memory does not have", offset, size, known)
    }
}

/// Fails unless the families that share a buffer or an image exist.
pub(super) fn sharing(facts: &Facts, mode: vk::SharingMode, families: &[u32]) -> Checked {
    if mode != vk::SharingMode::CONCURRENT {
        return Ok(());
    }
    let mut families = families.iter();
    families.try_for_each(|family| facts.index(Limit::QueueFamilies, u64::from(*family)))
}

pub(super) fn create(facts: &Facts, info: &vk::BufferCreateInfo) -> Checked {
    // SAFETY: the decoder made an array of this many elements, or a null pointer.
    let families = unsafe { all(info.p_queue_family_indices, info.queue_family_index_count) };
    sharing(facts, info.sharing_mode, families)
}

pub(super) fn sparse(facts: &Facts, info: &vk::BindSparseInfo) -> Checked {
    let check = |memory: vk::DeviceMemory, offset, size| match memory.0 {
        0 => Ok(()),
        _ => facts.check_memory(memory, offset, size),
    };
    // SAFETY: the decoder made arrays of as many elements as their counts say, or null pointers.
    unsafe {
        for one in all(info.p_buffer_binds, info.buffer_bind_count) {
            for bind in all(one.p_binds, one.bind_count) {
                check(bind.memory, bind.memory_offset, bind.size)?;
            }
        }
        for one in all(info.p_image_opaque_binds, info.image_opaque_bind_count) {
            for bind in all(one.p_binds, one.bind_count) {
                check(bind.memory, bind.memory_offset, bind.size)?;
            }
        }
        for one in all(info.p_image_binds, info.image_bind_count) {
            for bind in all(one.p_binds, one.bind_count) {
                // How many bytes these are depends on the format.
                check(bind.memory, bind.memory_offset, 0)?;
            }
        }
    }
    Ok(())
}
