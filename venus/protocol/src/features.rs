//! Names the features that a device is created with and that its driver lacks, for the log:
//! `VK_ERROR_FEATURE_NOT_PRESENT` does not name them.

use std::ffi::c_void;

use crate::layout::{Kind, Layout, NEXT, Value, pointer};
use crate::schema;
use crate::vk;

/// A struct of features: those wanted, and those that the driver has.
struct Pair {
    layout: &'static Layout,
    wanted: *const u8,
    /// As large as the struct, and aligned for any.
    found: Box<[u64]>,
}

/// The features that `info` enables and the driver lacks, as
/// `VkPhysicalDeviceFeatures::shaderInt64`. `ask` must make the driver fill the struct
/// (`vkGetPhysicalDeviceFeatures2`).
///
/// # Safety
/// `info` must have been decoded. `ask` must leave the chain as it is.
pub unsafe fn missing(
    info: &vk::DeviceCreateInfo,
    ask: impl FnOnce(&mut vk::PhysicalDeviceFeatures2),
) -> Vec<String> {
    let mut head = vk::PhysicalDeviceFeatures2::default();
    let mut pairs: Vec<Pair> = Vec::new();
    let mut core: Vec<*const u8> = vec![info.p_enabled_features.cast()];
    let mut next = info.p_next.cast::<u8>().cast_mut();
    while !next.is_null() {
        // SAFETY: a decoded struct, which begins with sType and pNext.
        let stype = unsafe { Value::I32.number(next) } as i32;
        if stype == vk::StructureType::PHYSICAL_DEVICE_FEATURES_2.0 {
            // SAFETY: its sType shows that it is such a struct.
            core.push(unsafe {
                (&raw const (*next.cast::<vk::PhysicalDeviceFeatures2>()).features).cast()
            });
        }
        let known = schema::PHYSICAL_DEVICE_FEATURES_2.chain.iter();
        if let Some(layout) = known.into_iter().find(|link| link.stype == Some(stype)) {
            let mut found = vec![0_u64; layout.size.div_ceil(8)].into_boxed_slice();
            let place = found.as_mut_ptr().cast::<u8>();
            // SAFETY: the memory is as large as the struct, which begins with sType and pNext.
            unsafe {
                Value::I32.set(place, stype as u64);
                place.add(NEXT).cast::<*const c_void>().write(head.p_next);
            }
            head.p_next = place.cast();
            pairs.push(Pair {
                layout,
                wanted: next,
                found,
            });
        }
        // SAFETY: a decoded struct, which begins with sType and pNext.
        next = unsafe { pointer(next.add(NEXT)) };
    }
    ask(&mut head);
    let mut names = Vec::new();
    let found: *const u8 = (&raw const head.features).cast();
    for wanted in core.into_iter().filter(|wanted| !wanted.is_null()) {
        // SAFETY: both point to a `VkPhysicalDeviceFeatures`.
        unsafe { compare(&schema::PHYSICAL_DEVICE_FEATURES, wanted, found, &mut names) };
    }
    for pair in &pairs {
        // SAFETY: both point to structs of this layout.
        unsafe {
            compare(
                pair.layout,
                pair.wanted,
                pair.found.as_ptr().cast(),
                &mut names,
            )
        };
    }
    names
}

/// # Safety
/// Both must point to structs of this layout.
unsafe fn compare(layout: &Layout, wanted: *const u8, found: *const u8, names: &mut Vec<String>) {
    for field in layout.fields {
        if !matches!(field.kind, Kind::Value(Value::Bool)) {
            continue;
        }
        // SAFETY: both are structs of this layout, and the offset is that of a `VkBool32` member.
        let (wanted, found) = unsafe {
            (
                Value::Bool.number(wanted.add(field.offset)),
                Value::Bool.number(found.add(field.offset)),
            )
        };
        if wanted != 0 && found == 0 {
            names.push(format!("{}::{}", layout.name, field.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_features_are_named() {
        let mut newest = vk::PhysicalDeviceVulkan13Features {
            synchronization2: 1,
            private_data: 1,
            ..Default::default()
        };
        let mut older = vk::PhysicalDeviceFeatures2 {
            p_next: (&raw mut newest).cast(),
            ..Default::default()
        };
        older.features.shader_int64 = 1;
        older.features.wide_lines = 1;
        let info = vk::DeviceCreateInfo {
            p_next: (&raw const older).cast(),
            ..Default::default()
        };
        // SAFETY: the chain consists of valid structs, and the closure changes only features.
        let names = unsafe {
            missing(&info, |has| {
                has.features.wide_lines = 1;
                let chain = &mut *has.p_next.cast::<vk::PhysicalDeviceVulkan13Features>();
                assert_eq!(chain.s_type, newest.s_type);
                chain.private_data = 1;
            })
        };
        assert_eq!(
            names,
            [
                "VkPhysicalDeviceFeatures::shaderInt64",
                "VkPhysicalDeviceVulkan13Features::synchronization2"
            ]
        );
    }
}
