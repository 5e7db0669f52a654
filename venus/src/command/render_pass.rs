//! Commands of `VkRenderPass` and `VkFramebuffer`.

use super::shape::{Family, create, destroy, forward};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    create!(
        CreateFramebuffer => p_framebuffer,
        CreateRenderPass => p_render_pass,
        CreateRenderPass2 => p_render_pass,
    ),
    destroy!(
        DestroyFramebuffer => framebuffer,
        DestroyRenderPass => render_pass,
    ),
    forward!(GetRenderAreaGranularity, GetRenderingAreaGranularity),
];
