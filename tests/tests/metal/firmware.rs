//! The monitor's tests of UEFI firmware (`crates/vmm/tests/firmware`), each under the machine's own KVM.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use hearth_tests::metal::Rack;
use hearth_tests::skipped;

use crate::limits::test_binary;

/// A test boots up to eight disks by GRUB, in a machine that is emulated in software.
const PATIENCE: Duration = Duration::from_secs(2000);
/// The module of the test that boots the most.
const ROADS: &str = "roads::";
/// What the tests read, and what `scripts/test --metal` makes of it.
const VARIABLES: [&str; 3] = ["HEARTH_FIRMWARE", "HEARTH_FIRMWARE_DISKS", "HEARTH_GRUB_DISKS"];

#[test]
#[ignore = "long: scripts/test --metal"]
fn firmware_boots_disks_where_the_processor_virtualizes() {
    let name = "firmware_boots_disks_where_the_processor_virtualizes";
    run(name, 7, |test| !test.starts_with(ROADS));
}

#[test]
#[ignore = "long: scripts/test --metal"]
fn the_direct_road_boots_what_grub_boots_from_firmware() {
    let name = "the_direct_road_boots_what_grub_boots_from_firmware";
    run(name, 1, |test| test.starts_with(ROADS));
}

/// Runs those of the monitor's tests that `wanted` names, at least so many, one after the other. One that is skipped there has
/// failed.
fn run(name: &str, at_least: usize, wanted: impl Fn(&str) -> bool) {
    let Some(mut rack) = Rack::new(name).unwrap() else {
        return;
    };
    let mut exports = String::new();
    for variable in VARIABLES {
        let Some(path) = std::env::var_os(variable).map(PathBuf::from) else {
            skipped(
                name,
                &format!("{variable} is not set (scripts/test --metal sets it)"),
            );
            return;
        };
        let directory = if path.is_dir() {
            &path
        } else {
            path.parent().unwrap()
        };
        rack.share(directory);
        exports += &format!("export {variable}='{}'; ", path.display());
    }
    let Some(binary) = test_binary("firmware") else {
        skipped(
            name,
            "hearth-vmm's test `firmware` is not built (scripts/test builds it)",
        );
        return;
    };
    let list = Command::new(&binary)
        .args(["--list", "--format", "terse"])
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let tests = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let tests: Vec<&str> = tests.filter(|test| wanted(test)).collect();
    assert!(tests.len() >= at_least, "{list}");

    let mut machine = rack.machine("alpha").unwrap();
    let mut failed = Vec::new();
    for test in tests {
        let start = Instant::now();
        let ended = machine
            .try_run(
                PATIENCE,
                &format!("{exports} '{}' --exact {test} --nocapture 2>&1", binary.display()),
            )
            .unwrap();
        println!("{test}: {:.1} s", start.elapsed().as_secs_f32());
        // What it says of itself: a line each, beginning with a name.
        for line in ended.stdout.lines().filter(|line| line.contains(": ")) {
            println!("    {line}");
        }
        let ran = ended.stdout.contains("1 passed") && !ended.stdout.contains("SKIPPED");
        if !(ended.status.success() && ran) {
            println!("{ended}");
            failed.push(test);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
