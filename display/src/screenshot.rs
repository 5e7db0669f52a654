//! Screenshots: takes the image of a frame, and makes a PNG of it.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::DisplayError;
use crate::canvas::Canvas;
use crate::damage::Damage;
use crate::frame_image::FrameImage;
use crate::layout::Scaling;
use crate::scanout::Scanout;
use crate::shared::Shared;

/// How long a window may take to draw the frame. A software driver on a busy machine needs a
/// fraction of a second; a display server that hangs takes forever.
const PATIENCE: Duration = Duration::from_secs(10);

/// The next frame of the scanout's window.
pub(crate) fn of_window(index: usize, scanout: &Scanout) -> Result<FrameImage, DisplayError> {
    let (reply, answer) = mpsc::sync_channel(1);
    scanout.request_image(reply);
    match answer.recv_timeout(PATIENCE) {
        Ok(Ok(shot)) => Ok(shot),
        Ok(Err(reason)) => Err(DisplayError::Screenshot {
            scanout: index,
            reason,
        }),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let seconds = PATIENCE.as_secs();
            Err(DisplayError::ScreenshotTimeout {
                scanout: index,
                seconds,
            })
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(DisplayError::Closed),
    }
}

/// What a window of the picture's size would show.
pub(crate) fn of_headless(index: usize, scanout: &Scanout) -> Result<FrameImage, DisplayError> {
    let frame = scanout.snapshot();
    let picture = frame
        .picture
        .as_ref()
        .ok_or(DisplayError::NothingShown(index))?;
    let size = (picture.width(), picture.height());
    let mut canvas = Canvas::default();
    canvas.update(picture, &Damage::default());
    let mut pixels = vec![0; size.0 as usize * size.1 as usize];
    canvas.compose(&mut pixels, size, Scaling::Fit, frame.cursor());
    Ok(FrameImage::of_frame(&pixels, size))
}

/// Saves what a window shows in `folder`, under a name with the time. The window shows a notice
/// with the name. Does not wait.
pub(crate) fn save_in(folder: &Path, shared: &Arc<Shared>, index: usize) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.unwrap_or_default().as_millis();
    let path = folder.join(format!("hesper-{}-{ms}.png", index + 1));
    let shared = Arc::clone(shared);
    let work = move || {
        let Some(scanout) = shared.scanouts.get(index) else {
            return;
        };
        match of_window(index, scanout).and_then(|shot| save(&shot, &path)) {
            Ok(()) => {
                log::info!("screenshot: {}", path.display());
                scanout.notice(&format!("Screenshot: {}", path.display()));
            }
            Err(error) => {
                log::error!("{error}");
                scanout.notice(&error.to_string());
            }
        }
    };
    let started = thread::Builder::new()
        .name("screenshot".to_owned())
        .spawn(work);
    if let Err(error) = started {
        log::error!("cannot start a thread for the screenshot: {error}");
    }
}

/// Writes an image to a PNG file.
pub(crate) fn save(shot: &FrameImage, path: &Path) -> Result<(), DisplayError> {
    shot.write(path).map_err(|source| DisplayError::WritePng {
        path: path.to_owned(),
        source,
    })
}
