//! [`SavedStream`]: a copy of what a guest sends, see [`crate::RendererOptions::save_streams`].

use std::fs::File;
use std::io::Write;
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
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("context-{context}-{number}.venus"));
        match File::create_new(&path) {
            Ok(file) => Some(Self {
                file: Some(file),
                path,
            }),
            Err(error) => {
                log::warn!(
                    "{}: cannot be made, so commands are not saved: {error}",
                    path.display()
                );
                None
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
