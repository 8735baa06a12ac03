//! Process start to the first vCPU entry, to the guest's first line, and what the process costs in memory.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::monitors::{Disk, Guest, Monitor, time_until};
use crate::resident::{Overhead, overhead};
use crate::stats::{Row, Samples, print};
use crate::stub;

const MEMORY_MIB: u64 = 128;
const LARGE_MEMORY_MIB: u64 = 2048;
/// What images/initrd's init says first.
const FIRST_LINE: &[u8] = b"hearth-init: first line";
/// What Linux is told to speak before its drivers do, and how each of its lines begins.
const SPEAK_EARLY: &str = "earlyprintk=ttyS0 ignore_loglevel";
const FIRST_WORDS: &[u8] = b"[    0.000000] ";
/// Bytes of Linux's disk, of which it reads the first sectors.
const DISK: u64 = 64 << 20;

#[derive(Default, Clone)]
struct Figures {
    entry: Samples,
    words: Samples,
    line: Samples,
    rss: Samples,
    pss: Samples,
    large_rss: Samples,
    large_pss: Samples,
}

/// What a figure is called, and where it is kept.
type Figure = (&'static str, fn(&mut Figures) -> &mut Samples);

const FIGURES: [Figure; 7] = [
    ("process start to first vCPU entry, ms", |f| &mut f.entry),
    ("process start to Linux's first line by earlyprintk, ms", |f| {
        &mut f.words
    }),
    ("process start to the first line of Linux's init, ms", |f| {
        &mut f.line
    }),
    ("RSS beyond 128 MiB of guest memory, MiB", |f| &mut f.rss),
    ("PSS beyond 128 MiB of guest memory, MiB", |f| &mut f.pss),
    ("RSS beyond 2 GiB of guest memory, MiB", |f| &mut f.large_rss),
    ("PSS beyond 2 GiB of guest memory, MiB", |f| &mut f.large_pss),
];

/// How often each figure is taken: `$HEARTH_BENCH_RUNS`, or 7 times.
///
/// # Errors
/// The variable is no number.
pub fn runs() -> Result<usize> {
    std::env::var("HEARTH_BENCH_RUNS").map_or(Ok(7), |n| n.parse().context("HEARTH_BENCH_RUNS"))
}

/// Linux is booted in each round, unless `$HEARTH_BENCH_LINUX` is 0: on an emulated KVM it takes most of the time.
pub fn with_linux() -> bool {
    std::env::var("HEARTH_BENCH_LINUX").map_or(true, |value| value != "0")
}

pub fn run(monitors: &[Monitor]) -> Result<()> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .with_context(|| format!("{name} is not set"))
    };
    let (kernel, initrd) = (variable("HEARTH_KERNEL")?, variable("HEARTH_INITRD")?);
    let cmdline = std::env::var("HEARTH_CMDLINE").context("HEARTH_CMDLINE")?;
    let runs = runs()?;
    let dir = tempfile::tempdir()?;
    let stub_file = dir.path().join("stub");
    std::fs::write(&stub_file, stub::elf(stub::ONCE))?;
    let small = Guest {
        kernel: &stub_file,
        initrd: Some(&initrd),
        cmdline: &cmdline,
        memory_mib: MEMORY_MIB,
        vcpus: 1,
        disk: None,
        tap: None,
    };
    let large = Guest {
        memory_mib: LARGE_MEMORY_MIB,
        ..small
    };
    let disk = dir.path().join("disk");
    std::fs::File::create(&disk)?.set_len(DISK)?;
    let linux = Guest {
        kernel: &kernel,
        disk: Some(Disk {
            path: &disk,
            direct: false,
        }),
        ..small
    };
    let early = format!("{cmdline} {SPEAK_EARLY}");
    let early = Guest {
        cmdline: &early,
        ..linux
    };

    let mut figures = vec![Figures::default(); monitors.len()];
    // In turn, and each first in turn, so that the machine's moods meet all alike; the first round warms the caches and
    // does not count.
    for round in 0..=runs {
        for nth in 0..monitors.len() {
            let nth = (round + nth) % monitors.len();
            let (monitor, figures) = (&monitors[nth], &mut figures[nth]);
            let mut scratch = Figures::default();
            let figures = if round > 0 { figures } else { &mut scratch };
            let time = |guest: &Guest<'_>, text: &[u8]| -> Result<(f64, Overhead)> {
                let mut resident = None;
                let elapsed = time_until(monitor.command(dir.path(), guest)?, text, |child| {
                    resident = Some(overhead(child.id(), guest.memory_mib)?);
                    Ok(())
                })?;
                Ok((elapsed, resident.context("not looked at")?))
            };
            let (entry, resident) = time(&small, b"!")?;
            figures.entry.add(entry);
            let resident = if with_linux() {
                figures.words.add(time(&early, FIRST_WORDS)?.0);
                let (line, resident) = time(&linux, FIRST_LINE)?;
                figures.line.add(line);
                resident
            } else {
                resident
            };
            figures.rss.add(resident.rss);
            figures.pss.add(resident.pss);
            let (_, resident) = time(&large, b"!")?;
            figures.large_rss.add(resident.rss);
            figures.large_pss.add(resident.pss);
        }
    }
    println!("\nboot: 1 vCPU, {runs} runs in turn, same kernel, initrd, disk and command line\n");
    let rows: Vec<Row> = FIGURES
        .into_iter()
        .map(|(name, pick)| Row {
            name,
            contenders: figures.iter_mut().map(|f| pick(f).clone()).collect(),
        })
        .collect();
    let names: Vec<_> = monitors.iter().map(Monitor::name).collect();
    print(&names, &rows);
    Ok(())
}
