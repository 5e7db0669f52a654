//! The windows' positions and sizes, kept in a small text file:
//!
//! ```text
//! Hesper's windows 1
//! 0 1280x800 at 40,30
//! 1 640x480 at 1400,30 full-screen
//! ```
//!
//! Each line is a window: its number, its inner size, its outer position where the window system
//! tells it, and whether it is in full screen. For a window in full screen, size and position are
//! those to which it goes back. The file is written when a window has come to rest somewhere else
//! than where it first was. A user who never moves a window has no file. The file is replaced as a
//! whole. A file that cannot be read is ignored.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::MAX_SCANOUTS;
use crate::picture::MAX_SIZE;

const HEAD: &str = "Hesper's windows 1";

/// More than 16 lines need.
const MOST_BYTES: u64 = 4096;

/// Size and position of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowGeometry {
    /// Inner size in physical pixels.
    pub(crate) size: (u32, u32),
    /// The upper left corner of the window's frame on the desktop; `None` where the window system
    /// does not tell.
    pub(crate) position: Option<(i32, i32)>,
    pub(crate) full_screen: bool,
}

type Geometries = [Option<WindowGeometry>; MAX_SCANOUTS];

/// The windows' positions and sizes, and the file that keeps them.
#[derive(Debug, Default)]
pub(crate) struct WindowPositions {
    /// `None`: nothing is kept.
    file: Option<PathBuf>,
    geometries: Geometries,
}

impl WindowPositions {
    /// Reads `file`. Later changes are written to it.
    pub(crate) fn load(file: Option<&Path>) -> WindowPositions {
        let geometries = file.map_or_else(Geometries::default, |file| match read(file) {
            Ok(text) => parse(&text).unwrap_or_else(|| {
                log::warn!(
                    "{} holds no window positions; the next change overwrites it",
                    file.display()
                );
                Geometries::default()
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Geometries::default(),
            Err(error) => {
                log::warn!(
                    "cannot read the window positions in {}: {error}",
                    file.display()
                );
                Geometries::default()
            }
        });
        WindowPositions {
            file: file.map(Path::to_owned),
            geometries,
        }
    }

    /// Where this window was, if that is known.
    pub(crate) fn geometry(&self, window: usize) -> Option<WindowGeometry> {
        self.geometries.get(window).copied().flatten()
    }

    /// A window has come to rest.
    pub(crate) fn note(&mut self, window: usize, geometry: WindowGeometry) {
        let (Some(file), Some(known)) = (&self.file, self.geometries.get_mut(window)) else {
            return;
        };
        // A window in full screen goes back to its former size, which is not the screen's.
        let geometry = match *known {
            Some(before) if geometry.full_screen => WindowGeometry {
                full_screen: true,
                ..before
            },
            _ => geometry,
        };
        match known.replace(geometry) {
            // The first position is the window system's choice and not the user's.
            None => return,
            Some(before) if before == geometry => return,
            Some(_) => {}
        }
        if let Err(error) = write(file, &text(&self.geometries)) {
            log::warn!(
                "cannot write the window positions to {}: {error}; --placement=forget needs no file",
                file.display()
            );
            // One warning is enough.
            self.file = None;
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?
        .take(MOST_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces the file as a whole, so that nobody ever reads half of it.
fn write(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // If two programs use one file, the later one wins.
    let mut new = file.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    fs::write(&new, text)?;
    fs::rename(&new, file).inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&new);
    })
}

fn text(geometries: &Geometries) -> String {
    let mut text = format!("{HEAD}\n");
    let known = geometries.iter().enumerate();
    for (window, geometry) in
        known.filter_map(|(window, geometry)| Some((window, geometry.as_ref()?)))
    {
        let (width, height) = geometry.size;
        // Writing to a String cannot fail.
        let _ = write!(text, "{window} {width}x{height}");
        if let Some((x, y)) = geometry.position {
            let _ = write!(text, " at {x},{y}");
        }
        text.push_str(if geometry.full_screen {
            " full-screen\n"
        } else {
            "\n"
        });
    }
    text
}

fn parse(text: &str) -> Option<Geometries> {
    let lines = text.strip_prefix(HEAD)?.strip_prefix('\n')?.lines();
    let mut geometries = Geometries::default();
    for line in lines {
        let (window, geometry) = parse_line(line)?;
        *geometries.get_mut(window)? = Some(geometry);
    }
    Some(geometries)
}

fn parse_line(line: &str) -> Option<(usize, WindowGeometry)> {
    let mut words = line.split(' ').peekable();
    let window = words.next()?.parse().ok()?;
    let (width, height) = words.next()?.split_once('x')?;
    let size = (width.parse().ok()?, height.parse().ok()?);
    let sane = |side| (1..=MAX_SIZE).contains(&side);
    if !sane(size.0) || !sane(size.1) {
        return None;
    }
    let mut position = None;
    if words.next_if_eq(&"at").is_some() {
        let (x, y) = words.next()?.split_once(',')?;
        position = Some((x.parse().ok()?, y.parse().ok()?));
    }
    let full_screen = words.next_if_eq(&"full-screen").is_some();
    let geometry = WindowGeometry {
        size,
        position,
        full_screen,
    };
    words.next().is_none().then_some((window, geometry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(
        size: (u32, u32),
        position: Option<(i32, i32)>,
        full_screen: bool,
    ) -> WindowGeometry {
        WindowGeometry {
            size,
            position,
            full_screen,
        }
    }

    #[test]
    fn what_is_noted_is_there_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/vm");
        let mut positions = WindowPositions::load(Some(&file));
        assert_eq!(positions.geometry(0), None);
        positions.note(0, geometry((640, 400), Some((-7, 30)), false));
        positions.note(1, geometry((640, 400), None, false));
        assert!(!file.exists(), "nobody has moved anything");
        positions.note(1, geometry((800, 600), None, false));
        // Full screen, and on another monitor: the window goes back to where it was.
        positions.note(1, geometry((1920, 1080), None, true));
        let text = "Hesper's windows 1\n0 640x400 at -7,30\n1 800x600 full-screen\n";
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        let positions = WindowPositions::load(Some(&file));
        assert_eq!(
            positions.geometry(0),
            Some(geometry((640, 400), Some((-7, 30)), false))
        );
        assert_eq!(
            positions.geometry(1),
            Some(geometry((800, 600), None, true))
        );
        assert_eq!(positions.geometry(2), None);
        let left = fs::read_dir(file.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "no file is left over");
    }

    #[test]
    fn nothing_is_written_while_nothing_changes_or_when_it_is_to_be_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vm");
        let mut positions = WindowPositions::load(Some(&file));
        let there = geometry((640, 400), None, false);
        positions.note(0, geometry((1, 1), None, false));
        positions.note(0, there);
        fs::remove_file(&file).unwrap();
        positions.note(0, there);
        assert!(!file.exists());
        let mut forgetful = WindowPositions::load(None);
        let mut other = WindowPositions::load(Some(&file));
        for size in [(1, 1), (2, 2)] {
            forgetful.note(0, geometry(size, None, false));
            other.note(99, geometry(size, None, false));
        }
        assert!(!file.exists());
    }

    #[test]
    fn a_broken_file_is_ignored_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vm");
        let long = format!("{HEAD}\n{}", "0 1x1\n".repeat(9999));
        for broken in [
            "",
            "Hesper's windows 2\n",
            "Hesper's windows 1\n0\n",
            "Hesper's windows 1\n0 640x400 at\n",
            "Hesper's windows 1\n0 640x400 at 1\n",
            "Hesper's windows 1\n0 640x99999\n",
            "Hesper's windows 1\n0 0x9\n",
            "Hesper's windows 1\n16 640x400\n",
            "Hesper's windows 1\n0 640x400 half-screen\n",
            "Hesper's windows 1\n0 640x400 full-screen more\n",
            "Hesper's windows 1\n0 640x400 at 1,99999999999\n",
            &long,
        ] {
            fs::write(&file, broken).unwrap();
            let mut positions = WindowPositions::load(Some(&file));
            assert_eq!(positions.geometry(0), None, "{broken:?}");
            positions.note(0, geometry((8, 8), None, false));
            positions.note(0, geometry((9, 9), None, false));
            let now = fs::read_to_string(&file).unwrap();
            assert_eq!(now, "Hesper's windows 1\n0 9x9\n");
        }
        fs::write(&file, b"\xff\xfe").unwrap();
        assert_eq!(WindowPositions::load(Some(&file)).geometry(0), None);
        // A file that cannot be written is reported once.
        let nowhere = file.join("no folder");
        let mut positions = WindowPositions::load(Some(&nowhere));
        positions.note(0, geometry((8, 8), None, false));
        positions.note(0, geometry((9, 9), None, false));
        assert_eq!(positions.file, None);
    }
}
