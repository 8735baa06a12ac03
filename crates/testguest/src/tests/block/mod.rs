//! The block device. Virtio 1.2, section 5.2.
//!
//! The disk holds a pattern: each sector is its own number, as little-endian 64-bit words. Tests write only from
//! sector [`SCRATCH`] on, and only to the first disk; the second one is read-only.

pub mod malformed;
pub mod read_only;
pub mod requests;
pub mod space;
pub mod stress;

use crate::cpu::{read, write};
use crate::memory::allocate;
use crate::report::Outcome;
use crate::virtio::block::*;
use crate::virtio::ring::{Buffer, Ring, into, out};
use crate::virtio::{Device, feature};
use crate::{ensure, same};

/// From here on tests may write.
const SCRATCH: u64 = 8 << 20 >> 9;

/// What the status byte is before a request.
const UNANSWERED: u8 = 0xee;

const MAX_BUFFERS: usize = 32;
const DATA_LEN: u64 = 1 << 20;

/// The disk with one queue, and memory for a request.
struct Disk {
    ring: Ring,
    header: u64,
    status: u64,
    /// 1 MiB.
    data: u64,
}

impl Disk {
    fn start(device: &Device) -> Outcome<Self> {
        let [ring] = device.start(!feature::EVENT_IDX, 64)?;
        Ok(Self {
            ring,
            header: allocate(HEADER_LEN.into()),
            status: allocate(1),
            data: allocate(DATA_LEN),
        })
    }

    /// A request with its header and status in buffers of their own, as Linux makes it. Returns the status.
    fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> Outcome<u8> {
        let mut buffers = [out(self.header, HEADER_LEN); MAX_BUFFERS];
        buffers[1..=data.len()].copy_from_slice(data);
        buffers[1 + data.len()] = into(self.status, 1);
        self.write_header(kind, sector);
        self.ring.request("a block request", &buffers[..data.len() + 2])?;
        Ok(read(self.status))
    }

    fn write_header(&self, kind: u32, sector: u64) {
        write_header(self.header, kind, sector);
        write(self.status, UNANSWERED);
    }

    fn capacity(device: &Device) -> u64 {
        device.config(0)
    }
}

pub fn works(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let data = disk.data;
    same!(
        disk.request(IN, 1, &[into(data, SECTOR as u32)])?,
        OK,
        "status of a read"
    );
    holds_pattern(data, 1, 1)
}

/// Whether `sectors` sectors in memory are what the disk had from `first` on.
fn holds_pattern(address: u64, first: u64, sectors: u64) -> Outcome {
    for nth in 0..sectors {
        for at in [0, 8, SECTOR - 8] {
            let word: u64 = read(address + nth * SECTOR + at);
            same!(word, first + nth, "byte {at} of sector {}", first + nth);
        }
    }
    Ok(())
}

/// Neither the device nor its queue took offence: the next request is answered.
fn still_works(device: &Device, disk: &mut Disk) -> Outcome {
    let data = disk.data;
    same!(
        disk.request(IN, 2, &[into(data, SECTOR as u32)])?,
        OK,
        "status of the next read"
    );
    holds_pattern(data, 2, 1)?;
    let status = device.status();
    ensure!(
        status & crate::virtio::status::NEEDS_RESET == 0,
        "the device needs a reset"
    );
    Ok(())
}
