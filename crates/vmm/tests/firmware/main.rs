//! Disks that boot by UEFI firmware, under the real monitor: by the boot loader that is on them.
//!
//! `HEARTH_FIRMWARE` names the firmware (`images/firmware/build`), `HEARTH_FIRMWARE_DISKS` the directory of disks
//! (`images/firmware/disks`). It needs a processor that virtualizes: where KVM interprets the guest's kernel, firmware does not
//! run, and the tests are skipped. `scripts/test --metal` runs all of them on an emulated machine that virtualizes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../boot/guest.rs"]
mod guest;
#[path = "../linux/linux.rs"]
mod harness;

mod machine;
mod menu;
mod nothing;
mod reboot;
mod roads;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest::{Guest, Inherited, files};
use harness::Linux;
use hearth_vmm::spec::{BootSpec, Cache, DiskBacking, DiskSpec, VmSpec};

/// A loader reads its kernel by the firmware, in a machine that is emulated perhaps.
const PATIENCE: Duration = Duration::from_secs(500);

/// The firmware and a directory of disks.
pub struct Files {
    firmware: PathBuf,
    disks: PathBuf,
}

/// `None`, loudly, where firmware cannot run.
pub fn firmware(test: &str) -> Option<Files> {
    let [firmware, disks] = files(test, ["HEARTH_FIRMWARE", "HEARTH_FIRMWARE_DISKS"])?;
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    if !flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")) {
        eprintln!("SKIPPED: {test}: absent: VT-x or AMD-V");
        return None;
    }
    Some(Files { firmware, disks })
}

/// A sparse copy of a disk, which the guest may write.
pub fn copy(disk: &Path) -> File {
    let copy = tempfile::tempfile().unwrap();
    let disk = File::open(disk).unwrap();
    let length = disk.metadata().unwrap().len();
    copy.set_len(length).unwrap();
    let mut piece = vec![0; 1 << 20];
    for offset in (0..length).step_by(piece.len()) {
        let end = piece.len().min((length - offset) as usize);
        disk.read_exact_at(&mut piece[..end], offset).unwrap();
        if piece[..end].iter().any(|byte| *byte != 0) {
            copy.write_all_at(&piece[..end], offset).unwrap();
        }
    }
    copy
}

impl Files {
    pub fn copy(&self, disk: &str) -> File {
        copy(&self.disks.join(disk))
    }

    /// What both roads have: the memory and the disk.
    pub fn attach(&self, disk: File, spec: &mut VmSpec, fds: &mut Inherited) {
        spec.memory_mib = 256;
        spec.disks.push(DiskSpec {
            id: "vol-0123456789abcdef0".into(),
            serial: "vol0123456789abcdef0".into(),
            read_only: false,
            cache: Cache::default(),
            rate_limit: Default::default(),
            backing: DiskBacking::Raw { fd: fds.give(disk) },
        });
    }

    /// A machine whose firmware boots the disk.
    pub fn boot(&self, disk: &str) -> Guest {
        self.boot_with(disk, |_| {})
    }

    pub fn boot_file(&self, disk: File) -> Guest {
        self.launch(disk, |_| {})
    }

    /// A machine that `change` makes another one.
    pub fn boot_with(&self, disk: &str, change: impl FnOnce(&mut VmSpec)) -> Guest {
        self.launch(self.copy(disk), change)
    }

    fn launch(&self, disk: File, change: impl FnOnce(&mut VmSpec)) -> Guest {
        Guest::launch(|spec, fds| {
            self.attach(disk, spec, fds);
            change(spec);
            spec.boot = BootSpec::Firmware {
                firmware_fd: fds.give(File::open(&self.firmware).unwrap()),
            };
        })
    }
}

/// What a loader gave its kernel as the entry's mark.
fn entry(linux: &mut Linux) -> String {
    linux.ok(r"sed -n 's/.*entry=\([a-z-]*\).*/\1/p' /proc/cmdline")
}

#[test]
fn loaders_boot_what_they_are_told_to() {
    let Some(files) = firmware("loaders_boot") else {
        return;
    };
    for (disk, expected) in [
        ("systemd-boot.raw", "systemd-boot"),
        ("unified.raw", "unified"),
        ("superfloppy.raw", "superfloppy"),
    ] {
        let mut linux = Linux::on(files.boot(disk));
        linux.wait_for_shell();
        assert_eq!(entry(&mut linux), expected);
        linux.ok("[ -d /sys/firmware/efi ]");
    }
}

/// Nobody says which road: the disk's kernel is not where the direct road looks.
#[test]
fn a_disk_without_a_kernel_for_the_direct_road_goes_by_firmware() {
    let Some(files) = firmware("automatic") else {
        return;
    };
    let guest = Guest::launch(|spec, fds| {
        files.attach(files.copy("unified.raw"), spec, fds);
        spec.boot = BootSpec::Automatic {
            firmware_fd: fds.give(File::open(&files.firmware).unwrap()),
        };
    });
    let mut linux = Linux::on(guest);
    linux.wait_for_shell();
    assert_eq!(entry(&mut linux), "unified");
    // The guest's clock is right, although no device of ours but the firmware's has told it.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let guest: u64 = linux.ok("date +%s").parse().unwrap();
    assert!(now.as_secs().abs_diff(guest) < 300, "{guest}");
    // BARs are where the firmware put them, and that is within the DSDT's windows.
    let (_, messages) =
        linux.run("dmesg | grep -iE \"can't claim|no compatible bridge window|failed to assign\"");
    assert_eq!(messages, "");
}
