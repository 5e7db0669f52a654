//! Malformed commands of contexts, blobs and submissions, with the real renderer behind the device: each has its error,
//! and none has an effect.

use hesper_vhost::device::Queue;
use hesper_vhost::testing::Request;
use hesper_vhost::wire;
use hesper_vhost::wire::{
    RESP_ERR_INVALID_CONTEXT_ID as CONTEXT, RESP_ERR_INVALID_PARAMETER as PARAMETER,
    RESP_ERR_INVALID_RESOURCE_ID as RESOURCE, RESP_ERR_OUT_OF_MEMORY as MEMORY,
};
use zerocopy::FromZeros;

use crate::Served;
use crate::guest::{CAPSET_VENUS, Guest, bytes};
use hesper_venus_protocol::command;

/// `RESOURCE_CREATE_BLOB` in context 1, with something changed.
fn blob(change: impl FnOnce(&mut wire::ResourceCreateBlob)) -> Request {
    let mut body = wire::ResourceCreateBlob::new_zeroed();
    body.resource_id = 900.into();
    body.blob_mem = wire::BLOB_MEM_HOST3D.into();
    body.blob_flags = wire::BLOB_FLAG_USE_MAPPABLE.into();
    body.size = 4096.into();
    change(&mut body);
    Request::new(wire::CMD_RESOURCE_CREATE_BLOB, &body).context(1)
}

/// `SUBMIT_3D` that says another length than it has.
fn submit_of(length: u32) -> Request {
    let body = wire::CmdSubmit {
        size: length.into(),
        padding: 0.into(),
    };
    Request::new(wire::CMD_SUBMIT_3D, &body)
        .then(&[0; 16])
        .context(1)
}

fn capset(id: u32, version: u32) -> Request {
    let mut body = [0; 8];
    body[..4].copy_from_slice(&id.to_le_bytes());
    body[4..].copy_from_slice(&version.to_le_bytes());
    Request::new(wire::CMD_GET_CAPSET, &body)
}

#[test]
fn every_malformed_command_has_its_error_and_no_effect() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let (_, memory) = guest.buffer(&gpu, 4096);
    let mapped = guest.map(memory, 4096);
    // Something that is neither mapped nor may be.
    let private = vm.machine().resource();
    vm.machine().ok(&blob(|blob| {
        blob.resource_id = private.into();
        blob.blob_flags = 0.into();
    }));
    let spare = vm.machine().resource();
    vm.machine().ok(&Request::host_blob(1, spare, 0, 8192));

    let table: Vec<(&str, Request, u32)> = vec![
        ("a capset that is not there", capset(5, 0), PARAMETER),
        (
            "a version that is not there",
            capset(CAPSET_VENUS, 1),
            PARAMETER,
        ),
        (
            "context 0",
            Request::create_context(0, CAPSET_VENUS, ""),
            CONTEXT,
        ),
        (
            "a taken context",
            Request::create_context(1, CAPSET_VENUS, ""),
            CONTEXT,
        ),
        (
            "a context of virgl",
            Request::create_context(5, 1, ""),
            PARAMETER,
        ),
        (
            "a context of nothing",
            Request::create_context(5, 0, ""),
            PARAMETER,
        ),
        (
            "the end of no context",
            Request::destroy_context(5),
            CONTEXT,
        ),
        ("work for no context", Request::submit(5, &[0; 8]), CONTEXT),
        (
            "a fence of no context",
            Request::submit(5, &[]).ring_fence(1, 1),
            CONTEXT,
        ),
        ("a submission that is cut short", submit_of(17), PARAMETER),
        ("a submission without measure", submit_of(u32::MAX), MEMORY),
        ("attach to no context", Request::attach(5, spare), CONTEXT),
        ("attach of nothing", Request::attach(1, 999), RESOURCE),
        ("detach from no context", Request::detach(5, spare), CONTEXT),
        ("detach of nothing", Request::detach(1, 999), RESOURCE),
        (
            "a blob of no context",
            Request::host_blob(5, 900, 0, 4096),
            CONTEXT,
        ),
        (
            "a blob with id 0",
            Request::host_blob(1, 0, 0, 4096),
            RESOURCE,
        ),
        (
            "a blob with a taken id",
            Request::host_blob(1, spare, 0, 4096),
            RESOURCE,
        ),
        (
            "a blob of nothing",
            blob(|blob| blob.size = 0.into()),
            PARAMETER,
        ),
        (
            "half a page",
            blob(|blob| blob.size = 2048.into()),
            PARAMETER,
        ),
        (
            "unknown flags",
            blob(|blob| blob.blob_flags = 8.into()),
            PARAMETER,
        ),
        (
            "unknown memory",
            blob(|blob| blob.blob_mem = 9.into()),
            PARAMETER,
        ),
        (
            "memory that does not exist",
            Request::host_blob(1, 900, 4711, 4096),
            PARAMETER,
        ),
        (
            "what is no memory",
            Request::host_blob(1, 900, gpu.device, 4096),
            PARAMETER,
        ),
        (
            // It has room up to the largest page of any guest, 64 KiB.
            "more than the memory has",
            Request::host_blob(1, 900, memory, (64 << 10) + 4096),
            PARAMETER,
        ),
        (
            "more than there is",
            Request::host_blob(1, 900, 0, 1 << 62),
            MEMORY,
        ),
        (
            "a place for nothing",
            Request::map_blob(999, 1 << 30),
            RESOURCE,
        ),
        (
            "a second place",
            Request::map_blob(mapped.resource, 1 << 30),
            RESOURCE,
        ),
        (
            "a place for what has none",
            Request::map_blob(private, 1 << 30),
            RESOURCE,
        ),
        (
            "a taken place",
            Request::map_blob(spare, mapped.offset),
            PARAMETER,
        ),
        (
            "half of a taken place",
            Request::map_blob(spare, mapped.offset - 4096),
            PARAMETER,
        ),
        (
            "a place between pages",
            Request::map_blob(spare, (1 << 30) + 512),
            PARAMETER,
        ),
        (
            "a place outside",
            Request::map_blob(spare, 8 << 30),
            PARAMETER,
        ),
        (
            "a place half outside",
            Request::map_blob(spare, (8 << 30) - 4096),
            PARAMETER,
        ),
        (
            "a place beyond numbers",
            Request::map_blob(spare, u64::MAX - 4095),
            PARAMETER,
        ),
        ("unmap of nothing", Request::unmap_blob(999), RESOURCE),
        (
            "unmap of what is not mapped",
            Request::unmap_blob(spare),
            RESOURCE,
        ),
        ("the end of nothing", Request::unref(999), RESOURCE),
        (
            "a UUID of nothing",
            Request::resource(wire::CMD_RESOURCE_ASSIGN_UUID, 999),
            RESOURCE,
        ),
    ];
    let mappings = vm.machine().window().mappings();
    for (what, request, expected) in table {
        // In one piece, and in pieces of ten bytes.
        for cut in [usize::MAX, 10] {
            let ticket = vm.machine().post_cut(Queue::Control, &request, cut);
            let kind = vm.machine().answer(ticket).kind();
            assert_eq!(kind, expected, "{what}: {kind:#x} instead of {expected:#x}");
        }
        assert_eq!(vm.machine().window().mappings(), mappings, "{what}");
        assert_eq!(vm.machine().open(), 0, "{what}");
    }
    // Nothing of it harmed the context, nor took the number that all those blobs wanted.
    guest.renders(&gpu, 3);
    vm.machine().ok(&Request::host_blob(1, 900, 0, 4096));
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn every_prefix_of_a_submission_ends_at_most_its_context() {
    let served = Served::start();
    let vm = served.boot();
    let whole = bytes(&command::EnumerateInstanceVersion {
        p_api_version: &mut 0,
    });
    let witness = Guest::new(&vm, 500);
    for length in 0..whole.len() {
        let id = length as u32 + 1;
        let guest = Guest::new(&vm, id);
        guest.submit_bytes(&whole[..length]);
        // Answered, whatever became of the context.
        guest.wait_fence(0);
        vm.machine().ok(&Request::destroy_context(id));
    }
    witness.version();
    drop(witness);
    served.leaves_nothing(vm);
}
