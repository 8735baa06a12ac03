//! A model of a host: random intents (replayed, outdated), crashes of the agent anywhere, monitors that end
//! as they like. Whatever happens, a run is never started twice, never by two monitors, and in the end the
//! host is as intended.

use std::collections::BTreeMap;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase as Seen;
use hearth_api::agent::{InstanceIntent, run_end};
use hearth_vmm::spec::Outcome;
use proptest::prelude::*;

use super::*;

fn intent(desired: Desired, run: u64) -> InstanceIntent {
    InstanceIntent {
        instance_id: "i-1".to_owned(),
        desired: desired.into(),
        run,
        ..InstanceIntent::default()
    }
}

fn record(run: u64, phase: Phase) -> Record {
    Record {
        run,
        launch: run,
        phase,
        ..Record::new("i-1")
    }
}

const REST: Monitor = Monitor::Absent {
    spawned: false,
    outcome: None,
};
const RUNNING: Monitor = Monitor::Alive { entered: true };

#[test]
fn a_new_run_is_launched_and_an_ended_one_is_not_launched_again() {
    let wanted = intent(Desired::Running, 1);
    let launch = Action::Launch { run: 1, reboot: 0 };
    assert_eq!(decide(Some(&wanted), &Record::new("i-1"), &REST, None), launch);
    let over = record(1, Phase::Ended(End::new(Cause::MonitorDied, "")));
    assert_eq!(decide(Some(&wanted), &over, &REST, None), Action::Wait);
    let again = intent(Desired::Running, 2);
    let launch = Action::Launch { run: 2, reboot: 0 };
    assert_eq!(decide(Some(&again), &over, &REST, None), launch);
}

#[test]
fn a_stop_climbs_from_button_to_socket_to_kill() {
    let wanted = intent(Desired::Stopped, 1);
    let now = record(1, Phase::Entered);
    let at = |step, overdue| {
        let effort = Effort {
            goal: Goal::End,
            step,
            overdue,
            missed: false,
        };
        decide(Some(&wanted), &now, &RUNNING, Some(effort))
    };
    assert_eq!(
        decide(Some(&wanted), &now, &RUNNING, None),
        Action::Press(Goal::End)
    );
    assert_eq!(at(Step::Pressed, false), Action::Wait);
    let missed = Effort {
        goal: Goal::End,
        step: Step::Pressed,
        overdue: false,
        missed: true,
    };
    assert_eq!(
        decide(Some(&wanted), &now, &RUNNING, Some(missed)),
        Action::Press(Goal::End)
    );
    assert_eq!(at(Step::Pressed, true), Action::Stop);
    assert_eq!(at(Step::Stopped, false), Action::Wait);
    assert_eq!(at(Step::Stopped, true), Action::Kill);
    assert_eq!(at(Step::Killed, true), Action::Wait);
}

#[test]
fn force_and_an_unentered_machine_skip_the_button() {
    let mut wanted = intent(Desired::Terminated, 1);
    let starting = Monitor::Alive { entered: false };
    let now = record(1, Phase::Starting);
    assert_eq!(decide(Some(&wanted), &now, &starting, None), Action::Stop);
    wanted.force = true;
    let now = record(1, Phase::Entered);
    assert_eq!(decide(Some(&wanted), &now, &RUNNING, None), Action::Stop);
    let pressed = Effort {
        goal: Goal::End,
        step: Step::Pressed,
        overdue: false,
        missed: false,
    };
    assert_eq!(decide(Some(&wanted), &now, &RUNNING, Some(pressed)), Action::Stop);
}

#[test]
fn a_reboot_is_a_power_off_and_the_same_run_again_or_a_hard_reset() {
    let mut wanted = intent(Desired::Running, 1);
    wanted.reboot = 1;
    let now = record(1, Phase::Entered);
    assert_eq!(
        decide(Some(&wanted), &now, &RUNNING, None),
        Action::Press(Goal::Reboot)
    );
    let off = Monitor::Absent {
        spawned: true,
        outcome: Some(Outcome::GuestPowerOff),
    };
    let relaunch = Action::Launch { run: 1, reboot: 1 };
    assert_eq!(decide(Some(&wanted), &now, &off, None), relaunch);
    assert_eq!(observe(Some(&wanted), &now, &off).phase(), Seen::Running);
    let deaf = Effort {
        goal: Goal::Reboot,
        step: Step::Pressed,
        overdue: true,
        missed: false,
    };
    assert_eq!(
        decide(Some(&wanted), &now, &RUNNING, Some(deaf)),
        Action::Reset { reboot: 1 }
    );
}

#[test]
fn what_no_intent_names_is_reported_and_kept() {
    for (phase, monitor) in [
        (Phase::Entered, RUNNING),
        (Phase::Ended(End::new(Cause::Requested, "")), REST),
        (Phase::Starting, REST),
    ] {
        let now = record(1, phase);
        assert_eq!(decide(None, &now, &monitor, None), Action::Wait);
        assert_eq!(observe(None, &now, &monitor).phase(), Seen::Unknown);
    }
    assert_eq!(decide(None, &record(1, Phase::Gone), &REST, None), Action::Forget);
}

#[test]
fn the_end_says_who_wanted_it() {
    let ended = |outcome, desired| {
        let gone = Monitor::Absent {
            spawned: true,
            outcome,
        };
        match decide(Some(&intent(desired, 1)), &record(1, Phase::Entered), &gone, None) {
            Action::RecordEnd { run: 1, end } => end.cause,
            other => panic!("{other:?}"),
        }
    };
    let power_off = || Some(Outcome::GuestPowerOff);
    assert_eq!(ended(power_off(), Desired::Running), Cause::GuestPowerOff);
    assert_eq!(ended(power_off(), Desired::Stopped), Cause::Requested);
    assert_eq!(ended(Some(Outcome::Stopped), Desired::Stopped), Cause::Requested);
    assert_eq!(ended(None, Desired::Running), Cause::MonitorDied);
    assert_eq!(ended(None, Desired::Terminated), Cause::Requested);
    let crashed = Some(Outcome::Crashed {
        message: "triple fault".to_owned(),
    });
    assert_eq!(ended(crashed, Desired::Running), Cause::GuestCrashed);
}

/// Where the agent is killed while it acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    No,
    BeforeRecord,
    AfterRecord,
    AfterDeed,
}

#[derive(Debug, Clone)]
enum Happens {
    /// The control plane wants something new.
    Start,
    Stop {
        force: bool,
    },
    Reboot,
    Terminate,
    /// An earlier message comes again; only the supervisor's generation guard sees it.
    Replay,
    /// The agent looks and acts once.
    Step(Killed),
    Enter,
    Overdue,
    PowerOff,
    Crash,
    KillMonitor,
    KillAgent,
}

fn happens() -> impl Strategy<Value = Happens> {
    let killed = prop_oneof![
        6 => Just(Killed::No),
        1 => Just(Killed::BeforeRecord),
        1 => Just(Killed::AfterRecord),
        1 => Just(Killed::AfterDeed),
    ];
    prop_oneof![
        3 => Just(Happens::Start),
        2 => any::<bool>().prop_map(|force| Happens::Stop { force }),
        2 => Just(Happens::Reboot),
        1 => Just(Happens::Terminate),
        2 => Just(Happens::Replay),
        12 => killed.prop_map(Happens::Step),
        4 => Just(Happens::Enter),
        2 => Just(Happens::Overdue),
        2 => Just(Happens::PowerOff),
        1 => Just(Happens::Crash),
        1 => Just(Happens::KillMonitor),
        2 => Just(Happens::KillAgent),
    ]
}

/// The world, the durable record, and the agent's own short memory.
struct Model {
    intent: InstanceIntent,
    record: Record,
    alive: Option<bool>,
    traces: BTreeMap<u64, Option<Outcome>>,
    effort: Option<Effort>,
    volume: bool,
    /// The last launch of each run that really was spawned.
    spawned: BTreeMap<u64, u64>,
    ended: BTreeMap<u64, End>,
}

impl Model {
    fn new() -> Model {
        Model {
            intent: intent(Desired::Running, 1),
            record: Record::new("i-1"),
            alive: None,
            traces: BTreeMap::new(),
            effort: None,
            volume: false,
            spawned: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    fn monitor(&self) -> Monitor {
        match self.alive {
            Some(entered) => Monitor::Alive { entered },
            None => {
                let trace = self.traces.get(&self.record.launch);
                Monitor::Absent {
                    spawned: trace.is_some(),
                    outcome: trace.cloned().flatten(),
                }
            }
        }
    }

    fn end_monitor(&mut self, outcome: Option<Outcome>) {
        if self.alive.take().is_some() {
            self.traces.insert(self.record.launch, outcome);
            self.effort = None;
        }
    }

    fn step(&mut self, killed: Killed) -> Action {
        let action = decide(Some(&self.intent), &self.record, &self.monitor(), self.effort);
        if killed == Killed::BeforeRecord {
            self.effort = None;
            return action;
        }
        let effort = |goal, step| {
            Some(Effort {
                goal,
                step,
                overdue: false,
                missed: false,
            })
        };
        match action.clone() {
            Action::Wait | Action::Forget => {}
            Action::Launch { run, reboot } => {
                self.volume = true;
                self.record = Record {
                    run,
                    launch: self.record.launch + 1,
                    phase: Phase::Starting,
                    reboot,
                    ..self.record.clone()
                };
                if killed != Killed::AfterRecord {
                    assert_eq!(self.alive, None, "two monitors");
                    self.alive = Some(false);
                    self.traces.insert(self.record.launch, None);
                    if let Some(last) = self.spawned.insert(run, self.record.launch) {
                        assert!(reboot > 0, "run {run} was started twice");
                        assert_eq!(self.traces[&last], Some(Outcome::GuestPowerOff));
                    }
                }
            }
            Action::RecordEntered => self.record.phase = Phase::Entered,
            Action::RecordEnd { run, end } => {
                let first = self.ended.entry(run).or_insert_with(|| end.clone());
                assert_eq!(*first, end, "an end was rewritten");
                self.record.run = run;
                self.record.phase = Phase::Ended(end);
            }
            Action::Press(goal) => self.effort = effort(goal, Step::Pressed),
            Action::Stop => {
                self.effort = effort(Goal::End, Step::Stopped);
                self.end_monitor(Some(Outcome::Stopped));
            }
            Action::Kill => self.end_monitor(None),
            Action::Reset { reboot } => {
                self.record.reboot = reboot;
                self.effort = None;
            }
            Action::Erase => {
                assert_eq!(self.alive, None, "erased under a living monitor");
                self.volume = false;
                self.record.phase = Phase::Gone;
            }
        }
        if killed != Killed::No {
            self.effort = None;
        }
        action
    }

    fn happen(&mut self, event: &Happens) {
        let terminated = self.intent.desired() == Desired::Terminated;
        match event {
            // As the control plane does: only a stopped instance starts.
            Happens::Start if !terminated && matches!(self.record.phase, Phase::Ended(_)) => {
                self.intent = intent(Desired::Running, self.intent.run + 1);
            }
            Happens::Stop { force } if !terminated => {
                self.intent.set_desired(Desired::Stopped);
                self.intent.force = *force;
            }
            Happens::Reboot if self.intent.desired() == Desired::Running => self.intent.reboot += 1,
            Happens::Terminate => self.intent.set_desired(Desired::Terminated),
            Happens::Step(killed) => {
                self.step(*killed);
            }
            Happens::Enter => {
                self.alive = self.alive.map(|_| true);
            }
            Happens::Overdue => {
                if let Some(effort) = &mut self.effort {
                    effort.overdue = true;
                }
            }
            Happens::PowerOff => self.end_monitor(Some(Outcome::GuestPowerOff)),
            Happens::Crash => self.end_monitor(Some(Outcome::Crashed {
                message: String::new(),
            })),
            Happens::KillMonitor => self.end_monitor(None),
            Happens::KillAgent => self.effort = None,
            Happens::Replay | Happens::Start | Happens::Stop { .. } | Happens::Reboot => {}
        }
    }

    /// No more surprises: guests obey, patience ends, the agent works.
    fn settle(&mut self) {
        for _ in 0..32 {
            let action = self.step(Killed::No);
            match action {
                Action::Press(_) => self.end_monitor(Some(Outcome::GuestPowerOff)),
                Action::Wait if self.alive == Some(false) => self.alive = Some(true),
                Action::Wait => match &mut self.effort {
                    Some(effort) if !effort.overdue => effort.overdue = true,
                    _ => return,
                },
                _ => {}
            }
        }
        panic!("it does not settle: {:?} {:?}", self.intent, self.record);
    }
}

proptest! {
    #[test]
    fn no_run_is_started_twice_and_all_settles(events in proptest::collection::vec(happens(), 0..60)) {
        let mut model = Model::new();
        for event in &events {
            model.happen(event);
        }
        model.settle();
        let seen = observe(Some(&model.intent), &model.record, &model.monitor());
        match model.intent.desired() {
            Desired::Terminated => {
                prop_assert_eq!(seen.phase(), Seen::Gone);
                prop_assert!(!model.volume);
            }
            Desired::Stopped => {
                prop_assert_eq!(seen.phase(), Seen::Ended);
                prop_assert_eq!(seen.run, model.intent.run);
            }
            _ => {
                prop_assert_eq!(seen.run, model.intent.run);
                prop_assert!(matches!(seen.phase(), Seen::Running | Seen::Ended));
                if seen.phase() == Seen::Running {
                    prop_assert_eq!(seen.reboot, model.intent.reboot);
                }
            }
        }
        // Once settled, looking again changes nothing.
        let before = model.record.clone();
        model.step(Killed::No);
        prop_assert_eq!(before, model.record);
    }

    #[test]
    fn outdated_intents_change_nothing(
        (run, older) in (1u64..5).prop_flat_map(|run| (Just(run), 0..run)),
        stop in any::<bool>(),
        entered in any::<bool>(),
    ) {
        let desired = if stop { Desired::Stopped } else { Desired::Running };
        let old = intent(desired, older);
        let ended = record(run, Phase::Ended(End::new(Cause::Requested, "")));
        prop_assert_eq!(decide(Some(&old), &ended, &REST, None), Action::Wait);
        let running = record(run, Phase::Entered);
        let monitor = Monitor::Alive { entered };
        prop_assert_eq!(decide(Some(&old), &running, &monitor, None), Action::Wait);
    }
}

#[test]
fn an_end_is_told_with_its_cause() {
    let over = record(3, Phase::Ended(End::new(Cause::StartFailed, "no space")));
    let seen = observe(Some(&intent(Desired::Running, 3)), &over, &REST);
    let end = seen.end.unwrap();
    assert_eq!(end.cause(), run_end::Cause::StartFailed);
    assert_eq!(end.message, "no space");
    assert_eq!(seen.run, 3);
}
