//! The same streams and answers with a real Linux as the guest: its kernel's TCP, and busybox's `nc`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::monitors::{Guest, Monitor};
use crate::running::Running;
use crate::stats::{Row, Samples, print};
use crate::streams::{Service, Times, answers, stream};
use crate::wire::{GUEST, Wire, in_a_namespace};

const MEMORY_MIB: u64 = 128;
/// Long, for an emulated KVM moves little.
const TIMES: Times = Times {
    warm_up: Duration::from_secs(1),
    measured: Duration::from_secs(5),
};
const ROWS: [&str; 4] = [
    "host to guest, KiB a second",
    "guest to host, KiB a second",
    "one byte there and back: median, ms",
    "one byte there and back: 99 of 100, ms",
];

/// One boot of each monitor, and all figures from it.
pub fn run(monitors: &[Monitor]) -> Result<()> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .with_context(|| format!("{name} is not set"))
    };
    let (kernel, initrd) = (variable("HEARTH_KERNEL")?, variable("HEARTH_SHELL")?);
    let cmdline = std::env::var("HEARTH_CMDLINE").context("HEARTH_CMDLINE")?;
    let dir = tempfile::tempdir()?;
    let figures = in_a_namespace(|| {
        let measure = |monitor: &Monitor| {
            measure(monitor, dir.path(), &kernel, &initrd, &cmdline)
                .with_context(|| format!("{}: Linux's network", monitor.name()))
        };
        monitors
            .iter()
            .map(measure)
            .collect::<Result<Vec<[Samples; ROWS.len()]>>>()
    })?;
    println!("\nTCP, 1 vCPU, Linux and busybox's nc, one boot each");
    println!(
        "(where KVM interprets the guest's kernel, these rows show the interpreter and not the monitors)\n"
    );
    let names: Vec<_> = monitors.iter().map(Monitor::name).collect();
    let row = |(nth, name): (usize, &'static str)| Row {
        name,
        contenders: figures.iter().map(|figures| figures[nth].clone()).collect(),
    };
    print(&names, &ROWS.into_iter().enumerate().map(row).collect::<Vec<_>>());
    Ok(())
}

fn measure(
    monitor: &Monitor,
    dir: &Path,
    kernel: &Path,
    initrd: &Path,
    cmdline: &str,
) -> Result<[Samples; ROWS.len()]> {
    let wire = Wire::new()?;
    let guest = Guest {
        kernel,
        initrd: Some(initrd),
        cmdline,
        memory_mib: MEMORY_MIB,
        vcpus: 1,
        disk: None,
        tap: Some(wire.name()),
    };
    let (mut running, mut keys) = Running::start_with_keys(&mut monitor.command(dir, &guest)?)?;
    wait_for(&mut running, "ready")?;
    // Lines of images/shell/init: a number, and a command.
    let commands = format!(
        "1 ip link set eth0 up; ip addr add {GUEST}/24 dev eth0\n\
         2 nc -l -p 9 >/dev/null & nc -l -p 19 </dev/zero & nc -l -p 7 -e cat & sleep 1\n\
         3 echo listening\n"
    );
    keys.write_all(commands.as_bytes())?;
    wait_for(&mut running, "listening")?;
    let mut figures: [Samples; ROWS.len()] = Default::default();
    let answers = answers(&wire, &running, TIMES)?;
    figures[2].add(answers.median / 1000.0);
    figures[3].add(answers.late / 1000.0);
    figures[0].add(stream(&wire, &running, Service::Discard, TIMES)?.rate * 1024.0);
    figures[1].add(stream(&wire, &running, Service::Generate, TIMES)?.rate * 1024.0);
    Ok(figures)
}

fn wait_for(running: &mut Running, text: &str) -> Result<()> {
    while let Some(line) = running.next_line()? {
        if line.ends_with(text) {
            return Ok(());
        }
    }
    bail!("the monitor ended before its guest said {text:?}")
}
