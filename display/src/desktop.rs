//! The guest's desktop: how its monitors lie beside each other, as far as pointers must know.
//!
//! A guest has one tablet for all its monitors, and stretches its axes over all of them: Xorg over its screen, compositors
//! over the rectangle around their outputs (virtio-gpu has nothing that ties a tablet to a monitor). So a place in a window
//! is told as a place on that desktop. [`Desktop::of`] knows its layout as far as the device sees it:
//!
//! - Monitors that show parts of one framebuffer, as Xorg's do, lie where their parts lie in it.
//! - Others lie side by side in the order of their numbers, with their upper edges in a line: what compositors do with
//!   monitors that nobody has arranged. Linux's driver does not pass on what the device suggests.

use crate::MAX_SCANOUTS;
use crate::picture::{BYTES, Picture, Rect};

/// What a monitor of the guest is, for its place on the desktop.
#[derive(Clone, Debug)]
pub(crate) enum MonitorContent {
    /// Nothing: unplugged.
    Unplugged,
    /// No picture, on a monitor of this size.
    Blank((u32, u32)),
    /// This picture.
    Picture(Picture),
}

impl MonitorContent {
    fn picture(&self) -> Option<&Picture> {
        match self {
            Self::Picture(picture) => Some(picture),
            Self::Unplugged | Self::Blank(_) => None,
        }
    }
}

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Desktop {
    places: [Option<Rect>; MAX_SCANOUTS],
    /// Right and lower end; it begins at 0, 0.
    pub(crate) size: (u32, u32),
}

impl Desktop {
    /// The desktop of monitors that show this, in the order of their numbers. Those without a picture count while no other
    /// has one: a guest that sleeps is woken up by its pointer.
    pub(crate) fn of(monitors: &[MonitorContent]) -> Desktop {
        let mut places = [None; MAX_SCANOUTS];
        let pictures = || monitors.iter().filter_map(MonitorContent::picture);
        if let Some(corner) = common_corner(pictures()) {
            for (place, monitor) in places.iter_mut().zip(monitors) {
                *place = monitor.picture().map(|picture| part(picture, corner));
            }
        } else {
            let all_blank = pictures().next().is_none();
            let mut right = 0_u32;
            for (place, monitor) in places.iter_mut().zip(monitors) {
                let (width, height) = match monitor {
                    MonitorContent::Picture(picture) => (picture.width(), picture.height()),
                    MonitorContent::Blank(size) if all_blank => *size,
                    MonitorContent::Blank(_) | MonitorContent::Unplugged => continue,
                };
                *place = Some(Rect {
                    x: right,
                    y: 0,
                    width,
                    height,
                });
                right = right.saturating_add(width);
            }
        }
        let around = places.iter().flatten();
        let around = around.fold(Rect::default(), |around, place| around.union(*place));
        Desktop {
            places,
            size: (around.right(), around.bottom()),
        }
    }

    /// Where monitor `number` is, if it is part of the desktop.
    pub(crate) fn place(&self, number: usize) -> Option<Rect> {
        self.places.get(number).copied().flatten()
    }
}

/// Where a picture begins in its memory, counted as column and row of rows as long as its own.
fn corner(picture: &Picture) -> (u64, u64) {
    let layout = picture.layout();
    // Pictures have no rows without bytes; a division by 0 would be a crash.
    let stride = u64::from(layout.stride.max(1));
    (
        layout.offset % stride / u64::from(BYTES),
        layout.offset / stride,
    )
}

/// The upper left corner of all `pictures` in the one framebuffer they are parts of; `None` when they are not, or are not
/// several.
fn common_corner<'a>(mut pictures: impl Iterator<Item = &'a Picture>) -> Option<(u64, u64)> {
    let first = pictures.next()?;
    let mut common = None;
    for other in pictures {
        let same = std::sync::Arc::ptr_eq(first.memory(), other.memory())
            && first.layout().stride == other.layout().stride;
        if !same {
            return None;
        }
        let (x, y) = common.unwrap_or(corner(first));
        let (other_x, other_y) = corner(other);
        common = Some((other_x.min(x), other_y.min(y)));
    }
    common
}

/// The part of the framebuffer that a picture is, from `corner` on.
fn part(picture: &Picture, (left, top): (u64, u64)) -> Rect {
    let (x, y) = corner(picture);
    let from = |at: u64, start: u64| u32::try_from(at.saturating_sub(start)).unwrap_or(u32::MAX);
    Rect {
        x: from(x, left),
        y: from(y, top),
        width: picture.width(),
        height: picture.height(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::picture::{PictureLayout, PixelFormat, PixelMemory};
    use crate::testing::Pixels;

    fn picture(
        memory: &Arc<dyn PixelMemory>,
        stride: u32,
        at: (u32, u32),
        size: (u32, u32),
    ) -> MonitorContent {
        let layout = PictureLayout {
            offset: u64::from(at.1 * stride + at.0 * BYTES),
            stride,
            width: size.0,
            height: size.1,
            format: PixelFormat::B8G8R8X8,
        };
        MonitorContent::Picture(Picture::new(Arc::clone(memory), layout).unwrap())
    }

    fn alone(size: (u32, u32)) -> MonitorContent {
        let memory: Arc<dyn PixelMemory> = Pixels::zeroed((size.0 * size.1 * BYTES) as usize);
        picture(&memory, size.0 * BYTES, (0, 0), size)
    }

    fn places(desktop: &Desktop) -> Vec<[u32; 4]> {
        let places = desktop.places.iter().flatten();
        places.map(|at| [at.x, at.y, at.width, at.height]).collect()
    }

    #[test]
    fn monitors_with_framebuffers_of_their_own_stand_side_by_side() {
        let desktop = Desktop::of(&[
            alone((64, 40)),
            MonitorContent::Blank((9, 9)),
            alone((32, 50)),
        ]);
        assert_eq!(places(&desktop), [[0, 0, 64, 40], [64, 0, 32, 50]]);
        assert_eq!(desktop.place(1), None);
        assert_eq!(desktop.place(2).map(|place| place.x), Some(64));
        assert_eq!(desktop.place(99), None);
        assert_eq!(desktop.size, (96, 50));
        assert_eq!(Desktop::of(&[alone((7, 5))]).size, (7, 5));
    }

    #[test]
    fn parts_of_one_framebuffer_lie_where_it_has_them() {
        let memory: Arc<dyn PixelMemory> = Pixels::zeroed(100 * 60 * 4);
        // The second monitor left of the first and below it.
        let desktop = Desktop::of(&[
            picture(&memory, 400, (60, 0), (40, 30)),
            picture(&memory, 400, (0, 10), (60, 50)),
        ]);
        assert_eq!(places(&desktop), [[60, 0, 40, 30], [0, 10, 60, 50]]);
        assert_eq!(desktop.size, (100, 60));
        // Mirrored, as the kernel's console does.
        let desktop = Desktop::of(&[
            picture(&memory, 400, (0, 0), (40, 30)),
            picture(&memory, 400, (0, 0), (60, 20)),
        ]);
        assert_eq!(places(&desktop), [[0, 0, 40, 30], [0, 0, 60, 20]]);
        assert_eq!(desktop.size, (60, 30));
        // One of them elsewhere.
        let desktop = Desktop::of(&[
            picture(&memory, 400, (50, 9), (10, 10)),
            picture(&memory, 400, (0, 0), (20, 20)),
            alone((30, 30)),
        ]);
        assert_eq!(
            places(&desktop),
            [[0, 0, 10, 10], [10, 0, 20, 20], [30, 0, 30, 30]]
        );
    }

    #[test]
    fn a_guest_that_shows_nothing_has_the_monitors_it_was_told_of() {
        let desktop = Desktop::of(&[
            MonitorContent::Blank((80, 60)),
            MonitorContent::Unplugged,
            MonitorContent::Blank((20, 90)),
        ]);
        assert_eq!(places(&desktop), [[0, 0, 80, 60], [80, 0, 20, 90]]);
        assert_eq!(desktop.size, (100, 90));
        assert_eq!(Desktop::of(&[]).size, (0, 0));
    }
}
