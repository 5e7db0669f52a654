//! The memory behind a cross-domain blob: an image that the guest shares with the compositor, or a
//! file that the compositor has sent, such as a keymap. The library makes images of whole pages,
//! and does not check the size of the compositor's files.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rutabaga_gfx::{RutabagaHandle, RutabagaIntoRawDescriptor};

/// The largest file that is copied. A file is copied if it cannot be mapped for writing or does not
/// end with a page. Compositors send keymaps and format tables, which never change. Only images are
/// written by both sides; they are writable and have whole pages, so they are not copied.
const COPIED: u64 = 16 << 20;

/// The largest page size of a guest, in bytes. A guest maps files in whole pages of its own.
const GUEST_PAGE: u64 = 64 << 10;

/// The descriptor of exported memory.
pub(super) fn descriptor(handle: RutabagaHandle) -> Result<OwnedFd, String> {
    let RutabagaHandle::MagmaGpuHandle(handle) = handle else {
        return Err("the memory is not a file descriptor".to_owned());
    };
    let fd = handle.os_handle.into_raw_descriptor();
    // SAFETY: on Linux, the handle's raw descriptor was an owned one, and `into_raw_descriptor`
    // gives up that ownership.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns a descriptor of at least `size` bytes (whole pages) that can be mapped for reading and
/// writing.
pub(super) fn mappable(fd: OwnedFd, size: u64) -> Result<OwnedFd, String> {
    let failed = |error: io::Error| format!("cannot examine the compositor's file: {error}");
    // Only seeking returns the size of a dma-buf.
    let there = rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0))
        .map_err(|error| failed(error.into()))?;
    if there.next_multiple_of(GUEST_PAGE) < size {
        return Err(format!(
            "the compositor's file has {there} bytes, not {size}"
        ));
    }
    let mode = rustix::fs::fcntl_getfl(&fd).map_err(|error| failed(error.into()))?;
    // A file without support for seals has none.
    let seals = rustix::fs::fcntl_get_seals(&fd).unwrap_or(SealFlags::empty());
    let sealed = seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
    // QEMU maps whole pages only.
    if mode & OFlags::ACCMODE == OFlags::RDWR && !sealed && there >= size {
        return Ok(fd);
    }
    if size > COPIED {
        return Err(format!(
            "the compositor's file of {there} bytes cannot be mapped for writing or is not whole pages, and is larger than the {COPIED} bytes that are copied"
        ));
    }
    copy(&File::from(fd), there.min(size), size).map_err(failed)
}

fn copy(from: &File, length: u64, size: u64) -> io::Result<OwnedFd> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    from.read_exact_at(&mut bytes, 0)?;
    let copy = rustix::fs::memfd_create("hesper-cross-domain", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&copy, size)?;
    let copy = File::from(copy);
    copy.write_all_at(&bytes, 0)?;
    Ok(copy.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> File {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        let file = File::from(fd);
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn reads(fd: OwnedFd, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xee; length];
        File::from(fd).read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_keymap_that_cannot_be_written_becomes_a_copy_that_can() {
        let keymap = file(b"xkb_keymap {}");
        rustix::fs::fcntl_add_seals(&keymap, SealFlags::WRITE).unwrap();
        let copy = File::from(mappable(keymap.into(), 4096).unwrap());
        copy.write_all_at(b"!", 4095).unwrap();
        assert_eq!(reads(copy.into(), 13), b"xkb_keymap {}");
    }

    #[test]
    fn a_writable_file_is_not_copied() {
        let pixels = file(&[7; 8192]);
        let same = pixels.try_clone().unwrap();
        let mapped = mappable(pixels.into(), 8192).unwrap();
        same.write_all_at(b"new", 5000).unwrap();
        assert_eq!(reads(mapped, 5003).split_off(5000), b"new");
    }

    #[test]
    fn a_file_shorter_than_the_blob_is_refused() {
        // Access to pages past the file's end would kill the process.
        let whole = mappable(file(&[1; 4097]).into(), 8192).unwrap();
        assert_eq!(File::from(whole).metadata().unwrap().len(), 8192);
        // A guest's pages may be 64 KiB large.
        let whole = mappable(file(&[1; 4097]).into(), 65536).unwrap();
        assert_eq!(File::from(whole).metadata().unwrap().len(), 65536);
        assert!(mappable(file(&[1; 4097]).into(), 65536 + 4096).is_err());
    }
}
