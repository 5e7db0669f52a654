//! The CPU presenter: composes into a buffer of the window system's (softbuffer).

use std::num::NonZeroU32;
use std::sync::Arc;

use softbuffer::{Context, SoftBufferError, Surface};
use winit::window::Window;

use super::{Presenter, PresenterEnd};
use crate::canvas::{self, Canvas};
use crate::frame::{Frame, Job};
use crate::frame_image::Shot;
use crate::layout::{self, Scaling};
use crate::platform::Connection;

/// Draws one window with the CPU.
pub(super) struct CpuPresenter {
    surface: Surface<Arc<Connection>, Arc<Window>>,
    connection: Arc<Connection>,
    scaling: Scaling,
    canvas: Canvas,
    /// The frame of a screenshot. Kept for its capacity.
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

/// Draws what Hesper says over a frame.
fn say(frame: &mut [u32], job: &Job) {
    for (label, in_the_middle) in [(&job.centre, true), (&job.corner, false)] {
        if let Some(label) = label {
            let at = layout::label_at(label, job.size, in_the_middle);
            canvas::stamp(frame, job.size, label, at);
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

    fn frame(&mut self, job: &mut Job, presenting: &dyn Fn()) -> Result<Frame, PresenterEnd> {
        match &job.picture {
            Some(picture) => self.canvas.update(picture, &job.damage),
            None => self.canvas.clear(),
        }
        let (width, height) = job.size;
        let cursor = job.cursor.as_deref().map(|cursor| (cursor, job.cursor_at));
        if !job.shots.is_empty() {
            self.shot.clear();
            self.shot.resize(width as usize * height as usize, 0);
            self.canvas
                .compose(&mut self.shot, job.size, self.scaling, cursor);
            say(&mut self.shot, job);
            for reply in job.shots.drain(..) {
                // Failing means that nobody waits for it any more.
                let _ = reply.try_send(Ok(Shot::of_frame(&self.shot, job.size)));
            }
        }
        let mut presented = false;
        let sides = (NonZeroU32::new(width), NonZeroU32::new(height));
        if let (true, (Some(columns), Some(rows))) = (job.present, sides) {
            let failed = |error: SoftBufferError| PresenterEnd::Failed(error.to_string());
            self.surface.resize(columns, rows).map_err(failed)?;
            let mut buffer = self.surface.buffer_mut().map_err(failed)?;
            let drawn = cursor.filter(|_| !job.cursor_is_hosts);
            self.canvas
                .compose(&mut buffer, job.size, self.scaling, drawn);
            say(&mut buffer, job);
            presenting();
            buffer.present().map_err(failed)?;
            // softbuffer leaves this to whoever owns the connection.
            self.connection.flush();
            presented = true;
        }
        Ok(Frame {
            copied: true,
            presented,
        })
    }
}
