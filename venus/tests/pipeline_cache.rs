//! Data of pipeline caches goes out to a guest and comes back to the driver only as it went out.
//! The null driver ends the process if it gets data that it did not make.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod hostile;

use hesper_venus_protocol::{command, guest, vk};
use hostile::session::{Id, Session, object};
use hostile::{Bench, Guest, Outcome, PATIENCE, null_driver};

/// Bytes of the null driver's data, and of what is behind them.
const DATA: usize = 40;
const WHOLE: usize = DATA + 40;

fn guest(bench: &Bench) -> Guest {
    let guest = bench.guest();
    guest.context.submit(Session::whole().stream);
    assert_eq!(guest.settle(0, PATIENCE), Outcome::Fine);
    guest
}

/// Asks for the data of the session's cache with room for `room` bytes, or for its size.
fn data(guest: &Guest, room: Option<usize>) -> (vk::Result, Vec<u8>, usize) {
    let mut size = room.unwrap_or(0);
    let mut bytes = vec![0u8; size];
    let mut query = command::GetPipelineCacheData {
        device: object(Id::Device),
        pipeline_cache: object(Id::Cache),
        p_data_size: &mut size,
        p_data: match room {
            Some(_) => bytes.as_mut_slice().into(),
            None => hesper_venus_protocol::runtime::Array::NULL,
        },
    };
    let mut session = Session::reply_stream();
    session.push(&query, true);
    guest.context.submit(session.stream);
    assert_eq!(guest.settle(0, PATIENCE), Outcome::Fine);
    let mut reply = vec![0; 512];
    guest.replies.memory.read(0, &mut reply).unwrap();
    // SAFETY: the arguments point to live values with the room that they name.
    let (result, _) = unsafe { guest::decode_reply(&mut query, &reply) }.unwrap();
    let written = size.min(bytes.len());
    bytes.truncate(written);
    (vk::Result(result as i32), bytes, size)
}

/// Makes a cache from data and merges it into the session's cache.
fn back(guest: &Guest, data: &[u8]) {
    let mut info = vk::PipelineCacheCreateInfo {
        initial_data_size: data.len(),
        p_initial_data: data.as_ptr().cast(),
        ..Default::default()
    };
    let mut session = Session::default();
    session.push(
        &command::CreatePipelineCache {
            device: object(Id::Device),
            p_create_info: &mut info,
            p_pipeline_cache: &mut vk::PipelineCache(Id::Next as u64),
        },
        false,
    );
    session.push(
        &command::MergePipelineCaches {
            device: object(Id::Device),
            dst_cache: object(Id::Cache),
            src_cache_count: 1,
            p_src_caches: [vk::PipelineCache(Id::Next as u64)].as_mut_slice().into(),
        },
        false,
    );
    session.push(
        &command::DestroyPipelineCache {
            device: object(Id::Device),
            pipeline_cache: object(Id::Next),
        },
        false,
    );
    guest.context.submit(session.stream);
    assert_eq!(guest.settle(0, PATIENCE), Outcome::Fine);
}

#[test]
fn data_of_a_cache_goes_out_and_comes_back() {
    let bench = Bench::new(null_driver());
    let guest = guest(&bench);
    let (result, _, size) = data(&guest, None);
    assert_eq!((result, size), (vk::Result::SUCCESS, WHOLE));
    let (result, bytes, size) = data(&guest, Some(WHOLE));
    assert_eq!((result, size), (vk::Result::SUCCESS, WHOLE));
    assert_eq!(bytes[..8], [32, 0, 0, 0, 1, 0, 0, 0], "Vulkan's header");
    back(&guest, &bytes);
    // More room than is needed.
    let (result, more, _) = data(&guest, Some(WHOLE + 100));
    assert_eq!((result, more), (vk::Result::SUCCESS, bytes));
    bench.ended(guest, Outcome::Fine);
}

#[test]
fn data_that_is_cut_short_is_incomplete_and_still_the_drivers() {
    let bench = Bench::new(null_driver());
    let guest = guest(&bench);
    for room in [16, 71] {
        let (result, bytes, size) = data(&guest, Some(room));
        assert_eq!((result, bytes.len(), size), (vk::Result::INCOMPLETE, 0, 0));
    }
    for room in 72..WHOLE {
        let (result, bytes, size) = data(&guest, Some(room));
        assert_eq!((result, size), (vk::Result::INCOMPLETE, room));
        back(&guest, &bytes);
    }
    bench.ended(guest, Outcome::Fine);
}

#[test]
fn data_that_the_guest_changed_is_ignored() {
    let bench = Bench::new(null_driver());
    let guest = guest(&bench);
    let (_, bytes, _) = data(&guest, Some(WHOLE));
    for at in 0..bytes.len() {
        let mut spoiled = bytes.clone();
        spoiled[at] ^= 1 << (at % 8);
        back(&guest, &spoiled);
    }
    back(&guest, &bytes[..DATA]);
    back(&guest, &[]);
    back(&guest, &[0xff; 4096]);
    bench.ended(guest, Outcome::Fine);
}
