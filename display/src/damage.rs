//! The parts of a picture that have changed since they were last copied.
//!
//! A guest may flush any number of rectangles between two frames. A few are kept apart, so that a
//! blinking text cursor and a clock in opposite corners do not become the whole screen. More are
//! merged, so that the set never allocates and never grows.

use crate::picture::Rect;

/// How many rectangles are kept apart. Each becomes one copy command; a desktop's typical frame
/// has one to four.
const KEPT_APART: usize = 8;

/// A set of changed rectangles, all inside the picture.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Damage {
    rects: [Rect; KEPT_APART],
    len: usize,
}

impl Damage {
    /// The rectangles; they may overlap.
    pub(crate) fn rects(&self) -> &[Rect] {
        self.rects.get(..self.len).unwrap_or_default()
    }

    /// Adds a rectangle that has already been clipped to the picture.
    pub(crate) fn add(&mut self, rect: Rect) {
        if rect.is_empty() || self.rects().iter().any(|kept| kept.contains(rect)) {
            return;
        }
        if let Some(free) = self.rects.get_mut(self.len) {
            *free = rect;
            self.len += 1;
        } else {
            let all = self.rects().iter().fold(rect, |all, kept| all.union(*kept));
            self.set(all);
        }
    }

    /// Replaces the set by one rectangle.
    pub(crate) fn set(&mut self, rect: Rect) {
        *self = Damage::default();
        self.add(rect);
    }

    /// Adds all of `other`.
    pub(crate) fn merge(&mut self, other: &Damage) {
        for rect in other.rects() {
            self.add(*rect);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn distant_rectangles_stay_apart_and_contained_ones_vanish() {
        let mut damage = Damage::default();
        damage.add(rect(0, 0, 10, 10));
        damage.add(rect(500, 500, 10, 10));
        damage.add(rect(2, 2, 3, 3));
        damage.add(rect(7, 7, 0, 9));
        assert_eq!(damage.rects(), [rect(0, 0, 10, 10), rect(500, 500, 10, 10)]);
    }

    #[test]
    fn any_number_of_rectangles_is_covered_by_a_bounded_set() {
        let mut damage = Damage::default();
        let all: Vec<Rect> = (0..1000)
            .map(|i| rect(i % 37 * 11, i % 91 * 7, 5, 3))
            .collect();
        for one in &all {
            damage.add(*one);
        }
        assert!(damage.rects().len() <= KEPT_APART);
        for one in &all {
            assert!(
                damage.rects().iter().any(|kept| kept.contains(*one)),
                "{one:?} is lost"
            );
        }
    }
}
