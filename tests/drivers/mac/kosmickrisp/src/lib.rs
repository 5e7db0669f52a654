//! The driver of `hesper_mac_driver` as KosmicKrisp's library has it: with the functions that
//! Vulkan's loader calls, and no other.

hesper_mac_driver::export_to_loader!();
