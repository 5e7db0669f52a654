//! The on-screen display (OSD): texts that Hesper shows in a window.
//!
//! These are a message while the guest shows no picture, a notice over the picture for a while, the
//! dialog in place of both, and the overlay of frame statistics in the corner.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::label::{self, Label};

/// How long a notice is shown: time to read two lines.
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

/// The texts of one window.
pub(super) struct Osd {
    message: Option<Text>,
    notice: Option<(Text, Instant)>,
    /// Drawn by the event loop for the window's size.
    dialog: Option<Text>,
    /// `None`: the overlay is off.
    overlay: Option<Text>,
    /// The first line of the overlay: what draws the window.
    presenter_name: String,
    /// Physical pixels per logical pixel.
    scale: f64,
}

impl Default for Osd {
    fn default() -> Osd {
        Osd {
            message: None,
            notice: None,
            dialog: None,
            overlay: None,
            presenter_name: String::new(),
            scale: 1.0,
        }
    }
}

impl Osd {
    pub(super) fn in_the_middle(&self, over_a_picture: bool) -> Option<Arc<Label>> {
        self.middle(over_a_picture).map(|text| text.label.clone())
    }

    /// The text in the middle of the window now.
    pub(super) fn text(&self, over_a_picture: bool) -> Option<&str> {
        self.middle(over_a_picture).map(|text| text.text.as_str())
    }

    fn middle(&self, over_a_picture: bool) -> Option<&Text> {
        let notice = self.notice.as_ref().map(|(notice, _)| notice);
        let shown = self.dialog.as_ref().or(notice);
        shown.or(self.message.as_ref().filter(|_| !over_a_picture))
    }

    pub(super) fn in_the_corner(&self) -> Option<Arc<Label>> {
        self.overlay.as_ref().map(|text| text.label.clone())
    }

    /// Shows this text in the middle of the window while the guest shows no picture. An empty text
    /// removes it.
    pub(super) fn set_message(&mut self, text: &str) {
        self.message = (!text.is_empty()).then(|| Text::new(text, self.scale));
    }

    /// Shows this text over the guest's picture for a while.
    pub(super) fn set_notice(&mut self, text: &str, now: Instant) {
        self.notice = Some((Text::new(text, self.scale), now + NOTICE));
    }

    /// Shows the dialog in the middle of the window, or removes it.
    pub(super) fn set_dialog(&mut self, dialog: Option<(String, Arc<Label>)>) {
        self.dialog = dialog.map(|(text, label)| Text { text, label });
    }

    /// Draws all texts again for a screen with this many physical pixels per logical one.
    pub(super) fn set_scale(&mut self, scale: f64) {
        self.scale = scale;
        let notice = self.notice.as_mut().map(|(notice, _)| notice);
        let texts = [self.message.as_mut(), self.overlay.as_mut(), notice];
        for text in texts.into_iter().flatten() {
            *text = Text::new(&text.text, scale);
        }
    }

    pub(super) fn scale(&self) -> f64 {
        self.scale
    }

    /// When the notice must be removed.
    pub(super) fn expiry(&self) -> Option<Instant> {
        self.notice.as_ref().map(|(_, until)| *until)
    }

    /// Removes a notice whose time is over. Returns whether there was one.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        self.notice.take_if(|(_, until)| *until <= now).is_some()
    }

    pub(super) fn has_overlay(&self) -> bool {
        self.overlay.is_some()
    }

    /// Turns the overlay off. Returns whether it was on.
    pub(super) fn remove_overlay(&mut self) -> bool {
        self.overlay.take().is_some()
    }

    /// Sets what draws the window, for the overlay.
    pub(super) fn set_presenter_name(&mut self, name: &str) {
        name.clone_into(&mut self.presenter_name);
    }

    /// Shows the overlay with these sizes and figures.
    pub(super) fn set_overlay(&mut self, sizes: &str, figures: &str) {
        let text = format!("{}\n{sizes}\n{figures}", self.presenter_name);
        self.overlay = Some(Text::new(&text, self.scale));
    }
}
