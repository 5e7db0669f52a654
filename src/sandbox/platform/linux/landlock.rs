//! Restricts this process's files with Landlock, before it starts threads: until Linux 7.0 the
//! restriction is for the calling thread and those that it starts.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};

use crate::sandbox::places::{Place, Purpose};

/// The newest version whose rights are used. Kernels that have less ignore what they lack.
const VERSION: ABI = ABI::V7;

/// What an older kernel's Landlock lacks: the first version that has it, and its name.
const ADDED: [(i32, &str); 4] = [
    (3, "truncating files"),
    (4, "TCP"),
    (5, "control of devices"),
    (6, "abstract sockets and signals"),
];

/// What else Landlock forbids.
pub(super) struct Scopes {
    /// Whether abstract sockets of other programs can be connected to: an X server's.
    pub(super) abstract_sockets: bool,
    /// The TCP port of an X server.
    pub(super) port: Option<u16>,
}

/// The version of Landlock in this kernel, or why there is none.
pub(super) fn version() -> Result<i32, &'static str> {
    /// Asks for the version; nothing is made.
    const ASK: u32 = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel reads no memory.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, ASK) };
    if answer > 0 {
        return Ok(i32::try_from(answer).unwrap_or(i32::MAX));
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EOPNOTSUPP) => {
            Err("Landlock is turned off (the boot parameter lsm= leaves it out)")
        }
        _ => Err(
            "the kernel has no Landlock (Linux 5.13 and newer have it), or a container hides it",
        ),
    }
}

/// What Landlock of this version cannot forbid.
pub(super) fn missing(version: i32) -> Vec<&'static str> {
    let lacks = |(since, what): &(i32, &'static str)| (version < *since).then_some(*what);
    ADDED.iter().filter_map(lacks).collect()
}

/// The rights at a place.
fn rights(purpose: Purpose, is_folder: bool) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let rights = match purpose {
        Purpose::Read => read,
        Purpose::Write => {
            read | AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::MakeReg
                | AccessFs::MakeDir
                | AccessFs::RemoveFile
                | AccessFs::RemoveDir
                | AccessFs::Refer
        }
        Purpose::Device => read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev,
        Purpose::Sockets => AccessFs::MakeSock | AccessFs::RemoveFile,
    };
    match is_folder {
        true => rights,
        false => rights & AccessFs::from_file(VERSION),
    }
}

/// Restricts the calling thread. The returned descriptors must stay open: rules of /proc and /sys
/// are for inodes that the kernel otherwise forgets.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn restrict(places: &[Place], scopes: &Scopes) -> Result<Vec<PathFd>, RulesetError> {
    let mut scoped = BitFlags::from(Scope::Signal);
    if !scopes.abstract_sockets {
        scoped |= Scope::AbstractUnixSocket;
    }
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(scoped)?
        .create()?;
    let mut kept = Vec::new();
    for place in places {
        // A place that does not exist needs no rule, and one that cannot be opened gets none.
        let Ok(opened) = PathFd::new(&place.path) else {
            continue;
        };
        let rights = rights(place.purpose, place.path.is_dir());
        if rights.is_empty() {
            continue;
        }
        rules = rules.add_rule(PathBeneath::new(&opened, rights))?;
        if is_forgotten(&place.path) {
            kept.push(opened);
        }
    }
    if let Some(port) = scopes.port {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    rules.restrict_self()?;
    Ok(kept)
}

/// Whether the kernel makes a new inode for this path when nobody has it open.
fn is_forgotten(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/sys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_kernel_lacks_is_named() {
        assert_eq!(missing(7), Vec::<&str>::new());
        assert_eq!(missing(5), ["abstract sockets and signals"]);
        assert_eq!(missing(1).len(), ADDED.len());
    }

    #[test]
    fn a_file_gets_no_rights_of_folders() {
        let all = [
            Purpose::Read,
            Purpose::Write,
            Purpose::Device,
            Purpose::Sockets,
        ];
        for purpose in all {
            let rights = rights(purpose, false);
            assert!(!rights.contains(AccessFs::ReadDir), "{purpose:?}");
            assert!(!rights.contains(AccessFs::Execute), "{purpose:?}");
        }
    }
}
