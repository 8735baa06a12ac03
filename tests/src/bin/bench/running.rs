//! A monitor while it runs, and what its guest prints.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// How hearth-vmm, Firecracker and QEMU call their vCPUs' threads.
const VCPU_NAMES: [&str; 3] = ["vcpu", "fc_vcpu", "CPU "];
/// A monitor that is ended with its owner, and its guest's output.
pub struct Running {
    child: Child,
    output: Box<dyn Read>,
    begun: Instant,
}

impl Running {
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::start_with(command, Stdio::null())
    }

    /// With what the guest's serial console receives.
    pub fn start_with_keys(command: &mut Command) -> Result<(Self, ChildStdin)> {
        let mut running = Self::start_with(command, Stdio::piped())?;
        let keys = running.child.stdin.take().context("stdin")?;
        Ok((running, keys))
    }

    fn start_with(command: &mut Command, keys: Stdio) -> Result<Self> {
        command.stdin(keys).stdout(Stdio::piped()).stderr(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let output = child.stdout.take().context("stdout")?;
        Ok(Self::new(child, output, begun))
    }

    /// A monitor, started at `begun`, whose guest's output comes elsewhere.
    pub fn new(child: Child, output: impl Read + 'static, begun: Instant) -> Self {
        Self {
            child,
            output: Box::new(output),
            begun,
        }
    }

    /// Milliseconds since the process was started.
    pub fn age(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() * 1000.0
    }

    /// Waits until the guest has said `!` once more than what had been read before.
    pub fn wait_for_output(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let n = self.output.read(&mut buffer)?;
            ensure!(n > 0, "the monitor ended");
            if buffer[..n].contains(&b'!') {
                return Ok(());
            }
        }
    }
}

impl Running {
    /// The next line that the guest prints; `None` at the monitor's end.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte)? > 0 {
            if byte[0] == b'\n' {
                return Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()));
            }
            line.push(byte[0]);
        }
        Ok(None)
    }

    /// Seconds of processor time that the monitor's threads have taken, but for its vCPUs', which run the guest, and
    /// for those that have ended. To the nanosecond, unlike the ticks of a process's times.
    pub fn cpu_without_vcpus(&self) -> Result<f64> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let mut nanos = 0;
        for task in std::fs::read_dir(process.join("task"))? {
            let task = task?.path();
            let (Ok(name), Ok(schedstat)) = (
                std::fs::read_to_string(task.join("comm")),
                std::fs::read_to_string(task.join("schedstat")),
            ) else {
                continue; // It has ended just now.
            };
            if !VCPU_NAMES.iter().any(|prefix| name.starts_with(prefix)) {
                let spent: u64 = schedstat.split(' ').next().context("schedstat")?.parse()?;
                nanos += spent;
            }
        }
        Ok(nanos as f64 / 1e9)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
