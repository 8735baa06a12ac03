//! What the agent hands to a monitor: one validated description and the descriptors it names.
//!
//! The agent opens disks, TAPs, sockets and files, lets `hearth-vmm` inherit them, and says their
//! numbers here, so that the monitor itself needs no path and no privilege. The description is JSON,
//! read from the descriptor named by `--spec-fd`.

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use crate::cpu::CpuSpec;

use crate::limits::RateLimit;
pub use crate::memory::HugePages;
pub use crate::virtio::balloon::BalloonOptions;
pub use crate::virtio::block::Cache;

/// A whole virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// `i-` and 17 hex digits; SMBIOS tells it to the guest as the asset tag.
    pub instance_id: String,
    /// The system UUID of SMBIOS type 1, beginning with `ec2` for stock cloud-init; also the serial number.
    pub uuid: String,
    /// 1 to 32.
    pub vcpus: u8,
    /// The host's CPU that each vCPU's thread stays on; empty: wherever the host puts it. vCPUs begin again with
    /// the first where there are fewer CPUs.
    #[serde(default)]
    pub cpus: Vec<u16>,
    #[serde(default)]
    pub cpu: CpuSpec,
    /// MiB, at least 32.
    pub memory_mib: u64,
    #[serde(default)]
    pub huge_pages: HugePages,
    pub boot: BootSpec,
    /// A snapshot to go on from instead of booting; later boots are as `boot` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreSpec>,
    /// In the guest's order: the first is `/dev/vda`.
    pub disks: Vec<DiskSpec>,
    /// In the guest's order.
    pub nics: Vec<NicSpec>,
    /// Of the entropy device; operations of at most 4096 bytes.
    #[serde(default)]
    pub rng_limit: RateLimit,
    /// A memory balloon, if the guest shall have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonOptions>,
    /// Stream sockets between guest and host, if the guest shall have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockSpec>,
    /// `/dev/kvm`, opened for reading and writing.
    pub kvm_fd: RawFd,
    /// The console ring file (see [`crate::console`]), opened for reading and writing.
    pub console_fd: RawFd,
    /// A bound, listening Unix stream socket on which the monitor serves the [`crate::console`].
    #[serde(default)]
    pub console_socket_fd: Option<RawFd>,
    /// A bound, listening Unix stream socket on which the monitor serves [`crate::control`].
    pub control_fd: RawFd,
    /// A bound, listening Unix stream socket at which whoever brings the rest of the disks' [`crate::bases`] connects; absent:
    /// no disk may have a base that is there in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bases_fd: Option<RawFd>,
    /// A file into which the monitor writes its [`Outcome`] as JSON before it exits on its own account.
    pub outcome_fd: RawFd,
}

/// A snapshot that the machine goes on from, as itself or as a clone: with other disks, NICs and addresses, of which
/// there must be as many as in the snapshot and of the same kinds. A guest reads a NIC's MAC address when it
/// probes the device, so one that differs from the snapshot's is replaced by hot-plug: the guest first has the
/// snapshot's, without a link, and takes the clone's when it has let that go
/// ([`DeviceReplaced`](crate::control::Event::DeviceReplaced)). It needs no help for it. Keys of disks are in no snapshot: the
/// disks of the spec bring theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreSpec {
    /// The state file, opened for reading.
    pub state_fd: RawFd,
    pub memory: MemorySpec,
    /// Whether written pages are kept account of, so that a diff to this snapshot is possible.
    #[serde(default)]
    pub track: bool,
}

/// Where a restored guest's memory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MemorySpec {
    /// The memory file, opened for reading: it is mapped, and must stay as it is as long as the monitor lives.
    File {
        fd: RawFd,
        /// Read it all before the guest goes on, and refuse if a bit is not as it was written. Takes about a
        /// tenth of a second for each 500 MiB of data, more if they come from the disk.
        #[serde(default = "yes")]
        verify: bool,
    },
    /// Brought page by page by a [page server](crate::memory::userfault).
    Userfault {
        /// A connected Unix stream socket with the server at its other end.
        socket_fd: RawFd,
        /// `/dev/userfaultfd`, opened for reading and writing: without it the kernel may refuse.
        #[serde(default)]
        device_fd: Option<RawFd>,
    },
}

fn yes() -> bool {
    true
}

/// How the machine boots, anew at every (re)boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootSpec {
    /// The kernel that the first disk's boot loader configuration names is entered directly.
    Disk,
    /// As `Disk`; where that cannot be done, and the first disk has an EFI system partition, as `Firmware`.
    Automatic {
        /// As for `Firmware`.
        firmware_fd: RawFd,
    },
    /// The firmware runs the boot loader of the first disk that has one.
    Firmware {
        /// The firmware's file, an ELF with a Xen/PVH note (`images/firmware`), opened for reading.
        firmware_fd: RawFd,
    },
    /// Named outright: an ELF or bzImage, with an optional initrd.
    Kernel {
        kernel_fd: RawFd,
        initrd_fd: Option<RawFd>,
        cmdline: String,
    },
}

/// A virtio block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// What control requests, events and metrics call it: the volume's id.
    pub id: String,
    /// At most 20 bytes: the virtio block serial, by which `/dev/disk/by-id` names it.
    /// A volume id does not fit with its dash: EC2 drops it (`vol0123456789abcdef0`).
    pub serial: String,
    pub read_only: bool,
    #[serde(default)]
    pub cache: Cache,
    /// Requests, and the bytes that they read or write. A request counts once for each 256 KiB or part of it.
    #[serde(default)]
    pub rate_limit: RateLimit,
    pub backing: DiskBacking,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskBacking {
    /// A plain raw file.
    Raw { fd: RawFd },
    /// `hearth_block::overlay`: a sparse data file and a chunk map over a read-only base. A data file that was made longer
    /// makes the disk larger.
    Overlay {
        data_fd: RawFd,
        map_fd: RawFd,
        /// Absent: the disk was blank at first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base_fd: Option<RawFd>,
        /// Of a base that is there in part; absent: all of it is there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        coming: Option<ComingBase>,
        /// `hearth_block::overlay::dirty`: where it is noted what is written. Without it the disk cannot be frozen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dirty_fd: Option<RawFd>,
        /// The key under which the data file lies encrypted, and what is kept of points in time; absent: it is plain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<KeySpec>,
        /// The key of the base; absent: it is plain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base_key: Option<KeySpec>,
        /// A point in time that is kept while the disk is written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        frozen: Option<FrozenSpec>,
    },
}

/// What a base in part has beside its file ([`hearth_block::base`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComingBase {
    /// The map of what has come, opened for reading.
    pub map_fd: RawFd,
    /// What whoever brings the rest calls it: at most 64 bytes.
    pub name: String,
}

/// A data key of `hearth_block::cipher`. It is in no message, so that nothing that writes messages down has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// The reading end of a pipe that holds the key's 64 bytes, and whose writing end is closed.
    pub pipe_fd: RawFd,
}

/// A point in time of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenSpec {
    /// The snapshot's id.
    pub name: String,
    /// `hearth_block::overlay::frozen`, opened for reading and writing.
    pub fd: RawFd,
}

/// A virtio net device on a TAP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicSpec {
    /// What control requests, events and metrics call it: the interface's id.
    pub id: String,
    /// `02:...`, six hex octets.
    pub mac: String,
    /// The queues of one TAP, 1 to 8, each opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, and with
    /// `IFF_MULTI_QUEUE` if they are several. The guest gets as many queue pairs.
    pub tap_fds: Vec<RawFd>,
    /// Bytes of IP packet; told to the guest by VIRTIO_NET_F_MTU.
    pub mtu: u16,
    /// Frames on the wire, and their bytes, to the guest.
    #[serde(default)]
    pub receive_limit: RateLimit,
    /// The same from the guest.
    #[serde(default)]
    pub transmit_limit: RateLimit,
}

/// A virtio vsock device (see [`crate::virtio::vsock`]).
///
/// The monitor has no paths, so the host's sockets come as a directory that it makes its working directory: it
/// connects to names in it. Hand over a clone of the directory's mount (`open_tree(2)` with `OPEN_TREE_CLONE`):
/// there is no way up from that one. A clone is good for one start: before Linux 6.15 it cannot be cloned again, and
/// the monitor moves it into its own mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockSpec {
    /// The guest's context id: 3 to 2^32 - 2.
    pub guest_cid: u32,
    /// A bound, listening Unix stream socket: where host programs connect.
    pub listener_fd: RawFd,
    /// A directory; `O_PATH` will do.
    pub directory_fd: RawFd,
    /// The guest's connection to port `P` of the host goes to the socket `<name>_<P>` of the directory.
    pub name: String,
}

/// How a monitor ended, as it says itself, or as its parent says of one that was killed. Without either, nothing
/// is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The guest powered off (ACPI S5), whether of itself or after the power button.
    GuestPowerOff,
    /// The control socket asked for an end without the guest's consent.
    Stopped,
    /// The machine could not be built or booted.
    StartFailed { message: String },
    /// The guest or the processor did what cannot be continued.
    Crashed { message: String },
    /// A signal ended the process.
    Killed { signal: i32 },
}
