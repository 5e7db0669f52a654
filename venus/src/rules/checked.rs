//! [`Broken`]: what a rule says of numbers that break it, and the plain comparisons.

use std::fmt;

use hesper_venus_protocol::rules::Limit;
use hesper_venus_protocol::vk;

use crate::object::facts::{Facts, Queries};

/// A rule that a command breaks, with the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    what: &'static str,
    from: u64,
    count: u64,
    most: u64,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            from,
            count,
            most,
        } = self;
        write!(f, "{what}: {count} from {from} on, of {most}")
    }
}

/// What a rule returns.
pub(crate) type Checked = Result<(), Broken>;

/// Fails unless `count` numbers from `from` on are below `most`.
#[inline]
pub(super) fn within(what: &'static str, from: u64, count: u64, most: u64) -> Checked {
    match from.checked_add(count) {
        Some(end) if end <= most => Ok(()),
        _ => Err(broken(what, from, count, most)),
    }
}

/// The error for numbers that break a rule.
#[cold]
pub(super) fn broken(what: &'static str, from: u64, count: u64, most: u64) -> Broken {
    Broken {
        what,
        from,
        count,
        most,
    }
}

/// Fails with `what` and a number unless `holds`.
#[inline]
pub(super) fn demand(holds: bool, what: &'static str, number: u64, most: u64) -> Checked {
    match holds {
        true => Ok(()),
        false => Err(broken(what, number, 1, most)),
    }
}

/// The error for an object that another thread is destroying.
#[cold]
pub(super) fn gone(handle: u64) -> Broken {
    broken("an object that is being destroyed", handle, 1, 0)
}

impl Facts {
    pub(super) fn limit(&self, limit: Limit) -> (&'static str, u32) {
        let Self { limits, .. } = self;
        match limit {
            Limit::Viewports => ("viewports beyond maxViewports", limits.core.max_viewports),
            Limit::VertexBindings => (
                "vertex bindings beyond maxVertexInputBindings",
                limits.core.max_vertex_input_bindings,
            ),
            Limit::ColorAttachments => (
                "attachments beyond maxColorAttachments",
                limits.core.max_color_attachments,
            ),
            Limit::TransformFeedbackBuffers => (
                "buffers beyond maxTransformFeedbackBuffers",
                limits.transform_feedback_buffers,
            ),
            Limit::TransformFeedbackStreams => (
                "a stream beyond maxTransformFeedbackStreams",
                limits.transform_feedback_streams,
            ),
            Limit::PatchControlPoints => (
                "control points beyond maxTessellationPatchSize",
                limits.core.max_tessellation_patch_size,
            ),
            Limit::QueueFamilies => ("a queue family that does not exist", limits.queue_families),
        }
    }

    /// Fails unless the pool has these queries.
    pub(super) fn has_queries(
        &self,
        pool: vk::QueryPool,
        first: u64,
        count: u64,
    ) -> Result<Queries, Broken> {
        let known = self.query_pools.get(pool).ok_or_else(|| gone(pool.0))?;
        let what = "queries that the pool does not have";
        within(what, first, count, known.count.into())?;
        Ok(known)
    }
}

/// Values that stand for no index begin here: unused, ignored, external, foreign.
pub(super) const SPECIAL: u64 = 0xffff_fffd;
