//! The program that Hesper's tests run inside a guest.
//!
//! It reads one command per line from standard input, and answers each with one line, `ok …` or
//! `error …`. A test can so steer the guest step by step, and check the host's side in between.
//! `help` lists the commands. The program exits when its input ends.

#[cfg(target_os = "linux")]
mod commands;
#[cfg(target_os = "linux")]
mod framebuffer;
#[cfg(target_os = "linux")]
mod input;
#[cfg(target_os = "linux")]
mod kms;
#[cfg(target_os = "linux")]
mod wayland;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    commands::serve(std::io::stdin().lock(), std::io::stdout().lock())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!(
        "hesper-test-guest drives the Linux DRM interface: build it for x86_64-unknown-linux-musl"
    );
    std::process::exit(1);
}
