//! Devices through their queues, in this process: a driver on one thread that polls, the device's own threads, and no
//! KVM. For each row operations a second, and of the device's side (the driver's thread not counted) the processor's
//! time and the system calls for each operation.
//!
//! `cargo bench -p hearth-vmm --features testing --bench devices`; `HEARTH_BENCH_DIR` is where the disk's file goes
//! (256 MiB), by default `target`. System calls are counted by a tracepoint of the kernel, which only root may use.

#![allow(clippy::unwrap_used)]

mod cost;
mod disk;
mod load;
mod nic;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use hearth_vmm::virtio::rng::Rng;
use hearth_vmm::virtio::testing::{DATA, Driver, Ring};
use load::{Load, Traffic, measure};

/// So many random bytes.
struct Random(u32);

impl Traffic for Random {
    const CHAIN: u16 = 1;

    fn write(&self, ring: &Ring, slot: u16, _: &Driver) {
        ring.chain(slot, &[(DATA, self.0, true)]);
    }
}

fn entropy(c: &mut Criterion) {
    for len in [64, 4096] {
        let load = Load {
            name: &format!("entropy: {len} bytes, depth 1"),
            features: u64::MAX,
            queue: 0,
            depth: 1,
            spare: 0,
            bytes: len.into(),
        };
        measure(c, &load, Rng::new(), &mut Random(len));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = disk::disks, nic::nics, entropy
}
criterion_main!(benches);
