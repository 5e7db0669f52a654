//! The dialog that a window shows when the user closes it while a VM uses it: hide the window, end
//! Hesper, or cancel.
//!
//! The event loop makes a [`CloseDialog`], passes key and pointer input to it, and shows its
//! [`label`](CloseDialog::label) in the middle of the window. A method that returns a [`Choice`]
//! returns the user's answer. The label is laid out for the window's size: its text is wrapped to
//! fit, and shortened where it does not fit.

use std::sync::Arc;

use winit::keyboard::{Key, KeyCode, ModifiersState, NamedKey, PhysicalKey};

use crate::label::{self, CHARACTER, Label, MARGIN};
use crate::layout;

/// An answer of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Hide the windows; the VM goes on.
    Hide,
    /// End Hesper.
    Quit,
    /// Continue as before.
    Cancel,
}

impl Choice {
    const ALL: [Choice; 3] = [Choice::Hide, Choice::Quit, Choice::Cancel];

    /// The choice `steps` below this one; after the last comes the first.
    fn moved(self, steps: usize) -> Choice {
        let mut all = Self::ALL.into_iter().cycle();
        all.find(|choice| *choice == self);
        all.nth(steps.wrapping_sub(1) % Self::ALL.len())
            .unwrap_or(self)
    }
}

/// Steps down to the choice above.
const UP: usize = Choice::ALL.len() - 1;

/// The longest line in characters, so that it is easy to read.
const MOST_COLUMNS: u32 = 60;
/// The shortest limit of a line. A smaller window shows only a part of the dialog.
const LEAST_COLUMNS: u32 = 12;
/// Columns for the name of a key, before the description of its choice.
const KEY_COLUMNS: usize = 5;

/// The dialog as it is drawn for a window of some size.
struct Page {
    /// The lines, each with the choice to which it belongs.
    lines: Vec<(String, Option<Choice>)>,
    /// The width and height of a pixel of the font, in pixels of the window.
    scale: u32,
}

impl Page {
    /// The longest and largest text that fits a window of `size` pixels. It is not larger than
    /// `scale` asks for.
    fn fitting(show_hint: &str, several: bool, size: (u32, u32), scale: f64) -> Page {
        let page = |scale: u32, whole: bool| {
            let columns = (size.0 / scale).saturating_sub(2 * MARGIN) / CHARACTER.0;
            let columns = columns.clamp(LEAST_COLUMNS, MOST_COLUMNS) as usize;
            let lines = lines(show_hint, several, columns, whole);
            Page { lines, scale }
        };
        let fits = |page: &Page| {
            let (width, height) = page.size();
            width <= size.0 && height <= size.1
        };
        let scales = (1..=label::integer_scale(scale)).rev();
        let mut pages = scales.flat_map(|scale| [page(scale, true), page(scale, false)]);
        pages.find(fits).unwrap_or_else(|| page(1, false))
    }

    fn size(&self) -> (u32, u32) {
        let longest = self.lines.iter().map(|(text, _)| text.chars().count());
        let longest = longest.max().unwrap_or(0) as u32;
        (
            (longest * CHARACTER.0 + 2 * MARGIN) * self.scale,
            (self.lines.len() as u32 * CHARACTER.1 + 2 * MARGIN) * self.scale,
        )
    }

    fn draw(&self, highlighted: Choice) -> Label {
        let lines: Vec<(&str, bool)> = self
            .lines
            .iter()
            .map(|(text, choice)| (text.as_str(), *choice == Some(highlighted)))
            .collect();
        label::draw_framed(&lines, self.scale)
    }

    /// The choice at a position on the drawn page.
    fn at(&self, (x, y): (f64, f64)) -> Option<Choice> {
        let (width, _) = self.size();
        let inside = (0.0..f64::from(width)).contains(&x);
        let row = (y / f64::from(self.scale) - f64::from(MARGIN)) / f64::from(CHARACTER.1);
        // The cast of a number that is not negative cuts off the fraction, and saturates.
        let line = self.lines.get(row as usize);
        line.filter(|_| inside && row >= 0.0)?.1
    }
}

/// The text in lines of at most `columns` characters. Without `whole` it has only the most
/// important lines.
fn lines(
    show_hint: &str,
    several: bool,
    columns: usize,
    whole: bool,
) -> Vec<(String, Option<Choice>)> {
    let mut lines = Vec::new();
    let mut say = |key: &str, text: &str, choice: Option<Choice>| {
        let indent = if choice.is_some() { KEY_COLUMNS } else { 0 };
        let parts = label::wrapped(text, columns.saturating_sub(indent));
        for (index, part) in parts.into_iter().enumerate() {
            let key = if index == 0 { key } else { "" };
            lines.push((format!("{key:indent$}{part}"), choice));
        }
    };
    say("", "A VM is using this window.", None);
    if whole {
        say("", "", None);
    }
    let hide = if several {
        "Hide the windows. The VM goes on."
    } else {
        "Hide the window. The VM goes on."
    };
    say("H", hide, Some(Choice::Hide));
    if whole {
        let text = format!("To show it again: {show_hint}");
        say("", &text, Some(Choice::Hide));
    }
    let quit = "End Hesper. The VM loses its GPU: shut it down first.";
    say("Q", quit, Some(Choice::Quit));
    say("Esc", "Cancel", Some(Choice::Cancel));
    lines
}

/// The dialog of one window, and what the user does in it.
pub(crate) struct CloseDialog {
    /// What the user can do to show hidden windows again.
    show_hint: String,
    /// There is more than one window.
    several: bool,
    /// The window's size in pixels.
    size: (u32, u32),
    /// The choice that Enter answers.
    highlighted: Choice,
    /// The choice on which the button was pressed and not yet released.
    pressed: Option<Choice>,
    /// The key that is down, and its answer.
    key: Option<(PhysicalKey, Choice)>,
    page: Page,
    label: Arc<Label>,
}

impl CloseDialog {
    /// For a window of `size` pixels; `scale` of them make a logical pixel.
    pub(crate) fn new(show_hint: &str, several: bool, size: (u32, u32), scale: f64) -> CloseDialog {
        let page = Page::fitting(show_hint, several, size, scale);
        // Enter must do no harm.
        let highlighted = Choice::Hide;
        let label = Arc::new(page.draw(highlighted));
        CloseDialog {
            show_hint: show_hint.to_owned(),
            several,
            size,
            highlighted,
            pressed: None,
            key: None,
            page,
            label,
        }
    }

    /// The window has another size or scale.
    pub(crate) fn fit(&mut self, size: (u32, u32), scale: f64) {
        self.size = size;
        self.page = Page::fitting(&self.show_hint, self.several, size, scale);
        self.pressed = None;
        self.label = Arc::new(self.page.draw(self.highlighted));
    }

    /// The image for the middle of the window.
    pub(crate) fn label(&self) -> &Arc<Label> {
        &self.label
    }

    /// The text of the image.
    pub(crate) fn text(&self) -> String {
        let lines: Vec<&str> = self.page.lines.iter().map(|line| line.0.as_str()).collect();
        lines.join("\n")
    }

    fn highlight(&mut self, choice: Choice) {
        if self.highlighted != choice {
            self.highlighted = choice;
            self.label = Arc::new(self.page.draw(choice));
        }
    }

    /// A key was pressed while the modifiers `held` were down. It answers when it is released
    /// ([`Self::release_key`]). If the window closed before that, winit would take the key to be
    /// down for ever, and its next press for a repeat.
    pub(crate) fn press_key(&mut self, key: &Key, place: PhysicalKey, held: ModifiersState) {
        let choice = self.meant(key, place, held);
        self.key = choice.map(|choice| (place, choice));
        if let Some(choice) = choice {
            self.highlight(choice);
        }
    }

    /// The answer of a key. A letter counts by what is printed on the key. On keyboards with other
    /// letters it counts by its position.
    fn meant(&mut self, key: &Key, place: PhysicalKey, held: ModifiersState) -> Option<Choice> {
        // Ctrl+Q and the like are not meant for the dialog.
        let others = ModifiersState::CONTROL | ModifiersState::ALT | ModifiersState::SUPER;
        if held.intersects(others) {
            return None;
        }
        let steps = match (key, place) {
            (Key::Named(NamedKey::Escape), _) => return Some(Choice::Cancel),
            (Key::Named(NamedKey::Enter), _) => return Some(self.highlighted),
            (Key::Named(NamedKey::Tab), _) if held.contains(ModifiersState::SHIFT) => UP,
            (Key::Named(NamedKey::ArrowUp | NamedKey::ArrowLeft), _) => UP,
            (Key::Named(NamedKey::Tab | NamedKey::ArrowDown | NamedKey::ArrowRight), _) => 1,
            (Key::Character(letter), place) => {
                return match (letter.as_str(), place) {
                    ("h" | "H", _) => Some(Choice::Hide),
                    ("q" | "Q", _) => Some(Choice::Quit),
                    (letter, _) if letter.is_ascii() => None,
                    (_, PhysicalKey::Code(KeyCode::KeyH)) => Some(Choice::Hide),
                    (_, PhysicalKey::Code(KeyCode::KeyQ)) => Some(Choice::Quit),
                    _ => None,
                };
            }
            _ => return None,
        };
        self.highlight(self.highlighted.moved(steps));
        None
    }

    /// A key was released. It answers if it was pressed for an answer, and no other key since.
    pub(crate) fn release_key(&mut self, place: PhysicalKey) -> Option<Choice> {
        let pressed = self.key.take_if(|(key, _)| *key == place);
        pressed.map(|(_, choice)| choice)
    }

    /// The window lost the keyboard: a key that is released now is released elsewhere.
    pub(crate) fn release_all(&mut self) {
        (self.key, self.pressed) = (None, None);
    }

    /// The choice at a position in the window.
    fn at(&self, (x, y): (f64, f64)) -> Option<Choice> {
        let (left, top) = layout::label_at(&self.label, self.size, true);
        self.page.at((x - f64::from(left), y - f64::from(top)))
    }

    /// The pointer is at this position in the window.
    pub(crate) fn point(&mut self, at: (f64, f64)) {
        if let Some(choice) = self.at(at) {
            self.highlight(choice);
        }
    }

    /// The button was pressed at this position, or a finger touched it.
    pub(crate) fn press(&mut self, at: (f64, f64)) {
        self.point(at);
        self.pressed = self.at(at);
    }

    /// The button or finger was lifted. It answers if it was pressed on the same choice.
    pub(crate) fn release(&mut self, at: (f64, f64)) -> Option<Choice> {
        let pressed = self.pressed.take();
        pressed.filter(|choice| self.at(at) == Some(*choice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOW: &str = "hesper ctl /run/user/1000/hesper/control.sock show";

    fn asked(size: (u32, u32), scale: f64) -> CloseDialog {
        CloseDialog::new(SHOW, false, size, scale)
    }

    const NONE: ModifiersState = ModifiersState::empty();

    fn typed(question: &mut CloseDialog, key: Key, place: KeyCode) -> Option<Choice> {
        let place = PhysicalKey::Code(place);
        question.press_key(&key, place, NONE);
        question.release_key(place)
    }

    fn letter(question: &mut CloseDialog, letter: &str, place: KeyCode) -> Option<Choice> {
        typed(question, Key::Character(letter.into()), place)
    }

    fn named(question: &mut CloseDialog, key: NamedKey) -> Option<Choice> {
        typed(question, Key::Named(key), KeyCode::F35)
    }

    #[test]
    fn all_of_it_fits_the_smallest_window_and_large_pixels_get_large_letters() {
        let small = asked((320, 200), 1.0);
        assert_eq!(
            small.text(),
            "A VM is using this window.\n\
             \n\
             H    Hide the window. The VM goes\n     \
                  on.\n     \
                  To show it again: hesper ctl\n     \
                  /run/user/1000/hesper/contro\n     \
                  l.sock show\n\
             Q    End Hesper. The VM loses its\n     \
                  GPU: shut it down first.\n\
             Esc  Cancel"
        );
        assert_eq!((small.label().width, small.label().height), (315, 198));
        let large = asked((640, 400), 2.0);
        assert_eq!(large.text(), small.text());
        assert_eq!((large.label().width, large.label().height), (630, 396));
        // There is no room for letters as large as the screen's scale asks for.
        let dense = asked((320, 200), 2.0);
        assert_eq!((dense.label().width, dense.label().height), (315, 198));
        let wide = asked((1280, 800), 1.0);
        assert_eq!(wide.text().lines().count(), 7, "{}", wide.text());
    }

    #[test]
    fn a_window_that_is_too_low_gets_the_choices_alone_and_a_tiny_one_a_part() {
        let low = asked((640, 140), 1.0);
        assert_eq!(
            low.text(),
            "A VM is using this window.\n\
             H    Hide the window. The VM goes on.\n\
             Q    End Hesper. The VM loses its GPU: shut it down first.\n\
             Esc  Cancel"
        );
        let endless = "x".repeat(5000);
        for size in [(0, 0), (1, 1), (64, 64), (64, 16384), (320, 200)] {
            let mut question = CloseDialog::new(&endless, true, size, f64::NAN);
            assert!(question.label().width <= 60 * 9 + 18, "{size:?}");
            assert_eq!(named(&mut question, NamedKey::Escape), Some(Choice::Cancel));
            question.fit((16384, 16384), f64::INFINITY);
            assert!(question.label().width <= (60 * 9 + 18) * 4);
        }
    }

    #[test]
    fn letters_answer_by_what_is_printed_on_the_key_and_elsewhere_by_its_place() {
        let mut question = asked((640, 400), 1.0);
        for (text, place, answer) in [
            ("h", KeyCode::KeyH, Some(Choice::Hide)),
            ("Q", KeyCode::KeyQ, Some(Choice::Quit)),
            // A French keyboard has A where others have Q.
            ("q", KeyCode::KeyA, Some(Choice::Quit)),
            ("a", KeyCode::KeyQ, None),
            // A Russian one has neither letter.
            ("й", KeyCode::KeyQ, Some(Choice::Quit)),
            ("р", KeyCode::KeyH, Some(Choice::Hide)),
            ("ф", KeyCode::KeyA, None),
        ] {
            assert_eq!(letter(&mut question, text, place), answer, "{text}");
        }
        for held in [
            ModifiersState::CONTROL,
            ModifiersState::ALT | ModifiersState::SHIFT,
            ModifiersState::SUPER,
        ] {
            for key in [Key::Character("q".into()), Key::Named(NamedKey::Enter)] {
                let place = PhysicalKey::Code(KeyCode::KeyQ);
                question.press_key(&key, place, held);
                assert_eq!(question.release_key(place), None, "{held:?}");
            }
        }
    }

    #[test]
    fn enter_answers_what_tab_and_arrows_have_highlighted() {
        let mut question = asked((640, 400), 1.0);
        assert_eq!(
            named(&mut question, NamedKey::Enter),
            Some(Choice::Hide),
            "at first what does no harm"
        );
        for (key, then) in [
            (NamedKey::Tab, Choice::Quit),
            (NamedKey::ArrowDown, Choice::Cancel),
            (NamedKey::ArrowRight, Choice::Hide),
            (NamedKey::ArrowUp, Choice::Cancel),
            (NamedKey::ArrowLeft, Choice::Quit),
        ] {
            let before = Arc::clone(question.label());
            assert_eq!(named(&mut question, key), None);
            assert_ne!(*before, **question.label(), "the picture changes");
            assert_eq!(named(&mut question, NamedKey::Enter), Some(then), "{key:?}");
        }
        let place = PhysicalKey::Code(KeyCode::Tab);
        question.press_key(&Key::Named(NamedKey::Tab), place, ModifiersState::SHIFT);
        assert_eq!(question.release_key(place), None);
        assert_eq!(named(&mut question, NamedKey::Enter), Some(Choice::Hide));
    }

    #[test]
    fn a_key_answers_when_it_is_released_and_none_came_between() {
        let mut question = asked((640, 400), 1.0);
        let (q, x) = (
            PhysicalKey::Code(KeyCode::KeyQ),
            PhysicalKey::Code(KeyCode::KeyX),
        );
        assert_eq!(question.release_key(q), None, "down before it was asked");
        question.press_key(&Key::Character("q".into()), q, NONE);
        assert_eq!(question.highlighted, Choice::Quit, "seen while it is down");
        assert_eq!(question.release_key(x), None);
        assert_eq!(question.release_key(q), Some(Choice::Quit));
        assert_eq!(question.release_key(q), None);
        question.press_key(&Key::Character("q".into()), q, NONE);
        question.press_key(&Key::Character("x".into()), x, NONE);
        assert_eq!(question.release_key(q), None, "another key is down");
        question.press_key(&Key::Character("q".into()), q, NONE);
        question.release_all();
        assert_eq!(question.release_key(q), None, "let go elsewhere");
    }

    #[test]
    fn a_click_answers_where_it_began_and_ended() {
        for scale in [1.0, 2.0] {
            let size = (640 * scale as u32, 400 * scale as u32);
            let mut question = asked(size, scale);
            let (left, top) = layout::label_at(question.label(), size, true);
            let row = |row: u32| {
                let y = f64::from(MARGIN + row * CHARACTER.1) + 3.0;
                (
                    f64::from(left) + 40.0,
                    f64::from(top) + y * f64::from(scale as u32),
                )
            };
            let rows: Vec<_> = question.page.lines.iter().map(|line| line.1).collect();
            for (number, choice) in (0u32..).zip(&rows) {
                question.press(row(number));
                assert_eq!(question.release(row(number)), *choice, "row {number}");
                if let Some(choice) = choice {
                    assert_eq!(question.highlighted, *choice);
                }
            }
            let last = rows.len() as u32 - 1;
            question.press(row(last));
            assert_eq!(question.release(row(last - 1)), None, "dragged elsewhere");
            assert_eq!(question.release(row(last)), None, "not pressed");
            for outside in [(0.0, 0.0), (-5.0, 1e9), (f64::NAN, f64::NAN)] {
                question.press(outside);
                assert_eq!(question.release(outside), None);
            }
            question.press(row(last));
            question.fit(size, scale);
            assert_eq!(
                question.release(row(last)),
                None,
                "something else is there now"
            );
        }
    }
}
