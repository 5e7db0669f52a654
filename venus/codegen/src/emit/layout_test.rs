//! Emits the comparison of every struct's layout with `vulkanalia-sys`, an independent binding.

use std::fmt::Write as _;

use crate::emit::file::File;
use crate::model::Model;
use crate::names;

/// Emits the test's table of comparisons.
pub fn emit(model: &Model) -> File {
    let mut comparisons = String::new();
    let mut names = String::new();
    for entry in model
        .structs
        .values()
        .filter(|s| !s.c_name.ends_with("MESA"))
    {
        let name = &entry.name;
        // The binding has the name from before it was promoted from EXT to KHR.
        let their_name = match name.as_str() {
            "DeviceAddressRangeKHR" => "DeviceAddressRangeEXT",
            "PhysicalDevicePipelineLibraryGroupHandlesFeaturesKHR" => {
                "PhysicalDevicePipelineLibraryGroupHandlesFeaturesEXT"
            }
            other => other,
        };
        let _ = write!(names, "{name},");
        let _ = write!(comparisons, "crate::layout!({name}, {their_name}:");
        for member in &entry.members {
            let _ = write!(
                comparisons,
                " {} = {},",
                member.name,
                theirs(&member.c_name)
            );
        }
        comparisons.push_str(");\n");
    }
    // One function for each struct: the compiler needs a minute and a half for all in one function.
    let out = format!(
        "/// All comparisons.\npub(crate) const ALL: &[fn(&mut crate::Check)] = &[{names}];\n\n{comparisons}"
    );
    File::new(
        "../../tests/layout/generated.rs",
        "Every struct, field by field.",
        out,
    )
}

/// A member's name in `vulkanalia-sys`: without the pointer prefix.
fn theirs(c_name: &str) -> String {
    let bare = c_name
        .strip_prefix("pp")
        .or_else(|| c_name.strip_prefix('p'))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
        .unwrap_or(c_name);
    let name = names::snake(&split_digits(bare));
    match name.as_str() {
        "geometries" if c_name.starts_with("pp") => "pointer_geometries".into(),
        "ty" => "type_".into(),
        "format_a4r4g4b4" => "format_a4_r4_g4_b4".into(),
        "format_a4b4g4r4" => "format_a4_b4_g4_r4".into(),
        _ => name,
    }
}

/// `image2DView` → `image_2dView`, `storageBuffer8BitAccess` → `storageBuffer_8bitAccess`.
fn split_digits(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, digits) = rest.split_at(start);
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        let (number, after) = digits.split_at(end);
        out.push_str(before);
        let unit = ["Bit", "D"]
            .into_iter()
            .find(|unit| after.starts_with(unit));
        let Some(unit) = unit else {
            out.push_str(number);
            rest = after;
            continue;
        };
        out.push('_');
        out.push_str(number);
        out.push_str(&unit.to_ascii_lowercase());
        rest = after.strip_prefix(unit).unwrap_or(after);
    }
    out.push_str(rest);
    out
}
