//! What the command line takes, and what it says about the rest.

use hesper_vhost::input::Kind;

use super::*;

fn parsed(line: &str) -> Result<Invocation, String> {
    parse(
        std::iter::once("hesper")
            .chain(line.split_whitespace())
            .map(OsString::from),
    )
}

fn served(line: &str) -> ServeOptions {
    match parsed(line) {
        Ok(Invocation::Serve(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn defaults_are_one_monitor_wherever_it_can_be_shown() {
    let options = served("--socket-path=/tmp/gpu.sock");
    assert_eq!(options.display, DisplayMode::Auto);
    assert_eq!(options.scanouts, 1);
    assert_eq!(options.size, None);
    assert_eq!(options.placement, PlacementChoice::Remember);
    assert_eq!(options.socket.socket_path, Some("/tmp/gpu.sock".into()));
}

#[test]
fn every_input_device_has_a_socket() {
    let options = served("--fd=3 --input-socket keyboard:/a:b --input-socket=tablet:t.sock");
    let socket = |kind, path: &str| InputSocket {
        kind,
        path: path.into(),
    };
    let expected = [
        socket(Kind::Keyboard, "/a:b"),
        socket(Kind::Tablet, "t.sock"),
    ];
    assert_eq!(options.input_sockets, expected);
}

#[test]
fn libvirt_passes_a_descriptor_virgl_and_a_render_node() {
    let options = served("--fd=7 --virgl --render-node /dev/dri/renderD128");
    assert_eq!(options.socket.fd, Some(7));
    assert!(options.virgl);
    assert_eq!(options.render_node, Some("/dev/dri/renderD128".into()));
}

#[test]
fn programs_of_the_guest_are_isolated_as_asked() {
    for (line, expected) in [
        ("--socket-path=s", None),
        ("--socket-path=s --isolate=on", Some(Switch::On)),
        ("--socket-path=s --isolate off", Some(Switch::Off)),
    ] {
        assert_eq!(served(line).confinement.isolate, expected, "{line}");
        let Ok(Invocation::Vtest(options)) = parsed(&format!("vtest {line}")) else {
            panic!("{line}")
        };
        assert_eq!(options.confinement.isolate, expected, "{line}");
    }
}

#[test]
fn what_hesper_starts_itself_is_not_in_the_help() {
    let Ok(Invocation::Print(text)) = parsed("--help") else {
        panic!("no help")
    };
    assert!(text.contains("--isolate <WHETHER>"), "{text}");
    assert!(
        !text.contains("spawner") && !text.contains("worker"),
        "{text}"
    );
    let Ok(Invocation::Spawner(SpawnerOptions { options })) = parsed("spawner --options={}") else {
        panic!()
    };
    assert_eq!(options, "{}");
    let line = "worker --socket-fd 5 --budget-fd 6 --options {}";
    let Ok(Invocation::Worker(worker)) = parsed(line) else {
        panic!()
    };
    assert_eq!((worker.socket_fd, worker.budget_fd), (5, 6));
}

#[test]
fn print_capabilities_ignores_everything_else() {
    assert!(matches!(
        parsed("--nonsense --fd=x --print-capabilities --size 1"),
        Ok(Invocation::PrintCapabilities)
    ));
    let json: serde_json::Value = serde_json::from_str(&capabilities(true)).unwrap();
    assert_eq!(json["type"], "gpu");
    let features = json["features"].as_array().unwrap();
    let has = |name: &str| features.iter().any(|feature| feature == name);
    assert_eq!(has("virgl"), cfg!(feature = "virgl"));
    assert!(has("render-node"));
    assert!(!capabilities(false).contains("render-node"));
}

#[test]
fn a_wrong_value_gives_one_line_with_the_value_and_what_is_allowed() {
    for (line, value, allowed) in [
        (
            "--socket-path=s --display=tv",
            "tv",
            "auto, window, qemu, headless",
        ),
        (
            "--socket-path=s --resize=never",
            "never",
            "guest, scale, fixed",
        ),
        (
            "--socket-path=s --scaling=cubic",
            "cubic",
            "smooth, integer, none",
        ),
        ("--socket-path=s --vsync=maybe", "maybe", "on, off"),
        ("vtest --socket-path=s --isolate=1", "1", "on, off"),
        (
            "--socket-path=s --on-close=never",
            "never",
            "ask, hide, quit",
        ),
        (
            "--socket-path=s --grab-mod=alt",
            "alt",
            "ctrl-alt, lshift-lctrl-lalt, rctrl, cmd",
        ),
        (
            "--socket-path=s --cmd-key=meta",
            "meta",
            "super, swap-opt-cmd, swap-ctrl-cmd, host",
        ),
        (
            "--socket-path=s --display=headless --record=film.y4m",
            "--record",
            "--display=window",
        ),
        ("--socket-path=s --size=0x0", "0x0", "64 to 16384"),
        ("--socket-path=s --size=1280", "1280", "WIDTHxHEIGHT"),
        (
            "--socket-path=s --size=1280x99999999999",
            "1280x99999999999",
            "64 to 16384",
        ),
        ("--socket-path=s --scanouts=17", "17", "1 to 16"),
        ("--socket-path=s --scanouts=two", "two", "1 to 16"),
        ("--fd=1", "1", "from 3 to"),
        ("--socket-path=s --hostmem=3G", "3G", "power of two"),
        ("--socket-path=s --hostmem=1K", "1K", "from 1M to 64T"),
        (
            "--socket-path=s --blob-alignment=12288",
            "12288",
            "power of two",
        ),
        ("--socket-path=s --blob-alignment=2048", "2048", "from 4096"),
        ("--socket-path=s --wsi=dri", "dri", "software or dmabuf"),
        ("--socket-path=s --command-memory=1K", "1K", "1M to 1T"),
        ("--socket-path=s --command-memory=G", "G", "1M to 1T"),
        ("vtest --socket-path=s --rings=3", "3", "64 to 65536"),
        ("vtest --socket-path=s --gpu-memory=1M", "1M", "64M to 64T"),
        ("--socket-path=s --gpu-memory=much", "much", "64M to 64T"),
        (
            "--socket-path=s --hostmem=99999999999999999999G",
            "99999",
            "power of two",
        ),
        ("--socket-path=s --record=film.mp4", "film.mp4", ".y4m"),
        (
            "--socket-path=s --gpu=1 --hostmem=0",
            "--gpu=1",
            "--hostmem=0",
        ),
        (
            "--socket-path=s --render-node=/dev/dri/renderD128 --display=qemu",
            "renderD128",
            "--display=qemu",
        ),
        (
            "--socket-path=s --capsets=venus --hostmem=0",
            "--capsets=venus",
            "--hostmem=0",
        ),
        (
            "--socket-path=s --gpu=1 --render-node=/d",
            "--gpu",
            "--render-node",
        ),
        ("--socket-path=s --dispaly=qemu", "--dispaly", "--display"),
        (
            "--socket-path=s --display=headles",
            "headles",
            "did you mean headless",
        ),
        ("doctr", "doctr", "did you mean doctor"),
        ("--socket-path=s --fd=5", "--fd", "--socket-path"),
        ("", "--socket-path", "--fd"),
        ("--display=headless", "--socket-path", "--fd"),
        ("--socket-path=s --bogus", "--bogus", "unexpected"),
        ("--socket-path=s --bogus", "--bogus", "hesper --help"),
        ("bogus", "bogus", "hesper --help"),
        (
            "--socket-path=s --input-socket=lever:/l",
            "lever:/l",
            "keyboard, tablet, mouse, touch",
        ),
        ("--socket-path=s --input-socket=mouse", "mouse", "KIND:PATH"),
        (
            "--socket-path=s --input-socket=touch:",
            "touch:",
            "KIND:PATH",
        ),
        (
            "--socket-path=s --input-socket=mouse:/a --input-socket=mouse:/b",
            "mouse:/b",
            "one of each kind",
        ),
        (
            "--socket-path=s --input-socket=mouse:/a --input-socket=tablet:/a",
            "tablet:/a",
            "path of its own",
        ),
        (
            "--socket-path=s --display=qemu --input-socket=mouse:/a",
            "--input-socket",
            "virtio-tablet-pci",
        ),
    ] {
        let message = parsed(line).expect_err(line);
        assert!(!message.contains('\n'), "{message}");
        assert!(message.contains(value), "{line}: {message}");
        assert!(message.contains(allowed), "{line}: {message}");
    }
}

#[test]
fn a_gpu_is_a_number_a_uuid_or_a_name() {
    assert_eq!("1".parse(), Ok(GpuChoice::Index(1)));
    assert_eq!(
        "llvmpipe".parse(),
        Ok(GpuChoice::Name("llvmpipe".to_owned()))
    );
    let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f".parse();
    assert_eq!(
        uuid,
        Ok(GpuChoice::Uuid([
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        ]))
    );
}

#[test]
fn a_number_of_bytes_has_a_unit_in_either_way() {
    for (text, expected) in [
        ("16384", Some(16 << 10)),
        ("16K", Some(16 << 10)),
        ("16k", Some(16 << 10)),
        ("16KiB", Some(16 << 10)),
        ("1MiB", Some(1 << 20)),
        ("8GiB", Some(8 << 30)),
        ("2T", Some(2 << 40)),
        ("7B", Some(7)),
        ("", None),
        ("K", None),
        ("8 G", None),
        ("8GB", None),
        ("-8G", None),
        ("99999999T", None),
    ] {
        assert_eq!(values::bytes(text), expected, "{text}");
    }
    assert_eq!("16KiB".parse(), Ok(BlobAlignment(16384)));
    assert_eq!("64K".parse(), Ok(BlobAlignment(65536)));
    assert_eq!("8G".parse(), Ok(HostMemory(8 << 30)));
    assert_eq!("256m".parse(), Ok(HostMemory(256 << 20)));
    assert_eq!("0".parse(), Ok(HostMemory(0)));
    assert_eq!("1073741824".parse(), Ok(HostMemory(1 << 30)));
}

#[test]
fn help_shows_every_option_in_its_group() {
    let Ok(Invocation::Print(text)) = parsed("--help") else {
        panic!("no help")
    };
    let headings = [
        "Connection:",
        "GPU:",
        "Security:",
        "Window:",
        "Input:",
        "Diagnostics:",
        "Compatibility:",
        "Options:",
    ];
    let places = headings.map(|heading| text.find(&format!("\n{heading}")).expect(heading));
    let group = |option: &str| {
        let place = text
            .find(&format!("\n      {option}"))
            .or_else(|| text.find(&format!(", {option}\n")));
        let place = place.unwrap_or_else(|| panic!("{option} is not in:\n{text}"));
        let before = places.iter().zip(headings).filter(|(at, _)| **at < place);
        before.max().map(|(_, heading)| heading)
    };
    for (option, heading) in [
        ("--socket-path", "Connection:"),
        ("--fd", "Connection:"),
        ("--render-node", "GPU:"),
        ("--isolate", "Security:"),
        ("--display", "Window:"),
        ("--grab-mod", "Input:"),
        ("--record", "Diagnostics:"),
        ("--virgl", "Compatibility:"),
        ("--print-capabilities", "Compatibility:"),
        ("--help", "Options:"),
    ] {
        assert_eq!(group(option), Some(heading), "{option}");
    }
    // Nothing but help and version stands outside of the groups.
    let options = text.get(places[7]..places[0]).unwrap_or_default();
    assert_eq!(options.matches("\n  -").count(), 2, "{options}");
}
