//! Tests what an operator sees of the server: the trace of commands, the counters, and the reason
//! why a client was ended.

use hesper_mock_venus::bytes;
use hesper_venus_protocol::command;
use hesper_venus_protocol::runtime::Object;

use crate::raw::{await_end, client, send, submit};
use crate::server::{Alive, CLIENT, OWN_SUITE, Server};

#[test]
fn the_log_shows_commands_with_their_arguments_when_asked_to() {
    let server = Server::with(&[], &[("RUST_LOG", "hesper_venus::commands=debug")]);
    assert!(server.client(&["submit-one"]).status().unwrap().success());
    let log = server.log();
    let line = |command: &str| {
        let found = log.lines().find(|line| line.contains(command));
        found.unwrap_or_else(|| panic!("no {command} in {log}"))
    };
    // The trace shows numbers, enums, flags, strings, arrays, chains and objects.
    assert!(line("vkCmdFillBuffer(").contains("size=18446744073709551615, data=305419896)"));
    assert!(line("vkCmdPipelineBarrier(").contains("srcStageMask=ALL_COMMANDS"));
    assert!(line("vkCreateInstance(").contains("pApplicationName=\"hesper-test-client\""));
    assert!(line("vkGetDeviceQueue2(").contains("VkDeviceQueueTimelineInfoMESA{ringIdx=1}"));
    assert!(line("vkBindBufferMemory2(").contains("pBindInfos=[{buffer=0x"));
    assert!(line("vkCreateRingMESA(").contains(" virtqueue: "));
    assert!(line("vkEnumeratePhysicalDevices(").contains(" ring: ") && log.contains(" -> reply"));

    let quiet = Server::start();
    assert!(quiet.client(&["submit-one"]).status().unwrap().success());
    assert!(!quiet.log().contains("vkCmdFillBuffer"), "{}", quiet.log());
}

#[test]
fn a_signal_prints_counters_of_what_was_done() {
    let server = Server::start();
    let threads = server.count("task");
    let count = |name: &str| server.counters()[name].as_u64().unwrap();
    let names = [
        "commands",
        "lookups",
        "command_bytes",
        "batches",
        "wakes",
        "fences",
    ];
    assert_eq!(names.map(count), [0; 6]);
    assert!(
        server
            .client(&["submit-64-in-flight"])
            .status()
            .unwrap()
            .success()
    );
    server.rest(threads);
    let [commands, lookups, bytes, batches, _, _] = names.map(count);
    // The case records 64 command buffers with three commands or more. Each command names its
    // command buffer and a buffer.
    assert!(commands > 300 && lookups > commands, "{commands} {lookups}");
    assert!(bytes > 20 * commands && batches > 10, "{bytes} {batches}");
    // This client waits for seconds. On a busy machine, a ring that yields to others runs again
    // late, so a shorter pause may find it still awake.
    let mut waiting = server.with_venus_of(OWN_SUITE, CLIENT);
    waiting.args(["spin", "2"]);
    assert!(waiting.status().unwrap().success());
    server.rest(threads);
    assert!(count("wakes") > 0, "a ring that slept was woken");
    assert_eq!(count("lost"), 0);
    // Mesa's fences are of the queue's timeline. 26.2 waits for them; older versions poll memory.
    assert_eq!(server.alive(), Alive::default());
}

#[test]
fn a_client_that_breaks_the_rules_is_named_with_command_place_and_reason_and_ends_alone() {
    let server = Server::start();
    let threads = server.count("task");
    let good = bytes(&command::EnumerateInstanceVersion {
        p_api_version: &mut 0,
    });
    assert_eq!(good.len(), 16);
    // One command may only be in rings, the other names an object that nobody created.
    let misplaced = bytes(&command::WaitVirtqueueSeqnoMESA { seqno: 1 });
    let unknown = bytes(&command::DeviceWaitIdle {
        device: Object::guest(77),
    });
    let cases = [
        (misplaced, "\"first\"", "vkWaitVirtqueueSeqnoMESA"),
        (unknown, "\"second\"", "vkDeviceWaitIdle"),
    ];
    let bystander = client(&server, "bystander");
    for (bad, name, command) in cases {
        let mut stream = client(&server, name.trim_matches('"'));
        submit(&mut stream, &[good.as_slice(), &bad].concat());
        await_end(stream);
        let log = server.log();
        let about: Vec<_> = log
            .lines()
            .filter(|line| line.contains("is lost"))
            .collect();
        let line = about.iter().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {log}"));
        assert!(line.contains("ERROR") && line.contains(command), "{line}");
        assert!(line.contains("byte "), "{line}");
        let place = line.split("byte ").nth(1).unwrap();
        let place: String = place.chars().take_while(char::is_ascii_digit).collect();
        assert!((16..40).contains(&place.parse().unwrap()), "{line}");
    }
    assert_eq!(server.log().matches("is lost").count(), 2);
    assert!(server.client(&["submit-one"]).status().unwrap().success());
    assert_eq!(server.counters()["lost"], 2);
    drop(bystander);
    server.rest(threads);
}

/// Covers the commands of vtest's version 4 that Venus does not use.
#[test]
fn an_unknown_command_of_vtest_ends_its_client_with_one_line() {
    let server = Server::start();
    let threads = server.count("task");
    let bystander = client(&server, "bystander");
    for number in 25..=38 {
        let mut stream = client(&server, "newer");
        send(&mut stream, number, 2, &[0; 8]);
        await_end(stream);
    }
    let log = server.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("newer")).collect();
    assert_eq!(lines.len(), 14, "{log}");
    assert!(
        lines
            .iter()
            .all(|line| line.contains("WARN") && line.contains("unknown"))
    );
    assert!(server.client(&["submit-one"]).status().unwrap().success());
    drop(bystander);
    server.rest(threads);
}
