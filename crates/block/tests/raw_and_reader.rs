//! The raw disk and the reader, through their public faces.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use hearth_block::{Disk, DiskReader, RawDisk};
use tempfile::NamedTempFile;

fn file_of(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

#[test]
fn a_raw_disk_has_whole_sectors_only() {
    let file = file_of(&[7; 1300]);
    let disk = RawDisk::new(file.reopen().unwrap()).unwrap();
    assert_eq!(disk.size(), 1024);
    disk.write_at(&[1; 24], 1000).unwrap();
    disk.flush().unwrap();
    assert_eq!(
        disk.write_at(&[1; 25], 1000).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        disk.read_at(&mut [0; 1], u64::MAX).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let content = std::fs::read(file.path()).unwrap();
    assert_eq!(
        (&content[999..1001], content[1023], content[1024]),
        (&[7, 1][..], 1, 7)
    );
}

#[test]
fn a_read_only_descriptor_makes_a_read_only_disk() {
    let file = file_of(&[7; 512]);
    let by_descriptor = RawDisk::new(File::open(file.path()).unwrap()).unwrap();
    let by_wish = RawDisk::new(file.reopen().unwrap()).unwrap().read_only();
    for disk in [by_descriptor, by_wish] {
        assert!(disk.is_read_only());
        assert_eq!(
            disk.write_at(&[1], 0).unwrap_err().kind(),
            ErrorKind::ReadOnlyFilesystem
        );
        disk.flush().unwrap();
    }
}

#[test]
fn the_reader_reads_like_the_file_it_came_from() {
    let content: Vec<u8> = (0..600 * 1024u32).map(|i| (i / 512 + i % 255) as u8).collect();
    let file = file_of(&content);
    let mut reader = DiskReader::new(Arc::new(RawDisk::new(file.reopen().unwrap()).unwrap()));
    let mut plain = file.reopen().unwrap();
    // Hops of many sizes: inside the window, behind it, straddling its end and the disk's.
    let mut at = 0u64;
    for len in [1, 4096, 130_000, 131_072, 7, 300_000, 65_536, 512, 600_000] {
        let (mut got, mut expected) = (vec![0; len], vec![0; len]);
        assert_eq!(
            reader.seek(SeekFrom::Start(at)).unwrap(),
            plain.seek(SeekFrom::Start(at)).unwrap()
        );
        let fits = content.len() as u64 - at >= len as u64;
        assert_eq!(reader.read_exact(&mut got).is_ok(), fits);
        assert_eq!(plain.read_exact(&mut expected).is_ok(), fits);
        assert!(!fits || got == expected, "{len} bytes at {at}");
        at = (at + 77_777) % content.len() as u64;
    }
    reader.seek(SeekFrom::End(-3)).unwrap();
    let mut tail = Vec::new();
    reader.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, content[content.len() - 3..]);
    assert!(reader.seek(SeekFrom::Current(-1_000_000_000)).is_err());
}
