//! Snapshots: from a process's start to the restored guest's first output, and how long a diff snapshot keeps
//! the guest from running.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use hearth_vmm::control::Client;
use hearth_vmm::snapshot::Kind;

use crate::boot::runs;
use crate::firecracker::Api;
use crate::hearth::{self, Snapshot};
use crate::monitors::{Guest, Monitor, firecracker_config};
use crate::running::Running;
use crate::stats::{Row, Samples, print};
use crate::stub;

const MEMORY_MIB: u64 = 128;
/// Outputs to wait for until all of the guest's pages are dirty again: the first may be old, and the second belong to
/// a round that had begun before.
const ROUNDS: usize = 3;

#[derive(Default)]
struct Figures {
    restore: Samples,
    diff: Samples,
}

pub fn run(monitors: &[Monitor]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut figures = Vec::new();
    for monitor in monitors {
        figures.push(match monitor {
            Monitor::Firecracker(binary) => of_firecracker(binary, dir.path())?,
            Monitor::Hearth(binary) => of_hearth(binary, dir.path())?,
            Monitor::Qemu(_) => Figures::default(),
        });
    }
    println!("\nsnapshots: 1 vCPU, {MEMORY_MIB} MiB, {} runs\n", runs()?);
    let names: Vec<_> = monitors.iter().map(Monitor::name).collect();
    let row = |name, pick: fn(&Figures) -> &Samples| Row {
        name,
        contenders: figures.iter().map(|f| pick(f).clone()).collect(),
    };
    print(
        &names,
        &[
            row("process start to restored guest's first output, ms", |f| {
                &f.restore
            }),
            row("diff snapshot of 64 MiB, guest does not run, ms", |f| &f.diff),
        ],
    );
    Ok(())
}

fn of_hearth(binary: &Path, dir: &Path) -> Result<Figures> {
    let file = |name: &str| -> PathBuf { dir.join(format!("hearth-{name}")) };
    let start = |code: &[u8]| -> Result<(Running, Client)> {
        let kernel = file("stub");
        std::fs::write(&kernel, stub::elf(code))?;
        let (mut running, client) = hearth::start(binary, dir, &kernel, None, MEMORY_MIB)?;
        running.wait_for_output()?;
        Ok((running, client))
    };
    let full = Kind::Full { track: true };
    let mut figures = Figures::default();

    let (mut running, mut client) = start(stub::DIRTIER)?;
    hearth::snapshot(&mut client, full, &file("state"), &file("memory"))?;
    for _ in 0..runs()? {
        for _ in 0..ROUNDS {
            running.wait_for_output()?;
        }
        let taken = hearth::snapshot(&mut client, Kind::Diff, &file("diff-state"), &file("diff-memory"))?;
        // The answer comes when the files are on the disk; the guest runs again before.
        figures.diff.add(taken.paused_micros as f64 / 1000.0);
    }
    drop((running, client));

    let (running, mut client) = start(stub::TICKER)?;
    let (state, memory) = (file("state"), file("memory"));
    hearth::snapshot(&mut client, full, &state, &memory)?;
    drop((running, client));
    let snapshot = Snapshot {
        state: &state,
        memory: &memory,
    };
    for _ in 0..runs()? {
        let begin = Instant::now();
        let (mut running, _client) = hearth::start(binary, dir, &file("stub"), Some(&snapshot), MEMORY_MIB)?;
        running.wait_for_output()?;
        figures.restore.add(begin.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(figures)
}

fn of_firecracker(binary: &Path, dir: &Path) -> Result<Figures> {
    let file = |name: &str| -> PathBuf { dir.join(format!("firecracker-{name}")) };
    let socket = file("socket");
    let start = |code: &[u8]| -> Result<(Running, Api)> {
        let kernel = file("stub");
        std::fs::write(&kernel, stub::elf(code))?;
        let guest = Guest {
            kernel: &kernel,
            initrd: None,
            cmdline: "",
            memory_mib: MEMORY_MIB,
            vcpus: 1,
            disk: None,
            tap: None,
        };
        let mut config = firecracker_config(&guest);
        config["machine-config"]["track_dirty_pages"] = true.into();
        std::fs::write(file("config"), config.to_string())?;
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(binary);
        command.arg("--enable-pci").arg("--api-sock").arg(&socket);
        let mut running = Running::start(command.arg("--config-file").arg(file("config")))?;
        let api = Api::connect(&socket)?;
        running.wait_for_output()?;
        Ok((running, api))
    };
    let mut figures = Figures::default();

    let (mut running, mut api) = start(stub::DIRTIER)?;
    api.pause()?;
    api.create_snapshot("Full", &file("state"), &file("memory"))?;
    api.resume()?;
    for _ in 0..runs()? {
        for _ in 0..ROUNDS {
            running.wait_for_output()?;
        }
        let begin = Instant::now();
        api.pause()?;
        api.create_snapshot("Diff", &file("diff-state"), &file("diff-memory"))?;
        api.resume()?;
        figures.diff.add(begin.elapsed().as_secs_f64() * 1000.0);
        std::fs::remove_file(file("diff-memory"))?;
    }
    drop((running, api));

    let (running, mut api) = start(stub::TICKER)?;
    api.pause()?;
    api.create_snapshot("Full", &file("state"), &file("memory"))?;
    drop((running, api));
    for _ in 0..runs()? {
        let _ = std::fs::remove_file(&socket);
        let begin = Instant::now();
        let mut command = Command::new(binary);
        let mut running = Running::start(command.arg("--enable-pci").arg("--api-sock").arg(&socket))?;
        Api::connect(&socket)?.load_snapshot(&file("state"), &file("memory"))?;
        running.wait_for_output()?;
        figures.restore.add(begin.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(figures)
}
