//! The guest's desktop: how its monitors lie beside each other, as far as pointers must know.
//!
//! A guest has one tablet for all its monitors and stretches the tablet's axes over all of them.
//! Xorg stretches them over its screen, compositors over the rectangle around their outputs.
//! (virtio-gpu has nothing that ties a tablet to a monitor.) A position in a window is therefore
//! sent as a position on the whole desktop. [`Desktop::of`] works out its layout as far as the
//! device can see it:
//!
//! - Monitors that show parts of one framebuffer, as Xorg's do, lie where their parts lie in it.
//! - Other monitors lie side by side in the order of their numbers, with their upper edges aligned.
//!   Compositors place monitors so until a user arranges them: Linux's driver does not pass on the
//!   positions that the device suggests.

use crate::MAX_SCANOUTS;
use crate::picture::{BYTES, Picture, Rect};

/// What a monitor shows, for its place on the desktop.
#[derive(Clone, Debug)]
pub(crate) enum MonitorContent {
    /// Nothing: it is unplugged.
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

/// The monitors' rectangles on the guest's desktop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Desktop {
    monitors: [Option<Rect>; MAX_SCANOUTS],
    /// Width and height: the right and lower edge. The desktop begins at 0, 0.
    pub(crate) size: (u32, u32),
}

impl Desktop {
    /// The desktop of monitors with this content, in the order of their numbers. Monitors without a
    /// picture count only while no monitor has one: then the pointer must be able to wake up a
    /// guest that sleeps.
    pub(crate) fn of(monitors: &[MonitorContent]) -> Desktop {
        let mut rectangles = [None; MAX_SCANOUTS];
        let pictures = || monitors.iter().filter_map(MonitorContent::picture);
        if let Some(corner) = common_corner(pictures()) {
            for (rectangle, monitor) in rectangles.iter_mut().zip(monitors) {
                *rectangle = monitor.picture().map(|picture| part(picture, corner));
            }
        } else {
            let all_blank = pictures().next().is_none();
            let mut right = 0_u32;
            for (rectangle, monitor) in rectangles.iter_mut().zip(monitors) {
                let (width, height) = match monitor {
                    MonitorContent::Picture(picture) => (picture.width(), picture.height()),
                    MonitorContent::Blank(size) if all_blank => *size,
                    MonitorContent::Blank(_) | MonitorContent::Unplugged => continue,
                };
                *rectangle = Some(Rect {
                    x: right,
                    y: 0,
                    width,
                    height,
                });
                right = right.saturating_add(width);
            }
        }
        let around = rectangles.iter().flatten();
        let around = around.fold(Rect::default(), |around, rectangle| {
            around.union(*rectangle)
        });
        Desktop {
            monitors: rectangles,
            size: (around.right(), around.bottom()),
        }
    }

    /// The rectangle of monitor `number`, if it is part of the desktop.
    pub(crate) fn monitor(&self, number: usize) -> Option<Rect> {
        self.monitors.get(number).copied().flatten()
    }
}

/// The column and row where a picture begins in its memory, counted in rows of its own length.
fn corner(picture: &Picture) -> (u64, u64) {
    let layout = picture.layout();
    // A picture's stride is never 0; this makes sure that it cannot divide by 0.
    let stride = u64::from(layout.stride.max(1));
    (
        layout.offset % stride / u64::from(BYTES),
        layout.offset / stride,
    )
}

/// The upper left corner of all `pictures` in the framebuffer of which they are parts. `None` when
/// they are not parts of one framebuffer, or are not several.
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

/// The part of the framebuffer that a picture shows, counted from `corner`.
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

    fn rectangles(desktop: &Desktop) -> Vec<[u32; 4]> {
        let rectangles = desktop.monitors.iter().flatten();
        rectangles
            .map(|at| [at.x, at.y, at.width, at.height])
            .collect()
    }

    #[test]
    fn monitors_with_framebuffers_of_their_own_stand_side_by_side() {
        let desktop = Desktop::of(&[
            alone((64, 40)),
            MonitorContent::Blank((9, 9)),
            alone((32, 50)),
        ]);
        assert_eq!(rectangles(&desktop), [[0, 0, 64, 40], [64, 0, 32, 50]]);
        assert_eq!(desktop.monitor(1), None);
        assert_eq!(desktop.monitor(2).map(|rectangle| rectangle.x), Some(64));
        assert_eq!(desktop.monitor(99), None);
        assert_eq!(desktop.size, (96, 50));
        assert_eq!(Desktop::of(&[alone((7, 5))]).size, (7, 5));
    }

    #[test]
    fn parts_of_one_framebuffer_lie_where_it_has_them() {
        let memory: Arc<dyn PixelMemory> = Pixels::zeroed(100 * 60 * 4);
        // The second monitor is left of the first and below it.
        let desktop = Desktop::of(&[
            picture(&memory, 400, (60, 0), (40, 30)),
            picture(&memory, 400, (0, 10), (60, 50)),
        ]);
        assert_eq!(rectangles(&desktop), [[60, 0, 40, 30], [0, 10, 60, 50]]);
        assert_eq!(desktop.size, (100, 60));
        // Mirrored, as the kernel's console does.
        let desktop = Desktop::of(&[
            picture(&memory, 400, (0, 0), (40, 30)),
            picture(&memory, 400, (0, 0), (60, 20)),
        ]);
        assert_eq!(rectangles(&desktop), [[0, 0, 40, 30], [0, 0, 60, 20]]);
        assert_eq!(desktop.size, (60, 30));
        // One of them has its own framebuffer.
        let desktop = Desktop::of(&[
            picture(&memory, 400, (50, 9), (10, 10)),
            picture(&memory, 400, (0, 0), (20, 20)),
            alone((30, 30)),
        ]);
        assert_eq!(
            rectangles(&desktop),
            [[0, 0, 10, 10], [10, 0, 20, 20], [30, 0, 30, 30]]
        );
    }

    #[test]
    fn a_guest_that_shows_nothing_has_the_monitors_that_were_reported() {
        let desktop = Desktop::of(&[
            MonitorContent::Blank((80, 60)),
            MonitorContent::Unplugged,
            MonitorContent::Blank((20, 90)),
        ]);
        assert_eq!(rectangles(&desktop), [[0, 0, 80, 60], [80, 0, 20, 90]]);
        assert_eq!(desktop.size, (100, 90));
        assert_eq!(Desktop::of(&[]).size, (0, 0));
    }
}
