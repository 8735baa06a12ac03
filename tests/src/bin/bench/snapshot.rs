//! Snapshots: from a process's start to the restored guest's first output, and what a diff snapshot takes, seen from
//! the client and by the monitor's own clock.

mod contenders;

use anyhow::Result;

use crate::boot::runs;
use crate::firecracker::runtime;
use crate::monitors::Monitor;
use crate::stats::{Row, Samples, print};
use contenders::{Contender, Firecracker, Hearth};

const MEMORY_MIB: u64 = 128;

#[derive(Default)]
struct Figures {
    restore: Samples,
    own_restore: Samples,
    diff: Samples,
    own_pause: Samples,
}

/// What a figure is called, and where it is kept.
type Figure = (&'static str, fn(&Figures) -> &Samples);

const FIGURES: [Figure; 4] = [
    ("process start to restored guest's first output, ms", |f| {
        &f.restore
    }),
    ("process start to first vCPU entry, its own clock, ms", |f| {
        &f.own_restore
    }),
    (
        "pause, diff snapshot of 64 MiB, resume, seen by the client, ms",
        |f| &f.diff,
    ),
    (
        "guest does not run for a diff snapshot of 64 MiB, its own clock, ms",
        |f| &f.own_pause,
    ),
];

pub fn run(monitors: &[Monitor]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = runtime()?;
    let contender = |monitor: &Monitor| -> Option<Box<dyn Contender>> {
        match monitor {
            Monitor::Hearth(binary) => Some(Box::new(Hearth::new(binary, dir.path(), "hearth"))),
            Monitor::Before(binary) => Some(Box::new(Hearth::new(binary, dir.path(), "before"))),
            Monitor::Firecracker(binary) => Some(Box::new(Firecracker::new(binary, dir.path(), &runtime))),
            Monitor::Qemu(_) => None,
        }
    };
    let mut contenders: Vec<_> = monitors.iter().map(contender).collect();
    let mut figures: Vec<_> = monitors.iter().map(|_| Figures::default()).collect();
    let rounds = runs()?;
    measure(&mut contenders, &mut figures, rounds, diff)?;
    for contender in contenders.iter_mut().flatten() {
        contender.prepare_restore()?;
    }
    measure(&mut contenders, &mut figures, rounds, restore)?;

    println!("\nsnapshots: 1 vCPU, {MEMORY_MIB} MiB, {rounds} runs in turn\n");
    let names: Vec<_> = monitors.iter().map(Monitor::name).collect();
    let rows = FIGURES.map(|(name, pick)| Row {
        name,
        contenders: figures.iter().map(|f| pick(f).clone()).collect(),
    });
    print(&names, &rows);
    Ok(())
}

/// Each contender comes first in turn, and nobody else's guest runs meanwhile. The first round warms the caches and
/// does not count.
fn measure(
    contenders: &mut [Option<Box<dyn Contender>>],
    figures: &mut [Figures],
    rounds: usize,
    one: impl Fn(&mut dyn Contender, &mut Figures) -> Result<()>,
) -> Result<()> {
    for round in 0..=rounds {
        for nth in 0..contenders.len() {
            let nth = (round + nth) % contenders.len();
            let Some(contender) = &mut contenders[nth] else {
                continue;
            };
            let mut scratch = Figures::default();
            let figures = if round > 0 {
                &mut figures[nth]
            } else {
                &mut scratch
            };
            one(contender.as_mut(), figures)?;
        }
    }
    Ok(())
}

fn diff(contender: &mut dyn Contender, figures: &mut Figures) -> Result<()> {
    figures.diff.add(contender.diff()?);
    figures.own_pause.add(contender.own_pause()?);
    Ok(())
}

fn restore(contender: &mut dyn Contender, figures: &mut Figures) -> Result<()> {
    let (restore, own) = contender.restore()?;
    figures.restore.add(restore);
    own.into_iter().for_each(|own| figures.own_restore.add(own));
    Ok(())
}
