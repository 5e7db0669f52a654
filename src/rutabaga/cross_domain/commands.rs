//! Checks what a guest submits to a cross-domain context, before `rutabaga_gfx` sees it: the
//! library would loop forever on a command of size 0, and lose a worker thread at a second INIT.
//!
//! A submission is a sequence of commands. Each has a header of 8 bytes: the command (1 byte), a
//! ring (1), the size of the command with its header (2), and 4 unused bytes.

/// Connects, and names the rings.
const INIT: u8 = 1;
/// Asks for an image's layout in memory; the answer is written to the query ring.
const GET_IMAGE_REQUIREMENTS: u8 = 2;
/// Sends a message with descriptors.
const SEND: u8 = 4;
/// Waits for an event of the host.
const READ_CREATE_EVENT: u8 = 11;
/// Opens a file on a file system that guest and host share.
const IMPORT_VIRTIOFS_HANDLE: u8 = 12;
/// Gives a socket to another context.
const ASSIGN_SOCKET_UUID: u8 = 13;

const HEADER: usize = 8;
/// The sizes of INIT without and with the name of a socket.
const INIT_SIZES: [usize; 2] = [20, 36];
/// The size of a SEND before its message.
const SEND_SIZE: usize = 16 + 3 * 4 * IDENTIFIERS;
/// The largest number of descriptors in a SEND.
const IDENTIFIERS: usize = 28;
/// The type of a descriptor that is the end of a new pipe.
const READ_PIPE: u32 = 3;

/// The rings that INIT names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Init {
    /// The resource in which requests are answered.
    pub(super) query_ring: u32,
    /// The resource in which the host's messages arrive.
    pub(super) channel_ring: u32,
    /// What to connect to; 0 for nothing.
    pub(super) channel: u32,
}

/// The kind of a command, with the values that Hesper checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Init(Init),
    ImageRequirements,
    /// The number of pipes that it opens.
    Send(u32),
    Other,
}

/// A command of a submission.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command<'a> {
    pub(super) kind: Kind,
    pub(super) bytes: &'a mut [u8],
}

/// Takes the next command from `stream`; `None` at the end.
///
/// # Errors
/// What is wrong with the command.
pub(super) fn next<'a>(stream: &mut &'a mut [u8]) -> Result<Option<Command<'a>>, String> {
    if stream.is_empty() {
        return Ok(None);
    }
    let [command, _ring, low, high] = array(stream, 0).ok_or("a command ends in its header")?;
    let size = usize::from(u16::from_le_bytes([low, high]));
    if size < HEADER || size > stream.len() {
        return Err(format!(
            "command {command} has a size of {size} bytes; at least {HEADER} are needed, and {} are left",
            stream.len()
        ));
    }
    let (bytes, rest) = std::mem::take(stream)
        .split_at_mut_checked(size)
        .ok_or("a command ends early")?;
    *stream = rest;
    let kind = match command {
        INIT => Kind::Init(init(bytes)?),
        GET_IMAGE_REQUIREMENTS => Kind::ImageRequirements,
        SEND => Kind::Send(pipes(bytes)?),
        READ_CREATE_EVENT | IMPORT_VIRTIOFS_HANDLE | ASSIGN_SOCKET_UUID => {
            return Err(format!(
                "command {command} (events, shared file systems and sockets between contexts) is not offered"
            ));
        }
        _ => Kind::Other,
    };
    Ok(Some(Command { kind, bytes }))
}

fn init(bytes: &[u8]) -> Result<Init, String> {
    if !INIT_SIZES.contains(&bytes.len()) {
        return Err(format!("INIT has {} bytes, not 20 or 36", bytes.len()));
    }
    let short = || "INIT ends early".to_owned();
    Ok(Init {
        query_ring: word(bytes, 8).ok_or_else(short)?,
        channel_ring: word(bytes, 12).ok_or_else(short)?,
        channel: word(bytes, 16).ok_or_else(short)?,
    })
}

/// How many pipes a SEND opens.
fn pipes(bytes: &[u8]) -> Result<u32, String> {
    let count = word(bytes, 8).ok_or("SEND ends early")? as usize;
    if bytes.len() < SEND_SIZE || count > IDENTIFIERS {
        return Err(format!(
            "SEND has {} bytes and {count} descriptors; it must have {SEND_SIZE} bytes at least and {IDENTIFIERS} descriptors at most",
            bytes.len()
        ));
    }
    let types = bytes.get(16 + 4 * IDENTIFIERS..).unwrap_or(&[]);
    let pipes = types
        .chunks_exact(4)
        .take(count)
        .filter(|kind| *kind == READ_PIPE.to_le_bytes());
    // The count is at most 28.
    Ok(pipes.count() as u32)
}

/// The little-endian word at `offset`.
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

/// `N` bytes at `offset`.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(kind: u8, size: u16, body: &[u8]) -> Vec<u8> {
        let [low, high] = size.to_le_bytes();
        [&[kind, 0, low, high, 0, 0, 0, 0], body].concat()
    }

    fn all(mut stream: Vec<u8>) -> Result<Vec<(Kind, usize)>, String> {
        let mut rest = stream.as_mut_slice();
        let mut found = Vec::new();
        while let Some(command) = next(&mut rest)? {
            found.push((command.kind, command.bytes.len()));
        }
        Ok(found)
    }

    #[test]
    fn a_submission_is_cut_where_its_sizes_say() {
        let init = command(INIT, 20, &[1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
        let wanted = Init {
            query_ring: 1,
            channel_ring: 2,
            channel: 1,
        };
        let image = command(GET_IMAGE_REQUIREMENTS, 24, &[0; 16]);
        let mut send = command(SEND, 356, &[0; 348]);
        send[8] = 2;
        // The second and the third descriptor are pipes, but the command has only two descriptors.
        send[16 + 4 * IDENTIFIERS + 4] = 3;
        send[16 + 4 * IDENTIFIERS + 8] = 3;
        let poll = command(3, 8, &[]);
        assert_eq!(
            all([init, image, send, poll].concat()).unwrap(),
            [
                (Kind::Init(wanted), 20),
                (Kind::ImageRequirements, 24),
                (Kind::Send(1), 356),
                (Kind::Other, 8),
            ]
        );
    }

    #[test]
    fn sizes_that_the_library_does_not_survive_are_refused() {
        for (stream, what) in [
            (command(3, 0, &[]), "size 0"),
            (command(3, 7, &[]), "less than a header"),
            (command(3, 9, &[]), "more than there is"),
            (vec![3, 0, 8], "a cut header"),
            (command(INIT, 16, &[0; 8]), "a short INIT"),
            (command(SEND, 16, &[0; 8]), "a short SEND"),
            (command(SEND, 352, &[255; 344]), "a SEND of too many"),
            (command(ASSIGN_SOCKET_UUID, 32, &[0; 24]), "not offered"),
        ] {
            assert!(all(stream).is_err(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn parsing_any_bytes_ends(stream in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let length = stream.len();
            if let Ok(found) = all(stream) {
                prop_assert_eq!(found.iter().map(|(_, size)| size).sum::<usize>(), length);
            }
        }
    }
}
