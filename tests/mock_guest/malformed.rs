//! The renderer refuses blobs of what is no memory: each gets its error, and none has an effect.
//! `vhost/tests/malformed` shows what the device refuses by itself.

use hesper_mock_venus::VenusGuest as _;
use hesper_vhost::testing::Request;
use hesper_vhost::wire::{
    RESP_ERR_INVALID_PARAMETER as PARAMETER, RESP_ERR_OUT_OF_MEMORY as MEMORY,
};

use crate::Served;
use crate::guest::Guest;

#[test]
fn blobs_of_what_is_no_memory_have_their_error_and_no_effect() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let (_, memory) = guest.buffer(&gpu, 4096);
    guest.map(memory, 4096);
    let table = [
        ("memory that does not exist", 4711, 4096, PARAMETER),
        ("what is no memory", gpu.device, 4096, PARAMETER),
        // Each memory has room up to the largest page of any guest, 64 KiB.
        (
            "more than the memory has",
            memory,
            (64 << 10) + 4096,
            PARAMETER,
        ),
        ("more than there is", 0, 1 << 62, MEMORY),
    ];
    let mappings = vm.machine().window().mappings();
    for (what, blob, size, expected) in table {
        let kind = vm.machine().code(&Request::host_blob(1, 900, blob, size));
        assert_eq!(kind, expected, "{what}: {kind:#x} instead of {expected:#x}");
        assert_eq!(vm.machine().window().mappings(), mappings, "{what}");
        assert_eq!(vm.machine().open(), 0, "{what}");
    }
    // None of them harmed the context, or used the resource id that they named.
    guest.renders(&gpu, 3);
    vm.machine().ok(&Request::host_blob(1, 900, 0, 4096));
    drop(guest);
    served.leaves_nothing(vm);
}
