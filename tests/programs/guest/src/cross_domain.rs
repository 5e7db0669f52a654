//! The messages of a cross-domain context, and the Wayland messages in them, as a program in a
//! guest sends them.

/// Connects, and names the rings.
pub const INIT: u8 = 1;
/// Asks for the memory layout of an image.
pub const GET_IMAGE_REQUIREMENTS: u8 = 2;
/// Waits for the host.
pub const POLL: u8 = 3;
/// Sends a message to the host.
pub const SEND: u8 = 4;
/// A message from the host.
pub const RECEIVE: u8 = 5;
/// Bytes read from a pipe.
pub const READ: u8 = 6;
/// Writes bytes into a pipe.
pub const WRITE: u8 = 7;

/// The largest number of descriptors in a message.
pub const IDENTIFIERS: usize = 28;
/// The number of bytes of a message before its text.
pub const MESSAGE: usize = 16 + 12 * IDENTIFIERS;

/// A descriptor of a resource.
pub const BLOB: u32 = 1;
/// A descriptor of the write end of a pipe that the host creates and the guest reads.
pub const READ_PIPE: u32 = 3;
/// A descriptor of the write end of a pipe that the guest writes.
pub const WRITE_PIPE: u32 = 4;

/// The DRM format `XR24`.
pub const XRGB8888: u32 = 0x3432_5258;

/// The Wayland object that every connection begins with.
pub const DISPLAY: u32 = 1;
/// The id that our clients give to the registry.
pub const REGISTRY: u32 = 2;

/// Encodes a command with its header.
#[must_use]
pub fn command(kind: u8, body: &[u8]) -> Vec<u8> {
    // No caller makes a longer body: it would not fit into a message.
    let [low, high] = ((8 + body.len()) as u16).to_le_bytes();
    [&[kind, 0, low, high, 0, 0, 0, 0], body].concat()
}

/// Encodes numbers as both protocols do.
#[must_use]
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Reads the number at `offset`; 0 past the end.
#[must_use]
pub fn word(bytes: &[u8], offset: usize) -> u32 {
    let rest = bytes.get(offset..).unwrap_or(&[]);
    rest.first_chunk()
        .map_or(0, |word| u32::from_le_bytes(*word))
}

/// Encodes a string as Wayland does.
#[must_use]
pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = words(&[text.len() as u32 + 1]);
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Encodes a SEND of bytes with descriptors. Each descriptor is an identifier and its kind.
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

/// Encodes a Wayland request to an object.
#[must_use]
pub fn request(object: u32, opcode: u16, body: &[u8]) -> Vec<u8> {
    let size = 8 + body.len() as u32;
    let mut bytes = words(&[object, size << 16 | u32::from(opcode)]);
    bytes.extend(body);
    bytes
}

/// A Wayland event from the compositor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The object that sends the event.
    pub object: u32,
    /// The event's opcode.
    pub opcode: u16,
    /// The event's arguments.
    pub body: Vec<u8>,
}

impl Event {
    /// Removes the first whole event from `bytes` and returns it.
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

    /// The argument at `index`, if all arguments are words.
    #[must_use]
    pub fn word(&self, index: usize) -> u32 {
        word(&self.body, 4 * index)
    }

    /// Name, interface and version, if the event announces a global.
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
