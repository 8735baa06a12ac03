//! Disks: the same bare-metal guest (`crates/testguest`) drives each monitor's virtio block device, with nothing of a
//! guest kernel in between.
//!
//! Once past the host's page cache (O_DIRECT), which Firecracker cannot, and once through it. The file is larger than
//! what a run touches, written back and dropped from the page cache before each measurement.

use std::arch::x86_64::_rdtsc;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hearth_vmm::limits::RateLimit;
use hearth_vmm::spec::Cache;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::boot::runs;
use crate::hearth;
use crate::monitors::{Disk, Guest, Monitor};
use crate::running::Running;
use crate::stats::{Row, Samples, print};

const DISK_MIB: usize = 2048;
const MEMORY_MIB: u64 = 128;
/// What the guest is asked for, and what its rows are called. What writes take includes a flush at the end.
const LOADS: [Load; 6] = [
    Load::new(
        "bench=random_read depth=1 length=4096 operations=8000",
        "4 KiB random reads, depth 1",
    ),
    Load::new(
        "bench=random_read depth=32 length=4096 operations=40000",
        "4 KiB random reads, depth 32",
    ),
    Load::new(
        "bench=random_write depth=1 length=4096 operations=8000",
        "4 KiB random writes, depth 1",
    ),
    Load::new(
        "bench=random_write depth=32 length=4096 operations=40000",
        "4 KiB random writes, depth 32",
    ),
    Load::new(
        "bench=sequential_read depth=8 length=1048576 operations=1024",
        "1 MiB sequential reads, depth 8",
    ),
    Load::new(
        "bench=sequential_write depth=8 length=1048576 operations=512",
        "1 MiB sequential writes, depth 8",
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
    let kernel = testguest()?;
    let dir = directory()?;
    let disk = make_disk(dir.path(), DISK_MIB)?;
    let ticks_per_second = ticks_per_second();
    for direct in [true, false] {
        let disk = Disk { path: &disk, direct };
        let mut figures = vec![vec![Figures::default(); monitors.len()]; LOADS.len()];
        for run in 0..runs()? {
            for (load, figures) in LOADS.iter().zip(&mut figures) {
                // Who comes first finds the host's free memory untouched, which a host that is a guest itself pays
                // for page by page: each comes first in turn.
                for nth in 0..monitors.len() {
                    let nth = (run + nth) % monitors.len();
                    let (monitor, figures) = (&monitors[nth], &mut figures[nth]);
                    if direct && matches!(monitor, Monitor::Firecracker(_)) {
                        continue;
                    }
                    drop_from_cache(disk.path)?;
                    let cmdline = format!("{} then=wait", load.cmdline);
                    let running = start(monitor, dir.path(), &kernel, &cmdline, disk)?;
                    let (operations, ticks, cpu) =
                        measure(running).with_context(|| format!("{}: {cmdline}", monitor.name()))?;
                    figures.rate.add(operations / (ticks / ticks_per_second) / 1000.0);
                    figures.cpu.add(cpu / operations * 1e6);
                }
            }
        }
        let how = if direct {
            "with O_DIRECT, which Firecracker cannot"
        } else {
            "through the host's page cache, cold at first"
        };
        println!(
            "\ndisks: 1 vCPU, {DISK_MIB} MiB raw file {how}, {} runs in turn, thousands of operations a second\n",
            runs()?
        );
        report(monitors, &figures);
    }
    Ok(())
}

fn report(monitors: &[Monitor], figures: &[Vec<Figures>]) {
    let rows = |pick: fn(&Figures) -> &Samples| -> Vec<Row> {
        LOADS
            .iter()
            .zip(figures)
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
}

fn start(monitor: &Monitor, dir: &Path, kernel: &Path, cmdline: &str, disk: Disk<'_>) -> Result<Running> {
    if let Monitor::Hearth(binary) | Monitor::Before(binary) = monitor {
        let machine = hearth::Machine {
            cmdline,
            memory_mib: MEMORY_MIB,
            from: None,
            disk: Some(hearth::Disk {
                path: disk.path,
                cache: if disk.direct {
                    Cache::None
                } else {
                    Cache::Writeback
                },
                limit: RateLimit::default(),
            }),
            nic: None,
        };
        return Ok(hearth::start_machine(binary, dir, kernel, machine)?.0);
    }
    let guest = Guest {
        kernel,
        initrd: None,
        cmdline,
        memory_mib: MEMORY_MIB,
        vcpus: 1,
        disk: Some(disk),
        tap: None,
    };
    Running::start(&mut monitor.command(dir, &guest)?)
}

/// Operations, ticks of the time stamp counter, seconds of the monitor's processor time.
fn measure(mut running: Running) -> Result<(f64, f64, f64)> {
    let (mut before, mut after) = (0.0, 0.0);
    while let Some(line) = running.next_line()? {
        if line.starts_with("begin ") {
            before = running.cpu_without_vcpus()?;
        }
        // Before the device is reset, which may end its thread.
        if line.starts_with("end ") {
            after = running.cpu_without_vcpus()?;
        }
        if let Some(figures) = line.strip_prefix("bench ") {
            let (operations, ticks) = parse(figures).with_context(|| line.clone())?;
            return Ok((operations, ticks, after - before));
        }
    }
    bail!("the monitor ended without a figure")
}

/// The guest's program.
pub fn testguest() -> Result<PathBuf> {
    let kernel = std::env::var_os("HEARTH_TESTGUEST").context("HEARTH_TESTGUEST is not set")?;
    Ok(kernel.into())
}

/// A place for disks. Not in /tmp, which may be memory.
pub fn directory() -> Result<tempfile::TempDir> {
    let within = std::env::var_os("HEARTH_BENCH_DIR").unwrap_or_else(|| "/var/tmp".into());
    Ok(tempfile::tempdir_in(within)?)
}

/// `random_read depth 1 length 4096: 4000 operations in 123456 ticks`
pub fn parse(figures: &str) -> Option<(f64, f64)> {
    let (_, counts) = figures.split_once(": ")?;
    let (operations, ticks) = counts.split_once(" operations in ")?;
    Some((
        operations.parse().ok()?,
        ticks.strip_suffix(" ticks")?.parse().ok()?,
    ))
}

/// Random bytes, all of them allocated: a hole would cost nothing to read.
pub fn make_disk(dir: &Path, mib: usize) -> Result<PathBuf> {
    let path = dir.join("disk");
    let mut file = File::create(&path)?;
    let block: Vec<u8> = std::iter::repeat_with(rand::random).take(1 << 20).collect();
    for _ in 0..mib {
        file.write_all(&block)
            .with_context(|| format!("filling {}", path.display()))?;
    }
    file.sync_all()?;
    Ok(path)
}

pub fn drop_from_cache(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(posix_fadvise(
        &file,
        0,
        0,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )?)
}

pub fn ticks_per_second() -> f64 {
    let ticks = || {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { _rdtsc() }
    };
    let (begin, before) = (Instant::now(), ticks());
    std::thread::sleep(Duration::from_millis(200));
    (ticks() - before) as f64 / begin.elapsed().as_secs_f64()
}
