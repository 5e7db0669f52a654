//! The limit on open file descriptors.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limits to ask for, one after the other until the system agrees. No set of guests needs more
/// than the first. macOS refuses more than `kern.maxfilesperproc`, which depends on the machine,
/// and always grants the last (`OPEN_MAX`).
const STEPS: [u64; 4] = [1 << 20, 1 << 18, 1 << 16, 10240];

/// Raises this process's descriptor limit as far as the system allows. Every blob of a guest needs
/// a descriptor.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let set = |limit| Ok(setrlimit(Resource::Nofile, limit)?);
    if let Err(error) = raise(limit, set) {
        log::warn!(
            "the limit on descriptors stays at {}: {error}; raise it with ulimit -n if guests run out of memory objects",
            number(limit.current)
        );
    }
}

/// Raises a limit as far as `set` agrees, at most to its maximum. Never lowers it. Returns the
/// error of the last step.
fn raise(limit: Rlimit, mut set: impl FnMut(Rlimit) -> io::Result<()>) -> io::Result<()> {
    let Some(current) = limit.current else {
        return Ok(());
    };
    // Without a maximum, the system still has a limit of its own that cannot be read.
    let mut steps: Vec<u64> = STEPS
        .into_iter()
        .map(|step| limit.maximum.map_or(step, |most| step.min(most)))
        .filter(|step| *step > current)
        .collect();
    steps.dedup();
    let mut answer = Ok(());
    for step in steps {
        answer = set(Rlimit {
            current: Some(step),
            maximum: limit.maximum,
        });
        if answer.is_ok() {
            break;
        }
    }
    answer
}

/// A limit as text.
fn number(limit: Option<u64>) -> String {
    limit.map_or("no limit".to_owned(), |number| number.to_string())
}

/// The current and the maximum number of descriptors, as text.
pub(crate) fn descriptors() -> String {
    let limit = getrlimit(Resource::Nofile);
    format!(
        "{}, at most {}",
        number(limit.current),
        number(limit.maximum)
    )
}

/// The current limit on descriptors; `None` when there is no limit.
pub(crate) fn descriptors_now() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits asked of a system that grants up to `granted` descriptors, and whether it agreed
    /// in the end.
    fn asked(current: Option<u64>, maximum: Option<u64>, granted: u64) -> (Vec<u64>, bool) {
        let mut asked = Vec::new();
        let raised = raise(Rlimit { current, maximum }, |wanted| {
            assert_eq!(wanted.maximum, maximum, "the upper limit stays");
            asked.extend(wanted.current);
            if wanted.current.is_some_and(|wanted| wanted <= granted) {
                Ok(())
            } else {
                Err(io::ErrorKind::InvalidInput.into())
            }
        });
        (asked, raised.is_ok())
    }

    #[test]
    fn descriptors_are_asked_for_in_steps_downwards_until_the_system_agrees() {
        const MANY: u64 = u64::MAX;
        for (current, maximum, granted, expected, agreed) in [
            // Linux: the maximum, or the first step.
            (1024, Some(4096), MANY, &[4096][..], true),
            (1024, Some(524_288), MANY, &[524_288], true),
            (1024, Some(1 << 30), MANY, &[1 << 20], true),
            // macOS started from a desktop: no maximum, but kern.maxfilesperproc.
            (256, None, 1 << 20, &[1 << 20], true),
            (256, None, 245_760, &[1 << 20, 1 << 18, 1 << 16], true),
            (
                256,
                None,
                61_440,
                &[1 << 20, 1 << 18, 1 << 16, 10_240],
                true,
            ),
            (256, Some(100_000), 92_160, &[100_000, 1 << 16], true),
            (256, None, 256, &[1 << 20, 1 << 18, 1 << 16, 10_240], false),
            // The limit is never lowered.
            (20_000, None, 30_000, &[1 << 20, 1 << 18, 1 << 16], false),
            (1 << 20, None, MANY, &[], true),
            (4096, Some(4096), MANY, &[], true),
        ] {
            let (steps, raised) = asked(Some(current), maximum, granted);
            assert_eq!(
                (&steps[..], raised),
                (expected, agreed),
                "{current} {maximum:?}"
            );
        }
        assert_eq!(asked(None, None, MANY), (Vec::new(), true));
    }
}
