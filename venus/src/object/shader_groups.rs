//! [`ShaderGroups`]: how many shader groups each ray tracing pipeline of a device has.

use std::collections::HashMap;
use std::sync::Mutex;

use hesper_system::sync::Lock;
use hesper_venus_protocol::vk;

/// How many shader groups each ray tracing pipeline of a device has, by the driver's handles.
#[derive(Default)]
pub(crate) struct ShaderGroups(Mutex<HashMap<u64, u32>>);

impl ShaderGroups {
    /// Keeps how many a pipeline has.
    pub(crate) fn insert(&self, pipeline: vk::Pipeline, count: u32) {
        self.0.locked().insert(pipeline.0, count);
    }

    /// How many a pipeline has. `None` when it is not one of ray tracing.
    pub(crate) fn get(&self, pipeline: vk::Pipeline) -> Option<u32> {
        self.0.locked().get(&pipeline.0).copied()
    }

    /// Forgets a pipeline that is about to be destroyed.
    pub(crate) fn remove(&self, pipeline: vk::Pipeline) {
        let mut groups = self.0.locked();
        if !groups.is_empty() {
            groups.remove(&pipeline.0);
        }
    }

    /// How many a new pipeline has: its own, and those of its libraries.
    pub(crate) fn count(&self, info: &vk::RayTracingPipelineCreateInfoKHR) -> u32 {
        // SAFETY: decoded as null or a valid struct.
        let library = unsafe { info.p_library_info.as_ref() };
        let libraries: &[vk::Pipeline] = match library {
            Some(library) if !library.p_libraries.is_null() => {
                // SAFETY: the decoder made an array of `library_count` handles, or a null pointer.
                unsafe {
                    std::slice::from_raw_parts(library.p_libraries, library.library_count as usize)
                }
            }
            _ => &[],
        };
        let known = self.0.locked();
        let of_libraries = libraries.iter().filter_map(|library| known.get(&library.0));
        of_libraries.fold(groups(info).len() as u32, |sum, more| {
            sum.saturating_add(*more)
        })
    }
}

/// The groups of a pipeline's own.
pub(crate) fn groups(
    info: &vk::RayTracingPipelineCreateInfoKHR,
) -> &[vk::RayTracingShaderGroupCreateInfoKHR] {
    match info.p_groups.is_null() {
        true => &[],
        // SAFETY: the decoder made an array of `group_count` structs, or a null pointer.
        false => unsafe { std::slice::from_raw_parts(info.p_groups, info.group_count as usize) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_libraries_count() {
        let groups = ShaderGroups::default();
        groups.insert(vk::Pipeline(7), 3);
        let own = [vk::RayTracingShaderGroupCreateInfoKHR::default(); 2];
        let libraries = [vk::Pipeline(7), vk::Pipeline(7), vk::Pipeline(8)];
        let library = vk::PipelineLibraryCreateInfoKHR {
            library_count: 3,
            p_libraries: libraries.as_ptr(),
            ..Default::default()
        };
        let mut info = vk::RayTracingPipelineCreateInfoKHR {
            group_count: 2,
            p_groups: own.as_ptr(),
            p_library_info: &raw const library,
            ..Default::default()
        };
        assert_eq!(groups.count(&info), 8);
        groups.remove(vk::Pipeline(7));
        assert_eq!(groups.count(&info), 2);
        info.p_groups = std::ptr::null();
        assert_eq!(groups.count(&info), 0);
    }
}
