//! Monitors, the config space and display events.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;

use hesper_vhost::device::DeviceOptions;
use hesper_vhost::screen::{
    CursorImage, FlushState, FlushToken, Monitor, NoScreen, Picture, Rect, ScanoutId, ScanoutSink,
};
use hesper_vhost::testing::{Guest, Request, monitor, options};
use hesper_vhost::wire::{self, *};

fn config(guest: &Guest) -> [u32; 5] {
    let mut bytes = [0xff; 24];
    guest.device.read_config(0, &mut bytes);
    assert_eq!(bytes[20..], [0; 4], "past the end reads zero");
    std::array::from_fn(|i| u32::from_le_bytes(bytes[i * 4..i * 4 + 4].try_into().unwrap()))
}

/// Enabled monitors as x, y, width, height.
fn display_info(guest: &mut Guest) -> Vec<Option<[u32; 4]>> {
    let reply = guest.ask(&Request::bare(CMD_GET_DISPLAY_INFO));
    assert_eq!(reply.kind(), RESP_OK_DISPLAY_INFO);
    assert_eq!(reply.written, 24 + 16 * 24);
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    reply
        .body()
        .chunks(24)
        .map(|one| {
            (word(one, 16) != 0).then(|| [word(one, 0), word(one, 4), word(one, 8), word(one, 12)])
        })
        .collect()
}

#[test]
fn the_config_space_reads_at_any_offset_and_length() {
    let guest = Guest::new();
    assert_eq!(config(&guest), [0, 0, 2, 0, 4096]);
    for offset in 0..30 {
        for length in 0..30 {
            let mut part = vec![0xee; length];
            guest.device.read_config(offset, &mut part);
            let mut whole = [0; 60];
            guest.device.read_config(0, &mut whole);
            assert_eq!(part, whole[offset as usize..][..length]);
        }
    }
    let mut far = [1; 4];
    guest.device.read_config(u32::MAX, &mut far);
    assert_eq!(far, [0; 4]);
}

#[test]
fn a_new_monitor_size_is_an_event_until_the_driver_clears_it() {
    let mut guest = Guest::new();
    let wider = Monitor {
        width: 1600,
        height: 901,
        ..monitor()
    };
    guest.device.set_monitor(1, wider);
    assert_eq!(guest.host.config_changes(), 1);
    assert_eq!(config(&guest)[0], EVENT_DISPLAY);
    let info = display_info(&mut guest);
    assert_eq!(
        info[..2],
        [Some([0, 0, 1024, 768]), Some([1024, 0, 1600, 901])]
    );
    assert_eq!(info[2..], [None; 14]);
    // The same size again is no event.
    guest.device.set_monitor(1, wider);
    guest.device.set_monitor(16, wider);
    assert_eq!(guest.host.config_changes(), 1);
    // Linux writes the whole struct at offset 0; only events_clear acts.
    let mut whole = [0xff; 20];
    whole[4..8].copy_from_slice(&[0; 4]);
    guest.device.write_config(0, &whole);
    assert_eq!(config(&guest), [EVENT_DISPLAY, 0, 2, 0, 4096]);
    whole[4] = EVENT_DISPLAY as u8;
    guest.device.write_config(0, &whole);
    assert_eq!(config(&guest), [0, 0, 2, 0, 4096]);
    // The field alone works, too.
    guest.device.set_monitor(1, monitor());
    guest.device.write_config(4, &EVENT_DISPLAY.to_le_bytes());
    assert_eq!(config(&guest)[0], 0);
    for offset in [1, 19, 20, 4000, u32::MAX] {
        guest.device.write_config(offset, &[0xff; 64]);
    }
    assert_eq!(config(&guest), [0, 0, 2, 0, 4096]);
}

#[test]
fn an_unplugged_monitor_is_not_enabled_and_takes_no_place() {
    let mut guest = Guest::new();
    let unplugged = Monitor {
        connected: false,
        ..monitor()
    };
    guest.device.set_monitor(0, unplugged);
    let info = display_info(&mut guest);
    assert_eq!(info[..2], [None, Some([0, 0, 1024, 768])]);
}

#[test]
fn monitors_stand_side_by_side_in_the_order_of_their_places() {
    let mut guest = Guest::new();
    let left = Monitor {
        width: 800,
        place: -5,
        ..monitor()
    };
    guest.device.set_monitor(1, left);
    let info = display_info(&mut guest);
    assert_eq!(
        info[..2],
        [Some([800, 0, 1024, 768]), Some([0, 0, 800, 768])]
    );
}

/// A screen that decides about its monitors, as QEMU's console does.
struct Console;

impl ScanoutSink for Console {
    fn set_scanout(&self, _: ScanoutId, _: Option<&Picture>) {}
    fn flush(&self, _: ScanoutId, _: Rect, _: Option<FlushToken>) -> FlushState {
        FlushState::Done
    }
    fn set_cursor(&self, _: ScanoutId, _: Option<&CursorImage>, _: u32, _: u32) {}
    fn move_cursor(&self, _: ScanoutId, _: u32, _: u32) {}
    fn monitors(&self) -> Option<Vec<Monitor>> {
        let mut monitors = vec![monitor(); 20];
        monitors[0].width = 333;
        Some(monitors)
    }
    fn edid(&self, scanout: ScanoutId) -> Option<Vec<u8>> {
        Some(vec![
            scanout as u8 + 1;
            if scanout == 0 { 1024 } else { 2000 }
        ])
    }
}

#[test]
fn a_screen_may_decide_about_monitors_and_edid() {
    let mut guest = Guest::with(options(), Arc::new(Console), Vec::new());
    let info = display_info(&mut guest);
    assert_eq!(info[0], Some([0, 0, 333, 768]));
    assert_eq!(info[2..], [None; 14], "not more than there are scanouts");
    for scanout in 0..2 {
        let get = wire::GetEdid {
            scanout_id: scanout.into(),
            padding: 0.into(),
        };
        let reply = guest.ask(&Request::new(CMD_GET_EDID, &get));
        assert_eq!(reply.body()[..4], 1024_u32.to_le_bytes());
        assert_eq!(reply.body()[8..], [scanout as u8 + 1; 1024]);
    }
}

#[test]
fn there_are_never_more_than_16_scanouts_and_never_none() {
    for (wanted, count) in [(0, 1), (1, 1), (16, 16), (40, 16)] {
        let options = DeviceOptions {
            monitors: vec![monitor(); wanted],
            ..options()
        };
        let mut guest = Guest::with(options, Arc::new(NoScreen), Vec::new());
        assert_eq!(config(&guest)[2], count);
        let off = |scanout| {
            let nothing = Rect::default();
            Request::set_scanout(scanout, 0, nothing)
        };
        guest.ok(&off(count - 1));
        assert_eq!(guest.code(&off(count)), RESP_ERR_INVALID_SCANOUT_ID);
        display_info(&mut guest);
    }
}
