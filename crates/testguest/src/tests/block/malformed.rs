//! Requests that cannot even be refused: where is the status byte?

use super::*;
use crate::tests::{Case, cases};
use crate::virtio::CONFIG_INTERRUPT;

pub const CASES: &[Case] = cases![
    no_status,
    no_header,
    a_short_header,
    a_header_in_a_writable_buffer,
    nothing
];

/// The device says NEEDS_RESET, answers nothing, and works again after a reset.
fn breaks(device: &Device, buffers: fn(&Disk) -> [Buffer; 2]) -> Outcome {
    let disk = Disk::start(device)?;
    disk.write_header(IN, 0);
    let before = device.interrupts(CONFIG_INTERRUPT);
    disk.ring.chain(0, &buffers(&disk));
    disk.ring.offer(0);
    disk.ring.kick();
    device.wait_needs_reset(before)?;
    same!(disk.ring.used_index(), 0, "used index");
    works(device)
}

fn no_status(device: &Device) -> Outcome {
    breaks(device, |disk| [out(disk.header, HEADER_LEN), out(disk.data, 512)])
}

fn no_header(device: &Device) -> Outcome {
    breaks(device, |disk| [into(disk.data, 512), into(disk.status, 1)])
}

fn a_short_header(device: &Device) -> Outcome {
    breaks(device, |disk| {
        [out(disk.header, HEADER_LEN - 1), into(disk.status, 1)]
    })
}

fn a_header_in_a_writable_buffer(device: &Device) -> Outcome {
    breaks(device, |disk| {
        [into(disk.header, HEADER_LEN), into(disk.status, 1)]
    })
}

fn nothing(device: &Device) -> Outcome {
    breaks(device, |disk| [out(disk.header, 0), into(disk.status, 0)])
}
