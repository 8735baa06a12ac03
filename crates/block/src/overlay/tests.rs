//! The crash rule, the file format, threads, and a full disk.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tempfile::tempfile;

use super::map::write_states;
use super::*;
use crate::{Disk, Freeze, RawDisk};

mod crash;
mod encrypted;
mod full;
mod growth;
pub(crate) mod power;
mod snapshots;

const CHUNK: u64 = 4096;

/// A base of `base_size` bytes where every sector differs, and a fresh overlay of `size` on it.
fn fixture(base_size: u64, size: u64) -> (File, File, File) {
    let (data, map, base) = (tempfile().unwrap(), tempfile().unwrap(), tempfile().unwrap());
    Store::write_all_at(&base, &pattern(base_size), 0).unwrap();
    create_chunked(&data, &map, base_size, size, CHUNK).unwrap();
    (data, map, base)
}

fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|i| (i / 512 * 7 + i % 251 + 1) as u8).collect()
}

fn open(files: &(File, File, File)) -> Result<Overlay, OpenError> {
    Overlay::open(
        files.0.try_clone().unwrap(),
        files.1.try_clone().unwrap(),
        files.2.try_clone().unwrap(),
    )
}

fn read(disk: &impl Disk, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xEE; len];
    disk.read_at(&mut buf, offset).unwrap();
    buf
}

#[test]
fn an_absent_chunk_is_the_base_and_then_zeros() {
    let files = fixture(CHUNK + 700, 4 * CHUNK);
    let disk = open(&files).unwrap();
    let mut expected = pattern(CHUNK + 700);
    expected.resize(4 * CHUNK as usize, 0);
    assert_eq!(read(&disk, 0, expected.len()), expected);

    disk.write_at(b"hearth", CHUNK + 690).unwrap();
    expected[CHUNK as usize + 690..][..6].copy_from_slice(b"hearth");
    assert_eq!(read(&disk, 0, expected.len()), expected);
}

#[test]
fn a_range_beyond_the_end_touches_nothing() {
    let files = fixture(CHUNK, 2 * CHUNK);
    let disk = open(&files).unwrap();
    for (offset, len) in [
        (2 * CHUNK, 1),
        (2 * CHUNK - 1, 2),
        (u64::MAX, 1),
        (u64::MAX - 1, 4),
    ] {
        let e = disk.write_at(&vec![1; len], offset).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidInput, "{offset}+{len}");
        assert!(disk.read_at(&mut vec![0; len], offset).is_err());
    }
    disk.write_at(&[], 2 * CHUNK).unwrap();
    disk.flush().unwrap();
    assert_eq!(Overlay::inspect(&files.1).unwrap().present_chunks, 0);
}

#[test]
fn only_flushed_chunks_are_in_the_map() {
    let files = fixture(3 * CHUNK, 3 * CHUNK);
    let disk = open(&files).unwrap();
    disk.write_at(&[1], 0).unwrap();
    disk.flush().unwrap();
    disk.write_at(&[2], CHUNK).unwrap();
    drop(disk);
    let info = Overlay::inspect(&files.1).unwrap();
    assert_eq!(
        info,
        OverlayInfo {
            size: 3 * CHUNK,
            base_size: 3 * CHUNK,
            chunk_size: CHUNK,
            present_chunks: 1,
            shared: 2 * CHUNK,
        }
    );
    // What was left in the data file is not trusted: neither read nor used to fill.
    let disk = open(&files).unwrap();
    assert_eq!(read(&disk, CHUNK, 8), pattern(CHUNK + 8)[CHUNK as usize..]);
    disk.write_at(&[3], CHUNK + 1).unwrap();
    assert_eq!(read(&disk, CHUNK, 1), pattern(CHUNK + 1)[CHUNK as usize..]);
}

#[test]
fn a_full_overlay_is_a_plain_raw_disk() {
    let files = fixture(2 * CHUNK, 2 * CHUNK + 512);
    let disk = open(&files).unwrap();
    disk.write_at(&[9], 5).unwrap();
    disk.write_at(&[9], CHUNK).unwrap();
    disk.write_at(&[9], 2 * CHUNK + 511).unwrap();
    disk.flush().unwrap();
    let info = Overlay::inspect(&files.1).unwrap();
    assert_eq!((info.present_chunks, info.shared), (3, 0));
    let raw = RawDisk::new(files.0.try_clone().unwrap()).unwrap();
    assert_eq!(raw.size(), disk.size());
    assert_eq!(
        read(&raw, 0, raw.size() as usize),
        read(&disk, 0, raw.size() as usize)
    );
}

#[test]
fn impossible_sizes_are_refused() {
    let (data, map) = (tempfile().unwrap(), tempfile().unwrap());
    assert!(matches!(create(&data, &map, 0, 0), Err(CreateError::Size { .. })));
    assert!(matches!(
        create(&data, &map, 0, 513),
        Err(CreateError::Size { .. })
    ));
    assert!(matches!(
        create(&data, &map, 1024, 512),
        Err(CreateError::BaseLarger { .. })
    ));
    assert!(matches!(
        create_chunked(&data, &map, 0, 512, 5000),
        Err(CreateError::ChunkSize { .. })
    ));
    assert_eq!(map.metadata().unwrap().len(), 0);
    for (size, chunk_size) in [
        (512, 16 << 10),
        (8 << 30, 16 << 10),
        (1 << 40, 64 << 10),
        (64 << 40, 4 << 20),
    ] {
        let geometry = Geometry {
            size,
            base_size: 0,
            chunk_size,
        };
        assert_eq!(default_chunk_size(size), chunk_size);
        geometry.check().unwrap();
    }
}

#[test]
fn a_damaged_map_is_refused() {
    let refuse = |damage: &dyn Fn(&File)| {
        let files = fixture(2 * CHUNK, 2 * CHUNK);
        damage(&files.1);
        open(&files).err().expect("damage goes unnoticed")
    };
    let poke = |at, byte| move |map: &File| Store::write_all_at(map, &[byte], at).unwrap();
    assert!(matches!(refuse(&poke(0, b'X')), OpenError::Magic));
    assert!(matches!(
        refuse(&poke(8, 2)),
        OpenError::Version { found: 2, known: 1 }
    ));
    assert!(matches!(refuse(&poke(17, 0x40)), OpenError::Checksum { .. }));
    assert!(matches!(refuse(&|map| map.set_len(0).unwrap()), OpenError::Magic));
    assert!(matches!(
        refuse(&|map| map.set_len(4097).unwrap()),
        OpenError::Length {
            part: Part::Map,
            found: 4097,
            ..
        }
    ));
    // A valid checksum over nonsense.
    let nonsense = Geometry {
        size: u64::MAX,
        base_size: 0,
        chunk_size: 0,
    }
    .encode();
    assert!(matches!(
        refuse(&|map| Store::write_all_at(map, &nonsense, 0).unwrap()),
        OpenError::Geometry { .. }
    ));
}

#[test]
fn files_of_another_overlay_are_refused() {
    let files = fixture(2 * CHUNK, 4 * CHUNK);
    files.2.set_len(CHUNK).unwrap();
    assert!(matches!(
        open(&files),
        Err(OpenError::Length { part: Part::Base, .. })
    ));
    files.2.set_len(2 * CHUNK).unwrap();
    files.0.set_len(CHUNK).unwrap();
    let e = open(&files).err().unwrap();
    assert_eq!(
        e.to_string(),
        "the overlay's data file has 4096 bytes, but its chunk map says 16384"
    );
}

#[test]
fn one_overlay_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name| {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.path().join(name))
            .unwrap()
    };
    create(&file("data"), &file("map"), 0, 1 << 20).unwrap();
    let first = Overlay::open(file("data"), file("map"), file("base")).unwrap();
    assert!(matches!(
        Overlay::open(file("data"), file("map"), file("base")),
        Err(OpenError::Busy)
    ));
    drop(first);
    Overlay::open(file("data"), file("map"), file("base")).unwrap();
}

#[test]
fn threads_fill_one_chunk_once() {
    const THREADS: u64 = 4;
    let size = 64 * CHUNK;
    let files = fixture(size, size);
    let disk = Arc::new(open(&files).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let disk = Arc::clone(&disk);
            // Each thread owns every fourth sector, so all of them meet in every chunk.
            scope.spawn(move || {
                for sector in (thread..size / 512).step_by(THREADS as usize) {
                    disk.write_at(&[thread as u8 + 1; 512], sector * 512).unwrap();
                    if sector % 37 == 0 {
                        disk.flush().unwrap();
                    }
                    assert_eq!(read(&*disk, sector * 512, 512), [thread as u8 + 1; 512]);
                }
            });
        }
    });
    disk.flush().unwrap();
    drop(disk);
    let disk = open(&files).unwrap();
    for sector in 0..size / 512 {
        assert_eq!(
            read(&disk, sector * 512, 512),
            [(sector % THREADS) as u8 + 1; 512],
            "sector {sector}"
        );
    }
}

#[test]
fn without_a_base_a_disk_is_blank_until_it_is_written() {
    let (data, map) = (tempfile().unwrap(), tempfile().unwrap());
    create_chunked(&data, &map, 0, 4 * CHUNK, CHUNK).unwrap();
    // What a crash has left in the data file of an absent chunk is not the disk's.
    Store::write_all_at(&data, &[9; 4 * CHUNK as usize], 0).unwrap();
    let open = || Overlay::open(data.try_clone().unwrap(), map.try_clone().unwrap(), None);
    let disk = open().unwrap();
    assert_eq!(read(&disk, 0, 4 * CHUNK as usize), [0; 4 * CHUNK as usize]);
    disk.write_at(b"hearth", CHUNK + 10).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let disk = open().unwrap();
    let mut expected = vec![0; 4 * CHUNK as usize];
    expected[CHUNK as usize + 10..][..6].copy_from_slice(b"hearth");
    assert_eq!(read(&disk, 0, expected.len()), expected);

    // One that has a base is not opened without it.
    let (data, map, _base) = fixture(CHUNK, 2 * CHUNK);
    let refused = Overlay::open(data, map, None).err().unwrap();
    assert!(
        matches!(
            refused,
            OpenError::Length {
                part: Part::Base,
                found: 0,
                ..
            }
        ),
        "{refused:?}"
    );
}
