//! Chooses the Vulkan library: one search for the renderer, the windows and `hesper doctor`.
//!
//! `--driver` names a library. Without it, the first of these that has a GPU is used:
//!
//! 1. the system's Vulkan loader, which reads `VK_DRIVER_FILES` and `VK_ICD_FILENAMES` itself;
//! 2. the drivers that these variables name, where there is no loader;
//! 3. on macOS: MoltenVK, then KosmicKrisp, from the dynamic linker's folders and from Homebrew's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hesper_venus::Driver;

/// Paths of the Vulkan loader: for the dynamic linker, and in Homebrew's folders.
const LOADERS: &[&str] = if cfg!(target_os = "macos") {
    &[
        "libvulkan.1.dylib",
        "libvulkan.dylib",
        "/opt/homebrew/lib/libvulkan.1.dylib",
        "/usr/local/lib/libvulkan.1.dylib",
    ]
} else {
    &["libvulkan.so.1"]
};

/// Paths of drivers that work without a loader.
const DRIVERS: &[&str] = if cfg!(target_os = "macos") {
    &[
        "libMoltenVK.dylib",
        "/opt/homebrew/lib/libMoltenVK.dylib",
        "/usr/local/lib/libMoltenVK.dylib",
        "libvulkan_kosmickrisp.dylib",
        "/opt/homebrew/lib/libvulkan_kosmickrisp.dylib",
        "/usr/local/lib/libvulkan_kosmickrisp.dylib",
    ]
} else {
    &[]
};

/// The loader's environment variables that name driver manifests.
const MANIFESTS: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

/// The variable and value for the number of unfinished command buffers that MoltenVK allows on a
/// queue. A submission beyond that waits in the driver and holds back all later commands of its
/// guest program. MoltenVK's default is 64.
#[cfg(any(target_os = "macos", test))]
const COMMAND_BUFFERS: (&str, &str) = (
    "MVK_CONFIG_MAX_ACTIVE_METAL_COMMAND_BUFFERS_PER_QUEUE",
    "1024",
);

/// Sets environment variables that drivers read, unless they are set. `main` calls it before it
/// starts threads.
pub(crate) fn prepare() {
    #[cfg(target_os = "macos")]
    if std::env::var_os(COMMAND_BUFFERS.0).is_none() {
        // SAFETY: the program has only one thread yet.
        unsafe { std::env::set_var(COMMAND_BUFFERS.0, COMMAND_BUFFERS.1) };
    }
}

/// Returns the library of `--driver=ASKED`, or the candidates of the search without it.
///
/// # Errors
/// A manifest that cannot be read, with the remedy.
pub(crate) fn choose(asked: Option<&Path>) -> Result<Driver, String> {
    match asked {
        Some(path) if is_manifest(path) => library_of(path).map(Driver::Library),
        Some(path) => Ok(Driver::Library(path.to_owned())),
        None => {
            let named = MANIFESTS.iter().filter_map(std::env::var_os);
            Ok(first_of(named.flat_map(manifests)))
        }
    }
}

/// The candidates of the search; `manifests` are those that the variables name.
fn first_of(manifests: impl Iterator<Item = PathBuf>) -> Driver {
    let named = manifests.filter_map(|manifest| match library_of(&manifest) {
        Ok(library) => Some(library),
        Err(error) => {
            // Where there is a loader, it reports the error in more detail.
            log::debug!("{error}");
            None
        }
    });
    let known = |libraries: &'static [&str]| libraries.iter().map(PathBuf::from);
    let all: Vec<PathBuf> = known(LOADERS).chain(named).chain(known(DRIVERS)).collect();
    Driver::FirstOf(all)
}

/// The manifests in a variable's list of paths.
fn manifests(variable: impl AsRef<OsStr>) -> Vec<PathBuf> {
    std::env::split_paths(&variable)
        .filter(|path| is_manifest(path))
        .collect()
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "json")
}

/// The library that a driver's manifest names.
fn library_of(manifest: &Path) -> Result<PathBuf, String> {
    let wrong = |what: &str| {
        format!(
            "{}: {what}; name a driver's library or its JSON manifest",
            manifest.display()
        )
    };
    let text = std::fs::read_to_string(manifest).map_err(|error| wrong(&error.to_string()))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let named = json
        .pointer("/ICD/library_path")
        .and_then(|path| path.as_str());
    let named = Path::new(named.ok_or_else(|| wrong("it names no ICD.library_path"))?);
    // A path is relative to the manifest's folder; the dynamic linker searches for a bare name.
    let is_path = named.components().count() > 1;
    let folder = manifest.parent().filter(|_| is_path);
    Ok(folder.map_or_else(|| named.to_owned(), |folder| folder.join(named)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("driver.json");
        std::fs::write(&manifest, text).unwrap();
        (folder, manifest)
    }

    #[test]
    fn a_manifest_names_a_library_from_where_it_is() {
        for (named, is_relative) in [
            ("libvulkan_lvp.so", false),
            ("/usr/lib/libvulkan_lvp.so", false),
            ("../lib/libMoltenVK.dylib", true),
        ] {
            let (folder, manifest) = written(&format!(r#"{{"ICD":{{"library_path":"{named}"}}}}"#));
            let expected = match is_relative {
                true => folder.path().join(named),
                false => named.into(),
            };
            assert_eq!(choose(Some(&manifest)), Ok(Driver::Library(expected)));
        }
    }

    #[test]
    fn a_broken_manifest_is_an_error_with_the_remedy() {
        for text in ["", "{}", r#"{"ICD":{"library_path":7}}"#] {
            let (_folder, manifest) = written(text);
            let error = choose(Some(&manifest)).unwrap_err();
            assert!(
                error.contains("driver.json") && error.contains("name a driver"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_variables_name_comes_after_the_loader() {
        let (_folder, manifest) = written(r#"{"ICD":{"library_path":"/some/driver.so"}}"#);
        let both = std::env::join_paths([Path::new("/no/such.json"), &manifest]).unwrap();
        let Driver::FirstOf(all) = first_of(manifests(both).into_iter()) else {
            panic!("one library only")
        };
        let place = |wanted: &str| all.iter().position(|one| one == Path::new(wanted));
        assert_eq!(place(LOADERS[0]), Some(0));
        assert_eq!(place("/some/driver.so"), Some(LOADERS.len()));
        assert_eq!(all.len(), LOADERS.len() + 1 + DRIVERS.len());
    }

    #[test]
    fn a_library_that_is_named_is_the_only_one() {
        let asked = choose(Some(Path::new("libMoltenVK.dylib")));
        assert_eq!(asked, Ok(Driver::Library("libMoltenVK.dylib".into())));
    }

    #[test]
    fn moltenvk_gets_more_command_buffers_than_its_default() {
        let number: u32 = COMMAND_BUFFERS.1.parse().unwrap();
        assert!(number > 64, "{}", COMMAND_BUFFERS.0);
    }
}
