//! The jail, tried from inside by `hearth-vmm probe-jail` in a cell as monitors get it, and looked at from outside.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use hearth_agent::jail::cgroup::Limits;
use hearth_agent::jail::{Cell, Jail, Settings, demolish};
use hearth_agent::paths::DataDir;
use hearth_vmm::jail::Role;

/// What a filter forbids to every thread, and what becomes of it where there is only the empty root without
/// privileges: empty where that is no wall.
const ATTEMPTS: [(&str, &str); 17] = [
    ("open-file", "No such file"),
    ("open-device", "No such file"),
    ("list-root", "0 entries"),
    ("climb", "0 entries"),
    ("write-file", "Read-only file system"),
    ("see-processes", "No such file"),
    ("signal-processes", "No such process"),
    ("inet-socket", "Network is unreachable"),
    ("unix-socket", ""),
    ("execute", "No such file"),
    ("fork", ""),
    ("trace", ""),
    ("mount", "not permitted"),
    ("become-root", "not permitted"),
    ("user-namespace", ""),
    ("executable-memory", ""),
    ("load-bpf", "not permitted"),
];

/// A jail of the test's own; nothing of it is left when it is dropped.
struct Prison {
    jail: Jail,
    settings: Settings,
    dir: DataDir,
    monitor: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Prison {
    fn new(test: &str, pin_vcpus: bool) -> Option<Prison> {
        let monitor = Path::new(env!("CARGO_BIN_EXE_hearth-agent")).with_file_name("hearth-vmm");
        if !rustix::process::geteuid().is_root() || !monitor.exists() {
            eprintln!("SKIPPED: {test}: needs root, and hearth-vmm (cargo build -p hearth-vmm)");
            return None;
        }
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::create(&temporary.path().join("agent")).unwrap();
        let settings = Settings {
            uids: "1899999000-1899999999".parse().unwrap(),
            cgroup: format!("hearth-test-{}", std::process::id()),
            pin_vcpus,
        };
        Some(Prison {
            jail: Jail::new(&settings, &dir),
            settings,
            dir,
            monitor,
            _temporary: temporary,
        })
    }

    fn cell(&self, id: &str) -> Cell {
        self.jail.cell(id, &Limits::of(1, 64)).unwrap()
    }

    fn command(&self, cell: &Cell, attempt: &str, role: Option<&str>) -> Command {
        let mut command = Command::new(&self.monitor);
        command
            .args([
                "probe-jail",
                "--jail",
                &cell.uid().to_string(),
                "--attempt",
                attempt,
            ])
            .args(role.iter().flat_map(|role| ["--role", role]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    fn spawn(&self, cell: &Cell, attempt: &str, role: Option<&str>) -> Child {
        cell.spawn(&mut self.command(cell, attempt, role)).unwrap()
    }

    fn attempt(&self, cell: &Cell, attempt: &str, role: Option<&str>) -> (ExitStatus, String) {
        let output = self.spawn(cell, attempt, role).wait_with_output().unwrap();
        (output.status, String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Prison {
    fn drop(&mut self) {
        demolish(&self.settings.cgroup, &self.dir);
    }
}

#[test]
fn nothing_is_in_reach_and_the_filter_kills_who_reaches() {
    let Some(prison) = Prison::new("nothing_is_in_reach", false) else {
        return;
    };
    let cell = prison.cell("i-1");
    for (attempt, wall) in ATTEMPTS {
        let (status, said) = prison.attempt(&cell, attempt, None);
        assert!(
            status.success() && said.contains(wall),
            "{attempt}: {status}: {said}"
        );
        for role in Role::EXPOSED.map(Role::name) {
            // A guest's connections to sockets of its directory are its business.
            if (attempt, role.as_str()) == ("unix-socket", "vsock") {
                continue;
            }
            let (status, said) = prison.attempt(&cell, attempt, Some(&role));
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{attempt} as {role}: {said}");
        }
    }
}

/// A mount of a directory upon itself that is shared, as all mounts are where systemd runs.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Self {
        let shared = Self(tempfile::tempdir().unwrap());
        for arguments in [&["--bind", "."][..], &["--make-shared"]] {
            let mut mount = Command::new("mount");
            let status = mount
                .args(arguments)
                .arg(shared.path())
                .current_dir(shared.path())
                .status();
            assert!(status.unwrap().success());
        }
        shared
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// As a monitor has it whose guest's vsock connections go to the sockets of a directory.
#[test]
fn a_directory_that_is_handed_over_is_all_there_is() {
    let Some(prison) = Prison::new("a_directory_that_is_handed_over", false) else {
        return;
    };
    let cell = prison.cell("i-1");
    let directory = Shared::new();
    std::fs::write(directory.path().join("file"), "").unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    for (attempt, wall) in [
        ("list-root", "1 entries"),
        ("climb", "1 entries"),
        ("open-file", "No such file"),
        ("write-file", "Read-only file system"),
    ] {
        let mut command = prison.command(&cell, attempt, None);
        command.arg("--directory").arg(directory.path());
        let output = cell.spawn(&mut command).unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(wall), "{attempt}: {output:?}");
    }
}

#[test]
fn two_monitors_share_nothing_with_each_other_or_the_host() {
    let Some(prison) = Prison::new("two_monitors_share_nothing", false) else {
        return;
    };
    let cells = [prison.cell("i-1"), prison.cell("i-2")];
    assert_ne!(cells[0].uid(), cells[1].uid());
    let mut children: Vec<Child> = Vec::new();
    for cell in &cells {
        children.push(prison.spawn(cell, "stay", Some("control")));
    }
    let statuses: Vec<String> = children.iter().map(|child| until_filtered(child.id())).collect();
    for ((child, cell), status) in children.iter().zip(&cells).zip(&statuses) {
        let uid = cell.uid();
        let ids = format!("\t{uid}\t{uid}\t{uid}\t{uid}");
        for (field, value) in [
            ("Uid", ids.as_str()),
            ("Gid", &ids),
            ("Groups", "\t "),
            ("NSpid", &format!("\t{}\t1", child.id())),
            ("CapInh", "\t0000000000000000"),
            ("CapPrm", "\t0000000000000000"),
            ("CapEff", "\t0000000000000000"),
            ("CapBnd", "\t0000000000000000"),
            ("CapAmb", "\t0000000000000000"),
            ("NoNewPrivs", "\t1"),
            ("Seccomp", "\t2"),
            ("CoreDumping", "\t0"),
        ] {
            assert_eq!(of(status, field), Some(value), "{field} in\n{status}");
        }
        let proc = format!("/proc/{}", child.id());
        for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
            let ours = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
            let theirs = children
                .iter()
                .map(|child| std::fs::read_link(format!("/proc/{}/ns/{namespace}", child.id())).unwrap());
            assert!(theirs.clone().all(|theirs| theirs != ours), "{namespace}");
            let [one, other] = theirs.collect::<Vec<_>>().try_into().unwrap();
            assert_ne!(one, other, "{namespace}");
        }
        let mounts = std::fs::read_to_string(format!("{proc}/mountinfo")).unwrap();
        assert!(
            mounts.lines().count() == 1 && mounts.contains(" / / ro,"),
            "{mounts}"
        );
        assert_eq!(std::fs::read_dir(format!("{proc}/root/")).unwrap().count(), 0);
        let interfaces = std::fs::read_to_string(format!("{proc}/net/dev")).unwrap();
        assert_eq!(
            interfaces.lines().count(),
            3,
            "a header of two lines and lo:\n{interfaces}"
        );
        // Standard input, output and error, and the lock of the user is not among them.
        assert_eq!(std::fs::read_dir(format!("{proc}/fd")).unwrap().count(), 3);
        let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{limits}");
        for dir in cell.cgroups() {
            let inside = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap();
            assert_eq!(inside.trim(), child.id().to_string(), "{}", dir.display());
        }
    }
    for mut child in children {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn who_takes_too_much_memory_is_killed() {
    let Some(prison) = Prison::new("who_takes_too_much_memory", false) else {
        return;
    };
    let limits = Limits {
        memory: 48 << 20,
        ..Limits::of(1, 64)
    };
    let cell = prison.jail.cell("i-1", &limits).unwrap();
    if !has(&cell, ["memory.max", "memory.limit_in_bytes"]) {
        eprintln!("SKIPPED: who_takes_too_much_memory_is_killed: no cgroup controller for memory");
        return;
    }
    let (status, said) = prison.attempt(&cell, "take-memory", None);
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{said}");
}

#[test]
fn who_takes_too_much_cpu_waits() {
    let Some(prison) = Prison::new("who_takes_too_much_cpu", false) else {
        return;
    };
    // A tenth of one CPU.
    let limits = Limits {
        cpu_quota: 10_000,
        ..Limits::of(1, 64)
    };
    let cell = prison.jail.cell("i-1", &limits).unwrap();
    if !has(&cell, ["cpu.max", "cpu.cfs_quota_us"]) {
        eprintln!("SKIPPED: who_takes_too_much_cpu_waits: no cgroup controller for CPU time");
        return;
    }
    let (status, said) = prison.attempt(&cell, "burn-cpu", None);
    assert!(status.success());
    let millis: u64 = said.trim().parse().unwrap();
    let stat = cell
        .cgroups()
        .filter_map(|dir| std::fs::read_to_string(dir.join("cpu.stat")).ok())
        .find(|stat| stat.contains("nr_periods"))
        .unwrap();
    let counted = |name: &str| -> u64 {
        let line = stat.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    // Each of its two threads may keep a slice of 5 ms from one period to the next. Without a limit it has up to 200 ms in
    // each period. On a busy host a second of its clock is many more periods than ten.
    let periods = counted("nr_periods ");
    assert!(
        millis <= (periods + 1) * (10 + 2 * 5),
        "{millis} ms of processor time in {periods} periods"
    );
    assert!(counted("nr_throttled ") > 0);
}

#[test]
fn a_file_grows_no_longer_than_the_largest_that_is_its_own() {
    let Some(prison) = Prison::new("a_file_grows_no_longer", false) else {
        return;
    };
    let try_with = |file: u64| {
        let mut cell = prison.cell("i-1");
        // Also where the agent may not raise limits, and so sets none.
        cell.largest_file = file;
        let log = tempfile::tempfile().unwrap();
        let mut command = prison.command(&cell, "grow-file", Some("block"));
        let child = cell.spawn(command.stderr(log.try_clone().unwrap())).unwrap();
        let output = child.wait_with_output().unwrap();
        // It is told, and lives.
        assert!(output.status.success(), "{:?}", output.status);
        let said = String::from_utf8(output.stdout).unwrap();
        (said, log.metadata().unwrap().len())
    };
    let (said, len) = try_with(1 << 30);
    assert!(said.contains("File too large") && len == 0, "{said}: {len} bytes");
    let (said, len) = try_with((1 << 30) + 1);
    assert!(
        said.contains("1 byte written") && len == (1 << 30) + 1,
        "{said}: {len} bytes"
    );
}

#[test]
fn vcpus_are_pinned_to_the_least_used_cpus() {
    let Some(prison) = Prison::new("vcpus_are_pinned", true) else {
        return;
    };
    let limits = Limits::of(1, 64);
    let Ok(first) = prison.jail.cell("i-1", &limits) else {
        eprintln!("SKIPPED: vcpus_are_pinned_to_the_least_used_cpus: no cgroup controller for CPU sets");
        return;
    };
    let second = prison.jail.cell("i-2", &limits).unwrap();
    assert_eq!((first.cpus.len(), second.cpus.len()), (1, 1));
    if std::thread::available_parallelism().unwrap().get() > 1 {
        assert_ne!(first.cpus, second.cpus);
    }
    let mut child = prison.spawn(&first, "stay", Some("control"));
    let status = until_filtered(child.id());
    assert_eq!(
        of(&status, "Cpus_allowed_list"),
        Some(format!("\t{}", first.cpus[0]).as_str())
    );
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn what_is_vacated_is_gone() {
    let Some(prison) = Prison::new("what_is_vacated_is_gone", false) else {
        return;
    };
    let cell = prison.cell("i-1");
    let dirs: Vec<PathBuf> = cell.cgroups().map(Path::to_owned).collect();
    let mut child = prison.spawn(&cell, "stay", None);
    prison.jail.vacate("i-1");
    assert!(dirs.iter().all(|dir| dir.exists()), "who lives there stays");
    drop(child.stdin.take());
    child.wait().unwrap();
    prison.jail.vacate("i-1");
    assert!(!dirs.iter().any(|dir| dir.exists()));
    drop(cell);
    let above: Vec<PathBuf> = dirs
        .iter()
        .map(|dir| dir.ancestors().nth(2).unwrap().to_owned())
        .collect();
    drop(prison);
    assert!(!above.iter().any(|dir| dir.exists()), "{above:?}");
}

/// The status of a process once it is under its second filter.
fn until_filtered(pid: u32) -> String {
    loop {
        let mut status = String::new();
        let mut file = std::fs::File::open(format!("/proc/{pid}/status")).unwrap();
        file.read_to_string(&mut status).unwrap();
        if of(&status, "Seccomp_filters").is_some_and(|count| count == "\t2") {
            return status;
        }
        assert!(!status.contains("(zombie)"), "{status}");
        std::thread::yield_now();
    }
}

fn of<'a>(status: &'a str, field: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
}

fn has(cell: &Cell, files: [&str; 2]) -> bool {
    cell.cgroups()
        .any(|dir| files.iter().any(|file| dir.join(file).exists()))
}
