//! The guest layer (`venus/guest-layer`): the loader finds it by its manifest, a variable turns it
//! off, and what programs wait for stays the same.

use std::path::Path;
use std::process::Stdio;

use crate::server::{CLIENT, LAVAPIPE, Server, built, lines, suites};

/// The layer's manifest as it is packaged.
const MANIFEST: &str = include_str!("../../../../../venus/guest-layer/VkLayer_hesper_waits.json");

/// Cases that wait.
const CASES: [&str; 10] = [
    "fence-reset-and-reuse",
    "fence-made-signalled",
    "fence-timeout",
    "fence-timeout-of-a-blocked-queue",
    "fence-wait-any",
    "timeline-host",
    "timeline-device",
    "timeline-wait-before-signal",
    "timeline-wait-any",
    "threads-wait",
];

/// Writes the manifest, with the path of the layer that was built with this test.
fn install(folder: &Path) {
    const NAME: &str = "libhesper_waits_layer.so";
    assert!(MANIFEST.contains(NAME));
    let library = built("hesper_waits_layer");
    let manifest = MANIFEST.replace(NAME, library.to_str().unwrap());
    std::fs::write(folder.join("VkLayer_hesper_waits.json"), manifest).unwrap();
}

#[test]
fn programs_get_the_same_results_with_the_guest_layer_and_can_turn_it_off() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path());
    let server = Server::with(&[], &[LAVAPIPE]);
    let threads = server.count("task");
    for suite in suites() {
        for is_off in [false, true] {
            let mut client = server.with_venus_of(&suite, CLIENT);
            client
                .arg("run")
                .args(CASES)
                .env("VK_ADD_IMPLICIT_LAYER_PATH", folder.path())
                .env("VK_LOADER_DEBUG", "layer")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            if is_off {
                client.env("HESPER_DISABLE_WAITS_LAYER", "1");
            }
            let said = client.output().unwrap();
            let expected = CASES.map(|case| format!("ok {case}"));
            let loader = String::from_utf8_lossy(&said.stderr);
            assert_eq!(lines(&said), expected, "{suite}: {loader}");
            let is_loaded = loader.contains("Insert instance layer \"VK_LAYER_HESPER_waits\"");
            assert_eq!(is_loaded, !is_off, "{suite}: {loader}");
        }
    }
    server.rest(threads);
    server.assert_calm();
}
