//! Commands of `VkSampler` and `VkSamplerYcbcrConversion`, and border colours.

use super::shape::{Family, create, destroy, forward};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    create!(
        CreateSampler => p_sampler,
        CreateSamplerYcbcrConversion => p_ycbcr_conversion,
    ),
    destroy!(
        DestroySampler => sampler,
        DestroySamplerYcbcrConversion => ycbcr_conversion,
    ),
    forward!(RegisterCustomBorderColorEXT, UnregisterCustomBorderColorEXT),
];
