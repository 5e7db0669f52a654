//! `VK_KHR_portability_subset`: what a driver on top of another API lacks of Vulkan.
//!
//! If a driver lists the extension, every device must enable it, and each feature of it that is
//! used. The protocol does not have the extension, so guests expect all of Vulkan. Some of what is
//! missing can be told to them in another way: by a limit of 0, or a missing format. The rest is
//! told to the user ([`Subset::untold`]).

use std::ffi::CStr;

use ash::Instance;
use ash::vk::{self, Bool32};
use serde::{Deserialize, Serialize};

/// The extension.
pub(crate) const NAME: &CStr = ash::khr::portability_subset::NAME;

/// How many features the subset has.
const FEATURES: usize = 15;

/// The features' names, in the struct's order.
const NAMES: [&str; FEATURES] = [
    "constantAlphaColorBlendFactors",
    "events",
    "imageViewFormatReinterpretation",
    "imageViewFormatSwizzle",
    "imageView2DOn3DImage",
    "multisampleArrayImage",
    "mutableComparisonSamplers",
    "pointPolygons",
    "samplerMipLodBias",
    "separateStencilMaskRef",
    "shaderSampleRateInterpolationFunctions",
    "tessellationIsolines",
    "tessellationPointMode",
    "triangleFans",
    "vertexAttributeAccessBeyondStride",
];
const VIEWS_2D_OF_3D: usize = 4;
const LOD_BIAS: usize = 8;

/// What a driver has of the subset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subset {
    features: [bool; FEATURES],
    /// Strides of vertices are multiples of it.
    stride_alignment: u32,
}

fn fields<'f>(
    features: &'f mut vk::PhysicalDevicePortabilitySubsetFeaturesKHR<'_>,
) -> [&'f mut Bool32; FEATURES] {
    [
        &mut features.constant_alpha_color_blend_factors,
        &mut features.events,
        &mut features.image_view_format_reinterpretation,
        &mut features.image_view_format_swizzle,
        &mut features.image_view2_d_on3_d_image,
        &mut features.multisample_array_image,
        &mut features.mutable_comparison_samplers,
        &mut features.point_polygons,
        &mut features.sampler_mip_lod_bias,
        &mut features.separate_stencil_mask_ref,
        &mut features.shader_sample_rate_interpolation_functions,
        &mut features.tessellation_isolines,
        &mut features.tessellation_point_mode,
        &mut features.triangle_fans,
        &mut features.vertex_attribute_access_beyond_stride,
    ]
}

impl Subset {
    /// What `gpu` has. `None` when the driver does not list the extension, and has all of Vulkan.
    pub(crate) fn of(instance: &Instance, gpu: vk::PhysicalDevice) -> Option<Self> {
        // SAFETY: the device belongs to the instance.
        let listed = unsafe { instance.enumerate_device_extension_properties(gpu) };
        let listed = listed.unwrap_or_default();
        let is_it = |one: &vk::ExtensionProperties| one.extension_name_as_c_str() == Ok(NAME);
        if !listed.iter().any(is_it) {
            return None;
        }
        let mut features = vk::PhysicalDevicePortabilitySubsetFeaturesKHR::default();
        let mut all = vk::PhysicalDeviceFeatures2::default().push_next(&mut features);
        let mut subset = vk::PhysicalDevicePortabilitySubsetPropertiesKHR::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut subset);
        // SAFETY: as above, and the chains are of live structs that the driver knows.
        unsafe {
            instance.get_physical_device_features2(gpu, &mut all);
            instance.get_physical_device_properties2(gpu, &mut properties);
        }
        Some(Self {
            features: fields(&mut features).map(|feature| *feature != vk::FALSE),
            stride_alignment: subset.min_vertex_input_binding_stride_alignment,
        })
    }

    /// The struct that enables all features that the driver has, for the chain of
    /// `VkDeviceCreateInfo`.
    pub(crate) fn enabled(&self) -> vk::PhysicalDevicePortabilitySubsetFeaturesKHR<'static> {
        let mut enabled = vk::PhysicalDevicePortabilitySubsetFeaturesKHR::default();
        for (to, from) in fields(&mut enabled).into_iter().zip(self.features) {
            *to = Bool32::from(from);
        }
        enabled
    }

    /// Whether two-dimensional views can be made of three-dimensional images.
    pub(crate) fn has_2d_views_of_3d(&self) -> bool {
        self.features.get(VIEWS_2D_OF_3D) == Some(&true)
    }

    /// Whether samplers can have a bias.
    pub(crate) fn has_lod_bias(&self) -> bool {
        self.features.get(LOD_BIAS) == Some(&true)
    }

    /// What is missing and cannot be told to guests.
    pub(crate) fn untold(&self) -> Vec<String> {
        let told = [VIEWS_2D_OF_3D, LOD_BIAS];
        let all = NAMES.iter().zip(self.features).enumerate();
        let missing = all.filter(|(index, (_, is_there))| !is_there && !told.contains(index));
        let mut untold: Vec<String> = missing.map(|(_, (name, _))| (*name).to_owned()).collect();
        if self.stride_alignment > 1 {
            untold.push(format!(
                "vertex strides that are no multiples of {}",
                self.stride_alignment
            ));
        }
        untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_there_is_enabled_and_the_rest_is_named_unless_guests_are_told() {
        let mut subset = Subset {
            features: [true; FEATURES],
            stride_alignment: 1,
        };
        assert_eq!(subset.untold(), Vec::<String>::new());
        let mut enabled = subset.enabled();
        assert!(
            fields(&mut enabled)
                .into_iter()
                .all(|feature| *feature == vk::TRUE)
        );
        for (index, name) in NAMES.iter().enumerate() {
            subset.features = [true; FEATURES];
            subset.features[index] = false;
            let mut enabled = subset.enabled();
            let off = fields(&mut enabled)
                .into_iter()
                .position(|feature| *feature == vk::FALSE);
            assert_eq!(off, Some(index));
            let is_told = ["imageView2DOn3DImage", "samplerMipLodBias"].contains(name);
            assert_eq!(subset.untold().is_empty(), is_told, "{name}");
        }
        assert!(!subset.untold().is_empty());
        subset.stride_alignment = 4;
        assert!(subset.untold().join(" ").contains("multiples of 4"));
    }
}
