//! A hostile client for guests: it speaks to the virtio-gpu driver directly, and sends Hesper what
//! no Vulkan driver would send.
//!
//! ```text
//! hesper-test-hostile list            names the attacks
//! hesper-test-hostile ATTACK…         runs them, each in contexts of its own
//! ```
//!
//! An attack cannot see what became of Hesper. The test outside looks at that.
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
mod numbers;
#[cfg(target_os = "linux")]
mod threads;

#[cfg(target_os = "linux")]
fn main() {
    let attacks = [numbers::ATTACKS, amounts::ATTACKS, threads::ATTACKS].concat();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() || wanted == ["list"] {
        attacks.iter().for_each(|(name, _)| println!("{name}"));
        return;
    }
    for name in wanted {
        let Some((_, attack)) = attacks.iter().find(|(known, _)| *known == name) else {
            eprintln!("there is no attack '{name}'; 'list' names them");
            std::process::exit(2);
        };
        attack();
        println!("tried {name}");
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("hesper-test-hostile drives the Linux DRM interface: build it for a Linux guest");
    std::process::exit(1);
}
