//! Well-formed requests, those that must be refused included.

use super::*;
use crate::memory::{copy_in, copy_out, equal, fill};
use crate::tests::{Case, cases};
use crate::virtio::ring::descriptor_flag::{INDIRECT, NEXT};
use crate::virtio::ring::table_entry;

pub const CASES: &[Case] = cases![
    says_its_capacity,
    reads_what_is_on_the_disk,
    writes_and_reads_back,
    gathers_and_scatters_odd_pieces,
    takes_a_header_in_pieces,
    takes_an_indirect_chain,
    takes_an_indirect_table_behind_a_direct_buffer,
    reads_a_whole_mebibyte,
    flushes,
    tells_its_serial_number,
    refuses_what_is_beyond_the_end,
    refuses_a_part_of_a_sector,
    refuses_data_in_the_wrong_direction,
    refuses_an_unknown_type,
    answers_a_read_of_nothing,
];

fn says_its_capacity(device: &Device) -> Outcome {
    let capacity = Disk::capacity(device);
    ensure!(capacity > SCRATCH, "{capacity} sectors");
    same!(device.config::<u32>(20), SECTOR as u32, "block size");
    ensure!(device.config::<u32>(12) > 0, "no segment fits into a request");
    Ok(())
}

fn reads_what_is_on_the_disk(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let data = disk.data;
    for (sector, count) in [(0, 1), (7, 9), (Disk::capacity(device) - 1, 1)] {
        disk.write_header(IN, sector);
        let len = (count * SECTOR) as u32;
        let parts = [
            out(disk.header, HEADER_LEN),
            into(data, len),
            into(disk.status, 1),
        ];
        same!(disk.ring.request("a read", &parts)?, len + 1, "bytes written");
        same!(read::<u8>(disk.status), OK, "status");
        if sector < SCRATCH {
            holds_pattern(data, sector, count)?;
        }
    }
    Ok(())
}

fn writes_and_reads_back(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let data = disk.data;
    for round in 1..4u8 {
        fill(data, 8 * SECTOR, 0xa0 + round);
        same!(
            disk.request(OUT, SCRATCH, &[out(data, 8 * SECTOR as u32)])?,
            OK,
            "write"
        );
        fill(data, 8 * SECTOR, 0);
        same!(
            disk.request(IN, SCRATCH + 1, &[into(data, 7 * SECTOR as u32)])?,
            OK,
            "read"
        );
        let expected = [0xa0 + round; 7 * SECTOR as usize];
        ensure!(equal(data, &expected), "other bytes come back");
        same!(read::<u8>(data + 7 * SECTOR), 0, "the byte behind the buffer");
    }
    Ok(())
}

/// Pieces of odd lengths at odd addresses, one of them empty, that add up to four sectors.
fn odd_pieces(data: u64, make: fn(u64, u32) -> Buffer) -> [Buffer; 6] {
    [
        make(data + 1, 1),
        make(data + 3, 510),
        make(data + 1000, 0),
        make(data + 1001, 1023),
        make(data + 4095, 2),
        make(data + 5001, 512),
    ]
}

fn gathers_and_scatters_odd_pieces(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let data = disk.data;
    let mut written = [0; 6000];
    for (nth, byte) in (0u32..).zip(&mut written) {
        *byte = (nth * 7 % 251) as u8;
    }
    copy_in(data, &written);
    same!(disk.request(OUT, SCRATCH, &odd_pieces(data, out))?, OK, "write");
    fill(data, 6000, 0xff);
    same!(disk.request(IN, SCRATCH, &odd_pieces(data, into))?, OK, "read");
    let mut found = [0; 6000];
    copy_out(data, &mut found);
    let mut expected = [0xff; 6000];
    for piece in odd_pieces(0, out) {
        let range = piece.address as usize..piece.address as usize + piece.len as usize;
        expected[range.clone()].copy_from_slice(&written[range]);
    }
    ensure!(found == expected, "other bytes come back, or in other places");
    Ok(())
}

fn takes_a_header_in_pieces(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    disk.write_header(IN, 5);
    let mut buffers = [into(disk.data, SECTOR as u32); 18];
    for (nth, buffer) in (0..16).zip(&mut buffers) {
        *buffer = out(disk.header + nth, 1);
    }
    buffers[17] = into(disk.status, 1);
    disk.ring.request("a header of 16 pieces", &buffers)?;
    same!(read::<u8>(disk.status), OK, "status");
    holds_pattern(disk.data, 5, 1)
}

fn takes_an_indirect_chain(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    disk.write_header(IN, 6);
    let table = allocate(4096);
    let parts = [
        out(disk.header, HEADER_LEN),
        into(disk.data, 100),
        into(disk.data + 100, 412),
        into(disk.status, 1),
    ];
    disk.ring.indirect(9, table, &parts);
    disk.ring.offer(9);
    disk.ring.kick();
    same!(
        disk.ring.wait("an indirect chain")?,
        (9, SECTOR as u32 + 1),
        "used element"
    );
    same!(read::<u8>(disk.status), OK, "status");
    holds_pattern(disk.data, 6, 1)
}

/// 2.7.5.3.1 allows it, and Linux never does it.
fn takes_an_indirect_table_behind_a_direct_buffer(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    disk.write_header(IN, 8);
    let table = allocate(4096);
    disk.ring
        .indirect(1, table, &[into(disk.data, SECTOR as u32), into(disk.status, 1)]);
    table_entry(disk.ring.descriptors, 0, disk.header, HEADER_LEN, NEXT, 1);
    disk.ring.descriptor(1, table, 32, INDIRECT, 0);
    disk.ring.offer(0);
    disk.ring.kick();
    disk.ring.wait("a direct and an indirect part")?;
    same!(read::<u8>(disk.status), OK, "status");
    holds_pattern(disk.data, 8, 1)
}

fn reads_a_whole_mebibyte(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let data = disk.data;
    same!(
        disk.request(IN, 100, &[into(data, DATA_LEN as u32)])?,
        OK,
        "status"
    );
    holds_pattern(data, 100, DATA_LEN / SECTOR)
}

fn flushes(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    same!(disk.request(FLUSH, 0, &[])?, OK, "status");
    still_works(device, &mut disk)
}

fn tells_its_serial_number(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let data = disk.data;
    fill(data, 64, 0xff);
    same!(disk.request(GET_ID, 0, &[into(data, ID_LEN)])?, OK, "status");
    ensure!(equal(data, b"vol0000000000000000"), "another serial number");
    same!(read::<u8>(data + u64::from(ID_LEN)), 0xff, "the byte behind it");
    same!(
        disk.request(GET_ID, 0, &[into(data, ID_LEN - 1)])?,
        IO_ERROR,
        "without room"
    );
    still_works(device, &mut disk)
}

fn refuses_what_is_beyond_the_end(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let (data, capacity) = (disk.data, Disk::capacity(device));
    for (sector, sectors) in [
        (capacity, 1),
        (capacity - 1, 2),
        (u64::MAX, 1),
        (u64::MAX >> 9, 1),
        (u64::MAX >> 8, 2),
        (1 << 55, 1),
    ] {
        let len = (sectors * SECTOR) as u32;
        fill(data, sectors * SECTOR, 0x77);
        same!(
            disk.request(IN, sector, &[into(data, len)])?,
            IO_ERROR,
            "read at {sector:#x}"
        );
        same!(
            disk.request(OUT, sector, &[out(data, len)])?,
            IO_ERROR,
            "write at {sector:#x}"
        );
        same!(read::<u8>(data), 0x77, "the buffer");
    }
    still_works(device, &mut disk)
}

fn refuses_a_part_of_a_sector(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let data = disk.data;
    for len in [1, 511, 513] {
        same!(
            disk.request(IN, 0, &[into(data, len)])?,
            IO_ERROR,
            "read of {len} bytes"
        );
        same!(
            disk.request(OUT, SCRATCH, &[out(data, len)])?,
            IO_ERROR,
            "write of {len} bytes"
        );
    }
    still_works(device, &mut disk)
}

fn refuses_data_in_the_wrong_direction(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let data = disk.data;
    fill(data, SECTOR, 0x55);
    same!(
        disk.request(IN, 3, &[out(data, 512)])?,
        IO_ERROR,
        "read into a readable buffer"
    );
    same!(read::<u8>(data), 0x55, "a buffer that the device may only read");
    same!(
        disk.request(OUT, 3, &[into(data, 512)])?,
        IO_ERROR,
        "write from a writable buffer"
    );
    same!(disk.request(IN, 3, &[into(data, 512)])?, OK, "read");
    holds_pattern(data, 3, 1)
}

fn refuses_an_unknown_type(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let data = disk.data;
    for kind in [2, 3, 99, u32::MAX] {
        same!(
            disk.request(kind, 0, &[into(data, 512)])?,
            UNSUPPORTED,
            "type {kind}"
        );
    }
    still_works(device, &mut disk)
}

fn answers_a_read_of_nothing(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let status = disk.request(IN, 0, &[])?;
    ensure!(status != UNANSWERED, "no status");
    still_works(device, &mut disk)
}
