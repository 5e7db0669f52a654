//! What a guest's EDID parser makes of our EDIDs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use hesper_vhost::device::DeviceOptions;
use hesper_vhost::screen::{Monitor, NoScreen};
use hesper_vhost::testing::{Guest, Request, options};
use hesper_vhost::wire;

/// Sizes in pixels, millihertz, millimetres.
const MONITORS: [(u32, u32, u32, u32, u32); 16] = [
    (1024, 768, 60_000, 0, 0),
    (640, 480, 60_000, 0, 0),
    (1280, 800, 60_000, 300, 190),
    (1920, 1080, 60_000, 521, 293),
    (1920, 1080, 59_940, 521, 293),
    (1920, 1080, 144_000, 521, 293),
    (1367, 769, 60_000, 0, 0),
    (801, 603, 75_000, 212, 160),
    (16, 16, 60_000, 0, 0),
    (2560, 1440, 165_000, 597, 336),
    (3440, 1440, 100_000, 800, 335),
    (3840, 2160, 60_000, 600, 340),
    (3840, 2160, 120_000, 600, 340),
    (5120, 2160, 60_000, 1200, 500),
    (5120, 2880, 60_000, 600, 340),
    (7680, 4320, 60_000, 1660, 934),
];

fn edid(monitor: Monitor) -> Vec<u8> {
    let options = DeviceOptions {
        monitors: vec![monitor],
        ..options()
    };
    let mut guest = Guest::with(options, Arc::new(NoScreen), Vec::new());
    let get = wire::GetEdid {
        scanout_id: 0.into(),
        padding: 0.into(),
    };
    let reply = guest.ask(&Request::new(wire::CMD_GET_EDID, &get));
    assert_eq!(reply.kind(), wire::RESP_OK_EDID);
    assert_eq!(reply.body().len(), 8 + wire::EDID_SPACE);
    let size = u32::from_le_bytes(reply.body()[..4].try_into().unwrap()) as usize;
    assert!(reply.body()[8 + size..].iter().all(|byte| *byte == 0));
    reply.body()[8..8 + size].to_vec()
}

fn monitor(
    (width, height, refresh_mhz, width_mm, height_mm): (u32, u32, u32, u32, u32),
) -> Monitor {
    Monitor {
        connected: true,
        width,
        height,
        refresh_mhz,
        width_mm,
        height_mm,
        place: 0,
    }
}

/// A timing, decoded as the standards lay it out.
#[derive(Debug)]
struct Timing {
    width: u64,
    height: u64,
    h_total: u64,
    v_total: u64,
    clock_hz: u64,
}

impl Timing {
    fn refresh_mhz(&self) -> u64 {
        self.clock_hz * 1000 / (self.h_total * self.v_total)
    }
}

/// The first detailed timing of the base block.
fn base_timing(edid: &[u8]) -> Timing {
    let d: Vec<u64> = edid[54..72].iter().map(|byte| u64::from(*byte)).collect();
    let (width, h_blank) = (d[2] | (d[4] >> 4) << 8, d[3] | (d[4] & 15) << 8);
    let (height, v_blank) = (d[5] | (d[7] >> 4) << 8, d[6] | (d[7] & 15) << 8);
    Timing {
        width,
        height,
        h_total: width + h_blank,
        v_total: height + v_blank,
        clock_hz: (d[0] | d[1] << 8) * 10_000,
    }
}

/// The first type I timing of the DisplayID block, and whether it is preferred. Before it are 5
/// bytes of section header, 43 of other data blocks and 3 of data block header.
fn extension_timing(edid: &[u8]) -> (Timing, bool) {
    let d = &edid[128 + 51..128 + 71];
    let word = |at: usize| u64::from(u16::from_le_bytes([d[at], d[at + 1]])) + 1;
    let clock = u64::from(d[0]) | u64::from(d[1]) << 8 | u64::from(d[2]) << 16;
    let timing = Timing {
        width: word(4),
        height: word(12),
        h_total: word(4) + word(6),
        v_total: word(12) + word(14),
        clock_hz: (clock + 1) * 10_000,
    };
    (timing, d[3] & 0x80 != 0)
}

#[test]
fn the_preferred_mode_is_the_monitors_own_to_the_pixel_and_within_0_1_percent_of_its_rate() {
    for monitor in MONITORS.map(monitor) {
        let edid = edid(monitor);
        let base = base_timing(&edid);
        let preferred =
            if (base.width, base.height) == (u64::from(monitor.width), u64::from(monitor.height)) {
                assert_eq!(edid[24] & 2, 2, "{monitor:?}: the base timing is native");
                base
            } else {
                assert_eq!(
                    edid[24] & 2,
                    0,
                    "{monitor:?}: the base timing is not native"
                );
                let (timing, preferred) = extension_timing(&edid);
                assert!(preferred, "{monitor:?}");
                timing
            };
        assert_eq!(preferred.width, u64::from(monitor.width), "{monitor:?}");
        assert_eq!(preferred.height, u64::from(monitor.height), "{monitor:?}");
        let wanted = u64::from(monitor.refresh_mhz);
        let error = preferred.refresh_mhz().abs_diff(wanted) * 1000 / wanted;
        // A clock in steps of 10 kHz is coarse for a tiny frame.
        let allowed = if monitor.width < 100 { 200 } else { 1 };
        assert!(error <= allowed, "{monitor:?}: {preferred:?}");
    }
}

#[test]
fn a_mode_that_no_detailed_timing_can_hold_stands_in_a_displayid_block() {
    for (large, mode) in [
        (false, (3840, 2160, 60_000, 0, 0)),
        // 655.35 MHz is the most for a detailed timing, 4095 pixels a side.
        (true, (3840, 2160, 120_000, 0, 0)),
        (false, (4095, 2160, 60_000, 0, 0)),
        (true, (4096, 2160, 60_000, 0, 0)),
        (true, (1000, 4096, 60_000, 0, 0)),
    ] {
        let edid = edid(monitor(mode));
        assert_eq!(
            base_timing(&edid).width != u64::from(mode.0),
            large,
            "{mode:?}"
        );
        assert_eq!(edid[128], 0x70, "{mode:?}: a DisplayID block");
        assert!(extension_timing(&edid).1, "{mode:?}");
    }
}

#[test]
fn every_block_and_section_sums_to_zero() {
    for monitor in MONITORS.map(monitor) {
        let edid = edid(monitor);
        assert_eq!(
            edid.len(),
            128 * (1 + usize::from(edid[126])),
            "{monitor:?}"
        );
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        for block in edid.chunks(128) {
            assert_eq!(sum(block), 0, "{monitor:?}");
        }
        for extension in edid.chunks(128).skip(1) {
            let section = 1 + 4 + usize::from(extension[2]) + 1;
            assert_eq!(sum(&extension[1..section]), 0, "{monitor:?}");
        }
    }
}

#[test]
fn nonsense_monitors_make_valid_edids_too() {
    for mode in [
        (0, 0, 0, 0, 0),
        (1, 1, 1, 1, 1),
        (u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX),
        (1, u32::MAX, 1_000_000_000, 0, 9),
        (u32::MAX, 1, 1, 9, 0),
    ] {
        let edid = edid(monitor(mode));
        let sum = edid.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0, "{mode:?}");
    }
}

/// Runs the reference decoder over all of them where it is installed (Debian: `edid-decode`).
#[test]
fn edid_decode_finds_no_fault() {
    for monitor in MONITORS.map(monitor) {
        let edid = edid(monitor);
        let decoder = Command::new("edid-decode")
            .arg("--check")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut decoder) = decoder else {
            eprintln!("edid-decode is not installed: the check by it is left out");
            return;
        };
        decoder.stdin.take().unwrap().write_all(&edid).unwrap();
        let output = decoder.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && !text.contains("EDID conformity: FAIL"),
            "{monitor:?}: {text}"
        );
    }
}
