//! Tests of whole workers. Each is a process of its own: this test program, which runs only the
//! case [`as_a_worker`] then. The test is the main process, and the guest.

#[path = "../../../../tests/support/library.rs"]
mod library;
mod process;

use std::os::fd::AsFd;
use std::sync::Arc;

use hesper_mock_venus::{FATAL, IDLE, Ring, VenusGuest as _, bytes, reply_stream, until};
use hesper_system::page_size;
use hesper_venus::trace::Started;
use hesper_venus::{BlobRequest, Caching, SharedMemory};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};

use super::super::message::{FromWorker, Piece, Refusal, Run, ToWorker};
use process::{Clerk, Process, options};

/// The process that other cases start.
#[test]
#[ignore = "a worker that other cases start"]
fn as_a_worker() {
    let (socket, budget, options) = process::given();
    super::run(socket, budget, options);
}

/// The number and the text of log lines at this level.
fn lines(process: &Process, wanted: log::Level) -> Vec<String> {
    let lines = process
        .seen()
        .into_iter()
        .filter_map(|message| match message {
            FromWorker::Log { level, line } if level == wanted as u8 => Some(line),
            _ => None,
        });
    lines.collect()
}

#[test]
fn a_worker_serves_a_context_until_its_end() {
    let guest = Process::start(&options(), Clerk::default()).begin(7, "guest");
    guest.gpu();
    assert!(guest.version() > 1 << 22);
    let mut ring = Ring::new(&guest, 0xabc);
    let created = guest.process.wait_for("the ring is told", |message| {
        matches!(message, FromWorker::RingCreated { .. })
    });
    // The resource begins at the file's start, and this is where the mock has its status.
    let (ring_id, status) = (0xabc, 128);
    let expected = FromWorker::RingCreated {
        ring: ring_id,
        status,
    };
    assert_eq!(created, expected);
    let rings = guest.process.take_fds();
    let memory = SharedMemory::from_untrusted(
        Arc::new(rings.into_iter().next().unwrap()),
        0,
        page_size(),
        Box::new(()),
    )
    .unwrap();
    ring.set_status(1 << 20);
    let word = memory.word(status as usize).unwrap();
    assert_ne!(word.load(std::sync::atomic::Ordering::SeqCst) & 1 << 20, 0);
    // The ring is polled by the worker: nothing is sent.
    ring.set_status(0);
    ring.write(&bytes(&command::EnumerateInstanceVersion {
        p_api_version: &mut 0,
    }));
    ring.wait();
    guest.send(&command::DestroyRingMESA { ring: ring_id });
    guest.process.wait_for("the ring's end is told", |message| {
        *message == FromWorker::RingDestroyed { ring: ring_id }
    });
    guest.process.send(ToWorker::End, &[]);
    guest
        .process
        .wait_for("the end is told", |message| *message == FromWorker::Ended);
    assert_eq!(guest.process.ended(), Some(0));
    assert_eq!(
        lines(&guest.process, log::Level::Error),
        Vec::<String>::new()
    );
}

/// Linux alone has words on which threads of several processes sleep.
#[cfg(target_os = "linux")]
#[test]
fn the_main_process_wakes_a_ring_without_a_message() {
    let guest = Process::start(&options(), Clerk::default()).begin(1, "guest");
    let mut ring = Ring::new(&guest, 5);
    let notification = bytes(&command::NotifyRingMESA {
        ring: 5,
        seqno: 0,
        flags: vk::RingNotifyFlagsMESA::default(),
    });
    for round in 0..20 {
        ring.until("the ring sleeps", || ring.status() & IDLE != 0);
        if round == 10 {
            // Once it has released its memory, a second later, it does not wake by itself.
            std::thread::sleep(std::time::Duration::from_millis(1500));
        }
        // So that the mock does not notify: nothing but the bell can wake it.
        ring.set_status(0);
        ring.write(&bytes(&command::EnumerateInstanceVersion {
            p_api_version: &mut 0,
        }));
        assert!(guest.process.bells.notify(&notification, Started::NOT));
        ring.wait();
    }
    guest.send(&command::DestroyRingMESA { ring: 5 });
    until("its bell is nobody's", || {
        !guest.process.bells.notify(&notification, Started::NOT)
    });
}

#[test]
fn a_spare_that_is_not_needed_ends() {
    let process = Process::start(&options(), Clerk::default());
    process.wait_for("it is ready", |message| *message == FromWorker::Ready);
    process.send(ToWorker::End, &[]);
    process.wait_for("the end is told", |message| *message == FromWorker::Ended);
    assert_eq!(process.ended(), Some(0));
}

#[test]
fn garbage_ends_a_worker_with_one_line() {
    let garbage: [&[u8]; 7] = [
        // An unknown kind, and one of the wrong direction.
        &[0, 0, 0, 0, 0, 0, 99, 0],
        &[0, 0, 0, 0, 0, 0, 33, 0],
        // Too long, with descriptors that do not come, and with a byte too many.
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 3, 0],
        &[0, 0, 0, 0, 1, 0, 6, 0],
        &[1, 0, 0, 0, 0, 0, 10, 0, 1],
        // What comes only once.
        &[4, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0],
        b"GET / HTTP/1.1\r\n",
    ];
    for bytes in garbage {
        let guest = Process::start(&options(), Clerk::default()).begin(1, "guest");
        guest.process.send_bytes(bytes);
        assert_eq!(guest.process.ended(), Some(1), "{bytes:?}");
        let lines = lines(&guest.process, log::Level::Error);
        assert!(
            matches!(lines.as_slice(), [line] if line.contains("a worker ends: ")),
            "{bytes:?}: {lines:?}"
        );
    }
}

#[test]
fn a_worker_ends_when_the_main_process_is_gone() {
    let guest = Process::start(&options(), Clerk::default()).begin(1, "guest");
    let ring = Ring::new(&guest, 1);
    drop(ring);
    assert_eq!(guest.process.hang_up(), Some(1));
    // The same while it waits for a context, and while it sends.
    let process = Process::start(&options(), Clerk::default());
    process.wait_for("it is ready", |message| *message == FromWorker::Ready);
    assert_eq!(process.hang_up(), Some(1));
    let guest = Process::start(&options(), Clerk::default()).begin(1, "guest");
    for fence in 0..1000 {
        guest.process.send(ToWorker::Fence { ring: 0, fence }, &[]);
    }
    assert_eq!(guest.process.hang_up(), Some(1), "no signal ends it");
}

#[test]
fn what_is_consumed_is_told_but_for_small_batches() {
    let guest = Process::start(&options(), Clerk::default()).begin(1, "guest");
    let one = bytes(&command::EnumerateInstanceVersion {
        p_api_version: &mut 0,
    });
    guest.submit_bytes(&one);
    guest.wait_fence(0);
    let told = |process: &Process| -> u64 {
        let all = process.seen().into_iter().map(|message| match message {
            FromWorker::Consumed { bytes } => bytes,
            _ => 0,
        });
        all.sum()
    };
    assert_eq!(told(&guest.process), 0);
    let many = one.repeat(200_000 / one.len());
    for _ in 0..3 {
        guest.submit_bytes(&many);
    }
    until("all is told", || {
        guest.process.read();
        told(&guest.process) == 3 * many.len() as u64
    });
}

#[test]
fn a_lost_context_is_told_and_still_answers() {
    let guest = Process::start(&options(), Clerk::default()).begin(3, "bad");
    let ring = Ring::new(&guest, 1);
    guest.submit_bytes(&[0xff; 64]);
    let lost = guest.process.wait_for("the loss is told", |message| {
        matches!(message, FromWorker::Lost(_))
    });
    assert!(matches!(lost, FromWorker::Lost(reason) if !reason.is_empty()));
    // The guest knew it before.
    assert_ne!(ring.status() & FATAL, 0);
    drop(ring);
    guest.wait_fence(0);
    let request = request(4096);
    guest.process.send(
        ToWorker::CreateBlob {
            resource: 90,
            request,
        },
        &[],
    );
    guest.process.wait_for("the blob is refused", |message| {
        matches!(
            message,
            FromWorker::BlobRefused {
                resource: 90,
                kind: Refusal::Lost,
                ..
            }
        )
    });
    let lines = lines(&guest.process, log::Level::Error);
    assert!(
        matches!(lines.as_slice(), [line] if line.starts_with("hesper_venus") && line.contains("context 3 \"bad\" is lost")),
        "{lines:?}"
    );
    guest.process.send(ToWorker::End, &[]);
    assert_eq!(guest.process.ended(), Some(0));
}

#[test]
fn a_worker_without_a_driver_says_why() {
    let process = Process::start(
        &process::options_with(|options| {
            options.driver = hesper_venus::Driver::Library("/no/such/driver.so".into());
        }),
        Clerk::default(),
    );
    let unable = process.wait_for("it says why", |message| {
        matches!(message, FromWorker::Unable(_))
    });
    assert!(
        matches!(&unable, FromWorker::Unable(reason) if reason.contains("/no/such/driver.so")),
        "{unable:?}"
    );
    assert_eq!(process.ended(), Some(1));
}

fn request(size: u64) -> BlobRequest {
    BlobRequest {
        blob_id: 0,
        size,
        mappable: true,
        shareable: true,
        cross_device: false,
    }
}

#[test]
fn what_the_main_process_does_not_grant_is_refused() {
    let guest = Process::start(&options(), Clerk::with_shared_bytes(4 << 20)).begin(1, "guest");
    let blob = |resource, size| {
        let request = request(size);
        guest
            .process
            .send(ToWorker::CreateBlob { resource, request }, &[]);
        guest.process.wait_for("an answer", |message| {
            matches!(message,
                FromWorker::BlobCreated { resource: at, .. } | FromWorker::BlobRefused { resource: at, .. }
                if *at == resource)
        })
    };
    assert!(matches!(blob(50, 1 << 20), FromWorker::BlobCreated { .. }));
    assert!(matches!(
        blob(51, 8 << 20),
        FromWorker::BlobRefused {
            kind: Refusal::OutOfMemory,
            ..
        }
    ));
    assert!(matches!(blob(52, 1 << 20), FromWorker::BlobCreated { .. }));
}

/// Lets the context write a reply into a resource that it did not make.
fn replies_into(guest: &process::Guest, resource: u32) {
    let mut stream = reply_stream(resource, 0, page_size() as usize);
    stream.extend(hesper_mock_venus::query(
        &command::EnumerateInstanceVersion {
            p_api_version: &mut 0,
        },
    ));
    guest.submit_bytes(&stream);
    guest.wait_fence(0);
}

/// Lets the context write another reply behind the one before.
fn replies_again(guest: &process::Guest) {
    guest.submit_bytes(&hesper_mock_venus::query(
        &command::EnumerateInstanceVersion {
            p_api_version: &mut 0,
        },
    ));
    guest.wait_fence(0);
}

/// Whether a reply is in the first page; it is removed.
fn has_reply(memory: &SharedMemory) -> bool {
    let mut reply = vec![0; page_size() as usize];
    memory.read(0, &mut reply).unwrap();
    memory.write(0, &vec![0; reply.len()]).unwrap();
    reply.iter().any(|byte| *byte != 0)
}

#[test]
fn a_blob_of_one_worker_is_used_in_another() {
    let one = Process::start(&options(), Clerk::default()).begin(1, "client");
    let other = Process::start(&options(), Clerk::default()).begin(2, "compositor");
    let (resource, memory) = one.blob(page_size());
    let piece = Piece {
        offset: memory.fd_offset(),
        size: memory.len() as u64,
        caching: Caching::Cached,
    };
    let attach = ToWorker::Attach {
        resource: resource + 100,
        memory: piece,
    };
    other.process.send(attach, &[memory.fd().unwrap()]);
    replies_into(&other, resource + 100);
    assert!(has_reply(&memory));
    // It outlives the one that made it.
    one.process.kill();
    replies_into(&other, resource + 100);
    assert!(has_reply(&memory));
}

#[test]
fn freed_memory_is_used_again_once_the_main_process_has_returned_its_blob() {
    const SIZE: u64 = 1 << 20;
    let guest = Process::start(&options(), Clerk::default()).begin(1, "guest");
    let gpu = guest.gpu();
    let device = Object::guest(gpu.device);
    let byte = |memory: &SharedMemory| {
        let mut byte = [0];
        memory.read(5, &mut byte).unwrap();
        byte[0]
    };
    let allocate = || {
        let id = guest.id();
        let mut info = vk::MemoryAllocateInfo {
            allocation_size: SIZE,
            ..Default::default()
        };
        let result = guest.call(command::AllocateMemory {
            device,
            p_allocate_info: &mut info,
            p_memory: &mut vk::DeviceMemory(id),
        });
        assert_eq!(result, 0);
        (id, guest.blob_of(id, SIZE))
    };
    let free = |id: u64, resource: u32| {
        let ticket = 0;
        guest
            .process
            .send(ToWorker::Detach { resource, ticket }, &[]);
        let memory = Object::guest(id);
        guest.send(&command::FreeMemory { device, memory });
        guest.wait_fence(0);
    };
    for is_given_away in [false, true] {
        let (id, (resource, serial, first)) = allocate();
        first.write(5, &[7]).unwrap();
        free(id, resource);
        let (_, (_, _, second)) = allocate();
        assert_eq!(byte(&second), 0, "the main process still has the blob");
        let returned = ToWorker::Returned {
            serial,
            is_given_away,
        };
        guest.process.send(returned, &[]);
        // A number that is none does nothing.
        let nothing = ToWorker::Returned {
            serial: u64::MAX,
            is_given_away,
        };
        guest.process.send(nothing, &[]);
        let (_, (_, _, third)) = allocate();
        assert_eq!(byte(&third) == 7, !is_given_away);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_that_could_shrink_is_not_attached() {
    if hesper_system::played().is_some() {
        // Other systems do not seal files.
        return;
    }
    let guest = Process::start(&options(), Clerk::default()).begin(1, "guest");
    let file = tempfile::tempfile().unwrap();
    file.set_len(page_size()).unwrap();
    let memory = Piece {
        offset: 0,
        size: page_size(),
        caching: Caching::Cached,
    };
    let attach = ToWorker::Attach {
        resource: 70,
        memory,
    };
    guest.process.send(attach, &[file.as_fd()]);
    guest.wait_fence(0);
    let lines = lines(&guest.process, log::Level::Warn);
    assert!(
        matches!(lines.as_slice(), [line] if line.contains("resource 70 cannot be attached")),
        "{lines:?}"
    );
}

#[test]
fn guest_memory_is_given_back_when_its_detaching_is_told() {
    let guest = Process::start(&options(), Clerk::default()).begin(1, "guest");
    let ram = SharedMemory::create(4 * page_size()).unwrap();
    let fd = ram.fd().unwrap();
    let attach = |resource, page: u64| ToWorker::AttachGuest {
        resource,
        runs: vec![Run {
            file: 1,
            offset: page * page_size(),
            size: page_size(),
        }],
    };
    for (resource, page) in [(30, 0), (31, 1), (32, 2)] {
        guest.process.send(attach(resource, page), &[fd, fd]);
    }
    replies_into(&guest, 30);
    assert!(has_reply(&ram));
    replies_again(&guest);
    assert!(has_reply(&ram), "behind the first one");
    let detach = ToWorker::Detach {
        resource: 30,
        ticket: 5,
    };
    // The reply stream stays in the resource, but the pages are the guest's.
    guest.process.send(detach, &[]);
    let told = |ticket| {
        guest.process.wait_for("the pages are back", |message| {
            *message == FromWorker::Detached { ticket }
        });
    };
    told(5);
    replies_again(&guest);
    assert!(!has_reply(&ram));
    guest.process.send(ToWorker::GiveBack { ticket: 6 }, &[]);
    told(6);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", guest.process.id()));
    let inode = rustix::fs::fstat(fd).unwrap().st_ino;
    if let Ok(maps) = maps {
        let is_mapped = maps
            .lines()
            .any(|line| line.split_whitespace().nth(4) == Some(&inode.to_string()));
        assert!(!is_mapped, "{maps}");
    }
}

#[test]
fn objects_of_a_context_are_destroyed_at_its_end() {
    let guest = Process::start(&options(), Clerk::default()).begin(1, "guest");
    let gpu = guest.gpu();
    guest.call(command::DeviceWaitIdle {
        device: Object::guest(gpu.device),
    });
    guest.process.send(ToWorker::End, &[]);
    // The null driver aborts when an instance is destroyed while a device of it is left.
    assert_eq!(guest.process.ended(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_is_confined() {
    let options = process::options_in(crate::sandbox::SandboxMode::On);
    let guest = Process::start(&options, Clerk::default()).begin(1, "guest");
    let _ring = Ring::new(&guest, 1);
    let threads = format!("/proc/{}/task", guest.process.id());
    let mut count = 0;
    for thread in std::fs::read_dir(threads).unwrap() {
        let status = thread.unwrap().path().join("status");
        let Ok(status) = std::fs::read_to_string(status) else {
            continue;
        };
        count += 1;
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{status}");
        }
    }
    // The reader, the context and the ring at least.
    assert!(count >= 3, "{count}");
    // The main process has said the same of its own sandbox.
    for level in [log::Level::Warn, log::Level::Info] {
        assert_eq!(lines(&guest.process, level), Vec::<String>::new());
    }
}
