//! The engines against plain system calls, on a raw file with direct I/O: time and processor time per request. And an overlay
//! that lies encrypted against one that does not, all of whose chunks are present.
//!
//! `cargo bench -p hearth-block`; `HEARTH_BENCH_DIR` is where the file goes (256 MiB each), by default `target`.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hearth_block::engine::{Engine, Operation, Pool, Pooled, Request, Segment, Uring};
use hearth_block::{Backing, Cipher, Disk, Key, Overlay, RawDisk, overlay};
use rustix::time::{ClockId, clock_gettime};

const FILE: u64 = 256 << 20;
const SMALL: usize = 4 << 10;
const LARGE: usize = 1 << 20;
const DEPTH: usize = 32;

/// A file without a name, filled so that no read is of a hole.
fn disk() -> Arc<dyn Disk> {
    let dir = std::env::var("HEARTH_BENCH_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").into());
    let file: File = tempfile::tempfile_in(Path::new(&dir)).unwrap();
    for at in (0..FILE).step_by(LARGE) {
        file.write_all_at(&vec![at as u8 | 1; LARGE], at).unwrap();
    }
    file.sync_all().unwrap();
    let disk = RawDisk::new(file).unwrap();
    disk.set_direct(true);
    eprintln!("direct I/O: {}", disk.backings()[0].is_direct());
    Arc::new(disk)
}

/// An overlay all of whose chunks are present.
fn overlaid(cipher: Option<Arc<Cipher>>) -> Arc<dyn Disk> {
    let dir = std::env::var("HEARTH_BENCH_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").into());
    let [data, map] = [(); 2].map(|()| tempfile::tempfile_in(Path::new(&dir)).unwrap());
    overlay::create(&data, &map, 0, FILE).unwrap();
    let disk = Overlay::open(Backing::new(data).unwrap(), Backing::new(map).unwrap(), None).unwrap();
    let disk = match cipher {
        Some(cipher) => disk.encrypted(cipher),
        None => disk,
    };
    for at in (0..FILE).step_by(LARGE) {
        disk.write_at(&vec![at as u8 | 1; LARGE], at).unwrap();
    }
    disk.flush().unwrap();
    disk.set_direct(true);
    Arc::new(disk)
}

/// Memory for `DEPTH` requests.
struct Memory(Vec<u8>);

impl Memory {
    fn new() -> Self {
        Self(vec![0; DEPTH * LARGE + 4096])
    }

    fn slot(&mut self, slot: usize, len: usize) -> &mut [u8] {
        let skew = self.0.as_ptr().align_offset(4096);
        &mut self.0[skew + slot * LARGE..][..len]
    }
}

/// Where request `nth` goes: anywhere, or behind the one before.
fn offset(nth: u64, len: usize) -> u64 {
    let blocks = FILE / len as u64;
    let block = if len == SMALL {
        nth.wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407)
            >> 33
    } else {
        nth
    };
    block % blocks * len as u64
}

fn synchronously(disk: &dyn Disk, memory: &mut Memory, operation: Operation, len: usize, requests: u64) {
    for nth in 0..requests {
        let buffer = memory.slot(0, len);
        match operation {
            Operation::Read => disk.read_at(buffer, offset(nth, len)).unwrap(),
            _ => disk.write_at(buffer, offset(nth, len)).unwrap(),
        }
    }
}

/// As a queue's worker drives it: what has ended makes room for as much.
fn through(engine: &mut dyn Engine, memory: &mut Memory, load: Load, requests: u64) {
    let (mut begun, mut done, mut ended) = (0, 0, Vec::new());
    let mut free: Vec<usize> = (0..load.depth).collect();
    while done < requests {
        while begun < requests
            && let Some(slot) = free.pop()
        {
            let buffer = memory.slot(slot, load.len);
            let request = Request {
                token: slot,
                operation: load.operation,
                offset: offset(begun, load.len),
                len: load.len as u64,
                buffers: vec![Segment::new(buffer.as_mut_ptr(), load.len)],
            };
            // SAFETY: the memory outlives the engine's work: all that is submitted is reaped below.
            unsafe { engine.submit(request) };
            begun += 1;
        }
        engine.sleep().unwrap();
        engine.reap(&mut ended);
        for completion in ended.drain(..) {
            completion.result.unwrap();
            free.push(completion.request.token);
            done += 1;
        }
    }
}

#[derive(Clone, Copy)]
struct Load {
    operation: Operation,
    len: usize,
    depth: usize,
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Reports wall time to criterion, and the processor's time of all of its samples at the end.
fn measure(c: &mut Criterion, name: &str, load: Load, mut run: impl FnMut(u64)) {
    let mut group = c.benchmark_group("disk");
    group.throughput(Throughput::Bytes(load.len as u64));
    let (mut total, mut spent) = (0, Duration::ZERO);
    group.bench_function(name, |b| {
        b.iter_custom(|requests| {
            let (begin, before) = (Instant::now(), cpu());
            run(requests);
            spent += cpu() - before;
            total += requests;
            begin.elapsed()
        });
    });
    group.finish();
    println!(
        "{name}: {:.2} µs of processor time each",
        spent.as_secs_f64() * 1e6 / total as f64
    );
}

fn engines(c: &mut Criterion) {
    let disk = disk();
    let mut memory = Memory::new();
    let pool = Pool::new(Arc::clone(&disk), 8, &|builder, run| builder.spawn(run)).unwrap();
    for (operation, verb) in [(Operation::Read, "read"), (Operation::Write, "write")] {
        for (len, size, depths) in [
            (SMALL, "4 KiB random", &[1, DEPTH][..]),
            (LARGE, "1 MiB sequential", &[4]),
        ] {
            let load = Load {
                operation,
                len,
                depth: 1,
            };
            measure(c, &format!("{size} {verb}, synchronous"), load, |requests| {
                synchronously(&*disk, &mut memory, operation, len, requests);
            });
            for &depth in depths {
                let load = Load {
                    operation,
                    len,
                    depth,
                };
                let mut pooled = Pooled::new(&pool).unwrap();
                measure(
                    c,
                    &format!("{size} {verb}, threads, depth {depth}"),
                    load,
                    |requests| {
                        through(&mut pooled, &mut memory, load, requests);
                    },
                );
                let mut uring = Uring::new(Arc::clone(&disk), &pool, 256).unwrap();
                measure(
                    c,
                    &format!("{size} {verb}, io_uring, depth {depth}"),
                    load,
                    |requests| {
                        through(&mut uring, &mut memory, load, requests);
                    },
                );
            }
        }
    }
}

fn encryption(c: &mut Criterion) {
    let key: Vec<u8> = (0..64).collect();
    let cipher = Arc::new(Cipher::new(&Key::new(&key).unwrap()).unwrap());
    let disks = [("plain", overlaid(None)), ("encrypted", overlaid(Some(cipher)))];
    let mut memory = Memory::new();
    let pools = disks.each_ref().map(|(_, disk)| {
        // As many helpers as a monitor's ring has.
        Pool::new(Arc::clone(disk), 2, &|builder, run| builder.spawn(run)).unwrap()
    });
    for (operation, verb) in [(Operation::Read, "read"), (Operation::Write, "write")] {
        for (len, size, depths) in [
            (SMALL, "4 KiB random", &[1, DEPTH][..]),
            (LARGE, "1 MiB sequential", &[1, 4]),
        ] {
            for &depth in depths {
                let load = Load {
                    operation,
                    len,
                    depth,
                };
                for ((kind, disk), pool) in disks.iter().zip(&pools) {
                    let mut uring = Uring::new(Arc::clone(disk), pool, 256).unwrap();
                    let name = format!("{kind} overlay, {size} {verb}, depth {depth}");
                    measure(c, &name, load, |requests| {
                        through(&mut uring, &mut memory, load, requests);
                    });
                }
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = engines, encryption
}
criterion_main!(benches);
