//! The length of a command, found without decoding it, and the reply to a command that is refused.
//!
//! Commands have no length on the wire. To know it before memory is allocated (a renderer's budget
//! may refuse the allocation), [`length`] walks over the bytes with the schema: it reads counts,
//! tags and chains, and skips everything else. It allocates nothing and reads a large array's
//! count, not the array. Its result must not be trusted: the guest may change the bytes at the same
//! time, and they are read again when the command is decoded.

use crate::CommandId;
use crate::layout::{Element, Field, Kind, Layout, UnionLayout, Value};
use crate::runtime::{EncodeError, Encoder, Fatal, MAX_LINKS, Reason, Result};
use crate::vk;

/// Bytes that contain a command.
pub trait Source {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the bytes at `offset`. All of them exist.
    fn read(&self, offset: u64, into: &mut [u8]);
}

impl Source for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(into.len());
        if let Some(bytes) = self.get(start..end) {
            into.copy_from_slice(bytes);
        }
    }
}

/// How much of a struct is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// All members.
    Full,
    /// Only what the host needs to allocate memory for it.
    Partial,
}

/// The length of the command that begins at byte `start`.
///
/// # Errors
/// The bytes end before the command does, or the command is malformed in a way that hides what
/// follows. Offsets count from byte 0.
pub fn length(source: &dyn Source, start: u64) -> Result<u64, Fatal> {
    let mut walker = Walker {
        source,
        at: start,
        command: u32::MAX,
        window: [0; WINDOW],
        filled: 0..0,
    };
    walker.command = walker.word()?;
    walker.skip(4)?;
    let known = CommandId::from_number(walker.command);
    let Some(codec) = known.and_then(|id| id.info().codec()) else {
        return Err(walker.fatal(Reason::UnknownCommand(walker.command)));
    };
    for field in codec.layout.fields {
        walker.parameter(field)?;
    }
    Ok(walker.at - start)
}

/// Whether the command returns a `VkResult` and so can be refused.
pub fn returns_result(command: CommandId) -> bool {
    let layout = command.info().codec().map(|codec| codec.layout);
    let returns = layout.and_then(|layout| layout.returns);
    // In the schema a `VkResult` is an enum. The other return values are addresses, sizes and
    // masks.
    matches!(returns, Some(Value::Enum(_)))
}

/// Encodes a reply with `result` and without outputs: absent pointers, empty arrays.
///
/// # Errors
/// The reply does not fit.
pub fn refuse(
    command: CommandId,
    result: vk::Result,
    encoder: &mut Encoder<'_>,
) -> Result<(), EncodeError> {
    let mut head = encoder.prefix::<8>()?;
    head.put::<u32, 0>(command.number());
    head.put::<i32, 4>(result.0);
    let fields = command.info().codec().map_or(&[][..], |c| c.layout.fields);
    for _ in fields.iter().filter(|field| field.is_out) {
        encoder.prefix::<8>()?.put::<u64, 0>(0);
    }
    Ok(())
}

/// How many bytes are read at a time.
const WINDOW: usize = 4096;

struct Walker<'s> {
    source: &'s dyn Source,
    at: u64,
    command: u32,
    window: [u8; WINDOW],
    /// The range of the source's bytes that are in the window.
    filled: std::ops::Range<u64>,
}

impl Walker<'_> {
    #[cold]
    fn fatal(&self, reason: Reason) -> Fatal {
        Fatal {
            reason,
            offset: usize::try_from(self.at).unwrap_or(usize::MAX),
            command: self.command,
        }
    }

    fn left(&self) -> u64 {
        self.source.len().saturating_sub(self.at)
    }

    /// Skips `n` bytes and their padding.
    fn skip(&mut self, n: u64) -> Result<(), Fatal> {
        let padded = n.saturating_add(3) & !3;
        if padded > self.left() || padded < n {
            return Err(self.fatal(Reason::Truncated {
                needed: n,
                left: usize::try_from(self.left()).unwrap_or(usize::MAX),
            }));
        }
        self.at += padded;
        Ok(())
    }

    /// Skips `n` values of `size` bytes each.
    fn skip_all(&mut self, n: u64, size: usize) -> Result<(), Fatal> {
        self.skip(n.saturating_mul(size as u64))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fatal> {
        let start = self.at;
        self.skip(N as u64)?;
        if start < self.filled.start || start + N as u64 > self.filled.end {
            let end = self.source.len().min(start + WINDOW as u64);
            self.filled = start..end;
            if let Some(window) = self.window.get_mut(..(end - start) as usize) {
                self.source.read(start, window);
            }
        }
        let from = (start - self.filled.start) as usize;
        let found = self.window.get(from..).and_then(<[u8]>::first_chunk);
        Ok(found.copied().unwrap_or([0; N]))
    }

    fn word(&mut self) -> Result<u32, Fatal> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Result<u64, Fatal> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn parameter(&mut self, field: &Field) -> Result<(), Fatal> {
        if !field.is_out || field.is_in_out {
            return self.member(field, Mode::Full);
        }
        match &field.kind {
            Kind::Pointer(element, _) => match self.long()? {
                0 => Ok(()),
                _ => self.output(element, 1),
            },
            Kind::Array(element, ..) => {
                let n = self.long()?;
                self.output(element, n)
            }
            _ => Ok(()),
        }
    }

    /// Skips the elements of an output: ids are sent in full, structs in part, numbers not at all.
    fn output(&mut self, element: &Element, n: u64) -> Result<(), Fatal> {
        match element {
            Element::Handle(..) => self.skip_all(n, 8),
            Element::Struct(layout) => self.structures(layout, n, Mode::Partial),
            Element::Value(_) | Element::Union(_) => Ok(()),
        }
    }

    fn member(&mut self, field: &Field, mode: Mode) -> Result<(), Fatal> {
        let is_full = mode == Mode::Full;
        match &field.kind {
            Kind::Null | Kind::Marker | Kind::Handle(..) => self.skip(8),
            Kind::Value(value) if is_full || field.is_length => self.skip(value.size() as u64),
            Kind::Value(_) => Ok(()),
            Kind::Struct(layout) => self.structure(layout, mode),
            Kind::Union(union, _) => self.union(union),
            Kind::Fixed(Element::Value(_), _) if !is_full => Ok(()),
            Kind::Fixed(element, n) => {
                self.skip(8)?;
                self.elements(element, *n as u64, mode)
            }
            Kind::Text(_) => self.text(),
            Kind::Pointer(element, _) => match self.long()? {
                0 => Ok(()),
                _ if is_full => self.elements(element, 1, mode),
                _ => Ok(()),
            },
            Kind::Array(element, ..) => {
                let n = self.long()?;
                match is_full {
                    true => self.elements(element, n, mode),
                    false => Ok(()),
                }
            }
            Kind::Texts(..) => {
                for _ in 0..self.long()? {
                    self.text()?;
                }
                Ok(())
            }
            Kind::Arrays(element, ..) => {
                for _ in 0..self.long()? {
                    let n = self.long()?;
                    self.elements(element, n, Mode::Full)?;
                }
                Ok(())
            }
        }
    }

    fn text(&mut self) -> Result<(), Fatal> {
        let n = self.long()?;
        self.skip(n)
    }

    fn elements(&mut self, element: &Element, n: u64, mode: Mode) -> Result<(), Fatal> {
        match element {
            Element::Value(value) => self.skip_all(n, value.size()),
            Element::Handle(..) => self.skip_all(n, 8),
            Element::Struct(layout) => self.structures(layout, n, mode),
            Element::Union(union) => {
                for _ in 0..n {
                    self.union(union)?;
                }
                Ok(())
            }
        }
    }

    fn structures(&mut self, layout: &Layout, n: u64, mode: Mode) -> Result<(), Fatal> {
        for _ in 0..n {
            let before = self.at;
            self.structure(layout, mode)?;
            if self.at == before {
                // Nothing is sent for such a struct, however many there are.
                break;
            }
        }
        Ok(())
    }

    fn structure(&mut self, layout: &Layout, mode: Mode) -> Result<(), Fatal> {
        if layout.stype.is_some() {
            self.skip(4)?;
            let mut links: [Option<&Layout>; MAX_LINKS] = [None; MAX_LINKS];
            let mut count = 0;
            while self.long()? != 0 {
                let stype = self.word()? as i32;
                let link = layout.chain.iter().find(|l| l.stype == Some(stype));
                let (Some(link), Some(slot)) = (link, links.get_mut(count)) else {
                    return Err(self.fatal(Reason::Link(vk::StructureType(stype))));
                };
                *slot = Some(link);
                count += 1;
            }
            for link in links.iter().take(count).rev().flatten() {
                for field in link.fields {
                    self.member(field, mode)?;
                }
            }
        }
        for field in layout.fields {
            self.member(field, mode)?;
        }
        Ok(())
    }

    fn union(&mut self, union: &UnionLayout) -> Result<(), Fatal> {
        let tag = self.word()?;
        let Some((member, _)) = union.member(Some(tag as i32)) else {
            return Err(self.fatal(Reason::Tag(tag)));
        };
        match &member.kind {
            Kind::Value(value) => self.skip(value.size() as u64),
            Kind::Struct(layout) => self.structure(layout, Mode::Full),
            Kind::Union(inner, _) => self.union(inner),
            Kind::Fixed(element, n) => {
                self.skip(8)?;
                self.elements(element, *n as u64, Mode::Full)
            }
            Kind::Pointer(element, _) => match self.long()? {
                0 => Ok(()),
                _ => self.elements(element, 1, Mode::Full),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Arena;
    use crate::{COMMANDS, sample};

    #[test]
    fn every_command_is_as_long_as_its_decoder_says() {
        let mut arena = Arena::default();
        for info in COMMANDS.iter().flatten().filter(|info| info.is_codable()) {
            for seed in 0..40 {
                let mut stream = sample::request(info.id, seed, &mut arena);
                let whole = stream.len();
                // Bytes that follow are ignored.
                stream.extend_from_slice(&[0xff; 8]);
                assert_eq!(
                    length(&&stream[..], 0),
                    Ok(whole as u64),
                    "{} {seed}",
                    info.name
                );
                for end in (0..whole).step_by(4) {
                    let cut = length(&&stream[..end], 0);
                    assert!(
                        matches!(cut.unwrap_err().reason, Reason::Truncated { .. }),
                        "{} {seed}, {end} of {whole}",
                        info.name
                    );
                }
            }
        }
    }

    #[test]
    fn absurd_counts_end_at_once() {
        // vkGetPipelineCacheData, and arrays of outputs for which nothing is sent.
        let mut arena = Arena::default();
        for info in COMMANDS.iter().flatten().filter(|info| info.is_codable()) {
            let stream = sample::request(info.id, 3, &mut arena);
            for at in (8..stream.len().saturating_sub(7)).step_by(4) {
                let mut huge = stream.clone();
                huge[at..at + 8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
                // The result may be anything, but it must come soon.
                let _ = length(&&huge[..], 0);
            }
        }
    }

    #[test]
    fn results_can_be_refused_and_addresses_cannot() {
        assert!(returns_result(CommandId::CreateShaderModule));
        assert!(returns_result(CommandId::GetPipelineCacheData));
        assert!(!returns_result(CommandId::GetBufferDeviceAddress));
        assert!(!returns_result(CommandId::CmdDraw));
    }
}
