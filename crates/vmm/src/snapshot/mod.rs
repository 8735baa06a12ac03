//! Snapshots: the whole state of a paused machine, in two files that another monitor can go on from.
//!
//! The **state** file ([`format`]) has what the machine is beside its memory: vCPUs, interrupt controllers, device
//! registers, and which pages are in the **memory** file ([`image`]), with their checksums. A **full** snapshot has
//! all pages. A **diff** has those written since its base, the snapshot before it, and names that one; [`merge`]
//! makes a full one of both.
//!
//! The monitor has no paths: whoever asks for a snapshot opens both files under temporary names, and renames them
//! when the monitor says that they are whole and on the disk. What is half written was never renamed.

pub mod format;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
pub mod image;
mod machine;
mod merge;
pub mod pages;
mod saved;
mod writer;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use machine::{Kind, MemorySource, Restore, Tracking};
pub use merge::merge;
pub use saved::{Saved, StateError};
pub use writer::Writeback;

use crate::bus::SavedDevices;
use crate::cpu::CpuSpec;
use crate::memory::MIB;
use crate::vcpu::VcpuState;
use crate::vm::VmState;
use crate::vmgenid::RenewError;
use format::{Name, Sections};
use pages::{PAGE, PageSet, Runs};

const ABOUT: Name = *b"ABOU";
const PAGES: Name = *b"PAGE";
const VCPUS: Name = *b"VCPU";
const MACHINE: Name = *b"MACH";
const DEVICES: Name = *b"DEVI";

/// Bytes of a state file. The largest part are checksums: 4 bytes for each MiB of memory.
const STATE_LIMIT: u64 = 512 << 20;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("this is no snapshot of a machine")]
    NoSnapshot,
    #[error("the snapshot is of version {version}; this monitor reads version {supported}", supported = format::VERSION)]
    Version { version: u32 },
    #[error("the snapshot was cut short: {there} bytes are there")]
    Cut { there: u64 },
    #[error("the snapshot's state is damaged: {0}")]
    Damaged(&'static str),
    #[error("the snapshot's memory is damaged in the MiB from {at:#x} on")]
    DamagedMemory { at: u64 },
    #[error("the snapshot is a diff to snapshot {base}: merge it first")]
    Diff { base: Uuid },
    #[error("the diff belongs to snapshot {wanted}, and this is {given}")]
    WrongBase { wanted: Uuid, given: Uuid },
    #[error("the snapshot is of a machine with {saved}, and this one has {here}")]
    OtherShape { saved: String, here: String },
    #[error("a diff needs a snapshot before it, after which written pages were tracked")]
    NotTracked,
    #[error("the machine is not paused")]
    NotPaused,
    #[error(transparent)]
    State(#[from] StateError),
    #[error("renewing the generation id")]
    Generation(#[from] RenewError),
    #[error("{doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
}

impl SnapshotError {
    /// Names what was being done when the host refused.
    pub fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// Which snapshot it is, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub id: Uuid,
    /// The snapshot that a diff is a diff to.
    pub base: Option<Uuid>,
    pub instance_id: String,
    pub vcpus: u8,
    pub memory_mib: u64,
    pub cpu: CpuSpec,
    pub devices: Vec<SavedSlot>,
}

/// What is known of the device in a PCI slot, for a machine that shall have such a one there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSlot {
    pub slot: u8,
    /// As metrics call it.
    pub kind: String,
    /// The guest was asked to let it go.
    pub leaving: bool,
}

impl About {
    /// Guest pages.
    fn pages(&self) -> u64 {
        self.memory_mib.saturating_mul(MIB / PAGE)
    }
}

/// What a state file says.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub about: About,
    /// Those that are in the memory file.
    pub pages: PageSet,
    pub checksums: Vec<u32>,
    pub(crate) vcpus: Vec<VcpuState>,
    pub(crate) machine: VmState,
    pub(crate) devices: SavedDevices,
}

impl Snapshot {
    /// Writes a state file. It is on the disk when the caller has synced it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &File) -> Result<(), SnapshotError> {
        let failed = SnapshotError::io("writing the state file");
        let sections = [
            (ABOUT, encode("description", &self.about)?),
            (
                PAGES,
                encode("page table", &(self.pages.encoded(), &self.checksums))?,
            ),
            (VCPUS, encode("vCPUs", &self.vcpus)?),
            (MACHINE, encode("machine", &self.machine)?),
            (DEVICES, encode("devices", &self.devices)?),
        ];
        file.set_len(0).map_err(&failed)?;
        file.write_all_at(&format::encode(&sections), 0).map_err(&failed)
    }

    /// Reads and checks a state file.
    ///
    /// # Errors
    /// It cannot be read; or it is no whole and undamaged state that this monitor understands.
    pub fn read(file: &File) -> Result<Self, SnapshotError> {
        let failed = SnapshotError::io("reading the state file");
        let len = file.metadata().map_err(&failed)?.len();
        if len > STATE_LIMIT {
            return Err(SnapshotError::NoSnapshot);
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).map_err(&failed)?;
        Self::decode(&bytes)
    }

    /// Reads and checks the bytes of a state file.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn decode(file: &[u8]) -> Result<Self, SnapshotError> {
        let sections = Sections::decode(file)?;
        let about: About = decode("description", sections.get(ABOUT)?)?;
        // Or the page set below would be as large as a stranger likes.
        if about.pages() > STATE_LIMIT / 4 * (MIB / PAGE) {
            return Err(SnapshotError::Damaged("description"));
        }
        let (runs, checksums): (Runs, Vec<u32>) = decode("page table", sections.get(PAGES)?)?;
        // A checksum for each MiB is there, so the set takes no more than 32 times the file.
        if checksums.len() as u64 != about.memory_mib {
            return Err(SnapshotError::Damaged("page table"));
        }
        let pages = runs.decode(about.pages());
        let snapshot = Self {
            pages: pages.ok_or(SnapshotError::Damaged("page table"))?,
            checksums,
            vcpus: decode("vCPUs", sections.get(VCPUS)?)?,
            machine: decode("machine", sections.get(MACHINE)?)?,
            devices: decode("devices", sections.get(DEVICES)?)?,
            about,
        };
        if snapshot.vcpus.len() != usize::from(snapshot.about.vcpus) {
            return Err(SnapshotError::Damaged("vCPUs"));
        }
        Ok(snapshot)
    }

    /// Checks that a machine of this shape can go on from the snapshot.
    ///
    /// # Errors
    /// It cannot: it has more or less of something, or the snapshot is a diff.
    pub fn check(&self, vcpus: u8, memory_mib: u64, cpu: &CpuSpec) -> Result<(), SnapshotError> {
        if let Some(base) = self.about.base {
            return Err(SnapshotError::Diff { base });
        }
        let shape = |vcpus: u8, mib: u64, cpu: &CpuSpec| {
            let CpuSpec {
                model,
                threads_per_core,
            } = cpu;
            format!("{vcpus} vCPUs and {mib} MiB, CPU model {model}, threads per core {threads_per_core}")
        };
        let about = &self.about;
        let saved = shape(about.vcpus, about.memory_mib, &about.cpu);
        let here = shape(vcpus, memory_mib, cpu);
        if saved != here {
            return Err(SnapshotError::OtherShape { saved, here });
        }
        Ok(())
    }
}

fn encode<T: Serialize>(part: &'static str, value: &T) -> Result<Vec<u8>, SnapshotError> {
    Ok(Saved::of(part, value)?.into_bytes())
}

fn decode<T: DeserializeOwned>(part: &'static str, bytes: &[u8]) -> Result<T, SnapshotError> {
    Ok(Saved::from(bytes.to_vec()).read(part)?)
}

#[cfg(test)]
mod tests;
