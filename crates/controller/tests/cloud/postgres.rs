//! A PostgreSQL server of a test's own: in a directory of its own, on a Unix socket, as a user who may do nothing else.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// `nobody`: the server refuses to run as root.
const NOBODY: u32 = 65534;

pub struct Postgres {
    dir: TempDir,
    programs: PathBuf,
    server: Option<Child>,
    durable: bool,
}

impl Postgres {
    /// `None`, loudly, where PostgreSQL is not installed. What it has acknowledged does not survive a power cut.
    pub fn start(test: &str) -> Option<Self> {
        Self::new(test, false)
    }

    /// As it is in production: for figures.
    #[allow(dead_code)] // not used by each of the programs that this file is part of
    pub fn durable(test: &str) -> Option<Self> {
        Self::new(test, true)
    }

    fn new(test: &str, durable: bool) -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("SKIPPED: {test}: PostgreSQL is absent; install postgresql");
            return None;
        };
        let dir = TempDir::with_prefix("postgres-").unwrap();
        if is_root() {
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut postgres = Self {
            dir,
            programs,
            server: None,
            durable,
        };
        let made = postgres
            .command("initdb")
            .args([
                "--username=hearth",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .arg("-D")
            .arg(postgres.data())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        postgres.run();
        Some(postgres)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn url(&self) -> String {
        format!(
            "postgres:///postgres?host={}&user=hearth",
            self.dir.path().display()
        )
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.dir.path());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Starts the server, and waits until it answers.
    pub fn run(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let fsync = if self.durable { "fsync=on" } else { "fsync=off" };
        let server = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.dir.path())
            .args(["-c", "listen_addresses=", "-c", "max_connections=50", "-c", fsync])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
        let until = Instant::now() + Duration::from_secs(30);
        while self.sql("SELECT 1").is_none() {
            assert!(
                Instant::now() < until,
                "PostgreSQL does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends the server with all of its connections, at once and without a checkpoint: the next start recovers.
    #[allow(dead_code)] // not used by each of the programs that this file is part of
    pub fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        signal(server.id(), "-QUIT");
        server.wait().unwrap();
    }

    /// What a statement answers; `None` for one that fails.
    pub fn sql(&self, statement: &str) -> Option<String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet"])
            .args(["-v", "ON_ERROR_STOP=1"])
            .arg(self.url())
            .args(["-c", statement])
            .output()
            .unwrap();
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(answer)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // At once, and its children too.
            signal(server.id(), "-QUIT");
            let _ = server.wait();
        }
    }
}

fn signal(pid: u32, signal: &str) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).status();
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Where the newest PostgreSQL's programs are.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = Path::new("/usr/lib/postgresql")
        .read_dir()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|programs| programs.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}
