//! How many queues of a GPU guests get: what its families have, and what its driver survives in one
//! process.
//!
//! All contexts share one process, and so one driver. NVIDIA's (580.159.04 on an H100, measured
//! without Hesper) serves some 155 to 180 queues in one process. With devices of 34 queues, the
//! fifth ends in a segmentation fault inside `vkCreateDevice`. That would end every guest program
//! at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};

use hesper_venus_protocol::vk;

/// What NVIDIA's driver survives, with room for this process's own devices.
const NVIDIA: u32 = 128;
/// The limit for drivers of which nothing is known. No guest programs need more.
const OTHERS: u32 = 4096;

/// Queues in one element of `VkDeviceCreateInfo::pQueueCreateInfos`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueRequest {
    /// Its flags.
    pub(crate) flags: vk::DeviceQueueCreateFlags,
    /// The family's index.
    pub(crate) family: u32,
    /// How many.
    pub(crate) count: u32,
}

/// A GPU's queues.
#[derive(Debug)]
pub(crate) struct Queues {
    /// `queueCount` of each family.
    families: Vec<u32>,
    limit: u32,
    used: AtomicU32,
    logged_wrong: Once,
    logged_full: Once,
}

/// Queues that a device has; given back on drop.
#[derive(Debug)]
pub(crate) struct QueueShare {
    queues: Arc<Queues>,
    count: u32,
}

impl Queues {
    /// The queues of a GPU with these families. All contexts together may have `limit` of them;
    /// `None` takes what the driver survives.
    pub(crate) fn new(families: Vec<u32>, limit: Option<u32>, driver: ash::vk::DriverId) -> Self {
        let known = match driver {
            ash::vk::DriverId::NVIDIA_PROPRIETARY => NVIDIA,
            _ => OTHERS,
        };
        Self {
            families,
            limit: limit.unwrap_or(known),
            used: AtomicU32::new(0),
            logged_wrong: Once::new(),
            logged_full: Once::new(),
        }
    }

    /// How many families there are.
    pub(crate) fn families(&self) -> u32 {
        self.families.len() as u32
    }

    /// Takes a device's queues. The error is the result of `vkCreateDevice`.
    pub(crate) fn take(
        self: &Arc<Self>,
        requests: &[QueueRequest],
    ) -> Result<QueueShare, vk::Result> {
        if !self.are_there(requests) {
            // Vulkan does not define what a driver does with such a request. Some crash.
            self.logged_wrong.call_once(|| {
                log::warn!(
                    "a guest's vkCreateDevice fails: it asks for queues that do not exist: {:?} of families with {:?}; logged once",
                    requests.iter().take(4).collect::<Vec<_>>(),
                    self.families
                );
            });
            return Err(vk::Result::ERROR_INITIALIZATION_FAILED);
        }
        // A device needs something of the driver even without queues.
        let count = requests
            .iter()
            .map(|request| request.count)
            .sum::<u32>()
            .max(1);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(count).filter(|sum| *sum <= self.limit)
            });
        match taken {
            Ok(_) => Ok(QueueShare {
                queues: Arc::clone(self),
                count,
            }),
            Err(used) => {
                self.logged_full.call_once(|| {
                    log::warn!(
                        "a guest's vkCreateDevice fails: {used} queues are in use, {count} more are wanted, and the driver survives {} \
                         in one process; end other Vulkan programs of the guest, or make them use fewer queues; logged once",
                        self.limit
                    );
                });
                Err(vk::Result::ERROR_TOO_MANY_OBJECTS)
            }
        }
    }

    /// Whether the families have the queues.
    fn are_there(&self, requests: &[QueueRequest]) -> bool {
        // A family is listed at most twice: with protected queues and without.
        if requests.len() > 2 * self.families.len() {
            return false;
        }
        let of = |family| {
            requests
                .iter()
                .filter(move |request| request.family == family)
        };
        requests.iter().all(|request| {
            let wanted = of(request.family)
                .map(|same| u64::from(same.count))
                .sum::<u64>();
            let alike = of(request.family)
                .filter(|same| same.flags == request.flags)
                .count();
            let place = usize::try_from(request.family).ok();
            let there = place.and_then(|family| self.families.get(family));
            alike == 1
                && request.count > 0
                && there.is_some_and(|there| wanted <= u64::from(*there))
        })
    }
}

impl Drop for QueueShare {
    fn drop(&mut self) {
        self.queues.used.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(family: u32, count: u32) -> QueueRequest {
        QueueRequest {
            flags: vk::DeviceQueueCreateFlags::default(),
            family,
            count,
        }
    }

    fn queues(limit: Option<u32>) -> Arc<Queues> {
        let driver = ash::vk::DriverId::NVIDIA_PROPRIETARY;
        Arc::new(Queues::new(vec![16, 2], limit, driver))
    }

    #[test]
    fn what_a_driver_does_not_have_is_never_asked_of_it() {
        let queues = queues(None);
        let protected = QueueRequest {
            flags: vk::DeviceQueueCreateFlags::PROTECTED,
            ..of(0, 1)
        };
        for wrong in [
            &[of(2, 1)][..],
            &[of(u32::MAX, 1)],
            &[of(1, 3)],
            &[of(1, u32::MAX)],
            &[of(0, 0)],
            &[of(0, 1), of(0, 1)],
            &[of(0, 16), protected],
            &[of(0, 1); 5],
        ] {
            let result = queues.take(wrong).map(drop);
            assert_eq!(
                result,
                Err(vk::Result::ERROR_INITIALIZATION_FAILED),
                "{wrong:?}"
            );
        }
        assert!(queues.take(&[of(0, 15), protected, of(1, 2)]).is_ok());
    }

    #[test]
    fn queues_end_at_what_the_driver_bears_and_come_back() {
        let queues = queues(None);
        let mut devices: Vec<_> = (0..7)
            .map(|_| queues.take(&[of(0, 16), of(1, 2)]).unwrap())
            .collect();
        let full = queues.take(&[of(0, 3)]).map(drop);
        assert_eq!(full, Err(vk::Result::ERROR_TOO_MANY_OBJECTS));
        let last = queues.take(&[of(0, 2)]).unwrap();
        assert_eq!(
            queues.take(&[]).map(drop),
            Err(vk::Result::ERROR_TOO_MANY_OBJECTS)
        );
        drop(last);
        devices.pop();
        assert!(queues.take(&[of(0, 16)]).is_ok());
    }
}
