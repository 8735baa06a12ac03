//! Disks and NICs that come and go, without a rescan.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hearth_block::overlay;
use hearth_vmm::control::{Event, Reply, Request};
use hearth_vmm::limits::RateLimit;
use hearth_vmm::spec::{Cache, DiskBacking, DiskSpec, NicSpec};

use super::harness::Linux;
use super::tap;

const MIB: u64 = 1 << 20;
const EJECTION: Duration = Duration::from_secs(200);
const DISK: &str = "vol-0aaaaaaaaaaaaaaa1";
const OTHER_DISK: &str = "vol-0bbbbbbbbbbbbbbb2";
const NIC: &str = "eni-0cccccccccccccccc";

fn attach_disk(id: &str) -> Request {
    Request::AttachDisk(DiskSpec {
        id: id.into(),
        serial: id.replacen('-', "", 1),
        read_only: false,
        cache: Cache::default(),
        rate_limit: Default::default(),
        backing: DiskBacking::Raw { fd: 0 },
    })
}

/// The same of an overlay: its data, map and base are the descriptors.
fn attach_overlay(id: &str) -> Request {
    let mut request = attach_disk(id);
    if let Request::AttachDisk(spec) = &mut request {
        spec.backing = DiskBacking::Overlay {
            data_fd: 0,
            map_fd: 1,
            base_fd: Some(2),
            coming: None,
            dirty_fd: None,
            key: None,
            base_key: None,
            frozen: None,
        };
    }
    request
}

fn attach_nic() -> Request {
    Request::AttachNic(NicSpec {
        id: NIC.into(),
        mac: "02:00:00:00:00:02".into(),
        tap_fds: vec![0],
        mtu: 1500,
        receive_limit: RateLimit::default(),
        transmit_limit: RateLimit::default(),
    })
}

fn detach(device: &str) -> Request {
    Request::Detach {
        device: device.into(),
        force: false,
    }
}

fn disk(mib: u64) -> File {
    let disk = tempfile::tempfile().unwrap();
    disk.set_len(mib * MIB).unwrap();
    disk
}

fn slots(linux: &mut Linux) -> Vec<(String, u8)> {
    match linux.control().request(&Request::Devices) {
        Reply::Devices(devices) => devices.into_iter().map(|it| (it.device, it.slot)).collect(),
        reply => panic!("{reply:?}"),
    }
}

/// Detaches and waits until the guest has let go.
fn leave(linux: &mut Linux, device: &str) {
    assert_eq!(linux.control().request(&detach(device)), Reply::Ok);
    let event = linux.control().next_event(EJECTION);
    let device = device.into();
    assert_eq!(event, Some(Event::DeviceDetached { device }));
}

#[test]
fn disks_and_nics_come_and_go() {
    let test = "disks_and_nics_come_and_go";
    let Some(tap) = tap::in_a_namespace(test) else {
        return;
    };
    let root = disk(8);
    let Some(mut linux) = Linux::boot(test, |spec, fds| {
        spec.disks.push(DiskSpec {
            id: "vol-root".into(),
            serial: "volroot".into(),
            read_only: false,
            cache: Cache::default(),
            rate_limit: Default::default(),
            backing: DiskBacking::Raw { fd: fds.give(root) },
        });
    }) else {
        return;
    };
    let Some(Event::Entered { .. }) = linux.control().next_event(EJECTION) else {
        panic!("not entered");
    };
    let ok_all = |linux: &mut Linux, request: &Request, fds: &[BorrowedFd<'_>]| {
        assert_eq!(linux.control().request_with(request, fds), Reply::Ok);
    };
    let ok = |linux: &mut Linux, request: &Request, fd: &dyn AsFd| ok_all(linux, request, &[fd.as_fd()]);

    // A volume on an image: it appears, works, grows, and leaves.
    let [mut image, volume, map] = [disk(4), disk(4), disk(0)];
    image.write_all(b"content of the image").unwrap();
    overlay::create(&volume, &map, 4 * MIB, 4 * MIB).unwrap();
    let overlay = [volume.as_fd(), map.as_fd(), image.as_fd()];
    ok_all(&mut linux, &attach_overlay(DISK), &overlay);
    linux.until("[ -b /dev/vdb ]");
    assert_eq!(linux.ok("cat /sys/block/vdb/size"), (4 * MIB / 512).to_string());
    assert_eq!(linux.ok("cat /sys/block/vdb/serial"), "vol0aaaaaaaaaaaaaaa1");
    assert_eq!(linux.ok("head -c 20 /dev/vdb"), "content of the image");
    linux.ok("echo content of the disk | dd of=/dev/vdb bs=512 conv=sync,fsync");
    volume.set_len(6 * MIB).unwrap();
    let device = DISK.to_owned();
    let reply = linux.control().request(&Request::Resize { device });
    assert_eq!(reply, Reply::Resized { bytes: 6 * MIB });
    linux.until(&format!("[ $(cat /sys/block/vdb/size) = {} ]", 6 * MIB / 512));
    linux.ok("echo the new end | dd of=/dev/vdb bs=512 seek=12287 conv=sync,fsync");
    let slot = slots(&mut linux).iter().find(|(id, _)| id == DISK).unwrap().1;
    leave(&mut linux, DISK);
    assert_eq!(linux.run("[ -e /sys/block/vdb ]").0, 1);

    // A NIC, while another disk takes the slot; both leave and the first disk is there again.
    let second = disk(2);
    ok(&mut linux, &attach_disk(OTHER_DISK), &second);
    ok(&mut linux, &attach_nic(), &tap);
    linux.until("[ -e /sys/class/net/eth0/address ]");
    assert_eq!(linux.ok("cat /sys/class/net/eth0/address"), "02:00:00:00:00:02");
    linux.ok("ifconfig eth0 10.9.8.7 up");
    linux.until("[ -b /dev/vdb ]");
    assert_eq!(linux.ok("cat /sys/block/vdb/size"), (2 * MIB / 512).to_string());
    assert!(
        slots(&mut linux).contains(&(OTHER_DISK.into(), slot)),
        "the slot is used again"
    );
    leave(&mut linux, NIC);
    assert_eq!(linux.run("[ -e /sys/class/net/eth0 ]").0, 1);
    leave(&mut linux, OTHER_DISK);
    ok_all(&mut linux, &attach_overlay(DISK), &overlay);
    linux.until("[ -b /dev/vdb ]");
    assert_eq!(linux.ok("head -c 19 /dev/vdb"), "content of the disk");
    assert_eq!(linux.ok("tail -c 512 /dev/vdb | head -c 11"), "the new end");

    // What the guest lets go of its own accord stays attached: a rescan finds it.
    linux.ok(&format!("echo 0 >/sys/bus/pci/slots/{slot}/power"));
    assert_eq!(linux.run("[ -e /sys/block/vdb ]").0, 1);
    linux.ok(&format!("echo 1 >/sys/bus/pci/slots/{slot}/power"));
    linux.until("[ -b /dev/vdb ]");
}

#[test]
fn what_was_attached_survives_a_reset_and_what_was_leaving_does_not() {
    let test = "what_was_attached_survives_a_reset";
    let Some(mut linux) = Linux::boot(test, |_, _| {}) else {
        return;
    };
    let Some(Event::Entered { .. }) = linux.control().next_event(EJECTION) else {
        panic!("not entered");
    };
    for (id, file) in [(DISK, disk(1)), (OTHER_DISK, disk(2))] {
        let reply = linux.control().request_with(&attach_disk(id), &[file.as_fd()]);
        assert_eq!(reply, Reply::Ok);
    }
    linux.until("[ -b /dev/vdb ]");
    // Paused, it cannot answer the request before the reset.
    assert_eq!(linux.control().request(&Request::Pause), Reply::Ok);
    assert_eq!(linux.control().request(&detach(OTHER_DISK)), Reply::Ok);
    assert_eq!(linux.control().request(&Request::Reset), Reply::Ok);
    let device = OTHER_DISK.to_owned();
    for expected in [Event::DeviceDetached { device }, Event::Reset { boots: 2 }] {
        assert_eq!(linux.control().next_event(EJECTION), Some(expected));
    }
    linux.wait_for_shell();
    assert_eq!(linux.ok("cat /sys/block/vda/size"), (MIB / 512).to_string());
    assert_eq!(linux.run("[ -e /sys/block/vdb ]").0, 1);
}

#[test]
fn a_disk_that_is_taken_away_fails_and_goes_and_comes_again() {
    let test = "a_disk_that_is_taken_away_fails_and_goes";
    let Some(mut linux) = Linux::boot(test, |_, _| {}) else {
        return;
    };
    let Some(Event::Entered { .. }) = linux.control().next_event(EJECTION) else {
        panic!("not entered");
    };
    let file = disk(4);
    let mut attach = attach_disk(DISK);
    if let Request::AttachDisk(spec) = &mut attach {
        // One request a second: some wait when the disk goes.
        spec.rate_limit = serde_json::from_str(r#"{"operations":{"per_second":1}}"#).unwrap();
    }
    let reply = linux.control().request_with(&attach, &[file.as_fd()]);
    assert_eq!(reply, Reply::Ok);
    linux.until("[ -b /dev/vda ]");
    linux.ok("(dd if=/dev/vda of=/dev/null bs=4k iflag=direct 2>/tmp/said; echo $? >/tmp/code) &");
    linux.until("grep -q '[1-9]' /sys/block/vda/inflight");
    let device = DISK.to_owned();
    let reply = linux.control().request(&Request::Detach { device, force: true });
    assert_eq!(reply, Reply::Ok);
    let device = DISK.to_owned();
    let event = linux.control().next_event(EJECTION);
    assert_eq!(event, Some(Event::DeviceDetached { device }));
    // Whoever waits for it gets an error, and the guest has let it go.
    linux.until("[ -s /tmp/code ]");
    assert_eq!(linux.ok("cat /tmp/code"), "1", "{}", linux.ok("cat /tmp/said"));
    let event = linux.control().next_event(EJECTION);
    assert!(
        matches!(&event, Some(Event::DeviceDetached { device }) if device.starts_with("gone-")),
        "{event:?}"
    );
    assert_eq!(linux.run("[ -e /sys/block/vda ]").0, 1);
    let reply = linux.control().request_with(&attach_disk(DISK), &[file.as_fd()]);
    assert_eq!(reply, Reply::Ok);
    linux.until("[ -b /dev/vda ]");
    linux.ok("dd if=/dev/vda of=/dev/null bs=64k");
}
