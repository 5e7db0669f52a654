//! `VkQueryPool`: results go into memory whose size the guest chooses, so the size is checked here.

use std::sync::Arc;
use std::time::Duration;

use hesper_system::sync::Lock;
use hesper_venus_protocol::command::{CreateQueryPool, GetQueryPoolResults};
use hesper_venus_protocol::{CommandId, vk};

use super::lifetime::create_object;
use super::shape::{Family, destroy, forward, special};
use crate::fatal::Fatal;
use crate::object::reclamation::Class;
use crate::rules::values_per_query;
use crate::session::{Session, call};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        CreateQueryPool => create,
        GetQueryPoolResults => results,
    ),
    destroy!(
        DestroyQueryPool => query_pool,
    ),
    forward!(ResetQueryPool),
];

/// `vkCreateQueryPool`
fn create(session: &mut Session<'_>, c: &mut CreateQueryPool<'_>) -> Result<vk::Result, Fatal> {
    let values = values_per_query(c.p_create_info);
    create_object(
        session,
        c,
        |c| &mut *c.p_query_pool,
        |device, pool| {
            device.queries.locked().insert(pool.0, values);
        },
    )
}

/// Bytes that `queries` queries take. `None` when that overflows.
fn bytes(queries: u32, values: u32, stride: u64, flags: vk::QueryResultFlags) -> Option<u64> {
    use vk::QueryResultFlags as Flags;
    let Some(before_last) = queries.checked_sub(1) else {
        return Some(0);
    };
    let availability = u64::from(flags.contains(Flags::WITH_AVAILABILITY));
    let width = if flags.contains(Flags::RESULT_64) {
        8
    } else {
        4
    };
    let last = (u64::from(values) + availability) * width;
    u64::from(before_last)
        .checked_mul(stride)?
        .checked_add(last)
}

/// `vkGetQueryPoolResults`
fn results(
    session: &mut Session<'_>,
    c: &mut GetQueryPoolResults<'_>,
) -> Result<vk::Result, Fatal> {
    let device = Arc::clone(session.device(CommandId::GetQueryPoolResults)?);
    let values = device.queries.locked().get(&c.query_pool.handle.0).copied();
    let needed = values.and_then(|values| bytes(c.query_count, values, c.stride, c.flags));
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
        assert_eq!(bytes(0, 1, u64::MAX, Flags::default()), Some(0));
        assert_eq!(bytes(1, 1, u64::MAX, Flags::default()), Some(4));
        assert_eq!(
            bytes(3, 2, 100, Flags::RESULT_64 | Flags::WITH_AVAILABILITY),
            Some(224)
        );
        assert_eq!(bytes(3, 1, u64::MAX, Flags::default()), None);
    }
}
