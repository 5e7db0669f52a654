//! A program in the guest that ends its own driver, or keeps it busy for ever, ends alone: Hesper
//! has a process for each context. Beside it another program's cube goes on turning.
//!
//! `HESPER_CRASHES=N` crashes N times without a pause instead of 20. `tests/run-all long` crashes a
//! hundred times.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::cube::assert_turning;
use crate::support::hesper::Hesper;
use crate::support::number;
use crate::support::process::comes_true;
use crate::support::programs::{Linked, driver_manifest, for_guest};
use crate::support::vulkan_guest::VulkanGuest;

/// The attacks, and what the log says of each: why the process ended, and in which command.
const ATTACKS: [(&str, &str, &str); 6] = [
    ("crash-shader", "SIGSEGV", ""),
    ("crash-driver", "SIGSEGV", "vkCreateShaderModule"),
    ("abort-driver", "SIGABRT", "vkCreateShaderModule"),
    ("crash-driver-at-submit", "SIGSEGV", "vkQueueSubmit"),
    ("hang-driver", "", ""),
    ("endless-shader", "", ""),
];

/// Attacks as an unprivileged user of the group that may use the GPU.
const HOSTILE: &str = "setpriv --reuid=nobody --regid=video --clear-groups hesper-test-hostile";

/// Writes a line for each lost context into the log, and not only for the first 20 in ten seconds.
const ALL_LOSSES: (&str, &str) = (
    "RUST_LOG",
    "info,hesper=debug,hesper_venus=info,hesper_system=info,hesper_vhost=info,hesper_display=info",
);

/// A Hesper with the driver that crashes, and a guest in which a cube turns.
struct Attacked {
    guest: VulkanGuest,
    hesper: Hesper,
}

impl Attacked {
    fn start(folder: &Path) -> Self {
        let manifest = driver_manifest(folder, "hesper_crashing_driver");
        let variables = [("VK_DRIVER_FILES", manifest.as_str()), ALL_LOSSES];
        let hesper = Hesper::start_in(folder, &["--display=headless"], None, None, &variables);
        let program = for_guest("hesper-test-hostile", Linked::Statically, "forky");
        let options = ["--smp", "2", "--file", program.to_str().unwrap()];
        let mut guest =
            VulkanGuest::boot_with(folder, "guest", "forky", &hesper.socket(), &options);
        guest.start_weston();
        guest.start_lasting_cube();
        assert_turning(|| hesper.screenshot(0));
        guest.succeed("chgrp video /dev/dri/renderD128 && chmod 660 /dev/dri/renderD128");
        Self { guest, hesper }
    }

    #[track_caller]
    fn attack(&mut self, arguments: &str) -> String {
        let (status, said) = self
            .guest
            .run(&format!("timeout 200 {HOSTILE} {arguments} 2>&1"));
        let log = self.hesper.process.errors();
        assert_eq!(status, 0, "{arguments}:\n{said}\n{log}");
        said
    }

    /// The lines of the log about contexts that were lost.
    fn losses(&self) -> Vec<String> {
        let log = self.hesper.process.errors();
        // Refused blobs of a lost context have warnings of their own.
        let is_loss = |line: &&str| line.contains("is lost") && !line.contains("WARN");
        let lines = log.lines().filter(is_loss);
        lines.map(str::to_owned).collect()
    }

    /// The flushes of the guest's screen.
    fn flushes(&self) -> u64 {
        let counters: serde_json::Value =
            serde_json::from_str(&self.hesper.control("counters")).unwrap();
        counters["windows"][0]["flushes"].as_u64().unwrap()
    }

    /// Flushes a second while `body` runs.
    fn rate(&mut self, body: impl FnOnce(&mut Self)) -> f64 {
        self.window(body)[0]
    }

    /// The same, and the processors that QEMU and Hesper's processes keep busy meanwhile.
    fn window(&mut self, body: impl FnOnce(&mut Self)) -> [f64; 3] {
        let sums = |vm: &Self| {
            let cpu = vm.hesper.process.cpu_of_all();
            [vm.flushes() as f64, vm.guest.qemu_cpu(), cpu]
        };
        let (before, begin) = (sums(self), Instant::now());
        body(self);
        let (after, seconds) = (sums(self), begin.elapsed().as_secs_f64());
        std::array::from_fn(|one| (after[one] - before[one]) / seconds)
    }
}

#[test]
fn many_crashes_in_one_boot_leave_the_screen_and_another_programs_cube_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut vm = Attacked::start(folder.path());
    let processes = vm.hesper.process.descendants().len();
    assert!(processes >= 2, "contexts have no processes of their own");
    attack_in_each_way(&mut vm);
    let crashes = vm.losses().len() + keep_the_frames(&mut vm);
    let (begin, rounds) = (Instant::now(), number("HESPER_CRASHES", 20).div_ceil(4));
    let rate = vm.rate(|vm| {
        // In several commands, because the shell waits for a limited time.
        for _ in 0..2 {
            vm.attack(&format!("--times {rounds} crash-shader abort-driver"));
        }
    });
    let more = 4 * rounds as usize;
    println!(
        "{more} crashes without a pause took {:?}, {rate:.1} frames a second beside them",
        begin.elapsed()
    );
    assert_turning(|| vm.hesper.screenshot(0));
    assert_eq!(vm.losses().len(), crashes + more);
    let log = vm.hesper.process.errors();
    assert!(!log.contains("panicked"), "{log}");
    // Also those of the programs that hung are gone.
    let gone = comes_true(|| vm.hesper.process.descendants().len() == processes);
    assert!(gone, "{:?}", vm.hesper.process.descendants());
    vm.guest
        .succeed("hesper-test-client run submit-64-in-flight map-gpu-writes draw-render-pass");
}

/// Each attack ends its own context with one line in the log, and the cube turns on.
fn attack_in_each_way(vm: &mut Attacked) {
    let mut losses = 0;
    for (attack, reason, command) in ATTACKS {
        vm.attack(attack);
        assert_turning(|| vm.hesper.screenshot(0));
        if reason.is_empty() {
            continue;
        }
        let lines = vm.losses();
        losses += 1;
        assert_eq!(lines.len(), losses, "{attack}: {lines:#?}");
        let line = lines.last().unwrap();
        let says = |word: &str| line.contains(word);
        let is_right = says(reason) && says(command) && says("hesper-test-hos");
        assert!(is_right, "{attack}: {line}");
    }
}

/// How often frames are counted, with and without attacks in turns.
const ROUNDS: usize = 5;
/// Attacks while frames are counted. An attack costs the guest and the host the start of a program
/// and of its driver, which the cube's own drawing gives way to.
const PACE: &str = "--every 1500 crash-shader abort-driver";

/// The cube keeps nine frames of ten while another program crashes again and again. Returns the
/// number of crashes.
///
/// On a machine that is busy with other things, frames vary by more than that from one window to
/// the next. Then this takes longer, and fails only if the cube loses every fourth frame.
fn keep_the_frames(vm: &mut Attacked) -> usize {
    let (mut rates, mut kept) = (Vec::new(), Vec::new());
    for round in 1..=2 * ROUNDS {
        let alone = vm.rate(|_| sleep(Duration::from_secs(3)));
        let beside = vm.rate(|vm| drop(vm.attack(PACE)));
        rates.push((alone, beside));
        kept.push(beside / alone);
        if round % ROUNDS == 0 && median(&kept) >= 0.9 {
            break;
        }
    }
    let percent = 100.0 * median(&kept);
    println!(
        "the cube keeps {percent:.0} % of its frames beside crashes; frames a second alone and beside: {rates:.1?}"
    );
    assert!(percent >= 75.0, "the cube loses frames");
    2 * rates.len()
}

/// What [`frames_beside_each_attack`] compares the attacks with.
const HARMLESS: &str = " harmless-spin harmless-contexts harmless-devices";

/// `HESPER_ATTACKS='NAME NAME…'` takes these only.
#[test]
#[ignore = "measures and prints, for minutes: cargo test --test guests -- --ignored --nocapture frames_beside"]
fn frames_beside_each_attack() {
    let folder = tempfile::tempdir().unwrap();
    let mut vm = Attacked::start(folder.path());
    println!(
        "| beside | frames a second, alone and beside | kept, median | processors of QEMU, alone and beside | of Hesper |\n|---|--:|--:|--:|--:|"
    );
    let all = vm.attack("list") + HARMLESS;
    let wanted = std::env::var("HESPER_ATTACKS").unwrap_or(all);
    for attack in wanted.split_whitespace() {
        let mut kept = Vec::new();
        let mut windows: [Vec<[f64; 3]>; 2] = Default::default();
        for _ in 0..3 {
            let alone = vm.window(|_| sleep(Duration::from_secs(3)));
            let beside =
                vm.window(|vm| drop(vm.attack(&format!("--times 2 --every 1500 {attack}"))));
            kept.push(beside[0] / alone[0]);
            windows[0].push(alone);
            windows[1].push(beside);
        }
        let of = |what: usize| {
            let [alone, beside] = windows
                .each_ref()
                .map(|all| median(&all.iter().map(|window| window[what]).collect::<Vec<_>>()));
            format!("{alone:.2} {beside:.2}")
        };
        let percent = 100.0 * median(&kept);
        let (frames, qemu, hesper) = (of(0), of(1), of(2));
        println!("| {attack} | {frames} | {percent:.0} % | {qemu} | {hesper} |");
    }
    assert_turning(|| vm.hesper.screenshot(0));
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
