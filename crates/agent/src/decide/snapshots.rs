//! What to do next for the snapshots of this host's volumes: a pure function of what is wanted and of the files that there
//! are.
//!
//! A point in time goes through the states of [`State`], and each step can be done again: an agent that was killed goes on
//! from where the files stand.

use std::collections::BTreeMap;

use hearth_api::agent::snapshot_observation::State as Told;
use hearth_api::agent::{SnapshotIntent, SnapshotObservation};

/// Characters of why a snapshot failed.
const MAX_MESSAGE: usize = 300;

/// How far a point in time has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing was begun, or all is done.
    #[default]
    None,
    /// Its files were made; whether the disk was frozen is not known.
    Making,
    /// Its volume is kept as it was.
    Frozen,
    /// It was frozen, or about to be, before the host restarted.
    Lost,
    /// It is over, and its volume's monitor may not know it yet.
    Thawing,
}

/// What there is of a snapshot on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Point {
    pub state: State,
    /// What the volume's dirty map is relative to is this snapshot: it was stored.
    pub stored: bool,
    /// Why it cannot be made any more.
    pub failed: Option<String>,
    /// The volume is not on this host.
    pub without_volume: bool,
}

/// The next step for one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do until something changes.
    Wait,
    /// Freeze the volume, together with the others of its set.
    Freeze,
    /// Send what has changed.
    Store,
    /// Note that it cannot be made, and give its marks back to the volume.
    Fail(String),
    /// Learn whether the volume was frozen, which takes freezing it, and then give the marks back.
    Settle,
    /// Give its marks back to the volume.
    Abandon,
    /// Have the volume's monitor keep nothing any more.
    Thaw,
    /// Remove what is left.
    Forget,
}

/// The next step of each snapshot that is wanted, or of which there is something.
pub fn decide(wanted: &[SnapshotIntent], points: &BTreeMap<String, Point>) -> BTreeMap<String, Step> {
    let none = Point::default();
    let step = |id: &str, intent: Option<&SnapshotIntent>| {
        let point = points.get(id).unwrap_or(&none);
        match (point.state, intent) {
            (State::Thawing, _) => Step::Thaw,
            (State::Lost, _) => Step::Fail("its host restarted before it was stored".to_owned()),
            (State::Frozen, Some(_)) if point.failed.is_none() => Step::Store,
            (State::Frozen, _) => Step::Abandon,
            (State::Making, Some(intent)) if point.failed.is_none() => begin(intent, wanted, points),
            (State::Making, _) => Step::Settle,
            (State::None, None) => Step::Forget,
            (State::None, Some(_)) if is_over(point) => Step::Wait,
            (State::None, Some(intent)) => begin(intent, wanted, points),
        }
    };
    let ours = wanted
        .iter()
        .map(|intent| (intent.snapshot_id.clone(), Some(intent)));
    let others = points.keys().map(|id| (id.clone(), None));
    // Those that are wanted take the place of themselves.
    let all: BTreeMap<String, Option<&SnapshotIntent>> = others.chain(ours).collect();
    all.into_iter()
        .map(|(id, intent)| {
            let step = step(&id, intent);
            (id, step)
        })
        .collect()
}

fn is_over(point: &Point) -> bool {
    point.stored || point.failed.is_some() || point.without_volume
}

/// Of a set all are frozen at once, or none is.
fn begin(intent: &SnapshotIntent, wanted: &[SnapshotIntent], points: &BTreeMap<String, Point>) -> Step {
    let set = members(intent, wanted);
    let is_begun = |one: &&SnapshotIntent| {
        points
            .get(&one.snapshot_id)
            .is_some_and(|point| is_over(point) || !matches!(point.state, State::None | State::Making))
    };
    if set.iter().any(is_begun) {
        return Step::Fail("another snapshot of its set failed, or was made at another time".to_owned());
    }
    match set.len() < intent.set_size as usize {
        true => Step::Wait,
        false => Step::Freeze,
    }
}

/// The snapshots that are made at the same time as this one, itself among them.
pub fn members<'a>(intent: &'a SnapshotIntent, wanted: &'a [SnapshotIntent]) -> Vec<&'a SnapshotIntent> {
    match intent.set_id.as_str() {
        "" => vec![intent],
        set => wanted.iter().filter(|one| one.set_id == set).collect(),
    }
}

/// What the control plane is told.
pub fn observe(wanted: &[SnapshotIntent], points: &BTreeMap<String, Point>) -> Vec<SnapshotObservation> {
    let told = |intent: &SnapshotIntent| {
        let point = points.get(&intent.snapshot_id)?;
        let (state, message) = match point {
            Point { stored: true, .. } => (Told::Stored, ""),
            Point {
                failed: Some(message),
                ..
            } => (Told::Failed, message.as_str()),
            Point {
                without_volume: true, ..
            } => (Told::Failed, "its volume is not on this host"),
            Point {
                state: State::Frozen, ..
            } => (Told::Frozen, ""),
            _ => return None,
        };
        Some(SnapshotObservation {
            snapshot_id: intent.snapshot_id.clone(),
            state: state.into(),
            message: message.chars().take(MAX_MESSAGE).collect(),
        })
    };
    wanted.iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(id: &str, set: &str, set_size: u32) -> SnapshotIntent {
        SnapshotIntent {
            snapshot_id: id.to_owned(),
            volume_id: format!("vol-of-{id}"),
            set_id: set.to_owned(),
            set_size,
            ..SnapshotIntent::default()
        }
    }

    fn in_state(state: State) -> Point {
        Point {
            state,
            ..Point::default()
        }
    }

    fn failed(state: State) -> Point {
        Point {
            failed: Some("full".to_owned()),
            ..in_state(state)
        }
    }

    #[test]
    fn each_state_of_a_snapshot_has_its_next_step() {
        use State::{Frozen, Lost, Making, Thawing};
        let stored = Point {
            stored: true,
            ..Point::default()
        };
        let nowhere = Point {
            without_volume: true,
            ..Point::default()
        };
        let lost = Step::Fail("its host restarted before it was stored".to_owned());
        let none = Point::default;
        // What there is, the step when it is wanted and when it is not, and what is told.
        let table = [
            (none(), Step::Freeze, Step::Forget, None),
            (in_state(Making), Step::Freeze, Step::Settle, None),
            (in_state(Frozen), Step::Store, Step::Abandon, Some(Told::Frozen)),
            (in_state(Lost), lost.clone(), lost, None),
            (in_state(Thawing), Step::Thaw, Step::Thaw, None),
            (stored, Step::Wait, Step::Forget, Some(Told::Stored)),
            (nowhere, Step::Wait, Step::Forget, Some(Told::Failed)),
            (failed(State::None), Step::Wait, Step::Forget, Some(Told::Failed)),
            (failed(Making), Step::Settle, Step::Settle, Some(Told::Failed)),
            (failed(Frozen), Step::Abandon, Step::Abandon, Some(Told::Failed)),
            (failed(Thawing), Step::Thaw, Step::Thaw, Some(Told::Failed)),
        ];
        for (point, wanted, unwanted, told) in table {
            let points = BTreeMap::from([("snap-1".to_owned(), point.clone())]);
            let intents = [intent("snap-1", "", 0)];
            assert_eq!(decide(&intents, &points)["snap-1"], wanted, "{point:?}");
            assert_eq!(decide(&[], &points)["snap-1"], unwanted, "{point:?}");
            let seen = observe(&intents, &points);
            assert_eq!(seen.first().map(SnapshotObservation::state), told, "{point:?}");
            assert!(observe(&[], &points).is_empty());
        }
    }

    #[test]
    fn a_set_is_frozen_when_all_of_it_is_there_and_only_together() {
        let one = intent("snap-1", "set", 2);
        let two = intent("snap-2", "set", 2);
        let alone = intent("snap-3", "", 0);
        let steps = |wanted: &[SnapshotIntent], points: &[(&str, Point)]| {
            let points = points.iter().map(|(id, point)| ((*id).to_owned(), point.clone()));
            decide(wanted, &points.collect())
        };
        let first = [one.clone(), alone.clone()];
        let decided = steps(&first, &[]);
        assert_eq!(
            (&decided["snap-1"], &decided["snap-3"]),
            (&Step::Wait, &Step::Freeze)
        );
        let both = [one, two, alone];
        let decided = steps(&both, &[("snap-1", in_state(State::Making))]);
        assert!(decided.values().all(|step| *step == Step::Freeze), "{decided:?}");
        let stored = Point {
            stored: true,
            ..Point::default()
        };
        for point in [in_state(State::Frozen), failed(State::None), stored] {
            let decided = steps(&both, &[("snap-1", point)]);
            assert!(matches!(decided["snap-2"], Step::Fail(_)), "{decided:?}");
            assert_eq!(decided["snap-3"], Step::Freeze);
        }
    }

    #[test]
    fn a_long_message_is_cut() {
        let point = Point {
            failed: Some("é".repeat(1000)),
            ..Point::default()
        };
        let points = BTreeMap::from([("snap-1".to_owned(), point)]);
        let seen = observe(&[intent("snap-1", "", 0)], &points);
        assert_eq!(seen[0].message.chars().count(), MAX_MESSAGE);
    }
}
