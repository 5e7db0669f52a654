//! The features that the played GPU lacks, and the structs that report them.

use std::ffi::c_void;

use ash::vk;

use crate::{Function, Mode, chain, complain, function, next};

pub(crate) fn find(name: &str) -> Option<Function> {
    match name {
        "vkGetPhysicalDeviceFeatures" => function!(features, vk::PFN_vkGetPhysicalDeviceFeatures),
        "vkGetPhysicalDeviceFeatures2" | "vkGetPhysicalDeviceFeatures2KHR" => {
            function!(features2, vk::PFN_vkGetPhysicalDeviceFeatures2)
        }
        _ => None,
    }
}

/// Calls `act` for each core feature that is off.
fn each_missing(
    features: &mut vk::PhysicalDeviceFeatures,
    mut act: impl FnMut(&'static str, &mut vk::Bool32),
) {
    act("geometryShader", &mut features.geometry_shader);
    act("logicOp", &mut features.logic_op);
    act("wideLines", &mut features.wide_lines);
    act("sparseBinding", &mut features.sparse_binding);
    act(
        "sparseResidencyBuffer",
        &mut features.sparse_residency_buffer,
    );
    act(
        "sparseResidencyImage2D",
        &mut features.sparse_residency_image2_d,
    );
    act(
        "sparseResidencyImage3D",
        &mut features.sparse_residency_image3_d,
    );
    act(
        "sparseResidency2Samples",
        &mut features.sparse_residency2_samples,
    );
    act(
        "sparseResidency4Samples",
        &mut features.sparse_residency4_samples,
    );
    act(
        "sparseResidency8Samples",
        &mut features.sparse_residency8_samples,
    );
    act(
        "sparseResidency16Samples",
        &mut features.sparse_residency16_samples,
    );
    act(
        "sparseResidencyAliased",
        &mut features.sparse_residency_aliased,
    );
    act(
        "shaderResourceResidency",
        &mut features.shader_resource_residency,
    );
}

/// Calls `act` for each feature of `VK_EXT_robustness2` that is off.
fn each_missing_of_robustness(
    features: &mut vk::PhysicalDeviceRobustness2FeaturesEXT<'_>,
    mut act: impl FnMut(&'static str, &mut vk::Bool32),
) {
    act("robustBufferAccess2", &mut features.robust_buffer_access2);
    if Mode::get().is_moltenvk() {
        act("nullDescriptor", &mut features.null_descriptor);
    }
}

/// Calls `act` for each feature of `VK_KHR_portability_subset` that is off.
fn each_missing_of_subset(
    features: &mut vk::PhysicalDevicePortabilitySubsetFeaturesKHR<'_>,
    mut act: impl FnMut(&'static str, &mut vk::Bool32),
) {
    act(
        "imageView2DOn3DImage",
        &mut features.image_view2_d_on3_d_image,
    );
    act("pointPolygons", &mut features.point_polygons);
    act("samplerMipLodBias", &mut features.sampler_mip_lod_bias);
    act("tessellationIsolines", &mut features.tessellation_isolines);
    act(
        "tessellationPointMode",
        &mut features.tessellation_point_mode,
    );
}

unsafe extern "system" fn features(
    gpu: vk::PhysicalDevice,
    features: *mut vk::PhysicalDeviceFeatures,
) {
    // SAFETY: the caller's promise.
    unsafe {
        (next::instance().core.get_physical_device_features)(gpu, features);
        each_missing(&mut *features, |_, feature| *feature = vk::FALSE);
    }
}

unsafe extern "system" fn features2(
    gpu: vk::PhysicalDevice,
    features: *mut vk::PhysicalDeviceFeatures2<'_>,
) {
    let off = |_: &'static str, feature: &mut vk::Bool32| *feature = vk::FALSE;
    // SAFETY: the caller's promise.
    unsafe {
        (next::instance().core11.get_physical_device_features2)(gpu, features);
        each_missing(&mut (*features).features, off);
        let chain = (*features).p_next.cast_const();
        if let Some(robustness) = chain::find::<vk::PhysicalDeviceRobustness2FeaturesEXT>(chain) {
            each_missing_of_robustness(robustness, off);
        }
        if let Some(feedback) = chain::find::<vk::PhysicalDeviceTransformFeedbackFeaturesEXT>(chain)
        {
            feedback.transform_feedback = vk::FALSE;
            feedback.geometry_streams = vk::FALSE;
        }
        let subset = chain::find::<vk::PhysicalDevicePortabilitySubsetFeaturesKHR>(chain);
        if let Some(subset) = subset.filter(|_| Mode::get().is_moltenvk()) {
            *subset = vk::PhysicalDevicePortabilitySubsetFeaturesKHR {
                p_next: subset.p_next,
                ..all_of_subset()
            };
            each_missing_of_subset(subset, off);
        }
    }
}

/// The portability subset with every feature on.
fn all_of_subset() -> vk::PhysicalDevicePortabilitySubsetFeaturesKHR<'static> {
    vk::PhysicalDevicePortabilitySubsetFeaturesKHR::default()
        .constant_alpha_color_blend_factors(true)
        .events(true)
        .image_view_format_reinterpretation(true)
        .image_view_format_swizzle(true)
        .image_view2_d_on3_d_image(true)
        .multisample_array_image(true)
        .mutable_comparison_samplers(true)
        .point_polygons(true)
        .sampler_mip_lod_bias(true)
        .separate_stencil_mask_ref(true)
        .shader_sample_rate_interpolation_functions(true)
        .tessellation_isolines(true)
        .tessellation_point_mode(true)
        .triangle_fans(true)
        .vertex_attribute_access_beyond_stride(true)
}

/// Whether a program asks for a device with a feature that is off.
///
/// # Safety
/// The info is valid.
pub(crate) unsafe fn asks_too_much(info: &vk::DeviceCreateInfo<'_>) -> bool {
    let mut asks = false;
    let mut look = |name: &'static str, feature: &mut vk::Bool32| {
        if *feature != vk::FALSE {
            complain(format_args!("vkCreateDevice enables {name}, which is off"));
            asks = true;
        }
    };
    let chain: *const c_void = info.p_next;
    // SAFETY: the caller's promise; the structs are only read.
    unsafe {
        if let Some(mut core) = info.p_enabled_features.as_ref().copied() {
            each_missing(&mut core, &mut look);
        }
        if let Some(core) = chain::find::<vk::PhysicalDeviceFeatures2>(chain) {
            each_missing(&mut core.features, &mut look);
        }
        if let Some(robustness) = chain::find::<vk::PhysicalDeviceRobustness2FeaturesEXT>(chain) {
            each_missing_of_robustness(robustness, &mut look);
        }
        if let Some(subset) = chain::find::<vk::PhysicalDevicePortabilitySubsetFeaturesKHR>(chain) {
            each_missing_of_subset(subset, &mut look);
        }
    }
    asks
}
