//! Chains that hold no packet, and such as have no room for one.

use super::*;
use crate::tests::{Case, cases};
use crate::virtio::CONFIG_INTERRUPT;
use crate::virtio::ring::Buffer;

pub const CASES: &[Case] = cases![
    sending_less_than_a_header,
    sending_less_than_the_header_says,
    sending_from_a_writable_buffer,
    receiving_into_less_than_a_header,
    receiving_into_a_readable_buffer,
    receiving_into_device_memory,
    a_buffer_for_a_header_alone_is_enough_for_one,
];

fn breaks(device: &Device, link: &Link, ring: &Ring, buffer: Buffer) -> Outcome {
    let (before, used) = (device.interrupts(CONFIG_INTERRUPT), ring.used_index());
    ring.chain(0, &[buffer]);
    ring.offer(0);
    ring.kick();
    device.wait_needs_reset(before)?;
    same!(ring.used_index(), used, "used index");
    same!(link.rx.used_index(), 0, "used index of reception");
    works(device)
}

fn sending(device: &Device, len: u32, buffer: fn(u64) -> Buffer) -> Outcome {
    let link = Link::start(device)?;
    Header {
        len,
        ..link.header(ECHO, op::RW)
    }
    .put(link.packet);
    breaks(device, &link, &link.tx, buffer(link.packet))
}

fn sending_less_than_a_header(device: &Device) -> Outcome {
    sending(device, 0, |at| out(at, 1))?;
    sending(device, 0, |at| out(at, HEADER_LEN - 1))
}

fn sending_less_than_the_header_says(device: &Device) -> Outcome {
    for len in [101, 1 << 20, u32::MAX] {
        sending(device, len, |at| out(at, HEADER_LEN + 100))?;
    }
    Ok(())
}

fn sending_from_a_writable_buffer(device: &Device) -> Outcome {
    sending(device, 0, |at| into(at, HEADER_LEN))
}

/// The device looks once it owes a packet.
fn receiving(device: &Device, buffer: fn(u64) -> Buffer) -> Outcome {
    let mut link = Link::start_deaf(device)?;
    link.send(link.header(NOBODY, op::REQUEST))?;
    breaks(device, &link, &link.rx, buffer(link.rx_buffers))
}

fn receiving_into_less_than_a_header(device: &Device) -> Outcome {
    receiving(device, |at| into(at, HEADER_LEN - 1))
}

fn receiving_into_a_readable_buffer(device: &Device) -> Outcome {
    receiving(device, |at| out(at, BUFFER_LEN))
}

fn receiving_into_device_memory(device: &Device) -> Outcome {
    receiving(device, |_| into(cpu::LOCAL_APIC, BUFFER_LEN))
}

fn a_buffer_for_a_header_alone_is_enough_for_one(device: &Device) -> Outcome {
    let mut link = Link::start_deaf(device)?;
    link.listen(HEADER_LEN);
    link.send(link.header(NOBODY, op::REQUEST))?;
    link.expect(NOBODY, op::RST, "nobody there")?;
    // There is no room for data, so that none comes; the connection lives on.
    link.connect(ECHO)?;
    let header = link.header(ECHO, op::RW);
    link.send(Header { len: 10, ..header })?;
    link.send(link.header(NOBODY, op::REQUEST))?;
    link.expect(NOBODY, op::RST, "nobody there")?;
    works(device)
}
