//! The types of the generated tables of extensions and core commands.

use std::ffi::CStr;

use crate::generated::extensions::EXTENSIONS;

/// The kind of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtensionKind {
    /// An instance extension.
    Instance,
    /// A device extension.
    Device,
    /// An extension of the protocol itself.
    Private,
}

/// An extension that the protocol can carry.
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// `VK_…`.
    pub name: &'static CStr,
    /// Its number in the registry.
    pub number: u32,
    /// The highest `specVersion` to report.
    pub spec_version: u32,
    /// Its kind.
    pub kind: ExtensionKind,
    /// Whether the renderer reports the extension if the host has it. The guest's driver implements
    /// the others itself.
    pub advertised: bool,
}

impl Extension {
    /// The extension of this name.
    pub fn find(name: &CStr) -> Option<&'static Extension> {
        EXTENSIONS.iter().find(|e| e.name == name)
    }
}

/// A device command that is part of Vulkan since some version.
#[derive(Clone, Copy, Debug)]
pub struct CoreCommand {
    /// The C name.
    pub name: &'static CStr,
    /// Since Vulkan 1.`minor`.
    pub minor: u32,
    /// The names from which it was promoted, each with its extension.
    pub older: &'static [(&'static CStr, &'static CStr)],
}

/// The capset's `vk_extension_mask1`: bit N is set for extension N, and bit 0 marks the mask as
/// valid.
pub const fn extension_mask() -> [u32; 32] {
    let mut mask = [0u32; 32];
    let mut rest = EXTENSIONS;
    mask = with_bit(mask, 0);
    while let [first, tail @ ..] = rest {
        mask = with_bit(mask, first.number);
        rest = tail;
    }
    mask
}

const fn with_bit(mut mask: [u32; 32], number: u32) -> [u32; 32] {
    let word = (number / 32) as usize;
    if let Some((_, [slot, ..])) = mask.split_at_mut_checked(word) {
        *slot |= 1 << (number % 32);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::COMMANDS;

    #[test]
    fn the_tables_have_what_the_protocol_has() {
        assert_eq!(COMMANDS.iter().flatten().count(), 345);
        assert_eq!(
            COMMANDS.iter().flatten().filter(|c| c.is_codable()).count(),
            325
        );
        assert_eq!(EXTENSIONS.len(), 187);
        assert_eq!(EXTENSIONS.iter().filter(|e| e.advertised).count(), 184);
        let bits: u32 = extension_mask().iter().map(|w| w.count_ones()).sum();
        assert_eq!(bits, 188);
        assert_eq!(extension_mask()[12] & 3, 3);
    }
}
