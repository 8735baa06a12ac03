//! A paused machine's way into a snapshot, and a new machine's way out of one.

use std::fs::File;
use std::os::unix::net::UnixStream;

use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vmm_sys_util::eventfd::EventFd;

use super::pages::PageSet;
use super::{About, Snapshot, SnapshotError, Writeback, image, writer};
use crate::console::Line;
use crate::legacy::serial::Serial;
use crate::machine::{Machine, Plan};
use crate::memory::userfault::PageServer;
use crate::memory::{GuestMemory, Layout};
use crate::random;
use crate::vcpu::VcpuState;

/// What a snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// All memory. With `track`, pages that are written from now on are kept account of, so that a diff can follow.
    Full { track: bool },
    /// What was written since the snapshot before, which was tracked.
    Diff,
}

/// The snapshot that the next diff would be a diff to, and what it would have.
#[derive(Debug)]
pub struct Tracking {
    base: Uuid,
    /// Written since, as far as KVM's log has been read already: a diff that failed must not lose it.
    written: PageSet,
}

/// What a machine goes on from.
pub struct Restore {
    pub snapshot: Snapshot,
    pub memory: MemorySource,
    /// Whether a diff to this snapshot shall be possible.
    pub track: bool,
}

/// Where the guest's memory is.
pub enum MemorySource {
    /// The memory file, mapped: a page is read when it is looked at, and the file never written. It must stay as
    /// it is as long as the machine lives. `verify` reads it all before, and finds each flipped bit.
    File { file: File, verify: bool },
    /// A [page server](crate::memory::userfault), which sees to it that pages are as they were written. If it dies
    /// before the machine does, the machine ends.
    Userfault {
        socket: UnixStream,
        /// `/dev/userfaultfd`, opened for reading and writing.
        device: Option<File>,
    },
}

impl Restore {
    pub(crate) fn map(&self, layout: &Layout) -> Result<(GuestMemory, Option<PageServer>), SnapshotError> {
        let failed = SnapshotError::io("mapping the memory file");
        match &self.memory {
            MemorySource::File { file, verify } => {
                image::check_len(file, &self.snapshot.pages)?;
                if *verify {
                    image::verify(file, &self.snapshot.pages, &self.snapshot.checksums)?;
                }
                let file = file.try_clone().map_err(&failed)?;
                Ok((layout.map_file(file).map_err(&failed)?, None))
            }
            MemorySource::Userfault { socket, device } => {
                let memory = layout.map().map_err(&failed)?;
                let failed = SnapshotError::io("connecting the page server");
                let socket = socket.try_clone().map_err(&failed)?;
                let server = PageServer::new(&memory, socket, device.as_ref()).map_err(&failed)?;
                Ok((memory, Some(server)))
            }
        }
    }

    pub(crate) fn serial(&self, interrupt: EventFd, line: &Line) -> Result<Serial, SnapshotError> {
        Ok(Serial::restored(&self.snapshot.devices.serial, interrupt, line)?)
    }
}

impl Tracking {
    pub(crate) fn new(base: Uuid, pages: u64) -> Self {
        Self {
            base,
            written: PageSet::none(pages),
        }
    }
}

impl Machine {
    /// Writes a snapshot of the paused machine to two files, which are not synced yet: the machine may run again
    /// meanwhile. Memory is copied at a few GB/s, and a diff's in proportion to what it has.
    ///
    /// # Errors
    /// The machine is not paused, a diff has no base, or a file cannot be written. The machine can go on in any
    /// case, and another diff has what this one should have had.
    pub fn snapshot(
        &mut self,
        plan: &Plan,
        kind: Kind,
        state: &File,
        memory: &File,
        writeback: Writeback,
    ) -> Result<About, SnapshotError> {
        let paused = self.paused.as_ref().ok_or(SnapshotError::NotPaused)?;
        let kvm = SnapshotError::io("asking KVM");
        let shape = self.vm.vcpu_shape(&plan.kvm).map_err(&kvm)?;
        let vcpus = paused
            .iter()
            .map(|resting| VcpuState::save(&resting.vcpu, &shape))
            .collect::<Result<Vec<_>, _>>()?;
        let mut about = About {
            id: uuid::Builder::from_random_bytes(
                random::array().map_err(SnapshotError::io("naming the snapshot"))?,
            )
            .into_uuid(),
            base: None,
            instance_id: plan.instance_id.clone(),
            vcpus: plan.vcpus,
            memory_mib: plan.memory_mib,
            cpu: plan.cpu.clone(),
            devices: plan.devices.arrangement(),
        };
        let pages = match kind {
            Kind::Full { track } => {
                self.tracking = None;
                self.vm.log_dirty_pages(track).map_err(&kvm)?;
                if track {
                    self.vm.take_dirty_pages().map_err(&kvm)?;
                }
                PageSet::all(about.pages())
            }
            Kind::Diff => {
                let tracking = self.tracking.as_mut().ok_or(SnapshotError::NotTracked)?;
                let written = self.vm.take_dirty_pages().map_err(&kvm)?;
                tracking.written.insert_words(&written);
                about.base = Some(tracking.base);
                tracking.written.clone()
            }
        };
        // SAFETY: vCPUs and devices are paused, and go on by a method that takes the machine as mutable.
        let checksums = unsafe { writer::write(self.vm.memory(), &pages, memory, writeback) }?;
        let snapshot = Snapshot {
            checksums,
            pages,
            vcpus,
            machine: self.vm.save()?,
            devices: self.bus.save()?,
            about,
        };
        snapshot.write(state)?;
        if kind != (Kind::Full { track: false }) {
            self.tracking = Some(Tracking::new(snapshot.about.id, snapshot.about.pages()));
        }
        Ok(snapshot.about)
    }

    /// Makes this machine, whose vCPUs have not run yet, what the snapshot has, and starts the devices.
    pub(crate) fn take_over(
        &mut self,
        plan: &Plan,
        vcpus: &[VcpuFd],
        restore: &Restore,
    ) -> Result<(), SnapshotError> {
        let kvm = SnapshotError::io("asking KVM");
        let snapshot = &restore.snapshot;
        let shape = self.vm.vcpu_shape(&plan.kvm).map_err(&kvm)?;
        // An IOAPIC with an edge pending hands it to a local APIC, which therefore is there first.
        for (vcpu, state) in vcpus.iter().zip(&snapshot.vcpus) {
            state.restore(vcpu, &shape)?;
            // As after a pause.
            let _ = vcpu.kvmclock_ctrl();
        }
        self.vm.restore(&snapshot.machine)?;
        self.bus.restore(&snapshot.devices)?;
        let stand_ins = self.slots.ask_for_stand_ins();
        stand_ins.map_err(SnapshotError::io("telling the guest of its NICs"))?;
        if restore.track {
            self.vm.log_dirty_pages(true).map_err(&kvm)?;
            self.vm.take_dirty_pages().map_err(&kvm)?;
            self.tracking = Some(Tracking::new(snapshot.about.id, snapshot.about.pages()));
        }
        self.generation.renew()?;
        self.bus.resume();
        Ok(())
    }
}
