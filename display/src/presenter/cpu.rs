//! The CPU presenter: composes frames in a buffer of the window system (softbuffer).

use std::num::NonZeroU32;
use std::sync::Arc;

use softbuffer::{Context, SoftBufferError, Surface};
use winit::window::Window;

use super::{Presenter, PresenterEnd};
use crate::canvas::{self, Canvas};
use crate::frame::{Frame, FrameOutcome};
use crate::frame_image::FrameImage;
use crate::layout::{self, Scaling};
use crate::platform::Connection;

/// Draws one window with the CPU.
pub(super) struct CpuPresenter {
    surface: Surface<Arc<Connection>, Arc<Window>>,
    connection: Arc<Connection>,
    scaling: Scaling,
    canvas: Canvas,
    /// The pixels of a screenshot, kept for their capacity.
    shot: Vec<u32>,
}

impl CpuPresenter {
    /// A presenter for `window`. On macOS this must happen on the main thread.
    pub(super) fn new(window: &Arc<Window>, scaling: Scaling) -> Result<CpuPresenter, String> {
        let connection = Arc::new(Connection::new(window)?);
        let failed = |error: SoftBufferError| error.to_string();
        let context = Context::new(connection.clone()).map_err(failed)?;
        let surface = Surface::new(&context, window.clone()).map_err(failed)?;
        let (canvas, shot) = Default::default();
        Ok(CpuPresenter {
            surface,
            connection,
            scaling,
            canvas,
            shot,
        })
    }
}

/// Draws the on-screen texts over a frame.
fn draw_osd(pixels: &mut [u32], frame: &Frame) {
    for (label, in_the_middle) in [(&frame.centre, true), (&frame.corner, false)] {
        if let Some(label) = label {
            let at = layout::label_at(label, frame.size, in_the_middle);
            canvas::stamp(pixels, frame.size, label, at);
        }
    }
}

impl Presenter for CpuPresenter {
    fn name(&self) -> String {
        "drawn by the CPU".to_owned()
    }

    fn is_mapped(&self) -> bool {
        self.connection.is_mapped()
    }

    fn draw(
        &mut self,
        frame: &mut Frame,
        presenting: &dyn Fn(),
    ) -> Result<FrameOutcome, PresenterEnd> {
        match &frame.picture {
            Some(picture) => self.canvas.update(picture, &frame.damage),
            None => self.canvas.clear(),
        }
        let (width, height) = frame.size;
        let cursor = frame
            .cursor
            .as_deref()
            .map(|cursor| (cursor, frame.cursor_at));
        if !frame.image_replies.is_empty() {
            self.shot.clear();
            self.shot.resize(width as usize * height as usize, 0);
            self.canvas
                .compose(&mut self.shot, frame.size, self.scaling, cursor);
            draw_osd(&mut self.shot, frame);
            for reply in frame.image_replies.drain(..) {
                // Failing means that nobody waits for the image any more.
                let _ = reply.try_send(Ok(FrameImage::of_frame(&self.shot, frame.size)));
            }
        }
        let mut presented = false;
        let sides = (NonZeroU32::new(width), NonZeroU32::new(height));
        if let (true, (Some(columns), Some(rows))) = (frame.present, sides) {
            let failed = |error: SoftBufferError| PresenterEnd::Failed(error.to_string());
            self.surface.resize(columns, rows).map_err(failed)?;
            let mut buffer = self.surface.buffer_mut().map_err(failed)?;
            let drawn = cursor.filter(|_| !frame.cursor_on_host);
            self.canvas
                .compose(&mut buffer, frame.size, self.scaling, drawn);
            draw_osd(&mut buffer, frame);
            presenting();
            buffer.present().map_err(failed)?;
            // softbuffer leaves this to the owner of the connection.
            self.connection.flush();
            presented = true;
        }
        Ok(FrameOutcome {
            copied: true,
            presented,
        })
    }
}
