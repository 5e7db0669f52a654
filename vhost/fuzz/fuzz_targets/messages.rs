//! Fuzzes the vhost-user server with arbitrary messages, descriptors and guest memory; see
//! `hesper_vhost::testing::vmm`. `../run SECONDS` builds and runs it.
#![no_main]

use std::path::Path;

use hesper_vhost::testing::vmm;
use libfuzzer_sys::fuzz_target;

/// Writes the seeds into the directory that the run script names, before the fuzzer reads it.
fn write_seeds() {
    // Rust programs ignore this signal, and libFuzzer's `main` is not Rust's.
    // SAFETY: this changes what a signal does, and no handler is called.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let Ok(directory) = std::env::var("HESPER_FUZZ_SEEDS") else {
        return;
    };
    for (index, seed) in vmm::seeds().iter().enumerate() {
        let path = Path::new(&directory).join(format!("seed-{index}"));
        if let Err(error) = std::fs::write(&path, seed) {
            eprintln!("cannot write the seed {}: {error}", path.display());
        }
    }
}

fuzz_target!(init: write_seeds(), |bytes: &[u8]| {
    // An error is that of the VMM, which is what fuzzing makes.
    let _ = vmm::run(bytes);
});
