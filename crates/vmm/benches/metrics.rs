//! What counting costs the threads that do the work.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use hearth_vmm::metrics::{Exit, Operation, Registry};

fn metrics(c: &mut Criterion) {
    let registry = Registry::default();
    let device = registry.device("block", "vol0");
    let mut queue = device.queue(0);
    let mut vcpu = registry.vcpu(0).on_this_thread();
    c.bench_function("count an exit", |b| {
        b.iter(|| vcpu.count(black_box(Exit::MmioWrite)))
    });
    c.bench_function("count an operation", |b| {
        b.iter(|| {
            queue.completed(
                black_box(Operation::Read),
                black_box(4096),
                black_box(Duration::from_micros(80)),
            )
        });
    });
    c.bench_function("count an operation and look at the clock twice", |b| {
        b.iter(|| {
            let begin = Instant::now();
            queue.completed(black_box(Operation::Read), black_box(4096), begin.elapsed());
        });
    });
    let mut attached = vec![device];
    for id in 0..32 {
        registry.vcpu(id);
        let device = registry.device("block", &format!("vol-{id}"));
        device
            .queue(0)
            .completed(Operation::Read, 4096, Duration::from_micros(80));
        attached.push(device);
    }
    c.bench_function("report 32 vCPUs and 33 disks", |b| b.iter(|| registry.report()));
}

criterion_group!(benches, metrics);
criterion_main!(benches);
