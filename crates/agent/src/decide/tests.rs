//! A model of a host: random intents (replayed, outdated), crashes of the agent anywhere, monitors that end
//! as they like. Whatever happens, a run is never started twice, never by two monitors, and in the end the
//! host is as intended.

use std::collections::{BTreeMap, BTreeSet};

use hearth_api::agent::instance_intent::{BootMode, Desired};
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
    rebooted: false,
};
const RUNNING: Monitor = Monitor::Alive {
    entered: true,
    by_firmware: None,
    steady: false,
    without_tap: false,
    disks: Disks {
        devices: None,
        attempts: BTreeMap::new(),
        troubles: BTreeMap::new(),
    },
};

#[test]
fn a_new_run_is_launched_and_an_ended_one_is_not_launched_again() {
    let wanted = intent(Desired::Running, 1);
    let launch = Action::Launch { run: 1, reboot: 0 };
    assert_eq!(
        decide(Some(&wanted), &Record::new("i-1"), &REST, None, Host::Up),
        launch
    );
    let over = record(1, Phase::Ended(End::new(Cause::MonitorDied, "")));
    assert_eq!(decide(Some(&wanted), &over, &REST, None, Host::Up), Action::Wait);
    let again = intent(Desired::Running, 2);
    let launch = Action::Launch { run: 2, reboot: 0 };
    assert_eq!(decide(Some(&again), &over, &REST, None, Host::Up), launch);
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
        decide(Some(&wanted), &now, &RUNNING, Some(effort), Host::Up)
    };
    assert_eq!(
        decide(Some(&wanted), &now, &RUNNING, None, Host::Up),
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
        decide(Some(&wanted), &now, &RUNNING, Some(missed), Host::Up),
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
    let starting = Monitor::Alive {
        entered: false,
        by_firmware: None,
        steady: false,
        without_tap: false,
        disks: Disks::default(),
    };
    let now = record(1, Phase::Starting);
    assert_eq!(
        decide(Some(&wanted), &now, &starting, None, Host::Up),
        Action::Stop
    );
    wanted.force = true;
    let now = record(1, Phase::Entered);
    assert_eq!(
        decide(Some(&wanted), &now, &RUNNING, None, Host::Up),
        Action::Stop
    );
    let pressed = Effort {
        goal: Goal::End,
        step: Step::Pressed,
        overdue: false,
        missed: false,
    };
    assert_eq!(
        decide(Some(&wanted), &now, &RUNNING, Some(pressed), Host::Up),
        Action::Stop
    );
}

#[test]
fn a_reboot_is_a_power_off_and_the_same_run_again_or_a_hard_reset() {
    let mut wanted = intent(Desired::Running, 1);
    wanted.reboot = 1;
    let now = record(1, Phase::Entered);
    assert_eq!(
        decide(Some(&wanted), &now, &RUNNING, None, Host::Up),
        Action::Press(Goal::Reboot)
    );
    let off = Monitor::Absent {
        spawned: true,
        outcome: Some(Outcome::GuestPowerOff),
        rebooted: false,
    };
    let relaunch = Action::Launch { run: 1, reboot: 1 };
    assert_eq!(decide(Some(&wanted), &now, &off, None, Host::Up), relaunch);
    assert_eq!(observe(Some(&wanted), &now, &off).phase(), Seen::Running);
    let deaf = Effort {
        goal: Goal::Reboot,
        step: Step::Pressed,
        overdue: true,
        missed: false,
    };
    assert_eq!(
        decide(Some(&wanted), &now, &RUNNING, Some(deaf), Host::Up),
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
        assert_eq!(decide(None, &now, &monitor, None, Host::Up), Action::Wait);
        assert_eq!(observe(None, &now, &monitor).phase(), Seen::Unknown);
    }
    assert_eq!(
        decide(None, &record(1, Phase::Gone), &REST, None, Host::Up),
        Action::Forget
    );
}

#[test]
fn the_end_says_who_wanted_it() {
    let ended = |outcome, desired| {
        let gone = Monitor::Absent {
            spawned: true,
            outcome,
            rebooted: false,
        };
        match decide(
            Some(&intent(desired, 1)),
            &record(1, Phase::Entered),
            &gone,
            None,
            Host::Up,
        ) {
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

/// A host that restarted since the launch; the traces may have been lost with what was not written back.
fn lost(outcome: Option<Outcome>) -> Monitor {
    Monitor::Absent {
        spawned: outcome.is_some(),
        outcome,
        rebooted: true,
    }
}

fn cause(action: Action) -> Cause {
    match action {
        Action::RecordEnd { end, .. } => end.cause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_restart_of_the_host_cut_off_is_started_again() {
    let mut wanted = intent(Desired::Running, 1);
    let recover = Action::Recover { run: 1, reboot: 0 };
    let now = record(1, Phase::Entered);
    let after = |wanted: &InstanceIntent, now: &Record, outcome| {
        decide(Some(wanted), now, &lost(outcome), None, Host::Up)
    };
    assert_eq!(after(&wanted, &now, None), recover);
    assert_eq!(
        after(
            &wanted,
            &now,
            Some(Outcome::Killed {
                signal: libc::SIGKILL
            })
        ),
        recover
    );
    let seen = observe(Some(&wanted), &now, &lost(None));
    assert_eq!((seen.phase(), seen.run), (Seen::Running, 1));
    // What ended before is over.
    assert_eq!(
        cause(after(&wanted, &now, Some(Outcome::GuestPowerOff))),
        Cause::GuestPowerOff
    );
    // A launch that the restart came into is made again, also where the mark of its monitor was lost.
    assert_eq!(after(&wanted, &record(1, Phase::Starting), None), recover);
    // Nobody says, or it shall end.
    assert_eq!(decide(None, &now, &lost(None), None, Host::Up), Action::Wait);
    assert_eq!(
        cause(after(&intent(Desired::Stopped, 1), &now, None)),
        Cause::Requested
    );

    wanted.auto_recovery_disabled = true;
    assert_eq!(cause(after(&wanted, &now, None)), Cause::HostRebooted);
    // It has never run: that is its launch, and no recovery.
    assert_eq!(after(&wanted, &record(1, Phase::Starting), None), recover);
}

#[test]
fn an_instance_whose_host_restarts_again_and_again_ends() {
    let wanted = intent(Desired::Running, 1);
    let mut now = record(1, Phase::Entered);
    now.recoveries = MAX_RECOVERIES;
    assert_eq!(
        cause(decide(Some(&wanted), &now, &lost(None), None, Host::Up)),
        Cause::HostRebooted
    );
    // One that has run steadily in between begins to count anew.
    let steady = Monitor::Alive {
        entered: true,
        by_firmware: None,
        steady: true,
        without_tap: false,
        disks: Disks::default(),
    };
    assert_eq!(
        decide(Some(&wanted), &now, &steady, None, Host::Up),
        Action::RecordSteady
    );
    now.recoveries = 0;
    assert_eq!(decide(Some(&wanted), &now, &steady, None, Host::Up), Action::Wait);
}

#[test]
fn a_host_that_goes_down_presses_the_button_and_starts_nothing() {
    let wanted = intent(Desired::Running, 1);
    let mut now = record(1, Phase::Entered);
    let down = |now: &Record, monitor: &Monitor, effort| {
        decide(Some(&wanted), now, monitor, effort, Host::GoingDown)
    };
    // That it goes down is known before the guest is asked.
    assert_eq!(down(&now, &RUNNING, None), Action::RecordInterrupted(true));
    now.interrupted = true;
    assert_eq!(down(&now, &RUNNING, None), Action::Press(Goal::End));
    let deaf = Effort {
        goal: Goal::End,
        step: Step::Pressed,
        overdue: true,
        missed: false,
    };
    assert_eq!(down(&now, &RUNNING, Some(deaf)), Action::Stop);
    for outcome in [None, Some(Outcome::GuestPowerOff), Some(Outcome::Stopped)] {
        let off = Monitor::Absent {
            spawned: true,
            outcome,
            rebooted: false,
        };
        assert_eq!(down(&now, &off, None), Action::Wait);
        let recover = Action::Recover { run: 1, reboot: 0 };
        assert_eq!(decide(Some(&wanted), &now, &off, None, Host::Up), recover);
    }
    assert_eq!(down(&record(0, Phase::Idle), &REST, None), Action::Wait);
    // The host stays up after all: from here on an end is the guest's own.
    assert_eq!(
        decide(Some(&wanted), &now, &RUNNING, None, Host::Up),
        Action::RecordInterrupted(false)
    );
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
    /// An earlier message comes again; only the supervisor's sequence guard sees it.
    Replay,
    /// The agent looks and acts once.
    Step(Killed),
    Enter,
    Overdue,
    PowerOff,
    Crash,
    KillMonitor,
    KillAgent,
    /// The host begins to shut down; the agent that ends its guests starts.
    GoDown,
    /// The host restarts, after a shutdown or a power cut; what was not written back is lost.
    RestartHost {
        traces_lost: bool,
    },
    SetAutoRecovery {
        disabled: bool,
    },
    Steady,
    DeleteTap,
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
        1 => Just(Happens::GoDown),
        2 => any::<bool>().prop_map(|traces_lost| Happens::RestartHost { traces_lost }),
        1 => any::<bool>().prop_map(|disabled| Happens::SetAutoRecovery { disabled }),
        1 => Just(Happens::Steady),
        1 => Just(Happens::DeleteTap),
    ]
}

/// The world, the durable record, and the agent's own short memory.
struct Model {
    intent: InstanceIntent,
    record: Record,
    alive: Option<bool>,
    steady: bool,
    without_tap: bool,
    host: Host,
    boot: u64,
    /// Of the launches that a restart or a shutdown of the host ended.
    cut_off: BTreeSet<u64>,
    /// Runs that were recorded as entered.
    entered: BTreeSet<u64>,
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
            steady: false,
            without_tap: false,
            host: Host::Up,
            boot: 1,
            cut_off: BTreeSet::new(),
            entered: BTreeSet::new(),
            traces: BTreeMap::new(),
            effort: None,
            volume: false,
            spawned: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    fn monitor(&self) -> Monitor {
        match self.alive {
            Some(entered) => Monitor::Alive {
                entered,
                by_firmware: None,
                steady: entered && self.steady,
                without_tap: self.without_tap,
                disks: Disks::default(),
            },
            None => {
                let trace = self.traces.get(&self.record.launch);
                Monitor::Absent {
                    spawned: trace.is_some(),
                    outcome: trace.cloned().flatten(),
                    rebooted: !self.record.boot.is_empty() && self.record.boot != self.boot.to_string(),
                }
            }
        }
    }

    fn end_monitor(&mut self, outcome: Option<Outcome>) {
        if self.alive.take().is_some() {
            if self.record.interrupted {
                self.cut_off.insert(self.record.launch);
            }
            self.traces.insert(self.record.launch, outcome);
            self.effort = None;
        }
    }

    fn step(&mut self, killed: Killed) -> Action {
        let action = decide(
            Some(&self.intent),
            &self.record,
            &self.monitor(),
            self.effort,
            self.host,
        );
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
            Action::Launch { run, reboot } | Action::Recover { run, reboot } => {
                assert_eq!(self.host, Host::Up, "started on a host that goes down");
                let recovers = matches!(action, Action::Recover { .. });
                if recovers {
                    let ran = self.entered.contains(&run);
                    assert!(
                        !(ran && self.intent.auto_recovery_disabled),
                        "recovered although that is disabled"
                    );
                    assert!(self.record.recoveries < MAX_RECOVERIES, "recovered without end");
                }
                self.volume = true;
                self.steady = false;
                self.without_tap = false;
                self.record = Record {
                    run,
                    launch: self.record.launch + 1,
                    phase: Phase::Starting,
                    reboot,
                    boot: self.boot.to_string(),
                    interrupted: false,
                    start_micros: match run == self.record.run {
                        true => self.record.start_micros,
                        false => 0,
                    },
                    recoveries: match (recovers, run == self.record.run) {
                        (true, _) => self.record.recoveries + 1,
                        (false, true) => self.record.recoveries,
                        (false, false) => 0,
                    },
                    ..self.record.clone()
                };
                if killed != Killed::AfterRecord {
                    assert_eq!(self.alive, None, "two monitors");
                    self.alive = Some(false);
                    self.traces.insert(self.record.launch, None);
                    if let Some(last) = self.spawned.insert(run, self.record.launch) {
                        let rebooted =
                            reboot > 0 && self.traces.get(&last) == Some(&Some(Outcome::GuestPowerOff));
                        assert!(
                            rebooted || self.cut_off.contains(&last),
                            "run {run} was started twice"
                        );
                    }
                }
            }
            Action::RecordEntered => {
                self.record.phase = Phase::Entered;
                self.record.start_micros = 1;
                self.entered.insert(self.record.run);
            }
            Action::RecordInterrupted(interrupted) => self.record.interrupted = interrupted,
            Action::RecordSteady => self.record.recoveries = 0,
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
            Action::ReplaceTaps => {
                assert_eq!(self.alive, Some(true), "a TAP for nobody");
                self.without_tap = false;
            }
            Action::Volume { .. } => panic!("it has no volumes: see those of `volumes`"),
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
                self.intent = InstanceIntent {
                    auto_recovery_disabled: self.intent.auto_recovery_disabled,
                    ..intent(Desired::Running, self.intent.run + 1)
                };
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
            Happens::GoDown => {
                self.host = Host::GoingDown;
                self.effort = None;
            }
            Happens::RestartHost { traces_lost } => self.restart_host(*traces_lost),
            Happens::SetAutoRecovery { disabled } => self.intent.auto_recovery_disabled = *disabled,
            Happens::Steady => self.steady = true,
            Happens::DeleteTap => self.without_tap = self.alive.is_some(),
            Happens::Replay | Happens::Start | Happens::Stop { .. } | Happens::Reboot => {}
        }
    }

    fn restart_host(&mut self, traces_lost: bool) {
        let launch = self.record.launch;
        self.alive = None;
        if traces_lost {
            self.traces.remove(&launch);
        }
        // What ended without a word, and was not recorded before the restart, may as well have been ended by it.
        if self.traces.get(&launch).is_none_or(Option::is_none) {
            self.cut_off.insert(launch);
        }
        self.boot += 1;
        self.host = Host::Up;
        self.effort = None;
    }

    /// No more surprises: guests obey, patience ends, the agent works.
    fn settle(&mut self) {
        if self.host == Host::GoingDown {
            self.settle_down();
            assert_eq!(self.alive, None, "a guest outlives its host's shutdown");
            self.restart_host(false);
        }
        self.settle_down();
    }

    fn settle_down(&mut self) {
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
        prop_assert_eq!(decide(Some(&old), &ended, &REST, None, Host::Up), Action::Wait);
        let running = record(run, Phase::Entered);
        let monitor = Monitor::Alive {
            entered,
            by_firmware: None,
            steady: false,
            without_tap: false,
            disks: Disks::default(),
        };
        prop_assert_eq!(decide(Some(&old), &running, &monitor, None, Host::Up), Action::Wait);
    }
}

#[test]
fn a_running_instance_is_given_another_tap_and_one_that_ends_is_not() {
    let running = record(1, Phase::Entered);
    let alive = |entered| Monitor::Alive {
        entered,
        by_firmware: None,
        steady: false,
        without_tap: true,
        disks: Disks::default(),
    };
    let action =
        |desired, entered, host| decide(Some(&intent(desired, 1)), &running, &alive(entered), None, host);
    assert_eq!(action(Desired::Running, true, Host::Up), Action::ReplaceTaps);
    assert_eq!(action(Desired::Running, false, Host::Up), Action::Wait);
    assert_eq!(action(Desired::Stopped, true, Host::Up), Action::Press(Goal::End));
    assert_ne!(
        action(Desired::Running, true, Host::GoingDown),
        Action::ReplaceTaps
    );
    assert_eq!(decide(None, &running, &alive(true), None, Host::Up), Action::Wait);
}

#[test]
fn what_the_monitor_tells_of_its_boot_is_recorded_and_told() {
    let wanted = intent(Desired::Running, 1);
    let mut now = record(1, Phase::Entered);
    let alive = |by_firmware| Monitor::Alive {
        entered: true,
        by_firmware,
        steady: false,
        without_tap: false,
        disks: Disks::default(),
    };
    let decide = |now: &Record, by_firmware| decide(Some(&wanted), now, &alive(by_firmware), None, Host::Up);
    assert_eq!(
        observe(Some(&wanted), &now, &alive(None)).boot_mode(),
        BootMode::Unspecified
    );
    assert_eq!(decide(&now, Some(true)), Action::RecordEntered);
    now.by_firmware = Some(true);
    assert_eq!(decide(&now, Some(true)), Action::Wait);
    assert_eq!(observe(Some(&wanted), &now, &RUNNING).boot_mode(), BootMode::Uefi);
    // A monitor that was adopted has not told anything yet.
    assert_eq!(decide(&now, None), Action::Wait);
    assert_eq!(decide(&now, Some(false)), Action::RecordEntered);
    // A stopped instance's is its last one.
    now.phase = Phase::Ended(End::new(Cause::Requested, ""));
    assert_eq!(observe(Some(&wanted), &now, &REST).boot_mode(), BootMode::Uefi);
    assert_ne!(decide(&now, Some(false)), Action::RecordEntered);
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
