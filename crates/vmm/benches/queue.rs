//! A queue alone, on one thread: what a device spends on its rings, without anything that it does with a request.
//! The driver's side is not in the time.
//!
//! `cargo bench -p hearth-vmm --features testing --bench queue`

#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hearth_vmm::virtio::chain::Chain;
use hearth_vmm::virtio::queue::Virtqueue;
use hearth_vmm::virtio::testing::{DATA, Driver, EVENT_IDX, INDIRECT, Ring, VERSION_1};
use hearth_vmm::virtio::{Activation, DeviceType, VirtioDevice};

const RING: u16 = 256;
/// Descriptors of the longest chain.
const MOST: usize = 4;

/// Hands its queue to the benchmark and does nothing itself.
struct Bare(Sender<Virtqueue>);

impl VirtioDevice for Bare {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[RING]
    }

    fn config_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, mut activation: Activation) -> io::Result<()> {
        let queue = activation.take_queue(0).unwrap();
        self.0.send(queue).unwrap();
        Ok(())
    }

    fn stop(&mut self) -> Vec<Virtqueue> {
        Vec::new()
    }
}

/// Writes a request of `len` buffers, and returns its head.
fn write(ring: &Ring, slot: u16, len: u16, indirect: bool) -> u16 {
    if indirect {
        let table = DATA + 0x1_0000 + 64 * u64::from(slot);
        for nth in 0..len {
            let flags = u16::from(nth + 1 < len) | if nth + 1 == len { 2 } else { 0 };
            ring.table_entry(table, nth, DATA + 16 * u64::from(nth), 16, flags, nth + 1);
        }
        ring.descriptor(slot, table, 16 * u32::from(len), INDIRECT, 0);
        return slot;
    }
    let buffers: Vec<_> = (0..len)
        .map(|nth| (DATA + 16 * u64::from(nth), 16, nth + 1 == len))
        .collect();
    ring.chain(slot * len, &buffers);
    slot * len
}

fn queues(c: &mut Criterion) {
    for (name, len, batch, indirect) in [
        ("1 buffer, 1 at a time", 1, 1, false),
        ("1 buffer, 32 at a time", 1, 32, false),
        ("3 buffers, 1 at a time", 3, 1, false),
        ("3 buffers, 32 at a time", 3, 32, false),
        ("3 buffers in an indirect table, 32 at a time", 3, 32, true),
    ] {
        let (sender, receiver) = channel();
        let mut driver = Driver::probe(Bare(sender));
        driver.initialise(VERSION_1 | EVENT_IDX | 1 << 28, RING);
        let mut queue = receiver.recv().unwrap();
        let ring = driver.ring(0);
        let heads: Vec<u16> = (0..batch).map(|slot| write(ring, slot, len, indirect)).collect();
        let mut chain = Chain::default();
        let mut group = c.benchmark_group("queue");
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let mut took = Duration::ZERO;
                for _ in 0..count.div_ceil(u64::from(batch)) {
                    for &head in &heads {
                        ring.offer(head);
                    }
                    // No interrupt is wanted.
                    ring.set_used_event(ring.used_index().wrapping_sub(1));
                    let begun = Instant::now();
                    turn(&mut queue, &mut chain);
                    took += begun.elapsed();
                }
                took
            });
        });
        group.finish();
    }
}

/// As a NIC's worker does it.
#[inline(never)]
fn turn(queue: &mut Virtqueue, chain: &mut Chain) {
    queue.disable_doorbell().unwrap();
    while queue.pop(chain, MOST).unwrap() {
        queue.fill(chain, 16).unwrap();
    }
    queue.notify().unwrap();
    assert!(!queue.enable_doorbell().unwrap());
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = queues
}
criterion_main!(benches);
