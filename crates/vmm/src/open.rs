//! From a [`VmSpec`] to a [`Plan`]: takes the descriptors that the agent let us inherit.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use hearth_block::cipher::KEY_LEN;
use hearth_block::{Backing, Base, Cipher, Disk, Key, Overlay, RawDisk, Store};
use kvm_ioctls::Kvm;
use zeroize::Zeroizing;

use crate::bases::Bases;
use crate::boot::Source;
use crate::console::Console;
use crate::devices::{Backend, DeviceError, Devices, DiskPlan, NicPlan, VsockPlan};
use crate::limits::Limiter;
use crate::machine::Plan;
use crate::metrics::Registry;
use crate::snapshot::{MemorySource, Restore, Snapshot, SnapshotError};
use crate::spec::{
    BootSpec, DiskBacking, DiskSpec, KeySpec, MemorySpec, NicSpec, RestoreSpec, VmSpec, VsockSpec,
};
use crate::virtio::balloon;
use crate::virtio::net::{NetConfig, NetLimits};

/// vCPU limits, as [`VmSpec::vcpus`] says.
const MAX_VCPUS: u8 = 32;
const MIN_MEMORY_MIB: u64 = 32;
/// Sixteen TiB: guest physical addresses that every 64-bit processor has.
const MAX_MEMORY_MIB: u64 = 16 << 20;
/// Standard input, output and error are not the spec's to give.
const FIRST_FREE_FD: RawFd = 3;
/// Of `KVM_GET_API_VERSION`, for ever.
const KVM_API_VERSION: i32 = 12;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the machine's description: {0}")]
    Spec(String),
    #[error("descriptor {fd} for the {what} is not open, or named twice")]
    Descriptor { fd: RawFd, what: &'static str },
    #[error("opening disk {serial}")]
    Overlay {
        serial: String,
        #[source]
        source: hearth_block::overlay::OpenError,
    },
    #[error("having what is missing of the base of disk {serial} brought")]
    Base {
        serial: String,
        #[source]
        source: io::Error,
    },
    #[error("opening disk {serial}")]
    Raw {
        serial: String,
        #[source]
        source: io::Error,
    },
    #[error("taking the key of disk {serial}")]
    Key {
        serial: String,
        #[source]
        source: io::Error,
    },
    #[error("growing disk {serial} to the size of its data file")]
    Growth {
        serial: String,
        #[source]
        source: io::Error,
    },
    #[error("making the balloon")]
    Balloon(#[source] io::Error),
    #[error("making the vsock device's directory the working directory")]
    VsockDirectory(#[source] io::Error),
    #[error("the snapshot to restore")]
    Snapshot(#[source] SnapshotError),
    #[error("starting the console")]
    Console(#[source] io::Error),
    #[error("the machine's devices")]
    Devices(#[from] DeviceError),
    #[error("the KVM descriptor speaks version {0} of its interface, and not 12")]
    Kvm(i32),
}

/// A spec's descriptors, owned.
pub struct Opened {
    pub plan: Plan,
    pub console: Console,
    pub control: UnixListener,
}

/// Opens everything that `spec` names. The outcome's descriptor is the caller's.
///
/// # Errors
/// See [`OpenError`].
pub fn open(spec: VmSpec) -> Result<Opened, OpenError> {
    check_shape(spec.vcpus, spec.memory_mib)?;
    let mut fds = Fds::default();
    fds.taken.insert(spec.outcome_fd);
    let mut devices = Devices::default();
    let bases = match spec.bases_fd {
        Some(fd) => Some(fds.take(fd, "bases' socket")?.into()),
        None => None,
    };
    let bases = Bases::new(bases);
    for disk in spec.disks {
        let plan = open_disk(&mut fds, &disk, &bases)?;
        devices.add(&disk.id, Backend::Disk(plan))?;
    }
    for nic in spec.nics {
        let plan = open_nic(&mut fds, &nic)?;
        devices.add(&nic.id, Backend::Nic(plan))?;
    }
    let rng = devices.add("rng", Backend::Rng(Limiter::new(&spec.rng_limit)))?;
    devices.fix(rng);
    if let Some(options) = spec.balloon {
        let handle = balloon::Handle::new(options, spec.memory_mib).map_err(OpenError::Balloon)?;
        let balloon = devices.add("balloon", Backend::Balloon(handle))?;
        devices.fix(balloon);
    }
    if let Some(vsock) = spec.vsock {
        let plan = open_vsock(&mut fds, vsock)?;
        let vsock = devices.add("vsock", Backend::Vsock(plan))?;
        devices.fix(vsock);
    }
    let source = match spec.boot {
        BootSpec::Disk => Source::Disk {
            disk: root_disk(&mut devices)?,
            firmware: None,
        },
        BootSpec::Automatic { firmware_fd } => Source::Disk {
            disk: root_disk(&mut devices)?,
            firmware: Some(Arc::new(fds.take(firmware_fd, "firmware")?.into())),
        },
        BootSpec::Firmware { firmware_fd } => {
            root_disk(&mut devices)?;
            Source::Firmware(Arc::new(fds.take(firmware_fd, "firmware")?.into()))
        }
        BootSpec::Kernel {
            kernel_fd,
            initrd_fd,
            cmdline,
        } => Source::Files {
            kernel: Arc::new(fds.take(kernel_fd, "kernel")?.into()),
            initrd: match initrd_fd {
                Some(fd) => Some(Arc::new(fds.take(fd, "initrd")?.into())),
                None => None,
            },
            cmdline,
        },
    };
    let restore = match spec.restore {
        Some(restore) => Some(open_restore(&mut fds, restore)?),
        None => None,
    };
    if let Some(restore) = &restore {
        devices = devices.arranged_as(&restore.snapshot.about.devices)?;
    }
    let ring = fds.take(spec.console_fd, "console")?.into();
    let console_socket = match spec.console_socket_fd {
        Some(fd) => Some(fds.take(fd, "console socket")?.into()),
        None => None,
    };
    Ok(Opened {
        console: Console::start(ring, console_socket, None).map_err(OpenError::Console)?,
        control: fds.take(spec.control_fd, "control socket")?.into(),
        plan: Plan {
            kvm: fds.take_kvm(spec.kvm_fd)?,
            instance_id: spec.instance_id,
            uuid: spec.uuid,
            vcpus: spec.vcpus,
            cpus: spec.cpus,
            cpu: spec.cpu,
            memory_mib: spec.memory_mib,
            huge_pages: spec.huge_pages,
            source,
            restore,
            devices,
            hotplug: true,
            bases,
            metrics: Registry::default(),
        },
    })
}

/// The first disk, which stays as long as the machine does.
fn root_disk(devices: &mut Devices) -> Result<Arc<dyn Disk>, OpenError> {
    let (slot, root) = devices
        .first_disk()
        .ok_or_else(|| OpenError::Spec("booting from a disk needs one".into()))?;
    let disk = Arc::clone(&root.disk);
    devices.fix(slot);
    Ok(disk)
}

fn open_restore(fds: &mut impl Descriptors, spec: RestoreSpec) -> Result<Restore, OpenError> {
    let state: File = fds.take(spec.state_fd, "snapshot's state")?.into();
    Ok(Restore {
        snapshot: Snapshot::read(&state).map_err(OpenError::Snapshot)?,
        memory: match spec.memory {
            MemorySpec::File { fd, verify } => MemorySource::File {
                file: fds.take(fd, "snapshot's memory")?.into(),
                verify,
            },
            MemorySpec::Userfault { socket_fd, device_fd } => MemorySource::Userfault {
                socket: fds.take(socket_fd, "page server")?.into(),
                device: match device_fd {
                    Some(fd) => Some(fds.take(fd, "userfaultfd device")?.into()),
                    None => None,
                },
            },
        },
        track: spec.track,
    })
}

/// # Errors
/// A number outside of what the monitor can build.
pub fn check_shape(vcpus: u8, memory_mib: u64) -> Result<(), OpenError> {
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(OpenError::Spec(format!(
            "{vcpus} vCPUs; it may be 1 to {MAX_VCPUS}"
        )));
    }
    if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&memory_mib) {
        return Err(OpenError::Spec(format!(
            "{memory_mib} MiB of memory; it may be {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB}"
        )));
    }
    Ok(())
}

/// Six hex octets with colons.
///
/// # Errors
/// It is something else.
pub fn parse_mac(text: &str) -> Result<[u8; 6], OpenError> {
    let octets: Option<Vec<u8>> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).ok().filter(|_| octet.len() == 2))
        .collect();
    octets
        .and_then(|octets| octets.try_into().ok())
        .ok_or_else(|| OpenError::Spec(format!("{text:?} is no MAC address")))
}

/// Takes a disk's descriptors from `fds`. `bases` are where a base comes from that is there in part.
///
/// # Errors
/// They are no such disk.
pub fn open_disk(fds: &mut impl Descriptors, spec: &DiskSpec, bases: &Bases) -> Result<DiskPlan, OpenError> {
    let serial = spec.serial.clone();
    let disk: Arc<dyn Disk> = match &spec.backing {
        DiskBacking::Raw { fd } => {
            let disk = RawDisk::new(fds.take(*fd, "disk")?.into()).map_err(|source| OpenError::Raw {
                serial: serial.clone(),
                source,
            })?;
            if spec.read_only {
                Arc::new(disk.read_only())
            } else {
                Arc::new(disk)
            }
        }
        DiskBacking::Overlay {
            data_fd,
            map_fd,
            base_fd,
            coming,
            dirty_fd,
            key,
            base_key,
            frozen,
        } => {
            let damaged = |source| OpenError::Overlay {
                serial: serial.clone(),
                source,
            };
            let key = take_cipher(fds, key.as_ref(), &serial)?;
            let base_key = take_cipher(fds, base_key.as_ref(), &serial)?;
            let dirty = match dirty_fd {
                Some(fd) => Some(take_store(fds, *fd, "overlay's dirty map")?),
                None => None,
            };
            let frozen = match frozen {
                Some(frozen) => {
                    let file = take_store(fds, frozen.fd, "overlay's frozen contents")?;
                    Some((frozen.name.clone(), file))
                }
                None => None,
            };
            let mut take = |fd, what| {
                let file: File = fds.take(fd, what)?.into();
                Backing::new(file).map_err(|source| OpenError::Raw {
                    serial: serial.to_owned(),
                    source,
                })
            };
            let data = take(*data_fd, "overlay's data")?;
            let map = take(*map_fd, "overlay's map")?;
            let base = match (base_fd, coming) {
                (Some(fd), Some(coming)) => {
                    let file = take(*fd, "overlay's base")?;
                    let map = take(coming.map_fd, "map of an overlay's base")?;
                    let fetch = bases.fetch(&coming.name).map_err(|source| OpenError::Base {
                        serial: serial.clone(),
                        source,
                    })?;
                    Some(Base::in_part(file, map, fetch).map_err(damaged)?)
                }
                (Some(fd), None) => Some(Base::whole(take(*fd, "overlay's base")?)),
                (None, _) => None,
            };
            let base = match (base, base_key) {
                (Some(base), Some(key)) => Some(base.encrypted(key)),
                (None, Some(_)) => {
                    return Err(OpenError::Spec(format!(
                        "disk {serial} has a base's key and no base"
                    )));
                }
                (base, None) => base,
            };
            let opened = Overlay::over(data, map, base).map(|overlay| match key {
                Some(key) => overlay.encrypted(key),
                None => overlay,
            });
            let opened = opened.and_then(|overlay| match dirty {
                Some(dirty) => overlay.tracked(dirty, frozen),
                None => Ok(overlay),
            });
            let overlay = opened.map_err(damaged)?;
            overlay.refresh_size().map_err(|source| OpenError::Growth {
                serial: serial.clone(),
                source,
            })?;
            Arc::new(overlay)
        }
    };
    Ok(DiskPlan {
        disk,
        limiter: Limiter::new(&spec.rate_limit),
        serial,
        read_only: spec.read_only,
        cache: spec.cache,
    })
}

/// Takes the key of a disk, if it has one, out of its pipe.
fn take_cipher(
    fds: &mut impl Descriptors,
    spec: Option<&KeySpec>,
    serial: &str,
) -> Result<Option<Arc<Cipher>>, OpenError> {
    let Some(spec) = spec else { return Ok(None) };
    let mut pipe = File::from(fds.take(spec.pipe_fd, "disk's key")?);
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    let cipher = pipe.read_exact(bytes.as_mut_slice()).and_then(|()| {
        let key = Key::new(bytes.as_slice()).ok_or(io::ErrorKind::InvalidData)?;
        Cipher::new(&key)
    });
    cipher
        .map(|cipher| Some(Arc::new(cipher)))
        .map_err(|source| OpenError::Key {
            serial: serial.to_owned(),
            source,
        })
}

/// Takes a file that a disk writes now and then.
///
/// # Errors
/// It is absent.
pub fn take_store(
    fds: &mut impl Descriptors,
    fd: RawFd,
    what: &'static str,
) -> Result<Box<dyn Store>, OpenError> {
    Ok(Box::new(File::from(fds.take(fd, what)?)))
}

/// Takes a NIC's descriptors from `fds`.
///
/// # Errors
/// They are absent, or the address is none.
pub fn open_nic(fds: &mut impl Descriptors, spec: &NicSpec) -> Result<NicPlan, OpenError> {
    Ok(NicPlan {
        taps: open_taps(fds, &spec.tap_fds)?,
        config: NetConfig {
            mac: parse_mac(&spec.mac)?,
            mtu: spec.mtu,
        },
        limits: NetLimits {
            receive: Limiter::new(&spec.receive_limit),
            transmit: Limiter::new(&spec.transmit_limit),
        },
    })
}

/// Takes the queues of a TAP from `fds`.
///
/// # Errors
/// One is absent.
pub fn open_taps(fds: &mut impl Descriptors, tap_fds: &[RawFd]) -> Result<Vec<File>, OpenError> {
    let taps = tap_fds.iter().map(|&fd| Ok(fds.take(fd, "TAP")?.into()));
    taps.collect()
}

/// Longer ones do not fit a Unix socket's address with a port behind them.
const MAX_VSOCK_NAME: usize = 96;

fn open_vsock(fds: &mut Fds, spec: VsockSpec) -> Result<VsockPlan, OpenError> {
    if !(3..u32::MAX).contains(&spec.guest_cid) {
        return Err(OpenError::Spec(format!(
            "{} is no guest's context id",
            spec.guest_cid
        )));
    }
    if spec.name.is_empty() || spec.name.len() > MAX_VSOCK_NAME || spec.name.contains(['/', '\0']) {
        return Err(OpenError::Spec(format!("{:?} is no name of a socket", spec.name)));
    }
    let directory = fds.take(spec.directory_fd, "vsock directory")?;
    nix::unistd::fchdir(&directory).map_err(|error| OpenError::VsockDirectory(error.into()))?;
    Ok(VsockPlan {
        guest_cid: spec.guest_cid,
        listener: fds.take(spec.listener_fd, "vsock socket")?.into(),
        prefix: spec.name.into(),
    })
}

/// Where the descriptors are that a spec names by number. Each can be taken once.
pub trait Descriptors {
    /// # Errors
    /// There is none of this number, or it was taken.
    fn take(&mut self, fd: RawFd, what: &'static str) -> Result<OwnedFd, OpenError>;
}

/// Those that came with a control request: numbers are places.
pub struct Passed(Vec<Option<OwnedFd>>);

impl Passed {
    #[must_use]
    pub fn new(descriptors: Vec<OwnedFd>) -> Self {
        Self(descriptors.into_iter().map(Some).collect())
    }
}

impl Descriptors for Passed {
    fn take(&mut self, fd: RawFd, what: &'static str) -> Result<OwnedFd, OpenError> {
        let place = usize::try_from(fd).ok().and_then(|place| self.0.get_mut(place));
        place
            .and_then(Option::take)
            .ok_or(OpenError::Descriptor { fd, what })
    }
}

/// Inherited descriptors, each of which can be taken once.
#[derive(Default)]
struct Fds {
    taken: BTreeSet<RawFd>,
}

impl Descriptors for Fds {
    fn take(&mut self, fd: RawFd, what: &'static str) -> Result<OwnedFd, OpenError> {
        if fd < FIRST_FREE_FD || !self.taken.insert(fd) {
            return Err(OpenError::Descriptor { fd, what });
        }
        adopt(fd).map_err(|_| OpenError::Descriptor { fd, what })
    }
}

impl Fds {
    fn take_kvm(&mut self, fd: RawFd) -> Result<Kvm, OpenError> {
        let fd = self.take(fd, "KVM")?;
        // SAFETY: ours alone; a descriptor of something else only answers with errors.
        let kvm = unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) };
        match kvm.get_api_version() {
            KVM_API_VERSION => Ok(kvm),
            version => Err(OpenError::Kvm(version)),
        }
    }
}

/// Owns an inherited descriptor and keeps it from further children.
///
/// # Errors
/// It is not open.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on a number has no memory effects.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by contract with the agent, which named it to us, nothing else in this process
    // owns it; each is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests;
