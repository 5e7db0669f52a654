//! What Hesper itself says in a window: a message where the guest shows nothing, a notice over its picture for a while, a
//! question in the place of both, and the overlay with the frames' figures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Scanout, State};
use crate::label::{self, Label};

/// How long a notice stays: time to read two lines.
const NOTICE: Duration = Duration::from_secs(8);

/// A text and its image.
struct Text {
    text: String,
    label: Arc<Label>,
}

impl Text {
    fn new(text: &str, scale: f64) -> Text {
        Text {
            text: text.to_owned(),
            label: Arc::new(label::draw(text, scale)),
        }
    }
}

/// See the module.
pub(super) struct Said {
    message: Option<Text>,
    notice: Option<(Text, Instant)>,
    /// Drawn by who asks it, for the window's size.
    question: Option<Text>,
    /// `None`: the overlay is off.
    overlay: Option<Text>,
    /// The overlay's first line: who draws.
    drawn_by: String,
    /// Physical pixels in a logical one.
    scale: f64,
}

impl Default for Said {
    fn default() -> Said {
        Said {
            message: None,
            notice: None,
            question: None,
            overlay: None,
            drawn_by: String::new(),
            scale: 1.0,
        }
    }
}

impl Said {
    pub(super) fn in_the_middle(&self, over_a_picture: bool) -> Option<Arc<Label>> {
        self.middle(over_a_picture).map(|text| text.label.clone())
    }

    fn middle(&self, over_a_picture: bool) -> Option<&Text> {
        let notice = self.notice.as_ref().map(|(notice, _)| notice);
        let said = self.question.as_ref().or(notice);
        said.or(self.message.as_ref().filter(|_| !over_a_picture))
    }

    pub(super) fn in_the_corner(&self) -> Option<Arc<Label>> {
        self.overlay.as_ref().map(|text| text.label.clone())
    }

    /// When the notice goes away.
    pub(super) fn expiry(&self) -> Option<Instant> {
        self.notice.as_ref().map(|(_, until)| *until)
    }

    /// Takes a notice away whose time is over; says whether there was one.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        self.notice.take_if(|(_, until)| *until <= now).is_some()
    }

    fn figures(&mut self, mode: &str, figures: &str) {
        let text = format!("{}\n{mode}\n{figures}", self.drawn_by);
        self.overlay = Some(Text::new(&text, self.scale));
    }
}

impl State {
    /// Sizes of picture and window, for the overlay.
    fn sizes(&self) -> String {
        let (width, height) = self.size;
        match &self.picture {
            Some(picture) => format!(
                "{}×{} in a window of {width}×{height}",
                picture.width(),
                picture.height()
            ),
            None => format!("no picture in a window of {width}×{height}"),
        }
    }
}

impl Scanout {
    /// Changes what is said, and has it drawn.
    fn say(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.dirty = true;
        drop(state);
        self.changed.notify_one();
    }

    /// Says this in the middle of the window while the guest shows no picture; an empty text is none.
    pub(crate) fn set_message(&self, text: &str) {
        self.say(|state| {
            let scale = state.said.scale;
            state.said.message = (!text.is_empty()).then(|| Text::new(text, scale));
        });
    }

    /// What is said in the middle of the window now.
    pub(crate) fn said(&self) -> Option<String> {
        let mut state = self.lock();
        // Where nobody draws, nobody else does this.
        state.said.expire(Instant::now());
        let text = state.said.middle(state.picture.is_some());
        text.map(|text| text.text.clone())
    }

    /// Says this over the guest's picture, for a while.
    pub(crate) fn notice(&self, text: &str) {
        self.say(|state| {
            let text = Text::new(text, state.said.scale);
            state.said.notice = Some((text, Instant::now() + NOTICE));
        });
    }

    /// Asks this in the middle of the window until it is answered.
    pub(crate) fn set_question(&self, question: Option<(String, Arc<Label>)>) {
        self.say(|state| {
            state.said.question = question.map(|(text, label)| Text { text, label });
        });
    }

    /// Text is to be as large as on a screen with so many physical pixels in a logical one.
    pub(crate) fn set_scale(&self, scale: f64) {
        self.say(|state| {
            let said = &mut state.said;
            said.scale = scale;
            let notice = said.notice.as_mut().map(|(notice, _)| notice);
            let texts = [said.message.as_mut(), said.overlay.as_mut(), notice];
            for text in texts.into_iter().flatten() {
                *text = Text::new(&text.text, scale);
            }
        });
    }

    /// What [`Self::set_scale`] has said last. A window of X11 may go on telling an old scale of itself.
    pub(crate) fn scale(&self) -> f64 {
        self.lock().said.scale
    }

    /// Turns the overlay on or off.
    pub(crate) fn toggle_overlay(&self) {
        self.say(|state| {
            if state.said.overlay.take().is_none() {
                let sizes = state.sizes();
                state.said.figures(&sizes, "no frames yet");
            }
        });
    }

    pub(crate) fn has_overlay(&self) -> bool {
        self.lock().said.overlay.is_some()
    }

    /// Who draws the window, for the overlay.
    pub(crate) fn set_drawn_by(&self, name: &str) {
        self.lock().said.drawn_by = name.to_owned();
    }

    /// New figures for the overlay, which the next frame shows: an idle screen needs none for their sake.
    pub(crate) fn set_figures(&self, figures: &str) {
        let mut state = self.lock();
        if state.said.overlay.is_some() {
            let sizes = state.sizes();
            state.said.figures(&sizes, figures);
        }
    }
}
