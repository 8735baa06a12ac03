use hearth_api::ErrorCode;
use hearth_api::InstanceState::{self, Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
use hearth_api::agent::instance_intent::Desired;
use proptest::prelude::*;

use super::*;

/// EC2.md 2: what the waiters and EC2's own diagram admit in one step.
fn legal(from: InstanceState, to: InstanceState) -> bool {
    matches!(
        (from, to),
        (Pending, Running | ShuttingDown | Stopped)
            | (Running, Stopping | ShuttingDown | Stopped)
            | (Stopping, Stopped | ShuttingDown)
            | (Stopped, Pending | ShuttingDown)
            | (ShuttingDown, Terminated)
    )
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::Start),
        any::<bool>().prop_map(|force| Command::Stop { force }),
        Just(Command::Reboot),
        Just(Command::Terminate),
    ]
}

fn phases() -> impl Strategy<Value = Phase> {
    let end = prop_oneof![
        Just(End::Requested),
        Just(End::GuestPowerOff),
        Just(End::MonitorDied),
        Just(End::StartFailed),
        Just(End::GuestCrashed),
        Just(End::HostRebooted),
    ];
    prop_oneof![
        Just(Phase::Starting),
        Just(Phase::Running),
        Just(Phase::Stopping),
        end.prop_map(|end| Phase::Ended {
            end,
            message: String::new()
        }),
        Just(Phase::Gone),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Command(Command),
    /// How many runs ago, and what.
    Observed(u64, Phase),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        commands().prop_map(Step::Command),
        (0u64..3, phases()).prop_map(|(ago, phase)| Step::Observed(ago, phase)),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn no_sequence_leads_to_an_illegal_transition(steps in steps(), terminates: bool) {
        let mut now = Lifecycle::launched(terminates);
        // What the instance holds, as the store would keep it.
        let (mut compute, mut rest) = (true, true);
        for step in steps {
            let change = match &step {
                Step::Command(command) => match apply(&now, *command, "i-1") {
                    Ok(change) => change,
                    Err(error) => {
                        prop_assert_eq!(error.code, ErrorCode::IncorrectInstanceState);
                        None
                    }
                },
                Step::Observed(ago, phase) => {
                    let run = now.run.saturating_sub(*ago);
                    let change = observe(&now, &Observed { run, phase: phase.clone() });
                    if *ago > 0 && *phase != Phase::Gone {
                        prop_assert_eq!(&change, &None, "an old run changed something");
                    }
                    change
                }
            };
            let Some(change) = change else { continue };
            prop_assert_ne!(&change.next, &now, "a change that changes nothing");
            if change.next.state != now.state {
                prop_assert!(legal(now.state, change.next.state), "{} -> {}", now.state, change.next.state);
            }
            prop_assert!(change.next.run >= now.run && change.next.reboot >= now.reboot);
            match change.hold {
                Hold::Keep => {}
                Hold::TakeCompute => { prop_assert!(!compute); compute = true; }
                Hold::DropCompute => { prop_assert!(compute); compute = false; }
                Hold::DropAll => { prop_assert!(rest); (compute, rest) = (false, false); }
            }
            now = change.next;
            // The wish always fits the state.
            prop_assert_eq!(now.desired, match now.state {
                Pending | Running => Desired::Running,
                Stopping | Stopped => Desired::Stopped,
                ShuttingDown | Terminated => Desired::Terminated,
            });
            prop_assert_eq!(rest, now.state != Terminated);
            if matches!(now.state, Pending | Running | Stopping) { prop_assert!(compute); }
            if now.state == Stopped { prop_assert!(!compute); }
        }
    }

    #[test]
    fn observations_are_idempotent(steps in steps(), phase in phases()) {
        let mut now = Lifecycle::launched(false);
        for step in steps {
            if let Step::Command(command) = step && let Ok(Some(change)) = apply(&now, command, "i-1") {
                now = change.next;
            }
            let observed = Observed { run: now.run, phase: phase.clone() };
            if let Some(change) = observe(&now, &observed) {
                now = change.next;
            }
            prop_assert_eq!(observe(&now, &observed), None);
        }
    }
}

fn ended(end: End) -> Phase {
    Phase::Ended {
        end,
        message: "why".into(),
    }
}

fn after(now: &Lifecycle, phase: Phase) -> Change {
    observe(now, &Observed { run: now.run, phase }).unwrap()
}

fn running(terminates: bool) -> Lifecycle {
    after(&Lifecycle::launched(terminates), Phase::Running).next
}

#[test]
fn a_failed_launch_is_terminated_and_says_why() {
    let change = after(&Lifecycle::launched(false), ended(End::StartFailed));
    assert_eq!(change.next.state, ShuttingDown);
    let ReasonChange::Set(reason) = change.reason else {
        panic!("no reason")
    };
    assert_eq!(reason.code, "Server.InternalError");
    assert!(reason.message.ends_with("why"));
    assert_eq!(after(&change.next, Phase::Gone).next.state, Terminated);
}

#[test]
fn a_failed_start_is_stopped() {
    let stopped = after(&running(false), ended(End::GuestPowerOff)).next;
    let again = apply(&stopped, Command::Start, "i-1").unwrap().unwrap().next;
    assert_eq!((again.state, again.run), (Pending, 2));
    let change = after(&again, ended(End::StartFailed));
    assert_eq!(change.next.state, Stopped);
}

#[test]
fn power_off_obeys_the_shutdown_behavior() {
    assert_eq!(
        after(&running(false), ended(End::GuestPowerOff)).next.state,
        Stopped
    );
    let change = after(&running(true), ended(End::GuestPowerOff));
    assert_eq!(
        (change.next.state, change.next.desired),
        (ShuttingDown, Desired::Terminated)
    );
}

#[test]
fn a_dead_monitor_stops_whatever_the_shutdown_behavior() {
    assert_eq!(after(&running(true), ended(End::MonitorDied)).next.state, Stopped);
}

#[test]
fn terminating_a_stopping_instance_reads_shutting_down_at_once() {
    let stopping = apply(&running(false), Command::Stop { force: false }, "i-1")
        .unwrap()
        .unwrap()
        .next;
    let change = apply(&stopping, Command::Terminate, "i-1").unwrap().unwrap();
    assert_eq!(change.next.state, ShuttingDown);
}

#[test]
fn force_is_the_way_out_of_a_hanging_stop() {
    let stopping = apply(&running(false), Command::Stop { force: false }, "i-1")
        .unwrap()
        .unwrap()
        .next;
    assert_eq!(apply(&stopping, Command::Stop { force: false }, "i-1"), Ok(None));
    let forced = apply(&stopping, Command::Stop { force: true }, "i-1")
        .unwrap()
        .unwrap()
        .next;
    assert!(forced.force);
    assert_eq!(apply(&forced, Command::Stop { force: true }, "i-1"), Ok(None));
}
