//! `hesper doctor` on lavapipe, and on a Mac's drivers as they are played.

use hesper_mac_driver::VARIABLE;

use crate::mac::library;
use crate::server::{LAVAPIPE, hesper, in_environment, lines};

/// Asserts that each pair is the beginning of a line and a later part of it.
#[track_caller]
fn assert_lines(report: &[String], wanted: &[(&str, &str)]) {
    for (beginning, part) in wanted {
        let is_there = |line: &String| line.starts_with(beginning) && line.contains(part);
        assert!(
            report.iter().any(is_there),
            "{beginning:?} … {part:?}: {report:#?}"
        );
    }
}

#[test]
fn a_report_tells_driver_memory_checks_and_what_is_hidden() {
    let (variable, value) = LAVAPIPE;
    let output = in_environment(hesper())
        .args(["doctor", "--report"])
        .env(variable, value)
        .output()
        .unwrap();
    assert!(output.status.success(), "{:#?}", lines(&output));
    let wanted = [
        ("- VK_DRIVER_FILES: ", value),
        ("ok    the GPU's writes show", "(self-test)"),
        ("note  guests see no sparse binding", "imported memory"),
        ("      GPU 0: ", "llvmpipe Mesa"),
        ("- library (a loader", "libvulkan.so.1, Vulkan 1."),
        ("- GPU 0, heap 0: ", " MiB, DEVICE_LOCAL"),
        ("- GPU 0, type 0: heap 0, ", "; guests can map it"),
        ("- GPU 0, alignment of imported memory: ", "4096"),
        ("- VK_EXT_external_memory_dma_buf ", "hidden"),
    ];
    assert_lines(&lines(&output), &wanted);
}

#[test]
fn a_report_of_a_mac_tells_its_driver_and_which_memory_guests_can_map() {
    let visible = "HOST_VISIBLE HOST_COHERENT HOST_CACHED; guests can map it";
    let moltenvk = [
        (
            "- GPU 0, type 0: heap 0, DEVICE_LOCAL; ",
            "guests cannot map it",
        ),
        ("- GPU 0, type 1: heap 0, DEVICE_LOCAL ", visible),
        ("note  guests take for granted", "cannot tell them"),
    ];
    let kosmickrisp = [("- GPU 0, type 0: heap 0, DEVICE_LOCAL ", visible)];
    for (mode, own) in [("moltenvk", &moltenvk[..]), ("kosmickrisp", &kosmickrisp)] {
        let output = in_environment(hesper())
            .args(["doctor", "--report", "--driver"])
            .arg(library(mode))
            .env(VARIABLE, mode)
            .output()
            .unwrap();
        assert!(output.status.success(), "{mode}: {:#?}", lines(&output));
        let report = lines(&output);
        assert_lines(&report, own);
        let common = [
            ("- library (a loader", "libhesper_mac_driver_"),
            ("note  guests' images with optimal tiling are kept", ""),
            ("- GPU 0, alignment of imported memory: ", "16384"),
        ];
        assert_lines(&report, &common);
        // The driver lacks it, and Hesper emulates it.
        let is_missed = |line: &String| {
            line.starts_with("note  guests will miss") && line.contains("VK_KHR_external_memory_fd")
        };
        assert!(!report.iter().any(is_missed), "{mode}: {report:#?}");
    }
}
