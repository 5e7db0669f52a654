//! What to do after a presenter has failed: try again, draw with the CPU, or give up.

use std::time::{Duration, Instant};

use super::PresenterEnd;
use crate::options::Renderer;

/// How many lost devices are replaced before the CPU takes over.
const DEVICE_REPLACEMENTS: u32 = 1;
/// How often presenters may be replaced within [`FORGOTTEN`] of each other.
const MAX_RESTARTS: u32 = 16;
/// Failures older than this no longer count.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Counts failures and decides what they lead to.
pub(super) struct RestartPolicy {
    renderer: Renderer,
    restarts: u32,
    last: Option<Instant>,
    lost_devices: u32,
}

impl RestartPolicy {
    pub(super) fn new(renderer: Renderer) -> RestartPolicy {
        RestartPolicy {
            renderer,
            restarts: 0,
            last: None,
            lost_devices: 0,
        }
    }

    /// What draws windows from now on.
    pub(super) fn renderer(&self) -> Renderer {
        self.renderer
    }

    /// The serial number of the Vulkan device to use. Devices with a smaller one are lost.
    pub(super) fn device(&self) -> u32 {
        self.lost_devices
    }

    /// Whether trying again would be useless.
    pub(super) fn is_hopeless(&self) -> bool {
        self.restarts > MAX_RESTARTS
    }

    /// Counts the end of a presenter.
    pub(super) fn note(&mut self, end: &PresenterEnd, now: Instant) {
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) > FORGOTTEN)
        {
            self.restarts = 0;
        }
        self.last = Some(now);
        self.restarts += 1;
        let vulkan_failed = match end {
            PresenterEnd::Stopped | PresenterEnd::SurfaceLost => false,
            PresenterEnd::DeviceLost { gpu } => {
                // Every window reports the loss of the device they share.
                self.lost_devices += u32::from(*gpu == self.lost_devices);
                self.lost_devices > DEVICE_REPLACEMENTS
            }
            PresenterEnd::Failed(_) => true,
        };
        if vulkan_failed && self.renderer == Renderer::Auto {
            log::error!("windows are drawn by the CPU from now on");
            self.renderer = Renderer::Cpu;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_device_is_replaced_and_the_second_ends_vulkan() {
        let mut policy = RestartPolicy::new(Renderer::Auto);
        let now = Instant::now();
        // Three windows on the same device.
        for _ in 0..3 {
            policy.note(&PresenterEnd::DeviceLost { gpu: 0 }, now);
            assert_eq!((policy.device(), policy.renderer()), (1, Renderer::Auto));
        }
        policy.note(&PresenterEnd::DeviceLost { gpu: 1 }, now);
        assert_eq!(policy.renderer(), Renderer::Cpu);
    }

    #[test]
    fn a_failure_ends_vulkan_unless_the_user_insists_on_it() {
        let failed = PresenterEnd::Failed("out of memory".to_owned());
        for (asked, then) in [
            (Renderer::Auto, Renderer::Cpu),
            (Renderer::Vulkan, Renderer::Vulkan),
            (Renderer::Cpu, Renderer::Cpu),
        ] {
            let mut policy = RestartPolicy::new(asked);
            policy.note(&failed, Instant::now());
            assert_eq!(policy.renderer(), then);
        }
    }

    #[test]
    fn endless_failing_ends_and_rare_failing_does_not() {
        let mut policy = RestartPolicy::new(Renderer::Auto);
        let start = Instant::now();
        for minute in 0..100 {
            policy.note(
                &PresenterEnd::SurfaceLost,
                start + Duration::from_secs(minute * 61),
            );
            assert!(!policy.is_hopeless());
        }
        let late = start + Duration::from_secs(100 * 61);
        for _ in 0..=MAX_RESTARTS {
            policy.note(&PresenterEnd::SurfaceLost, late);
        }
        assert!(policy.is_hopeless());
        assert_eq!(
            policy.renderer(),
            Renderer::Auto,
            "a lost surface is not Vulkan's fault"
        );
    }
}
