//! The same disks by GRUB, which firmware runs, and by the direct road: the same kernel, command line and initrds.
//!
//! `HEARTH_GRUB_DISKS` names the directory of disks (`images/firmware/grub-disks`). Each prints what it was booted with, and
//! powers off.

use std::path::Path;
use std::time::{Duration, Instant};

use hearth_image::{Construct, Road, find_road};
use hearth_vmm::spec::{BootSpec, Outcome};

use super::guest::{Guest, files};
use super::{Files, copy, firmware};

/// For one boot. GRUB, whose menu waits for a key when it cannot boot its default, would wait for ever.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a disk printed. The command line begins with the path of the kernel, which GRUB puts there.
#[derive(Debug, PartialEq, Eq)]
struct Printed {
    cmdline: String,
    initrds: String,
}

impl Printed {
    /// Waits until the guest has powered itself off; an error is what it printed instead.
    fn of(mut guest: Guest) -> Result<Self, String> {
        let deadline = Instant::now() + PATIENCE;
        let console = loop {
            let console = guest.console().replace('\r', "");
            if console.contains("\nend\n") {
                break console;
            }
            if Instant::now() > deadline {
                return Err(format!("no end within {PATIENCE:?}: {console}"));
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        let line = |start: &str| {
            let mut lines = console.lines().rev();
            lines.find_map(|line| line.strip_prefix(start)).map(str::to_owned)
        };
        let printed = match (line("cmdline: "), line("initrds: ")) {
            (Some(cmdline), Some(initrds)) => Self { cmdline, initrds },
            _ => return Err(format!("it printed something else: {console}")),
        };
        match guest.outcome() {
            Outcome::GuestPowerOff => Ok(printed),
            outcome => Err(format!("it ended with {outcome:?}")),
        }
    }
}

/// Why the direct road is not taken.
fn closed(disk: &Path) -> Option<Construct> {
    match find_road(std::fs::File::open(disk).unwrap()).unwrap() {
        Road::Direct(_) => None,
        Road::Firmware { because } => Some(because),
    }
}

fn directly(files: &Files, disk: &Path) -> Guest {
    Guest::launch(|spec, fds| {
        files.attach(copy(disk), spec, fds);
        spec.boot = BootSpec::Disk;
    })
}

/// What both roads boot, or why there is one road only.
fn compare(machine: &Files, disk: &Path) -> Result<String, String> {
    let start = Instant::now();
    let by_grub = Printed::of(machine.boot_file(copy(disk))).map_err(|said| format!("by GRUB: {said}"))?;
    let by_grub_took = start.elapsed().as_secs_f32();
    if let Some(because) = closed(disk) {
        return Err(format!("not directly: {because}; by GRUB: {by_grub:?}"));
    }
    let start = Instant::now();
    let direct = Printed::of(directly(machine, disk)).map_err(|said| format!("directly: {said}"))?;
    let direct_took = start.elapsed().as_secs_f32();
    if direct != by_grub {
        return Err(format!("directly {direct:?}, by GRUB {by_grub:?}"));
    }
    Ok(format!(
        "GRUB {by_grub_took:.1} s, directly {direct_took:.1} s: {} | {}",
        direct.cmdline, direct.initrds
    ))
}

#[test]
fn the_direct_road_boots_what_grub_boots() {
    let test = "the_direct_road_boots_what_grub_boots";
    let (Some(machine), Some([disks])) = (firmware(test), files(test, ["HEARTH_GRUB_DISKS"])) else {
        return;
    };
    let mut disks: Vec<_> = std::fs::read_dir(disks)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    disks.sort();
    assert!(disks.len() >= 9, "{disks:?}");
    let mut failed = Vec::new();
    for disk in disks {
        let name = disk.file_stem().unwrap().to_string_lossy().into_owned();
        match compare(&machine, &disk) {
            Ok(both) => println!("{name}: {both}"),
            Err(said) => {
                println!("{name}: FAILED: {said}");
                failed.push(name);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
