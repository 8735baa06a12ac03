//! Process start to the first vCPU entry, to the guest's first line, and what the process costs in memory.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::stats::{Row, Samples, print};
use crate::stub;

const MEMORY_MIB: u64 = 128;
const VCPUS: u32 = 1;
/// What images/initrd's init says first.
const FIRST_LINE: &[u8] = b"hearth-init: first line";

/// A monitor that can boot a kernel and an initrd with the serial console on its stdout.
enum Monitor {
    Hearth(PathBuf),
    Firecracker(PathBuf),
}

impl Monitor {
    fn command(&self, dir: &Path, kernel: &Path, initrd: Option<&Path>, cmdline: &str) -> Result<Command> {
        match self {
            Self::Hearth(binary) => {
                let mut command = Command::new(binary);
                command
                    .arg("run")
                    .arg("--kernel")
                    .arg(kernel)
                    .args(["--cmdline", cmdline]);
                command.args([
                    "--memory-mib",
                    &MEMORY_MIB.to_string(),
                    "--vcpus",
                    &VCPUS.to_string(),
                ]);
                if let Some(initrd) = initrd {
                    command.arg("--initrd").arg(initrd);
                }
                Ok(command)
            }
            Self::Firecracker(binary) => {
                let config = serde_json::json!({
                    "boot-source": {
                        "kernel_image_path": kernel,
                        "initrd_path": initrd,
                        "boot_args": cmdline,
                    },
                    "drives": [],
                    "machine-config": { "vcpu_count": VCPUS, "mem_size_mib": MEMORY_MIB },
                });
                let file = dir.join("firecracker.json");
                std::fs::write(&file, config.to_string())?;
                let mut command = Command::new(binary);
                command
                    .args(["--no-api", "--enable-pci", "--config-file"])
                    .arg(file);
                Ok(command)
            }
        }
    }

    /// Milliseconds from the process's start until its stdout has said `text`; then `look` at the living process.
    fn time(
        &self,
        mut command: Command,
        text: &[u8],
        look: impl FnOnce(&Child) -> Result<()>,
    ) -> Result<f64> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let result = (|| {
            let mut stdout = child.stdout.take().context("stdout")?;
            let mut said = Vec::new();
            let mut buffer = [0; 4096];
            while !said.windows(text.len()).any(|w| w == text) {
                let n = stdout.read(&mut buffer)?;
                ensure!(
                    n > 0,
                    "{command:?} ended and had said: {}",
                    String::from_utf8_lossy(&said)
                );
                said.extend_from_slice(&buffer[..n]);
            }
            let elapsed = start.elapsed().as_secs_f64() * 1000.0;
            look(&child)?;
            Ok(elapsed)
        })();
        let _ = child.kill();
        let _ = child.wait();
        result
    }
}

/// MiB resident of a process beyond the guest's memory: the run of adjacent mappings that is as large as it.
/// (Advice about huge pages splits one mapping into several.)
fn overhead_mib(pid: u32) -> Result<f64> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    // (end, bytes, resident KiB) of runs of adjacent mappings.
    let mut runs: Vec<(u64, u64, u64)> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        if let Some((start, end)) = key.split_once('-') {
            let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else {
                continue;
            };
            match runs.last_mut() {
                Some(run) if run.0 == start && value == "rw-p" => *run = (end, run.1 + end - start, run.2),
                _ => runs.push((end, end - start, 0)),
            }
        } else if let ("Rss:", Some(run)) = (key, runs.last_mut()) {
            run.2 += value.parse::<u64>()?;
        }
    }
    let guest = runs
        .iter()
        .map(|r| r.1)
        .filter(|size| *size >= MEMORY_MIB << 20)
        .min();
    let kib: u64 = runs.iter().filter(|r| Some(r.1) != guest).map(|r| r.2).sum();
    Ok(kib as f64 / 1024.0)
}

#[derive(Default, Clone)]
struct Figures {
    entry: Samples,
    line: Samples,
    overhead: Samples,
}

pub fn run() -> Result<()> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .with_context(|| format!("{name} is not set"))
    };
    let kernel = variable("HEARTH_KERNEL")?;
    let initrd = variable("HEARTH_INITRD")?;
    let cmdline = std::env::var("HEARTH_CMDLINE").context("HEARTH_CMDLINE")?;
    let runs: usize = std::env::var("HEARTH_BENCH_RUNS").map_or(Ok(7), |n| n.parse())?;

    let mut monitors = vec![Monitor::Hearth(hearth_tests::binary("hearth-vmm")?)];
    if let Some(firecracker) = std::env::var_os("FIRECRACKER") {
        monitors.push(Monitor::Firecracker(firecracker.into()));
    }
    let dir = tempfile::tempdir()?;
    let stub_file = dir.path().join("stub");
    std::fs::write(&stub_file, stub::elf())?;

    let mut figures = vec![Figures::default(); monitors.len()];
    // In turn, so that the machine's moods meet both alike; the first round warms the caches and does not count.
    for round in 0..=runs {
        for (monitor, figures) in monitors.iter().zip(&mut figures) {
            let command = monitor.command(dir.path(), &stub_file, Some(&initrd), &cmdline)?;
            let entry = monitor.time(command, b"!", |_| Ok(()))?;
            let mut overhead = f64::NAN;
            let command = monitor.command(dir.path(), &kernel, Some(&initrd), &cmdline)?;
            let line = monitor.time(command, FIRST_LINE, |child| {
                overhead = overhead_mib(child.id())?;
                Ok(())
            })?;
            if round > 0 {
                figures.entry.add(entry);
                figures.line.add(line);
                figures.overhead.add(overhead);
            }
        }
    }
    println!(
        "\nboot: {VCPUS} vCPU, {MEMORY_MIB} MiB, {runs} runs in turn, same kernel, initrd and command line\n"
    );
    let mut figures = figures.into_iter();
    let Some(ours) = figures.next() else {
        bail!("no figures")
    };
    let peer = figures.next();
    let row = |name, pick: fn(&Figures) -> &Samples| Row {
        name,
        ours: pick(&ours).clone(),
        peer: peer.as_ref().map(|p| pick(p).clone()),
    };
    print(
        "Firecracker (PCI)",
        &[
            row("process start to first vCPU entry, ms", |f| &f.entry),
            row("process start to guest's first line, ms", |f| &f.line),
            row("resident beyond guest memory, MiB", |f| &f.overhead),
        ],
    );
    if peer.is_none() {
        println!("set FIRECRACKER to its binary for a comparison");
    }
    Ok(())
}
