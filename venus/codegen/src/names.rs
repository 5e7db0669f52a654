//! Turns the registry's C names into Rust names.
//!
//! `VkBufferCreateInfo` → `BufferCreateInfo`, `pQueueFamilyIndices` → `p_queue_family_indices`,
//! `VK_IMAGE_TILING_LINEAR` → `ImageTiling::LINEAR`, `vkCmdDraw` → `CmdDraw`.

/// A type or command name without its `Vk`/`vk`/`PFN_vk` prefix.
pub fn plain(name: &str) -> &str {
    name.strip_prefix("Vk")
        .or_else(|| name.strip_prefix("vk"))
        .unwrap_or(name)
}

/// A member or parameter name in snake case. Rust's keywords get a suffix.
pub fn snake(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|j| chars.get(j)).copied();
        let after = chars.get(i + 1).copied();
        let starts_word = c.is_ascii_uppercase()
            && before.is_some_and(|b| {
                let next_is_lower = after.is_some_and(|a| a.is_ascii_lowercase());
                b.is_ascii_lowercase()
                    || (b.is_ascii_digit() && next_is_lower)
                    || (b.is_ascii_uppercase() && next_is_lower)
            });
        if starts_word {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    match out.as_str() {
        "type" => "ty".into(),
        _ => out,
    }
}

/// A type name in upper case with underscores: `VkBufferCreateInfo` → `BUFFER_CREATE_INFO`.
pub fn screaming(name: &str) -> String {
    let mut out = String::new();
    let mut before = '_';
    for c in plain(name).chars() {
        let upper_after_lower = c.is_ascii_uppercase() && !before.is_ascii_uppercase();
        let digit_after_letter = c.is_ascii_digit() && before.is_ascii_alphabetic();
        if (upper_after_lower || digit_after_letter) && before != '_' {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
        before = c;
    }
    out
}

const VENDORS: &[&str] = &[
    "KHR", "EXT", "MESA", "NV", "AMD", "ARM", "GOOGLE", "VALVE", "QCOM",
];

/// Splits a vendor suffix off: `VkTimeDomainKHR` → (`VkTimeDomain`, `KHR`).
pub fn vendor(name: &str) -> (&str, &str) {
    for suffix in VENDORS {
        if let Some(stem) = name.strip_suffix(suffix) {
            return (stem, suffix);
        }
    }
    (name, "")
}

/// The name of a constant within its enum: `VK_IMAGE_TYPE_2D` of `VkImageType` → `TYPE_2D`.
pub fn constant(enum_name: &str, value_name: &str, is_flags: bool) -> String {
    let (stem, _) = vendor(enum_name);
    let stem = stem.replace("FlagBits", "");
    let prefix = screaming(&stem);
    let bare = value_name.strip_prefix("VK_").unwrap_or(value_name);
    let mut name = bare
        .strip_prefix(&prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .unwrap_or(bare)
        .to_owned();
    if is_flags {
        name = match name.strip_suffix("_BIT") {
            Some(rest) => rest.to_owned(),
            None => name.replace("_BIT_", "_"),
        };
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        let word = prefix
            .rsplit('_')
            .find(|w| w.chars().any(|c| c.is_ascii_alphabetic()));
        name = format!("{}_{name}", word.unwrap_or("VALUE"));
    }
    // VK_FORMAT_ASTC_4x4_UNORM_BLOCK
    name.to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_follow_one_rule() {
        assert_eq!(snake("pQueueFamilyIndices"), "p_queue_family_indices");
        assert_eq!(snake("sType"), "s_type");
        assert_eq!(snake("deviceLUIDValid"), "device_luid_valid");
        assert_eq!(snake("maxImageDimension1D"), "max_image_dimension1d");
        assert_eq!(
            snake("sparseResidency16Samples"),
            "sparse_residency16_samples"
        );
        assert_eq!(snake("type"), "ty");
    }

    #[test]
    fn constants_lose_their_enum_name() {
        assert_eq!(
            constant("VkImageTiling", "VK_IMAGE_TILING_LINEAR", false),
            "LINEAR"
        );
        assert_eq!(
            constant("VkImageType", "VK_IMAGE_TYPE_2D", false),
            "TYPE_2D"
        );
        assert_eq!(
            constant("VkSampleCountFlagBits", "VK_SAMPLE_COUNT_4_BIT", true),
            "COUNT_4"
        );
        assert_eq!(
            constant("VkTimeDomainKHR", "VK_TIME_DOMAIN_DEVICE_KHR", false),
            "DEVICE_KHR"
        );
        assert_eq!(
            constant("VkResult", "VK_ERROR_DEVICE_LOST", false),
            "ERROR_DEVICE_LOST"
        );
        assert_eq!(
            constant("VkAccessFlagBits2", "VK_ACCESS_2_SHADER_READ_BIT", true),
            "SHADER_READ"
        );
    }
}
