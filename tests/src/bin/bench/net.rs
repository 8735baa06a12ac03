//! Networks: TCP between the host's kernel and the bare-metal guest (`crates/testguest`) under each monitor, over a TAP.
//!
//! The guest's is a small TCP of its own, with nothing of a guest kernel in between; what it leaves to the host
//! (checksums, segmentation) is what Linux would.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::boot::runs;
use crate::monitors::{Guest, Monitor};
use crate::running::Running;
use crate::stats::{Row, Samples, print};
use crate::streams::{Service, Times, answers, stream};
use crate::wire::{Wire, in_a_namespace};

const MEMORY_MIB: u64 = 128;
const TIMES: Times = Times {
    warm_up: Duration::from_millis(200),
    measured: Duration::from_millis(1000),
};

/// Service and guest's options of a stream, and what its row is called.
const STREAMS: [(Service, &str, &str); 4] = [
    (
        Service::Discard,
        "bench=net segments=1",
        "host to guest, packets up to 64 KiB",
    ),
    (
        Service::Generate,
        "bench=net segments=1",
        "guest to host, packets up to 64 KiB",
    ),
    (
        Service::Discard,
        "bench=net segments=0",
        "host to guest, packets of 1500 bytes",
    ),
    (
        Service::Generate,
        "bench=net segments=0",
        "guest to host, packets of 1500 bytes",
    ),
];
const ANSWERS: [(&str, [&str; 3]); 2] = [
    (
        "bench=net wait=poll",
        [
            "a guest that polls: median",
            "a guest that polls: 99 of 100",
            "a guest that polls: monitor's processor time",
        ],
    ),
    (
        "bench=net wait=interrupt",
        [
            "a guest that sleeps: median",
            "a guest that sleeps: 99 of 100",
            "a guest that sleeps: monitor's processor time",
        ],
    ),
];

#[derive(Default, Clone)]
struct Figures {
    rates: [Samples; STREAMS.len()],
    cpu: [Samples; STREAMS.len()],
    answers: [[Samples; 3]; ANSWERS.len()],
}

pub fn run(monitors: &[Monitor]) -> Result<()> {
    let kernel = PathBuf::from(std::env::var_os("HEARTH_TESTGUEST").context("HEARTH_TESTGUEST is not set")?);
    let runs = runs()?;
    let figures = in_a_namespace(|| measure(monitors, &kernel, runs))?;
    let names: Vec<_> = monitors.iter().map(Monitor::name).collect();
    let rows = |titles: Vec<&'static str>, pick: &dyn Fn(&Figures, usize) -> Samples| -> Vec<Row> {
        let row = |(nth, name)| Row {
            name,
            contenders: figures.iter().map(|figures| pick(figures, nth)).collect(),
        };
        titles.into_iter().enumerate().map(row).collect()
    };
    let streams: Vec<_> = STREAMS.iter().map(|&(_, _, name)| name).collect();
    println!("\nTCP, 1 vCPU, a bare-metal guest, {runs} runs in turn, MiB a second\n");
    print(&names, &rows(streams.clone(), &|f, nth| f.rates[nth].clone()));
    println!("\nthe monitor's processor time for a MiB, without its vCPUs' threads, microseconds\n");
    print(&names, &rows(streams, &|f, nth| f.cpu[nth].clone()));
    println!("\none byte there and back over TCP, microseconds\n");
    let titles = ANSWERS.iter().flat_map(|(_, names)| *names).collect();
    print(
        &names,
        &rows(titles, &|f, nth| f.answers[nth / 3][nth % 3].clone()),
    );
    Ok(())
}

fn measure(monitors: &[Monitor], kernel: &Path, runs: usize) -> Result<Vec<Figures>> {
    let dir = tempfile::tempdir()?;
    let mut figures = vec![Figures::default(); monitors.len()];
    for _ in 0..runs {
        // In turn, so that the machine's moods meet all alike.
        for (monitor, figures) in monitors.iter().zip(&mut figures) {
            let failed = |load: &str| format!("{}: {load}", monitor.name());
            for (nth, (service, cmdline, name)) in STREAMS.into_iter().enumerate() {
                let wire = Wire::new()?;
                let running = start(monitor, dir.path(), kernel, cmdline, &wire)?;
                let measured = stream(&wire, &running, service, TIMES).with_context(|| failed(name))?;
                figures.rates[nth].add(measured.rate);
                figures.cpu[nth].add(measured.cpu);
            }
            for (nth, (cmdline, [name, ..])) in ANSWERS.into_iter().enumerate() {
                let wire = Wire::new()?;
                let running = start(monitor, dir.path(), kernel, cmdline, &wire)?;
                let measured = answers(&wire, &running, TIMES).with_context(|| failed(name))?;
                let [median, late, cpu] = &mut figures.answers[nth];
                median.add(measured.median);
                late.add(measured.late);
                cpu.add(measured.cpu);
            }
        }
    }
    Ok(figures)
}

/// A monitor whose guest is ready for connections.
fn start(monitor: &Monitor, dir: &Path, kernel: &Path, cmdline: &str, wire: &Wire) -> Result<Running> {
    let guest = Guest {
        kernel,
        initrd: None,
        cmdline,
        memory_mib: MEMORY_MIB,
        vcpus: 1,
        disk: None,
        tap: Some(wire.name()),
    };
    let mut running = Running::start(&mut monitor.command(dir, &guest)?)?;
    while let Some(line) = running.next_line()? {
        match line.strip_prefix("bench net") {
            Some(": ready") => return Ok(running),
            Some(why) => bail!("{}: the guest said:{why}", monitor.name()),
            None => {}
        }
    }
    bail!("{} ended before its guest was ready", monitor.name())
}
