//! Fuzzes input devices with arbitrary reports, buffers, questions and resets, over mock guest
//! memory; see `hesper_vhost::testing::input`. `../run SECONDS` builds and runs it.
#![no_main]

use std::path::Path;

use hesper_vhost::testing::input;
use libfuzzer_sys::fuzz_target;

/// Writes the seeds into the directory that the run script names, before the fuzzer reads it.
fn write_seeds() {
    let Ok(directory) = std::env::var("HESPER_FUZZ_SEEDS") else {
        return;
    };
    for (index, seed) in input::seeds().iter().enumerate() {
        let path = Path::new(&directory).join(format!("seed-{index}"));
        if let Err(error) = std::fs::write(&path, seed) {
            eprintln!("cannot write the seed {}: {error}", path.display());
        }
    }
}

fuzz_target!(init: write_seeds(), |bytes: &[u8]| {
    input::run(bytes);
});
