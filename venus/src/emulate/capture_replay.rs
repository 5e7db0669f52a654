//! Capture and replay of ray tracing shader group handles is hidden.
//!
//! The protocol cannot carry it: guests send that `pShaderGroupCaptureReplayHandle` is there, and
//! none of its bytes. The features are hidden. A pipeline that asks for handles nevertheless fails
//! with Vulkan's error for handles that cannot be replayed.

use std::ffi::c_void;

use hesper_venus_protocol::runtime::{find, find_mut};
use hesper_venus_protocol::vk;

/// Hides the features of capture and replay in the chain that begins with `p_next`.
///
/// # Safety
/// The chain must be valid, and nobody else may use it.
pub(crate) unsafe fn hide(p_next: *mut c_void) {
    // SAFETY: as the caller promises.
    let features = unsafe { find_mut::<vk::PhysicalDeviceRayTracingPipelineFeaturesKHR>(p_next) };
    if let Some(features) = features {
        features.ray_tracing_pipeline_shader_group_handle_capture_replay = 0;
        features.ray_tracing_pipeline_shader_group_handle_capture_replay_mixed = 0;
    }
}

/// Whether a device is created with the features that [`hide`] hides.
///
/// # Safety
/// The chain must be valid.
pub(crate) unsafe fn is_wanted(p_next: *const c_void) -> bool {
    // SAFETY: as the caller promises.
    let features = unsafe { find::<vk::PhysicalDeviceRayTracingPipelineFeaturesKHR>(p_next) };
    features.is_some_and(|features| {
        features.ray_tracing_pipeline_shader_group_handle_capture_replay != 0
            || features.ray_tracing_pipeline_shader_group_handle_capture_replay_mixed != 0
    })
}
