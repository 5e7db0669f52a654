//! Sync files without a host that has them.
//!
//! A guest imports a sync file into a semaphore when its display server has released a picture. The
//! sync file is signalled by then (`vkImportSemaphoreResourceMESA` of resource 0). The driver's
//! semaphore is left alone: the next wait for it is taken out of its submission. So a program's
//! next picture does not wait for the end of all work that its queue has, as it would if the driver
//! signalled the semaphore.
//!
//! A guest exports a sync file by consuming the pending signal of a semaphore
//! (`vkWaitSemaphoreResourceMESA`): an empty submit that waits for it, on the queue that signals
//! it. The guest's kernel makes the file itself, from a fence on the queue's ring index. A fence is
//! exported the same way, by `vkResetFenceResourceMESA`.

use std::cell::Cell;

use hesper_venus_protocol::runtime::{find, find_mut};
use hesper_venus_protocol::vk;

use super::Policy;
use crate::object::sync_files::Submission;

/// Answers what can be done with a semaphore's handles: sync files of binary semaphores can be
/// imported and exported.
pub(crate) fn semaphore_properties(
    info: &vk::PhysicalDeviceExternalSemaphoreInfo,
    properties: &mut vk::ExternalSemaphoreProperties,
) {
    use vk::{
        ExternalSemaphoreFeatureFlags as Features, ExternalSemaphoreHandleTypeFlags as Types,
    };
    let is_sync_fd = info.handle_type == Types::SYNC_FD;
    // Timeline semaphores have no sync files.
    // SAFETY: the chain was decoded, and nobody else uses it.
    let kind = unsafe { find::<vk::SemaphoreTypeCreateInfo>(info.p_next) };
    let is_binary = kind.is_none_or(|kind| kind.semaphore_type == vk::SemaphoreType::BINARY);
    properties.export_from_imported_handle_types = Types::default();
    properties.compatible_handle_types = Types::default();
    properties.external_semaphore_features = Features::default();
    if is_sync_fd && is_binary {
        properties.export_from_imported_handle_types = Types::SYNC_FD;
        properties.compatible_handle_types = Types::SYNC_FD;
        properties.external_semaphore_features = Features::EXPORTABLE | Features::IMPORTABLE;
    }
}

/// Answers what can be done with a fence's handles: sync files can be imported and exported where
/// pictures are shared. The guest's driver imports them alone.
pub(crate) fn fence_properties(
    info: &vk::PhysicalDeviceExternalFenceInfo,
    properties: &mut vk::ExternalFenceProperties,
    policy: Policy,
) {
    use vk::{ExternalFenceFeatureFlags as Features, ExternalFenceHandleTypeFlags as Types};
    *properties = vk::ExternalFenceProperties {
        p_next: properties.p_next,
        ..Default::default()
    };
    if info.handle_type == Types::SYNC_FD && policy == Policy::DmaBuf {
        properties.export_from_imported_handle_types = Types::SYNC_FD;
        properties.compatible_handle_types = Types::SYNC_FD;
        properties.external_fence_features = Features::EXPORTABLE | Features::IMPORTABLE;
    }
}

/// Moves the kept elements of a decoded array to its front. `kept` says for each element whether it
/// stays.
///
/// # Safety
/// `array` must be null, or point to as many decoded elements as `kept` has. Nobody else may use
/// them.
unsafe fn keep<T: Copy>(array: *const T, kept: &[bool]) {
    if array.is_null() {
        return;
    }
    // SAFETY: as the caller promises.
    let elements = unsafe { std::slice::from_raw_parts_mut(array.cast_mut(), kept.len()) };
    let cells = Cell::from_mut(elements).as_slice_of_cells();
    let mut to = cells.iter();
    for (from, _) in cells.iter().zip(kept).filter(|(_, is_kept)| **is_kept) {
        if let Some(to) = to.next() {
            to.set(from.get());
        }
    }
}

/// The decoded elements at `array`, which may be null.
///
/// # Safety
/// `array` must be null or point to `count` decoded elements, which live for `'a`.
unsafe fn elements<'a, T>(array: *const T, count: u32) -> &'a [T] {
    match array.is_null() {
        true => &[],
        // SAFETY: as the caller promises.
        false => unsafe { std::slice::from_raw_parts(array, count as usize) },
    }
}

/// How many of them stay.
fn count(kept: &[bool]) -> u32 {
    kept.iter().filter(|is_kept| **is_kept).count() as u32
}

/// Takes the same waits out of the structs of a submission's chain that have an element for each.
///
/// # Safety
/// `p_next` must be the chain of a decoded submission that has as many waits as `kept`.
unsafe fn keep_in_chain(p_next: *const std::ffi::c_void, kept: &[bool]) {
    let p_next = p_next.cast_mut();
    // SAFETY: the chain was decoded, and nobody else uses it.
    if let Some(values) = unsafe { find_mut::<vk::TimelineSemaphoreSubmitInfo>(p_next) } {
        // It may be another number when no semaphore is a timeline.
        if values.wait_semaphore_value_count as usize == kept.len() {
            // SAFETY: the decoder made an array of that many.
            unsafe { keep(values.p_wait_semaphore_values, kept) };
            values.wait_semaphore_value_count = count(kept);
        }
    }
    // SAFETY: as above.
    if let Some(group) = unsafe { find_mut::<vk::DeviceGroupSubmitInfo>(p_next) }
        && group.wait_semaphore_count as usize == kept.len()
    {
        // SAFETY: as above.
        unsafe { keep(group.p_wait_semaphore_device_indices, kept) };
        group.wait_semaphore_count = count(kept);
    }
}

/// Implements [`Submission`] for structs with arrays of semaphores; `$stages` is an array with an
/// element for each wait.
macro_rules! submission {
    ($name:ident $(, $stages:ident)?) => {
        impl Submission for vk::$name {
            fn drop_waits(&mut self, is_signalled: &mut dyn FnMut(vk::Semaphore) -> bool) {
                let (waits, wait_count) = (self.p_wait_semaphores, self.wait_semaphore_count);
                // SAFETY: the decoder made an array of that many handles, or a null pointer.
                let waits = unsafe { elements(waits, wait_count) };
                let kept: Vec<bool> = waits.iter().map(|wait| !is_signalled(*wait)).collect();
                if !kept.contains(&false) {
                    return;
                }
                // SAFETY: the decoder made arrays of that many elements, and nobody else uses them.
                unsafe {
                    keep(self.p_wait_semaphores, &kept);
                    $(keep(self.$stages, &kept);)?
                    keep_in_chain(self.p_next, &kept);
                }
                self.wait_semaphore_count = count(&kept);
            }

            fn signals(&self, see: &mut dyn FnMut(vk::Semaphore)) {
                let (signals, count) = (self.p_signal_semaphores, self.signal_semaphore_count);
                // SAFETY: the decoder made an array of that many handles, or a null pointer.
                let signals = unsafe { elements(signals, count) };
                signals.iter().for_each(|semaphore| see(*semaphore));
            }
        }
    };
}

submission!(SubmitInfo, p_wait_dst_stage_mask);
submission!(BindSparseInfo);

impl Submission for vk::SubmitInfo2 {
    fn drop_waits(&mut self, is_signalled: &mut dyn FnMut(vk::Semaphore) -> bool) {
        // SAFETY: the decoder made an array of that many structs, or a null pointer.
        let waits =
            unsafe { elements(self.p_wait_semaphore_infos, self.wait_semaphore_info_count) };
        let kept: Vec<bool> = waits
            .iter()
            .map(|wait| !is_signalled(wait.semaphore))
            .collect();
        if !kept.contains(&false) {
            return;
        }
        // SAFETY: as above, and nobody else uses them.
        unsafe { keep(self.p_wait_semaphore_infos, &kept) };
        self.wait_semaphore_info_count = count(&kept);
    }

    fn signals(&self, see: &mut dyn FnMut(vk::Semaphore)) {
        // SAFETY: as above.
        let signals = unsafe {
            elements(
                self.p_signal_semaphore_infos,
                self.signal_semaphore_info_count,
            )
        };
        signals.iter().for_each(|info| see(info.semaphore));
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test fails by a panic")]
mod tests {
    use super::*;
    use crate::object::sync_files::{Payload, SyncFiles};

    const QUEUE: vk::Queue = vk::Queue(9);

    #[test]
    fn a_wait_for_an_imported_payload_is_taken_out_once_with_all_that_belongs_to_it() {
        let files = SyncFiles::default();
        let mut waits = [vk::Semaphore(1), vk::Semaphore(2), vk::Semaphore(3)];
        let mut stages = [1, 2, 4].map(vk::PipelineStageFlags);
        let mut values = [10, 20, 30];
        let mut indices = [5, 6, 7];
        let mut group = vk::DeviceGroupSubmitInfo {
            wait_semaphore_count: 3,
            p_wait_semaphore_device_indices: indices.as_mut_ptr(),
            ..Default::default()
        };
        let mut timeline = vk::TimelineSemaphoreSubmitInfo {
            p_next: (&raw mut group).cast(),
            wait_semaphore_value_count: 3,
            p_wait_semaphore_values: values.as_mut_ptr(),
            ..Default::default()
        };
        let mut submits = [vk::SubmitInfo {
            p_next: (&raw mut timeline).cast(),
            wait_semaphore_count: 3,
            p_wait_semaphores: waits.as_mut_ptr(),
            p_wait_dst_stage_mask: stages.as_mut_ptr(),
            ..Default::default()
        }];
        assert!(files.submit(QUEUE, &mut submits).is_empty());
        files.import(vk::Semaphore(2));
        files.import(vk::Semaphore(2));
        assert_eq!(files.submit(QUEUE, &mut submits), [vk::Semaphore(2)]);
        assert_eq!(submits[0].wait_semaphore_count, 2);
        assert_eq!(timeline.wait_semaphore_value_count, 2);
        assert_eq!(group.wait_semaphore_count, 2);
        assert_eq!(waits.map(|wait| wait.0), [1, 3, 3]);
        assert_eq!(stages.map(|stage| stage.0), [1, 4, 4]);
        assert_eq!((values, indices), ([10, 30, 30], [5, 7, 7]));
        // The payload is gone, so the next wait is one for the driver.
        let mut again = [vk::Semaphore(2)];
        let mut submits = [vk::SubmitInfo {
            wait_semaphore_count: 1,
            p_wait_semaphores: again.as_mut_ptr(),
            ..Default::default()
        }];
        assert!(files.submit(QUEUE, &mut submits).is_empty());
        assert_eq!(submits[0].wait_semaphore_count, 1);
    }

    #[test]
    fn submissions_of_other_kinds_lose_their_waits_too() {
        let files = SyncFiles::default();
        files.import(vk::Semaphore(1));
        let mut infos = [1, 2].map(|semaphore| vk::SemaphoreSubmitInfo {
            semaphore: vk::Semaphore(semaphore),
            ..Default::default()
        });
        let mut submits = [vk::SubmitInfo2 {
            wait_semaphore_info_count: 2,
            p_wait_semaphore_infos: infos.as_mut_ptr(),
            ..Default::default()
        }];
        files.submit(QUEUE, &mut submits);
        assert_eq!(submits[0].wait_semaphore_info_count, 1);
        assert_eq!(infos[0].semaphore.0, 2);
        files.import(vk::Semaphore(1));
        let mut wait = [vk::Semaphore(1)];
        let mut binds = [vk::BindSparseInfo {
            wait_semaphore_count: 1,
            p_wait_semaphores: wait.as_mut_ptr(),
            ..Default::default()
        }];
        files.submit(QUEUE, &mut binds);
        assert_eq!(binds[0].wait_semaphore_count, 0);
    }

    #[test]
    fn a_payload_is_exported_from_the_queue_that_signals_it() {
        let files = SyncFiles::default();
        let (own, other) = (vk::Semaphore(1), vk::Semaphore(2));
        files.exportable(own);
        assert_eq!(files.export(own), Payload::Somewhere);
        let mut signals = [other, own];
        let mut submits = [vk::SubmitInfo {
            signal_semaphore_count: 2,
            p_signal_semaphores: signals.as_mut_ptr(),
            ..Default::default()
        }];
        files.submit(QUEUE, &mut submits);
        assert_eq!(files.export(own), Payload::On(QUEUE));
        assert_eq!(files.export(other), Payload::Somewhere);
        files.import(own);
        assert_eq!(files.export(own), Payload::Imported);
        assert_eq!(files.export(own), Payload::On(QUEUE));
        files.remove(own.0);
        assert_eq!(files.export(own), Payload::Somewhere);
    }
}
