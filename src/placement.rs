//! Chooses where Hesper writes in the user's state folder: a file for each VM's window positions,
//! and the screenshots of Ctrl+Alt+S.

use std::env;
use std::path::PathBuf;

use crate::cli::{PlacementChoice, ServeOptions};

/// The longest name of such a file. File systems allow 255 bytes; the display appends a suffix
/// while it writes.
const LONGEST_NAME: usize = 200;

/// The file for this VM; `None` with `--placement=forget`, and for a VM without a name and a socket
/// path.
pub(crate) fn file(options: &ServeOptions) -> Option<PathBuf> {
    if options.placement == PlacementChoice::Forget {
        return None;
    }
    let name = match (&options.name, &options.socket.socket_path) {
        (Some(name), _) => format!("name {name}"),
        (None, Some(path)) => {
            let path = std::path::absolute(path).ok()?;
            format!("socket {}", path.display())
        }
        (None, None) => return None,
    };
    let folder = state_folder(|name| env::var_os(name).map(PathBuf::from))?;
    Some(folder.join("hesper/windows").join(file_name(&name)))
}

/// The folder for the screenshots of Ctrl+Alt+S.
pub(crate) fn screenshots(options: &ServeOptions) -> PathBuf {
    let usual = || {
        let folder = state_folder(|name| env::var_os(name).map(PathBuf::from));
        folder.map(|folder| folder.join("hesper/screenshots"))
    };
    let asked = options.screenshots.clone().or_else(usual);
    asked.unwrap_or_else(|| PathBuf::from("."))
}

/// The user's folder for programs' state.
fn state_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The XDG base directory specification: paths that are not absolute are ignored.
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let home = |rest: &str| absolute("HOME").map(|home| home.join(rest));
    if cfg!(target_os = "macos") {
        return home("Library/Application Support");
    }
    absolute("XDG_STATE_HOME").or_else(|| home(".local/state"))
}

/// Makes a file name from any text: other bytes than letters, digits, `.`, `-` and `_` become `%`
/// and their code in hexadecimal. A very long name is cut at the front, because paths differ at the
/// end.
fn file_name(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    let start = name.len().saturating_sub(LONGEST_NAME);
    name.get(start..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_text_has_a_name_without_folders() {
        assert_eq!(file_name("name my VM"), "name%20my%20VM");
        assert_eq!(file_name("socket /a/../b"), "socket%20%2fa%2f..%2fb");
        assert_eq!(file_name("é"), "%c3%a9");
        let long = file_name(&"/x".repeat(999));
        assert_eq!(long.len(), LONGEST_NAME);
        assert!(long.ends_with("%2fx"));
    }

    #[test]
    fn the_state_folder_is_the_users() {
        let folder = |state: Option<&str>, home: Option<&str>| {
            state_folder(|name| match name {
                "XDG_STATE_HOME" => state.map(PathBuf::from),
                _ => home.map(PathBuf::from),
            })
        };
        let (path, home) = (Path::new("/state"), Some("/home/x"));
        if cfg!(target_os = "macos") {
            let there = Path::new("/home/x/Library/Application Support");
            assert_eq!(folder(Some("/state"), home).as_deref(), Some(there));
        } else {
            assert_eq!(folder(Some("/state"), home).as_deref(), Some(path));
            let there = Path::new("/home/x/.local/state");
            assert_eq!(folder(Some("relative"), home).as_deref(), Some(there));
            assert_eq!(folder(None, home).as_deref(), Some(there));
        }
        assert_eq!(folder(None, None), None);
    }
}
