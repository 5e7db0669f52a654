//! The decoder alone, for any bytes.

use hesper_venus_protocol::runtime::Arena;
use hesper_venus_protocol::{COMMANDS, sample, trace};

/// A valid request of every command, with its name.
pub fn requests(seed: u64) -> Vec<(&'static str, Vec<u8>)> {
    let mut arena = Arena::default();
    let all = COMMANDS.iter().flatten();
    all.map(|info| (info.name, sample::request(info.id, seed, &mut arena)))
        .filter(|(_, request)| !request.is_empty())
        .collect()
}

/// Decodes commands until one is refused, with every id a live object. Returns how many were
/// decoded. The trace reads all arguments that the decoder made.
pub fn decode(stream: &[u8], arena: &mut Arena) -> usize {
    let mut stream = stream.to_vec();
    let (mut at, mut taken) = (0, 0);
    while let Some(rest) = stream.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match trace::command(rest, arena) {
            Ok((_, length)) => at += length,
            Err(_) => break,
        }
        taken += 1;
    }
    taken
}
