//! DISCARD and WRITE_ZEROES. Virtio 1.2, section 5.2.6.

use super::*;
use crate::cpu::write;
use crate::memory::fill;
use crate::report::End;
use crate::tests::{Case, cases};

pub const CASES: &[Case] = cases![
    zeroes_are_written_where_they_shall_be,
    what_was_discarded_can_be_written_again,
    several_ranges_are_taken_at_once,
    wild_ranges_are_refused,
];

const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const UNMAP: u32 = 1;
const RANGE_LEN: u32 = 16;
/// Sectors that the tests play with.
const AREA: u64 = 64;

/// The disk with [`AREA`] sectors of 0xaa from [`SCRATCH`] on, if it offers the feature.
fn filled(device: &Device, wanted: u64) -> Outcome<Disk> {
    if device.offered() & wanted == 0 {
        return Err(End::Absent("the feature is not offered"));
    }
    let mut disk = Disk::start(device)?;
    fill(disk.data, AREA * SECTOR, 0xaa);
    let data = out(disk.data, (AREA * SECTOR) as u32);
    same!(disk.request(OUT, SCRATCH, &[data])?, OK, "write");
    Ok(disk)
}

/// A range as the device reads it.
fn write_range(at: u64, sector: u64, sectors: u32, flags: u32) {
    write(at, sector);
    write(at + 8, sectors);
    write(at + 12, flags);
}

fn zeroes_are_written_where_they_shall_be(device: &Device) -> Outcome {
    for flags in [0, UNMAP] {
        crate::memory::free_all();
        let mut disk = filled(device, F_WRITE_ZEROES)?;
        let data = disk.data;
        write_range(data, SCRATCH + 5, 11, flags);
        same!(
            disk.request(WRITE_ZEROES, 0, &[out(data, RANGE_LEN)])?,
            OK,
            "flags {flags}"
        );
        same!(
            disk.request(IN, SCRATCH, &[into(data, (AREA * SECTOR) as u32)])?,
            OK,
            "read"
        );
        for at in 0..AREA * SECTOR {
            let is_zero = (5..16).contains(&(at / SECTOR));
            let expected = if is_zero { 0 } else { 0xaa };
            same!(read::<u8>(data + at), expected, "byte {at} with flags {flags}");
        }
    }
    Ok(())
}

fn what_was_discarded_can_be_written_again(device: &Device) -> Outcome {
    let mut disk = filled(device, F_DISCARD)?;
    let (data, len) = (disk.data, (AREA * SECTOR) as u32);
    write_range(data, SCRATCH, AREA as u32, 0);
    same!(disk.request(DISCARD, 0, &[out(data, RANGE_LEN)])?, OK, "discard");
    same!(disk.request(IN, SCRATCH, &[into(data, len)])?, OK, "read");
    fill(data, AREA * SECTOR, 0xbb);
    same!(disk.request(OUT, SCRATCH, &[out(data, len)])?, OK, "write");
    fill(data, AREA * SECTOR, 0);
    same!(disk.request(IN, SCRATCH, &[into(data, len)])?, OK, "read");
    same!(read::<u8>(data), 0xbb, "the first byte");
    same!(read::<u8>(data + AREA * SECTOR - 1), 0xbb, "the last byte");
    Ok(())
}

fn several_ranges_are_taken_at_once(device: &Device) -> Outcome {
    let mut disk = filled(device, F_WRITE_ZEROES)?;
    let data = disk.data;
    write_range(data, SCRATCH, 1, 0);
    write_range(data + 16, SCRATCH + 2, 0, 0);
    write_range(data + 32, SCRATCH + 3, 1, UNMAP);
    same!(
        disk.request(WRITE_ZEROES, 0, &[out(data, 3 * RANGE_LEN)])?,
        OK,
        "three ranges"
    );
    same!(
        disk.request(IN, SCRATCH, &[into(data, 4 * SECTOR as u32)])?,
        OK,
        "read"
    );
    for (sector, expected) in [(0, 0), (1, 0xaa), (2, 0xaa), (3, 0)] {
        same!(read::<u8>(data + sector * SECTOR), expected, "sector {sector}");
    }
    Ok(())
}

fn wild_ranges_are_refused(device: &Device) -> Outcome {
    let mut disk = filled(device, F_WRITE_ZEROES)?;
    let (data, capacity) = (disk.data, Disk::capacity(device));
    for kind in [DISCARD, WRITE_ZEROES] {
        for (sector, sectors, flags) in [
            (capacity, 1, 0),
            (capacity - 1, 2, 0),
            (u64::MAX, 1, 0),
            (1 << 55, 1, 0),
            (0, u32::MAX, 0),
            (SCRATCH, 1, 2),
            (SCRATCH, 1, u32::MAX),
        ] {
            write_range(data, sector, sectors, flags);
            let status = disk.request(kind, 0, &[out(data, RANGE_LEN)])?;
            let refused = matches!(status, IO_ERROR | UNSUPPORTED);
            ensure!(refused, "type {kind} at {sector:#x}, {sectors} sectors: {status}");
        }
        for len in [0, 8, 15, 17, 64 << 10] {
            let status = disk.request(kind, 0, &[out(data, len)])?;
            let refused = matches!(status, IO_ERROR | UNSUPPORTED);
            ensure!(refused, "type {kind} with {len} bytes of ranges: {status}");
        }
        let status = disk.request(kind, 0, &[into(data, RANGE_LEN)])?;
        ensure!(status != OK, "type {kind} with a range that is writable");
    }
    still_works(device, &mut disk)
}
