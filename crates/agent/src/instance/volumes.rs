//! Volumes that come, go, grow and are limited while the instance runs.
//!
//! The monitor is asked for its devices whenever they may have changed, and after each deed; the rest is decided from that.
//! Nothing of it is written down but which volumes were here, before the guest can write to them. An agent that was killed
//! finds, after its restart:
//!
//! | killed | record | world | what the next agent does |
//! |---|---|---|---|
//! | while laying the volume | without it | half-made files under hidden names, or the whole volume | lays it, attaches it |
//! | after the record, before the request | with it | no device | opens the volume, which must be there, and attaches it |
//! | after the request | with it | the device, which holds the volume's lock | nothing |
//! | after asking the guest to let go | with it | the device is leaving, or gone | asks again, or tells that it is gone |
//! | between growing the file and the request | with it | a file that is longer than the disk | asks for the growth again; a monitor that starts instead grows the disk as it opens it |

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use hearth_api::agent::{InstanceIntent, InstanceVolume};
use hearth_vmm::control::{Reply, Request};
use hearth_vmm::limits::RateLimit;
use tokio::time::Instant;

use super::Actor;
use super::launch::{LaunchError, lay};
use super::spawn::Disk;
use crate::decide::{Attempt, Deed, Device, Disks, rate_limit};
use crate::monitor::{MonitorError, MonitorHandle};
use crate::points::is_move_id;
use crate::{chain, fault, volume};

/// Before a failed deed, or a question to a monitor that did not answer, is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Before a guest is asked again to let a volume go: one that is booting does not hear it.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What an actor knows of its monitor's disks.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// With the monitor's count of changes at which they were as said.
    devices: Option<(u64, BTreeMap<String, Device>)>,
    /// When the monitor may be asked for its devices again.
    ask_at: Option<Instant>,
    tried: BTreeMap<String, Tried>,
}

/// An [`Attempt`] with its clock.
#[derive(Debug)]
struct Tried {
    deed: Deed,
    failure: String,
    again_at: Instant,
}

impl Known {
    /// As decided upon at `now`; attempts at what is not wanted any more are forgotten.
    pub(super) fn disks(&mut self, intent: Option<&InstanceIntent>, now: Instant) -> Disks {
        let attempt = |(id, tried): (&String, &Tried)| {
            let attempt = Attempt {
                deed: tried.deed,
                failure: tried.failure.clone(),
                rests: now < tried.again_at,
            };
            (id.clone(), attempt)
        };
        let mut disks = Disks {
            devices: self.devices.as_ref().map(|(_, devices)| devices.clone()),
            attempts: self.tried.iter().map(attempt).collect(),
            troubles: BTreeMap::new(),
        };
        disks.settle(intent);
        self.tried.retain(|id, _| disks.attempts.contains_key(id));
        disks
    }

    /// When to look again.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let tries = self.tried.values().map(|tried| tried.again_at);
        tries.chain(self.ask_at).filter(|at| *at > now).min()
    }

    fn must_ask(&self, changes: u64, now: Instant) -> bool {
        let is_new = self.devices.as_ref().is_none_or(|(at, _)| *at != changes);
        is_new && self.ask_at.is_none_or(|at| at <= now)
    }
}

impl Actor {
    /// Asks the monitor for its devices, if what is known of them may be old.
    pub(super) async fn look_at_devices(&mut self) {
        let Some(monitor) = &self.monitor else { return };
        let changes = monitor.told().changes;
        if !self.known.must_ask(changes, Instant::now()) {
            return;
        }
        match monitor.ask(Request::Devices).await {
            Ok(Reply::Devices(devices)) => {
                let devices = devices.iter().map(|it| (it.device.clone(), Device::of(it)));
                self.known.devices = Some((changes, devices.collect()));
                self.known.ask_at = None;
            }
            answer => {
                tracing::warn!(
                    instance = self.record.instance_id,
                    ?answer,
                    "asking its monitor for its devices"
                );
                self.known.devices = None;
                self.known.ask_at = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Does it, and notes how it went.
    pub(super) async fn change_volume(&mut self, intent: &InstanceIntent, volume_id: &str, deed: Deed) {
        let mut volumes = intent.volumes.iter();
        let Some(volume) = volumes.find(|volume| volume.volume_id == volume_id) else {
            return;
        };
        let done = match deed {
            Deed::Attach { .. } => self.attach(intent, volume).await,
            Deed::Detach { force } => self.detach(volume_id, force).await,
            Deed::Resize { bytes } => self.resize(volume_id, bytes).await,
            Deed::Limit(limit) => self.limit(volume_id, limit).await,
        };
        // Whatever came of it.
        self.known.devices = None;
        let failure = match &done {
            Ok(Done::Dropped) => return,
            Ok(Done::Asked) => String::new(),
            Err(error) => chain(error),
        };
        let (instance, error) = (&self.record.instance_id, failure.as_str());
        let before = self.known.tried.get(volume_id);
        let is_news = before.is_none_or(|before| before.deed != deed || before.failure != failure);
        match error {
            // As often as it is tried.
            _ if !is_news => tracing::debug!(instance, volume = volume_id, ?deed, error, "tried again"),
            "" => tracing::info!(instance, volume = volume_id, ?deed, "changed a volume"),
            _ => tracing::error!(
                instance,
                volume = volume_id,
                ?deed,
                error,
                "changing a volume; trying again"
            ),
        }
        let pause = match (deed, &done) {
            (Deed::Detach { .. }, Ok(_)) => ASK_AGAIN,
            _ => RETRY,
        };
        let tried = Tried {
            deed,
            failure,
            again_at: Instant::now() + pause,
        };
        self.known.tried.insert(volume_id.to_owned(), tried);
    }

    async fn attach(
        &mut self,
        intent: &InstanceIntent,
        volume: &InstanceVolume,
    ) -> Result<Done, LaunchError> {
        let id = &volume.volume_id;
        // One that has come from another host may have been here once before.
        let is_recorded = self.record.volumes.contains(id) && !is_move_id(&volume.image_id);
        let was_here = volume.has_run || is_recorded;
        let Some(monitor) = &mut self.monitor else {
            return Ok(Done::Dropped);
        };
        // An image may take long to come.
        let opened = tokio::select! {
            opened = lay(&self.context, volume, was_here) => opened?,
            _ = self.wanted.changed() => return Ok(Done::Dropped),
            _ = monitor.ended_or_told() => return Ok(Done::Dropped),
        };
        fault::point("volume-laid");
        if !self.record.volumes.contains(id) {
            let mut record = self.record.clone();
            record.volumes.insert(id.clone());
            if !self.remember(record).await {
                return Ok(Done::Dropped);
            }
        }
        fault::point("volume-recorded");
        let Some(monitor) = &self.monitor else {
            return Ok(Done::Dropped);
        };
        self.allow_file_size(monitor, opened.largest_file()?)?;
        let disk = Disk {
            id: id.clone(),
            volume: opened,
            rate_limit: rate_limit(volume),
        };
        let mut descriptors = Vec::new();
        let spec = disk.spec(&mut |file: File| {
            descriptors.push(OwnedFd::from(file));
            descriptors.len() as RawFd - 1
        });
        tracing::debug!(instance = intent.instance_id, volume = id, "attaching");
        monitor.ask_with(Request::AttachDisk(spec), descriptors).await?;
        fault::point("volume-attached");
        Ok(Done::Asked)
    }

    async fn detach(&self, volume_id: &str, force: bool) -> Result<Done, LaunchError> {
        let device = volume_id.to_owned();
        let done = self.order(Request::Detach { device, force }).await;
        fault::point("volume-detached");
        done
    }

    async fn resize(&self, volume_id: &str, bytes: u64) -> Result<Done, LaunchError> {
        let Some(monitor) = &self.monitor else {
            return Ok(Done::Dropped);
        };
        let (dir, id) = (self.context.dir.clone(), volume_id.to_owned());
        tokio::task::spawn_blocking(move || volume::grow(&dir, &id, bytes)).await??;
        fault::point("volume-grown");
        self.allow_file_size(monitor, bytes)?;
        let device = volume_id.to_owned();
        self.order(Request::Resize { device }).await
    }

    async fn limit(&self, volume_id: &str, limit: RateLimit) -> Result<Done, LaunchError> {
        let device = volume_id.to_owned();
        self.order(Request::SetRateLimit { device, limit }).await
    }

    async fn order(&self, request: Request) -> Result<Done, LaunchError> {
        let Some(monitor) = &self.monitor else {
            return Ok(Done::Dropped);
        };
        monitor.ask(request).await?;
        Ok(Done::Asked)
    }

    /// Whom no jail holds has no limit.
    fn allow_file_size(&self, monitor: &MonitorHandle, bytes: u64) -> Result<(), MonitorError> {
        match &self.context.jail {
            Some(jail) => jail.allow_file_size(monitor, bytes),
            None => Ok(()),
        }
    }
}

/// What came of a deed that did not fail.
enum Done {
    /// The monitor has agreed; the devices tell the rest.
    Asked,
    /// Something else came first: it is decided anew.
    Dropped,
}
