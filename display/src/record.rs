//! Recording: writes every presented frame of a window to files, on a thread of its own.
//!
//! A path that ends in `.y4m` becomes a YUV4MPEG2 stream, which ffmpeg and mpv read (4:4:4, full
//! range; only the conversion of colours loses anything). A window that changes its size begins
//! another file. Such a stream has no times, only a rate: a [`Clock`] says how often each frame is
//! written, so that the film lasts as long as the recording. Any other path becomes a folder of
//! PNGs, whose names hold the milliseconds since the start. A writer that is too slow loses frames
//! and logs how many.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hesper_system::sync::Lock;

use crate::frame_image::{FrameImage, ImageReply};

/// Frames that may wait for the writer. At 1280×800 each takes 3 MiB.
const WAITING: usize = 8;

/// Frames per second of a stream.
const RATE: u32 = 60;

/// The longest time for which a frame is repeated, in frames. An idle screen must not fill the
/// disk: 1280×800 takes 180 MB per second.
const LONGEST_REPEAT: u64 = RATE as u64;

/// How many frames a stream may be ahead of the time, because windows do not present in a strict
/// rhythm.
const AHEAD: u64 = 4;

/// What a recorder gets from a presenter: the time of a frame, and where its image arrives.
type Frame = (Duration, mpsc::Receiver<Result<FrameImage, String>>);

/// Takes a window's frames. Cheap to clone. Dropping the last clone ends the recording.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<Inner>);

struct Inner {
    started: Instant,
    /// `None` only during the drop.
    frames: Option<mpsc::SyncSender<Frame>>,
    lost: AtomicU64,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Recorder {
    /// Starts to record to `path`. Fails if it cannot be written.
    pub(crate) fn start(path: &Path) -> io::Result<Recorder> {
        let mut output = Output::create(path)?;
        let (frames, waiting) = mpsc::sync_channel::<Frame>(WAITING);
        let name = path.to_owned();
        let write = move || {
            for (at, shot) in waiting {
                // A frame that was never drawn has no image.
                let Ok(Ok(shot)) = shot.recv() else { continue };
                if let Err(error) = output.write(at, &shot) {
                    log::error!("the recording to {} ends early: {error}", name.display());
                    return;
                }
            }
            match output.finish() {
                Ok(count) => log::info!("{count} frames were recorded to {}", name.display()),
                Err(error) => {
                    log::error!("cannot end the recording to {}: {error}", name.display())
                }
            }
        };
        let writer = thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(write)?;
        Ok(Recorder(Arc::new(Inner {
            started: Instant::now(),
            frames: Some(frames),
            lost: AtomicU64::new(0),
            writer: Mutex::new(Some(writer)),
        })))
    }

    /// Where to send the image of the next frame; `None` when the frame is lost.
    pub(crate) fn reply(&self) -> Option<ImageReply> {
        let (reply, shot) = mpsc::sync_channel(1);
        let frame = (self.0.started.elapsed(), shot);
        match self.0.frames.as_ref()?.try_send(frame) {
            Ok(()) => Some(reply),
            Err(_) => {
                self.0.lost.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            log::warn!("{lost} frames are missing in the recording: writing was too slow");
        }
        // The writer ends with the channel, after the frames that wait in it.
        self.frames = None;
        let writer = self.writer.locked().take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            log::error!("the recorder panicked; this is a bug in Hesper, please report it");
        }
    }
}

/// The path to which the window with this number is recorded.
pub(crate) fn path_for_window(path: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{stem}-window{}", number + 1);
    match path.extension() {
        Some(extension) => path.with_file_name(name).with_extension(extension),
        None => path.with_file_name(name),
    }
}

/// Where frames are written.
enum Output {
    Folder {
        path: PathBuf,
        count: u64,
    },
    Stream {
        path: PathBuf,
        file: BufWriter<File>,
        size: Option<(u32, u32)>,
        parts: u32,
        count: u64,
        clock: Clock,
        /// The latest frame.
        planes: Vec<u8>,
        /// The latest frame has not been written yet.
        unwritten: bool,
    },
}

impl Output {
    fn create(path: &Path) -> io::Result<Output> {
        if path.extension().is_some_and(|extension| extension == "y4m") {
            return Ok(Output::Stream {
                path: path.to_owned(),
                file: BufWriter::new(File::create(path)?),
                size: None,
                parts: 0,
                count: 0,
                clock: Clock::default(),
                planes: Vec::new(),
                unwritten: false,
            });
        }
        fs::create_dir_all(path)?;
        Ok(Output::Folder {
            path: path.to_owned(),
            count: 0,
        })
    }

    fn write(&mut self, at: Duration, shot: &FrameImage) -> io::Result<()> {
        match self {
            Output::Folder { path, count } => {
                let name = format!("frame-{count:06}-{:08}ms.png", at.as_millis());
                *count += 1;
                shot.write(&path.join(name)).map_err(io::Error::other)
            }
            Output::Stream {
                path,
                file,
                size,
                parts,
                count,
                clock,
                planes,
                unwritten,
            } => {
                let now = (shot.width, shot.height);
                let Some(repeats) = clock.place(at) else {
                    // The next repeats show this frame, or it ends the film.
                    if *size == Some(now) {
                        to_planes(&shot.rgb, planes);
                        *unwritten = true;
                    }
                    return Ok(());
                };
                for _ in 0..repeats {
                    frame(file, planes)?;
                }
                *unwritten = false;
                if *size != Some(now) {
                    *parts += 1;
                    if *parts > 1 {
                        file.flush()?;
                        *file = BufWriter::new(File::create(part(path, *parts))?);
                    }
                    *size = Some(now);
                    writeln!(
                        file,
                        "YUV4MPEG2 W{} H{} F{RATE}:1 Ip A1:1 C444 XCOLORRANGE=FULL",
                        now.0, now.1
                    )?;
                }
                *count += 1;
                to_planes(&shot.rgb, planes);
                frame(file, planes)
            }
        }
    }

    /// Returns the number of frames written.
    fn finish(self) -> io::Result<u64> {
        match self {
            Output::Folder { count, .. } => Ok(count),
            Output::Stream {
                mut file,
                count,
                clock,
                planes,
                unwritten,
                ..
            } => {
                if unwritten {
                    frame(&mut file, &planes)?;
                }
                if clock.left_out > 0 {
                    log::info!(
                        "{} frames are not in the film: they came faster than its {RATE} frames per second",
                        clock.left_out
                    );
                }
                file.flush().map(|()| count)
            }
        }
    }
}

/// Turns the time of a frame into its position in a stream of [`RATE`] frames per second.
#[derive(Default)]
struct Clock {
    /// The next free position; `None` before the first frame.
    next: Option<u64>,
    /// The difference between time and position: shortened pauses, and the time before the first
    /// frame.
    skipped: u64,
    /// Frames without a position.
    left_out: u64,
}

impl Clock {
    /// How often the previous frame must be repeated before one that was presented at this time.
    /// `None` when this one has no position.
    fn place(&mut self, at: Duration) -> Option<u64> {
        // This is enough for half a million years.
        let now = (at.as_micros() * u128::from(RATE) / 1_000_000) as u64;
        let next = *self.next.get_or_insert_with(|| {
            self.skipped = now;
            0
        });
        let mut place = now.saturating_sub(self.skipped);
        if place + AHEAD < next {
            self.left_out += 1;
            return None;
        }
        let repeats = place.saturating_sub(next).min(LONGEST_REPEAT);
        self.skipped += place.saturating_sub(next + repeats);
        place = next + repeats;
        self.next = Some(place + 1);
        Some(repeats)
    }
}

/// Writes a frame of a stream.
fn frame(file: &mut impl Write, planes: &[u8]) -> io::Result<()> {
    file.write_all(b"FRAME\n")?;
    file.write_all(planes)
}

/// The path of a further file: `film.y4m`, `film-2.y4m`, …
fn part(path: &Path, number: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.y4m"))
}

/// Converts to Y, Cb and Cr of BT.601 in full range, one plane after the other.
fn to_planes(rgb: &[u8], planes: &mut Vec<u8>) {
    let (pixels, _) = rgb.as_chunks::<3>();
    planes.clear();
    planes.reserve(rgb.len());
    // With 16 fractional bits; the sums stay within a byte.
    let plane = |factors: [i32; 3], zero: i32| {
        pixels.iter().map(move |pixel| {
            let sum: i32 = pixel
                .iter()
                .zip(factors)
                .map(|(colour, factor)| i32::from(*colour) * factor)
                .sum();
            (((sum + (1 << 15)) >> 16) + zero).clamp(0, 255) as u8
        })
    };
    planes.extend(plane([19595, 38470, 7471], 0));
    planes.extend(plane([-11059, -21709, 32768], 128));
    planes.extend(plane([32768, -27439, -5329], 128));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shot(size: (u32, u32), color: [u8; 3]) -> Result<FrameImage, String> {
        Ok(FrameImage {
            width: size.0,
            height: size.1,
            rgb: color.repeat((size.0 * size.1) as usize),
        })
    }

    /// The repeats before each frame, for frames that are presented at these milliseconds.
    fn places(moments: &[u64]) -> Vec<Option<u64>> {
        let mut clock = Clock::default();
        let place = |ms: &u64| clock.place(Duration::from_millis(*ms));
        moments.iter().map(place).collect()
    }

    #[test]
    fn a_film_lasts_as_long_as_what_it_shows() {
        // Ten frames a second from any start; then a jitter of a frame either way.
        assert_eq!(
            places(&[5000, 5100, 5200, 5300]),
            [Some(0), Some(5), Some(5), Some(5)]
        );
        assert_eq!(places(&[0, 16, 34, 40, 67]), [Some(0); 5]);
        let steady: Vec<u64> = (0..600)
            .map(|frame| frame * 1000 / 60 + frame % 7)
            .collect();
        let written: u64 = places(&steady)
            .into_iter()
            .flatten()
            .map(|more| more + 1)
            .sum();
        assert!((598..=602).contains(&written), "{written} of 600 frames");
    }

    #[test]
    fn a_pause_becomes_a_second_and_what_is_too_fast_is_left_out() {
        assert_eq!(
            places(&[0, 3_600_000, 3_600_050]),
            [Some(0), Some(60), Some(2)]
        );
        // 1000 frames a second for a second, then as before.
        let fast: Vec<u64> = (0..1000).chain([1100]).collect();
        let placed = places(&fast);
        let written: u64 = placed.iter().flatten().map(|more| more + 1).sum();
        assert!((62..=68).contains(&written), "{written} frames in 1.1 s");
    }

    #[test]
    fn a_stream_has_every_frame_and_another_size_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.y4m");
        let mut output = Output::create(&path).unwrap();
        let mut give = |at, size, color| {
            let shot = shot(size, color).unwrap();
            output.write(Duration::from_millis(at), &shot).unwrap();
        };
        give(0, (2, 1), [255, 255, 255]);
        give(34, (2, 1), [255, 0, 0]);
        give(50, (1, 1), [0, 0, 0]);
        // These are too fast for a film, but the last one must end it.
        for level in 1..20 {
            give(50, (1, 1), [level; 3]);
        }
        assert_eq!(output.finish().unwrap(), 3 + AHEAD);
        let head = |size: &str| format!("YUV4MPEG2 {size} F60:1 Ip A1:1 C444 XCOLORRANGE=FULL\n");
        let mut expected = head("W2 H1").into_bytes();
        expected.extend(b"FRAME\n\xff\xff\x80\x80\x80\x80".repeat(2));
        expected.extend(b"FRAME\n\x4c\x4c\x55\x55\xff\xff");
        assert_eq!(fs::read(&path).unwrap(), expected);
        let mut expected = head("W1 H1").into_bytes();
        for level in (0..=AHEAD as u8).chain([19]) {
            expected.extend([b"FRAME\n".as_slice(), &[level, 0x80, 0x80]].concat());
        }
        assert_eq!(
            fs::read(folder.path().join("film-2.y4m")).unwrap(),
            expected
        );
    }

    #[test]
    fn a_folder_gets_a_png_for_each_frame_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/frames");
        let recorder = Recorder::start(&path).unwrap();
        for red in 0..3 {
            let reply = recorder.reply().unwrap();
            reply.send(shot((3, 2), [red, 0, 9])).unwrap();
        }
        drop(recorder);
        let mut names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3);
        for (red, name) in names.iter().enumerate() {
            assert!(name.starts_with(&format!("frame-{red:06}-")), "{name}");
            let file = io::BufReader::new(File::open(path.join(name)).unwrap());
            let mut reader = png::Decoder::new(file).read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut pixels).unwrap();
            assert_eq!(pixels, [red as u8, 0, 9].repeat(6));
        }
    }

    #[test]
    fn a_slow_writer_loses_frames_and_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(&folder.path().join("film.y4m")).unwrap();
        // The writer waits for the first frame, the others wait for the writer.
        let replies: Vec<_> = (0..WAITING + 5).filter_map(|_| recorder.reply()).collect();
        assert!((WAITING..WAITING + 3).contains(&replies.len()));
        assert!(recorder.0.lost.load(Ordering::Relaxed) >= 3);
        drop(replies);
        drop(recorder);
        let nowhere = Recorder::start(Path::new("/nonexistent/film.y4m"));
        assert!(nowhere.is_err());
    }
}
