//! The driver of `hesper_mac_driver` with the exports of KosmicKrisp's library: only the functions
//! that Vulkan's loader calls.

hesper_mac_driver::export_to_loader!();
