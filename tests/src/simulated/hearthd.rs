//! A `hearthd` process without real hosts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hearth_api::client::Client;

/// How long it may take to be ready: it reads all of its state.
const READY: Duration = Duration::from_secs(120);

/// Killed when dropped.
pub struct Hearthd {
    child: Option<Child>,
    program: PathBuf,
    arguments: Vec<String>,
    dir: PathBuf,
    /// Where agents dial: the same after a restart.
    agent_listen: String,
}

impl Hearthd {
    /// Starts `program` on the data directory `controller` in `dir`, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(program: &Path, dir: &Path, arguments: &[&str]) -> Result<Self> {
        let mut hearthd = Self {
            child: None,
            program: program.to_owned(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            dir: dir.to_owned(),
            agent_listen: "127.0.0.1:0".to_owned(),
        };
        hearthd.restart().await?;
        Ok(hearthd)
    }

    /// Starts it, again after [`Hearthd::kill`]. Answers how long it took to be ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time.
    pub async fn restart(&mut self) -> Result<Duration> {
        let endpoints = self.data_dir().join("endpoints.json");
        match std::fs::remove_file(&endpoints) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let began = Instant::now();
        // It does not outlive a test that is killed.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .env("HEARTH_REQUEST_RATE_PERCENT", "0")
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--socket")
            .arg(self.dir.join("api.sock"))
            .args(["--agent-listen", &self.agent_listen])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        while !endpoints.exists() {
            let ended = child.try_wait()?;
            ensure!(ended.is_none(), "hearthd ended: {ended:?}\n{}", self.log_tail());
            ensure!(
                began.elapsed() < READY,
                "hearthd is not ready\n{}",
                self.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = began.elapsed();
        self.child = Some(child);
        let said: serde_json::Value = serde_json::from_slice(&std::fs::read(&endpoints)?)?;
        let address = said["agent_listen"].as_str().context("agent_listen")?;
        self.agent_listen = address.to_owned();
        Ok(took)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// # Errors
    /// It does not listen.
    pub async fn client(&self) -> Result<Client> {
        let endpoint = format!("unix:{}", self.dir.join("api.sock").display());
        Ok(Client::connect(&endpoint).await?)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("controller")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("hearthd.log")
    }

    /// The end of what it has logged, for a failure's message.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Hearthd {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("hearthd goes on: {error:#}");
        }
    }
}
