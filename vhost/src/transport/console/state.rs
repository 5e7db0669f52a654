//! What QEMU's console should show and what QEMU was told already. Changes that come faster than
//! QEMU takes them are merged here: the last size, the last cursor, the union of the damage.

use super::pixels::to_bgra;
use super::wire::{CursorPosition, CursorUpdate, MAX_SCANOUTS};
use crate::screen::{BYTES_PER_PIXEL, CursorImage, FlushToken, Picture, Rect, ScanoutId};

/// The next thing to tell QEMU.
#[derive(Clone)]
pub(super) enum Job {
    /// Resize (or with 0 × 0 turn off) a scanout.
    Size(super::wire::Scanout),
    /// Set the cursor; its pixels are in the staging buffer.
    Cursor(CursorUpdate),
    /// Move the cursor, or hide it.
    Move {
        position: CursorPosition,
        visible: bool,
    },
    /// Send these pixels of a picture.
    Pixels {
        scanout: ScanoutId,
        picture: Picture,
        damage: Rect,
    },
}

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum CursorChange {
    #[default]
    None,
    Position,
    Image,
}

#[derive(Default)]
struct Scanout {
    picture: Option<Picture>,
    /// The size QEMU has; 0 × 0 = off, as at the start.
    told: (u32, u32),
    damage: Option<Rect>,
    tokens: Vec<FlushToken>,
    cursor: Option<CursorImage>,
    cursor_visible: bool,
    cursor_at: (u32, u32),
    cursor_change: CursorChange,
}

/// All scanouts; see the module.
#[derive(Default)]
pub(super) struct Scanouts {
    scanouts: [Scanout; MAX_SCANOUTS],
    /// The scanout whose pixels were sent last, so that a busy one does not starve another.
    turn: usize,
}

impl Scanouts {
    fn get(&mut self, scanout: ScanoutId) -> Option<&mut Scanout> {
        self.scanouts.get_mut(usize::try_from(scanout).ok()?)
    }

    pub(super) fn set_picture(&mut self, scanout: ScanoutId, picture: Option<&Picture>) {
        if let Some(scanout) = self.get(scanout) {
            scanout.picture = picture.cloned();
            // The damage belongs to the previous picture. The new one comes with a flush.
            scanout.damage = None;
        }
    }

    /// Returns false when there is nothing to send, so nothing to wait for.
    pub(super) fn add_damage(
        &mut self,
        scanout: ScanoutId,
        damage: Rect,
        token: Option<FlushToken>,
    ) -> bool {
        let Some(scanout) = self.get(scanout) else {
            return false;
        };
        let Some(damage) = scanout
            .picture
            .as_ref()
            .and_then(|picture| clip(damage, picture))
        else {
            return false;
        };
        scanout.damage = Some(match scanout.damage {
            Some(former) => union(former, damage),
            None => damage,
        });
        scanout.tokens.extend(token);
        true
    }

    pub(super) fn set_cursor(
        &mut self,
        scanout: ScanoutId,
        cursor: Option<&CursorImage>,
        x: u32,
        y: u32,
    ) {
        let Some(scanout) = self.get(scanout) else {
            return;
        };
        scanout.cursor_at = (x, y);
        scanout.cursor_visible = cursor.is_some();
        scanout.cursor_change = match (&mut scanout.cursor, cursor) {
            (_, None) => CursorChange::Position,
            (Some(own), Some(new)) => {
                // The existing buffer is used: pointers change shape often.
                *own.pixels = *new.pixels;
                (own.format, own.hot_x, own.hot_y) = (new.format, new.hot_x, new.hot_y);
                CursorChange::Image
            }
            (own @ None, Some(new)) => {
                *own = Some(new.clone());
                CursorChange::Image
            }
        };
    }

    pub(super) fn move_cursor(&mut self, scanout: ScanoutId, x: u32, y: u32) {
        if let Some(scanout) = self.get(scanout) {
            scanout.cursor_at = (x, y);
            scanout.cursor_change = scanout.cursor_change.max(CursorChange::Position);
        }
    }

    /// Notes that QEMU must be told everything again.
    pub(super) fn forget_told(&mut self) {
        for scanout in &mut self.scanouts {
            scanout.told = (0, 0);
            scanout.damage = scanout.picture.as_ref().and_then(|picture| {
                let all = Rect {
                    x: 0,
                    y: 0,
                    width: picture.width,
                    height: picture.height,
                };
                clip(all, picture)
            });
            if scanout.cursor_visible {
                scanout.cursor_change = CursorChange::Image;
            }
        }
    }

    /// Moves the tokens of all flushes to `into`: nobody needs the pixels any more.
    pub(super) fn take_tokens(&mut self, into: &mut Vec<FlushToken>) {
        for scanout in &mut self.scanouts {
            into.append(&mut scanout.tokens);
        }
    }

    /// The next thing to tell QEMU: sizes before cursors before pixels. Cursor pixels go to
    /// `staging`, and the tokens of the flushes that the job completes go to `tokens`.
    pub(super) fn next_job(
        &mut self,
        staging: &mut Vec<u8>,
        tokens: &mut Vec<FlushToken>,
    ) -> Option<Job> {
        for (index, scanout) in (0..).zip(&mut self.scanouts) {
            let wanted = scanout
                .picture
                .as_ref()
                .map_or((0, 0), |picture| (picture.width, picture.height));
            if wanted != scanout.told {
                scanout.told = wanted;
                return Some(Job::Size(super::wire::Scanout {
                    scanout: index,
                    width: wanted.0,
                    height: wanted.1,
                }));
            }
            let position = CursorPosition {
                scanout: index,
                x: scanout.cursor_at.0,
                y: scanout.cursor_at.1,
            };
            match (std::mem::take(&mut scanout.cursor_change), &scanout.cursor) {
                (CursorChange::None, _) => {}
                (CursorChange::Image, Some(cursor)) => {
                    staging.clear();
                    staging.extend_from_slice(&*cursor.pixels);
                    to_bgra(cursor.format, staging);
                    return Some(Job::Cursor(CursorUpdate {
                        position,
                        hot_x: cursor.hot_x,
                        hot_y: cursor.hot_y,
                    }));
                }
                (CursorChange::Position | CursorChange::Image, _) => {
                    return Some(Job::Move {
                        position,
                        visible: scanout.cursor_visible,
                    });
                }
            }
        }
        for _ in 0..MAX_SCANOUTS {
            self.turn = (self.turn + 1) % MAX_SCANOUTS;
            let Some(scanout) = self.scanouts.get_mut(self.turn) else {
                continue;
            };
            if let (Some(damage), Some(picture)) = (scanout.damage.take(), &scanout.picture) {
                tokens.append(&mut scanout.tokens);
                return Some(Job::Pixels {
                    // Below MAX_SCANOUTS.
                    scanout: u32::try_from(self.turn).unwrap_or(u32::MAX),
                    picture: picture.clone(),
                    damage,
                });
            }
            // Flushes of a picture that was replaced or turned off before its pixels were sent.
            tokens.append(&mut scanout.tokens);
        }
        None
    }
}

/// Reads `damage` of a picture into `staging`, converted, in rows without padding.
pub(super) fn copy_pixels(picture: &Picture, damage: Rect, staging: &mut Vec<u8>) {
    let row = damage.width as usize * BYTES_PER_PIXEL as usize;
    staging.resize(row * damage.height as usize, 0);
    if row == 0 {
        return;
    }
    let left = u64::from(damage.x) * u64::from(BYTES_PER_PIXEL);
    for (y, into) in (u64::from(damage.y)..).zip(staging.chunks_exact_mut(row)) {
        let offset = picture
            .offset
            .saturating_add(y * u64::from(picture.stride))
            .saturating_add(left);
        // An offset past the end reads as zeros.
        picture
            .memory
            .read(usize::try_from(offset).unwrap_or(usize::MAX), into);
        to_bgra(picture.format, into);
    }
}

fn clip(rect: Rect, picture: &Picture) -> Option<Rect> {
    let clipped = Rect {
        width: rect.width.min(picture.width.checked_sub(rect.x)?),
        height: rect.height.min(picture.height.checked_sub(rect.y)?),
        ..rect
    };
    (clipped.width > 0 && clipped.height > 0).then_some(clipped)
}

/// The smallest rectangle around both. Both are clipped to a picture, so their sums cannot
/// overflow.
fn union(a: Rect, b: Rect) -> Rect {
    let x = a.x.min(b.x);
    let y = a.y.min(b.y);
    Rect {
        x,
        y,
        width: (a.x + a.width).max(b.x + b.width) - x,
        height: (a.y + a.height).max(b.y + b.height) - y,
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
