//! Points in time of disks: what they hold when a snapshot of them is asked for.
//!
//! A disk is frozen while the machine is paused: its workers have drained then, so that nothing that the guest was not
//! yet answered is under way to a file.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_block::{Disk, Freeze};

use super::Lifecycle;
use super::devices::ChangeError;
use crate::control::FreezeSpec;
use crate::devices::Backend;
use crate::machine::Machine;
use crate::open::{Passed, take_store};

impl Lifecycle {
    /// Freezes the disks at one moment; says how long the machine was paused for it. If one cannot be frozen, those before
    /// it in the list are frozen all the same.
    pub(super) fn freeze(
        &self,
        wanted: &[FreezeSpec],
        descriptors: Vec<OwnedFd>,
        machine: &mut Machine,
    ) -> Result<Duration, ChangeError> {
        let runs = self.runs()?;
        let mut descriptors = Passed::new(descriptors);
        let mut disks = Vec::new();
        for spec in wanted {
            let mut take = |fd, what| {
                take_store(&mut descriptors, fd, what).map_err(|source| ChangeError::Open {
                    device: spec.device.clone(),
                    source,
                })
            };
            let freeze = Freeze {
                name: spec.name.clone(),
                frozen: take(spec.frozen, "frozen contents")?,
                dirty: take(spec.dirty, "dirty map")?,
            };
            disks.push((&spec.device, self.disk(&spec.device)?, freeze));
        }
        let begun = Instant::now();
        machine.pause().map_err(|_| ChangeError::NotRunning)?;
        let frozen = disks.into_iter().try_for_each(|(device, disk, freeze)| {
            disk.freeze(freeze).map_err(|source| ChangeError::Host {
                doing: "freezing",
                device: device.clone(),
                source,
            })
        });
        if runs {
            machine.resume();
        }
        frozen.map(|()| begun.elapsed())
    }

    pub(super) fn thaw(&self, device: &str, name: &str) -> Result<(), ChangeError> {
        self.disk(device)?.thaw(name);
        Ok(())
    }

    fn disk(&self, id: &str) -> Result<Arc<dyn Disk>, ChangeError> {
        match &self.plan.devices.get(id)?.1.backend {
            Backend::Disk(plan) => Ok(Arc::clone(&plan.disk)),
            _ => Err(ChangeError::NoDisk(id.to_owned())),
        }
    }
}
