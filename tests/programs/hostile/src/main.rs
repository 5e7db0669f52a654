//! A hostile client for guests: it speaks to the virtio-gpu driver directly, and sends Hesper what
//! no Vulkan driver would send.
//!
//! ```text
//! hesper-test-hostile list                    names the attacks on any driver
//! hesper-test-hostile [--times N] [--every MS] ATTACK…
//!                                             runs them, each in contexts of its own, N times,
//!                                             and begins one every MS milliseconds at most
//! ```
//!
//! An attack cannot see what became of Hesper. The test outside looks at that. `list` does not name
//! the attacks that need the driver `tests/drivers/crashing`, nor the programs to compare with that
//! do no harm.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test program ends with a panic"
)]

#[cfg(target_os = "linux")]
mod amounts;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod crashes;
#[cfg(target_os = "linux")]
mod harmless;
#[cfg(target_os = "linux")]
mod numbers;
#[cfg(target_os = "linux")]
mod threads;

#[cfg(target_os = "linux")]
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
fn main() {
    let attacks = [
        numbers::ATTACKS,
        amounts::ATTACKS,
        threads::ATTACKS,
        crashes::ATTACKS,
    ]
    .concat();
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() || wanted == ["list"] {
        attacks.iter().for_each(|(name, _)| println!("{name}"));
        return;
    }
    let attacks = [&attacks, crashes::WITH_THE_DRIVER, harmless::PROGRAMS].concat();
    let times = option(&mut wanted, "--times").unwrap_or(1);
    let every = option(&mut wanted, "--every").map_or(Duration::ZERO, Duration::from_millis);
    for _ in 0..times {
        for name in &wanted {
            let Some((_, attack)) = attacks.iter().find(|(known, _)| known == name) else {
                eprintln!("there is no attack '{name}'; 'list' names them");
                std::process::exit(2);
            };
            let begin = Instant::now();
            attack();
            println!("tried {name}, {} ms", begin.elapsed().as_millis());
            std::thread::sleep(every.saturating_sub(begin.elapsed()));
        }
    }
}

/// Takes an option with a number out of the arguments.
#[cfg(target_os = "linux")]
fn option(arguments: &mut Vec<String>, name: &str) -> Option<u64> {
    let at = arguments.iter().position(|argument| argument == name)?;
    let value = arguments.drain(at..at + 2).next_back().unwrap();
    Some(value.parse().expect("the option wants a number"))
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("hesper-test-hostile drives the Linux DRM interface: build it for a Linux guest");
    std::process::exit(1);
}
