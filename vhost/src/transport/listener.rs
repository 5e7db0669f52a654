//! Listening sockets and their files.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use hesper_system::sync::Lock;
use rustix::fs::Mode;
use rustix::process::umask;

use super::Error;

/// Longest path of a unix socket in bytes: `sun_path` without its NUL.
pub const MAX_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Refuses a path that is too long for a socket.
///
/// # Errors
/// [`Error::TooLong`].
pub fn check_length(path: &Path) -> Result<(), Error> {
    let length = path.as_os_str().len();
    if length <= MAX_PATH {
        return Ok(());
    }
    Err(Error::TooLong {
        path: path.to_owned(),
        length,
        most: MAX_PATH,
    })
}

/// The file of a listening socket. It is removed on drop, unless another process has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Takes over the file that is at `path` now.
    ///
    /// # Errors
    /// The system's error, when the file cannot be examined.
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Who may connect to a socket, whatever the process's umask is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Only the owner.
    #[default]
    Private,
    /// Whom the permissions of the file allow: an octal mode, such as 0o660.
    Mode(u32),
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Mode(mode) => mode & 0o777,
        }
    }
}

/// Binds `path` so that nobody but the owner can connect before the file has its mode. Between
/// `bind` and the change of the mode, only the umask protects the file. The umask belongs to the
/// whole process. Other threads that make files meanwhile make private ones.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    static UMASK: Mutex<()> = Mutex::new(());
    let _alone = UMASK.locked();
    let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

/// Listens on `path`. A socket file that nobody listens on any more is replaced. The file is
/// removed when the returned [`SocketFile`] is dropped.
///
/// # Errors
/// [`Error::TooLong`], [`Error::InUse`], [`Error::NotASocket`] or [`Error::Listen`].
pub fn listen(path: &Path, access: Access) -> Result<(UnixListener, SocketFile), Error> {
    check_length(path)?;
    let listener = match bind_named(path, access) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            bind_named(path, access)
        }
        result => result,
    };
    let listener = listener.map_err(Error::listening(path))?;
    let file = SocketFile::new(path).map_err(Error::listening(path))?;
    Ok((listener, file))
}

/// Binds `path` so that the file appears only when one can connect and when its mode is right. A
/// script that waits for the file would otherwise be refused between `bind` and `listen`.
fn bind_named(path: &Path, access: Access) -> io::Result<UnixListener> {
    let mut early = path.as_os_str().to_owned();
    early.push(format!(".{}", std::process::id()));
    let early = Path::new(&early);
    let listener = match bind_private(early) {
        // The other name is too long for a socket, or it is taken. The file then appears a moment
        // early.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::AddrInUse
            ) =>
        {
            let listener = bind_private(path)?;
            restrict(path, access)?;
            return Ok(listener);
        }
        result => result?,
    };
    restrict(early, access)?;
    // Unlike renaming, linking replaces no file.
    let named = match std::fs::hard_link(early, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::ErrorKind::AddrInUse.into())
        }
        // Some file systems have no hard links.
        Err(_) => bind_private(path).map(Some),
        Ok(()) => Ok(None),
    };
    std::fs::remove_file(early)?;
    let Some(listener_of_path) = named? else {
        return Ok(listener);
    };
    restrict(path, access)?;
    Ok(listener_of_path)
}

fn restrict(path: &Path, access: Access) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(access.mode()))
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let metadata = std::fs::symlink_metadata(path).map_err(Error::listening(path))?;
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(Error::listening(path))
        }
        _ => Err(Error::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_socket_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "s".to_owned(),
            "x".repeat(MAX_PATH - 1 - folder.path().as_os_str().len()),
        ] {
            let path = folder.path().join(name);
            let listening = listen(&path, Access::Private).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            UnixStream::connect(&path).unwrap();
            drop(listening);
            assert!(!path.exists(), "the file stays behind");
        }
    }

    #[test]
    fn a_mode_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660, 0o777] {
            let path = folder.path().join(format!("{mode:o}"));
            let _listening = listen(&path, Access::Mode(mode)).unwrap();
            let is = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(is & 0o777, mode);
        }
    }

    #[test]
    fn a_file_that_another_process_has_put_in_its_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (_listener, file) = listen(&path, Access::Private).unwrap();
        let other = folder.path().join("other");
        let _other = UnixListener::bind(&other).unwrap();
        std::fs::rename(other, &path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
