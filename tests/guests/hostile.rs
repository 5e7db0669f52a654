//! An unprivileged program in the guest that attacks Hesper through the kernel's own interface,
//! beside another program whose cube must go on turning.

use crate::support::cube::assert_turning;
use crate::support::hesper::Hesper;
use crate::support::programs::{Linked, for_guest};
use crate::support::vulkan_guest::VulkanGuest;

#[test]
fn an_unprivileged_program_that_attacks_hesper_ends_its_own_contexts_only() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless"], None);
    let program = for_guest("hesper-test-hostile", Linked::Statically, "forky");
    let file = ["--file", program.to_str().unwrap()];
    let mut guest = VulkanGuest::boot_with(folder, "guest", "forky", &hesper.socket(), &file);
    guest.start_weston();
    guest.start_lasting_cube();
    assert_turning(|| hesper.screenshot(0));
    // A user of the group that may use the GPU, as on every desktop.
    guest.succeed("chgrp video /dev/dri/renderD128 && chmod 660 /dev/dri/renderD128");
    let attacks = guest.succeed("hesper-test-hostile list");
    assert!(attacks.lines().count() >= 15, "{attacks}");
    for attack in attacks.lines() {
        let (status, said) = guest.run(&format!(
            "timeout 200 setpriv --reuid=nobody --regid=video --clear-groups hesper-test-hostile {attack} 2>&1"
        ));
        assert_eq!(status, 0, "{attack}:\n{said}\n{}", hesper.process.errors());
        assert_turning(|| hesper.screenshot(0));
    }
    let log = hesper.process.errors();
    assert!(!log.contains("panicked"), "{log}");
    // A program that means well has its GPU.
    guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes draw-render-pass");
}
