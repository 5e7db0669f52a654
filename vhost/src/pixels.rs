//! Plain types of pictures: rectangles, pixel formats, and memory that holds pixels.

/// Index of a scanout, below the device's `num_scanouts`.
pub type ScanoutId = u32;

/// A rectangle in pixels; `x`, `y` is the upper left corner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

/// The eight 2D formats of virtio-gpu (virtio-v1.4 §5.7.6.8, `VIRTIO_GPU_FORMAT_*`).
///
/// The name gives the order of the bytes in memory. All have four bytes a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// `B8G8R8A8_UNORM` = 1.
    B8G8R8A8,
    /// `B8G8R8X8_UNORM` = 2.
    B8G8R8X8,
    /// `A8R8G8B8_UNORM` = 3.
    A8R8G8B8,
    /// `X8R8G8B8_UNORM` = 4.
    X8R8G8B8,
    /// `R8G8B8A8_UNORM` = 67.
    R8G8B8A8,
    /// `X8B8G8R8_UNORM` = 68.
    X8B8G8R8,
    /// `A8B8G8R8_UNORM` = 121.
    A8B8G8R8,
    /// `R8G8B8X8_UNORM` = 134.
    R8G8B8X8,
}

impl PixelFormat {
    /// The format with the same order of colours whose fourth byte is alpha.
    #[must_use]
    pub fn with_alpha(self) -> Self {
        match self {
            Self::B8G8R8X8 => Self::B8G8R8A8,
            Self::X8R8G8B8 => Self::A8R8G8B8,
            Self::X8B8G8R8 => Self::A8B8G8R8,
            Self::R8G8B8X8 => Self::R8G8B8A8,
            Self::B8G8R8A8 | Self::A8R8G8B8 | Self::R8G8B8A8 | Self::A8B8G8R8 => self,
        }
    }
}

/// Bytes of one pixel in every [`PixelFormat`].
pub const BYTES_PER_PIXEL: u32 = 4;

/// Memory that holds pixels. The device or the guest may write to it while it is read.
///
/// # Safety
///
/// `host_pages` must return a mapping that is readable for its whole length and stays mapped at
/// that address as long as the value lives.
pub unsafe trait PixelMemory: Send + Sync {
    /// Address and length in bytes of the mapping. Both are multiples of the host's page size, so
    /// that a GPU can import it (`VK_EXT_external_memory_host`).
    fn host_pages(&self) -> (*const u8, usize);

    /// Copies `into.len()` bytes from `offset`. Bytes past the end read as zero. A concurrent write
    /// may be seen in part, as a torn picture, but never causes a fault.
    fn read(&self, offset: usize, into: &mut [u8]);
}

/// Memory of pixels that the device may write to, too, by raw copies.
///
/// # Safety
///
/// The mapping of [`PixelMemory::host_pages`] must be writable for its whole length.
pub unsafe trait WritablePixels: PixelMemory {}
