//! The Venus capability set: what the guest learns before its first command.
//!
//! It is forty little-endian words (`struct virgl_renderer_capset_venus` of the wire protocol). The
//! guest drops every extension that the mask does not list, so the mask says what the *decoder*
//! knows. What the host's driver has is told later, by the commands that enumerate extensions.

/// Size in bytes.
pub(crate) const SIZE: usize = 160;

/// Words of the extension mask.
const MASK_WORDS: usize = 32;

/// What a capability set says; see [`Capset::to_bytes`].
#[derive(Clone, Debug)]
pub(crate) struct Capset<'a> {
    /// Version of the wire format; 1 is the only one.
    pub(crate) wire_format: u32,
    /// Version of the registry the decoder was generated from, as `VK_MAKE_API_VERSION`.
    pub(crate) registry: u32,
    /// Version of `VK_EXT_command_serialization`.
    pub(crate) serialization: u32,
    /// Version of `VK_MESA_venus_protocol`.
    pub(crate) protocol: u32,
    /// Registry numbers of the extensions that the decoder knows.
    pub(crate) extensions: &'a [u32],
}

impl Capset<'_> {
    /// The bytes as the guest reads them.
    pub(crate) fn to_bytes(&self) -> [u8; SIZE] {
        let mut mask = [0u32; MASK_WORDS];
        // Bit 0 says that the mask is valid. No extension has the number 0.
        for number in std::iter::once(0).chain(self.extensions.iter().copied()) {
            if let Some(word) = mask.get_mut((number / 32) as usize) {
                *word |= 1 << (number % 32);
            }
        }
        let mut words = vec![
            self.wire_format,
            self.registry,
            self.serialization,
            self.protocol,
            1, // supports_blob_id_0: blob id 0 makes shared memory
        ];
        words.extend_from_slice(&mask);
        // allow_vk_wait_syncs: rings have threads of their own, so they may wait.
        // supports_multiple_timelines: a fence of a queue's ring index follows that queue.
        // use_guest_vram: no, device memory is the host's.
        words.extend_from_slice(&[1, 1, 0]);
        let mut bytes = [0; SIZE];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_stands_at_its_place() {
        let capset = Capset {
            wire_format: 1,
            registry: 2,
            serialization: 3,
            protocol: 4,
            extensions: &[33, 1023, 1024],
        };
        let bytes = capset.to_bytes();
        let word = |at: usize| u32::from_le_bytes(bytes[at * 4..at * 4 + 4].try_into().unwrap());
        assert_eq!(
            [word(0), word(1), word(2), word(3), word(4)],
            [1, 2, 3, 4, 1]
        );
        assert_eq!(word(5), 1, "the mask is marked valid");
        assert_eq!(word(6), 2, "extension 33");
        assert_eq!(
            word(36),
            1 << 31,
            "extension 1023; 1024 does not fit and is left out"
        );
        assert_eq!([word(37), word(38), word(39)], [1, 1, 0]);
    }
}
