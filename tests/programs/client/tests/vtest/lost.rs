//! Tests a lost GPU: the guest is told, its waits end, and the server keeps nothing.

use std::process::Stdio;

use crate::server::{
    CLIENT, LAVAPIPE, Server, built, driver_manifest, in_environment, lines, suites,
};

/// The environment variable with the path of the file that means loss, for server and client alike.
const LOSE_WHEN: &str = hesper_losing_driver::VARIABLE;

#[test]
fn a_lost_device_is_reported_and_ends_all_waits() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("losing.json");
    std::fs::write(&manifest, driver_manifest(&built("hesper_losing_driver"))).unwrap();
    let manifest = manifest.to_str().unwrap();
    let cases = ["run", "submit-one", "lost-device"];
    let expected = ["ok submit-one", "ok lost-device"];
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();

    let native = in_environment(CLIENT)
        .args(cases)
        .env(LAVAPIPE.0, manifest)
        .env(LOSE_WHEN, file("native"))
        .output()
        .unwrap();
    assert_eq!(lines(&native), expected);

    for suite in suites() {
        let loss = file(&suite);
        let server = Server::with(&[], &[(LAVAPIPE.0, manifest), (LOSE_WHEN, &loss)]);
        let threads = server.count("task");
        let client = server
            .with_venus_of(&suite, CLIENT)
            .args(cases)
            .env(LOSE_WHEN, &loss)
            // Without these options Venus does not ask the renderer for the results of submissions,
            // and reads fences from memory that a lost GPU does not write.
            .env(
                "VN_PERF",
                "no_async_queue_submit,no_fence_feedback,no_semaphore_feedback",
            )
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(lines(&client), expected, "{suite}: {}", server.log());
        server.rest(threads);
        server.assert_calm();
    }
}
