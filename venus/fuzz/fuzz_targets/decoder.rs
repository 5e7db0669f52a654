//! The decoder alone: any bytes, see `venus/tests/hostile/decode.rs`. `../run SECONDS` builds and
//! runs it.
#![no_main]

#[path = "../../tests/hostile/decode.rs"]
mod decode;

use std::cell::RefCell;
use std::path::Path;

use hesper_venus_protocol::runtime::Arena;
use libfuzzer_sys::fuzz_target;

/// Writes a request of every command into the directory that the run script names, before the
/// fuzzer reads it.
fn write_seeds() {
    let Ok(directory) = std::env::var("HESPER_FUZZ_SEEDS") else {
        return;
    };
    for (name, request) in decode::requests(1) {
        let path = Path::new(&directory).join(name);
        if let Err(error) = std::fs::write(&path, request) {
            eprintln!("cannot write the seed {}: {error}", path.display());
        }
    }
}

thread_local! {
    /// Used again for each input, as a renderer does.
    static ARENA: RefCell<Arena> = RefCell::new(Arena::new(16 << 20));
}

fuzz_target!(init: write_seeds(), |input: &[u8]| {
    ARENA.with_borrow_mut(|arena| decode::decode(input, arena));
});
