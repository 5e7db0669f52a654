//! [`SavedStream`]: a copy of what a guest sends, see [`crate::RendererOptions::save_streams`].

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file that takes the commands of one thread.
pub(crate) struct SavedStream {
    file: Option<File>,
    path: PathBuf,
}

impl SavedStream {
    /// Makes a new file for a thread of the context. `None`, and a line in the log, when that
    /// fails.
    pub(crate) fn create(folder: &Path, context: u32) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("context-{context}-{number}.venus"));
            match File::create_new(&path) {
                Ok(file) => {
                    let file = Some(file);
                    return Some(Self { file, path });
                }
                // Another process had a context with this id, or an earlier Hesper.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    log::warn!(
                        "{}: cannot be made, so commands are not saved: {error}",
                        path.display()
                    );
                    return None;
                }
            }
        }
    }

    /// Adds whole commands.
    pub(crate) fn add(&mut self, commands: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(commands) {
            log::warn!("{}: ends here: {error}", self.path.display());
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        // Other tests of this process take numbers, too.
        for number in 1..100 {
            let path = folder.path().join(format!("context-7-{number}.venus"));
            std::fs::write(path, "theirs").unwrap();
        }
        let mut saved = SavedStream::create(folder.path(), 7).unwrap();
        saved.add(b"ours");
        let files = std::fs::read_dir(folder.path()).unwrap();
        let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        let (ours, theirs): (Vec<_>, Vec<_>) = texts.partition(|text| text == "ours");
        assert_eq!((ours.len(), theirs.len()), (1, 99));
        assert!(theirs.iter().all(|text| text == "theirs"));
    }
}
