//! `hesper doctor` on lavapipe.

use crate::server::{LAVAPIPE, hesper, in_environment, lines};

#[test]
fn a_report_tells_driver_memory_checks_and_what_is_hidden() {
    let (variable, value) = LAVAPIPE;
    let output = in_environment(hesper())
        .args(["doctor", "--report"])
        .env(variable, value)
        .output()
        .unwrap();
    assert!(output.status.success(), "{:#?}", lines(&output));
    let report = lines(&output);
    for (beginning, part) in [
        ("- VK_DRIVER_FILES: ", value),
        ("ok    the GPU's writes show", "(self-test)"),
        ("note  guests see no sparse binding", "imported memory"),
        ("      GPU 0: ", "llvmpipe Mesa"),
        ("- library (loader", ": 1."),
        ("- GPU 0, heap 0: ", " MiB, DEVICE_LOCAL"),
        ("- GPU 0, type 0: heap 0, ", "; guests can map it"),
        ("- GPU 0, alignment of imported memory: ", "4096"),
        ("- VK_EXT_external_memory_dma_buf ", "hidden"),
    ] {
        let is_there = |line: &String| line.starts_with(beginning) && line.contains(part);
        assert!(
            report.iter().any(is_there),
            "{beginning:?} … {part:?}: {report:#?}"
        );
    }
}
