//! Tests `hesper doctor` on lavapipe and on the drivers that play a Mac's.

use hesper_mac_driver::VARIABLE;

use crate::mac::library;
use crate::server::{LAVAPIPE, hesper, in_environment, lines};

/// Asserts that for each pair some line begins with the first text and contains the second.
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
        ("ok       GPU 0, ", "(self-test)"),
        ("ok       GPU 0, ", "llvmpipe Mesa"),
        ("warning  guests see no sparse binding", "imported memory"),
        ("warning  all rendering is done by the processor", "slow"),
        ("ok       qemu-system-", "vhost-user-test-device-pci"),
        ("- library (a loader", "libvulkan.so.1, Vulkan 1."),
        ("- GPU 0, heap 0: ", " MiB, DEVICE_LOCAL"),
        ("- GPU 0, type 0: heap 0, ", "; guests can map it"),
        ("- GPU 0, alignment of imported memory: ", "4096"),
        ("- GPU 0, VK_EXT_external_memory_dma_buf ", "hidden"),
        (
            "ok       pictures for the guest's desktop are ",
            "it is no real GPU",
        ),
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
        ("warning  this driver lacks features", "cannot report that"),
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
            ("ok       guests' images with optimal tiling are kept", ""),
            ("- GPU 0, alignment of imported memory: ", "16384"),
        ];
        assert_lines(&report, &common);
        // The driver lacks this extension, and Hesper emulates it.
        let is_missed =
            |line: &String| line.starts_with("  ") && line.trim() == "VK_KHR_external_memory_fd";
        assert!(!report.iter().any(is_missed), "{mode}: {report:#?}");
    }
}

/// Runs a subcommand with these options and returns its output. It must succeed.
#[track_caller]
fn on_lavapipe(subcommand: &str, options: &[&str]) -> String {
    let (variable, value) = LAVAPIPE;
    let output = in_environment(hesper())
        .arg(subcommand)
        .args(options)
        .env(variable, value)
        .output()
        .unwrap();
    assert!(output.status.success(), "{:#?}", lines(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn doctor_counts_what_is_missing_and_lists_it_when_asked() {
    let run = |options: &[&str]| on_lavapipe("doctor", options);
    let missing = "\n         VK_";
    assert!(!run(&[]).contains(missing));
    assert!(run(&["--verbose"]).contains(missing));
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(json["healthy"], true);
    let checks = json["checks"].as_array().unwrap();
    let is_listed = |check: &serde_json::Value| check["details"].as_array().unwrap().len() > 3;
    assert!(checks.iter().any(is_listed), "{json:#}");
}

#[test]
fn gpus_are_listed_for_people_and_for_programs() {
    let run = |options: &[&str]| on_lavapipe("gpus", options);
    let text = run(&[]);
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    let gpu = &json[0];
    assert_eq!(gpu["kind"], "software");
    assert!(gpu["render_node"].is_null(), "{gpu}");
    assert!(
        gpu["heaps"][0]["bytes"].as_u64().unwrap() > 1 << 20,
        "{gpu}"
    );
    for part in ["uuid", "name"] {
        assert!(text.contains(gpu[part].as_str().unwrap()), "{part}: {text}");
    }
}
