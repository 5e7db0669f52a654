//! Which files Hesper and its drivers need, as data: [`places`].
//!
//! The table is for Linux. Paths that do not exist are no error: most hosts have only some of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What a place is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Files there are read.
    Read,
    /// Files there are made, read, written, renamed and removed.
    Write,
    /// Devices: they are read, written and controlled.
    Device,
    /// Sockets there are made and removed.
    Sockets,
}

/// A file or folder, and everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) purpose: Purpose,
}

/// What the command line makes necessary.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// Sockets that Hesper makes and removes.
    pub(crate) sockets: Vec<PathBuf>,
    /// Folders to which Hesper writes.
    pub(crate) written: Vec<PathBuf>,
    /// The same; they are made if they are not there.
    pub(crate) made: Vec<PathBuf>,
    /// `--driver`.
    pub(crate) driver: Option<PathBuf>,
    /// Whether there may be windows.
    pub(crate) windows: bool,
    /// Whether Hesper connects to the compositor for guests.
    pub(crate) cross_domain: bool,
    /// Whether the process is a worker: it has one context of a guest, and nothing else.
    pub(crate) is_worker: bool,
}

/// Which process it is whose system calls are confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    /// See [`Needs::is_worker`].
    pub(crate) is_worker: bool,
    /// The sockets that it makes.
    pub(crate) sockets: Sockets,
}

impl Role {
    /// The role of a process with these needs.
    pub(crate) fn of(needs: &Needs) -> Self {
        Self {
            is_worker: needs.is_worker,
            sockets: Sockets::of(needs),
        }
    }
}

/// Which sockets the process makes while it serves guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sockets {
    /// It connects.
    pub(crate) connects: bool,
    /// It listens.
    pub(crate) serves: bool,
}

impl Sockets {
    /// The sockets for these needs. NVIDIA's driver makes some for CUDA, on which its ray tracing
    /// is built.
    pub(crate) fn of(needs: &Needs) -> Self {
        Self {
            connects: needs.windows || needs.cross_domain || has_nvidia(),
            serves: has_nvidia(),
        }
    }
}

/// Whether NVIDIA's driver may be used.
pub(crate) fn has_nvidia() -> bool {
    Path::new("/dev/nvidiactl").exists()
}

/// Folders of programs and libraries. Only root writes there.
const SYSTEM: &[&str] = &[
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    // NixOS and Guix.
    "/nix/store",
    "/gnu/store",
    "/run/opengl-driver",
    "/run/opengl-driver-32",
    "/run/current-system",
    // Flatpak and other containers.
    "/app",
    "/run/host",
    "/var/lib/xkb",
    "/var/cache/fontconfig",
];

/// Settings that drivers, the loader and the window libraries read. The rest of /etc, such as
/// passwords and keys of services, is not for them.
const SETTINGS: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/alternatives",
    "/etc/static",
    "/etc/vulkan",
    "/etc/glvnd",
    "/etc/egl",
    "/etc/drirc",
    "/etc/nvidia",
    "/etc/amd",
    "/etc/ati",
    "/etc/X11",
    "/etc/xdg",
    "/etc/fonts",
    "/etc/localtime",
    "/etc/locale.alias",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/nsswitch.conf",
];

/// Settings for the connection to an X server on another machine.
const NETWORK: &[&str] = &[
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/gai.conf",
];

/// Facts about the machine and about this process.
const FACTS: &[&str] = &[
    "/sys",
    "/run/udev/data",
    "/proc/cpuinfo",
    "/proc/devices",
    "/proc/driver",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/modules",
    "/proc/stat",
    "/proc/sys",
    "/proc/uptime",
    "/proc/version",
    "/dev/random",
    "/dev/urandom",
];

/// Beginnings of the names of devices in /dev that drivers use: all GPUs with a Linux driver.
const DEVICES: &[&str] = &[
    "dri", "nvidia", "udmabuf", "dma_heap", "kfd", "dxg", "mali", "kgsl", "nvmap", "nvhost", "pvr",
    "null", "zero", "full",
];

/// Settings of the user, below the home folder.
const OF_HOME: &[&str] = &[
    ".drirc",
    ".config/vulkan",
    ".local/share/vulkan",
    ".nv/nvidia-application-profiles-rc",
    ".nv/nvidia-application-profiles-rc.d",
];

/// What windows read below the home folder: keyboard layouts, pointers, the X server's key.
const OF_HOME_FOR_WINDOWS: &[&str] = &[
    ".Xauthority",
    ".XCompose",
    ".config/xkb",
    ".xkb",
    ".icons",
    ".local/share/icons",
];

/// Variables with paths, separated by colons, that the loader, drivers and window libraries read.
const VARIABLES: &[&str] = &[
    "LD_LIBRARY_PATH",
    "LIBGL_DRIVERS_PATH",
    "GBM_BACKENDS_PATH",
    "DRIRC_CONFIGDIR",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_ADD_DRIVER_FILES",
    "VK_LAYER_PATH",
    "VK_ADD_LAYER_PATH",
    "VK_IMPLICIT_LAYER_PATH",
    "VK_ADD_IMPLICIT_LAYER_PATH",
    "VK_LOADER_SETTINGS_FILE",
    "VK_LAYER_SETTINGS_PATH",
];

/// Variables with paths that windows need besides.
const VARIABLES_FOR_WINDOWS: &[&str] = &[
    "XAUTHORITY",
    "XCOMPOSEFILE",
    "XCURSOR_PATH",
    "XKB_CONFIG_ROOT",
    "XLOCALEDIR",
];

/// Folders of shader caches below the user's folder for caches, and whether they are made if they
/// are not there: drivers cannot make them any more.
const CACHES: &[(&str, bool)] = &[
    ("mesa_shader_cache", true),
    ("mesa_shader_cache_db", true),
    ("mesa_shader_cache_sf", false),
    ("radv_builtin_shaders64", false),
    ("radv_builtin_shaders", false),
    ("AMD", false),
    ("nvidia", false),
    ("NVIDIA", false),
];

/// The variable with further paths that Hesper may read and write, separated by colons.
pub(crate) const MORE: &str = "HESPER_SANDBOX_PATHS";

/// An environment: a function from names to values.
pub(crate) trait Environment: Fn(&str) -> Option<OsString> {}

impl<F: Fn(&str) -> Option<OsString>> Environment for F {}

/// The places for these needs, some of which may not exist.
pub(crate) fn places(needs: &Needs, variable: &impl Environment) -> Vec<Place> {
    let mut all = Places(Vec::new());
    for fixed in [SYSTEM, SETTINGS, FACTS] {
        all.extend(Purpose::Read, fixed);
    }
    // This process's own: threads write their names there.
    all.extend(Purpose::Write, ["/proc/self"]);
    if !needs.is_worker && is_remote(&variable("DISPLAY").unwrap_or_default()) {
        all.extend(Purpose::Read, NETWORK);
    }
    all.extend(Purpose::Read, std::env::current_exe());
    all.extend(Purpose::Device, devices(Path::new("/dev")));

    let paths = |name: &str| -> Vec<PathBuf> {
        let value = variable(name).unwrap_or_default();
        let paths = std::env::split_paths(&value);
        paths.filter(|path| path.is_absolute()).collect()
    };
    let home = paths("HOME").into_iter().next();
    let of_home = |rest: &&str| Some(home.as_ref()?.join(rest));
    all.extend(Purpose::Read, OF_HOME.iter().filter_map(of_home));
    let is_xdg = |(names, rest): &(&[&str], &str)| -> Vec<PathBuf> {
        let folders = names.iter().flat_map(|name| paths(name));
        folders.map(|folder| folder.join(rest)).collect()
    };
    let shared: [(&[&str], &str); 2] = [
        (&["XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"], "vulkan"),
        (&["XDG_DATA_HOME", "XDG_DATA_DIRS"], "vulkan"),
    ];
    all.extend(Purpose::Read, shared.iter().flat_map(is_xdg));
    if needs.windows {
        all.extend(
            Purpose::Read,
            OF_HOME_FOR_WINDOWS.iter().filter_map(of_home),
        );
        let shared: [(&[&str], &str); 2] = [
            (&["XDG_CONFIG_HOME"], "xkb"),
            (&["XDG_DATA_HOME", "XDG_DATA_DIRS"], "icons"),
        ];
        all.extend(Purpose::Read, shared.iter().flat_map(is_xdg));
    }
    let for_windows = VARIABLES_FOR_WINDOWS.iter().filter(|_| !needs.is_worker);
    for name in VARIABLES.iter().chain(for_windows) {
        let named = paths(name);
        let libraries = named.iter().flat_map(|path| folders_of_libraries(path));
        all.extend(Purpose::Read, libraries.collect::<Vec<_>>());
        all.extend(Purpose::Read, named);
    }
    if let Some(driver) = needs.driver.as_deref().and_then(absolute_path) {
        all.extend(Purpose::Read, folders_of_libraries(&driver));
        all.extend(Purpose::Read, driver.parent());
    }

    all.extend(Purpose::Write, caches(variable).map(|(cache, _)| cache));
    all.extend(
        Purpose::Write,
        needs
            .written
            .iter()
            .chain(&needs.made)
            .filter_map(|path| absolute_path(path)),
    );
    all.extend(Purpose::Write, paths(MORE));
    // POSIX shared memory, as on macOS; or NVIDIA's driver, for CUDA.
    if hesper_system::played().is_some() || has_nvidia() {
        all.extend(Purpose::Write, ["/dev/shm"]);
    }
    let sockets = needs.sockets.iter().filter_map(|path| absolute_path(path));
    let folders = sockets.filter_map(|path| path.parent().map(Path::to_owned));
    all.extend(Purpose::Sockets, folders);
    all.0
}

struct Places(Vec<Place>);

impl Places {
    fn extend(&mut self, purpose: Purpose, paths: impl IntoIterator<Item = impl AsRef<Path>>) {
        for path in paths {
            let path = path.as_ref().to_owned();
            let place = Place { path, purpose };
            if !self.0.contains(&place) {
                self.0.push(place);
            }
        }
    }
}

/// A path that does not depend on the current folder. A bare name, which the dynamic linker
/// searches for, is none.
fn absolute_path(path: &Path) -> Option<PathBuf> {
    let is_bare = path.components().count() == 1 && path.extension().is_some() && !path.exists();
    (!is_bare).then(|| std::path::absolute(path).ok()).flatten()
}

/// Whether this value of DISPLAY names another machine, as with `ssh -X`.
pub(crate) fn is_remote(display: &std::ffi::OsStr) -> bool {
    remote_port(display).is_some()
}

/// The TCP port of an X server on another machine.
pub(crate) fn remote_port(display: &std::ffi::OsStr) -> Option<u16> {
    let (host, number) = display.to_str()?.rsplit_once(':')?;
    if host.is_empty() || host == "unix" || host.starts_with('/') {
        return None;
    }
    let number = number.split('.').next()?;
    6000_u16.checked_add(number.parse().ok()?)
}

/// The devices in this folder that drivers use.
fn devices(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        DEVICES.iter().any(|start| name.starts_with(start))
    };
    entries.map(|entry| entry.path()).filter(is_one).collect()
}

/// The folders of the libraries that the manifest or the manifests of a folder name.
fn folders_of_libraries(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let manifests = entries
        .map(|entry| entry.path())
        .chain([path.to_owned()])
        .filter(|path| path.extension().is_some_and(|end| end == "json"));
    let folder = |manifest: PathBuf| {
        let text = std::fs::read_to_string(&manifest).ok()?;
        let json: serde_json::Value = serde_json::from_str(&text).ok()?;
        let named = ["/ICD/library_path", "/layer/library_path"]
            .into_iter()
            .find_map(|place| json.pointer(place)?.as_str())?;
        // A bare name is searched for by the dynamic linker.
        let library = (Path::new(named).components().count() > 1)
            .then(|| manifest.parent().map(|folder| folder.join(named)))??;
        library.parent().map(Path::to_owned)
    };
    manifests.filter_map(folder).collect()
}

/// The folders of shader caches, and whether to make them.
pub(crate) fn caches(variable: &impl Environment) -> impl Iterator<Item = (PathBuf, bool)> {
    let folder = |name: &str| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = folder("HOME");
    let base = folder("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")));
    let named = [
        "MESA_SHADER_CACHE_DIR",
        "MESA_GLSL_CACHE_DIR",
        "__GL_SHADER_DISK_CACHE_PATH",
    ];
    let named: Vec<_> = named.into_iter().filter_map(folder).collect();
    let usual = base.into_iter().flat_map(|base| {
        let join = move |(name, made): &(&str, bool)| {
            let is_nvidia = *name == "nvidia" && has_nvidia();
            (base.join(name), *made || is_nvidia)
        };
        CACHES.iter().map(join)
    });
    let nvidia = home.map(|home| (home.join(".nv"), has_nvidia()));
    named
        .into_iter()
        .map(|path| (path, true))
        .chain(usual)
        .chain(nvidia)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn of(needs: &Needs, variables: &[(&str, &str)]) -> Vec<Place> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        places(needs, &|name: &str| variables.get(name).map(OsString::from))
    }

    fn has(places: &[Place], purpose: Purpose, path: &str) -> bool {
        let path = PathBuf::from(path);
        places.contains(&Place { path, purpose })
    }

    #[test]
    fn neither_passwords_nor_the_home_folder_are_among_them() {
        let needs = Needs {
            windows: true,
            cross_domain: true,
            sockets: vec!["/run/user/1000/gpu.sock".into()],
            ..Needs::default()
        };
        let all = of(&needs, &[("HOME", "/home/ann"), ("DISPLAY", ":0")]);
        for secret in [
            "/etc/shadow",
            "/etc/ssh/ssh_host_key",
            "/home/ann/.ssh/id_ed25519",
            "/home/ann/.bashrc",
            "/proc/1/environ",
            "/dev/mem",
            "/dev/kvm",
            "/dev/sda",
            "/tmp/x",
            "/root/x",
        ] {
            let above = |place: &&Place| {
                Path::new(secret).starts_with(&place.path) && place.purpose != Purpose::Sockets
            };
            let place = all.iter().find(above);
            assert_eq!(place, None, "{secret}");
        }
        assert!(has(&all, Purpose::Sockets, "/run/user/1000"));
    }

    #[test]
    fn a_worker_has_neither_sockets_nor_what_windows_need() {
        let variables = [
            ("HOME", "/home/ann"),
            ("DISPLAY", "elsewhere:0"),
            ("XAUTHORITY", "/run/ann/xauth"),
        ];
        let worker = Needs {
            driver: Some("/drivers/libvulkan_one.so".into()),
            written: vec!["/streams".into()],
            is_worker: true,
            ..Needs::default()
        };
        let all = of(&worker, &variables);
        assert!(has(&all, Purpose::Read, "/drivers"));
        assert!(has(&all, Purpose::Write, "/streams"));
        for place in &all {
            assert_ne!(place.purpose, Purpose::Sockets, "{place:?}");
            for path in ["/run/ann/xauth", "/home/ann/.Xauthority", "/etc/hosts"] {
                assert!(!Path::new(path).starts_with(&place.path), "{place:?}");
            }
        }
        let main = Needs {
            windows: true,
            ..Needs::default()
        };
        let all = of(&main, &variables);
        assert!(has(&all, Purpose::Read, "/run/ann/xauth"));
    }

    #[test]
    fn drivers_find_their_files_and_caches() {
        let all = of(
            &Needs::default(),
            &[
                ("HOME", "/home/ann"),
                ("LD_LIBRARY_PATH", "/opt/x/lib:relative"),
            ],
        );
        for path in [
            "/usr",
            "/etc/vulkan",
            "/sys",
            "/opt/x/lib",
            "/home/ann/.drirc",
        ] {
            assert!(has(&all, Purpose::Read, path), "{path}");
        }
        for path in ["/home/ann/.cache/mesa_shader_cache_db", "/home/ann/.nv"] {
            assert!(has(&all, Purpose::Write, path), "{path}");
        }
        let all = of(
            &Needs::default(),
            &[("HOME", "/home/ann"), ("XDG_CACHE_HOME", "/caches")],
        );
        assert!(has(&all, Purpose::Write, "/caches/nvidia"));
        assert!(!has(&all, Purpose::Write, "/home/ann/.cache/nvidia"));
    }

    #[test]
    fn a_manifest_brings_the_folder_of_its_library() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("driver.json");
        std::fs::write(
            &manifest,
            r#"{"ICD":{"library_path":"/drivers/lib/one.so"}}"#,
        )
        .unwrap();
        let path = manifest.to_str().unwrap();
        for all in [
            of(&Needs::default(), &[("VK_DRIVER_FILES", path)]),
            of(
                &Needs {
                    driver: Some(manifest.clone()),
                    ..Needs::default()
                },
                &[],
            ),
        ] {
            assert!(has(&all, Purpose::Read, "/drivers/lib"));
        }
    }

    #[test]
    fn an_x_server_on_another_machine_has_a_port() {
        for (display, port) in [
            (":0", None),
            (":1.0", None),
            ("unix:0", None),
            ("localhost:10.0", Some(6010)),
            ("machine:0", Some(6000)),
            ("", None),
            ("a:99999", None),
        ] {
            assert_eq!(remote_port(display.as_ref()), port, "{display}");
        }
    }
}
