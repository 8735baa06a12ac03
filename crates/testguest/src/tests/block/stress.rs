//! Many requests, and resets among them.

use super::*;
use crate::cpu;
use crate::memory::fill;
use crate::report::End;
use crate::tests::{Case, cases};
use crate::virtio::status::DRIVER_OK;

pub const CASES: &[Case] = cases![
    wraps_around_all_indices,
    wraps_around_with_event_idx,
    interrupts_once_for_a_batch_with_event_idx,
    does_not_interrupt_when_asked_not_to,
    touches_no_memory_after_a_reset_in_flight,
    survives_resets_in_the_middle_of_writes,
    serves_two_queues_at_once,
];

/// More requests than a 16-bit index counts, in batches as large as the ring allows.
fn wrap_around(device: &Device, features: u64) -> Outcome {
    const REQUESTS: u32 = 66_000;
    let [mut ring] = device.start(features, 256)?;
    let (header, answers) = (allocate(HEADER_LEN.into()), allocate(256 * 32));
    write_header(header, GET_ID, 0);
    let batch = ring.size / 3;
    for nth in 0..batch {
        let answer = answers + 32 * u64::from(nth);
        ring.chain(
            3 * nth,
            &[
                out(header, HEADER_LEN),
                into(answer, ID_LEN),
                into(answer + 31, 1),
            ],
        );
    }
    let mut done = 0;
    while done < REQUESTS {
        fill(answers, u64::from(batch) * 32, UNANSWERED);
        let before = ring.available_index();
        for nth in 0..batch {
            ring.offer(3 * nth);
        }
        ring.kick_if_wanted(before);
        // In whatever order, each once.
        let mut seen = 0u128;
        for _ in 0..batch {
            let (head, written) = ring.wait("a batch")?;
            same!(written, ID_LEN + 1, "bytes written by request {done}");
            let nth = head / 3;
            ensure!(head % 3 == 0 && nth < u32::from(batch), "used head {head}");
            ensure!(seen >> nth & 1 == 0, "head {head} is used twice");
            seen |= 1 << nth;
            let status: u8 = read(answers + 32 * u64::from(nth) + 31);
            same!(status, OK, "status of request {done}");
            done += 1;
        }
    }
    Ok(())
}

fn wraps_around_all_indices(device: &Device) -> Outcome {
    wrap_around(device, !feature::EVENT_IDX)
}

fn wraps_around_with_event_idx(device: &Device) -> Outcome {
    ensure!(
        device.offered() & feature::EVENT_IDX != 0,
        "EVENT_IDX is not offered"
    );
    wrap_around(device, u64::MAX)
}

/// Offers `count` reads of a sector each, behind one ring of the doorbell.
fn offer_batch(disk: &Disk, count: u16) {
    write_header(disk.header, IN, 1);
    for nth in 0..count {
        let data = disk.data + SECTOR * u64::from(nth);
        let parts = [
            out(disk.header, HEADER_LEN),
            into(data, SECTOR as u32),
            into(disk.status, 1),
        ];
        disk.ring.chain(3 * nth, &parts);
        disk.ring.offer(3 * nth);
    }
    disk.ring.kick();
}

fn interrupts_once_for_a_batch_with_event_idx(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let [ring] = device.start(u64::MAX, 64)?;
    disk.ring = ring;
    let vector = device.vector_of(0);
    let before = device.interrupts(vector);
    // After the ninth of ten.
    disk.ring.set_used_event(8);
    offer_batch(&disk, 10);
    let came = cpu::wait_for(crate::virtio::PATIENCE, || device.interrupts(vector) > before);
    ensure!(came, "no interrupt");
    ensure!(
        disk.ring.used_index() >= 9,
        "it came after {} requests",
        disk.ring.used_index()
    );
    cpu::wait_for(crate::virtio::PATIENCE, || disk.ring.used_index() == 10);
    cpu::sleep(1);
    same!(device.interrupts(vector), before + 1, "interrupts");
    Ok(())
}

fn does_not_interrupt_when_asked_not_to(device: &Device) -> Outcome {
    let mut disk = Disk::start(device)?;
    let vector = device.vector_of(0);
    disk.ring.silence(true);
    let before = device.interrupts(vector);
    offer_batch(&disk, 10);
    for _ in 0..10 {
        disk.ring.wait("a read")?;
    }
    cpu::sleep(1);
    same!(device.interrupts(vector), before, "interrupts");
    disk.ring.silence(false);
    still_works(device, &mut disk)?;
    let came = cpu::wait_for(crate::virtio::PATIENCE, || device.interrupts(vector) > before);
    ensure!(came, "no interrupt after they were wanted again");
    Ok(())
}

fn sum(address: u64, len: u64) -> u64 {
    (0..len / 8).fold(0, |sum, at| {
        u64::wrapping_add(sum, read::<u64>(address + 8 * at)).rotate_left(1)
    })
}

fn touches_no_memory_after_a_reset_in_flight(device: &Device) -> Outcome {
    const LEN: u64 = 64 << 10;
    const REQUESTS: u16 = 16;
    for round in 0..10u64 {
        crate::memory::free_all();
        let disk = Disk::start(device)?;
        write_header(disk.header, IN, 0);
        fill(disk.data, DATA_LEN, 0xcc);
        for nth in 0..REQUESTS {
            let data = disk.data + LEN * u64::from(nth);
            let parts = [
                out(disk.header, HEADER_LEN),
                into(data, LEN as u32),
                into(disk.status, 1),
            ];
            disk.ring.chain(3 * nth, &parts);
            disk.ring.offer(3 * nth);
        }
        disk.ring.kick();
        // Now and then a few requests are through already.
        for _ in 0..round * 2_000 {
            core::hint::spin_loop();
        }
        device.reset()?;
        let (used, before) = (disk.ring.used_index(), sum(disk.data, DATA_LEN));
        cpu::sleep(2);
        same!(disk.ring.used_index(), used, "the used index after the reset");
        ensure!(
            sum(disk.data, DATA_LEN) == before,
            "memory changed after the reset"
        );
    }
    works(device)
}

fn survives_resets_in_the_middle_of_writes(device: &Device) -> Outcome {
    for round in 0..10u64 {
        crate::memory::free_all();
        let disk = Disk::start(device)?;
        write_header(disk.header, OUT, SCRATCH);
        for nth in 0..20 {
            let parts = [
                out(disk.header, HEADER_LEN),
                out(disk.data, 64 << 10),
                into(disk.status, 1),
            ];
            disk.ring.chain(3 * nth, &parts);
            disk.ring.offer(3 * nth);
        }
        disk.ring.kick();
        for _ in 0..round * 2_000 {
            core::hint::spin_loop();
        }
        device.reset()?;
        same!(device.status() & DRIVER_OK, 0, "DRIVER_OK");
    }
    works(device)
}

/// VIRTIO_BLK_F_MQ.
fn serves_two_queues_at_once(device: &Device) -> Outcome {
    const ROUNDS: u32 = 200;
    if device.queues() < 2 {
        return Err(End::Absent("it has one queue"));
    }
    let mut rings: [Ring; 2] = device.start(!feature::EVENT_IDX, 64)?;
    let (header, data) = (allocate(HEADER_LEN.into()), allocate(4096));
    write_header(header, IN, 1);
    for (ring, at) in rings.iter().zip([data, data + 2048]) {
        let parts = [
            out(header, HEADER_LEN),
            into(at, SECTOR as u32),
            into(at + 1024, 1),
        ];
        ring.chain(0, &parts);
    }
    for round in 0..ROUNDS {
        for ring in &rings {
            ring.offer(0);
            ring.kick();
        }
        for ring in &mut rings {
            let element = ring.wait("a read")?;
            same!(element, (0, SECTOR as u32 + 1), "used element of round {round}");
        }
    }
    for (nth, at) in (0..).zip([data, data + 2048]) {
        same!(read::<u8>(at + 1024), OK, "status of queue {nth}");
        holds_pattern(at, 1, 1)?;
        let interrupts = device.interrupts(device.vector_of(nth));
        ensure!(interrupts > 0, "queue {nth} never interrupts");
    }
    Ok(())
}
