//! The vtest protocol on the wire: [`Header`], [`Command`] and the allowed size of each.
//!
//! Everything is little-endian 32-bit words. A command is a header of two words, length and number,
//! followed by that many words of payload. Only the length of CREATE_RENDERER counts bytes.
//! [`Header::payload_size`] returns how much to read, and refuses lengths that no client sends
//! before anything is read. So [`Command::parse`] never gets too few bytes, and checks only the
//! contents.

/// Highest protocol version served.
pub(crate) const VERSION: u32 = 4;
/// Lowest protocol version that has Venus.
pub(crate) const MIN_VERSION: u32 = 3;

/// Command numbers.
pub(crate) mod number {
    pub(crate) const RESOURCE_UNREF: u32 = 3;
    pub(crate) const BUSY_WAIT: u32 = 7;
    pub(crate) const CREATE_RENDERER: u32 = 8;
    pub(crate) const PING_PROTOCOL_VERSION: u32 = 10;
    pub(crate) const PROTOCOL_VERSION: u32 = 11;
    pub(crate) const GET_PARAM: u32 = 15;
    pub(crate) const GET_CAPSET: u32 = 16;
    pub(crate) const CONTEXT_INIT: u32 = 17;
    pub(crate) const RESOURCE_CREATE_BLOB: u32 = 18;
    pub(crate) const SYNC_CREATE: u32 = 19;
    pub(crate) const SYNC_UNREF: u32 = 20;
    pub(crate) const SYNC_READ: u32 = 21;
    pub(crate) const SYNC_WRITE: u32 = 22;
    pub(crate) const SYNC_WAIT: u32 = 23;
    pub(crate) const SUBMIT_CMD2: u32 = 24;
}

/// The longest process name in bytes; Linux limits a file name to as much.
const MAX_NAME: u32 = 256;
/// The largest number of synchronisation objects in one wait or fence.
const MAX_POINTS: u32 = 4096;
/// The largest submission in words: 256 MiB, as over virtio. Mesa sends more than 8 KiB through
/// shared memory.
const MAX_SUBMIT: u32 = 64 << 20;

/// What is wrong with a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// Not a command that a Venus client sends.
    #[error("command {0} is unknown, or of a part of the protocol that Venus clients do not use")]
    Unknown(u32),
    /// A length that the command does not have.
    #[error("command {number} with a length of {length}; {least} to {most} are allowed")]
    Length {
        /// The command.
        number: u32,
        /// The length that the client sent, in words or, for CREATE_RENDERER, in bytes.
        length: u32,
        /// Smallest allowed.
        least: u32,
        /// Largest allowed.
        most: u32,
    },
    /// A wait whose length is not a whole number of objects.
    #[error("a wait for {0} words of objects, of 3 words each")]
    Uneven(usize),
    /// A part of a submission that lies outside it.
    #[error("{what}: {size} words at word {offset} are not inside a submission of {words}")]
    Range {
        /// `batches`, `commands` or `syncs`.
        what: &'static str,
        /// First word.
        offset: u64,
        /// Number of words.
        size: u64,
        /// How many words the submission has.
        words: u64,
    },
    /// Parts that overlap, so that little input would become much memory.
    #[error("batches of {0} bytes or more name more than was received")]
    Overlap(usize),
    /// A flag or count that Venus clients leave at 0.
    #[error("{what} of {value:#x} in a submission; Venus clients do not use it")]
    Unused {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u32,
    },
}

/// The first two words of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Length of the payload.
    pub(crate) length: u32,
    /// One of [`number`].
    pub(crate) number: u32,
}

/// Size of a header in bytes.
pub(crate) const HEADER_SIZE: usize = 8;

impl Header {
    /// Reads a header.
    pub(crate) fn from_bytes(bytes: [u8; HEADER_SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self {
            length: u32::from_le_bytes([a, b, c, d]),
            number: u32::from_le_bytes([e, f, g, h]),
        }
    }

    /// The size of the payload in bytes.
    ///
    /// # Errors
    /// [`WireError::Unknown`] and [`WireError::Length`].
    pub(crate) fn payload_size(self) -> Result<usize, WireError> {
        use number::*;
        let (least, most) = match self.number {
            PING_PROTOCOL_VERSION => (0, 0),
            RESOURCE_UNREF | PROTOCOL_VERSION | GET_PARAM | CONTEXT_INIT => (1, 1),
            SYNC_UNREF | SYNC_READ => (1, 1),
            BUSY_WAIT | GET_CAPSET | SYNC_CREATE => (2, 2),
            SYNC_WRITE => (3, 3),
            RESOURCE_CREATE_BLOB => (6, 6),
            CREATE_RENDERER => (1, MAX_NAME),
            SYNC_WAIT => (2, 2 + 3 * MAX_POINTS),
            SUBMIT_CMD2 => (1, MAX_SUBMIT),
            other => return Err(WireError::Unknown(other)),
        };
        if !(least..=most).contains(&self.length) {
            return Err(WireError::Length {
                number: self.number,
                length: self.length,
                least,
                most,
            });
        }
        let unit = if self.number == CREATE_RENDERER { 1 } else { 4 };
        Ok(self.length as usize * unit)
    }
}

/// A synchronisation object and a value that it must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// The object.
    pub(crate) sync: u32,
    /// The value.
    pub(crate) value: u64,
}

/// Points in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Points<'p>(&'p [u8]);

/// Size of a [`Point`] in bytes.
const POINT: usize = 12;

impl<'p> Points<'p> {
    /// The points in order.
    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = Point> + 'p {
        self.0.chunks_exact(POINT).map(|bytes| Point {
            sync: word(bytes, 0),
            value: long(bytes, 1),
        })
    }
}

/// One batch of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch<'p> {
    /// Venus commands; may be empty.
    pub(crate) commands: &'p [u8],
    /// The points to reach when the batch is done; may be empty.
    pub(crate) points: Points<'p>,
    /// The timeline on which the batch runs; 0 is the CPU's.
    pub(crate) ring: u8,
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command<'p> {
    /// Names the client: its process name.
    CreateRenderer(&'p [u8]),
    /// Asks whether the server knows protocol versions.
    Ping,
    /// Proposes the client's protocol version.
    Version(u32),
    /// Asks whether a resource is busy.
    BusyWait,
    /// Asks for a property of the server.
    GetParam(u32),
    /// Asks for a capability set.
    GetCapset {
        /// The id of the set.
        id: u32,
        /// Its version.
        version: u32,
    },
    /// Creates the context, for this capability set.
    ContextInit(u32),
    /// Creates a blob.
    CreateBlob {
        /// 2 is `HOST3D`.
        kind: u32,
        /// 1 mappable, 2 shareable, 4 cross-device.
        flags: u32,
        /// In bytes.
        size: u64,
        /// 0, or the id of a `VkDeviceMemory`.
        id: u64,
    },
    /// Unreferences a resource.
    ResourceUnref(u32),
    /// Creates a synchronisation object with this value.
    SyncCreate(u64),
    /// Unreferences a synchronisation object.
    SyncUnref(u32),
    /// Asks for the value of an object.
    SyncRead(u32),
    /// Sets the value of an object, also to a lower one.
    SyncWrite(Point),
    /// Asks for a descriptor that becomes readable when the points are reached.
    SyncWait {
        /// Whether one reached point is enough.
        any: bool,
        /// In milliseconds; `None` is forever.
        timeout: Option<u32>,
        /// The points to wait for.
        points: Points<'p>,
    },
    /// Submits work; see [`Submission::batches`].
    Submit(Submission<'p>),
}

/// The payload of SUBMIT_CMD2: batches, followed by the commands and points to which they refer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Submission<'p> {
    payload: &'p [u8],
    /// The number of words in a batch. Version 4 added two.
    stride: usize,
}

impl<'p> Command<'p> {
    /// Parses the payload of a command in a client's `version` of the protocol. The payload has the
    /// size that [`Header::payload_size`] returned.
    ///
    /// # Errors
    /// The variants of [`WireError`] that depend on the contents.
    pub(crate) fn parse(number: u32, version: u32, payload: &'p [u8]) -> Result<Self, WireError> {
        let first = word(payload, 0);
        Ok(match number {
            number::CREATE_RENDERER => {
                let end = payload.iter().position(|&byte| byte == 0);
                Self::CreateRenderer(
                    payload
                        .get(..end.unwrap_or(payload.len()))
                        .unwrap_or(payload),
                )
            }
            number::PING_PROTOCOL_VERSION => Self::Ping,
            number::PROTOCOL_VERSION => Self::Version(first),
            number::BUSY_WAIT => Self::BusyWait,
            number::GET_PARAM => Self::GetParam(first),
            number::GET_CAPSET => Self::GetCapset {
                id: first,
                version: word(payload, 1),
            },
            number::CONTEXT_INIT => Self::ContextInit(first),
            number::RESOURCE_CREATE_BLOB => Self::CreateBlob {
                kind: first,
                flags: word(payload, 1),
                size: long(payload, 2),
                id: long(payload, 4),
            },
            number::RESOURCE_UNREF => Self::ResourceUnref(first),
            number::SYNC_CREATE => Self::SyncCreate(long(payload, 0)),
            number::SYNC_UNREF => Self::SyncUnref(first),
            number::SYNC_READ => Self::SyncRead(first),
            number::SYNC_WRITE => Self::SyncWrite(Point {
                sync: first,
                value: long(payload, 1),
            }),
            number::SYNC_WAIT => {
                let points = payload.get(8..).unwrap_or_default();
                if points.len() % POINT != 0 {
                    return Err(WireError::Uneven(points.len() / 4));
                }
                let timeout = word(payload, 1);
                Self::SyncWait {
                    any: first & 1 != 0,
                    // A negative timeout is forever, as in poll(2).
                    timeout: (timeout <= i32::MAX as u32).then_some(timeout),
                    points: Points(points),
                }
            }
            number::SUBMIT_CMD2 => Self::Submit(Submission {
                payload,
                stride: if version >= 4 { 8 } else { 6 },
            }),
            other => return Err(WireError::Unknown(other)),
        })
    }
}

impl<'p> Submission<'p> {
    /// The batches in order. An error in any of them ends the client. Together they are no larger
    /// than what was received.
    pub(crate) fn batches(self) -> impl Iterator<Item = Result<Batch<'p>, WireError>> {
        let mut named = 0;
        (0..u64::from(word(self.payload, 0))).map(move |index| {
            let batch = self.batch(index)?;
            // Cannot overflow: each part is inside the payload, and the sum ends above its size.
            named += batch.commands.len() + batch.points.0.len();
            match named <= self.payload.len() {
                true => Ok(batch),
                false => Err(WireError::Overlap(named)),
            }
        })
    }

    fn batch(self, index: u64) -> Result<Batch<'p>, WireError> {
        // The two words of version 4 are 0 in a batch of six words, because `word` returns 0 past
        // the end.
        let stride = self.stride as u64;
        let fields = self.part("batches", 1 + index * stride, stride)?;
        let [flags, cmd_offset, cmd_size] = [0, 1, 2].map(|at| word(fields, at));
        let [sync_offset, sync_count, ring] = [3, 4, 5].map(|at| word(fields, at));
        for (what, value) in [
            ("flags", flags & !FLAG_RING),
            ("drm-sync objects to wait for", word(fields, 6)),
            ("drm-sync objects to signal", word(fields, 7)),
        ] {
            if value != 0 {
                return Err(WireError::Unused { what, value });
            }
        }
        let ring = if flags & FLAG_RING == 0 { 0 } else { ring };
        let Some(ring) = u8::try_from(ring)
            .ok()
            .filter(|&ring| u32::from(ring) < RINGS)
        else {
            return Err(WireError::Unused {
                what: "a ring index",
                value: ring,
            });
        };
        let points = 3 * u64::from(sync_count);
        Ok(Batch {
            commands: self.part("commands", u64::from(cmd_offset), u64::from(cmd_size))?,
            points: Points(self.part("syncs", u64::from(sync_offset), points)?),
            ring,
        })
    }

    /// `size` words at word `offset`.
    fn part(self, what: &'static str, offset: u64, size: u64) -> Result<&'p [u8], WireError> {
        // Cannot overflow: both are sums and small multiples of 32-bit numbers.
        let range = usize::try_from(offset * 4)
            .ok()
            .zip(usize::try_from((offset + size) * 4).ok());
        match range.and_then(|(from, to)| self.payload.get(from..to)) {
            Some(part) => Ok(part),
            // Clients do not set the offset of an empty part.
            None if size == 0 => Ok(&[]),
            None => Err(WireError::Range {
                what,
                offset,
                size,
                words: self.payload.len() as u64 / 4,
            }),
        }
    }
}

/// `VCMD_SUBMIT_CMD2_FLAG_RING_IDX`: the batch has a timeline index.
const FLAG_RING: u32 = 1;

/// How many timelines a client has, with the CPU's; the answer to parameter 1.
pub(crate) const RINGS: u32 = 64;

/// Word `index` of a payload; 0 past its end.
fn word(payload: &[u8], index: usize) -> u32 {
    match payload.get(index * 4..index * 4 + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// A number of two words, the low one first.
fn long(payload: &[u8], index: usize) -> u64 {
    u64::from(word(payload, index)) | u64::from(word(payload, index + 1)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn batches(version: u32, payload: &[u8]) -> Result<Vec<Batch<'_>>, WireError> {
        match Command::parse(number::SUBMIT_CMD2, version, payload).unwrap() {
            Command::Submit(submission) => submission.batches().collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_length_that_a_command_does_not_have_is_refused_before_its_payload_is_read() {
        for number in 0..64 {
            for length in [0, 1, 2, 3, 4, 5, 6, 7, 300, 20_000, 1 << 30, u32::MAX] {
                let header = Header { length, number };
                match header.payload_size() {
                    Ok(size) => assert!(size <= 256 << 20, "{header:?}"),
                    Err(WireError::Unknown(named)) => assert_eq!(named, number),
                    Err(WireError::Length { least, most, .. }) => {
                        assert!(length < least || length > most, "{header:?}");
                    }
                    Err(other) => panic!("{header:?}: {other}"),
                }
            }
        }
        let name = Header {
            length: 7,
            number: number::CREATE_RENDERER,
        };
        assert_eq!(name.payload_size(), Ok(7), "its length counts bytes");
    }

    #[test]
    fn a_batch_has_six_words_before_version_4_and_eight_since() {
        let old = bytes(&[2, 1, 13, 1, 14, 1, 5, 0, 0, 0, 0, 0, 0, 0xaa, 7, 9, 1]);
        let found = batches(3, &old).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].commands, bytes(&[0xaa]));
        assert_eq!(found[0].ring, 5);
        let point = Point {
            sync: 7,
            value: 9 | 1 << 32,
        };
        assert_eq!(found[0].points.iter().collect::<Vec<_>>(), [point]);
        assert_eq!(
            (
                found[1].commands,
                found[1].ring,
                found[1].points.iter().len()
            ),
            (&[][..], 0, 0)
        );

        let new = bytes(&[2, 0, 17, 1, 0, 0, 5, 0, 0, 1, 17, 1, 0, 0, 6, 0, 0, 0xbb]);
        let rings: Vec<u8> = batches(4, &new)
            .unwrap()
            .iter()
            .map(|batch| batch.ring)
            .collect();
        assert_eq!(rings, [0, 6], "a ring counts only with its flag");
    }

    #[test]
    fn parts_outside_of_a_submission_are_refused() {
        for (payload, what) in [
            (vec![2, 0, 0, 0, 0, 0, 0, 0, 0], "batches"),
            (vec![u32::MAX, 0, 0, 0, 0, 0, 0, 0, 0], "batches"),
            (vec![1, 0, 9, 1, 0, 0, 0, 0, 0], "commands"),
            (vec![1, 0, u32::MAX, u32::MAX, 0, 0, 0, 0, 0], "commands"),
            (vec![1, 0, 0, 0, 7, 1, 0, 0, 0], "syncs"),
            (vec![1, 0, 0, 0, 0, u32::MAX, 0, 0, 0], "syncs"),
        ] {
            match batches(4, &bytes(&payload)) {
                Err(WireError::Range { what: named, .. }) => assert_eq!(named, what),
                other => panic!("{payload:?}: {other:?}"),
            }
        }
        assert_eq!(batches(4, &bytes(&[0])), Ok(vec![]));
        assert!(
            batches(4, &bytes(&[1, 0, 77, 0, 99, 0, 0, 0, 0])).is_ok(),
            "empty parts"
        );
    }

    #[test]
    fn batches_that_overlap_are_no_larger_than_what_was_received() {
        // Each batch names all words.
        let mut payload = vec![1000];
        for _ in 0..1000 {
            payload.extend([0, 0, 8001, 0, 0, 0, 0, 0]);
        }
        let received = bytes(&payload);
        let found = batches(4, &received);
        assert_eq!(found, Err(WireError::Overlap(2 * received.len())));
        let mut payload = vec![0; 8001];
        payload[0] = 1000;
        for batch in payload[1..].chunks_mut(8) {
            // As many points as fit, of the same words.
            batch[4] = 1;
        }
        let received = bytes(&payload);
        assert_eq!(batches(4, &received).unwrap().len(), 1000);
    }

    #[test]
    fn what_venus_does_not_use_is_refused() {
        for payload in [
            [1, 2, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 1, 0],
            [1, 0, 0, 0, 0, 0, 0, 0, 1],
            [1, 1, 0, 0, 0, 0, 64, 0, 0],
            [1, 1, 0, 0, 0, 0, 256, 0, 0],
        ] {
            assert!(
                matches!(batches(4, &bytes(&payload)), Err(WireError::Unused { .. })),
                "{payload:?}"
            );
        }
    }

    #[test]
    fn a_wait_has_whole_points_and_any_negative_timeout_is_forever() {
        let parse = |words: &[u32]| {
            let payload = bytes(words);
            match Command::parse(number::SYNC_WAIT, 4, &payload) {
                Ok(Command::SyncWait {
                    any,
                    timeout,
                    points,
                }) => Ok((any, timeout, points.iter().collect::<Vec<_>>())),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error),
            }
        };
        let point = Point { sync: 4, value: 5 };
        assert_eq!(
            parse(&[1, 100, 4, 5, 0]),
            Ok((true, Some(100), vec![point]))
        );
        assert_eq!(parse(&[0, u32::MAX]), Ok((false, None, vec![])));
        assert_eq!(parse(&[0, 1 << 31]), Ok((false, None, vec![])));
        assert_eq!(parse(&[0, 0, 4, 5]), Err(WireError::Uneven(2)));
    }
}
