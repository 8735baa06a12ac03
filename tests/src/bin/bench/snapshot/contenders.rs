//! hearth-vmm and Firecracker, each asked for snapshots in its own way.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use command_fds::CommandFdExt;
use hearth_vmm::control::{Client, Reply, Request};
use hearth_vmm::snapshot::Kind;
use tokio::runtime::Runtime;

use super::MEMORY_MIB;
use crate::firecracker::Api;
use crate::hearth::{self, Snapshot};
use crate::monitors::{Guest, firecracker_config};
use crate::running::Running;
use crate::stub;

/// Outputs to wait for until all of the guest's pages are dirty again: the first may be old, and the second belong to
/// a round that had begun before.
const ROUNDS: usize = 3;

/// A monitor that snapshots can be asked of. Its guest stands still between the calls.
pub trait Contender {
    /// A diff snapshot of the dirtier: milliseconds that a client waits for the pause, the files being on the disk,
    /// and the guest's going on.
    fn diff(&mut self) -> Result<f64>;
    /// Milliseconds for which a diff snapshot of the dirtier keeps it from running, by the monitor's own account.
    fn own_pause(&mut self) -> Result<f64>;
    /// Has a snapshot of the ticker made.
    fn prepare_restore(&mut self) -> Result<()>;
    /// Milliseconds from the process's start to the guest's first output; and by the monitor's own account to the first
    /// entry of a vCPU, if it keeps one.
    fn restore(&mut self) -> Result<(f64, Option<f64>)>;
}

/// Where a contender has its files.
struct Files {
    dir: PathBuf,
    name: &'static str,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}-{name}", self.name))
    }

    fn with_stub(&self, code: &[u8]) -> Result<PathBuf> {
        let path = self.path("stub");
        fs::write(&path, stub::elf(code))?;
        Ok(path)
    }

    /// The state and memory files of a diff, which are not there yet.
    fn diff(&self) -> Result<(PathBuf, PathBuf)> {
        let files = (self.path("diff-state"), self.path("diff-memory"));
        remove(&files.0)?;
        remove(&files.1)?;
        Ok(files)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn millis_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1000.0
}

pub struct Hearth {
    binary: PathBuf,
    files: Files,
    dirtier: Option<(Running, Client)>,
}

impl Hearth {
    /// `name` begins the names of its files: two builds of ours have their own.
    pub fn new(binary: &Path, dir: &Path, name: &'static str) -> Self {
        let files = Files {
            dir: dir.to_owned(),
            name,
        };
        Self {
            binary: binary.to_owned(),
            files,
            dirtier: None,
        }
    }

    /// A machine of which there is a full snapshot, and that is paused.
    fn start(&self, code: &[u8]) -> Result<(Running, Client)> {
        let kernel = self.files.with_stub(code)?;
        let (mut running, mut client) =
            hearth::start(&self.binary, &self.files.dir, &kernel, None, MEMORY_MIB)?;
        running.wait_for_output()?;
        ask(&mut client, &Request::Pause)?;
        let full = Kind::Full { track: true };
        hearth::snapshot(
            &mut client,
            full,
            &self.files.path("state"),
            &self.files.path("memory"),
        )?;
        Ok((running, client))
    }

    /// The dirtier with all its pages dirty, running.
    fn dirty(&mut self) -> Result<&mut Client> {
        if self.dirtier.is_none() {
            self.dirtier = Some(self.start(stub::DIRTIER)?);
        }
        let (running, client) = self.dirtier.as_mut().context("it has not started")?;
        ask(client, &Request::Resume)?;
        for _ in 0..ROUNDS {
            running.wait_for_output()?;
        }
        Ok(client)
    }
}

fn ask(client: &mut Client, request: &Request) -> Result<()> {
    match client.request(request)? {
        Reply::Ok => Ok(()),
        other => bail!("{request:?}: {other:?}"),
    }
}

impl Contender for Hearth {
    fn diff(&mut self) -> Result<f64> {
        let (state, memory) = self.files.diff()?;
        let client = self.dirty()?;
        let begin = Instant::now();
        ask(client, &Request::Pause)?;
        hearth::snapshot(client, Kind::Diff, &state, &memory)?;
        ask(client, &Request::Resume)?;
        let elapsed = millis_since(begin);
        ask(client, &Request::Pause)?;
        Ok(elapsed)
    }

    fn own_pause(&mut self) -> Result<f64> {
        let (state, memory) = self.files.diff()?;
        let client = self.dirty()?;
        let taken = hearth::snapshot(client, Kind::Diff, &state, &memory)?;
        ask(client, &Request::Pause)?;
        Ok(taken.paused_micros as f64 / 1000.0)
    }

    fn prepare_restore(&mut self) -> Result<()> {
        self.dirtier = None;
        self.start(stub::TICKER).map(drop)
    }

    fn restore(&mut self) -> Result<(f64, Option<f64>)> {
        let snapshot = Snapshot {
            state: &self.files.path("state"),
            memory: &self.files.path("memory"),
        };
        let kernel = self.files.path("stub");
        let (mut running, mut client) = hearth::start(
            &self.binary,
            &self.files.dir,
            &kernel,
            Some(&snapshot),
            MEMORY_MIB,
        )?;
        // Its snapshot was made of a paused machine, and a restored one runs.
        running.wait_for_output()?;
        let elapsed = running.age();
        match client.request(&Request::Status)? {
            Reply::Status(status) => Ok((elapsed, Some(status.first_entry_micros as f64 / 1000.0))),
            other => bail!("instead of a status: {other:?}"),
        }
    }
}

pub struct Firecracker {
    binary: PathBuf,
    files: Files,
    runtime: Arc<Runtime>,
    dirtier: Option<(Running, Api)>,
    /// Milliseconds that it was paused for the diff before.
    paused: f64,
}

impl Firecracker {
    pub fn new(binary: &Path, dir: &Path, runtime: &Arc<Runtime>) -> Self {
        let files = Files {
            dir: dir.to_owned(),
            name: "firecracker",
        };
        Self {
            binary: binary.to_owned(),
            files,
            runtime: Arc::clone(runtime),
            dirtier: None,
            paused: 0.0,
        }
    }

    /// The command that starts it, with an empty log and no socket there.
    fn command(&self) -> Result<Command> {
        let (socket, log) = (self.files.path("socket"), self.files.path("log"));
        remove(&socket)?;
        fs::write(&log, "")?;
        let mut command = Command::new(&self.binary);
        command.arg("--enable-pci").arg("--api-sock").arg(socket);
        command.arg("--log-path").arg(log).args(["--level", "Info"]);
        // So that both are forked in the same way.
        command.fd_mappings(Vec::new())?;
        Ok(command)
    }

    fn connect(&self) -> Result<Api> {
        Api::connect(&self.files.path("socket"), &self.runtime)
    }

    /// Milliseconds that its log says it has taken for the last one of each of these actions.
    fn logged(&self, actions: &[&str]) -> Result<f64> {
        let log = fs::read_to_string(self.files.path("log"))?;
        let micros = |action: &&str| -> Result<f64> {
            let begin = format!("'{action}' VMM action took ");
            let (_, rest) = log
                .rsplit_once(&begin)
                .with_context(|| format!("no {action} in its log"))?;
            let number = rest.split(' ').next().context("no number")?;
            Ok(number.parse()?)
        };
        Ok(actions.iter().map(micros).sum::<Result<f64>>()? / 1000.0)
    }

    fn start(&self, code: &[u8]) -> Result<(Running, Api)> {
        let guest = Guest {
            kernel: &self.files.with_stub(code)?,
            initrd: None,
            cmdline: "",
            memory_mib: MEMORY_MIB,
            vcpus: 1,
            disk: None,
            tap: None,
        };
        let mut config = firecracker_config(&guest);
        config["machine-config"]["track_dirty_pages"] = true.into();
        let config_file = self.files.path("config");
        fs::write(&config_file, config.to_string())?;
        let mut running = Running::start(self.command()?.arg("--config-file").arg(config_file))?;
        let mut api = self.connect()?;
        running.wait_for_output()?;
        api.pause()?;
        api.create_snapshot("Full", &self.files.path("state"), &self.files.path("memory"))?;
        Ok((running, api))
    }
}

impl Contender for Firecracker {
    fn diff(&mut self) -> Result<f64> {
        if self.dirtier.is_none() {
            self.dirtier = Some(self.start(stub::DIRTIER)?);
        }
        let (state, memory) = self.files.diff()?;
        let (running, api) = self.dirtier.as_mut().context("it has not started")?;
        api.resume()?;
        for _ in 0..ROUNDS {
            running.wait_for_output()?;
        }
        let begin = Instant::now();
        api.pause()?;
        api.create_snapshot("Diff", &state, &memory)?;
        api.resume()?;
        let elapsed = millis_since(begin);
        self.paused = self.logged(&["pause vm", "create diff snapshot", "resume vm"])?;
        let (_, api) = self.dirtier.as_mut().context("it has not started")?;
        api.pause()?;
        Ok(elapsed)
    }

    /// Of the diff before: it has no other way to make one.
    fn own_pause(&mut self) -> Result<f64> {
        ensure!(self.paused > 0.0, "there was no diff before");
        Ok(self.paused)
    }

    fn prepare_restore(&mut self) -> Result<()> {
        self.dirtier = None;
        self.start(stub::TICKER).map(drop)
    }

    fn restore(&mut self) -> Result<(f64, Option<f64>)> {
        let mut running = Running::start(&mut self.command()?)?;
        let mut api = self.connect()?;
        api.load_snapshot(&self.files.path("state"), &self.files.path("memory"))?;
        running.wait_for_output()?;
        Ok((running.age(), None))
    }
}
