//! Blobs are whole pages of the host. `HESPER_SYSTEM=macos` makes those larger than the guest's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;

use hesper_vhost::screen::NoScreen;
use hesper_vhost::testing::{FakeRenderer, Guest, Request, options};
use hesper_vhost::wire::*;

#[test]
fn a_guest_that_is_not_told_of_an_alignment_still_makes_blobs_of_whole_pages_of_the_host() {
    let renderer = FakeRenderer::new();
    let mut guest = Guest::with(
        options(),
        Arc::new(NoScreen),
        vec![Arc::clone(&renderer) as _],
    );
    assert_eq!(guest.device.features() & 1 << F_BLOB_ALIGNMENT, 0);
    let page = match std::env::var("HESPER_SYSTEM").as_deref() {
        Ok("macos") => 16384,
        _ => rustix::param::page_size() as u64,
    };
    guest.ok(&Request::create_context(1, 4, ""));
    let odd = Request::host_blob(1, 5, 0, page / 2);
    assert_eq!(guest.code(&odd), RESP_ERR_INVALID_PARAMETER);
    guest.held_ok(&Request::host_blob(1, 5, 0, page));
    assert_eq!(
        guest.code(&Request::map_blob(5, page / 2)),
        RESP_ERR_INVALID_PARAMETER
    );
    assert_eq!(guest.code(&Request::map_blob(5, page)), RESP_OK_MAP_INFO);
}
