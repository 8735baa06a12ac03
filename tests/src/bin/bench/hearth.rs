//! A monitor of ours that is started as the agent does it, outside of the jail: a spec, open descriptors, a control socket.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use command_fds::{CommandFdExt, FdMapping};
use hearth_vmm::control::{Client, Reply, Request, SnapshotRequest, SnapshotTaken};
use hearth_vmm::cpu::CpuSpec;
use hearth_vmm::limits::RateLimit;
use hearth_vmm::snapshot::Kind;
use hearth_vmm::spec::{
    BootSpec, Cache, DiskBacking, DiskSpec, HugePages, MemorySpec, NicSpec, RestoreSpec, VmSpec,
};

use crate::running::Running;
use crate::wire::GUEST_MAC;

/// The child's number of the first descriptor that it inherits.
const FIRST_FD: RawFd = 10;

/// A snapshot's files.
pub struct Snapshot<'a> {
    pub state: &'a Path,
    pub memory: &'a Path,
}

/// What a monitor is to run.
#[derive(Default)]
pub struct Machine<'a> {
    pub cmdline: &'a str,
    pub memory_mib: u64,
    pub from: Option<&'a Snapshot<'a>>,
    pub disk: Option<Disk<'a>>,
    pub nic: Option<Nic>,
}

/// A raw file as the machine's disk, which control requests call [`DISK`].
pub struct Disk<'a> {
    pub path: &'a Path,
    pub cache: Cache,
    pub limit: RateLimit,
}

pub const DISK: &str = "vol-0123456789abcdef0";

/// A TAP as the machine's NIC, which control requests call [`NIC`].
pub struct Nic {
    pub tap: File,
    /// Of what the guest sends.
    pub limit: RateLimit,
}

pub const NIC: &str = "eni-0123456789abcdef0";

/// Descriptors for the child, by the numbers that they will have there.
#[derive(Default)]
struct Inherited(Vec<OwnedFd>);

impl Inherited {
    fn give(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        self.0.push(fd.into());
        FIRST_FD + self.0.len() as RawFd - 1
    }
}

/// Starts the monitor with a kernel, or where a snapshot of it left off; `dir` takes its sockets. Its guest's output is
/// that of the console socket.
///
/// # Errors
/// It does not start.
pub fn start(
    binary: &Path,
    dir: &Path,
    kernel: &Path,
    from: Option<&Snapshot<'_>>,
    memory_mib: u64,
) -> Result<(Running, Client)> {
    let machine = Machine {
        memory_mib,
        from,
        ..Machine::default()
    };
    start_machine(binary, dir, kernel, machine)
}

/// The same with all that a machine may have.
///
/// # Errors
/// It does not start.
pub fn start_machine(
    binary: &Path,
    dir: &Path,
    kernel: &Path,
    machine: Machine<'_>,
) -> Result<(Running, Client)> {
    let listen = |name: &str| -> Result<(UnixListener, UnixStream)> {
        let path = dir.join(name);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        Ok((listener, UnixStream::connect(&path)?))
    };
    let (control, client) = listen("control")?;
    let (console, output) = listen("console")?;
    let mut fds = Inherited::default();
    let boot = BootSpec::Kernel {
        kernel_fd: fds.give(File::open(kernel)?),
        initrd_fd: None,
        cmdline: machine.cmdline.to_owned(),
    };
    let restore = match machine.from {
        Some(snapshot) => Some(RestoreSpec {
            state_fd: fds.give(File::open(snapshot.state)?),
            memory: MemorySpec::File {
                fd: fds.give(File::open(snapshot.memory)?),
                verify: false,
            },
            track: false,
        }),
        None => None,
    };
    let mut disks = Vec::new();
    if let Some(disk) = &machine.disk {
        disks.push(DiskSpec {
            id: DISK.into(),
            serial: DISK.replacen('-', "", 1),
            read_only: false,
            cache: disk.cache,
            rate_limit: disk.limit,
            backing: DiskBacking::Raw {
                fd: fds.give(File::options().read(true).write(true).open(disk.path)?),
            },
        });
    }
    let mut nics = Vec::new();
    if let Some(nic) = machine.nic {
        nics.push(NicSpec {
            id: NIC.into(),
            mac: GUEST_MAC.into(),
            tap_fds: vec![fds.give(nic.tap)],
            mtu: 1500,
            receive_limit: RateLimit::default(),
            transmit_limit: nic.limit,
        });
    }
    let spec = VmSpec {
        instance_id: "i-0123456789abcdef0".into(),
        uuid: "ec2a1b2c-3d4e-4f60-8182-93a4b5c6d7e8".into(),
        vcpus: 1,
        cpus: Vec::new(),
        cpu: CpuSpec::default(),
        memory_mib: machine.memory_mib,
        huge_pages: HugePages::default(),
        boot,
        restore,
        disks,
        nics,
        rng_limit: RateLimit::default(),
        balloon: None,
        vsock: None,
        kvm_fd: fds.give(File::options().read(true).write(true).open("/dev/kvm")?),
        console_fd: fds.give(tempfile::tempfile()?),
        console_socket_fd: Some(fds.give(console)),
        control_fd: fds.give(control),
        bases_fd: None,
        outcome_fd: fds.give(tempfile::tempfile()?),
    };
    let path = dir.join("spec");
    std::fs::write(&path, serde_json::to_vec(&spec)?)?;
    let spec_fd = fds.give(File::open(&path)?);
    let mappings = (FIRST_FD..)
        .zip(fds.0)
        .map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
    let mut command = Command::new(binary);
    command
        .args(["--spec-fd", &spec_fd.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .fd_mappings(mappings.collect())?;
    let begun = Instant::now();
    let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    Ok((Running::new(child, output, begun), Client::new(client)))
}

/// Has a snapshot written to two new files.
///
/// # Errors
/// The monitor refuses, or is gone.
pub fn snapshot(client: &mut Client, kind: Kind, state: &Path, memory: &Path) -> Result<SnapshotTaken> {
    let create = |path: &Path| {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
    };
    let (state, memory) = (create(state)?, create(memory)?);
    let request = Request::Snapshot(SnapshotRequest {
        kind,
        state: 0,
        memory: 1,
    });
    match client.request_with(&request, &[state.as_fd(), memory.as_fd()])? {
        Reply::Snapshot(taken) => Ok(taken),
        other => bail!("instead of a snapshot: {other:?}"),
    }
}
