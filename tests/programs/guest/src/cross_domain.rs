//! The messages of a cross-domain context, and Wayland's in them: what a program in a guest sends.

/// Connect, and name the rings.
pub const INIT: u8 = 1;
/// Ask how an image must lie in memory.
pub const GET_IMAGE_REQUIREMENTS: u8 = 2;
/// Wait for the host.
pub const POLL: u8 = 3;
/// A message to the host.
pub const SEND: u8 = 4;
/// A message of the host.
pub const RECEIVE: u8 = 5;
/// Bytes out of a pipe.
pub const READ: u8 = 6;
/// Bytes into a pipe.
pub const WRITE: u8 = 7;

/// Descriptors of a message at most.
pub const IDENTIFIERS: usize = 28;
/// Bytes of a message before its text.
pub const MESSAGE: usize = 16 + 12 * IDENTIFIERS;

/// A descriptor that is a resource.
pub const BLOB: u32 = 1;
/// A descriptor that is the writing end of a pipe, which the host makes and we read.
pub const READ_PIPE: u32 = 3;
/// A descriptor that is the writing end of a pipe for us.
pub const WRITE_PIPE: u32 = 4;

/// `XR24`.
pub const XRGB8888: u32 = 0x3432_5258;

/// Wayland's object that every connection begins with.
pub const DISPLAY: u32 = 1;
/// The id that our clients give the registry.
pub const REGISTRY: u32 = 2;

/// A command with its header.
#[must_use]
pub fn command(kind: u8, body: &[u8]) -> Vec<u8> {
    // What is longer does not fit into a message, and nobody here makes it.
    let [low, high] = ((8 + body.len()) as u16).to_le_bytes();
    [&[kind, 0, low, high, 0, 0, 0, 0], body].concat()
}

/// Numbers as both protocols have them.
#[must_use]
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The number at `offset`; 0 past the end.
#[must_use]
pub fn word(bytes: &[u8], offset: usize) -> u32 {
    let rest = bytes.get(offset..).unwrap_or(&[]);
    rest.first_chunk()
        .map_or(0, |word| u32::from_le_bytes(*word))
}

/// A string as Wayland has it.
#[must_use]
pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = words(&[text.len() as u32 + 1]);
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// SEND of bytes with descriptors, each an identifier and its kind.
#[must_use]
pub fn send(bytes: &[u8], descriptors: &[(u32, u32)]) -> Vec<u8> {
    let column = |of: fn(&(u32, u32)) -> u32| {
        let mut column: Vec<u32> = descriptors.iter().map(of).collect();
        column.resize(IDENTIFIERS, 0);
        words(&column)
    };
    let head = [
        words(&[descriptors.len() as u32, bytes.len() as u32]),
        column(|(id, _)| *id),
        column(|(_, kind)| *kind),
        words(&[0; IDENTIFIERS]),
        bytes.to_vec(),
    ];
    command(SEND, &head.concat())
}

/// A Wayland request to an object.
#[must_use]
pub fn request(object: u32, opcode: u16, body: &[u8]) -> Vec<u8> {
    let size = 8 + body.len() as u32;
    let mut bytes = words(&[object, size << 16 | u32::from(opcode)]);
    bytes.extend(body);
    bytes
}

/// What the compositor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which object speaks.
    pub object: u32,
    /// What it says.
    pub opcode: u16,
    /// The rest.
    pub body: Vec<u8>,
}

impl Event {
    /// Takes the first whole event off `bytes`.
    pub fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let head = word(bytes, 4);
        let size = (head >> 16) as usize;
        if bytes.len() < 8 || size < 8 || bytes.len() < size {
            return None;
        }
        let event = Self {
            object: word(bytes, 0),
            opcode: head as u16,
            body: bytes.get(8..size).unwrap_or(&[]).to_vec(),
        };
        bytes.drain(..size);
        Some(event)
    }

    /// The argument at `index`, of arguments that are words.
    #[must_use]
    pub fn word(&self, index: usize) -> u32 {
        word(&self.body, 4 * index)
    }

    /// Name, interface and version, when this is the registry's word of a global.
    #[must_use]
    pub fn global(&self) -> Option<(u32, String, u32)> {
        if (self.object, self.opcode) != (REGISTRY, 0) {
            return None;
        }
        let length = (self.word(1) as usize).checked_sub(1)?;
        let interface = self.body.get(8..8 + length)?;
        let version = word(&self.body, self.body.len().checked_sub(4)?);
        Some((
            self.word(0),
            String::from_utf8_lossy(interface).into_owned(),
            version,
        ))
    }
}
