//! Disks as Linux sees them: names, queues, what discards do to the host's files, and errors.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use hearth_vmm::spec::{Cache, DiskBacking, DiskSpec, VmSpec};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::guest::Inherited;
use super::harness::Linux;

const MIB: u64 = 1 << 20;

/// Adds a raw disk; both sides open it for themselves.
fn add(spec: &mut VmSpec, fds: &mut Inherited, serial: &str, file: File) {
    spec.disks.push(DiskSpec {
        id: serial.into(),
        serial: serial.into(),
        read_only: false,
        cache: Cache::default(),
        rate_limit: Default::default(),
        backing: DiskBacking::Raw { fd: fds.give(file) },
    });
}

fn create(path: &Path, len: u64) -> File {
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    file.set_len(len).unwrap();
    file
}

/// A sparse file of `len` bytes on a file system that has room for one MiB. The mount goes with the thread, the
/// file stays as long as it is open.
fn on_small_disk(len: u64) -> nix::Result<File> {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let small = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            let options = Some("size=1m");
            mount(
                Some("hearth"),
                dir.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                options,
            )?;
            Ok(create(&dir.path().join("disk"), len))
        });
        small.join().unwrap()
    })
}

#[test]
fn discards_make_files_sparse_and_a_full_host_is_an_error_that_the_guest_survives() {
    let test = "discards_make_files_sparse_and_a_full_host_is_an_error";
    let small = match on_small_disk(16 * MIB) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("SKIPPED: {test}: cannot mount a tmpfs: {error}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let disk = create(&path, 16 * MIB);
    disk.write_all_at(&vec![7; 8 * MIB as usize], 0).unwrap();
    disk.sync_all().unwrap();
    let booted = Linux::boot(test, |spec, fds| {
        spec.vcpus = 2;
        add(spec, fds, "vol0123456789abcdef0", disk);
        add(spec, fds, "vol0123456789abcdef1", small);
    });
    let Some(mut linux) = booted else { return };

    assert_eq!(linux.ok("cat /sys/block/vda/serial"), "vol0123456789abcdef0");
    assert_eq!(linux.ok("ls /sys/block/vda/mq | wc -l"), "2");
    let blocks = || path.metadata().unwrap().blocks();
    let before = blocks();
    assert!(before * 512 >= 8 * MIB);
    linux.ok("blkdiscard -o 0 -l 4194304 /dev/vda");
    assert!(
        blocks() * 512 <= before * 512 - 4 * MIB,
        "{} of {before}",
        blocks()
    );
    assert_eq!(linux.ok("head -c 65536 /dev/vda | tr -d '\\0' | wc -c"), "0");
    assert_eq!(
        linux.ok("dd if=/dev/vda bs=64k skip=64 count=1 2>/dev/null | tr -d '\\7' | wc -c"),
        "0"
    );

    let (code, output) = linux.run("dd if=/dev/zero of=/dev/vdb bs=64k count=64 conv=fsync");
    assert_ne!(code, 0);
    assert!(
        output.contains("I/O error") || output.contains("No space"),
        "{output}"
    );
    linux.ok("dd if=/dev/zero of=/dev/vda bs=64k count=4 conv=fsync");
    assert_eq!(
        linux.ok("dd if=/dev/vdb bs=4k count=1 2>/dev/null | wc -c"),
        "4096"
    );
}
