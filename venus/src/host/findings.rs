//! [`Findings`]: what a renderer's self-tests have found, for another renderer on the same host.
//!
//! The self-tests make a device of each GPU and let it work. That takes about as long as loading
//! the driver. A renderer in another process, with the same driver, need not repeat them.

use hesper_venus_protocol::CORE_COMMANDS;
use serde::{Deserialize, Serialize};

use super::gpu::Gpu;
use super::version::CoreFunctions;
use crate::memory::Importable;

/// What the self-tests have found of GPUs. See [`crate::RendererOptions::findings`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings(Vec<Finding>);

/// What was found of one GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Finding {
    gpu: Identity,
    found: Importable,
}

/// What a GPU and its driver are known by. After an update of the driver it is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    uuid: [u8; 16],
    /// Name, versions, and the driver's name.
    text: String,
    missing_extensions: Vec<String>,
}

impl Identity {
    /// The identity of a GPU as it is listed.
    fn of(gpu: &Gpu) -> Self {
        Self {
            uuid: gpu.uuid,
            text: gpu.to_string(),
            missing_extensions: gpu.missing_extensions.clone(),
        }
    }
}

impl Findings {
    /// Bytes for another process of the same program.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Such a value has nothing that cannot be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What [`Findings::to_bytes`] has written. `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The file names of the drivers' libraries. `None` if that of a GPU is not known.
    #[must_use]
    pub fn libraries(&self) -> Option<Vec<&str>> {
        let all = self.0.iter().map(|known| known.found.library.as_deref());
        all.collect()
    }

    /// Notes what was found of a GPU, as it is listed.
    pub(super) fn add(&mut self, gpu: &Gpu, found: &Importable) {
        self.0.push(Finding {
            gpu: Identity::of(gpu),
            found: found.clone(),
        });
    }

    /// What was found of a GPU, as it is listed. `None` for one that was not tested, or that has
    /// another driver now.
    pub(super) fn of(&self, gpu: &Gpu) -> Option<&Importable> {
        let identity = Identity::of(gpu);
        let known = self.0.iter().find(|known| known.gpu == identity);
        known.map(|known| &known.found)
    }
}

/// [`CoreFunctions`] with names as text.
#[derive(Serialize, Deserialize)]
pub(super) struct CoreNames {
    extensions: Vec<String>,
    missing: Option<String>,
}

impl From<CoreFunctions> for CoreNames {
    fn from(core: CoreFunctions) -> Self {
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        Self {
            extensions: core.extensions.into_iter().map(text).collect(),
            missing: core.missing.map(|(name, _)| text(name)),
        }
    }
}

impl TryFrom<CoreNames> for CoreFunctions {
    type Error = String;

    fn try_from(names: CoreNames) -> Result<Self, String> {
        let older = || CORE_COMMANDS.iter().flat_map(|command| command.older);
        let extension = |name: String| {
            let known = older().find(|(_, extension)| extension.to_bytes() == name.as_bytes());
            known.map(|(_, extension)| *extension).ok_or(name)
        };
        let command = |name: String| {
            let mut all = CORE_COMMANDS.iter();
            let known = all.find(|command| command.name.to_bytes() == name.as_bytes());
            known
                .map(|command| (command.name, command.minor))
                .ok_or(name)
        };
        Ok(Self {
            extensions: names
                .extensions
                .into_iter()
                .map(extension)
                .collect::<Result<_, _>>()?,
            missing: names.missing.map(command).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use ash::vk;

    use super::*;
    use crate::host::gpu::tests::gpu;
    use crate::memory::{Declares, Optimal, Sparse};

    fn found() -> Importable {
        Importable {
            types: 0b1010,
            alignment: 1 << 16,
            core: CoreFunctions::of(vk::make_api_version(0, 1, 4, 0), |name, extension| {
                let is_new = name == c"vkCmdBeginRendering";
                let is_last = name == c"vkCmdPushDescriptorSet";
                !is_last && is_new == extension.is_some()
            }),
            sparse: Sparse::Broken("a \"reason\"".to_owned()),
            optimal: Optimal::Elsewhere {
                reason: "another".to_owned(),
                types: 5,
            },
            declares: Declares {
                buffers: false,
                images: true,
            },
            subset: None,
            library: Some("libvulkan_card.so".to_owned()),
        }
    }

    #[test]
    fn another_process_reads_what_was_found() {
        let (card, other) = (gpu("a card"), gpu("another card"));
        let mut findings = Findings::default();
        findings.add(&other, &Importable::default());
        findings.add(&card, &found());
        assert_eq!(findings.libraries(), None, "one is not known");
        assert!(found().core.missing.is_some());
        let read = Findings::from_bytes(&findings.to_bytes()).unwrap();
        assert_eq!(read, findings);
        assert_eq!(read.of(&card), Some(&found()));
        assert_eq!(read.of(&gpu("a third")), None);
        assert_eq!(Findings::from_bytes(b"[1]"), None);
    }

    #[test]
    fn what_was_found_of_another_driver_says_nothing() {
        let card = gpu("a card");
        let mut findings = Findings::default();
        findings.add(&card, &found());
        for change in [
            (|gpu| gpu.uuid = [8; 16]) as fn(&mut Gpu),
            |gpu| gpu.driver.push_str(".1"),
            |gpu| gpu.api_version.2 += 1,
            |gpu| gpu.missing_extensions.push("VK_KHR_new".to_owned()),
        ] {
            let mut changed = card.clone();
            change(&mut changed);
            assert_eq!(findings.of(&changed), None, "{changed:?}");
        }
    }
}
