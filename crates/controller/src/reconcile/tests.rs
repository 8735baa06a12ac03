//! `decide` on random states of hosts and instances.

use proptest::prelude::*;

use super::*;
use crate::catalog::volume_types::VolumeSpec;
use crate::state::tests::{a_host, a_volume, an_instance};
use crate::state::{
    Attachment, Drain, Host, HostReport, Modification, ModificationState, Move, Progress, Reservation, Stage,
    Volume,
};

const LIMITS: Limits = Limits {
    silence: 30_000,
    pending: 3_600_000,
    ending: 600_000,
    busy: 60_000,
};

#[derive(Debug, Clone)]
struct World {
    state: State,
    /// By host.
    silence: HashMap<String, i64>,
    clock: Clock,
}

/// A state, its age in milliseconds, its run, whether it is forced.
type Life = (InstanceState, i64, u64, bool);

/// The progress of an attachment, its age in milliseconds, and whether the volume is being modified for as long.
type Attached = (Progress, i64, bool);

const PROGRESS: [Progress; 5] = [
    Progress::Attached,
    Progress::Attaching,
    Progress::Detaching,
    Progress::Busy,
    Progress::Forced,
];

/// Milliseconds since the epoch at which all worlds begin.
const BEGIN: i64 = 1_000_000_000;

fn worlds() -> impl Strategy<Value = World> {
    let life = (
        proptest::sample::select(InstanceState::ALL.to_vec()),
        0i64..2 * LIMITS.pending,
        1u64..3,
        any::<bool>(),
    );
    let attached = (
        proptest::sample::select(PROGRESS.to_vec()),
        0i64..2 * LIMITS.ending,
        any::<bool>(),
    );
    let host = (
        proptest::option::of(0i64..2 * LIMITS.silence),
        any::<bool>(),
        proptest::option::of(any::<bool>()),
        any::<bool>(),
        proptest::collection::vec((life, proptest::option::of(attached)), 0..5),
    );
    (proptest::collection::vec(host, 0..4), 0i64..2 * LIMITS.pending).prop_map(|(hosts, watched)| {
        let mut world = World {
            state: State::default(),
            silence: HashMap::new(),
            clock: Clock {
                now: BEGIN,
                watched_since: BEGIN - watched,
            },
        };
        let mut tx = Tx::new(&mut world.state, BEGIN);
        tx.put(Reservation {
            id: "r-1".into(),
            account_id: "1".into(),
            region: "local-1".into(),
            created_at: 0,
        });
        for (n, (silence, reported, drain, lost, lives)) in hosts.into_iter().enumerate() {
            let id = format!("h-{n}");
            tx.put(Host {
                drain: drain.map(|stop_instances| Drain {
                    since: 0,
                    stop_instances,
                }),
                silent_since: (lost && reported).then_some(0),
                ..a_host(&id)
            });
            if reported {
                tx.put(report(&id));
            }
            if let Some(silence) = silence {
                world.silence.insert(id.clone(), silence);
            }
            for (m, (life, attached)) in lives.into_iter().enumerate() {
                tx.put(instance(&format!("i-{n}-{m}"), &id, life));
                if let Some(attached) = attached {
                    tx.put(volume(&format!("i-{n}-{m}"), &id, attached));
                }
            }
        }
        tx.finish().unwrap();
        world
    })
}

fn report(host_id: &str) -> HostReport {
    HostReport {
        host_id: host_id.to_owned(),
        hostname: String::new(),
        agent_version: String::new(),
        vcpus: 1,
        memory_mib: 1,
        disk_bytes: 1,
        cpus: 1,
        uefi: false,
        reported_at: 0,
        repairs: Vec::new(),
    }
}

fn instance(id: &str, host_id: &str, (state, age, run, force): Life) -> Instance {
    use hearth_api::agent::instance_intent::Desired;
    Instance {
        state,
        desired: match state {
            InstanceState::Pending | InstanceState::Running => Desired::Running,
            InstanceState::Stopping | InstanceState::Stopped => Desired::Stopped,
            InstanceState::ShuttingDown | InstanceState::Terminated => Desired::Terminated,
        },
        state_since: BEGIN - age,
        run,
        force,
        ..an_instance(id, host_id, "r-1")
    }
}

/// The volume of an instance; it has the instance's name.
fn volume(instance_id: &str, host_id: &str, (progress, age, is_modifying): Attached) -> Volume {
    let (original, target) = (VolumeSpec::plain(1), VolumeSpec::plain(2));
    Volume {
        host_id: Some(host_id.to_owned()),
        attachment: Some(Attachment {
            progress,
            progress_since: BEGIN - age,
            ..Attachment::first(instance_id, "/dev/sdf", false, 0)
        }),
        modification: is_modifying.then_some(Modification {
            state: ModificationState::Modifying,
            original,
            target,
            started_at: BEGIN - age,
            ended_at: None,
            message: String::new(),
            earlier: Vec::new(),
        }),
        ..a_volume(instance_id, 2)
    }
}

/// Whether it waits for its host, for as long as that has time.
fn waits(volume: &Volume) -> bool {
    let progress = volume.attachment.as_ref().map(|attachment| attachment.progress);
    matches!(progress, Some(Progress::Attaching | Progress::Detaching)) || volume.is_modifying()
}

impl World {
    fn decide(&self) -> (Vec<Action>, Option<i64>) {
        decide(&self.state, &self.silence, LIMITS, self.clock)
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        let mut tx = Tx::new(&mut self.state, self.clock.now);
        for action in actions {
            carry_out(&mut tx, action, LIMITS);
        }
        tx.finish().unwrap();
    }

    fn wait_until(&mut self, at: i64) {
        let passed = at - self.clock.now;
        self.clock = after(self.clock, passed, at);
        for silence in self.silence.values_mut() {
            *silence += passed;
        }
    }
}

proptest! {
    /// Each action is due, by the rules as the table in `docs/states.md` has them.
    #[test]
    fn nothing_is_done_before_its_time(world in worlds()) {
        let since = |row: &Instance| row.state_since.max(world.clock.watched_since);
        for action in world.decide().0 {
            match action {
                Action::Host(id, host::Action::Lose { since }) => {
                    let silence = world.silence[&id];
                    prop_assert!(silence >= LIMITS.silence);
                    prop_assert_eq!(since, BEGIN - silence);
                    prop_assert!(world.state.get::<HostReport>(&id).is_some(), "it never was there");
                }
                Action::Host(id, host::Action::Find) => prop_assert!(!world.silence.contains_key(&id)),
                Action::Host(id, host::Action::Stop { instance_id }) => {
                    let row: &Instance = world.state.get(&instance_id).unwrap();
                    prop_assert_eq!((&row.host_id, row.state), (&id, InstanceState::Running));
                    prop_assert!(world.state.host(&id).unwrap().drain.unwrap().stop_instances);
                }
                // These worlds have none.
                Action::Key(..) => prop_assert!(false),
                Action::Volume(id, action) => {
                    let row: &Volume = world.state.get(&id).unwrap();
                    let attachment = row.attachment.as_ref().unwrap();
                    let (since, limit, is_so) = match action {
                        volume::Action::Withdraw => {
                            let is_so = attachment.progress == Progress::Attaching;
                            (attachment.progress_since, LIMITS.ending, is_so)
                        }
                        volume::Action::Busy => {
                            let is_so = attachment.progress == Progress::Detaching;
                            (attachment.progress_since, LIMITS.busy, is_so)
                        }
                        volume::Action::Fail => {
                            let started_at = row.modification.as_ref().unwrap().started_at;
                            (started_at, LIMITS.ending, row.is_modifying())
                        }
                    };
                    prop_assert!(is_so && BEGIN - since.max(world.clock.watched_since) >= limit);
                }
                Action::Move(id) => {
                    let Stage::Storing { progressed_at, .. } = world.state.get::<Move>(&id).unwrap().stage else {
                        panic!("{id} is stored");
                    };
                    prop_assert!(BEGIN - progressed_at.max(world.clock.watched_since) >= LIMITS.ending);
                }
                Action::Instance(id, instance::Action::GiveUp) => {
                    let row: &Instance = world.state.get(&id).unwrap();
                    prop_assert_eq!(row.state, InstanceState::Pending);
                    prop_assert!(BEGIN - since(row) >= LIMITS.pending);
                }
                Action::Instance(id, instance::Action::Force) => {
                    let row: &Instance = world.state.get(&id).unwrap();
                    prop_assert!(matches!(row.state, InstanceState::Stopping | InstanceState::ShuttingDown));
                    prop_assert!(!row.force && BEGIN - since(row) >= LIMITS.ending);
                }
            }
        }
    }

    /// Whatever the state is, without any word of hosts: at the deadlines that were announced something is done, each
    /// action is done once, and in the end nobody waits for a time any more. No instance is taken for stopped or
    /// terminated by that.
    #[test]
    fn every_transitional_state_has_a_deadline(mut world in worlds()) {
        let before: Vec<Instance> = world.state.all().cloned().collect();
        let mut steps = 0;
        loop {
            let (actions, again) = world.decide();
            for row in world.state.all::<Instance>() {
                let transitional = matches!(
                    row.state,
                    InstanceState::Pending | InstanceState::Stopping | InstanceState::ShuttingDown
                );
                let named = |action: &Action| matches!(action, Action::Instance(id, _) if *id == row.id);
                prop_assert!(
                    !transitional || row.force || again.is_some() || actions.iter().any(named),
                    "{} waits for ever", row.id
                );
            }
            for row in world.state.all::<Volume>().filter(|row| waits(row)) {
                let named = |action: &Action| matches!(action, Action::Volume(id, _) if *id == row.id);
                prop_assert!(again.is_some() || actions.iter().any(named), "{} waits for ever", row.id);
            }
            if !actions.is_empty() {
                world.carry_out(actions);
                let (more, _) = world.decide();
                prop_assert_eq!(more, vec![], "what was done is to be done again");
            } else {
                let Some(at) = again else { break };
                prop_assert!(at > world.clock.now);
                world.wait_until(at);
                prop_assert!(!world.decide().0.is_empty(), "nothing is done at the deadline");
            }
            steps += 1;
            prop_assert!(steps < 400);
        }
        for row in before {
            let now: &Instance = world.state.get(&row.id).unwrap();
            if matches!(now.state, InstanceState::Stopped | InstanceState::Terminated) {
                prop_assert_eq!(now.state, row.state);
            }
            prop_assert!(now.state != InstanceState::Pending);
        }
        for row in world.state.all::<Volume>() {
            prop_assert!(!waits(row), "{row:?}");
            let failed = row.modification.as_ref().is_some_and(|m| m.state == ModificationState::Failed);
            // No host said that it has grown.
            prop_assert_eq!(failed, row.spec.size_gib == 1 && row.modification.is_some());
        }
        for host in world.state.hosts() {
            let silent = world.silence.contains_key(&host.id) && world.state.get::<HostReport>(&host.id).is_some();
            prop_assert_eq!(host.silent_since.is_some(), silent, "{:?}", host);
        }
        world.state.check();
    }

    /// A clock that is set, forward or back, makes nothing overdue.
    #[test]
    fn a_clock_that_jumps_ends_nothing(mut world in worlds(), jump in -7_200_000i64..7_200_000) {
        prop_assume!(jump.abs() > 2 * STEP);
        let (actions, _) = world.decide();
        world.carry_out(actions);
        world.clock = after(world.clock, 200, BEGIN + 200 + jump);
        let ends = |action: &Action| matches!(action, Action::Instance(..) | Action::Volume(..));
        prop_assert!(!world.decide().0.iter().any(ends));
    }
}

#[test]
fn a_restart_of_hearthd_makes_nothing_overdue() {
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, BEGIN);
    tx.put(Reservation {
        id: "r-1".into(),
        account_id: "1".into(),
        region: "local-1".into(),
        created_at: 0,
    });
    tx.put(a_host("h-1"));
    tx.put(report("h-1"));
    tx.put(instance(
        "i-1",
        "h-1",
        (InstanceState::Pending, 10 * LIMITS.pending, 1, false),
    ));
    tx.finish().unwrap();
    let clock = Clock {
        now: BEGIN,
        watched_since: BEGIN,
    };
    let silence = HashMap::from([("h-1".to_owned(), 0)]);
    let (actions, again) = decide(&state, &silence, LIMITS, clock);
    assert_eq!((actions, again), (vec![], Some(BEGIN + LIMITS.silence)));
}
