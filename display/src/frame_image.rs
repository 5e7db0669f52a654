//! The pixels of a frame, for screenshots and recordings.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc;

/// The image of a frame as it was shown.
pub(crate) struct FrameImage {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Red, green, blue; rows without gaps.
    pub(crate) rgb: Vec<u8>,
}

impl FrameImage {
    /// The image of a frame of `0x00RRGGBB` pixels.
    pub(crate) fn of_frame(frame: &[u32], (width, height): (u32, u32)) -> FrameImage {
        let rgb = frame.iter().flat_map(|pixel| {
            let [_, red, green, blue] = pixel.to_be_bytes();
            [red, green, blue]
        });
        FrameImage {
            width,
            height,
            rgb: rgb.collect(),
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), png::EncodingError> {
        self.encode(BufWriter::new(File::create(path)?))
    }

    /// Writes the image as a PNG.
    pub(crate) fn encode(&self, to: impl Write) -> Result<(), png::EncodingError> {
        let mut encoder = png::Encoder::new(to, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()
    }
}

/// Where the image of a frame is sent. An error is a text of the presenter.
pub(crate) type ImageReply = mpsc::SyncSender<Result<FrameImage, String>>;
