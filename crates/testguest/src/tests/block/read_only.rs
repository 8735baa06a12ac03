//! A disk that must not be written.

use super::*;
use crate::tests::{Case, cases};

pub const CASES: &[Case] = cases![says_so, refuses_writes_and_reads_on];

const READ_ONLY: u64 = 1 << 5;

fn says_so(device: &Device) -> Outcome {
    ensure!(
        device.offered() & READ_ONLY != 0,
        "it does not offer VIRTIO_BLK_F_RO"
    );
    Ok(())
}

fn refuses_writes_and_reads_on(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let data = disk.data;
    same!(
        disk.request(OUT, 4, &[out(data, 512)])?,
        IO_ERROR,
        "status of a write"
    );
    same!(disk.request(IN, 4, &[into(data, 512)])?, OK, "status of a read");
    holds_pattern(data, 4, 1)?;
    still_works(device, &mut disk)
}
