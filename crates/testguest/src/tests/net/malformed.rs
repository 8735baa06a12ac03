//! Chains that hold no packet and have no room for one.

use super::*;
use crate::tests::{Case, cases};
use crate::virtio::CONFIG_INTERRUPT;

pub const CASES: &[Case] = cases![
    sending_less_than_a_header,
    sending_from_a_writable_buffer,
    receiving_into_less_than_a_header,
    receiving_into_a_readable_buffer,
];

fn breaks(device: &Device, queue: u16, buffer: fn(u64) -> Buffer) -> Outcome {
    let link = Link::start_deaf(device)?;
    let ring = if queue == RX { &link.rx } else { &link.tx };
    let before = device.interrupts(CONFIG_INTERRUPT);
    ring.chain(0, &[buffer(link.tx_buffer)]);
    ring.offer(0);
    ring.kick();
    device.wait_needs_reset(before)?;
    same!(ring.used_index(), 0, "used index");
    works(device)
}

fn sending_less_than_a_header(device: &Device) -> Outcome {
    breaks(device, RX + 1, |buffer| out(buffer, HEADER_LEN - 1))
}

fn sending_from_a_writable_buffer(device: &Device) -> Outcome {
    breaks(device, RX + 1, |buffer| into(buffer, 100))
}

fn receiving_into_less_than_a_header(device: &Device) -> Outcome {
    breaks(device, RX, |buffer| into(buffer, HEADER_LEN - 1))
}

fn receiving_into_a_readable_buffer(device: &Device) -> Outcome {
    breaks(device, RX, |buffer| out(buffer, BUFFER_LEN))
}
