//! Where windows were when they were last seen, kept in a small file of text:
//!
//! ```text
//! Hesper's windows 1
//! 0 1280x800 at 40,30
//! 1 640x480 at 1400,30 full-screen
//! ```
//!
//! Each line is a window: its number, its inner size, its outer place where the window system tells, and whether it fills the
//! screen; then size and place are those that it goes back to. The file is written when a window has come to rest
//! elsewhere than where it first was, whole or not at all: who never moves a window has no file. One that cannot be read is
//! as good as none.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::MAX_SCANOUTS;
use crate::picture::MAX_SIZE;

const HEAD: &str = "Hesper's windows 1";

/// More than 16 lines need.
const MOST_BYTES: u64 = 4096;

/// How a window lies on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowGeometry {
    /// In physical pixels, without frame.
    pub(crate) size: (u32, u32),
    /// The upper left corner of its frame on the desktop.
    pub(crate) position: Option<(i32, i32)>,
    pub(crate) full_screen: bool,
}

type Geometries = [Option<WindowGeometry>; MAX_SCANOUTS];

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct WindowPositions {
    /// `None`: nothing is remembered.
    file: Option<PathBuf>,
    places: Geometries,
}

impl WindowPositions {
    /// What `file` says, and from now on what happens.
    pub(crate) fn load(file: Option<&Path>) -> WindowPositions {
        let places = file.map_or_else(Geometries::default, |file| match read(file) {
            Ok(text) => parse(&text).unwrap_or_else(|| {
                log::warn!(
                    "{} does not say where windows were; it is written anew",
                    file.display()
                );
                Geometries::default()
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Geometries::default(),
            Err(error) => {
                log::warn!(
                    "the windows' places are forgotten: {}: {error}",
                    file.display()
                );
                Geometries::default()
            }
        });
        WindowPositions {
            file: file.map(Path::to_owned),
            places,
        }
    }

    /// Where this window was.
    pub(crate) fn geometry(&self, window: usize) -> Option<WindowGeometry> {
        self.places.get(window).copied().flatten()
    }

    /// A window has come to rest.
    pub(crate) fn note(&mut self, window: usize, place: WindowGeometry) {
        let (Some(file), Some(known)) = (&self.file, self.places.get_mut(window)) else {
            return;
        };
        // The size of a screen is not where a window goes back to.
        let place = match *known {
            Some(before) if place.full_screen => WindowGeometry {
                full_screen: true,
                ..before
            },
            _ => place,
        };
        match known.replace(place) {
            // Where the window system put it: nobody's wish.
            None => return,
            Some(before) if before == place => return,
            Some(_) => {}
        }
        if let Err(error) = write(file, &text(&self.places)) {
            log::warn!(
                "the windows' places cannot be remembered: {}: {error}; --placement=forget does without",
                file.display()
            );
            // Once is enough.
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

/// Replaces the file, so that nobody ever reads half of it.
fn write(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // Of two programs that use one file, the later wins.
    let mut new = file.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    fs::write(&new, text)?;
    fs::rename(&new, file).inspect_err(|_| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&new);
    })
}

fn text(places: &Geometries) -> String {
    let mut text = format!("{HEAD}\n");
    let known = places.iter().enumerate();
    for (window, place) in known.filter_map(|(window, place)| Some((window, place.as_ref()?))) {
        let (width, height) = place.size;
        // Writing to a String cannot fail.
        let _ = write!(text, "{window} {width}x{height}");
        if let Some((x, y)) = place.position {
            let _ = write!(text, " at {x},{y}");
        }
        text.push_str(if place.full_screen {
            " full-screen\n"
        } else {
            "\n"
        });
    }
    text
}

fn parse(text: &str) -> Option<Geometries> {
    let lines = text.strip_prefix(HEAD)?.strip_prefix('\n')?.lines();
    let mut places = Geometries::default();
    for line in lines {
        let (window, place) = parse_line(line)?;
        *places.get_mut(window)? = Some(place);
    }
    Some(places)
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
    let place = WindowGeometry {
        size,
        position,
        full_screen,
    };
    words.next().is_none().then_some((window, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(size: (u32, u32), position: Option<(i32, i32)>, full_screen: bool) -> WindowGeometry {
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
        positions.note(0, place((640, 400), Some((-7, 30)), false));
        positions.note(1, place((640, 400), None, false));
        assert!(!file.exists(), "nobody has moved anything");
        positions.note(1, place((800, 600), None, false));
        // Full screen, and on another monitor: it goes back to where it was.
        positions.note(1, place((1920, 1080), None, true));
        let text = "Hesper's windows 1\n0 640x400 at -7,30\n1 800x600 full-screen\n";
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        let positions = WindowPositions::load(Some(&file));
        assert_eq!(
            positions.geometry(0),
            Some(place((640, 400), Some((-7, 30)), false))
        );
        assert_eq!(positions.geometry(1), Some(place((800, 600), None, true)));
        assert_eq!(positions.geometry(2), None);
        let left = fs::read_dir(file.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "no file is left over");
    }

    #[test]
    fn nothing_is_written_while_nothing_changes_or_when_it_is_to_be_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vm");
        let mut positions = WindowPositions::load(Some(&file));
        let there = place((640, 400), None, false);
        positions.note(0, place((1, 1), None, false));
        positions.note(0, there);
        fs::remove_file(&file).unwrap();
        positions.note(0, there);
        assert!(!file.exists());
        let mut forgetful = WindowPositions::load(None);
        let mut other = WindowPositions::load(Some(&file));
        for size in [(1, 1), (2, 2)] {
            forgetful.note(0, place(size, None, false));
            other.note(99, place(size, None, false));
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
            positions.note(0, place((8, 8), None, false));
            positions.note(0, place((9, 9), None, false));
            let now = fs::read_to_string(&file).unwrap();
            assert_eq!(now, "Hesper's windows 1\n0 9x9\n");
        }
        fs::write(&file, b"\xff\xfe").unwrap();
        assert_eq!(WindowPositions::load(Some(&file)).geometry(0), None);
        // A place where nothing can be written is told once.
        let nowhere = file.join("no folder");
        let mut positions = WindowPositions::load(Some(&nowhere));
        positions.note(0, place((8, 8), None, false));
        positions.note(0, place((9, 9), None, false));
        assert_eq!(positions.file, None);
    }
}
