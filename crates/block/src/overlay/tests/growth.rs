//! Growth: by little, by much, and with the power going at any point of it.

use proptest::prelude::*;

use super::power::{Fuse, PowerFile};
use super::*;

#[test]
fn an_open_overlay_grows_with_its_data_file() {
    let files = fixture(CHUNK + 512, CHUNK + 1024);
    let disk = open(&files).unwrap();
    disk.write_at(&[1; 512], 0).unwrap();
    let mut expected = pattern(CHUNK + 512);
    expected[..512].fill(1);
    let mut marks = Vec::new();
    // The first is still in the last chunk; the others need more of the map, and more presence than was opened.
    for size in [CHUNK + 1536, 64 << 20, 96 << 20, 3 << 30] {
        assert!(disk.write_at(&[1; 512], size - 512).is_err());
        files.0.set_len(size + 100).unwrap();
        assert_eq!(disk.refresh_size().unwrap(), size);
        assert_eq!(disk.size(), size);
        disk.write_at(&[size as u8 | 7; 512], size - 512).unwrap();
        marks.push(size);
    }
    assert!(disk.read_at(&mut [0], 3 << 30).is_err());
    disk.flush().unwrap();
    let check = |disk: &Overlay| {
        assert_eq!(read(disk, 0, expected.len()), expected);
        for &size in &marks {
            assert_eq!(read(disk, size - 512, 512), [size as u8 | 7; 512], "{size}");
            assert_eq!(read(disk, (size - 1024).max(3 << 29), 512), [0; 512], "{size}");
        }
    };
    check(&disk);
    drop(disk);
    let disk = open(&files).unwrap();
    assert_eq!(disk.size(), 3 << 30);
    check(&disk);
}

#[test]
fn an_overlay_does_not_shrink_nor_grow_without_end() {
    let files = fixture(CHUNK, 2 * CHUNK);
    let disk = open(&files).unwrap();
    assert_eq!(disk.refresh_size().unwrap(), 2 * CHUNK);
    files.0.set_len(CHUNK).unwrap();
    let error = disk.refresh_size().unwrap_err();
    assert_eq!(
        error.to_string(),
        "its data file has 4096 bytes and it has 8192: an overlay cannot shrink"
    );
    files.0.set_len(2 * CHUNK).unwrap();
    assert!(
        disk.grow((64 << 40) + 512)
            .unwrap_err()
            .to_string()
            .contains("at most 64 TiB")
    );
    assert_eq!(disk.size(), 2 * CHUNK);
    disk.flush().unwrap();
}

#[test]
fn readers_and_writers_go_on_while_it_grows() {
    let files = fixture(CHUNK, 4 * CHUNK);
    let disk = open(&files).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3_u8 {
            let disk = &disk;
            scope.spawn(move || {
                for round in 1..200_u64 {
                    // The last chunk of its own size, whichever that is by then.
                    let sector = disk.size() / 512 - 1 - u64::from(thread);
                    disk.write_at(&[thread + 1; 512], sector * 512).unwrap();
                    assert_eq!(read(disk, sector * 512, 512), [thread + 1; 512], "{round}");
                    if round % 50 == 0 {
                        disk.flush().unwrap();
                    }
                }
            });
        }
        for step in 1..60 {
            let size = 4 * CHUNK + step * 700 * 2048;
            files.0.set_len(size).unwrap();
            assert_eq!(disk.refresh_size().unwrap(), size);
        }
    });
}

/// Grows while the power goes after `calls` calls to the files, and looks at what is left.
fn grow_and_cut(before: u64, after: u64, calls: u32, flushed: bool, seed: u64) -> Result<(), TestCaseError> {
    let fuse = Fuse::default();
    fuse.never();
    let base_size = before / 2 / 512 * 512;
    let geometry = Geometry {
        size: before,
        base_size,
        chunk_size: CHUNK,
    };
    let mut header = vec![0; geometry.map_len() as usize];
    header[..512].copy_from_slice(&geometry.encode());
    let file = |content| PowerFile::new(content, &fuse);
    let (data, map, base) = (
        file(vec![0; before as usize]),
        file(header),
        file(pattern(base_size)),
    );
    let open = || Overlay::open(data.clone(), map.clone(), base.clone()).unwrap();
    let mut expected = pattern(base_size);
    expected.resize(before as usize, 0);

    let disk = open();
    disk.write_at(&[9; 512], before - 512).unwrap();
    if flushed {
        disk.flush().unwrap();
        expected[before as usize - 512..].fill(9);
    }
    data.reserve(after).unwrap();
    fuse.after(calls);
    let grown = disk.refresh_size();
    let size = disk.size();
    prop_assert_eq!(size, if grown.is_ok() { after } else { before });
    drop(disk);
    fuse.never();
    let mut random = seed;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % below
    };
    data.cut(&mut next);
    map.cut(&mut next);

    let disk = open();
    prop_assert!(disk.size() == after || grown.is_err() && disk.size() == before);
    // What was not flushed may be there or not, where it was written.
    let held = expected.len() - if flushed { 0 } else { 512 };
    prop_assert_eq!(&read(&disk, 0, held)[..], &expected[..held]);
    data.reserve(after).unwrap();
    prop_assert_eq!(disk.refresh_size().unwrap(), after);
    let new = read(&disk, before, (after - before) as usize);
    prop_assert!(new.iter().all(|&byte| byte == 0));
    disk.write_at(&[5; 512], after - 512).unwrap();
    disk.flush().unwrap();
    drop(disk);
    data.cut(&mut next);
    map.cut(&mut next);
    let disk = open();
    prop_assert_eq!(disk.size(), after);
    prop_assert_eq!(read(&disk, after - 512, 512), [5; 512]);
    prop_assert_eq!(&read(&disk, 0, held)[..], &expected[..held]);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// 4,096 chunks, 16 MiB, fill a sector of the map: some of these cross that.
    #[test]
    fn power_cuts_leave_the_old_size_or_the_new_one(
        before in prop_oneof![2..40_u64, 32_760..32_768_u64],
        more in 1..40_u64,
        calls in 0..8_u32,
        flushed in any::<bool>(),
        seed in any::<u64>(),
    ) {
        grow_and_cut(before * 512, (before + more) * 512, calls, flushed, seed)?;
    }
}
