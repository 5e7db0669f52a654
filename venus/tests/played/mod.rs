//! The null driver in a role. Each [`Played`] is a copy of the library under its own name, with its
//! own statics. So the tests of one process have different drivers at the same time.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each user takes its part, and a test ends with a panic"
)]

pub mod choice;

#[path = "../null/mod.rs"]
mod null;

use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use ash::vk;
use hesper_null_driver::card::{Card, PLAY};
use hesper_null_driver::hang::{ARRIVED, HANG};
use hesper_null_driver::version::{PLAY_VERSION, Version};
use hesper_venus::Driver;

/// A driver of its own. The file is removed on drop; what was loaded of it stays.
pub struct Played {
    path: PathBuf,
    entry: ash::Entry,
}

impl Played {
    /// A new driver with the null driver's default role.
    pub fn new() -> Self {
        static COPIES: AtomicU32 = AtomicU32::new(0);
        let copy = format!(
            "hesper-null-{}-{}{}",
            std::process::id(),
            COPIES.fetch_add(1, Ordering::Relaxed),
            std::env::consts::DLL_SUFFIX
        );
        let path = std::env::temp_dir().join(copy);
        std::fs::copy(null::library(), &path).unwrap();
        // SAFETY: a library of this workspace, which does nothing when it is loaded.
        let entry = unsafe { ash::Entry::load_from(&path) }.unwrap();
        Self { path, entry }
    }

    /// A driver with this card.
    pub fn card(card: &Card) -> Self {
        let played = Self::new();
        let play = played.function(PLAY);
        // SAFETY: the function of that name has this type.
        let play = unsafe {
            std::mem::transmute::<unsafe extern "system" fn(), unsafe extern "system" fn(*const Card)>(
                play,
            )
        };
        // SAFETY: the card is of the same crate as the library.
        unsafe { play(card) };
        played
    }

    /// A driver of this version.
    pub fn version(version: &Version) -> Self {
        let played = Self::new();
        let play = played.function(PLAY_VERSION);
        // SAFETY: the function of that name has this type.
        let play = unsafe {
            std::mem::transmute::<
                unsafe extern "system" fn(),
                unsafe extern "system" fn(*const Version),
            >(play)
        };
        // SAFETY: the version is of the same crate as the library, its strings are constants.
        unsafe { play(version) };
        played
    }

    /// Makes these calls hang, and lets others return.
    pub fn hang(&self, calls: u32) {
        let hang = self.function(HANG);
        // SAFETY: the function of that name has this type.
        let hang = unsafe {
            std::mem::transmute::<unsafe extern "system" fn(), extern "system" fn(u32)>(hang)
        };
        hang(calls);
    }

    /// How many calls there were of those that can hang.
    pub fn arrived(&self) -> u64 {
        let arrived = self.function(ARRIVED);
        // SAFETY: the function of that name has this type.
        let arrived = unsafe {
            std::mem::transmute::<unsafe extern "system" fn(), extern "system" fn() -> u64>(arrived)
        };
        arrived()
    }

    /// One of the functions that tell the driver what to play.
    pub fn function(&self, name: &CStr) -> unsafe extern "system" fn() {
        // SAFETY: the driver answers by name.
        let function = unsafe {
            self.entry
                .get_instance_proc_addr(vk::Instance::null(), name.as_ptr())
        };
        function.unwrap_or_else(|| panic!("the null driver has no {name:?}"))
    }

    /// The driver for a renderer.
    pub fn driver(&self) -> Driver {
        Driver::Library(self.path.clone())
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        // A leftover file in a temporary folder does no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}
