//! The entropy device. Virtio 1.2, section 5.4.

use super::{Case, cases};
use crate::cpu::read;
use crate::memory::allocate;
use crate::report::Outcome;
use crate::virtio::ring::{into, out};
use crate::virtio::{CONFIG_INTERRUPT, Device, feature};
use crate::{ensure, same};

pub const CASES: &[Case] = cases![
    fills_buffers_with_different_bytes,
    bounds_a_huge_request,
    refuses_a_readable_buffer
];

const ALL_BUT_EVENT_IDX: u64 = !feature::EVENT_IDX;

pub fn works(device: &Device) -> Outcome {
    let [mut ring] = device.start(ALL_BUT_EVENT_IDX, 16)?;
    let buffer = allocate(16);
    same!(
        ring.request("16 random bytes", &[into(buffer, 16)])?,
        16,
        "bytes written"
    );
    ensure!(
        read::<u64>(buffer) != 0 && read::<u64>(buffer + 8) != 0,
        "they are zeroes"
    );
    Ok(())
}

fn fills_buffers_with_different_bytes(device: &Device) -> Outcome {
    let [mut ring] = device.start(ALL_BUT_EVENT_IDX, 16)?;
    let buffer = allocate(4096);
    let mut seen = [0u64; 16];
    for nth in 0..seen.len() {
        let parts = [into(buffer, 1), into(buffer + 1, 62), into(buffer + 63, 1)];
        same!(ring.request("three parts", &parts)?, 64, "bytes written");
        seen[nth] = read(buffer + 16);
        ensure!(!seen[..nth].contains(&seen[nth]), "the same bytes came twice");
        ensure!(read::<u64>(buffer + 56) != 0, "the end is not filled");
        same!(read::<u64>(buffer + 64), 0, "the bytes behind the buffer");
    }
    Ok(())
}

fn bounds_a_huge_request(device: &Device) -> Outcome {
    let [mut ring] = device.start(ALL_BUT_EVENT_IDX, 16)?;
    let len = 4 << 20;
    let buffer = allocate(len);
    let written = ring.request("4 MiB", &[into(buffer, len as u32)])?;
    ensure!(
        written > 0 && written <= 65536,
        "{written} bytes are written at once"
    );
    same!(
        read::<u64>(buffer + u64::from(written)),
        0,
        "behind the bytes written"
    );
    Ok(())
}

fn refuses_a_readable_buffer(device: &Device) -> Outcome {
    let [ring] = device.start(ALL_BUT_EVENT_IDX, 16)?;
    let buffer = allocate(16);
    let before = device.interrupts(CONFIG_INTERRUPT);
    ring.chain(0, &[out(buffer, 8), into(buffer + 8, 8)]);
    ring.offer(0);
    ring.kick();
    device.wait_needs_reset(before)
}
