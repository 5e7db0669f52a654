//! The bytes of messages: [`Message`].
//!
//! Numbers are little-endian and packed, in the order of the fields in [`super::message`]. Text and
//! lists are last; their length is what is left of the message. Decoding refuses what is too short,
//! too long or out of range, because a message may be a guest's.

use std::borrow::Cow;

use hesper_venus::{BlobRequest, Caching, DisplayServer};

use super::message::{Budget, FromWorker, LONGEST_TEXT, MOST_FILES, Piece, Refusal, Run, ToWorker};

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// No message of this direction has this kind.
    #[error("a message of the unknown kind {0}")]
    Kind(u8),
    /// The fields need more bytes, or fewer.
    #[error("a message of kind {kind} with {bytes} bytes, which is a wrong length")]
    Length {
        /// The kind.
        kind: u8,
        /// Bytes of all fields.
        bytes: usize,
    },
    /// A field has a value that it cannot have.
    #[error("a message of kind {kind} whose {field} is out of range")]
    Value {
        /// The kind.
        kind: u8,
        /// The field.
        field: &'static str,
    },
    /// Other descriptors came with it than it needs.
    #[error("a message of kind {kind} with {count} descriptors, which is a wrong number")]
    Descriptors {
        /// The kind.
        kind: u8,
        /// How many came.
        count: usize,
    },
}

/// What travels in a frame of [`super::channel`].
pub(super) trait Message: Sized {
    /// Which message it is.
    fn kind(&self) -> u8;

    /// Appends the fields, except for [`Message::tail`].
    fn encode(&self, to: &mut Vec<u8>);

    /// The last field, if it is so large that it is sent from where it lies.
    fn tail(&self) -> &[u8] {
        &[]
    }

    /// [`Message::tail`] itself.
    fn into_tail(self) -> Vec<u8> {
        Vec::new()
    }

    /// The message with these `fields`, with which `descriptors` came.
    ///
    /// # Errors
    /// They are not what [`Message::encode`] makes.
    fn decode(kind: u8, fields: Cow<'_, [u8]>, descriptors: usize) -> Result<Self, Malformed>;
}

/// Bytes of a [`Run`].
const RUN: usize = 20;

impl Message for ToWorker {
    fn kind(&self) -> u8 {
        match self {
            Self::Configure(_) => 1,
            Self::Begin { .. } => 2,
            Self::Submit(_) => 3,
            Self::Fence { .. } => 4,
            Self::CreateBlob { .. } => 5,
            Self::Attach { .. } => 6,
            Self::AttachGuest { .. } => 7,
            Self::Detach { .. } => 8,
            Self::GiveBack { .. } => 9,
            Self::End => 10,
            Self::Returned { .. } => 11,
        }
    }

    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Begin { id, name, server } => {
                to.extend_from_slice(&id.to_le_bytes());
                to.push(u8::from(*server == DisplayServer::NeedsCopies));
                to.extend_from_slice(name.as_bytes());
            }
            Self::Configure(_) | Self::Submit(_) | Self::End => {}
            Self::Fence { ring, fence } => put_fence(to, *ring, *fence),
            Self::CreateBlob { resource, request } => {
                to.extend_from_slice(&resource.to_le_bytes());
                to.extend_from_slice(&request.blob_id.to_le_bytes());
                to.extend_from_slice(&request.size.to_le_bytes());
                let uses = [request.mappable, request.shareable, request.cross_device];
                to.extend(uses.map(u8::from));
            }
            Self::Attach { resource, memory } => put_memory(to, *resource, memory),
            Self::AttachGuest { resource, runs } => {
                to.extend_from_slice(&resource.to_le_bytes());
                for run in runs {
                    to.extend_from_slice(&run.file.to_le_bytes());
                    to.extend_from_slice(&run.offset.to_le_bytes());
                    to.extend_from_slice(&run.size.to_le_bytes());
                }
            }
            Self::Detach { resource, ticket } => {
                to.extend_from_slice(&resource.to_le_bytes());
                to.extend_from_slice(&ticket.to_le_bytes());
            }
            Self::GiveBack { ticket } => to.extend_from_slice(&ticket.to_le_bytes()),
            Self::Returned {
                serial,
                is_given_away,
            } => {
                to.extend_from_slice(&serial.to_le_bytes());
                to.push(u8::from(*is_given_away));
            }
        }
    }

    fn tail(&self) -> &[u8] {
        match self {
            Self::Configure(bytes) | Self::Submit(bytes) => bytes,
            _ => &[],
        }
    }

    fn into_tail(self) -> Vec<u8> {
        match self {
            Self::Configure(bytes) | Self::Submit(bytes) => bytes,
            _ => Vec::new(),
        }
    }

    fn decode(kind: u8, fields: Cow<'_, [u8]>, descriptors: usize) -> Result<Self, Malformed> {
        let expected = match kind {
            1 => 3..=3,
            6 => 1..=1,
            7 => 1..=MOST_FILES,
            _ => 0..=0,
        };
        if !expected.contains(&descriptors) {
            let count = descriptors;
            return Err(Malformed::Descriptors { kind, count });
        }
        // Large batches were received into a vector of their own.
        match kind {
            1 => return Ok(Self::Configure(fields.into_owned())),
            3 => return Ok(Self::Submit(fields.into_owned())),
            _ => {}
        }
        let mut fields = Fields::new(kind, &fields);
        let message = match kind {
            2 => Self::Begin {
                id: fields.u32()?,
                server: match fields.bool("server")? {
                    true => DisplayServer::NeedsCopies,
                    false => DisplayServer::Unknown,
                },
                name: fields.text(usize::MAX)?,
            },
            4 => Self::Fence {
                ring: fields.u8()?,
                fence: fields.u64()?,
            },
            5 => Self::CreateBlob {
                resource: fields.u32()?,
                request: BlobRequest {
                    blob_id: fields.u64()?,
                    size: fields.u64()?,
                    mappable: fields.bool("mappable")?,
                    shareable: fields.bool("shareable")?,
                    cross_device: fields.bool("cross_device")?,
                },
            },
            6 => Self::Attach {
                resource: fields.u32()?,
                memory: fields.piece()?,
            },
            7 => Self::AttachGuest {
                resource: fields.u32()?,
                runs: fields.runs(descriptors)?,
            },
            8 => Self::Detach {
                resource: fields.u32()?,
                ticket: fields.u32()?,
            },
            9 => Self::GiveBack {
                ticket: fields.ticket()?,
            },
            10 => Self::End,
            11 => Self::Returned {
                serial: fields.u64()?,
                is_given_away: fields.bool("is_given_away")?,
            },
            _ => return Err(Malformed::Kind(kind)),
        };
        fields.end()?;
        Ok(message)
    }
}

impl Message for FromWorker {
    fn kind(&self) -> u8 {
        match self {
            Self::Ready => 33,
            Self::Unable(_) => 34,
            Self::FenceRetired { .. } => 35,
            Self::BlobCreated { .. } => 36,
            Self::BlobRefused { .. } => 37,
            Self::RingCreated { .. } => 38,
            Self::RingDestroyed { .. } => 39,
            Self::Consumed { .. } => 40,
            Self::Detached { .. } => 41,
            Self::Lost(_) => 42,
            Self::Log { .. } => 43,
            Self::Ended => 44,
        }
    }

    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Ready | Self::Ended => {}
            Self::Unable(reason) | Self::Lost(reason) => put_text(to, reason),
            Self::FenceRetired { ring, fence } => put_fence(to, *ring, *fence),
            Self::BlobCreated {
                resource,
                serial,
                memory,
            } => {
                put_memory(to, *resource, memory);
                to.extend_from_slice(&serial.to_le_bytes());
            }
            Self::BlobRefused {
                resource,
                kind,
                reason,
            } => {
                to.extend_from_slice(&resource.to_le_bytes());
                to.push(match kind {
                    Refusal::Invalid => 0,
                    Refusal::OutOfMemory => 1,
                    Refusal::Lost => 2,
                });
                put_text(to, reason);
            }
            Self::RingCreated { ring, status } => {
                to.extend_from_slice(&ring.to_le_bytes());
                to.extend_from_slice(&status.to_le_bytes());
            }
            Self::RingDestroyed { ring } => to.extend_from_slice(&ring.to_le_bytes()),
            Self::Consumed { bytes } => to.extend_from_slice(&bytes.to_le_bytes()),
            Self::Detached { ticket } => to.extend_from_slice(&ticket.to_le_bytes()),
            Self::Log { level, line } => {
                to.push(*level);
                put_text(to, line);
            }
        }
    }

    fn decode(kind: u8, fields: Cow<'_, [u8]>, descriptors: usize) -> Result<Self, Malformed> {
        let expected = usize::from(matches!(kind, 36 | 38));
        if descriptors != expected {
            let count = descriptors;
            return Err(Malformed::Descriptors { kind, count });
        }
        let mut fields = Fields::new(kind, &fields);
        let message = match kind {
            33 => Self::Ready,
            34 => Self::Unable(fields.text(LONGEST_TEXT)?),
            35 => Self::FenceRetired {
                ring: fields.u8()?,
                fence: fields.u64()?,
            },
            36 => Self::BlobCreated {
                resource: fields.u32()?,
                memory: fields.piece()?,
                serial: fields.u64()?,
            },
            37 => Self::BlobRefused {
                resource: fields.u32()?,
                kind: match fields.u8()? {
                    0 => Refusal::Invalid,
                    1 => Refusal::OutOfMemory,
                    2 => Refusal::Lost,
                    _ => return Err(fields.wrong("refusal")),
                },
                reason: fields.text(LONGEST_TEXT)?,
            },
            38 => Self::RingCreated {
                ring: fields.u64()?,
                status: fields.u64()?,
            },
            39 => Self::RingDestroyed {
                ring: fields.u64()?,
            },
            40 => Self::Consumed {
                bytes: fields.u64()?,
            },
            41 => Self::Detached {
                ticket: fields.ticket()?,
            },
            42 => Self::Lost(fields.text(LONGEST_TEXT)?),
            43 => Self::Log {
                level: match fields.u8()? {
                    level @ 1..=5 => level,
                    _ => return Err(fields.wrong("level")),
                },
                line: fields.text(LONGEST_TEXT)?,
            },
            44 => Self::Ended,
            _ => return Err(Malformed::Kind(kind)),
        };
        fields.end()?;
        Ok(message)
    }
}

impl Message for Budget {
    fn kind(&self) -> u8 {
        match self {
            Self::Ask { .. } => 65,
            Self::Granted { .. } => 66,
            Self::GiveBack { .. } => 67,
            Self::Left { .. } => 68,
        }
    }

    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Ask { pool, amount } | Self::GiveBack { pool, amount } => {
                to.push(*pool);
                to.extend_from_slice(&amount.to_le_bytes());
            }
            Self::Granted { amount } => to.extend_from_slice(&amount.to_le_bytes()),
            Self::Left { pool } => to.push(*pool),
        }
    }

    fn decode(kind: u8, fields: Cow<'_, [u8]>, descriptors: usize) -> Result<Self, Malformed> {
        if descriptors != 0 {
            let count = descriptors;
            return Err(Malformed::Descriptors { kind, count });
        }
        let mut fields = Fields::new(kind, &fields);
        let message = match kind {
            65 => Self::Ask {
                pool: fields.u8()?,
                amount: fields.u64()?,
            },
            66 => Self::Granted {
                amount: fields.u64()?,
            },
            67 => Self::GiveBack {
                pool: fields.u8()?,
                amount: fields.u64()?,
            },
            68 => Self::Left { pool: fields.u8()? },
            _ => return Err(Malformed::Kind(kind)),
        };
        fields.end()?;
        Ok(message)
    }
}

fn put_fence(to: &mut Vec<u8>, ring: u8, fence: u64) {
    to.push(ring);
    to.extend_from_slice(&fence.to_le_bytes());
}

fn put_memory(to: &mut Vec<u8>, resource: u32, memory: &Piece) {
    to.extend_from_slice(&resource.to_le_bytes());
    to.extend_from_slice(&memory.offset.to_le_bytes());
    to.extend_from_slice(&memory.size.to_le_bytes());
    to.push(match memory.caching {
        Caching::Cached => 0,
        Caching::WriteCombining => 1,
    });
}

/// Appends a worker's text, and cuts off what is too much.
fn put_text(to: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    to.extend_from_slice(text.get(..end).unwrap_or_default().as_bytes());
}

/// The fields of a message that are not read yet.
struct Fields<'a> {
    kind: u8,
    rest: &'a [u8],
    all: usize,
}

impl<'a> Fields<'a> {
    fn new(kind: u8, fields: &'a [u8]) -> Self {
        Self {
            kind,
            rest: fields,
            all: fields.len(),
        }
    }

    fn wrong_length(&self) -> Malformed {
        Malformed::Length {
            kind: self.kind,
            bytes: self.all,
        }
    }

    fn wrong(&self, field: &'static str) -> Malformed {
        Malformed::Value {
            kind: self.kind,
            field,
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| self.wrong_length())?;
        self.rest = rest;
        Ok(*first)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.take().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_le_bytes)
    }

    fn bool(&mut self, field: &'static str) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong(field)),
        }
    }

    /// A ticket that is answered.
    fn ticket(&mut self) -> Result<u32, Malformed> {
        match self.u32()? {
            0 => Err(self.wrong("ticket")),
            ticket => Ok(ticket),
        }
    }

    fn piece(&mut self) -> Result<Piece, Malformed> {
        Ok(Piece {
            offset: self.u64()?,
            size: self.u64()?,
            caching: match self.u8()? {
                0 => Caching::Cached,
                1 => Caching::WriteCombining,
                _ => return Err(self.wrong("caching")),
            },
        })
    }

    /// The rest: one run or more, in these files.
    fn runs(&mut self, files: usize) -> Result<Vec<Run>, Malformed> {
        if self.rest.is_empty() || !self.rest.len().is_multiple_of(RUN) {
            return Err(self.wrong_length());
        }
        let mut runs = Vec::with_capacity(self.rest.len() / RUN);
        while !self.rest.is_empty() {
            let run = Run {
                file: self.u32()?,
                offset: self.u64()?,
                size: self.u64()?,
            };
            if run.file as usize >= files {
                return Err(self.wrong("file"));
            }
            runs.push(run);
        }
        Ok(runs)
    }

    /// The rest: text of at most `longest` bytes.
    fn text(&mut self, longest: usize) -> Result<String, Malformed> {
        let rest = std::mem::take(&mut self.rest);
        if rest.len() > longest {
            return Err(self.wrong_length());
        }
        let text = std::str::from_utf8(rest).map_err(|_| self.wrong("text"))?;
        Ok(text.to_owned())
    }

    fn end(self) -> Result<(), Malformed> {
        match self.rest {
            [] => Ok(()),
            _ => Err(self.wrong_length()),
        }
    }
}

#[cfg(test)]
mod tests;
