//! The whole renderer. The first byte says by which way the rest of the input comes, see `Bench` in
//! `venus/tests/hostile`. `HESPER_FUZZ_DRIVER` names the driver's library, such as the project's
//! null driver. Without it, the machine's driver is used. `../run SECONDS` builds and runs it.
#![no_main]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use hesper_venus::Driver;
use hostile::recorded::recorded;
use hostile::session::Session;
use hostile::{Bench, Way};
use libfuzzer_sys::fuzz_target;

const WAYS: [Way; 3] = [Way::Virtqueue, Way::Ring, Way::Both];

static BENCH: Mutex<Option<Bench>> = Mutex::new(None);

/// Opens the driver, and writes recorded sessions into the directory that the run script names.
fn init() {
    let library = std::env::var_os("HESPER_FUZZ_DRIVER");
    let driver = library.map_or(Driver::System, |path| Driver::Library(path.into()));
    *BENCH.lock().unwrap_or_else(PoisonError::into_inner) = Some(Bench::new(driver));
    let Ok(directory) = std::env::var("HESPER_FUZZ_SEEDS") else {
        return;
    };
    let made = [Session::reply_stream(), Session::device(), Session::whole()];
    let real = recorded().into_iter().map(|(_, session)| session);
    let sessions: Vec<Session> = made.into_iter().chain(real).collect();
    for (index, session) in sessions.iter().enumerate() {
        for way in 0..WAYS.len() {
            let mut seed = vec![way as u8];
            seed.extend_from_slice(&session.stream);
            let path = Path::new(&directory).join(format!("session-{index}-{way}"));
            if let Err(error) = std::fs::write(&path, seed) {
                eprintln!("cannot write the seed {}: {error}", path.display());
            }
        }
    }
}

fuzz_target!(init: init(), |input: &[u8]| {
    let bench = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some((way, stream)), Some(bench)) = (input.split_first(), &*bench) {
        bench.run(stream, WAYS[usize::from(*way) % WAYS.len()]);
    }
});
