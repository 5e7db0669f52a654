//! Unix sockets that only the user who runs Hesper may connect to.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use hesper_vhost::transport::SocketFile;

/// Listens on `path`. A socket file that nobody listens on any more is replaced.
///
/// # Errors
/// The system's, and one that says so when somebody listens already or the file is no socket.
pub(crate) fn bind_private(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    // Only once the mode is right may the socket have its name: between bind and chmod anybody could connect.
    let mut private = path.as_os_str().to_owned();
    private.push(format!(".{}", std::process::id()));
    let private = Path::new(&private);
    let listener = UnixListener::bind(private)?;
    std::fs::set_permissions(private, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(private, path)?;
    Ok((listener, SocketFile::new(path)?))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::Error::other(
            "exists and is not a socket; choose another path or remove it",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Err(io::Error::other(
            "another process listens on this socket; choose another path",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stale_socket_is_replaced_and_only_the_owner_may_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = bind_private(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        let taken = bind_private(&path).unwrap_err();
        assert!(
            taken.to_string().contains("another process listens"),
            "{taken}"
        );
        drop((listener, file));

        assert!(!path.exists(), "the file stays behind");
        std::fs::write(&path, "precious").unwrap();
        let file = bind_private(&path).unwrap_err();
        assert!(file.to_string().contains("not a socket"), "{file}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_file_that_another_process_has_put_in_its_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (_listener, file) = bind_private(&path).unwrap();
        let other = folder.path().join("other");
        let _other = UnixListener::bind(&other).unwrap();
        std::fs::rename(other, &path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
