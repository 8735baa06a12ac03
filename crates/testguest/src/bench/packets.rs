//! Packets as fast as the host takes them: frames of a type that nobody has, which go no further than its interface.

use super::HOST_LOOKS;
use crate::memory::allocate;
use crate::report::{End, Outcome};
use crate::virtio;
use crate::virtio::net::{Checksum, Nic};
use crate::{Machine, cpu, ensure};

/// To everyone, and of the first type for local experiments (IEEE 802).
const ETHERNET: [u8; 14] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
/// What the host shall sum up: zeros.
const CHECKSUM: Checksum = Checksum {
    start: ETHERNET.len() as u16,
    offset: 0,
};
const SHORTEST: u64 = 60;
const LONGEST: u64 = 1514;

/// The ticks that `packets` of `length` bytes each take, from the first until the device has given the last one back.
pub fn measure(machine: &Machine, packets: u64, length: u64) -> Outcome<u64> {
    let Some(device) = machine.device(virtio::NET, 0) else {
        return Err(End::Absent("no network interface"));
    };
    ensure!(
        (SHORTEST..=LONGEST).contains(&length),
        "no packet has {length} bytes"
    );
    let mut nic = Nic::start(&device, false, false)?;
    let payload = length - ETHERNET.len() as u64;
    let data = allocate(payload);
    cpu::sleep(HOST_LOOKS);
    let start = cpu::ticks();
    let mut left = packets;
    while left > 0 {
        while left > 0 && nic.can_send() {
            nic.send(&ETHERNET, data, payload, CHECKSUM, None);
            left -= 1;
        }
        nic.kick();
    }
    while !nic.has_sent_all() {
        core::hint::spin_loop();
    }
    let ticks = cpu::ticks() - start;
    device.reset()?;
    Ok(ticks)
}
