//! One instance's actor: it looks, decides, acts, and looks again, until the instance is as intended.
//!
//! # Killed between any two steps
//!
//! The record is written before the deed, and the world can be asked what came of it. An agent that was
//! killed finds, after its restart:
//!
//! | killed | record | world | what the next agent does |
//! |---|---|---|---|
//! | while laying a base or the volume, opening the TAP | old | half-made files under hidden names; the TAP is gone with its descriptor | sweeps, begins the launch anew |
//! | before the record of launch *n* | old | volume and image whole | begins the launch anew |
//! | after it, before the fork | `Starting` *n* | no socket or nobody listening, no mark | does launch of the same run: nothing ever ran |
//! | between fork and exec | `Starting` *n* | the fork holds the listening socket and goes on by itself | `connect` succeeds: adopts it |
//! | after the exec | `Starting` *n* | the monitor serves the socket | adopts it |
//! | after the first entry, before its record | `Starting` *n* | the monitor says `running` | adopts it, records the entry |
//! | after the monitor's end, before its record | `Starting`/`Entered` *n* | nobody listens; the mark; the outcome file | records the end; after a reboot's power-off, launches *n*+1 |
//! | between a reboot's record of *n*+1 and its fork | `Starting` *n*+1 | directory of *n*+1 absent or without mark | launches *n*+1; the traces of *n* have another name |
//! | while a cut-off run waits to be launched again | old, of another boot or `interrupted` | nobody listens | launches *n*+1 of the same run, in its turn |
//! | between removing the run's instance store and the record of its end | `Entered` | as above, and its disks are gone | records the end |
//! | while erasing | old | some files gone | erases the rest: it is idempotent |
//! | after `Gone`, before the report | `Gone` | nothing | reports `Gone` at each connection until the intent goes |
//!
//! Besides, a monitor inherits the lock on its volume's data file, so that even an agent that lost its
//! store cannot have two monitors write one volume.

mod launch;
mod recover;
mod repair;
mod spawn;
mod volumes;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hearth_api::agent::InstanceIntent;
use hearth_api::agent::instance_intent::Desired;
use hearth_vmm::control::Request;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::board::Board;
use crate::decide::{Action, Disks, Effort, Goal, Host, Monitor, Step, decide, observe};
use crate::firmware::Firmware;
use crate::images::{Images, Troubles};
use crate::jail::Jail;
use crate::link::Link;
use crate::monitor::MonitorHandle;
use crate::networks::Networks;
use crate::paths::{DataDir, is_plain_id};
use crate::record::{Cause, End, Phase, Record};
use crate::store::Store;
use crate::volume::VolumeError;
use crate::{chain, consoles, fault, instance_store, volume};

pub use spawn::{sweep_launches, traces};

/// What every actor works with.
pub struct Context {
    pub dir: DataDir,
    pub store: Store,
    pub images: Images,
    /// Where snapshots go.
    pub link: Link,
    pub networks: Arc<Networks>,
    pub board: Board,
    /// The monitor program.
    pub monitor: PathBuf,
    pub firmware: Firmware,
    /// The device that monitors are given as KVM.
    pub kvm: &'static str,
    /// Absent only where monitors are stand-ins.
    pub jail: Option<Jail>,
    /// How long a guest has to obey the power button.
    pub stop_patience: Duration,
    /// The kernel's id of this boot of the host.
    pub boot: String,
    pub host: Host,
    /// Held by instances that are started again after a restart of the host.
    pub recovering: Arc<Semaphore>,
}

/// What is wanted of one instance.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub intent: Option<InstanceIntent>,
    /// When the intent's `run` was first heard of.
    pub arrived: Instant,
}

/// How long a monitor has to end after the control socket told it to: it flushes its disks.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// A guest that is still booting does not hear the button, so it is pressed until the patience is over.
const PRESS_AGAIN: Duration = Duration::from_secs(10);
/// The pause before trying again what the host's own disk refused.
const RETRY: Duration = Duration::from_secs(2);
/// A monitor that has lived for so long is not what brings its host down.
const STEADY: Duration = Duration::from_secs(600);

pub struct Actor {
    context: Arc<Context>,
    wanted: watch::Receiver<Wanted>,
    record: Record,
    monitor: Option<MonitorHandle>,
    /// When this agent took hold of the monitor.
    since: Instant,
    effort: Option<Trying>,
    known: volumes::Known,
    without_tap: watch::Receiver<BTreeSet<String>>,
    troubles: watch::Receiver<Troubles>,
    /// Brings the monitor what it waits for of its disks' bases.
    serving: Option<AbortOnDrop>,
}

/// A task that ends with whoever wants it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An [`Effort`] with its clock.
#[derive(Debug, Clone, Copy)]
struct Trying {
    goal: Goal,
    step: Step,
    since: Instant,
    until: Instant,
}

impl Trying {
    fn effort(&self, now: Instant) -> Effort {
        Effort {
            goal: self.goal,
            step: self.step,
            overdue: now >= self.until,
            missed: self.step == Step::Pressed && now >= self.since + PRESS_AGAIN,
        }
    }

    /// When to look again, if `effort` (what was just decided upon) leaves anything to look at.
    fn wake(&self, effort: Effort) -> Option<Instant> {
        match (self.step, effort.overdue) {
            (_, true) => None,
            (Step::Pressed, false) => Some(self.until.min(self.since + PRESS_AGAIN)),
            (_, false) => Some(self.until),
        }
    }
}

impl Actor {
    pub fn new(context: Arc<Context>, wanted: watch::Receiver<Wanted>, record: Record) -> Actor {
        Actor {
            without_tap: context.networks.without_tap(),
            troubles: context.images.troubles(),
            serving: None,
            context,
            wanted,
            record,
            monitor: None,
            since: Instant::now(),
            effort: None,
            known: volumes::Known::default(),
        }
    }

    /// Until the instance is forgotten or the agent ends. `ready` is dropped once its state is on the board.
    pub async fn run(mut self, ready: mpsc::Sender<()>) {
        let mut ready = Some(ready);
        self.adopt().await;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let intent = wanted.intent.as_ref();
            let seen = self.look(intent).await;
            self.context.board.post(observe(intent, &self.record, &seen));
            drop(ready.take());
            let effort = self.effort.map(|trying| trying.effort(Instant::now()));
            let action = decide(intent, &self.record, &seen, effort, self.context.host);
            if action != Action::Wait {
                tracing::debug!(instance = self.record.instance_id, ?action, "decided");
            }
            match action {
                Action::Wait => {
                    self.drop_store(intent).await;
                    // Nothing is begun on a host that goes down.
                    if self.monitor.is_none() && self.context.host == Host::GoingDown {
                        return;
                    }
                    if !self.wait(effort).await {
                        return;
                    }
                }
                Action::Launch { run, reboot } => {
                    if let Some(intent) = wanted.intent {
                        let recoveries = if run == self.record.run {
                            self.record.recoveries
                        } else {
                            0
                        };
                        self.launch(&intent, run, reboot, recoveries).await;
                    }
                }
                Action::Recover { run, reboot } => {
                    if let Some(intent) = wanted.intent {
                        self.recover(&intent, run, reboot).await;
                    }
                }
                Action::RecordInterrupted(interrupted) => {
                    let record = self.record.clone();
                    self.remember(Record {
                        interrupted,
                        ..record
                    })
                    .await;
                }
                Action::RecordSteady => {
                    let record = self.record.clone();
                    self.remember(Record {
                        recoveries: 0,
                        ..record
                    })
                    .await;
                }
                Action::RecordEntered => self.record_entered(wanted.arrived).await,
                Action::RecordEnd { run, end } => self.record_end(intent, run, end).await,
                Action::Press(goal) => self.press(goal).await,
                Action::Stop => self.stop().await,
                Action::Kill => self.kill(),
                Action::Reset { reboot } => self.reset(reboot).await,
                Action::ReplaceTaps => {
                    if let Some(intent) = wanted.intent {
                        self.replace_taps(&intent).await;
                    }
                }
                Action::Volume { volume_id, deed } => {
                    if let Some(intent) = wanted.intent {
                        self.change_volume(&intent, &volume_id, deed).await;
                    }
                }
                Action::Erase => self.erase(intent).await,
                Action::Forget => {
                    if self.forget().await {
                        return;
                    }
                }
            }
        }
    }

    /// Takes hold of the monitor that an earlier agent spawned, if it lives. Without an answer to whether one
    /// lives nothing may be decided, so it asks until it gets one.
    async fn adopt(&mut self) {
        if !matches!(self.record.phase, Phase::Starting | Phase::Entered) {
            return;
        }
        let launch = self
            .context
            .dir
            .launch(&self.record.instance_id, self.record.launch);
        loop {
            match MonitorHandle::find(&launch).await {
                Ok(found) => {
                    if found.is_some() {
                        tracing::info!(instance = self.record.instance_id, "adopted its monitor");
                    }
                    self.take_hold_of(found);
                    return;
                }
                Err(error) => {
                    tracing::error!(instance = self.record.instance_id, error = %chain(&error), "adopting");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn take_hold_of(&mut self, monitor: Option<MonitorHandle>) {
        self.serving = monitor.is_some().then(|| {
            let images = self.context.images.clone();
            let (id, launch) = (&self.record.instance_id, self.record.launch);
            let launch_dir = self.context.dir.launch(id, launch);
            AbortOnDrop(tokio::spawn(async move { images.serve(&launch_dir).await }))
        });
        self.monitor = monitor;
        self.since = Instant::now();
        self.known = volumes::Known::default();
    }

    async fn look(&mut self, intent: Option<&InstanceIntent>) -> Monitor {
        if let Some(told) = self.monitor.as_ref().map(MonitorHandle::told) {
            // An adopted monitor may not have said it yet.
            let entered = told.entered || self.record.phase == Phase::Entered;
            // The first entry is told before anything else is asked.
            if self.record.phase == Phase::Entered {
                self.look_at_devices().await;
            }
            let troubles = self.troubles.borrow_and_update();
            let mut disks = self.known.disks(intent, Instant::now());
            disks.troubles = troubles.clone();
            drop(troubles);
            let without = self.without_tap.borrow_and_update();
            let mut interfaces = intent.into_iter().flat_map(|intent| &intent.network_interfaces);
            return Monitor::Alive {
                without_tap: interfaces.any(|eni| without.contains(&eni.network_interface_id)),
                entered,
                by_firmware: told.by_firmware,
                steady: self.since.elapsed() >= STEADY,
                disks,
            };
        }
        if !matches!(self.record.phase, Phase::Starting | Phase::Entered) {
            return Monitor::Absent {
                spawned: false,
                outcome: None,
                rebooted: false,
            };
        }
        let (dir, id) = (self.context.dir.clone(), self.record.instance_id.clone());
        let launch = self.record.launch;
        let traces = tokio::task::spawn_blocking(move || traces(&dir, &id, launch)).await;
        let (spawned, outcome) = traces.unwrap_or((true, None));
        Monitor::Absent {
            spawned,
            outcome,
            rebooted: !self.record.boot.is_empty() && self.record.boot != self.context.boot,
        }
    }

    /// Until something has changed; false when the agent ends. `effort` is what it was decided upon to wait.
    async fn wait(&mut self, effort: Option<Effort>) -> bool {
        let wake = Option::zip(self.effort, effort).and_then(|(trying, effort)| trying.wake(effort));
        let steady = (self.record.recoveries > 0).then_some(self.since + STEADY);
        let volumes = self.known.wake(Instant::now());
        let wake = wake.into_iter().chain(steady).chain(volumes).min();
        let wake = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let Some(monitor) = &mut self.monitor else {
            return self.wanted.changed().await.is_ok();
        };
        let ended = tokio::select! {
            changed = self.wanted.changed() => return changed.is_ok(),
            () = wake => false,
            Ok(()) = self.without_tap.changed() => false,
            Ok(()) = self.troubles.changed() => false,
            ended = monitor.ended_or_told() => ended,
        };
        if ended {
            tracing::info!(instance = self.record.instance_id, "its monitor ended");
            self.take_hold_of(None);
            self.effort = None;
            self.vacate();
            fault::point("monitor-ended");
        }
        true
    }

    async fn press(&mut self, goal: Goal) {
        let until = match self.effort {
            Some(trying) if trying.goal == goal && trying.step == Step::Pressed => trying.until,
            _ => Instant::now() + self.context.stop_patience,
        };
        self.ask(Request::PowerButton, goal, Step::Pressed, until).await;
        fault::point("pressed");
    }

    async fn stop(&mut self) {
        if let Some(trying) = self.effort.filter(|trying| trying.step == Step::Pressed) {
            tracing::warn!(
                instance = self.record.instance_id,
                seconds = trying.since.elapsed().as_secs(),
                "the guest has not ended by its power button: it is stopped without its consent"
            );
        }
        let until = Instant::now() + STOP_GRACE;
        self.ask(Request::Stop, Goal::End, Step::Stopped, until).await;
    }

    /// Says it and notes the step, heard or not: the next step comes when this one's patience is over.
    async fn ask(&mut self, request: Request, goal: Goal, step: Step, until: Instant) {
        self.try_until(goal, step, until);
        if let Some(monitor) = &self.monitor
            && let Err(error) = monitor.ask(request).await
        {
            tracing::warn!(instance = self.record.instance_id, error = %chain(&error), "asking its monitor");
        }
    }

    fn try_until(&mut self, goal: Goal, step: Step, until: Instant) {
        self.effort = Some(Trying {
            goal,
            step,
            since: Instant::now(),
            until,
        });
    }

    fn kill(&mut self) {
        tracing::warn!(
            instance = self.record.instance_id,
            "its monitor does not end: it is killed"
        );
        self.try_until(Goal::End, Step::Killed, Instant::now() + STOP_GRACE);
        if let Some(monitor) = &self.monitor
            && let Err(error) = monitor.kill()
        {
            tracing::error!(instance = self.record.instance_id, error = %chain(&error), "killing its monitor");
        }
    }

    async fn reset(&mut self, reboot: u64) {
        let Some(monitor) = &self.monitor else { return };
        match monitor.ask(Request::Reset).await {
            Ok(_) => {
                self.effort = None;
                let record = Record {
                    reboot,
                    ..self.record.clone()
                };
                self.remember(record).await;
            }
            Err(error) => {
                tracing::warn!(instance = self.record.instance_id, error = %chain(&error), "resetting it");
                self.try_until(Goal::Reboot, Step::Pressed, Instant::now() + STOP_GRACE);
            }
        }
    }

    async fn record_entered(&mut self, arrived: Instant) {
        let start_micros = match self.record.start_micros {
            0 => u64::try_from(arrived.elapsed().as_micros())
                .unwrap_or(u64::MAX)
                .max(1),
            // A reboot's launch: the run began long ago.
            measured => measured,
        };
        let by_firmware = self
            .monitor
            .as_ref()
            .and_then(|monitor| monitor.told().by_firmware);
        let record = Record {
            phase: Phase::Entered,
            start_micros,
            by_firmware,
            ..self.record.clone()
        };
        // Told before it is written down: the disk takes longer than the news should.
        let intent = self.wanted.borrow().intent.clone();
        let seen = Monitor::Alive {
            entered: true,
            by_firmware,
            steady: false,
            without_tap: false,
            disks: Disks::default(),
        };
        self.context.board.post(observe(intent.as_ref(), &record, &seen));
        fault::point("entered");
        self.remember(record).await;
    }

    /// `run` is over, and so is its instance store, unless the instance runs again with it. False: it is tried again.
    async fn end_store(&self, intent: Option<&InstanceIntent>, run: u64) -> bool {
        let goes_on = |intent: &&InstanceIntent| intent.keep_store || intent.run > run;
        let keep = intent.filter(goes_on).map(|intent| intent.store_run);
        let (dir, id) = (self.context.dir.clone(), self.record.instance_id.clone());
        let swept = tokio::task::spawn_blocking(move || instance_store::sweep(&dir, &id, keep)).await;
        match swept {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(instance = self.record.instance_id, error = %chain(&error), "ending its instance store");
                tokio::time::sleep(RETRY).await;
                false
            }
            Err(_) => false,
        }
    }

    /// An instance that was shut down for an image, and then did not run again, has no instance store any more.
    async fn drop_store(&self, intent: Option<&InstanceIntent>) {
        let is_stopped = intent.is_some_and(|intent| intent.desired() == Desired::Stopped);
        if is_stopped && self.monitor.is_none() && matches!(self.record.phase, Phase::Ended(_)) {
            self.end_store(intent, self.record.run).await;
        }
    }

    async fn record_end(&mut self, intent: Option<&InstanceIntent>, run: u64, end: End) {
        tracing::info!(instance = self.record.instance_id, run, cause = ?end.cause, message = end.message, "run ended");
        // First: what has ended has nothing of it any more.
        if !self.end_store(intent, run).await {
            return;
        }
        let record = Record {
            run,
            start_micros: if run == self.record.run {
                self.record.start_micros
            } else {
                0
            },
            phase: Phase::Ended(end),
            ..self.record.clone()
        };
        self.remember(record).await;
    }

    fn vacate(&self) {
        if let Some(jail) = &self.context.jail {
            jail.vacate(&self.record.instance_id);
        }
    }

    async fn start_failed(&mut self, intent: &InstanceIntent, run: u64, error: launch::LaunchError) {
        self.vacate();
        let end = End::new(Cause::StartFailed, chain(&error));
        self.record_end(Some(intent), run, end).await;
    }

    /// Deletes what termination deletes. Idempotent.
    async fn erase(&mut self, intent: Option<&InstanceIntent>) {
        let volumes = intent.into_iter().flat_map(|intent| &intent.volumes);
        let volumes: Vec<(String, u64)> = volumes
            .filter(|volume| volume.delete_on_termination && is_plain_id(&volume.volume_id))
            .map(|volume| (volume.volume_id.clone(), volume.attachment_epoch))
            .collect();
        let (dir, id) = (self.context.dir.clone(), self.record.instance_id.clone());
        let erased = tokio::task::spawn_blocking(move || {
            for (volume_id, epoch) in volumes {
                match volume::erase(&dir, &volume_id, epoch) {
                    // It is another instance's by now.
                    Err(error @ VolumeError::Stale { .. }) => {
                        tracing::warn!(instance = id, error = %chain(&error), "keeping a volume");
                    }
                    erased => erased?,
                }
            }
            fault::point("erasing");
            if let Err(error) = consoles::keep(&dir, &id) {
                tracing::warn!(instance = id, %error, "keeping its console");
            }
            instance_store::sweep(&dir, &id, None)?;
            volume::remove_tree(&dir.instance(&id))
        })
        .await;
        match erased {
            Ok(Ok(())) => {
                self.context.images.trim().await;
                let record = Record {
                    phase: Phase::Gone,
                    ..self.record.clone()
                };
                self.remember(record).await;
            }
            Ok(Err(error)) => {
                tracing::error!(instance = self.record.instance_id, error = %chain(&error), "erasing it");
                tokio::time::sleep(RETRY).await;
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }

    async fn forget(&mut self) -> bool {
        let id = &self.record.instance_id;
        if let Err(error) = self.context.store.remove_record(id).await {
            tracing::error!(instance = id, error = %chain(&error), "forgetting it");
            tokio::time::sleep(RETRY).await;
            return false;
        }
        self.context.board.take_down(id);
        true
    }

    /// Writes the record down; when the disk refuses, nothing has changed, and after a pause the actor looks
    /// again.
    async fn remember(&mut self, record: Record) -> bool {
        match self.context.store.put_record(&record).await {
            Ok(()) => {
                self.record = record;
                true
            }
            Err(error) => {
                tracing::error!(instance = record.instance_id, error = %chain(&error), "writing its record");
                tokio::time::sleep(RETRY).await;
                false
            }
        }
    }
}
