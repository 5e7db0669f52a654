//! Tests swapchains: vkcube on an X server and on weston, vkmark without a display server.

use std::process::{Command, Stdio};

use crate::server::{Killed, Server, Weston, XServer, await_that, succeed, suites};

/// The `--wsi` policy and the `MESA_VK_WSI_DEBUG` value with which a suite's Mesa copies swapchain
/// images with the CPU. Before 25.2, Mesa wants dma-bufs nevertheless.
fn software(suite: &str) -> (&'static str, &'static str) {
    match suite {
        "trixie" => ("--wsi=dmabuf", "sw"),
        _ => ("--wsi=software", ""),
    }
}

/// Whether two pictures differ in an area as large as a turning cube's edge.
fn differ(one: &[u8], other: &[u8]) -> bool {
    let changed = one.iter().zip(other).filter(|(one, other)| one != other);
    changed.count() > 1000
}

/// Starts vkcube. Fails the test unless its picture appears and keeps changing, and it exits
/// successfully.
pub(crate) fn assert_turns(server: &Server, cube: &mut Command, picture: impl Fn() -> Vec<u8>) {
    let empty = picture();
    let mut cube = cube.stderr(Stdio::null()).spawn().map(Killed).unwrap();
    await_that("something is drawn", || differ(&picture(), &empty));
    // A new window changes the picture once or twice. A turning cube keeps changing it.
    for _ in 0..3 {
        let before = picture();
        await_that("the cube goes on turning", || differ(&picture(), &before));
    }
    assert!(cube.wait().success(), "{}", server.log());
    server.assert_calm();
}

#[test]
fn vkcube_draws_a_turning_cube_on_an_x_server() {
    for suite in suites() {
        let (wsi, copies) = software(&suite);
        let server = Server::with(&[wsi], &[]);
        let screen = XServer::start();
        let mut cube = server.program_of(&suite, "vkcube");
        // Nothing limits the frame rate: these frames take two seconds on a fast machine.
        cube.args(["--c", "1000", "--wsi", "xcb"])
            .env("MESA_VK_WSI_DEBUG", copies)
            .env("DISPLAY", screen.display());
        assert_turns(&server, &mut cube, || screen.picture());
    }
}

#[test]
fn vkcube_draws_a_turning_cube_on_weston() {
    for suite in suites() {
        let (wsi, copies) = software(&suite);
        let server = Server::with(&[wsi], &[]);
        let screen = Weston::start();
        let mut cube = server.program_of(&suite, "vkcube");
        cube.args(["--c", "200", "--wsi", "wayland"])
            .env("MESA_VK_WSI_DEBUG", copies);
        assert_turns(&server, screen.serve(&mut cube), || screen.picture());
    }
}

/// All of vkmark's scenes, with all options that it runs by default.
const SCENES: [&str; 13] = [
    "vertex:device-local=true",
    "vertex:device-local=false",
    "texture:anisotropy=0",
    "texture:anisotropy=16",
    "shading:shading=gouraud",
    "shading:shading=blinn-phong-inf",
    "shading:shading=phong",
    "shading:shading=cel",
    "effect2d:kernel=edge",
    "effect2d:kernel=blur",
    "desktop",
    "cube",
    "clear",
];

#[test]
fn vkmark_runs_all_scenes_without_a_display_server() {
    for suite in suites() {
        for wsi in ["--wsi=dmabuf", "--wsi=software"] {
            if (suite.as_str(), wsi) == ("trixie", "--wsi=software") {
                // This suite has no swapchains under this policy.
                continue;
            }
            let server = Server::with(&[wsi], &[]);
            let mut vkmark = server.program_of(&suite, "vkmark");
            vkmark.args(["--winsys", "headless", "--size", "400x300"]);
            vkmark.args(["-b", ":duration=0.3"]);
            for scene in SCENES {
                vkmark.args(["-b", scene]);
            }
            let said = succeed(&mut vkmark);
            assert!(said.contains("Virtio-GPU Venus"), "{said}");
            let measured = said.lines().filter(|line| line.contains(" FPS: ")).count();
            assert_eq!(measured, SCENES.len(), "{suite} with {wsi}: {said}");
            let bad = ["rror", "arning", "nsupported"];
            assert!(!bad.iter().any(|word| said.contains(word)), "{said}");
            server.assert_calm();
        }
    }
}
