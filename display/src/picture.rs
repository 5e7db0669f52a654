//! What a scanout shows: a rectangle of linear pixels in memory that someone else owns.
//!
//! The program implements [`PixelMemory`] once per kind of memory (a 2D resource's copy, a blob's
//! shared memory) and hands out [`Picture`]s of it. A `Picture` is checked when it is made, so
//! that everything behind it may rely on its geometry.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::DisplayError;

/// The largest width or height of a picture in pixels. All known Vulkan drivers hold that in one
/// image, and it is twice an 8K screen.
pub const MAX_SIZE: u32 = 16384;

/// Bytes per pixel: four in all eight formats of virtio-gpu.
pub(crate) const BYTES: u32 = 4;

/// Memory that holds pixels, shared with the guest or with another thread.
///
/// Others may write it at any moment: a reader may see a torn picture, but nothing worse.
///
/// # Safety
///
/// The pages that [`host_pages`](Self::host_pages) returns must stay mapped and readable, at the
/// same address, for as long as the value lives. They are imported into the GPU, which reads them
/// without asking again.
pub unsafe trait PixelMemory: Send + Sync {
    /// Size in bytes. Never changes.
    fn size(&self) -> usize;

    /// The memory as one mapping of whole host pages, which the GPU may import
    /// (VK_EXT_external_memory_host), or `None` when it is scattered. The mapping is at least
    /// [`size`](Self::size) bytes long and starts with the memory's first byte.
    fn host_pages(&self) -> Option<NonNull<[u8]>>;

    /// Copies the bytes at `offset` to `into`. Must not fail: bytes outside the memory, or lost
    /// since (a truncated file), read as zero.
    fn read(&self, offset: usize, into: &mut [u8]);
}

/// The eight 2D formats of virtio-gpu (virtio-v1.3 §5.7.6.8, `virtio_gpu_formats`). The name is
/// the order of the bytes in memory; X is a byte without meaning.
#[allow(missing_docs)] // the names say all
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    B8G8R8A8,
    B8G8R8X8,
    A8R8G8B8,
    X8R8G8B8,
    R8G8B8A8,
    X8B8G8R8,
    A8B8G8R8,
    R8G8B8X8,
}

/// At which byte of a pixel each channel lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channels {
    pub(crate) red: u8,
    pub(crate) green: u8,
    pub(crate) blue: u8,
    /// `None`: opaque.
    pub(crate) alpha: Option<u8>,
}

impl PixelFormat {
    /// All formats, in the order of their virtio-gpu numbers.
    pub const ALL: [PixelFormat; 8] = [
        Self::B8G8R8A8,
        Self::B8G8R8X8,
        Self::A8R8G8B8,
        Self::X8R8G8B8,
        Self::R8G8B8A8,
        Self::X8B8G8R8,
        Self::A8B8G8R8,
        Self::R8G8B8X8,
    ];

    /// The format with this number in `enum virtio_gpu_formats`, if there is one.
    pub fn from_virtio(number: u32) -> Option<PixelFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.to_virtio() == number)
    }

    /// The format's number in `enum virtio_gpu_formats`.
    pub fn to_virtio(self) -> u32 {
        match self {
            Self::B8G8R8A8 => 1,
            Self::B8G8R8X8 => 2,
            Self::A8R8G8B8 => 3,
            Self::X8R8G8B8 => 4,
            Self::R8G8B8A8 => 67,
            Self::X8B8G8R8 => 68,
            Self::A8B8G8R8 => 121,
            Self::R8G8B8X8 => 134,
        }
    }

    pub(crate) fn channels(self) -> Channels {
        let (red, green, blue, alpha) = match self {
            Self::B8G8R8A8 => (2, 1, 0, Some(3)),
            Self::B8G8R8X8 => (2, 1, 0, None),
            Self::A8R8G8B8 => (1, 2, 3, Some(0)),
            Self::X8R8G8B8 => (1, 2, 3, None),
            Self::R8G8B8A8 => (0, 1, 2, Some(3)),
            Self::X8B8G8R8 => (3, 2, 1, None),
            Self::A8B8G8R8 => (3, 2, 1, Some(0)),
            Self::R8G8B8X8 => (0, 1, 2, None),
        };
        Channels {
            red,
            green,
            blue,
            alpha,
        }
    }
}

impl Channels {
    /// The pixel as red, green, blue, alpha.
    pub(crate) fn unpack(self, pixel: [u8; 4]) -> [u8; 4] {
        // Shifting a little-endian word instead of indexing: no bounds to check per channel.
        let word = u32::from_le_bytes(pixel);
        let at = |byte: u8| (word >> (u32::from(byte) * 8)) as u8;
        [
            at(self.red),
            at(self.green),
            at(self.blue),
            self.alpha.map_or(255, at),
        ]
    }
}

/// A rectangle in pixels of a picture. It may reach beyond the picture: that part is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Rect {
    /// The whole of something `width` × `height` pixels large.
    pub fn whole(width: u32, height: u32) -> Rect {
        Rect {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// The first column right of it.
    pub(crate) fn right(self) -> u32 {
        self.x.saturating_add(self.width)
    }

    /// The first row below it.
    pub(crate) fn bottom(self) -> u32 {
        self.y.saturating_add(self.height)
    }

    /// The part of it inside `width` × `height` pixels; empty when there is none.
    pub(crate) fn clipped(self, width: u32, height: u32) -> Rect {
        let (x, y) = (self.x.min(width), self.y.min(height));
        Rect {
            x,
            y,
            width: self.right().min(width) - x,
            height: self.bottom().min(height) - y,
        }
    }

    /// The smallest rectangle around both.
    pub(crate) fn union(self, other: Rect) -> Rect {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        Rect {
            x,
            y,
            width: self.right().max(other.right()) - x,
            height: self.bottom().max(other.bottom()) - y,
        }
    }

    /// Whether `other` lies wholly inside.
    pub(crate) fn contains(self, other: Rect) -> bool {
        self.x <= other.x
            && self.y <= other.y
            && self.right() >= other.right()
            && self.bottom() >= other.bottom()
    }
}

/// A rectangle of pixels in a [`PixelMemory`], rows from top to bottom. Cheap to clone.
#[derive(Clone)]
pub struct Picture {
    memory: Arc<dyn PixelMemory>,
    layout: PictureLayout,
}

/// Where the pixels of a [`Picture`] lie in its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureLayout {
    /// Byte of the upper left pixel.
    pub offset: u64,
    /// Bytes from one row to the next.
    pub stride: u32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How a pixel is stored.
    pub format: PixelFormat,
}

impl Picture {
    /// A picture of pixels that lie wholly inside `memory`.
    ///
    /// # Errors
    ///
    /// [`DisplayError::BadPicture`] when a pixel would lie outside, a row would overlap the next,
    /// or a side is 0 or longer than [`MAX_SIZE`].
    pub fn new(
        memory: Arc<dyn PixelMemory>,
        layout: PictureLayout,
    ) -> Result<Picture, DisplayError> {
        let PictureLayout {
            offset,
            stride,
            width,
            height,
            ..
        } = layout;
        let sizes = 1..=MAX_SIZE;
        // At most 2^14 rows of 2^32 bytes each: only adding the guest's offset can overflow.
        let end = || {
            let last_row = u64::from(height - 1) * u64::from(stride);
            offset.checked_add(last_row + u64::from(width * BYTES))
        };
        let fits = sizes.contains(&width)
            && sizes.contains(&height)
            && stride >= width * BYTES
            && end().is_some_and(|end| end <= memory.size() as u64);
        if !fits {
            let memory = memory.size();
            return Err(DisplayError::BadPicture {
                width,
                height,
                stride,
                offset,
                memory,
            });
        }
        Ok(Picture { memory, layout })
    }

    /// Where its pixels lie.
    pub fn layout(&self) -> PictureLayout {
        self.layout
    }

    /// The memory that holds its pixels.
    pub fn memory(&self) -> &Arc<dyn PixelMemory> {
        &self.memory
    }

    pub(crate) fn width(&self) -> u32 {
        self.layout.width
    }

    pub(crate) fn height(&self) -> u32 {
        self.layout.height
    }

    pub(crate) fn whole(&self) -> Rect {
        Rect::whole(self.layout.width, self.layout.height)
    }

    /// The byte where pixel (`x`, `y`) starts; the pixel must be one of the picture's.
    pub(crate) fn byte_of(&self, x: u32, y: u32) -> u64 {
        let PictureLayout { offset, stride, .. } = self.layout;
        offset + u64::from(y) * u64::from(stride) + u64::from(x * BYTES)
    }

    /// Copies the pixels of one row, starting at (`x`, `y`), as they lie in memory.
    pub(crate) fn read_row(&self, x: u32, y: u32, into: &mut [u8]) {
        self.memory.read(self.byte_of(x, y) as usize, into);
    }

    /// Whether both have the same size and format. Then a change from one to the other is a page
    /// flip and not a mode set.
    pub(crate) fn same_mode(&self, other: &Picture) -> bool {
        let mode = |picture: &Picture| {
            (
                picture.layout.width,
                picture.layout.height,
                picture.layout.format,
            )
        };
        mode(self) == mode(other)
    }

    /// Whether both are the very same pixels.
    pub(crate) fn same_pixels(&self, other: &Picture) -> bool {
        self.layout == other.layout && Arc::ptr_eq(&self.memory, &other.memory)
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picture")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Pixels;

    #[test]
    fn a_picture_outside_its_memory_is_refused() {
        let memory = Pixels::zeroed(64 * 4 * 10);
        let good = PictureLayout {
            offset: 0,
            stride: 256,
            width: 64,
            height: 10,
            format: PixelFormat::B8G8R8X8,
        };
        assert!(Picture::new(memory.clone(), good).is_ok());
        let bad = [
            PictureLayout { offset: 1, ..good },
            PictureLayout {
                offset: u64::MAX,
                ..good
            },
            PictureLayout { height: 11, ..good },
            PictureLayout { height: 0, ..good },
            PictureLayout { width: 0, ..good },
            PictureLayout {
                stride: 255,
                ..good
            },
            PictureLayout {
                stride: u32::MAX,
                ..good
            },
            PictureLayout {
                width: u32::MAX,
                ..good
            },
            PictureLayout {
                height: u32::MAX,
                stride: u32::MAX,
                ..good
            },
        ];
        for layout in bad {
            let refused = Picture::new(memory.clone(), layout);
            assert!(
                matches!(refused, Err(DisplayError::BadPicture { .. })),
                "{layout:?}"
            );
        }
    }

    #[test]
    fn the_last_row_need_not_fill_its_stride() {
        let layout = PictureLayout {
            offset: 8,
            stride: 1000,
            width: 2,
            height: 3,
            format: PixelFormat::R8G8B8A8,
        };
        assert!(Picture::new(Pixels::zeroed(8 + 2000 + 8), layout).is_ok());
        assert!(Picture::new(Pixels::zeroed(8 + 2000 + 7), layout).is_err());
    }

    #[test]
    fn every_format_finds_its_channels_by_its_name() {
        for format in PixelFormat::ALL {
            let name = format!("{format:?}");
            let order: Vec<char> = name.chars().filter(|c| c.is_alphabetic()).collect();
            let pixel: Vec<u8> = order
                .iter()
                .map(|channel| match channel {
                    'R' => 10,
                    'G' => 20,
                    'B' => 30,
                    'A' => 40,
                    _ => 99,
                })
                .collect();
            let alpha = if name.contains('A') { 40 } else { 255 };
            let unpacked = format.channels().unpack(pixel.try_into().unwrap());
            assert_eq!(unpacked, [10, 20, 30, alpha], "{name}");
            assert_eq!(PixelFormat::from_virtio(format.to_virtio()), Some(format));
        }
        assert_eq!(PixelFormat::from_virtio(0), None);
        assert_eq!(PixelFormat::from_virtio(5), None);
    }

    #[test]
    fn clipping_survives_hostile_rectangles() {
        let huge = Rect {
            x: 10,
            y: u32::MAX,
            width: u32::MAX,
            height: u32::MAX,
        };
        assert!(huge.clipped(100, 100).is_empty());
        let cut = Rect {
            x: 90,
            y: 90,
            width: u32::MAX,
            height: 5,
        }
        .clipped(100, 100);
        assert_eq!(
            cut,
            Rect {
                x: 90,
                y: 90,
                width: 10,
                height: 5
            }
        );
    }
}
