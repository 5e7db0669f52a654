//! The Khronos validation layer, between a program and lavapipe or between Hesper and lavapipe.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layer's settings: it reports only errors, each time, on stdout.
const SETTINGS: &str = "khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error
khronos_validation.enable_message_limit = false
khronos_validation.log_filename = stdout
";

/// Writes the layer's settings into a folder and returns the path.
///
/// # Panics
/// If the folder cannot be written.
#[must_use]
pub fn settings(folder: &Path) -> PathBuf {
    let path = folder.join("vk_layer_settings.txt");
    fs::write(&path, SETTINGS).unwrap();
    path
}

/// The environment variables that put the layer below a program.
#[must_use]
pub fn variables(settings: &Path) -> [(&'static str, &str); 2] {
    [
        ("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation"),
        ("VK_LAYER_SETTINGS_PATH", settings.to_str().unwrap()),
    ]
}

/// The errors in the output of a program or a server: for each rule, how often it is named, and the
/// first message.
#[must_use]
pub fn errors(printed: &str) -> BTreeMap<String, (usize, String)> {
    const BEGIN: &str = "Validation Error: [ ";
    let mut errors = BTreeMap::new();
    let mut rest = printed;
    while let Some(at) = rest.find(BEGIN) {
        rest = &rest[at + BEGIN.len()..];
        let rule = rest.split(' ').next().unwrap_or_default();
        let message = rest.split('\n').nth(1).unwrap_or_default();
        let entry = errors.entry(rule.to_owned());
        entry.or_insert_with(|| (0, message.to_owned())).0 += 1;
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_their_rules() {
        let printed = "x\nValidation Error: [ VUID-a-1 ] | MessageID = 0x1\nvkA(): first\nspec\n\n\
            [t INFO h] y\nValidation Error: [ VUID-b-2 ] | MessageID = 0x2\nvkB(): no\n\
            Validation Error: [ VUID-a-1 ] | MessageID = 0x1\nvkA(): second\n";
        let errors = errors(printed);
        assert_eq!(errors["VUID-a-1"], (2, "vkA(): first".to_owned()));
        assert_eq!(errors["VUID-b-2"], (1, "vkB(): no".to_owned()));
        assert_eq!(errors.len(), 2);
    }
}
