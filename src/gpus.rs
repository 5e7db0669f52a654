//! `hesper gpus`: the host's GPUs, as `--gpu` chooses them.

use std::fmt::Write;

use hesper_venus::{Driver, host};

/// One line for each GPU: its number, UUID and description.
///
/// # Errors
/// Why the host's Vulkan cannot be asked.
pub(crate) fn list(driver: &Driver) -> Result<String, hesper_venus::Error> {
    let mut text = String::new();
    for (index, gpu) in host::gpus(driver)?.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{index}  {}  {gpu}", uuid(&gpu.uuid));
    }
    Ok(text)
}

/// The UUID as `--gpu` takes it.
fn uuid(bytes: &[u8; 16]) -> String {
    let number = u128::from_be_bytes(*bytes);
    let part =
        |from: u32, digits: u32| (number >> (128 - from - digits * 4)) & ((1 << (digits * 4)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(0, 8),
        part(32, 4),
        part(48, 4),
        part(64, 4),
        part(80, 12)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::GpuChoice;

    #[test]
    fn a_listed_uuid_chooses_its_gpu() {
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xff];
        assert_eq!(uuid(&bytes), "00010203-0405-0607-0809-0a0b0c0d0eff");
        assert_eq!(uuid(&bytes).parse(), Ok(GpuChoice::Uuid(bytes)));
    }
}
