//! A full disk, for real: a tmpfs of one MiB in a mount namespace of its own.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;

/// Runs `test` on a thread that sees a tmpfs of `size` bytes at the path it gets. The mount goes with the thread.
pub(super) fn on_small_disk(size: u64, test: impl FnOnce(&std::path::Path) + Send) -> nix::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let small = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            let options = format!("size={size}");
            mount(
                Some("hearth"),
                dir.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                Some(options.as_str()),
            )?;
            test(dir.path());
            Ok(())
        });
        small.join().unwrap()
    })
}

#[test]
fn a_full_disk_loses_nothing() {
    let ran = on_small_disk(1 << 20, |dir| {
        let file = |name| {
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(dir.join(name))
                .unwrap()
        };
        let (data, map, base) = (file("data"), file("map"), tempfile().unwrap());
        let size = 16 << 20;
        let original = pattern(size);
        Store::write_all_at(&base, &original, 0).unwrap();
        create(&data, &map, size, size).unwrap();
        let disk = Overlay::open(
            data.try_clone().unwrap(),
            map.try_clone().unwrap(),
            base.try_clone().unwrap(),
        )
        .unwrap();

        let chunk = default_chunk_size(size);
        let full = (0..size / chunk)
            .find(|n| match disk.write_at(b"new", n * chunk + 100) {
                Ok(()) => false,
                Err(e) => {
                    assert_eq!(e.kind(), io::ErrorKind::StorageFull);
                    true
                }
            })
            .expect("16 MiB fit into 1 MiB");
        assert!(full > 4);
        // The chunk that failed is the base's still; those before it are safe.
        let expected = |n: u64| {
            let mut content = original[(n * chunk) as usize..][..chunk as usize].to_vec();
            if n < full {
                content[100..103].copy_from_slice(b"new");
            }
            content
        };
        disk.flush().unwrap();
        drop(disk);
        let disk = Overlay::open(data, map, base).unwrap();
        for n in 0..=full {
            assert_eq!(read(&disk, n * chunk, chunk as usize), expected(n), "chunk {n}");
        }
    });
    if let Err(e) = ran {
        eprintln!("SKIPPED: a_full_disk_loses_nothing: cannot mount a tmpfs ({e}); run as root");
    }
}
