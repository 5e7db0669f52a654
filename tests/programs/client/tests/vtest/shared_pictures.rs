//! Pictures that programs share with display servers: linear images where the driver has them, and
//! images with a mirror elsewhere.

use std::process::Stdio;

use crate::server::{CLIENT, LAVAPIPE, Server, built, driver_manifest, lines, suites};

#[test]
fn pictures_are_shared_with_any_layout_on_any_driver() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("posing.json");
    std::fs::write(&manifest, driver_manifest(&built("hesper_posing_driver"))).unwrap();
    let posing = (LAVAPIPE.0, manifest.to_str().unwrap());
    let optimal_only = (
        hesper_posing_driver::VARIABLE,
        hesper_posing_driver::OPTIMAL_ONLY,
    );
    for variables in [&[LAVAPIPE][..], &[posing, optimal_only][..]] {
        for suite in suites() {
            let server = Server::with(&["--wsi=dmabuf"], variables);
            let threads = server.count("task");
            let client = server
                .with_venus_of(&suite, CLIENT)
                .args(["run", "shared-picture", "shared-picture-odd-pitch"])
                .args(["shared-picture-two-planes"])
                .stdout(Stdio::piped())
                .output()
                .unwrap();
            let expected = [
                "ok shared-picture",
                "ok shared-picture-odd-pitch",
                "ok shared-picture-two-planes",
            ];
            let said = lines(&client);
            assert_eq!(said, expected, "{suite}: {}", server.log());
            server.rest(threads);
            server.assert_calm();
        }
    }
}
