//! What a simulated host says of its instances. Pure: times come from outside.

use std::collections::BTreeMap;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::{
    InstanceIntent, InstanceObservation, Intents, RunEnd, VolumeObservation, run_end, volume_observation,
};
use std::time::Duration;
use tokio::time::Instant;

/// The instances of one host.
#[derive(Debug, Default)]
pub struct Instances(BTreeMap<String, Instance>);

#[derive(Debug)]
struct Instance {
    desired: Desired,
    run: u64,
    phase: Phase,
    /// When it will be what is desired; `None`: it is.
    due: Option<Instant>,
    /// Told while it runs. The guest takes and lets go whatever it shall at once.
    volumes: Vec<VolumeObservation>,
}

impl Instances {
    /// Takes what is wanted now. Answers whether anything is to be said at once.
    pub fn want(&mut self, intents: &Intents, now: Instant, acts_after: Duration) -> bool {
        let before = self.0.len();
        let named: BTreeMap<&str, &InstanceIntent> = intents
            .instances
            .iter()
            .map(|intent| (intent.instance_id.as_str(), intent))
            .collect();
        self.0.retain(|id, _| named.contains_key(id.as_str()));
        let mut is_news = self.0.len() != before;
        for (id, intent) in named {
            let volumes = volumes(intent);
            if let Some(known) = self.0.get_mut(id)
                && known.desired == intent.desired()
                && known.run == intent.run
            {
                is_news |= known.volumes != volumes;
                known.volumes = volumes;
                continue;
            }
            is_news = true;
            let phase = match intent.desired() {
                Desired::Running => Phase::Starting,
                _ => Phase::Stopping,
            };
            self.0.insert(
                id.to_owned(),
                Instance {
                    desired: intent.desired(),
                    run: intent.run,
                    phase,
                    due: Some(now + acts_after),
                    volumes,
                },
            );
        }
        is_news
    }

    /// When something changes next.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(|instance| instance.due).min()
    }

    /// Changes what is due. Answers how many began to run; `None`: nothing changed.
    pub fn change(&mut self, now: Instant) -> Option<u64> {
        let mut began = None;
        for instance in self.0.values_mut() {
            if instance.due.is_none_or(|due| due > now) {
                continue;
            }
            instance.due = None;
            instance.phase = match instance.desired {
                Desired::Running => Phase::Running,
                Desired::Terminated => Phase::Gone,
                Desired::Stopped | Desired::Unspecified => Phase::Ended,
            };
            let began = began.get_or_insert(0);
            *began += u64::from(instance.phase == Phase::Running);
        }
        began
    }

    pub fn observe(&self) -> Vec<InstanceObservation> {
        self.0
            .iter()
            .map(|(id, instance)| InstanceObservation {
                instance_id: id.clone(),
                phase: instance.phase.into(),
                run: instance.run,
                end: (instance.phase == Phase::Ended).then(|| RunEnd {
                    cause: run_end::Cause::Requested.into(),
                    message: String::new(),
                }),
                start_micros: u64::from(instance.phase == Phase::Running),
                volumes: match instance.phase {
                    Phase::Running => instance.volumes.clone(),
                    _ => Vec::new(),
                },
                ..InstanceObservation::default()
            })
            .collect()
    }
}

fn volumes(intent: &InstanceIntent) -> Vec<VolumeObservation> {
    let volumes = intent.volumes.iter().map(|volume| VolumeObservation {
        volume_id: volume.volume_id.clone(),
        attachment_epoch: volume.attachment_epoch,
        state: match volume.detaching {
            true => volume_observation::State::Detached,
            false => volume_observation::State::Attached,
        }
        .into(),
        size_bytes: if volume.detaching { 0 } else { volume.size_bytes },
        message: String::new(),
    });
    volumes.collect()
}

#[cfg(test)]
mod tests {
    use hearth_api::agent::InstanceVolume;

    use super::*;

    fn intents(desired: Desired, run: u64) -> Intents {
        Intents {
            instances: vec![InstanceIntent {
                instance_id: "i-1".into(),
                desired: desired.into(),
                run,
                ..InstanceIntent::default()
            }],
            ..Intents::default()
        }
    }

    fn phase(instances: &Instances) -> Option<Phase> {
        instances.observe().first().map(InstanceObservation::phase)
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_runs_stops_and_goes_each_when_it_is_due() {
        let (mut instances, wait) = (Instances::default(), Duration::from_secs(5));
        let start = Instant::now();
        assert!(instances.want(&intents(Desired::Running, 1), start, wait));
        assert!(
            !instances.want(&intents(Desired::Running, 1), start, wait),
            "the same again is no news"
        );
        assert_eq!(phase(&instances), Some(Phase::Starting));
        assert_eq!(instances.change(start), None);
        assert_eq!(instances.next(), Some(start + wait));
        assert_eq!(instances.change(start + wait), Some(1));
        assert_eq!(phase(&instances), Some(Phase::Running));
        let mut attached = intents(Desired::Running, 1);
        attached.instances[0].volumes.push(InstanceVolume {
            volume_id: "vol-1".into(),
            ..InstanceVolume::default()
        });
        assert!(instances.want(&attached, start, wait), "a volume is news");
        assert!(!instances.want(&attached, start, wait));
        assert_eq!(instances.observe()[0].volumes.len(), 1);
        instances.want(&intents(Desired::Stopped, 1), start, wait);
        assert_eq!(instances.change(start + wait), Some(0));
        assert_eq!(phase(&instances), Some(Phase::Ended));
        instances.want(&intents(Desired::Terminated, 1), start, wait);
        instances.change(start + wait);
        assert_eq!(phase(&instances), Some(Phase::Gone));
        assert!(instances.want(&Intents::default(), start, wait));
        assert_eq!(phase(&instances), None);
    }
}
