//! What firmware hands over of the machine: its processors, its memory, and devices that come later.

use std::os::fd::AsFd;
use std::time::Duration;

use hearth_vmm::control::{Event, Reply, Request};
use hearth_vmm::spec::{Cache, DiskBacking, DiskSpec};

use super::harness::Linux;
use super::{PATIENCE, firmware};

const MIB: u64 = 1 << 20;
const EJECTION: Duration = Duration::from_secs(200);
const DISK: &str = "vol-0aaaaaaaaaaaaaaa1";

#[test]
fn two_vcpus_memory_above_the_hole_and_a_hot_plugged_disk_are_there_after_firmware() {
    let Some(files) = firmware("two_vcpus") else {
        return;
    };
    let mut linux = Linux::on(files.boot_with("unified.raw", |spec| {
        spec.vcpus = 2;
        // More than fits under the hole for PCI, which begins at 3 GiB.
        spec.memory_mib = 4096;
    }));
    linux.wait_for_shell();
    assert_eq!(linux.ok("nproc"), "2");
    linux.ok("grep -q '^100000000-.* : System RAM' /proc/iomem");
    let memory: u64 = linux
        .ok("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")
        .parse()
        .unwrap();
    assert!(memory * 1024 > 3900 * MIB, "{memory} KiB");
    // The generation id is in the tables that firmware hands on. Debian's cloud kernel has no driver for it.
    linux.ok("ls /sys/bus/acpi/devices | grep -q VMGENCTR");

    assert!(matches!(
        linux.control().next_event(PATIENCE),
        Some(Event::Entered { .. })
    ));
    let disk = tempfile::tempfile().unwrap();
    disk.set_len(4 * MIB).unwrap();
    let attach = Request::AttachDisk(DiskSpec {
        id: DISK.into(),
        serial: "vol0aaaaaaaaaaaaaaa1".into(),
        read_only: false,
        cache: Cache::default(),
        rate_limit: Default::default(),
        backing: DiskBacking::Raw { fd: 0 },
    });
    // Virtio disks, by vendor and device. Debian's kernel has their driver in a module, which the initrd lacks.
    let disks = |count: u32| format!("[ $(grep -c 1af41042 /proc/bus/pci/devices) = {count} ]");
    linux.ok(&disks(1));
    assert_eq!(linux.control().request_with(&attach, &[disk.as_fd()]), Reply::Ok);
    linux.until(&disks(2));
    let detach = Request::Detach {
        device: DISK.into(),
        force: false,
    };
    assert_eq!(linux.control().request(&detach), Reply::Ok);
    let detached = Event::DeviceDetached { device: DISK.into() };
    assert_eq!(linux.control().next_event(EJECTION), Some(detached));
    linux.until(&disks(1));
}
