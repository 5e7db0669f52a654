//! Reply streams: where answers are written (`vkSetReplyCommandStreamMESA`).

use std::sync::Arc;

use hesper_venus_protocol::runtime::{EncodeError, Encoder};

use crate::memory::SharedMemory;

/// A piece of a resource, and how far it is written.
pub(crate) struct ReplyStream {
    memory: Arc<SharedMemory>,
    offset: usize,
    size: usize,
    position: usize,
}

impl ReplyStream {
    /// Makes a stream of `size` bytes at `offset` of `memory`. `None` when they are not inside.
    pub(crate) fn new(memory: Arc<SharedMemory>, offset: usize, size: usize) -> Option<Self> {
        let end = offset.checked_add(size)?;
        (end <= memory.len()).then_some(Self {
            memory,
            offset,
            size,
            position: 0,
        })
    }

    /// Moves to another piece of the same memory. `None`, and nothing changes, when it is not
    /// inside.
    pub(crate) fn move_to(&mut self, offset: usize, size: usize) -> Option<()> {
        let end = offset.checked_add(size)?;
        if end > self.memory.len() {
            return None;
        }
        (self.offset, self.size, self.position) = (offset, size, 0);
        Some(())
    }

    /// Continues at `position` (`vkSeekReplyCommandStreamMESA`). `None` when that is outside.
    pub(crate) fn seek(&mut self, position: usize) -> Option<()> {
        if position > self.size {
            return None;
        }
        self.position = position;
        Some(())
    }

    /// Lets `write` write the next reply.
    #[inline]
    pub(crate) fn write(
        &mut self,
        write: impl FnOnce(&mut Encoder<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let start = self
            .memory
            .as_ptr()
            .wrapping_add(self.offset + self.position);
        // SAFETY: `new` checked that the stream is inside the mapping, and `position` never exceeds
        // its size; the mapping lives as long as `self.memory`.
        let mut encoder = unsafe { Encoder::shared(start, self.size - self.position) };
        write(&mut encoder)?;
        self.position += encoder.position();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hesper_venus_protocol::command::CreateBuffer;
    use hesper_venus_protocol::runtime::{Command, Object};
    use hesper_venus_protocol::vk;

    fn reply(stream: &mut ReplyStream) -> Result<(), EncodeError> {
        let (mut info, mut buffer) = (vk::BufferCreateInfo::default(), vk::Buffer(7));
        let command = CreateBuffer {
            device: Object::guest(1),
            p_create_info: &mut info,
            p_buffer: &mut buffer,
        };
        // SAFETY: the outputs of this command have no pointers.
        stream.write(|encoder| unsafe { command.encode_reply(vk::Result::SUCCESS, encoder) })
    }

    #[test]
    fn replies_follow_each_other_and_never_leave_the_stream() {
        let memory = Arc::new(SharedMemory::create(4096).unwrap());
        assert!(ReplyStream::new(Arc::clone(&memory), 4090, 7).is_none());
        let mut stream = ReplyStream::new(Arc::clone(&memory), 100, 60).unwrap();
        reply(&mut stream).unwrap();
        reply(&mut stream).unwrap();
        assert!(matches!(reply(&mut stream), Err(EncodeError::Full { .. })));
        let mut bytes = [0; 64];
        memory.read(100, &mut bytes).unwrap();
        assert_eq!(bytes[..24], bytes[24..48], "two equal replies");
        assert_eq!(bytes[0], 50, "vkCreateBuffer");
        assert_eq!(bytes[60..], [0; 4], "nothing behind the stream");
        assert!(stream.seek(61).is_none());
        assert!(stream.move_to(4090, 7).is_none());
        assert!(stream.move_to(usize::MAX, 7).is_none());
        stream.seek(36).unwrap();
        reply(&mut stream).unwrap();
        stream.move_to(1000, 24).unwrap();
        reply(&mut stream).unwrap();
        assert!(reply(&mut stream).is_err());
        memory.read(1000, &mut bytes[..24]).unwrap();
        assert_eq!(bytes[..24], bytes[24..48]);
    }
}
