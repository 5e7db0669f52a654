//! Tests programs that enable extensions in many ways, and Vulkan loaders of other versions.

use crate::server::{CLIENT, OWN_SUITE, Server, await_that, cache, lines, suites};

/// Creates devices with each listed extension alone, with what it needs, and with all extensions at
/// once; then the same for instances.
fn every_listed_extension(wsi: &str) {
    let server = Server::with(&[wsi], &[]);
    for suite in suites() {
        let mut client = server.with_venus_of(&suite, CLIENT);
        let output = client
            .arg("extensions")
            .stdout(std::process::Stdio::piped())
            .output()
            .unwrap();
        let lines = lines(&output);
        let failed: Vec<_> = lines
            .iter()
            // An older Mesa lists some extensions without what they need.
            .filter(|line| !line.starts_with("ok ") && !line.starts_with("skip "))
            .collect();
        assert!(
            output.status.success() && failed.is_empty(),
            "{suite}, {wsi}: {failed:#?}\n{}",
            server.log()
        );
        let tried = lines.iter().filter(|line| line.ends_with(" alone")).count();
        assert!(tried > 90, "{suite}, {wsi}: {tried} of\n{lines:#?}");
    }
    server.assert_calm();
}

#[test]
fn every_listed_extension_can_be_enabled_with_software_wsi() {
    every_listed_extension("--wsi=software");
}

#[test]
fn every_listed_extension_can_be_enabled_with_dmabuf_wsi() {
    every_listed_extension("--wsi=dmabuf");
}

#[test]
fn an_older_loader_takes_nothing_from_a_newer_driver() {
    let folder = cache("loader-bookworm/root/usr/lib/x86_64-linux-gnu");
    let server = Server::with(&[], &[("LD_LIBRARY_PATH", folder.to_str().unwrap())]);
    // A process that waits for the next client has loaded its driver.
    let is_loaded = || {
        let mut all = server.descendants().into_iter();
        all.any(|process| {
            let maps = std::fs::read_to_string(format!("/proc/{process}/maps"));
            maps.is_ok_and(|maps| maps.contains("libvulkan.so.1.3.239"))
        })
    };
    await_that("the older loader is loaded", is_loaded);
    let output = server
        .with_venus_of(OWN_SUITE, CLIENT)
        .args(["run", "core-1.4", "descriptor-push", "draw-render-pass"])
        .stdout(std::process::Stdio::piped())
        .output()
        .unwrap();
    let passed = lines(&output);
    assert!(
        output.status.success() && passed.iter().all(|line| line.starts_with("ok ")),
        "{passed:#?}\n{}",
        server.log()
    );
    server.assert_calm();
}
