//! The monitors: `GET_DISPLAY_INFO`, `GET_EDID`.

use zerocopy::{FromZeros, IntoBytes};

use crate::edid;
use crate::engine::{Call, Progress};
use crate::error::CommandError;
use crate::response::Response;
use crate::screen::{Monitor, Rect};
use crate::wire::{self, DisplayOne, EDID_SPACE, EdidSize};

/// The current monitors: the screen's, if the screen decides about them.
fn monitors(call: &Call<'_>) -> Result<Vec<Monitor>, CommandError> {
    match call.engine.screen.monitors() {
        Some(monitors) => Ok(monitors),
        None => Ok(call.state()?.monitors.clone()),
    }
}

pub(super) fn get_display_info(call: &Call<'_>) -> Result<Progress, CommandError> {
    let monitors = monitors(call)?;
    let mut modes = [DisplayOne::new_zeroed(); wire::MAX_SCANOUTS as usize];
    let scanouts = call.engine.scanouts() as usize;
    // Side by side, from left to right.
    let mut x = 0_u32;
    let mut connected: Vec<_> = modes
        .iter_mut()
        .zip(&monitors)
        .take(scanouts)
        .filter(|(_, monitor)| monitor.connected)
        .collect();
    connected.sort_by_key(|(_, monitor)| monitor.place);
    for (mode, monitor) in connected {
        mode.rect = Rect {
            x,
            y: 0,
            width: monitor.width,
            height: monitor.height,
        }
        .into();
        mode.enabled = 1.into();
        x = x.saturating_add(monitor.width);
    }
    Ok(Progress::Answer(Response {
        kind: wire::RESP_OK_DISPLAY_INFO,
        body: modes.as_bytes().to_vec(),
    }))
}

pub(super) fn get_edid(call: &Call<'_>, get: &wire::GetEdid) -> Result<Progress, CommandError> {
    let scanout = get.scanout_id.get();
    call.engine.check_scanout(scanout)?;
    let mut edid = match call.engine.screen.edid(scanout) {
        Some(edid) => edid,
        None => {
            let monitors = monitors(call)?;
            let monitor = monitors
                .get(scanout as usize)
                .ok_or(CommandError::NoScanout {
                    id: scanout,
                    count: monitors.len() as u32,
                })?;
            edid::describe(monitor, scanout)
        }
    };
    if edid.len() > EDID_SPACE {
        call.engine.log_limit.log(
            log::Level::Warn,
            format_args!(
                "the screen's EDID has {} bytes, virtio-gpu has room for {EDID_SPACE}: the rest is cut",
                edid.len()
            ),
        );
        edid.truncate(EDID_SPACE);
    }
    let size = EdidSize {
        size: (edid.len() as u32).into(),
        padding: 0.into(),
    };
    edid.resize(EDID_SPACE, 0);
    let mut body = size.as_bytes().to_vec();
    body.append(&mut edid);
    Ok(Progress::Answer(Response {
        kind: wire::RESP_OK_EDID,
        body,
    }))
}
