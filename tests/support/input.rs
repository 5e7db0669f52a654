//! Hesper's input devices: their sockets, and QEMU's devices that connect to them.

use std::path::Path;

/// The path of the socket for a device of this kind.
pub fn socket(folder: &Path, kind: &str) -> String {
    folder.join(format!("{kind}.sock")).display().to_string()
}

/// Hesper's options for devices of these kinds, with sockets in `folder`.
pub fn sockets(folder: &Path, kinds: &[&str]) -> Vec<String> {
    let option = |kind| format!("--input-socket={kind}:{}", socket(folder, kind));
    kinds.iter().map(|kind| option(*kind)).collect()
}

/// The options for a guest with these devices.
pub fn devices(folder: &Path, kinds: &[&str]) -> Vec<String> {
    let mut options = Vec::new();
    for kind in kinds {
        let chardev = format!("socket,id={kind},path={}", socket(folder, kind));
        let device = format!("vhost-user-input-pci,chardev={kind}");
        for argument in ["-chardev".to_owned(), chardev, "-device".to_owned(), device] {
            options.extend(["--qemu-arg".to_owned(), argument]);
        }
    }
    options
}
