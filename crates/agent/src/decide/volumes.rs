//! The volumes of a running instance: what its monitor shall attach, let go, grow or limit next, and what is told of them.
//!
//! A device that no intent names stays (law of state 5): only `detaching` takes a volume away.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::volume_observation::State;
use hearth_api::agent::{InstanceIntent, InstanceVolume, VolumeObservation};
use hearth_vmm::control::{DeviceStatus, DiskStatus};
use hearth_vmm::limits::{Rate, RateLimit};

use super::{Action, Monitor, at_rest};
use crate::record::{Phase, Record};

/// Characters of a volume's message.
const MAX_MESSAGE: usize = 300;
const MIB: u64 = 1 << 20;

/// The disks of a living monitor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disks {
    /// By volume id, as the monitor has them. `None`: it has not been asked, or has not answered.
    pub devices: Option<BTreeMap<String, Device>>,
    /// What was last tried for a volume, and is still wanted.
    pub attempts: BTreeMap<String, Attempt>,
    /// Why what volumes begin with does not come, by its id.
    pub troubles: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The guest was asked to let it go.
    pub leaving: bool,
    /// `None`: the monitor is an older one, which does not tell. Its disk is taken to be as it should be.
    pub status: Option<DiskStatus>,
}

/// Not durable: a new agent tries anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub deed: Deed,
    /// Why it failed; empty: it did not.
    pub failure: String,
    /// It is too early to try again.
    pub rests: bool,
}

/// What the monitor is to do with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Attach { epoch: u64 },
    Detach { force: bool },
    Resize { bytes: u64 },
    Limit(RateLimit),
}

impl Device {
    pub fn of(status: &DeviceStatus) -> Device {
        Device {
            leaving: status.leaving,
            status: status.disk,
        }
    }
}

impl Disks {
    /// Forgets attempts at what is not wanted any more, or is done.
    pub fn settle(&mut self, intent: Option<&InstanceIntent>) {
        let Some(devices) = &self.devices else { return };
        let wanted: BTreeMap<&str, Deed> = intent.map(|intent| deeds(intent, devices)).unwrap_or_default();
        self.attempts
            .retain(|id, attempt| wanted.get(id.as_str()) == Some(&attempt.deed));
    }
}

/// The limits of a volume as its monitor is told them.
pub fn rate_limit(volume: &InstanceVolume) -> RateLimit {
    let rate = |per_second| NonZeroU64::new(per_second).map(|per_second| Rate { per_second, burst: 0 });
    RateLimit {
        operations: rate(volume.iops.into()),
        bytes: rate(u64::from(volume.throughput_mib) * MIB),
    }
}

/// The next thing to do for a running instance.
pub(super) fn next(intent: &InstanceIntent, disks: &Disks) -> Option<Action> {
    let wanted = deeds(intent, disks.devices.as_ref()?);
    let rests = |id: &str, deed: &Deed| {
        let attempt = disks.attempts.get(id);
        attempt.is_some_and(|attempt| attempt.rests && attempt.deed == *deed)
    };
    let mut volumes = intent.volumes.iter();
    volumes.find_map(|volume| {
        let deed = *wanted.get(volume.volume_id.as_str())?;
        (!rests(&volume.volume_id, &deed)).then(|| Action::Volume {
            volume_id: volume.volume_id.clone(),
            deed,
        })
    })
}

fn deeds<'a>(intent: &'a InstanceIntent, devices: &BTreeMap<String, Device>) -> BTreeMap<&'a str, Deed> {
    let volumes = intent.volumes.iter().enumerate();
    let wanted = volumes.filter_map(|(index, volume)| {
        let device = devices.get(&volume.volume_id);
        Some((volume.volume_id.as_str(), deed(volume, index == 0, device)?))
    });
    wanted.collect()
}

fn deed(volume: &InstanceVolume, is_root: bool, device: Option<&Device>) -> Option<Deed> {
    let Some(device) = device else {
        let epoch = volume.attachment_epoch;
        return (!is_root && !volume.detaching).then_some(Deed::Attach { epoch });
    };
    if volume.detaching {
        let force = volume.force_detach;
        return (!is_root).then_some(Deed::Detach { force });
    }
    let status = device.status.filter(|_| !device.leaving)?;
    let (bytes, limit) = (volume.size_bytes, rate_limit(volume));
    if status.size_bytes < bytes {
        Some(Deed::Resize { bytes })
    } else {
        (status.rate_limit != limit).then_some(Deed::Limit(limit))
    }
}

/// What the control plane is told of the volumes; of those of which nothing is known now, nothing.
pub(super) fn observe(intent: &InstanceIntent, record: &Record, monitor: &Monitor) -> Vec<VolumeObservation> {
    let seen = |volume: &InstanceVolume| match monitor {
        Monitor::Absent { .. } => Some((absent(intent, volume, record), 0, "")),
        Monitor::Alive {
            entered: false,
            disks,
            ..
        } => (!volume.detaching).then_some((State::Attaching, 0, trouble(volume, disks))),
        Monitor::Alive { disks, .. } => {
            let device = disks.devices.as_ref()?.get(&volume.volume_id);
            let attempt = disks.attempts.get(&volume.volume_id);
            let failure = match attempt.map_or("", |attempt| attempt.failure.as_str()) {
                "" => trouble(volume, disks),
                failure => failure,
            };
            Some(alive(volume, device, failure))
        }
    };
    let observed = intent.volumes.iter().filter_map(|volume| {
        let (state, size_bytes, message) = seen(volume)?;
        Some(VolumeObservation {
            volume_id: volume.volume_id.clone(),
            attachment_epoch: volume.attachment_epoch,
            state: state.into(),
            size_bytes,
            message: message.chars().take(MAX_MESSAGE).collect(),
        })
    });
    observed.collect()
}

/// What the guest may be waiting for.
fn trouble<'a>(volume: &InstanceVolume, disks: &'a Disks) -> &'a str {
    disks.troubles.get(&volume.image_id).map_or("", String::as_str)
}

/// No process of the instance lives, and so none has its volumes open.
fn absent(intent: &InstanceIntent, volume: &InstanceVolume, record: &Record) -> State {
    if volume.detaching || intent.desired() == Desired::Terminated || record.phase == Phase::Gone {
        return State::Detached;
    }
    match record.phase {
        Phase::Idle | Phase::Ended(_) if matches!(at_rest(Some(intent), record), Action::Launch { .. }) => {
            State::Attaching
        }
        _ => State::Attached,
    }
}

fn alive<'a>(volume: &InstanceVolume, device: Option<&Device>, failure: &'a str) -> (State, u64, &'a str) {
    let size = |device: &Device| device.status.map_or(0, |status| status.size_bytes);
    match device {
        None if volume.detaching => (State::Detached, 0, ""),
        None => (State::Attaching, 0, failure),
        Some(device) if volume.detaching => (
            State::Busy,
            size(device),
            match failure {
                "" => "the guest was asked to let the volume go, and still has it",
                failure => failure,
            },
        ),
        Some(device) if device.leaving => (
            State::Attaching,
            size(device),
            "the guest was asked to let the volume go before, and still has it",
        ),
        Some(device) => (State::Attached, size(device), failure),
    }
}

#[cfg(test)]
mod tests;
