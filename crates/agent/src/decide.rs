//! What to do next for one instance: a pure function of what is wanted, remembered and seen.
//!
//! Level-triggered: it knows no history but the record's. Replayed, duplicated or outdated intents
//! therefore change nothing, and an agent that was killed anywhere goes on from where the world stands.
//!
//! A reboot is a power-off that the agent answers by launching the same run again, with the same volume and
//! ENI (ACPI has a power button but no reset button that a guest obeys in order). The API state stays
//! `running` throughout. A guest that ignores the button for the whole patience is reset hard, as EC2 does.
//!
//! The host's own restart is no end of a run either: what ran is launched again (EC2's simplified automatic recovery),
//! unless the intent says otherwise or the host restarts again and again. The end of a monitor is the host's doing if
//! the kernel's boot id is another than the launch's, or if the record says that the host was going down. Such a launch
//! keeps run, volume and ENI, and the API state stays `running`.

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase as Seen;
use hearth_api::agent::{InstanceIntent, InstanceObservation};
use hearth_vmm::spec::Outcome;

use crate::record::{Cause, End, Phase, Record};

pub mod snapshots;
mod volumes;

pub use volumes::{Attempt, Deed, Device, Disks, rate_limit};

/// Launches of one run after restarts of the host, none of which ran steadily. One more would be a loop: the instance
/// may be what brings the host down.
pub const MAX_RECOVERIES: u32 = 3;

/// Characters of why a monitor says that it ended.
const MAX_MESSAGE: usize = 1000;

/// What the kernel says about the monitor of the record's launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Monitor {
    /// None lives. `spawned`: one did, in this launch; `outcome` is what it said at its end; `rebooted`: the host has
    /// restarted since the launch, and may have lost what these two are read from.
    Absent {
        spawned: bool,
        outcome: Option<Outcome>,
        rebooted: bool,
    },
    /// One lives; `entered`: its first vCPU has been entered; `by_firmware`: what it has told of its last boot; `steady`: it
    /// has lived for so long that it is not what brings the host down; `without_tap`: somebody has deleted a TAP of it;
    /// `disks`: its volumes, as far as they are known.
    Alive {
        entered: bool,
        by_firmware: Option<bool>,
        steady: bool,
        without_tap: bool,
        disks: Disks,
    },
}

/// What the host is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Up,
    /// It shuts down: guests end, nothing is launched.
    GoingDown,
}

/// How hard the living monitor has been asked to end. Not durable: a new agent asks anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    pub goal: Goal,
    pub step: Step,
    /// The step's patience is over.
    pub overdue: bool,
    /// The button was last pressed so long ago that a guest which was still booting may have missed it.
    pub missed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    End,
    Reboot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The ACPI power button was pressed.
    Pressed,
    /// The control socket was told to stop.
    Stopped,
    /// SIGKILL was sent.
    Killed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing to do until the intent, the monitor or the clock says otherwise.
    Wait,
    /// Make image, volume and network ready, record a new launch of `run`, and spawn it.
    Launch {
        run: u64,
        reboot: u64,
    },
    /// As `Launch`, of a run that the host's restart has cut off.
    Recover {
        run: u64,
        reboot: u64,
    },
    /// The living monitor has entered its first vCPU, or has told of another road than is recorded: remember it.
    RecordEntered,
    /// Whether the living monitor's end will be the host's doing.
    RecordInterrupted(bool),
    /// The recovered run has run steadily.
    RecordSteady,
    RecordEnd {
        run: u64,
        end: End,
    },
    /// Press the power button towards the goal; pressing again does not begin the patience anew.
    Press(Goal),
    Stop,
    Kill,
    /// Pull the reset line; with that, reboot number `reboot` has been carried out.
    Reset {
        reboot: u64,
    },
    /// Give the living monitor a TAP in the place of each that was deleted.
    ReplaceTaps,
    /// Have the living monitor do something with a volume.
    Volume {
        volume_id: String,
        deed: Deed,
    },
    /// Delete what termination deletes, then remember `Gone`.
    Erase,
    /// Drop the record: the control plane has heard that all is gone.
    Forget,
}

/// The next thing to do.
pub fn decide(
    intent: Option<&InstanceIntent>,
    record: &Record,
    monitor: &Monitor,
    effort: Option<Effort>,
    host: Host,
) -> Action {
    let action = match monitor {
        Monitor::Alive { entered, .. } if *entered && record.phase == Phase::Starting => {
            Action::RecordEntered
        }
        // The guest has reset itself, and what is on its disk goes by another road than before.
        Monitor::Alive { by_firmware, .. }
            if by_firmware.is_some()
                && *by_firmware != record.by_firmware
                && record.phase == Phase::Entered =>
        {
            Action::RecordEntered
        }
        Monitor::Alive { entered, .. } if host == Host::GoingDown => {
            going_down(intent, record, *entered, effort)
        }
        Monitor::Alive { .. } if record.interrupted => Action::RecordInterrupted(false),
        Monitor::Alive { steady: true, .. } if record.recoveries > 0 => Action::RecordSteady,
        Monitor::Alive {
            entered,
            without_tap,
            disks,
            ..
        } => match (
            alive(intent, record, *entered, effort),
            wish(intent, record),
            intent,
        ) {
            (Action::Wait, Wish::Run, Some(_)) if *without_tap && *entered => Action::ReplaceTaps,
            (Action::Wait, Wish::Run, Some(intent)) if *entered => {
                volumes::next(intent, disks).unwrap_or(Action::Wait)
            }
            (action, ..) => action,
        },
        Monitor::Absent {
            spawned,
            outcome,
            rebooted,
        } => match record.phase {
            Phase::Starting if !spawned && !rebooted => never_spawned(intent, record),
            Phase::Starting | Phase::Entered => ended(intent, record, outcome.as_ref(), *rebooted),
            Phase::Idle | Phase::Ended(_) => at_rest(intent, record),
            Phase::Gone if intent.is_none() => Action::Forget,
            Phase::Gone => at_rest(intent, record),
        },
    };
    match action {
        // They can wait until the host is back.
        Action::Launch { .. } | Action::Recover { .. } | Action::Erase if host == Host::GoingDown => {
            Action::Wait
        }
        action => action,
    }
}

/// The host shuts down while the monitor lives. That it does is recorded before the guest is asked to end, so that the
/// end is not taken for the guest's own wish.
fn going_down(
    intent: Option<&InstanceIntent>,
    record: &Record,
    entered: bool,
    effort: Option<Effort>,
) -> Action {
    match (wish(intent, record), intent) {
        (Wish::End, Some(intent)) => end_ladder(intent.force, entered, effort),
        _ if !record.interrupted => Action::RecordInterrupted(true),
        _ => end_ladder(false, entered, effort),
    }
}

fn alive(intent: Option<&InstanceIntent>, record: &Record, entered: bool, effort: Option<Effort>) -> Action {
    match (wish(intent, record), intent) {
        (Wish::End, Some(intent)) => end_ladder(intent.force, entered, effort),
        (Wish::Run, Some(intent)) if entered && intent.reboot > record.reboot => {
            match effort.filter(|e| e.goal == Goal::Reboot) {
                None => Action::Press(Goal::Reboot),
                Some(Effort { overdue: true, .. }) => Action::Reset {
                    reboot: intent.reboot,
                },
                Some(Effort { missed: true, .. }) => Action::Press(Goal::Reboot),
                Some(_) => Action::Wait,
            }
        }
        _ => Action::Wait,
    }
}

/// Power button, then the control socket, then SIGKILL. A guest that has not begun to run, or that is to
/// be ended by force, is not asked.
fn end_ladder(force: bool, entered: bool, effort: Option<Effort>) -> Action {
    match effort.filter(|e| e.goal == Goal::End) {
        None if force || !entered => Action::Stop,
        None => Action::Press(Goal::End),
        Some(Effort {
            step: Step::Pressed,
            overdue,
            ..
        }) if overdue || force => Action::Stop,
        Some(Effort {
            step: Step::Pressed,
            missed: true,
            ..
        }) => Action::Press(Goal::End),
        Some(Effort {
            step: Step::Stopped,
            overdue: true,
            ..
        }) => Action::Kill,
        Some(_) => Action::Wait,
    }
}

/// The launch was recorded, but no monitor ever entered the world for it: it may still be done.
fn never_spawned(intent: Option<&InstanceIntent>, record: &Record) -> Action {
    match (wish(intent, record), intent) {
        (Wish::Run, Some(intent)) => Action::Launch {
            run: record.run,
            reboot: intent.reboot,
        },
        (Wish::End, _) => Action::RecordEnd {
            run: record.run,
            end: End::new(Cause::Requested, ""),
        },
        _ => Action::Wait,
    }
}

/// The monitor of this launch is no more.
fn ended(
    intent: Option<&InstanceIntent>,
    record: &Record,
    outcome: Option<&Outcome>,
    rebooted: bool,
) -> Action {
    let wish = wish(intent, record);
    let hosts_doing = match outcome {
        None | Some(Outcome::Killed { .. }) => rebooted || record.interrupted,
        Some(Outcome::GuestPowerOff | Outcome::Stopped | Outcome::Crashed { .. }) => record.interrupted,
        Some(Outcome::StartFailed { .. }) => false,
    };
    if hosts_doing && wish != Wish::End {
        return cut_off(intent.filter(|_| wish == Wish::Run), record);
    }
    let end = match outcome {
        Some(Outcome::GuestPowerOff) => match (wish, intent) {
            (Wish::Run, Some(intent)) if intent.reboot > record.reboot => {
                return Action::Launch {
                    run: record.run,
                    reboot: intent.reboot,
                };
            }
            (Wish::End, _) => End::new(Cause::Requested, ""),
            _ => End::new(Cause::GuestPowerOff, ""),
        },
        Some(Outcome::Stopped) if wish == Wish::Run => End::new(
            Cause::MonitorDied,
            "the instance's monitor was told on its host to stop (`hearth-agent cleanup`)",
        ),
        Some(Outcome::Stopped) => End::new(Cause::Requested, ""),
        Some(Outcome::StartFailed { message }) => End::new(Cause::StartFailed, brief(message)),
        Some(Outcome::Crashed { message }) => End::new(Cause::GuestCrashed, brief(message)),
        // Killed after the ladder's end: what was wanted came about.
        None | Some(Outcome::Killed { .. }) if wish == Wish::End => End::new(Cause::Requested, ""),
        Some(Outcome::Killed { signal }) => End::new(Cause::MonitorDied, killed_by(*signal)),
        None => End::new(
            Cause::MonitorDied,
            "the instance's monitor process ended without a word (it was killed)",
        ),
    };
    Action::RecordEnd { run: record.run, end }
}

/// The host's restart, or its shutdown, has ended the run's monitor. `intent`: of this run, which shall go on.
fn cut_off(intent: Option<&InstanceIntent>, record: &Record) -> Action {
    let Some(intent) = intent else {
        return Action::Wait;
    };
    let end = |why: String| Action::RecordEnd {
        run: record.run,
        end: End::new(Cause::HostRebooted, why),
    };
    // What never ran is not recovered but launched.
    let ran = record.phase == Phase::Entered || record.start_micros > 0;
    if ran && intent.auto_recovery_disabled {
        return end("automatic recovery is disabled for the instance".to_owned());
    }
    if record.recoveries >= MAX_RECOVERIES {
        return end(format!(
            "the instance was started again after {MAX_RECOVERIES} restarts of its host, and each time the host \
             restarted soon"
        ));
    }
    Action::Recover {
        run: record.run,
        reboot: intent.reboot,
    }
}

/// What a monitor says goes to the control plane again and again, with all that others say: it is not trusted to be
/// short.
fn brief(message: &str) -> String {
    message.chars().take(MAX_MESSAGE).collect()
}

fn killed_by(signal: i32) -> String {
    let how = match signal {
        libc::SIGSYS => {
            "was ended by its seccomp filter: it asked for a system call that is forbidden to it (the host's kernel \
             log names it, with type=1326)"
        }
        libc::SIGKILL => "was killed: by someone on its host, or because its memory ran out",
        libc::SIGBUS => "could not reach a page of its memory (SIGBUS)",
        _ => return format!("the instance's monitor process was ended by signal {signal}"),
    };
    format!("the instance's monitor process {how}")
}

/// No run is going on.
fn at_rest(intent: Option<&InstanceIntent>, record: &Record) -> Action {
    let Some(intent) = intent else {
        return Action::Wait;
    };
    match intent.desired() {
        Desired::Running if intent.run > record.run => Action::Launch {
            run: intent.run,
            reboot: intent.reboot,
        },
        // Started and stopped again before this host had heard of it.
        Desired::Stopped if intent.run > record.run || record.phase == Phase::Idle => Action::RecordEnd {
            run: intent.run,
            end: End::new(Cause::Requested, ""),
        },
        Desired::Terminated if record.phase != Phase::Gone => Action::Erase,
        _ => Action::Wait,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// The recorded run shall go on.
    Run,
    /// It shall end.
    End,
    /// Nobody says, or what is said is older than the record.
    Unsaid,
}

fn wish(intent: Option<&InstanceIntent>, record: &Record) -> Wish {
    let Some(intent) = intent else {
        return Wish::Unsaid;
    };
    match intent.desired() {
        Desired::Terminated => Wish::End,
        Desired::Stopped if intent.run >= record.run => Wish::End,
        Desired::Running if intent.run > record.run => Wish::End,
        Desired::Running if intent.run == record.run => Wish::Run,
        _ => Wish::Unsaid,
    }
}

/// What the control plane is told.
pub fn observe(intent: Option<&InstanceIntent>, record: &Record, monitor: &Monitor) -> InstanceObservation {
    let mut seen = record.observation();
    let wish = wish(intent, record);
    let phase = match (intent, &record.phase, monitor) {
        (_, Phase::Gone, Monitor::Absent { .. }) => Seen::Gone,
        (None, _, _) => Seen::Unknown,
        (Some(_), _, Monitor::Alive { .. }) if wish == Wish::End => Seen::Stopping,
        (Some(_), _, Monitor::Alive { entered: true, .. }) | (_, Phase::Entered, _) => Seen::Running,
        // Between a reboot's two launches the run goes on.
        (Some(_), Phase::Starting, _) if record.start_micros > 0 => Seen::Running,
        (Some(_), Phase::Starting, _) | (_, _, Monitor::Alive { .. }) => Seen::Starting,
        (Some(intent), Phase::Idle | Phase::Ended(_), _) => match at_rest(Some(intent), record) {
            Action::Launch { run, reboot } => {
                seen.run = run;
                seen.reboot = reboot;
                seen.end = None;
                seen.start_micros = 0;
                Seen::Starting
            }
            Action::Erase => Seen::Stopping,
            _ if record.phase == Phase::Idle => Seen::Unspecified,
            _ => Seen::Ended,
        },
    };
    seen.set_phase(phase);
    seen.volumes = intent.map_or_else(Vec::new, |intent| volumes::observe(intent, record, monitor));
    seen
}

#[cfg(test)]
mod tests;
