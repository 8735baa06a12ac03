//! Spawning a monitor so that whatever happens to the agent, the truth can be read from the world.
//!
//! Two things happen between the child's fork and its exec. It calls `listen` on the control socket, which
//! makes the kernel name it as the socket's peer. And it writes to `spawned`, which outlives it: a launch
//! that is recorded but bears no such mark, and whose socket nobody serves, never had a monitor.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt as _, FdMapping};
use hearth_api::agent::instance_intent::BootMode;
use hearth_vmm::cpu::CpuSpec;
use hearth_vmm::limits::RateLimit;
use hearth_vmm::spec::{
    BootSpec, Cache, ComingBase, DiskBacking, DiskSpec, FrozenSpec, HugePages, KeySpec, NicSpec, Outcome,
    VmSpec,
};
use rustix::fs::MemfdFlags;

use crate::firmware::Firmware;
use crate::images;
use crate::instance_store::StoreDisk;
use crate::jail::cgroup::Limits;
use crate::jail::{Jail, JailError};
use crate::monitor::{MonitorError, open_pidfd};
use crate::networks::MTU;
use crate::paths::DataDir;
use crate::volume::{Volume, VolumeError};

/// Bytes; no outcome comes near it.
const MAX_OUTCOME: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("{doing}")]
    Io { doing: &'static str, source: io::Error },
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Jail(#[from] JailError),
    #[error("taking hold of the new monitor")]
    Monitor(#[from] MonitorError),
}

/// What a monitor is made of, all open.
#[derive(Debug)]
pub struct Parts {
    pub instance_id: String,
    pub launch: u64,
    pub vcpus: u8,
    pub memory_mib: u64,
    /// The root volume first.
    pub disks: Vec<Disk>,
    /// The guest sees them after the volumes.
    pub store: Vec<StoreDisk>,
    /// The primary interface first.
    pub nics: Vec<Nic>,
    pub kvm: File,
    pub boot: Boot,
}

#[derive(Debug)]
pub struct Disk {
    /// The volume's id.
    pub id: String,
    pub volume: Volume,
    pub rate_limit: RateLimit,
}

#[derive(Debug)]
pub struct Nic {
    /// The network interface's id.
    pub id: String,
    pub mac: String,
    /// One for each queue pair.
    pub taps: Vec<OwnedFd>,
}

/// How the machine boots, with the firmware's file where that may be needed.
#[derive(Debug)]
pub enum Boot {
    /// The disk's kernel, or not at all.
    Direct,
    /// The disk's kernel where that is certain, else by firmware.
    Automatic(File),
    Firmware(File),
}

/// The first descriptor that the child is given; the rest follow.
const FIRST_FD: RawFd = 3;

/// Spawns the monitor of a recorded launch; its launch directory does not exist yet or is of a launch that
/// never came about. Blocks for a few milliseconds.
///
/// # Errors
/// Files cannot be made, or the program cannot be executed. Nothing runs then.
pub fn spawn(
    dir: &DataDir,
    jail: Option<&Jail>,
    program: &Path,
    parts: Parts,
) -> Result<OwnedFd, SpawnError> {
    let mut limits = Limits::of(parts.vcpus, parts.memory_mib);
    for disk in &parts.disks {
        limits.file = limits.file.max(disk.volume.largest_file()?);
    }
    for disk in &parts.store {
        limits.file = limits.file.max(disk.size);
    }
    let cell = jail
        .map(|jail| jail.cell(&parts.instance_id, &limits))
        .transpose()?;
    let launch = dir.launch(&parts.instance_id, parts.launch);
    fresh_dir(&launch)?;
    let control = bind(&launch, "control.sock")?;
    let console_socket = bind(&launch, "console.sock")?;
    let bases = bind(&launch, images::SOCKET)?;
    let outcome = create(&launch.join("outcome"), "creating the outcome file")?;
    let mark = create(&launch.join("spawned"), "creating the launch's mark")?;
    let console = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.console(&parts.instance_id))
        .map_err(io_error("opening the console ring"))?;
    let log =
        File::create(dir.monitor_log(&parts.instance_id)).map_err(io_error("creating the monitor's log"))?;
    let log_too = log
        .try_clone()
        .map_err(io_error("duplicating the monitor's log"))?;

    let (control_raw, mark_raw) = (control.as_raw_fd(), mark.as_raw_fd());
    let mut fds = Handout::default();
    let volumes = parts.disks.into_iter();
    let mut disks: Vec<DiskSpec> = volumes
        .map(|disk| disk.spec(&mut |file| fds.give(file)))
        .collect();
    disks.extend(parts.store.into_iter().map(|disk| store_spec(disk, &mut fds)));
    let spec = VmSpec {
        instance_id: parts.instance_id.clone(),
        uuid: system_uuid(&parts.instance_id),
        vcpus: parts.vcpus,
        cpus: cell.as_ref().map_or_else(Vec::new, |cell| cell.cpus.clone()),
        cpu: CpuSpec::default(),
        memory_mib: parts.memory_mib,
        huge_pages: HugePages::default(),
        boot: match parts.boot {
            Boot::Direct => BootSpec::Disk,
            Boot::Automatic(firmware) => BootSpec::Automatic {
                firmware_fd: fds.give(firmware),
            },
            Boot::Firmware(firmware) => BootSpec::Firmware {
                firmware_fd: fds.give(firmware),
            },
        },
        restore: None,
        disks,
        nics: parts.nics.into_iter().map(|nic| nic.spec(&mut fds)).collect(),
        rng_limit: Default::default(),
        balloon: None,
        vsock: None,
        kvm_fd: fds.give(parts.kvm),
        console_fd: fds.give(console),
        console_socket_fd: Some(fds.give(console_socket)),
        control_fd: fds.give(control),
        bases_fd: Some(fds.give(bases)),
        outcome_fd: fds.give(outcome),
    };
    if let Some(cell) = &cell {
        fds.give(
            cell.uid_lock()
                .map_err(io_error("duplicating the lock of the monitor's user"))?,
        );
    }
    // The last one: what comes after it is not the monitor's, and it closes that.
    let spec_fd = fds.give(memory_file(&spec)?);

    let mut command = Command::new(program);
    command
        .arg("--spec-fd")
        .arg(spec_fd.to_string())
        .args(
            cell.iter()
                .flat_map(|cell| ["--jail".to_owned(), cell.uid().to_string()]),
        )
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too);
    // SAFETY: the closure makes system calls only (async-signal-safe), on descriptors that `fds` and `mark`
    // keep open until the spawn is over. It runs before the mappings below, which come later in order.
    unsafe {
        command.pre_exec(move || {
            // A session of its own: no signal of the agent's terminal reaches it.
            if libc::setsid() < 0 || libc::listen(control_raw, 16) < 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::write(mark_raw, b"1".as_ptr().cast(), 1) != 1 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command
        .fd_mappings(fds.mappings)
        .map_err(|collision| SpawnError::Io {
            doing: "handing descriptors to the monitor",
            source: io::Error::other(collision),
        })?;
    crate::fault::point("before-spawn");
    let spawned = match &cell {
        Some(cell) => cell.spawn(&mut command),
        None => command.spawn(),
    };
    let child = spawned.map_err(io_error("executing the monitor program"))?;
    crate::fault::point("after-spawn");
    // The child is reaped by its pidfd.
    let pid = i32::try_from(child.id()).unwrap_or_default();
    Ok(open_pidfd(pid)?)
}

impl Disk {
    /// `give` hands a file over, and answers the number that the monitor knows it by.
    pub(super) fn spec(self, give: &mut impl FnMut(File) -> RawFd) -> DiskSpec {
        let mut key = |pipe: Option<File>| pipe.map(|pipe| KeySpec { pipe_fd: give(pipe) });
        let key_of_volume = key(self.volume.key);
        let mut base_key = None;
        let (base_fd, coming) = match self.volume.base {
            Some(base) => {
                base_key = key(base.key);
                let coming = base.map.map(|map| ComingBase {
                    map_fd: give(map),
                    name: base.image_id,
                });
                (Some(give(base.disk)), coming)
            }
            None => (None, None),
        };
        DiskSpec {
            serial: self.id.replacen('-', "", 1),
            id: self.id,
            read_only: false,
            cache: Cache::default(),
            rate_limit: self.rate_limit,
            backing: DiskBacking::Overlay {
                data_fd: give(self.volume.data),
                map_fd: give(self.volume.map),
                base_fd,
                coming,
                dirty_fd: Some(give(self.volume.tracking.dirty)),
                key: key_of_volume,
                base_key,
                frozen: self
                    .volume
                    .tracking
                    .frozen
                    .map(|(name, file)| FrozenSpec { name, fd: give(file) }),
            },
        }
    }
}

fn store_spec(disk: StoreDisk, fds: &mut Handout) -> DiskSpec {
    DiskSpec {
        serial: disk.name.clone(),
        id: disk.name,
        read_only: false,
        cache: Cache::default(),
        rate_limit: RateLimit::default(),
        backing: DiskBacking::Raw {
            fd: fds.give(disk.file),
        },
    }
}

impl Nic {
    fn spec(self, fds: &mut Handout) -> NicSpec {
        NicSpec {
            id: self.id,
            mac: self.mac,
            tap_fds: self.taps.into_iter().map(|tap| fds.give(tap)).collect(),
            mtu: MTU,
            receive_limit: RateLimit::default(),
            transmit_limit: RateLimit::default(),
        }
    }
}

/// Opened anew for each monitor, so that none can meddle with another's.
pub fn open_kvm(path: &str) -> Result<File, SpawnError> {
    let mut options = File::options();
    let opened = options.read(true).write(true).open(path);
    opened.map_err(io_error("opening the KVM device"))
}

/// How a machine of this boot mode boots on a host.
///
/// # Errors
/// The boot mode is `uefi`, and the firmware cannot be opened. What is booted directly does without.
pub fn boot(mode: BootMode, firmware: &Firmware) -> io::Result<Boot> {
    match mode {
        BootMode::LegacyBios => Ok(Boot::Direct),
        BootMode::Uefi => firmware.open().map(Boot::Firmware),
        BootMode::UefiPreferred | BootMode::Unspecified => match firmware.open() {
            Ok(file) => Ok(Boot::Automatic(file)),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, %firmware, "opening the firmware");
                }
                Ok(Boot::Direct)
            }
        },
    }
}

/// Whether the launch ever had a monitor, and what that said at its end.
pub fn traces(dir: &DataDir, instance_id: &str, launch: u64) -> (bool, Option<Outcome>) {
    let launch = dir.launch(instance_id, launch);
    let spawned = std::fs::metadata(launch.join("spawned")).is_ok_and(|meta| meta.len() > 0);
    let mut outcome = Vec::new();
    // A monitor is not trusted: it may have written more than there is room for.
    let read =
        File::open(launch.join("outcome")).and_then(|file| file.take(MAX_OUTCOME).read_to_end(&mut outcome));
    let outcome = read.ok().and_then(|_| serde_json::from_slice(&outcome).ok());
    (spawned, outcome)
}

/// Removes the launch directories that are not `newest`'s.
pub fn sweep_launches(dir: &DataDir, instance_id: &str, newest: u64) -> io::Result<()> {
    let keep = dir.launch(instance_id, newest);
    for entry in std::fs::read_dir(dir.instance(instance_id))? {
        let path = entry?.path();
        let is_launch = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"launch-"));
        if is_launch && path != keep {
            std::fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// Descriptors and the numbers that they get in the child.
#[derive(Default)]
struct Handout {
    mappings: Vec<FdMapping>,
}

impl Handout {
    fn give(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        let count = RawFd::try_from(self.mappings.len()).unwrap_or(RawFd::MAX);
        let child_fd = FIRST_FD.saturating_add(count);
        self.mappings.push(FdMapping {
            parent_fd: fd.into(),
            child_fd,
        });
        child_fd
    }
}

fn fresh_dir(launch: &Path) -> Result<(), SpawnError> {
    if let Err(source) = std::fs::remove_dir_all(launch)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(io_error("sweeping the launch directory")(source));
    }
    std::fs::create_dir_all(launch).map_err(io_error("making the launch directory"))
}

fn bind(launch: &Path, name: &str) -> Result<UnixListener, SpawnError> {
    crate::unix::bind(launch, name).map_err(io_error("binding the monitor's sockets"))
}

fn create(path: &Path, doing: &'static str) -> Result<File, SpawnError> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(io_error(doing))
}

fn memory_file(spec: &VmSpec) -> Result<File, SpawnError> {
    let bytes =
        serde_json::to_vec(spec).map_err(|error| io_error("writing the monitor's spec")(error.into()))?;
    let fd = rustix::fs::memfd_create("vm-spec", MemfdFlags::CLOEXEC)
        .map_err(|errno| io_error("making the spec's memory file")(errno.into()))?;
    let mut file = File::from(fd);
    file.write_all(&bytes)
        .and_then(|()| file.rewind())
        .map_err(io_error("writing the monitor's spec"))?;
    Ok(file)
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> SpawnError + Copy {
    move |source| SpawnError::Io { doing, source }
}

/// The same for an instance's whole life, and beginning with `ec2`, by which cloud-init knows where it is.
fn system_uuid(instance_id: &str) -> String {
    let digest = blake3::hash(instance_id.as_bytes());
    let hex = &digest.to_hex()[..32];
    format!(
        "ec2{}-{}-4{}-8{}-{}",
        &hex[..5],
        &hex[5..9],
        &hex[9..12],
        &hex[12..15],
        &hex[15..27]
    )
}
