//! What the system lets this process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that no set of guests will exceed.
const PLENTY: u64 = 1 << 20;

/// Lets this process have as many descriptors as it may: every blob of a guest is one.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where there is no upper limit the system has one of its own that is not told: ask for plenty.
    let wanted = limit.maximum.unwrap_or(PLENTY).min(PLENTY);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!(
            "the limit on descriptors stays at {:?}: {error}; raise it with ulimit -n if guests run out of memory objects",
            limit.current
        );
    }
}

/// How many descriptors this process may have now, and how many it may ask for.
pub(crate) fn descriptors() -> String {
    let limit = getrlimit(Resource::Nofile);
    let number = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |n| n.to_string());
    format!(
        "{}, at most {}",
        number(limit.current),
        number(limit.maximum)
    )
}
