//! A booted Linux, saved while it runs, goes on in two other monitors, with other disks.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hearth_vmm::control::{Event, Reply, Request, SnapshotRequest};
use hearth_vmm::snapshot::Kind;
use hearth_vmm::spec::{DiskBacking, DiskSpec, MemorySpec, RestoreSpec, VmSpec};

use super::guest::Inherited;
use super::harness::Linux;

const PATIENCE: Duration = Duration::from_secs(60);

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
        rate_limit: Default::default(),
        backing: DiskBacking::Raw {
            fd: fds.give(disk.reopen().unwrap()),
        },
    });
}

fn snapshot(linux: &mut Linux, kind: Kind) -> (File, File) {
    let (state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let request = Request::Snapshot(SnapshotRequest {
        kind,
        state: 0,
        memory: 1,
    });
    let reply = linux
        .control()
        .request_with(&request, &[state.as_fd(), memory.as_fd()]);
    let Reply::Snapshot(taken) = reply else {
        panic!("{reply:?}");
    };
    eprintln!("{kind:?}: paused for {} µs", taken.paused_micros);
    (state, memory)
}

#[test]
fn a_running_guest_is_saved_and_goes_on_as_two_clones_with_other_disks() {
    let first = disk("the first disk");
    let test = "a_running_guest_is_saved";
    let Some(mut linux) = Linux::boot(test, |spec, fds| attach(spec, fds, &first)) else {
        return;
    };
    linux.ok("echo remembered > /tmp/what");
    let (state, memory) = snapshot(&mut linux, Kind::Full { track: true });
    assert_eq!(linux.ok("head -c 14 /dev/vda"), "the first disk");
    let _ = snapshot(&mut linux, Kind::Diff);
    assert_eq!(linux.ok("cat /tmp/what"), "remembered");

    let disks = [disk("a second disk"), disk("and a third")];
    let begun = Instant::now();
    let mut clones: Vec<Linux> = disks
        .iter()
        .map(|disk| {
            Linux::restore(|spec, fds| {
                attach(spec, fds, disk);
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
    // What the clones do is theirs.
    assert_eq!(linux.ok("cat /tmp/what"), "remembered");
    assert!(std::fs::read(disks[0].path()).unwrap().starts_with(b"written\n"));
    assert!(
        std::fs::read(first.path())
            .unwrap()
            .starts_with(b"the first disk")
    );
}
