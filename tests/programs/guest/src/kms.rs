//! Draws with the DRM driver's mode setting interface, as a display server does.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use drm::buffer::{Buffer, DrmFourcc};
use drm::control::dumbbuffer::DumbBuffer;
use drm::control::{
    ClipRect, Device as ControlDevice, Mode, PageFlipFlags, connector, crtc, framebuffer,
};
use hesper_test_guest::{STEPS, cursor_pattern, pattern, step};

/// The edge length of virtio-gpu's cursor.
const CURSOR_SIZE: u32 = 64;

/// An open DRM device and what it shows.
pub(crate) struct Card {
    file: File,
    outputs: Vec<Output>,
    cursor: Option<DumbBuffer>,
}

/// The framebuffer and the buffer that one scanout shows.
struct Output {
    index: usize,
    framebuffer: framebuffer::Handle,
    buffer: DumbBuffer,
}

/// A rectangle: left, top, width, height.
pub(crate) type Area = (u32, u32, u32, u32);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl drm::Device for Card {}
impl ControlDevice for Card {}

impl Card {
    /// Opens the first DRM device.
    pub(crate) fn open() -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/dri/card0")?;
        Ok(Self {
            file,
            outputs: Vec::new(),
            cursor: None,
        })
    }

    /// The driver's name and description.
    pub(crate) fn driver(&self) -> io::Result<String> {
        let driver = drm::Device::get_driver(self)?;
        Ok(driver.name().to_string_lossy().into_owned())
    }

    /// The modes of connector `index`, the preferred one first; empty if nothing is plugged in.
    pub(crate) fn modes(&self, index: usize) -> io::Result<Vec<(u16, u16)>> {
        let (connector, _) = self.output(index)?;
        Ok(connector.modes().iter().map(Mode::size).collect())
    }

    /// Shows the test picture on output `index`, in its preferred mode, or in a listed mode of
    /// `size`.
    pub(crate) fn show(
        &mut self,
        index: usize,
        seed: u32,
        size: Option<(u16, u16)>,
    ) -> io::Result<(u32, u32)> {
        let (connector, crtc) = self.output(index)?;
        let mode = connector
            .modes()
            .iter()
            .find(|mode| size.is_none_or(|size| mode.size() == size))
            .copied()
            .ok_or_else(|| io::Error::other(format!("output {index} has no mode {size:?}")))?;
        let (width, height) = (u32::from(mode.size().0), u32::from(mode.size().1));
        let mut buffer = self.create_dumb_buffer((width, height), DrmFourcc::Xrgb8888, 32)?;
        self.draw(&mut buffer, (0, 0, width, height), seed)?;
        let framebuffer = self.add_framebuffer(&buffer, 24, 32)?;
        self.set_crtc(
            crtc,
            Some(framebuffer),
            (0, 0),
            &[connector.handle()],
            Some(mode),
        )?;
        self.release(index)?;
        self.outputs.push(Output {
            index,
            framebuffer,
            buffer,
        });
        Ok((width, height))
    }

    /// Draws the picture of another seed into `area` of output `index`, and flushes only that area.
    pub(crate) fn update(&mut self, index: usize, seed: u32, area: Area) -> io::Result<()> {
        let at = self
            .outputs
            .iter()
            .position(|output| output.index == index)
            .ok_or_else(|| io::Error::other(format!("output {index} shows nothing")))?;
        let mut output = self.outputs.swap_remove(at);
        let drawn = self.draw(&mut output.buffer, area, seed);
        let framebuffer = output.framebuffer;
        self.outputs.push(output);
        drawn?;
        let edge = |value: u32| u16::try_from(value).map_err(io::Error::other);
        let (x, y, width, height) = area;
        let clip = ClipRect::new(edge(x)?, edge(y)?, edge(x + width)?, edge(y + height)?);
        self.dirty_framebuffer(framebuffer, &[clip])
    }

    /// Shows one framebuffer with the test picture on outputs 0 and 1, each in its preferred mode.
    /// Output 1 shows the part that begins at `at`.
    pub(crate) fn span(&mut self, seed: u32, at: (u32, u32)) -> io::Result<(u32, u32)> {
        let mut parts = Vec::new();
        for (index, at) in [(0, (0, 0)), (1, at)] {
            let (connector, crtc) = self.output(index)?;
            let mode = *connector
                .modes()
                .first()
                .ok_or_else(|| io::Error::other(format!("output {index} has no mode")))?;
            parts.push((index, at, connector, crtc, mode));
        }
        let end = |side: fn(&Mode) -> u32, start: fn((u32, u32)) -> u32| {
            let ends = parts
                .iter()
                .map(|(_, at, _, _, mode)| start(*at) + side(mode));
            ends.max().unwrap_or_default()
        };
        let width = end(|mode| mode.size().0.into(), |at| at.0);
        let height = end(|mode| mode.size().1.into(), |at| at.1);
        let mut buffer = self.create_dumb_buffer((width, height), DrmFourcc::Xrgb8888, 32)?;
        self.draw(&mut buffer, (0, 0, width, height), seed)?;
        let framebuffer = self.add_framebuffer(&buffer, 24, 32)?;
        for (_, at, connector, crtc, mode) in &parts {
            self.set_crtc(
                *crtc,
                Some(framebuffer),
                *at,
                &[connector.handle()],
                Some(*mode),
            )?;
        }
        self.release(1)?;
        self.release(0)?;
        self.outputs.push(Output {
            index: 0,
            framebuffer,
            buffer,
        });
        Ok((width, height))
    }

    /// Flips output `index` through [`STEPS`] pictures of [`step`], `rate` times a second, `frames`
    /// times in all. Returns the duration in microseconds.
    pub(crate) fn animate(&mut self, index: usize, frames: u32, rate: u32) -> io::Result<u128> {
        let (connector, crtc) = self.output(index)?;
        let mode = connector.modes().first().copied();
        let mode = mode.ok_or_else(|| io::Error::other(format!("output {index} has no mode")))?;
        let (width, height) = (u32::from(mode.size().0), u32::from(mode.size().1));
        let mut pictures = Vec::new();
        for number in 0..STEPS {
            let mut buffer = self.create_dumb_buffer((width, height), DrmFourcc::Xrgb8888, 32)?;
            let pitch = buffer.pitch() as usize;
            let mut mapping = self.map_dumb_buffer(&mut buffer)?;
            let row: Vec<u8> = (0..width)
                .flat_map(|x| {
                    [
                        step(number, x, width),
                        step(number, x, width),
                        step(number, x, width),
                        0,
                    ]
                })
                .collect();
            for line in mapping.chunks_exact_mut(pitch) {
                for (there, byte) in line.iter_mut().zip(&row) {
                    *there = *byte;
                }
            }
            drop(mapping);
            let framebuffer = self.add_framebuffer(&buffer, 24, 32)?;
            pictures.push((framebuffer, buffer));
        }
        let first = pictures.first().map(|(framebuffer, _)| *framebuffer);
        self.set_crtc(crtc, first, (0, 0), &[connector.handle()], Some(mode))?;
        let start = Instant::now();
        for (frame, (framebuffer, _)) in (1..=frames).zip(pictures.iter().cycle().skip(1)) {
            let due = start + Duration::from_secs(1) * frame / rate;
            sleep(due.saturating_duration_since(Instant::now()));
            self.page_flip(crtc, *framebuffer, PageFlipFlags::EVENT, None)?;
            // The flip is done when its event comes.
            self.receive_events()?.for_each(drop);
        }
        let took = start.elapsed().as_micros();
        self.set_crtc(crtc, None, (0, 0), &[], None)?;
        self.release(index)?;
        for (framebuffer, buffer) in pictures {
            self.destroy_framebuffer(framebuffer)?;
            self.destroy_dumb_buffer(buffer)?;
        }
        Ok(took)
    }

    /// Turns output `index` off.
    pub(crate) fn blank(&mut self, index: usize) -> io::Result<()> {
        let (_, crtc) = self.output(index)?;
        self.set_crtc(crtc, None, (0, 0), &[], None)?;
        self.release(index)
    }

    /// Shows the test cursor on output `index` with its hot spot at `hot`.
    #[allow(
        deprecated,
        reason = "the cursor ioctls are what carries a hot spot without atomic properties"
    )]
    pub(crate) fn cursor(&mut self, index: usize, seed: u32, hot: (i32, i32)) -> io::Result<()> {
        let (_, crtc) = self.output(index)?;
        let mut buffer =
            self.create_dumb_buffer((CURSOR_SIZE, CURSOR_SIZE), DrmFourcc::Argb8888, 32)?;
        let pitch = buffer.pitch() as usize;
        let mut mapping = self.map_dumb_buffer(&mut buffer)?;
        for (y, row) in (0..CURSOR_SIZE).zip(mapping.chunks_exact_mut(pitch)) {
            for (x, pixel) in (0..CURSOR_SIZE).zip(row.chunks_exact_mut(4)) {
                pixel.copy_from_slice(&cursor_pattern(seed, x, y));
            }
        }
        drop(mapping);
        self.set_cursor2(crtc, Some(&buffer), hot)?;
        if let Some(old) = self.cursor.replace(buffer) {
            self.destroy_dumb_buffer(old)?;
        }
        Ok(())
    }

    /// Moves the cursor of output `index`; the image's corner goes to `x`, `y`.
    #[allow(deprecated, reason = "see `cursor`")]
    pub(crate) fn place_cursor(&self, index: usize, x: i32, y: i32) -> io::Result<()> {
        let (_, crtc) = self.output(index)?;
        self.move_cursor(crtc, (x, y))
    }

    /// Hides the cursor of output `index`.
    #[allow(deprecated, reason = "see `cursor`")]
    pub(crate) fn hide_cursor(&mut self, index: usize) -> io::Result<()> {
        let (_, crtc) = self.output(index)?;
        self.set_cursor2(crtc, Option::<&DumbBuffer>::None, (0, 0))?;
        if let Some(old) = self.cursor.take() {
            self.destroy_dumb_buffer(old)?;
        }
        Ok(())
    }

    fn output(&self, index: usize) -> io::Result<(connector::Info, crtc::Handle)> {
        let resources = self.resource_handles()?;
        let missing = || io::Error::other(format!("there is no output {index}"));
        let connector = *resources.connectors().get(index).ok_or_else(missing)?;
        let crtc = *resources.crtcs().get(index).ok_or_else(missing)?;
        Ok((self.get_connector(connector, true)?, crtc))
    }

    fn draw(&self, buffer: &mut DumbBuffer, area: Area, seed: u32) -> io::Result<()> {
        let (left, top, width, height) = area;
        let pitch = buffer.pitch() as usize;
        let mut mapping = self.map_dumb_buffer(buffer)?;
        let rows = mapping.chunks_exact_mut(pitch).enumerate();
        for (y, row) in rows.skip(top as usize).take(height as usize) {
            let pixels = row.chunks_exact_mut(4).enumerate();
            for (x, pixel) in pixels.skip(left as usize).take(width as usize) {
                let [blue, green, red] = pattern(seed, x as u32, y as u32);
                pixel.copy_from_slice(&[blue, green, red, 0]);
            }
        }
        Ok(())
    }

    fn release(&mut self, index: usize) -> io::Result<()> {
        if let Some(at) = self.outputs.iter().position(|output| output.index == index) {
            let output = self.outputs.swap_remove(at);
            self.destroy_framebuffer(output.framebuffer)?;
            self.destroy_dumb_buffer(output.buffer)?;
        }
        Ok(())
    }
}
