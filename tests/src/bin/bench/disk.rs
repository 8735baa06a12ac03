//! Disks: the same bare-metal guest (`crates/testguest`) drives each monitor's virtio block device, with nothing of a
//! guest kernel in between.
//!
//! The file is larger than what a run touches and dropped from the page cache before, for Firecracker cannot open it
//! with O_DIRECT.

use std::arch::x86_64::_rdtsc;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::boot::runs;
use crate::monitors::{Guest, Monitor};
use crate::running::Running;
use crate::stats::{Row, Samples, print};

const DISK_MIB: usize = 2048;
const MEMORY_MIB: u64 = 128;
/// Name and options of each measurement, and what its rows are called.
const LOADS: [Load; 5] = [
    Load::new(
        "bench=random_read depth=1 length=4096 operations=4000",
        "4 KiB random reads, depth 1",
    ),
    Load::new(
        "bench=random_read depth=32 length=4096 operations=20000",
        "4 KiB random reads, depth 32",
    ),
    Load::new(
        "bench=random_write depth=1 length=4096 operations=4000",
        "4 KiB random writes, depth 1",
    ),
    Load::new(
        "bench=random_write depth=32 length=4096 operations=20000",
        "4 KiB random writes, depth 32",
    ),
    Load::new(
        "bench=sequential_read depth=8 length=1048576 operations=512",
        "1 MiB sequential reads, depth 8",
    ),
];

struct Load {
    cmdline: &'static str,
    name: &'static str,
}

impl Load {
    const fn new(cmdline: &'static str, name: &'static str) -> Self {
        Self { cmdline, name }
    }
}

#[derive(Default, Clone)]
struct Figures {
    /// Operations a second, in thousands.
    rate: Samples,
    /// Microseconds of the monitor's processor time for an operation.
    cpu: Samples,
}

pub fn run(monitors: &[Monitor]) -> Result<()> {
    let kernel = PathBuf::from(std::env::var_os("HEARTH_TESTGUEST").context("HEARTH_TESTGUEST is not set")?);
    // Not in /tmp, which may be memory.
    let dir =
        tempfile::tempdir_in(std::env::var_os("HEARTH_BENCH_DIR").unwrap_or_else(|| "/var/tmp".into()))?;
    let disk = make_disk(dir.path())?;
    let ticks_per_second = ticks_per_second();
    let mut figures = vec![vec![Figures::default(); monitors.len()]; LOADS.len()];
    for _ in 0..runs()? {
        for (load, figures) in LOADS.iter().zip(&mut figures) {
            for (monitor, figures) in monitors.iter().zip(figures) {
                let guest = Guest {
                    kernel: &kernel,
                    initrd: None,
                    cmdline: load.cmdline,
                    memory_mib: MEMORY_MIB,
                    vcpus: 1,
                    disk: Some(&disk),
                };
                drop_from_cache(&disk)?;
                let (operations, ticks, cpu) = measure(monitor, dir.path(), &guest)?;
                figures.rate.add(operations / (ticks / ticks_per_second) / 1000.0);
                figures.cpu.add(cpu / operations * 1e6);
            }
        }
    }
    println!(
        "\ndisks: 1 vCPU, {DISK_MIB} MiB raw file, {} runs in turn, thousands of operations a second\n",
        runs()?
    );
    let rows = |pick: fn(&Figures) -> &Samples| -> Vec<Row> {
        LOADS
            .iter()
            .zip(&figures)
            .map(|(load, figures)| Row {
                name: load.name,
                contenders: figures.iter().map(|f| pick(f).clone()).collect(),
            })
            .collect()
    };
    let names: Vec<_> = monitors.iter().map(Monitor::name).collect();
    print(&names, &rows(|f| &f.rate));
    println!("\nthe monitor's processor time for each of them, without its vCPUs' threads, microseconds\n");
    print(&names, &rows(|f| &f.cpu));
    Ok(())
}

/// Operations, ticks of the time stamp counter, seconds of the monitor's processor time.
fn measure(monitor: &Monitor, dir: &Path, guest: &Guest<'_>) -> Result<(f64, f64, f64)> {
    let mut running = Running::start(&mut monitor.command(dir, guest)?)?;
    let before = running.cpu_without_vcpus()?;
    while let Some(line) = running.next_line()? {
        if let Some(figures) = line.strip_prefix("bench ") {
            let cpu = running.cpu_without_vcpus()? - before;
            let (operations, ticks) =
                parse(figures).with_context(|| format!("{}: {line}", monitor.name()))?;
            return Ok((operations, ticks, cpu));
        }
    }
    bail!("{} ended without a figure", monitor.name())
}

/// `random_read depth 1 length 4096: 4000 operations in 123456 ticks`
fn parse(figures: &str) -> Option<(f64, f64)> {
    let (_, counts) = figures.split_once(": ")?;
    let (operations, ticks) = counts.split_once(" operations in ")?;
    Some((
        operations.parse().ok()?,
        ticks.strip_suffix(" ticks")?.parse().ok()?,
    ))
}

/// Random bytes, all of them allocated: a hole would cost nothing to read.
fn make_disk(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("disk");
    let mut file = File::create(&path)?;
    let block: Vec<u8> = std::iter::repeat_with(rand::random).take(1 << 20).collect();
    for _ in 0..DISK_MIB {
        file.write_all(&block)
            .with_context(|| format!("filling {}", path.display()))?;
    }
    file.sync_all()?;
    Ok(path)
}

fn drop_from_cache(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(posix_fadvise(
        &file,
        0,
        0,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )?)
}

fn ticks_per_second() -> f64 {
    let ticks = || {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { _rdtsc() }
    };
    let (begin, before) = (Instant::now(), ticks());
    std::thread::sleep(Duration::from_millis(200));
    (ticks() - before) as f64 / begin.elapsed().as_secs_f64()
}
