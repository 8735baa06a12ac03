//! A booted Linux, saved while it runs, goes on in two other monitors, with other disks and NICs.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use hearth_vmm::control::Event;
use hearth_vmm::snapshot::Kind;
use hearth_vmm::spec::{Cache, DiskBacking, DiskSpec, MemorySpec, NicSpec, RestoreSpec, VmSpec};

use super::guest::Inherited;
use super::harness::Linux;
use super::tap;

const PATIENCE: Duration = Duration::from_secs(60);
/// A guest that KVM interprets takes seconds to let a NIC go.
const REPLACEMENT: Duration = Duration::from_secs(200);
const NIC: &str = "eni-0123456789abcdef0";
const MACS: [&str; 2] = ["02:00:00:00:00:02", "02:00:00:00:00:77"];

fn disk(text: &str) -> tempfile::NamedTempFile {
    let mut disk = tempfile::NamedTempFile::new().unwrap();
    disk.write_all(text.as_bytes()).unwrap();
    disk.as_file().set_len(8 << 20).unwrap();
    disk
}

fn attach(spec: &mut VmSpec, fds: &mut Inherited, disk: &tempfile::NamedTempFile) {
    spec.disks.push(DiskSpec {
        id: "vol-0123456789abcdef0".into(),
        serial: "vol0123456789abcdef0".into(),
        read_only: false,
        cache: Cache::default(),
        rate_limit: Default::default(),
        backing: DiskBacking::Raw {
            fd: fds.give(disk.reopen().unwrap()),
        },
    });
}

fn attach_nic(spec: &mut VmSpec, fds: &mut Inherited, tap: OwnedFd, mac: &str) {
    spec.nics.push(NicSpec {
        id: NIC.into(),
        mac: mac.into(),
        tap_fds: vec![fds.give(tap)],
        mtu: 1500,
        receive_limit: Default::default(),
        transmit_limit: Default::default(),
    });
}

/// The address that the host's kernel has heard from the guest behind TAP `number`.
fn heard(number: u8) -> String {
    let guest = format!("10.0.{number}.2");
    let found = Command::new("ip")
        .args(["neigh", "show", &guest])
        .output()
        .unwrap();
    String::from_utf8(found.stdout).unwrap()
}

#[test]
fn a_running_guest_is_saved_and_goes_on_as_two_clones_with_other_disks_and_nics() {
    let first = disk("the first disk");
    let test = "a_running_guest_is_saved";
    let Some(tap) = tap::in_a_namespace(test) else {
        return;
    };
    let Some(mut linux) = Linux::boot(test, |spec, fds| {
        attach(spec, fds, &first);
        attach_nic(spec, fds, tap, MACS[0]);
    }) else {
        return;
    };
    linux.ok("echo remembered > /tmp/what");
    linux.ok("ifconfig eth0 10.0.0.2 up && ping -c 1 10.0.0.1");
    let (state, memory) = linux.control().snapshot(Kind::Full { track: true });
    assert_eq!(linux.ok("head -c 14 /dev/vda"), "the first disk");
    let _ = linux.control().snapshot(Kind::Diff);
    assert_eq!(linux.ok("cat /tmp/what"), "remembered");

    let disks = [disk("a second disk"), disk("and a third")];
    let begun = Instant::now();
    let mut clones: Vec<Linux> = disks
        .iter()
        .zip(MACS)
        .zip(1..)
        .map(|((disk, mac), number)| {
            Linux::restore(|spec, fds| {
                attach(spec, fds, disk);
                attach_nic(spec, fds, tap::add(number), mac);
                spec.restore = Some(RestoreSpec {
                    state_fd: fds.give(state.try_clone().unwrap()),
                    memory: MemorySpec::File {
                        fd: fds.give(memory.try_clone().unwrap()),
                        verify: false,
                    },
                    track: false,
                });
            })
        })
        .collect();
    for (clone, text) in clones.iter_mut().zip(["a second disk", "and a third"]) {
        let Some(Event::Entered {
            first_entry_micros, ..
        }) = clone.control().next_event(PATIENCE)
        else {
            panic!("it was not restored: {:?}", clone.control().outcome());
        };
        assert_eq!(clone.ok("cat /tmp/what"), "remembered");
        eprintln!(
            "entered after {first_entry_micros} µs, a command answered after {:?}",
            begun.elapsed()
        );
        assert_eq!(clone.ok(&format!("head -c {} /dev/vda", text.len())), text);
        clone.ok("echo written > /dev/vda; sync");
        clone.ok("dmesg | grep -q 'due to virtual machine fork'");
    }
    // The first clone has the NIC's address still, and so the NIC.
    let [same, other] = &mut clones[..] else {
        panic!("two clones");
    };
    assert_eq!(same.ok("cat /sys/class/net/eth0/address"), MACS[0]);
    same.ok("ifconfig eth0 10.0.1.2 && ping -c 1 10.0.1.1");
    assert!(heard(1).contains(MACS[0]), "{}", heard(1));
    // The other one was given another, which came instead of the first under the same name.
    let device = NIC.to_owned();
    let replaced = other.control().next_event(REPLACEMENT);
    assert_eq!(replaced, Some(Event::DeviceReplaced { device }));
    other.until(&format!("grep -q {} /sys/class/net/eth0/address", MACS[1]));
    eprintln!("the NIC was replaced after {:?}", begun.elapsed());
    other.ok("ifconfig eth0 10.0.2.2 up && ping -c 1 10.0.2.1");
    assert!(heard(2).contains(MACS[1]), "{}", heard(2));
    assert!(!heard(2).contains(MACS[0]));
    linux.ok("ping -c 1 10.0.0.1");

    // What the clones do is theirs.
    assert_eq!(linux.ok("cat /tmp/what"), "remembered");
    assert!(std::fs::read(disks[0].path()).unwrap().starts_with(b"written\n"));
    assert!(
        std::fs::read(first.path())
            .unwrap()
            .starts_with(b"the first disk")
    );
}
