//! A monitor with its guest, as tests hold it: killed when dropped.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod vsock;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hearth_vmm::console;
use hearth_vmm::control::{Client, Event, Reply, Request, SnapshotRequest};
use hearth_vmm::cpu::CpuSpec;
use hearth_vmm::snapshot::Kind;
use hearth_vmm::spec::{BootSpec, Cache, DiskBacking, DiskSpec, HugePages, Outcome, VmSpec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

/// What a kernel is told, with `HEARTH_CMDLINE` at its end.
pub fn cmdline() -> String {
    let more = std::env::var("HEARTH_CMDLINE").unwrap_or_default();
    format!("console=ttyS0 quiet panic=-1 reboot=k {more}")
}

/// The files that the variables name; `None`, loudly, where something is missing.
pub fn files<const N: usize>(test: &str, names: [&str; N]) -> Option<[PathBuf; N]> {
    let mut missing: Vec<&str> = names
        .into_iter()
        .filter(|name| std::env::var_os(name).is_none())
        .collect();
    if std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        missing.push("/dev/kvm");
    }
    if missing.is_empty() {
        return Some(names.map(|name| std::env::var_os(name).unwrap().into()));
    }
    eprintln!("SKIPPED: {test}: absent: {}", missing.join(", "));
    None
}

/// Far more than any request takes.
const REPLY: Duration = Duration::from_secs(60);
/// Greater than any other descriptor here.
const AFTER_ALL: RawFd = 100;

pub enum Root<'a> {
    Kernel {
        kernel: PathBuf,
        initrd: PathBuf,
        init_arguments: &'a str,
    },
    Disk(PathBuf),
}

pub struct Guest {
    child: Child,
    control: Client,
    dir: tempfile::TempDir,
}

/// Descriptors that a monitor inherits.
#[derive(Default)]
pub struct Inherited(Vec<OwnedFd>);

impl Inherited {
    /// Its number, for the spec.
    pub fn give(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        let fd = fd.into();
        let number = fd.as_raw_fd();
        self.0.push(fd);
        number
    }
}

impl Guest {
    pub fn start(vcpus: u8, root: &Root<'_>) -> Self {
        Self::launch(|spec, fds| {
            spec.vcpus = vcpus;
            match root {
                Root::Kernel {
                    kernel,
                    initrd,
                    init_arguments,
                } => {
                    spec.boot = BootSpec::Kernel {
                        kernel_fd: fds.give(File::open(kernel).unwrap()),
                        initrd_fd: Some(fds.give(File::open(initrd).unwrap())),
                        cmdline: format!("{} -- {init_arguments}", cmdline()),
                    };
                }
                Root::Disk(path) => {
                    let file = File::options().read(true).write(true).open(path).unwrap();
                    spec.disks.push(DiskSpec {
                        id: "vol-0123456789abcdef0".into(),
                        serial: "vol0123456789abcdef0".into(),
                        read_only: false,
                        cache: Cache::default(),
                        rate_limit: Default::default(),
                        backing: DiskBacking::Raw { fd: fds.give(file) },
                    });
                }
            }
        })
    }

    /// A monitor whose spec `fill` completes.
    pub fn launch(fill: impl FnOnce(&mut VmSpec, &mut Inherited)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let create = |name: &str| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            options.open(dir.path().join(name)).unwrap()
        };
        let (console, outcome, spec_file) = (create("console"), create("outcome"), create("spec"));
        let listen = |name: &str| UnixListener::bind(dir.path().join(name)).unwrap();
        let (control, console_socket) = (listen("control.sock"), listen("console.sock"));
        let mut fds = Inherited::default();
        let mut spec = VmSpec {
            instance_id: "i-0123456789abcdef0".into(),
            uuid: "ec2a1b2c-3d4e-4f60-8182-93a4b5c6d7e8".into(),
            vcpus: 1,
            cpus: Vec::new(),
            cpu: CpuSpec::default(),
            memory_mib: 128,
            huge_pages: HugePages::default(),
            boot: BootSpec::Disk,
            restore: None,
            disks: Vec::new(),
            nics: Vec::new(),
            rng_limit: Default::default(),
            balloon: None,
            vsock: None,
            kvm_fd: fds.give(open_kvm()),
            console_fd: fds.give(console),
            console_socket_fd: Some(fds.give(console_socket)),
            control_fd: fds.give(control),
            bases_fd: None,
            outcome_fd: fds.give(outcome),
        };
        fill(&mut spec, &mut fds);
        serde_json::to_writer(&spec_file, &spec).unwrap();
        let spec_file = File::open(dir.path().join("spec")).unwrap();
        // In jail, what comes after it is closed.
        let spec_fd = fds.give(rustix::io::fcntl_dupfd_cloexec(spec_file, AFTER_ALL).unwrap());
        // Before the monitor is: an event goes to those who are connected when it happens.
        let control = Client::connect(dir.path().join("control.sock")).unwrap();
        let child = spawn(spec_fd, fds.0.iter().map(AsRawFd::as_raw_fd).collect());
        Self { child, control, dir }
    }

    /// The monitor's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection to the serial console.
    pub fn connect_console(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("console.sock")).unwrap()
    }

    /// `None` when the monitor has ended.
    pub fn next_event(&mut self, timeout: Duration) -> Option<Event> {
        self.control.set_patience(Some(timeout)).unwrap();
        let event = self.control.next_event();
        event.unwrap_or_else(|error| panic!("control socket: {error}; console:\n{}", self.console()))
    }

    pub fn request(&mut self, request: &Request) -> Reply {
        self.request_with(request, &[])
    }

    /// A request with the descriptors that it names.
    pub fn request_with(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Reply {
        let reply = self.try_request(request, descriptors);
        reply.unwrap_or_else(|error| panic!("control socket: {error}; console:\n{}", self.console()))
    }

    /// A request that the monitor's end may be the answer to.
    pub fn try_request(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<Reply> {
        self.control.set_patience(Some(REPLY))?;
        self.control.request_with(request, descriptors)
    }

    /// Has a snapshot made: its state and its memory.
    pub fn snapshot(&mut self, kind: Kind) -> (File, File) {
        let (state, memory) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        match self.try_snapshot(kind, &state, &memory).unwrap() {
            Reply::Snapshot(taken) => eprintln!("{kind:?}: paused for {} µs", taken.paused_micros),
            reply => panic!("{reply:?}"),
        }
        (state, memory)
    }

    pub fn try_snapshot(&mut self, kind: Kind, state: &File, memory: &File) -> io::Result<Reply> {
        let request = Request::Snapshot(SnapshotRequest {
            kind,
            state: 0,
            memory: 1,
        });
        self.try_request(&request, &[state.as_fd(), memory.as_fd()])
    }

    /// How many descriptors the monitor has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    pub fn console(&self) -> String {
        let file = File::open(self.dir.path().join("console")).unwrap();
        String::from_utf8_lossy(&console::read(&file).unwrap()).into_owned()
    }

    /// Waits until the guest has printed `text`.
    pub fn wait_for_console(&self, text: &str, timeout: Duration) {
        self.wait_for_output(&format!("{text:?}"), timeout, |said| said.contains(text));
    }

    /// Waits until `what`, a condition upon all that the guest has printed, holds.
    pub fn wait_for_output(&self, what: &str, timeout: Duration, condition: impl Fn(&str) -> bool) {
        let changes = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        let path = self.dir.path().join("console");
        inotify::add_watch(&changes, path, inotify::WatchFlags::MODIFY).unwrap();
        let deadline = Instant::now() + timeout;
        while !condition(&self.console()) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} on the console:\n{}", self.console());
            let mut fds = [PollFd::new(&changes, PollFlags::IN)];
            poll(&mut fds, Some(&left.try_into().unwrap())).unwrap();
            // All that is there: they only say that there is something new.
            while rustix::io::read(&changes, &mut [0; 4096]).is_ok() {}
        }
    }

    /// How the monitor ended.
    pub fn outcome(&mut self) -> Outcome {
        self.child.wait().unwrap();
        let json = std::fs::read(self.dir.path().join("outcome")).unwrap();
        serde_json::from_slice(&json)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&json)))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It has ended already in a test that passes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open_kvm() -> File {
    let mut options = File::options();
    options.read(true).write(true).open("/dev/kvm").unwrap()
}

/// In jail, but for the agent's part of it, where the test may.
fn spawn(spec_fd: RawFd, inherited: Vec<RawFd>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth-vmm"));
    command.arg("--spec-fd").arg(spec_fd.to_string());
    if rustix::process::geteuid().is_root() {
        command.args(["--jail", "1899998999"]);
    }
    // SAFETY: fcntl is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for &fd in &inherited {
                if libc::fcntl(fd, libc::F_SETFD, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command.spawn().unwrap()
}
