//! The commands of these tests.

use hesper_mock_frontend::{Machine, PIXELS};
use hesper_vhost::screen::Rect;
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

pub(crate) fn display_info() -> Request {
    Request::bare(wire::CMD_GET_DISPLAY_INFO)
}

/// A 2D resource of format B8G8R8X8.
pub(crate) fn create_2d(id: u32, width: u32, height: u32) -> Request {
    Request::create_2d(id, wire::FORMAT_B8G8R8X8, width, height)
}

fn whole(width: u32, height: u32) -> Rect {
    Rect {
        x: 0,
        y: 0,
        width,
        height,
    }
}

pub(crate) fn set_scanout(scanout: u32, id: u32, width: u32, height: u32) -> Request {
    Request::set_scanout(scanout, id, whole(width, height))
}

pub(crate) fn transfer(id: u32, width: u32, height: u32) -> Request {
    Request::transfer(id, whole(width, height), 0)
}

pub(crate) fn flush(id: u32, x: u32, y: u32, width: u32, height: u32) -> Request {
    let rect = Rect {
        x,
        y,
        width,
        height,
    };
    Request::flush(id, rect)
}

pub(crate) fn update_cursor(id: u32, x: u32, y: u32, hot_x: u32, hot_y: u32) -> Request {
    let body = wire::UpdateCursor {
        scanout_id: 0.into(),
        x: x.into(),
        y: y.into(),
        padding: 0.into(),
        resource_id: id.into(),
        hot_x: hot_x.into(),
        hot_y: hot_y.into(),
        padding_end: 0.into(),
    };
    Request::new(wire::CMD_UPDATE_CURSOR, &body)
}

pub(crate) fn create_context() -> Request {
    Request::create_context(1, 4, "test")
}

/// A mappable host blob.
pub(crate) fn create_blob(id: u32, size: u64) -> Request {
    Request::host_blob(1, id, 0, size)
}

/// Makes a resource of `width` × `height` pixels with memory and shows it on scanout 0.
pub(crate) fn show(machine: &mut Machine, id: u32, width: u32, height: u32) {
    for command in [
        create_2d(id, width, height),
        Request::attach_backing(id, &[(PIXELS, width * height * 4)]),
        set_scanout(0, id, width, height),
        transfer(id, width, height),
    ] {
        machine.ok(&command);
    }
}
