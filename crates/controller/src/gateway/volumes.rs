//! What an agent's observation says of the volumes of running instances.

use std::collections::BTreeMap;

use hearth_api::agent::{Observation, VolumeObservation};

use crate::lifecycle::{Step, observe_attachment};
use crate::state::{Instance, ModificationState, State, Volume};

/// Characters of a message that are kept. What a host says has a bound, whatever it says.
const MAX_MESSAGE: usize = 300;

/// Volumes as they are from now on, at a time in milliseconds since the epoch; those alone of which something new is said.
/// What is said of other hosts' volumes and of attachments of before says nothing.
pub(super) fn news(state: &State, host_id: &str, observation: &Observation, now: i64) -> Vec<Volume> {
    let mut news: BTreeMap<&str, Volume> = BTreeMap::new();
    for reported in &observation.instances {
        let row = state.get::<Instance>(&reported.instance_id);
        if row.is_none_or(|row| row.host_id != host_id) {
            continue;
        }
        for seen in &reported.volumes {
            let known = state.get::<Volume>(&seen.volume_id);
            let own = known.filter(|volume| is_about(seen, &reported.instance_id, volume));
            if let Some(volume) = own {
                let after = observe(volume.clone(), seen, now);
                if after != *volume {
                    news.insert(&volume.id, after);
                }
            }
        }
    }
    news.into_values().collect()
}

fn is_about(seen: &VolumeObservation, instance_id: &str, volume: &Volume) -> bool {
    let attachment = volume.attachment.as_ref();
    attachment.is_some_and(|a| a.instance_id == instance_id && a.epoch == seen.attachment_epoch)
}

/// A volume after an observation of its attachment.
fn observe(mut volume: Volume, seen: &VolumeObservation, now: i64) -> Volume {
    let message: String = seen.message.chars().take(MAX_MESSAGE).collect();
    // The guest has this disk.
    volume.is_made |= seen.size_bytes > 0;
    grow(&mut volume, seen, &message, now);
    let Some(attachment) = &mut volume.attachment else {
        return volume;
    };
    match observe_attachment(attachment.progress, seen.state()) {
        Some(Step::Becomes(progress)) => attachment.set_progress(progress, now),
        Some(Step::Ends) => {
            volume.detach(now);
            return volume;
        }
        None => {}
    }
    attachment.trouble = message;
    volume
}

/// A modification is completed when the guest has the size, also if it was given up meanwhile.
fn grow(volume: &mut Volume, seen: &VolumeObservation, message: &str, now: i64) {
    let Some(modification) = &mut volume.modification else {
        return;
    };
    let has_grown = seen.size_bytes >= modification.target.size_gib << 30;
    match modification.state {
        ModificationState::Modifying if !has_grown => message.clone_into(&mut modification.message),
        ModificationState::Modifying => volume.complete_modification(now),
        // A size that it had already says nothing.
        ModificationState::Failed if has_grown && modification.target.size_gib > volume.spec.size_gib => {
            volume.spec = modification.target;
            modification.state = ModificationState::Completed;
            modification.message.clear();
        }
        ModificationState::Failed | ModificationState::Completed => {}
    }
}

#[cfg(test)]
mod tests {
    use hearth_api::agent::volume_observation::State as Seen;
    use hearth_api::agent::{InstanceObservation, Observation};

    use super::*;
    use crate::catalog::volume_types::VolumeSpec;
    use crate::state::tests::{a_host, a_volume, an_instance};
    use crate::state::{Attachment, Modification, Progress, Reservation, Tx};

    fn state(volume: Volume) -> State {
        let mut state = State::default();
        let mut tx = Tx::new(&mut state, 0);
        tx.put(a_host("h-1"));
        tx.put(a_host("h-2"));
        tx.put(Reservation {
            id: "r-1".into(),
            account_id: "1".into(),
            region: "local-1".into(),
            created_at: 0,
        });
        tx.put(an_instance("i-1", "h-1", "r-1"));
        tx.put(volume);
        tx.finish().unwrap();
        state
    }

    fn volume(progress: Progress) -> Volume {
        let attachment = Attachment {
            progress,
            ..Attachment::first("i-1", "/dev/sdf", false, 0)
        };
        Volume {
            host_id: Some("h-1".into()),
            attachment: Some(attachment),
            epoch: 1,
            ..a_volume("vol-1", 8)
        }
    }

    fn seen(state: Seen, size_bytes: u64) -> VolumeObservation {
        VolumeObservation {
            volume_id: "vol-1".into(),
            attachment_epoch: 1,
            state: state.into(),
            size_bytes,
            message: String::new(),
        }
    }

    fn say(state: &State, host_id: &str, seen: VolumeObservation) -> Option<Volume> {
        let observation = Observation {
            instances: vec![InstanceObservation {
                instance_id: "i-1".into(),
                volumes: vec![seen],
                ..Default::default()
            }],
            ..Default::default()
        };
        news(state, host_id, &observation, 7).pop()
    }

    #[test]
    fn observations_of_others_and_of_before_say_nothing() {
        let state = state(volume(Progress::Attaching));
        let attached = seen(Seen::Attached, 8 << 30);
        let other = |change: fn(&mut VolumeObservation)| {
            let mut seen = attached.clone();
            change(&mut seen);
            seen
        };
        assert!(say(&state, "h-2", attached.clone()).is_none());
        assert!(say(&state, "h-1", other(|seen| seen.attachment_epoch = 2)).is_none());
        assert!(say(&state, "h-1", other(|seen| seen.volume_id = "vol-2".into())).is_none());
        let after = say(&state, "h-1", attached.clone()).unwrap();
        let attachment = after.attachment.unwrap();
        assert_eq!(
            (attachment.progress, attachment.progress_since),
            (Progress::Attached, 7)
        );
        assert!(after.is_made);
        // A host that says what it likes, and much of it.
        let long = other(|seen| {
            seen.state = 99;
            seen.message = "x".repeat(100_000);
        });
        let after = say(&state, "h-1", long).unwrap();
        assert_eq!(after.attachment.unwrap().trouble.len(), MAX_MESSAGE);
    }

    #[test]
    fn a_size_completes_a_modification_also_one_that_was_given_up() {
        let (original, target) = (VolumeSpec::plain(8), VolumeSpec::plain(16));
        let modified = |state, spec| Volume {
            spec,
            modification: Some(Modification {
                state,
                original,
                target,
                started_at: 0,
                ended_at: None,
                message: String::new(),
                earlier: Vec::new(),
            }),
            is_made: true,
            ..volume(Progress::Attached)
        };
        let modifying = state(modified(ModificationState::Modifying, target));
        assert!(say(&modifying, "h-1", seen(Seen::Attached, 8 << 30)).is_none());
        let why = VolumeObservation {
            message: "no room".into(),
            ..seen(Seen::Attached, 8 << 30)
        };
        let after = say(&modifying, "h-1", why).unwrap().modification.unwrap();
        assert_eq!(
            (after.state, after.message.as_str()),
            (ModificationState::Modifying, "no room")
        );
        let after = say(&modifying, "h-1", seen(Seen::Attached, 16 << 30)).unwrap();
        assert_eq!(after.modification.unwrap().state, ModificationState::Completed);
        let failed = state(modified(ModificationState::Failed, original));
        assert!(say(&failed, "h-1", seen(Seen::Attached, 8 << 30)).is_none());
        let after = say(&failed, "h-1", seen(Seen::Attached, 16 << 30)).unwrap();
        assert_eq!(after.spec, target);
        assert_eq!(after.modification.unwrap().state, ModificationState::Completed);
    }
}
