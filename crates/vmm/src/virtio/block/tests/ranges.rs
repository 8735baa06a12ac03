//! Discarding and zeroing.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;

const DISCARD: u32 = 11;
const ZEROES: u32 = 13;
const UNMAP: u32 = 1;

fn raw() -> (Driver, File) {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![7; (SECTORS * 512) as usize], 0).unwrap();
    (Driver::start(Block::new(files::disk(&file), "", false)), file)
}

fn ranges(driver: &Driver, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
    let mut bytes = Vec::new();
    for (sector, sectors, flags) in ranges {
        bytes.extend(sector.to_le_bytes());
        bytes.extend(sectors.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
    }
    driver.memory.write_slice(&bytes, GuestAddress(BUFFER)).unwrap();
    // The header's sector means nothing.
    request(driver, kind, u64::MAX, &[(BUFFER, bytes.len() as u32, false)]).0
}

fn content(file: &File) -> Vec<u8> {
    let mut content = vec![0; (SECTORS * 512) as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    content
}

#[test]
fn says_what_may_be_discarded_and_zeroed() {
    let (driver, _) = raw();
    assert_eq!(driver.offered() & (1 << 13 | 1 << 14), 1 << 13 | 1 << 14);
    let config = driver.device_config(60);
    assert_eq!(config[36..40], (1u32 << 21).to_le_bytes());
    assert_eq!(config[40..44], 16u32.to_le_bytes());
    assert_eq!(config[44..48], 8u32.to_le_bytes());
    assert_eq!(config[48..52], (1u32 << 17).to_le_bytes());
    assert_eq!(config[52..56], 16u32.to_le_bytes());
    assert_eq!(config[56], 1);

    // What cannot be written can be neither; what cannot punch holes can still be zeroed.
    let read_only = Driver::probe(block(&MemoryDisk::new(), true));
    assert_eq!(read_only.offered() & (1 << 13 | 1 << 14), 0);
    let solid = Driver::probe(block(&MemoryDisk::new(), false));
    assert_eq!(solid.offered() & (1 << 13 | 1 << 14), 1 << 14);
}

#[test]
fn a_discard_gives_the_space_back() {
    let (driver, file) = raw();
    let before = file.metadata().unwrap().blocks();
    assert_eq!(
        ranges(&driver, DISCARD, &[(0, 512, 0), (1000, 0, 0), (768, 256, 0)]),
        OK
    );
    let blocks = file.metadata().unwrap().blocks();
    assert!(blocks <= before - 700, "{blocks} of {before}");
    let content = content(&file);
    assert!(
        content[..512 * 512]
            .iter()
            .chain(&content[768 * 512..])
            .all(|&byte| byte == 0)
    );
    assert!(content[512 * 512..768 * 512].iter().all(|&byte| byte == 7));
}

#[test]
fn zeroes_are_written_with_and_without_the_space() {
    for flags in [0, UNMAP] {
        let (driver, file) = raw();
        assert_eq!(
            ranges(
                &driver,
                ZEROES,
                &[(1, 1, flags), (9, 400, flags), (1023, 1, flags)]
            ),
            OK
        );
        let mut expected = vec![7; (SECTORS * 512) as usize];
        for range in [512..1024, 9 * 512..409 * 512, 1023 * 512..1024 * 512] {
            expected[range].fill(0);
        }
        assert!(content(&file) == expected);
    }
    let disk = MemoryDisk::new();
    let driver = start(&disk);
    assert_eq!(ranges(&driver, ZEROES, &[(4, 4, UNMAP)]), OK);
    assert!(
        disk.data.lock().unwrap()[2048..4096]
            .iter()
            .all(|&byte| byte == 0)
    );
}

#[test]
fn ranges_are_checked() {
    let (driver, file) = raw();
    let too_many = [(0, 1, 0); 17];
    for (kind, list, expected) in [
        (DISCARD, &[(SECTORS, 1, 0)][..], IOERR),
        (DISCARD, &[(0, 8, 0), (SECTORS - 1, 2, 0)], IOERR),
        (ZEROES, &[(u64::MAX, 1, 0)], IOERR),
        (ZEROES, &[(u64::MAX / 512, u32::MAX, 0)], IOERR),
        (ZEROES, &[(0, u32::MAX, 0)], IOERR),
        (DISCARD, &too_many, IOERR),
        (DISCARD, &[], IOERR),
        (DISCARD, &[(0, 8, UNMAP)], UNSUPP),
        (DISCARD, &[(0, 8, 2)], UNSUPP),
        (ZEROES, &[(0, 8, 2)], UNSUPP),
        (ZEROES, &[(0, 8, 0x8000_0001)], UNSUPP),
    ] {
        assert_eq!(ranges(&driver, kind, list), expected, "{kind} {list:?}");
    }
    // No whole range, and data where there should be none.
    for (kind, data) in [
        (DISCARD, (BUFFER, 15, false)),
        (ZEROES, (BUFFER, 24, false)),
        (ZEROES, (BUFFER, 16, true)),
    ] {
        assert_eq!(request(&driver, kind, 0, &[data]).0, IOERR);
    }
    assert!(content(&file).iter().all(|&byte| byte == 7));
}

#[test]
fn who_did_not_ask_for_it_cannot_do_it() {
    let (mut driver, file) = raw();
    driver.initialise(!(EVENT_IDX | 1 << 13 | 1 << 14), 16);
    assert_eq!(ranges(&driver, DISCARD, &[(0, 8, 0)]), UNSUPP);
    assert_eq!(ranges(&driver, ZEROES, &[(0, 8, 0)]), UNSUPP);
    assert!(content(&file).iter().all(|&byte| byte == 7));
}
