//! Tests real Mesa over Hesper on a Mac's drivers, played by `hesper_mac_driver`: MoltenVK,
//! MoltenVK up to 1.4.0, and KosmicKrisp.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use hesper_mac_driver::{PREFIX, VARIABLE};

use crate::present::assert_turns;
use crate::server::{
    CLIENT, LAVAPIPE, Server, TOO_MUCH, XServer, built, hesper, in_environment, lines, suites,
};

/// The modes of the driver.
const MODES: [&str; 3] = ["moltenvk", "moltenvk-1.4.0", "kosmickrisp"];

/// The library of a mode. MoltenVK's exports `vkGetInstanceProcAddr`, KosmicKrisp's only what
/// Vulkan's loader calls.
pub(crate) fn library(mode: &str) -> PathBuf {
    match mode {
        "kosmickrisp" => built("hesper_mac_driver_kosmickrisp"),
        _ => built("hesper_mac_driver_moltenvk"),
    }
}

/// Starts a server that loads the driver by itself, without Vulkan's loader.
fn server(mode: &str) -> Server {
    let library = library(mode);
    let arguments = ["--driver", library.to_str().unwrap()];
    Server::with(&arguments, &[(VARIABLE, mode)])
}

/// The driver's reports of mistakes in how it was used.
fn complaints(server: &Server) -> Vec<String> {
    let log = server.log();
    let all = log.lines().filter(|line| line.contains(PREFIX));
    all.map(str::to_owned).collect()
}

#[track_caller]
fn assert_content(server: &Server, expected: &[&str]) {
    assert_eq!(complaints(server), Vec::<String>::new());
    server.assert_calm_but_for(expected);
    assert_eq!(server.counters()["lost"], 0);
}

/// Whether this case's outcome differs from that on lavapipe. These drivers have no sparse binding,
/// no ray tracing, other queues and other memory types. Mesa's guest driver decides `memory-budget`
/// by itself.
fn is_different(line: &str) -> bool {
    let names = [
        " sparse-",
        " ray-tracing-",
        " queue-every",
        " map-every-type",
    ];
    line.contains("memory-budget") || names.iter().any(|name| line.contains(name))
}

/// Runs all cases with a suite's Mesa over a server, and returns their outcomes. No case may fail.
fn all_cases(server: &Server, suite: &str) -> Vec<String> {
    let output = server
        .with_venus_of(suite, CLIENT)
        .args(["run", "all"])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let said = lines(&output);
    assert!(
        output.status.success(),
        "{suite}: {said:#?}\n{}",
        server.log()
    );
    said
}

#[test]
fn every_case_passes_on_a_macs_drivers_as_on_lavapipe() {
    let lavapipe = Server::start();
    let servers = MODES.map(|mode| (mode, server(mode)));
    for suite in suites() {
        let expected = all_cases(&lavapipe, &suite);
        for (mode, server) in &servers {
            let said = all_cases(server, &suite);
            let same = |all: &[String]| -> Vec<String> {
                let same = all.iter().filter(|line| !is_different(line));
                same.cloned().collect()
            };
            assert_eq!(same(&said), same(&expected), "{mode}, {suite}");
            // The cases that differ are skipped or pass.
            let has = |wanted: &str| said.iter().any(|line| line == wanted);
            assert!(has("skip sparse-buffer no sparseBinding"), "{said:#?}");
            let queues = match *mode {
                "kosmickrisp" => "ok queue-every 1 families, 1 queues",
                _ => "ok queue-every 4 families, 4 queues",
            };
            assert!(has(queues), "{said:#?}");
        }
    }
    for (_, server) in &servers {
        assert_content(server, &[TOO_MUCH]);
    }
}

#[test]
fn on_a_mac_vk_queue_submit_and_vk_wait_for_fences_succeed_and_vk_get_device_queue_is_harmless() {
    for mode in MODES {
        let server = server(mode);
        for suite in suites() {
            let over = server
                .with_venus_of(&suite, CLIENT)
                .args(["run", "submit-one", "fence-reset-and-reuse", "queue-every"])
                .stdout(Stdio::piped())
                .output()
                .unwrap();
            let said = lines(&over);
            assert!(over.status.success(), "{mode}, {suite}: {said:#?}");
            assert!(said.iter().all(|line| line.starts_with("ok ")), "{said:#?}");
            assert_eq!(said.len(), 3, "{said:#?}");
        }
        assert_content(&server, &[]);
    }
}

#[test]
fn vkcube_draws_a_turning_cube_on_a_macs_drivers() {
    for mode in MODES {
        let server = server(mode);
        let screen = XServer::start();
        let mut cube = server.program_of("forky", "vkcube");
        cube.args(["--c", "400", "--wsi", "xcb"])
            .env("DISPLAY", screen.display());
        assert_turns(&server, &mut cube, || screen.picture());
        assert_content(&server, &[]);
    }
}

/// Writes the manifest of a portability driver (one that lacks parts of Vulkan), in a folder that
/// is removed with the value.
fn portability_manifest(mode: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("mac.json");
    let text = serde_json::json!({
        "file_format_version": "1.0.1",
        "ICD": {
            "library_path": library(mode),
            "api_version": "1.4.0",
            "is_portability_driver": true,
        },
    });
    std::fs::write(&manifest, text.to_string()).unwrap();
    (folder, manifest)
}

#[test]
fn a_driver_that_vulkans_loader_hides_is_asked_for_and_a_manifest_can_be_named() {
    for mode in MODES {
        let (_folder, manifest) = portability_manifest(mode);
        let manifest = manifest.to_str().unwrap();
        for (arguments, variable) in [
            (&[][..], (LAVAPIPE.0, manifest)),
            (&["--driver", manifest], LAVAPIPE),
        ] {
            let server = Server::with(arguments, &[variable, (VARIABLE, mode)]);
            let over = server
                .client(&["submit-one", "queue-every"])
                .stdout(Stdio::piped())
                .output()
                .unwrap();
            assert!(over.status.success(), "{mode}: {:#?}", lines(&over));
            let says_apple = server.log().contains("Apple M0");
            assert!(says_apple, "{mode}, {arguments:?}: {}", server.log());
            assert_content(&server, &[]);
        }
    }
}

fn doctor(mode: &str) -> Command {
    let mut doctor = in_environment(hesper());
    doctor
        .arg("doctor")
        .arg("--driver")
        .arg(library(mode))
        .env(VARIABLE, mode);
    doctor
}

#[test]
fn the_doctor_says_what_a_macs_drivers_lack_and_guests_cannot_be_told() {
    for mode in MODES {
        let output = doctor(mode).output().unwrap();
        let text = lines(&output).join("\n");
        assert!(output.status.success(), "{mode}: {text}");
        assert!(
            text.contains("optimal tiling are kept out"),
            "{mode}: {text}"
        );
        let names = ["pointPolygons", "tessellationIsolines", "multiples of 4"];
        for name in names {
            assert_eq!(
                text.contains(name),
                mode != "kosmickrisp",
                "{mode}, {name}: {text}"
            );
        }
        // Guests are told about such features, so the report does not list them.
        assert!(!text.contains("samplerMipLodBias"), "{text}");
    }
}

/// The client enables no feature of the portability subset. This shows that events work in the
/// tests above because of Hesper.
#[test]
fn a_mac_makes_no_events_for_a_program_that_does_not_enable_them() {
    let (_folder, manifest) = portability_manifest("moltenvk");
    let native = in_environment(CLIENT)
        .args(["run", "submit-one", "event-host"])
        .env(LAVAPIPE.0, &manifest)
        .env(VARIABLE, "moltenvk")
        .output()
        .unwrap();
    let said = lines(&native);
    assert_eq!(said.first().map(String::as_str), Some("ok submit-one"));
    assert!(!native.status.success(), "{said:#?}");
}

#[test]
fn a_library_that_cannot_be_used_is_named_with_the_remedy() {
    for (library, reason) in [
        ("/no/such/library.so", "No such file"),
        ("libm.so.6", "vk_icd"),
    ] {
        let mut gpus = in_environment(hesper());
        let output = gpus.args(["gpus", "--driver", library]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        for part in [library, reason, "--driver"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
