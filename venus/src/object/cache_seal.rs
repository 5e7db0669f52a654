//! [`CacheSeal`]: what shows that pipeline-cache data came from this host's driver.
//!
//! Drivers trust such data: it holds machine code and offsets. A guest keeps it in files that any
//! of its programs may change. So the data that a guest gets ends with a message authentication
//! code, and only data with a right code goes back to the driver. Vulkan allows a driver to ignore
//! data that it does not know, so everything else is ignored.
//!
//! The key is kept in a file of the host's user, so that caches outlive Hesper. Without such a file
//! it lasts as long as the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Bytes behind the driver's data: [`MAGIC`] and the code.
pub(crate) const SEAL: usize = MAGIC.len() + 32;

/// Shows where the code begins, and which kind it is.
const MAGIC: [u8; 8] = *b"hesperC1";

/// Bytes of the key.
const KEY: usize = 32;

/// Makes and checks the codes.
pub(crate) struct CacheSeal([u8; KEY]);

impl CacheSeal {
    /// That of the host's user. The key is read when it is asked for the first time.
    pub(crate) fn of_user() -> &'static Self {
        static SEAL: OnceLock<CacheSeal> = OnceLock::new();
        SEAL.get_or_init(|| {
            let kept = key_file().map(|file| read_or_make(&file).map_err(|error| (file, error)));
            match kept {
                Some(Ok(key)) => return Self(key),
                Some(Err((file, error))) => log::warn!(
                    "guests' pipeline caches are lost when Hesper ends, because their key cannot be kept in {}: {error}",
                    file.display()
                ),
                None => log::info!(
                    "guests' pipeline caches are lost when Hesper ends, because neither XDG_STATE_HOME nor HOME says where to keep their key"
                ),
            }
            Self(fresh_key().unwrap_or_else(|error| {
                // Without a secret, no data may be taken back: a key that nobody knows would need
                // the random numbers that are missing.
                log::warn!("guests' pipeline caches are ignored: the system has no random numbers: {error}");
                [0; KEY]
            }))
        })
    }

    fn code(&self, data: &[u8]) -> Option<Hmac<Sha256>> {
        // No secret, no code.
        if self.0 == [0; KEY] {
            return None;
        }
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        code.update(&MAGIC);
        code.update(data);
        Some(code)
    }

    /// What is put behind data of the driver.
    pub(crate) fn seal(&self, data: &[u8]) -> [u8; SEAL] {
        let mut seal = [0; SEAL];
        let (magic, place) = seal.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        if let Some(code) = self.code(data) {
            place.copy_from_slice(&code.finalize().into_bytes());
        }
        seal
    }

    /// The driver's data inside of sealed data, if the seal is right. It is compared in constant
    /// time.
    pub(crate) fn open<'d>(&self, sealed: &'d [u8]) -> Option<&'d [u8]> {
        let (data, seal) = sealed.split_at_checked(sealed.len().checked_sub(SEAL)?)?;
        let code = seal.strip_prefix(&MAGIC)?;
        self.code(data)?.verify_slice(code).ok()?;
        Some(data)
    }
}

/// The file of the key.
fn key_file() -> Option<PathBuf> {
    let absolute = |name| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let state = absolute("XDG_STATE_HOME");
    let state = state.or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("hesper/pipeline-cache.key"))
}

fn fresh_key() -> io::Result<[u8; KEY]> {
    let mut key = [0; KEY];
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(key)
}

/// The key in a file, which is made if it does not exist.
fn read_or_make(file: &Path) -> io::Result<[u8; KEY]> {
    match read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    // Another process may do the same. The file appears whole, and the first one stays.
    let own = file.with_extension(format!("{}.new", std::process::id()));
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&own)
        .and_then(|mut made| {
            made.write_all(&fresh_key()?)?;
            made.sync_all()
        });
    let linked = made.and_then(|()| fs::hard_link(&own, file));
    let _ = fs::remove_file(&own);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read(file),
    }
}

fn read(file: &Path) -> io::Result<[u8; KEY]> {
    let mut open = File::open(file)?;
    if open.metadata()?.mode() & 0o077 != 0 {
        return Err(io::Error::other(
            "others may read it; remove it or set its mode to 0600",
        ));
    }
    let mut key = [0; KEY];
    open.read_exact(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_data_is_opened_and_a_flipped_bit_is_not() {
        let seal = CacheSeal([7; KEY]);
        for data in [&b""[..], b"data of a driver"] {
            let sealed = [data, &seal.seal(data)].concat();
            assert_eq!(seal.open(&sealed), Some(data));
            for bit in 0..sealed.len() * 8 {
                let mut spoiled = sealed.clone();
                spoiled[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(seal.open(&spoiled), None, "bit {bit}");
            }
            assert_eq!(seal.open(&sealed[1..]), None);
            assert_eq!(CacheSeal([8; KEY]).open(&sealed), None, "another key");
        }
        assert_eq!(seal.open(b"short"), None);
    }

    #[test]
    fn without_a_secret_nothing_is_opened() {
        let seal = CacheSeal([0; KEY]);
        assert_eq!(seal.open(&seal.seal(b"")), None);
    }

    #[test]
    fn a_key_is_made_once_and_only_its_user_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/hesper/key");
        let key = read_or_make(&file).unwrap();
        assert_ne!(key, [0; KEY]);
        assert_eq!(read_or_make(&file).unwrap(), key);
        let mode = fs::metadata(&file).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_or_make(&file).is_err());
    }
}
