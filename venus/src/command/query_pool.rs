//! `VkQueryPool`: results go into memory whose size the guest chooses, so the size is checked here.

use std::sync::Arc;
use std::time::Duration;

use hesper_venus_protocol::command::GetQueryPoolResults;
use hesper_venus_protocol::{CommandId, vk};

use super::shape::{Family, create, destroy, forward, special};
use crate::fatal::Fatal;
use crate::object::facts::Queries;
use crate::object::reclamation::Class;
use crate::session::{Session, call};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        GetQueryPoolResults => results,
    ),
    create!(
        CreateQueryPool => p_query_pool,
    ),
    destroy!(
        DestroyQueryPool => query_pool,
    ),
    forward!(ResetQueryPool),
];

/// Bytes that `count` queries of a pool take. `None` when that overflows.
fn bytes(count: u32, pool: Queries, stride: u64, flags: vk::QueryResultFlags) -> Option<u64> {
    let Some(before_last) = count.checked_sub(1) else {
        return Some(0);
    };
    u64::from(before_last)
        .checked_mul(stride)?
        .checked_add(pool.size(flags))
}

/// `vkGetQueryPoolResults`
fn results(
    session: &mut Session<'_>,
    c: &mut GetQueryPoolResults<'_>,
) -> Result<vk::Result, Fatal> {
    let device = Arc::clone(session.device(CommandId::GetQueryPoolResults)?);
    let pool = device.facts.query_pools.get(c.query_pool.handle);
    let needed = pool.and_then(|pool| bytes(c.query_count, pool, c.stride, c.flags));
    if needed.is_none_or(|needed| needed > c.p_data.len() as u64) {
        return Err(Fatal::Invalid {
            command: "vkGetQueryPoolResults",
            reason: "the results do not fit into the memory for them",
        });
    }
    if !c.flags.contains(vk::QueryResultFlags::WAIT) {
        return call(session, c);
    }
    // The driver's own wait would not stop when the context ends, so ask it now and then.
    c.flags = c.flags & !(vk::QueryResultFlags::WAIT | vk::QueryResultFlags::PARTIAL);
    session.publish();
    let pool = [c.query_pool.handle.0];
    session.waiting(CommandId::GetQueryPoolResults, |session| {
        session.with_only(Class::Sync, |session| {
        let mut pause = FIRST_PAUSE;
        loop {
            if !session.may_wait_on(&pool) {
                return Err(Fatal::Invalid {
                    command: "vkGetQueryPoolResults",
                    reason: "another thread destroys the query pool that this command waits for",
                });
            }
            let result = call(session, c)?;
            if result != vk::Result::NOT_READY || session.state.is_stopping() {
                return Ok(result);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    })
    })
}

/// Pauses between two looks at a query.
const FIRST_PAUSE: Duration = Duration::from_micros(20);

const LONGEST_PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use vk::QueryResultFlags as Flags;

    #[test]
    fn the_last_query_needs_its_values_and_the_others_their_stride() {
        let of = |values| Queries { count: 9, values };
        assert_eq!(bytes(0, of(1), u64::MAX, Flags::default()), Some(0));
        assert_eq!(bytes(1, of(1), u64::MAX, Flags::default()), Some(4));
        assert_eq!(
            bytes(3, of(2), 100, Flags::RESULT_64 | Flags::WITH_AVAILABILITY),
            Some(224)
        );
        assert_eq!(bytes(3, of(1), u64::MAX, Flags::default()), None);
    }
}
