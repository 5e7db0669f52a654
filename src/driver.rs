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

/// The loader's variable that names, by the file names of their manifests, the drivers to load.
#[cfg(target_os = "linux")]
const SELECT: &str = "VK_LOADER_DRIVERS_SELECT";

/// The loader's variables by which a user chooses drivers.
#[cfg(target_os = "linux")]
const CHOICES: [&str; 5] = [
    MANIFESTS[0],
    MANIFESTS[1],
    SELECT,
    "VK_ADD_DRIVER_FILES",
    "VK_LOADER_DRIVERS_DISABLE",
];

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

/// Lets the Vulkan loader load only the drivers with these libraries in this process, and not all
/// that are installed. It loads them all if it is older than 1.3.234, if a manifest is not found,
/// or if the user has chosen some. Call it before other threads start.
#[cfg(target_os = "linux")]
pub(crate) fn load_only(libraries: &[&str]) {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if CHOICES.iter().any(|name| variable(name).is_some()) {
        return;
    }
    let folders = folders_of_manifests(&variable);
    let found = folders.iter().flat_map(|folder| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path()))
    });
    if let Some(names) = names_of_manifests(found, libraries) {
        // SAFETY: as the caller promises, the program has only one thread yet.
        unsafe { std::env::set_var(SELECT, names) };
    }
}

/// Other systems have one driver, usually without a loader.
#[cfg(not(target_os = "linux"))]
pub(crate) fn load_only(_libraries: &[&str]) {}

/// The folders in which the loader looks for manifests of drivers on Linux (*Driver Manifest File
/// Usage* in its documentation).
#[cfg(any(target_os = "linux", test))]
fn folders_of_manifests(variable: &impl Fn(&str) -> Option<std::ffi::OsString>) -> Vec<PathBuf> {
    let home = variable("HOME").map(PathBuf::from);
    let of_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
    let own = |name: &str, rest: &str| variable(name).map(PathBuf::from).or_else(|| of_home(rest));
    let shared = |name: &str, usual: &str| {
        let value = variable(name).unwrap_or_else(|| usual.into());
        std::env::split_paths(&value).collect::<Vec<_>>()
    };
    let own = [
        own("XDG_CONFIG_HOME", ".config"),
        own("XDG_DATA_HOME", ".local/share"),
        of_home(".local/share"),
    ];
    let system = ["/etc", "/usr/local/etc"].map(PathBuf::from);
    let all = own.into_iter().flatten().chain(system);
    let all = all
        .chain(shared("XDG_CONFIG_DIRS", "/etc/xdg"))
        .chain(shared("XDG_DATA_DIRS", "/usr/local/share:/usr/share"));
    let mut folders: Vec<PathBuf> = all.map(|folder| folder.join("vulkan/icd.d")).collect();
    folders.sort();
    folders.dedup();
    folders
}

/// The file names of the manifests that name one of `libraries`, as the loader's variable wants
/// them. `None` unless there is one for each library.
#[cfg(any(target_os = "linux", test))]
fn names_of_manifests(
    manifests: impl Iterator<Item = PathBuf>,
    libraries: &[&str],
) -> Option<String> {
    let mut missing: Vec<&str> = libraries.to_vec();
    let mut names = Vec::new();
    for manifest in manifests.filter(|path| is_manifest(path)) {
        let Ok(library) = library_of(&manifest) else {
            continue;
        };
        let library = library.file_name().and_then(OsStr::to_str);
        let Some(library) = library.filter(|library| libraries.contains(library)) else {
            continue;
        };
        missing.retain(|missing| *missing != library);
        names.push(manifest.file_name()?.to_str()?.to_owned());
    }
    // These characters have a meaning in the variable.
    let is_plain = |name: &String| !name.contains([',', '*']);
    let is_whole = missing.is_empty() && !names.is_empty() && names.iter().all(is_plain);
    is_whole.then(|| names.join(","))
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
    fn the_manifests_of_some_libraries_are_found_where_the_loader_looks() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("share/vulkan/icd.d");
        std::fs::create_dir_all(&manifests).unwrap();
        for (name, library) in [
            ("lvp_icd.json", "libvulkan_lvp.so"),
            ("lvp_icd.i686.json", "libvulkan_lvp.so"),
            ("radeon.json", "/usr/lib/libvulkan_radeon.so"),
            ("a,b.json", "libvulkan_strange.so"),
            ("broken.json", "\""),
            ("readme", "libvulkan_lvp.so"),
        ] {
            let text = format!(r#"{{"ICD":{{"library_path":"{library}"}}}}"#);
            std::fs::write(manifests.join(name), text).unwrap();
        }
        let share = folder.path().join("share");
        let variable = |name: &str| match name {
            "XDG_DATA_DIRS" => Some(share.clone().into_os_string()),
            "HOME" => Some("/home/ann".into()),
            _ => None,
        };
        let folders = folders_of_manifests(&variable);
        for expected in [
            Path::new("/home/ann/.config/vulkan/icd.d"),
            Path::new("/etc/vulkan/icd.d"),
            Path::new("/etc/xdg/vulkan/icd.d"),
            &manifests,
        ] {
            assert!(folders.iter().any(|one| one == expected), "{folders:?}");
        }
        let names = |libraries: &[&str]| {
            let entries = std::fs::read_dir(&manifests).unwrap();
            let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            names_of_manifests(paths.into_iter(), libraries)
        };
        let lavapipe = "libvulkan_lvp.so";
        let all = "lvp_icd.i686.json,lvp_icd.json,radeon.json";
        let found = names(&[lavapipe, "libvulkan_radeon.so"]);
        assert_eq!(found.as_deref(), Some(all));
        assert_eq!(names(&[lavapipe, "libvulkan_intel.so"]), None);
        assert_eq!(names(&["libvulkan_strange.so"]), None);
        assert_eq!(names(&[]), None);
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
