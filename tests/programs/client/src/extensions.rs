//! Creates instances and devices with the extensions that the driver lists: each alone, each with
//! all that it needs, and all at once.
//!
//! Programs of all three kinds exist. Most enable a few extensions; test suites and engines enable
//! all that are listed. Vulkan requires that the extensions that an extension needs are enabled,
//! too. Programs forget it, and no driver fails because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::process::ExitCode;

use ash::vk;

use crate::gpu::Host;
use crate::say;

/// The extensions that an extension needs. Each line begins with the extension's own name.
const NEEDS: &str = include_str!("extension_needs.txt");

/// Tries all extensions. Prints a line for each attempt, `ok` or `FAIL`.
pub(crate) fn try_all(index: usize) -> ExitCode {
    let host = match Host::new(index) {
        Ok(host) => host,
        Err(problem) => {
            say(&format!("FAIL instance {problem}"));
            return ExitCode::FAILURE;
        }
    };
    let needs: BTreeMap<&str, Vec<&str>> = NEEDS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.collect()))
        })
        .collect();
    let listed: BTreeSet<&str> = host.extensions.iter().map(String::as_str).collect();
    let mut failed = false;
    let mut tell = |what: &str, result: Result<(), vk::Result>| match result {
        Ok(()) => say(&format!("ok {what}")),
        Err(result) => {
            failed = true;
            say(&format!("FAIL {what}: {result:?}"));
        }
    };
    for name in &listed {
        tell(&format!("{name} alone"), device(&host, [*name]));
        let Some(needed) = needs.get(name) else {
            continue;
        };
        match needed.iter().find(|needed| !listed.contains(**needed)) {
            // The driver lists the extension without what it needs. This program does not judge
            // that.
            Some(missing) => say(&format!("skip {name} needs {missing}, which is not listed")),
            None => {
                let names = needed.iter().copied().chain([*name]);
                tell(&format!("{name} with what it needs"), device(&host, names));
            }
        }
    }
    tell(
        &format!("all {} device extensions", listed.len()),
        device(&host, listed.iter().copied()),
    );
    let of_instance = host.instance_extensions();
    for name in &of_instance {
        tell(&format!("{name} alone"), host.try_instance([name.as_str()]));
    }
    tell(
        &format!("all {} instance extensions", of_instance.len()),
        host.try_instance(of_instance.iter().map(String::as_str)),
    );
    // An extension that no driver has.
    let unknown = device(&host, ["VK_HESPER_not_there"]);
    tell(
        "an unknown extension is refused",
        match unknown {
            Err(vk::Result::ERROR_EXTENSION_NOT_PRESENT) => Ok(()),
            other => Err(other.err().unwrap_or(vk::Result::SUCCESS)),
        },
    );
    match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

/// Creates a device with these extensions and one queue, and destroys it.
fn device<'n>(host: &Host, names: impl IntoIterator<Item = &'n str>) -> Result<(), vk::Result> {
    let names: Vec<CString> = names
        .into_iter()
        .filter_map(|name| CString::new(name).ok())
        .collect();
    let pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let queues = [vk::DeviceQueueCreateInfo::default()
        .queue_family_index(0)
        .queue_priorities(&[1.0])];
    let info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&pointers);
    // SAFETY: everything that `info` points to lives until the call has returned. Nothing is
    // created from the device.
    unsafe {
        let device = host.instance.create_device(host.physical, &info, None)?;
        device.destroy_device(None);
    }
    Ok(())
}
