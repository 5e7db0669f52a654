//! The GPU together with other devices of the VM: Hesper's own input devices, a shared folder of
//! Debian's `virtiofsd`, and memory that is plugged in while the guest runs. More blobs are mapped
//! than vhost has regions (eight), and QEMU offers each of them to all devices.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::hesper::Hesper;
use crate::support::process::{Process, in_environment};
use crate::support::vulkan_guest::VulkanGuest;
use crate::support::xserver::XServer;
use serde_json::json;

const INPUTS: [&str; 2] = ["keyboard", "tablet"];

/// Mounts the shared folder, unless it is mounted, then reads and writes a file of it.
const USE_FOLDER: &str = "\
modprobe virtiofs; mkdir -p /mnt/share
grep -q /mnt/share /proc/mounts || busybox mount -t virtiofs share /mnt/share
[ \"$(cat /mnt/share/from-host)\" = 'hello guest' ] && echo 'hello host' >/mnt/share/from-guest";

/// Starts `evtest` on all devices.
const LISTEN: &str = "\
for event in /dev/input/event*; do timeout 600 stdbuf -oL evtest $event >/tmp/evtest-${event##*/} & done
for i in $(seq 600); do [ $(cat /tmp/evtest-* | grep -c ^Testing) -lt 3 ] || break; sleep 0.1; done";

/// Waits until the key, the place and the button have arrived, then ends `evtest`.
const HEARD: &str = "\
for words in 'KEY_H), value 0' 'ABS_Y), value' 'BTN_RIGHT), value 0'; do
    for i in $(seq 600); do ! grep -q \"$words\" /tmp/evtest-* || break; sleep 0.1; done
    grep -q \"$words\" /tmp/evtest-* || { cat /tmp/evtest-*; exit 1; }
done
pkill evtest; rm /tmp/evtest-*";

fn start_virtiofsd(folder: &Path) -> Process {
    std::fs::create_dir(folder.join("share")).unwrap();
    std::fs::write(folder.join("share/from-host"), "hello guest").unwrap();
    let socket = folder.join("fs.sock");
    let child = in_environment("/usr/libexec/virtiofsd")
        .arg("--socket-path")
        .arg(&socket)
        .arg("--shared-dir")
        .arg(folder.join("share"))
        // A sandbox needs rights that a container may lack.
        .arg("--sandbox=none")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tests/env/run starts; see tests/env/README.md");
    let mut process = Process::new("virtiofsd", child);
    process.until("socket", || socket.exists());
    process
}

/// The devices, as options for a guest.
fn devices(folder: &Path) -> Vec<String> {
    let mut arguments = vec!["-m".to_owned(), "1G,slots=2,maxmem=4G".to_owned()];
    let mut add = |name: &str, socket: &Path, device: &str| {
        let chardev = format!("socket,id={name},path={}", socket.display());
        let device = format!("{device},chardev={name}");
        arguments.extend(["-chardev".to_owned(), chardev, "-device".to_owned(), device]);
    };
    for kind in INPUTS {
        let socket = folder.join(format!("{kind}.sock"));
        add(kind, &socket, "vhost-user-input-pci");
    }
    add("fs", &folder.join("fs.sock"), "vhost-user-fs-pci,tag=share");
    let option = |argument| ["--qemu-arg".to_owned(), argument];
    arguments.into_iter().flat_map(option).collect()
}

#[test]
fn maps_do_not_disturb_input_a_shared_folder_and_plugged_memory() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1400, 900);
    let inputs = INPUTS.map(|kind| {
        let socket = folder.join(format!("{kind}.sock"));
        format!("--input-socket={kind}:{}", socket.display())
    });
    let mut arguments = vec!["--wsi=software", "--size=640x400"];
    arguments.extend(inputs.iter().map(String::as_str));
    let hesper = Hesper::start(folder, &arguments, Some(&screen));
    let _virtiofsd = start_virtiofsd(folder);
    let options = devices(folder);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut guest = VulkanGuest::boot_with(folder, "guest", "forky", &hesper.socket(), &options);
    screen.focus();
    let window = screen.window();
    let all_work = |guest: &mut VulkanGuest| {
        guest.succeed(USE_FOLDER);
        let written = std::fs::read_to_string(folder.join("share/from-guest"));
        assert_eq!(written.unwrap(), "hello host\n");
        std::fs::remove_file(folder.join("share/from-guest")).unwrap();
        guest.succeed(LISTEN);
        for place in ["100", "200"] {
            let at = ["mousemove", "--window", &window, place, place];
            screen.run("xdotool", &at);
        }
        screen.run("xdotool", &["key", "h", "click", "3"]);
        guest.succeed(&format!("({HEARD})"));
        guest.succeed("hesper-test-client run submit-one map-gpu-writes");
    };

    guest.start_hold(40, 1);
    all_work(&mut guest);

    let mut qmp = guest.qmp();
    let memory = json!({"qom-type": "memory-backend-memfd", "id": "more", "size": 1u64 << 30, "share": true});
    qmp.run("object-add", memory);
    qmp.run(
        "device_add",
        json!({"driver": "pc-dimm", "id": "dimm", "memdev": "more"}),
    );
    // The file is larger than the free memory was before, so the programs that follow use pages of
    // the new memory.
    guest.succeed(
        "for i in $(seq 600); do [ $(free -m | awk '/Mem:/ {print $2}') -lt 1500 ] || break; sleep 0.1; done\n\
         mkdir -p /tmp/big; busybox mount -t tmpfs -o size=1500M none /tmp/big && head -c 800M /dev/zero >/tmp/big/zeros",
    );
    all_work(&mut guest);
    guest.succeed("busybox umount /tmp/big");

    // QEMU talks to one client at a time.
    drop(qmp);
    guest.pause(Duration::from_secs(1));
    all_work(&mut guest);

    for driver in ["virtiofs", "virtio_input"] {
        guest.succeed(&format!(
            "busybox umount /mnt/share; cd /sys/bus/virtio/drivers/{driver} && devices=$(echo virtio[0-9]*)\n\
             for device in $devices; do echo $device >unbind && echo $device >bind || exit 1; done\n\
             cd; for i in $(seq 600); do [ $(ls /dev/input/event* | wc -l) -lt 3 ] || break; sleep 0.1; done"
        ));
    }
    all_work(&mut guest);
    guest.end_hold();

    let complaints = guest.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}
