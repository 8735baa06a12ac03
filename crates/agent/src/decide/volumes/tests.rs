//! A table of what is done with one volume, and a model of a monitor whose volumes are wanted otherwise all the time, by an
//! agent that is killed anywhere.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::decide::{Host, decide, observe as observe_instance};

const GIB: u64 = 1 << 30;

fn volume(id: &str, epoch: u64) -> InstanceVolume {
    InstanceVolume {
        volume_id: id.to_owned(),
        size_bytes: GIB,
        attachment_epoch: epoch,
        ..InstanceVolume::default()
    }
}

fn intent(volumes: Vec<InstanceVolume>) -> InstanceIntent {
    InstanceIntent {
        instance_id: "i-1".to_owned(),
        desired: Desired::Running.into(),
        run: 1,
        volumes: [vec![volume("vol-root", 1)], volumes].concat(),
        ..InstanceIntent::default()
    }
}

fn record() -> Record {
    Record {
        run: 1,
        launch: 1,
        phase: Phase::Entered,
        ..Record::new("i-1")
    }
}

fn running(disks: Disks) -> Monitor {
    Monitor::Alive {
        entered: true,
        by_firmware: None,
        steady: false,
        without_tap: false,
        disks,
    }
}

fn device(size_bytes: u64) -> Device {
    Device {
        leaving: false,
        status: Some(DiskStatus {
            size_bytes,
            rate_limit: RateLimit::default(),
        }),
    }
}

fn disks(devices: &[(&str, Device)]) -> Disks {
    let root = ("vol-root", device(GIB));
    let all = devices.iter().copied().chain([root]);
    Disks {
        devices: Some(all.map(|(id, device)| (id.to_owned(), device)).collect()),
        ..Disks::default()
    }
}

fn done(intent: &InstanceIntent, disks: Disks) -> Action {
    decide(Some(intent), &record(), &running(disks), None, Host::Up)
}

/// Of the volumes besides the root one.
fn told(intent: &InstanceIntent, monitor: &Monitor) -> Vec<VolumeObservation> {
    let mut volumes = observe_instance(Some(intent), &record(), monitor).volumes;
    volumes.retain(|volume| volume.volume_id != "vol-root");
    volumes
}

#[test]
fn each_difference_has_its_deed() {
    let leaving = Device {
        leaving: true,
        ..device(GIB)
    };
    let older = Device {
        leaving: false,
        status: None,
    };
    let wanted = |change: fn(&mut InstanceVolume)| {
        let mut volume = volume("vol-1", 3);
        change(&mut volume);
        volume
    };
    let limit = RateLimit {
        operations: None,
        bytes: Some(Rate {
            per_second: NonZeroU64::new(2 << 20).unwrap(),
            burst: 0,
        }),
    };
    type Row = (fn(&mut InstanceVolume), Option<Device>, Option<Deed>, State);
    let attach = Some(Deed::Attach { epoch: 3 });
    let detach = |force| Some(Deed::Detach { force });
    let rows: [Row; 12] = [
        (|_| (), None, attach, State::Attaching),
        (|_| (), Some(device(GIB)), None, State::Attached),
        // It was asked to go before, and comes again when it is gone.
        (|_| (), Some(leaving), None, State::Attaching),
        (|_| (), Some(older), None, State::Attached),
        (
            |it| it.size_bytes = 2 * GIB,
            Some(device(GIB)),
            Some(Deed::Resize { bytes: 2 * GIB }),
            State::Attached,
        ),
        (|it| it.size_bytes = 2 * GIB, Some(older), None, State::Attached),
        // It does not shrink.
        (
            |it| it.size_bytes = GIB / 2,
            Some(device(GIB)),
            None,
            State::Attached,
        ),
        (
            |it| it.throughput_mib = 2,
            Some(device(GIB)),
            Some(Deed::Limit(limit)),
            State::Attached,
        ),
        (|it| it.detaching = true, None, None, State::Detached),
        (
            |it| it.detaching = true,
            Some(device(GIB)),
            detach(false),
            State::Busy,
        ),
        (
            |it| it.detaching = true,
            Some(leaving),
            detach(false),
            State::Busy,
        ),
        (
            |it| (it.detaching, it.force_detach) = (true, true),
            Some(leaving),
            detach(true),
            State::Busy,
        ),
    ];
    for (number, (change, device, deed, state)) in rows.into_iter().enumerate() {
        let intent = intent(vec![wanted(change)]);
        let devices = device.map(|device| ("vol-1", device));
        let disks = disks(devices.as_slice());
        let expected = deed.map_or(Action::Wait, |deed| Action::Volume {
            volume_id: "vol-1".to_owned(),
            deed,
        });
        assert_eq!(done(&intent, disks.clone()), expected, "row {number}");
        let seen = told(&intent, &running(disks));
        let seen: Vec<_> = seen.iter().map(|it| (it.state(), it.attachment_epoch)).collect();
        assert_eq!(seen, [(state, 3)], "row {number}");
    }
}

#[test]
fn the_root_volume_stays_and_is_grown_and_limited() {
    let mut intent = intent(Vec::new());
    intent.volumes[0].detaching = true;
    assert_eq!(done(&intent, disks(&[])), Action::Wait);
    let nothing = Disks {
        devices: Some(BTreeMap::new()),
        ..Disks::default()
    };
    assert_eq!(done(&intent, nothing), Action::Wait);
    intent.volumes[0].detaching = false;
    intent.volumes[0].size_bytes = 2 * GIB;
    let deed = Deed::Resize { bytes: 2 * GIB };
    let volume_id = "vol-root".to_owned();
    assert_eq!(done(&intent, disks(&[])), Action::Volume { volume_id, deed });
    let seen = observe_instance(Some(&intent), &record(), &running(disks(&[]))).volumes;
    assert_eq!((seen[0].state(), seen[0].size_bytes), (State::Attached, GIB));
}

#[test]
fn what_no_intent_names_stays_and_what_is_not_known_is_left() {
    assert_eq!(
        done(&intent(Vec::new()), disks(&[("vol-9", device(GIB))])),
        Action::Wait
    );
    let intent = intent(vec![volume("vol-1", 1)]);
    let unknown = running(Disks::default());
    assert_eq!(
        decide(Some(&intent), &record(), &unknown, None, Host::Up),
        Action::Wait
    );
    assert!(
        observe_instance(Some(&intent), &record(), &unknown)
            .volumes
            .is_empty()
    );
    let seen = running(disks(&[]));
    assert_eq!(
        decide(Some(&intent), &record(), &seen, None, Host::GoingDown),
        Action::RecordInterrupted(true)
    );
}

#[test]
fn without_a_monitor_a_volume_is_attached_for_the_next_start_or_gone() {
    let rest = Monitor::Absent {
        spawned: true,
        outcome: None,
        rebooted: false,
    };
    let mut wanted = intent(vec![volume("vol-1", 1)]);
    let state = |intent: &InstanceIntent, record: &Record| {
        observe_instance(Some(intent), record, &rest).volumes[1].state()
    };
    let over = Record {
        phase: Phase::Ended(crate::record::End::new(crate::record::Cause::Requested, "")),
        ..record()
    };
    assert_eq!(state(&wanted, &Record::new("i-1")), State::Attaching);
    assert_eq!(state(&wanted, &over), State::Attached);
    wanted.volumes[1].detaching = true;
    assert_eq!(state(&wanted, &over), State::Detached);
    wanted.volumes[1].detaching = false;
    wanted.set_desired(Desired::Terminated);
    assert_eq!(state(&wanted, &over), State::Detached);
}

#[test]
fn a_failure_is_told_and_rests_but_not_another_deed() {
    let mut wanted = intent(vec![volume("vol-1", 1), volume("vol-2", 1)]);
    let mut known = disks(&[]);
    let attempt = |deed, failure: &str| Attempt {
        deed,
        failure: failure.to_owned(),
        rests: true,
    };
    let failed = attempt(Deed::Attach { epoch: 1 }, "the disk is full");
    known.attempts.insert("vol-1".to_owned(), failed);
    let other = Action::Volume {
        volume_id: "vol-2".to_owned(),
        deed: Deed::Attach { epoch: 1 },
    };
    assert_eq!(done(&wanted, known.clone()), other, "others do not wait for it");
    let seen = told(&wanted, &running(known.clone()));
    assert_eq!(seen[0].message, "the disk is full");
    wanted.volumes[1].attachment_epoch = 2;
    let again = Action::Volume {
        volume_id: "vol-1".to_owned(),
        deed: Deed::Attach { epoch: 2 },
    };
    assert_eq!(done(&wanted, known.clone()), again);
    known.settle(Some(&wanted));
    assert!(known.attempts.is_empty(), "it is of another attachment");

    let long = attempt(Deed::Attach { epoch: 2 }, &"ü".repeat(1000));
    known.attempts.insert("vol-1".to_owned(), long);
    let seen = told(&wanted, &running(known));
    assert_eq!(seen[0].message.chars().count(), 300);
}

#[derive(Debug, Clone)]
enum Happens {
    Attach(usize),
    Detach {
        nth: usize,
        force: bool,
    },
    Grow(usize),
    Limit {
        nth: usize,
        iops: u32,
    },
    /// As the control plane does when it has heard that a volume is gone.
    Forget(usize),
    Step,
    /// Its request has been carried out, and nobody has noted it.
    StepAndKill,
    TimePasses,
    GuestLetsGo,
    /// What is attached stays so; what was to leave does not.
    GuestResets,
}

fn happens() -> impl Strategy<Value = Happens> {
    let nth = 1..4_usize;
    prop_oneof![
        2 => nth.clone().prop_map(Happens::Attach),
        2 => (nth.clone(), any::<bool>()).prop_map(|(nth, force)| Happens::Detach { nth, force }),
        1 => nth.clone().prop_map(Happens::Grow),
        1 => (nth.clone(), 0..3_u32).prop_map(|(nth, iops)| Happens::Limit { nth, iops }),
        2 => nth.prop_map(Happens::Forget),
        8 => Just(Happens::Step),
        1 => Just(Happens::StepAndKill),
        2 => Just(Happens::TimePasses),
        2 => Just(Happens::GuestLetsGo),
        1 => Just(Happens::GuestResets),
    ]
}

struct Model {
    intent: InstanceIntent,
    /// The monitor's, which the agent asks for.
    devices: BTreeMap<String, Device>,
    attempts: BTreeMap<String, Attempt>,
    epoch: u64,
}

impl Model {
    fn volume(&mut self, nth: usize) -> Option<&mut InstanceVolume> {
        let id = format!("vol-{nth}");
        self.intent
            .volumes
            .iter_mut()
            .find(|volume| volume.volume_id == id)
    }

    fn monitor(&mut self) -> Monitor {
        let mut disks = Disks {
            devices: Some(self.devices.clone()),
            attempts: self.attempts.clone(),
            ..Disks::default()
        };
        disks.settle(Some(&self.intent));
        self.attempts = disks.attempts.clone();
        running(disks)
    }

    /// Answers whether there was something to do.
    fn step(&mut self, killed: bool) -> bool {
        let monitor = self.monitor();
        let action = decide(Some(&self.intent), &record(), &monitor, None, Host::Up);
        let Action::Volume { volume_id, deed } = action else {
            assert_eq!(action, Action::Wait);
            return false;
        };
        let known = self.devices.get_mut(&volume_id);
        match (deed, known) {
            (Deed::Attach { .. }, None) => {
                let wanted = self
                    .intent
                    .volumes
                    .iter()
                    .find(|it| it.volume_id == volume_id)
                    .unwrap();
                assert!(!wanted.detaching, "it is to be let go");
                self.devices.insert(volume_id.clone(), device(wanted.size_bytes));
            }
            (Deed::Attach { .. }, Some(_)) => panic!("{volume_id} is attached twice"),
            (Deed::Detach { force: true }, Some(_)) => drop(self.devices.remove(&volume_id)),
            (Deed::Detach { force: false }, Some(device)) => device.leaving = true,
            (Deed::Resize { bytes }, Some(Device { status: Some(it), .. })) => {
                assert!(bytes > it.size_bytes, "it shrinks");
                it.size_bytes = bytes;
            }
            (Deed::Limit(limit), Some(Device { status: Some(it), .. })) => it.rate_limit = limit,
            (deed, known) => panic!("{deed:?} of {volume_id}, which is {known:?}"),
        }
        let attempt = Attempt {
            deed,
            failure: String::new(),
            rests: true,
        };
        self.attempts.insert(volume_id, attempt);
        if killed {
            self.attempts.clear();
        }
        true
    }

    fn happen(&mut self, event: &Happens) {
        match *event {
            Happens::Attach(nth) if self.volume(nth).is_none() => {
                self.epoch += 1;
                let volume = volume(&format!("vol-{nth}"), self.epoch);
                self.intent.volumes.push(volume);
            }
            Happens::Detach { nth, force } => {
                if let Some(volume) = self.volume(nth) {
                    volume.detaching = true;
                    volume.force_detach |= force;
                }
            }
            Happens::Grow(nth) => {
                if let Some(volume) = self.volume(nth) {
                    volume.size_bytes += GIB;
                }
            }
            Happens::Limit { nth, iops } => {
                if let Some(volume) = self.volume(nth) {
                    volume.iops = iops;
                }
            }
            Happens::Forget(nth) => {
                let id = format!("vol-{nth}");
                let monitor = self.monitor();
                let seen = told(&self.intent, &monitor);
                let gone = |it: &VolumeObservation| it.volume_id == id && it.state() == State::Detached;
                if seen.iter().any(gone) {
                    assert!(
                        !self.devices.contains_key(&id),
                        "{id} is told to be gone, and is there"
                    );
                    self.intent.volumes.retain(|volume| volume.volume_id != id);
                }
            }
            Happens::Step => drop(self.step(false)),
            Happens::StepAndKill => drop(self.step(true)),
            Happens::TimePasses => self.attempts.values_mut().for_each(|it| it.rests = false),
            Happens::GuestLetsGo | Happens::GuestResets => self.devices.retain(|_, it| !it.leaving),
            Happens::Attach(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_monitor_has_what_is_wanted_in_the_end(
        events in prop::collection::vec(happens(), 0..60),
    ) {
        let mut model = Model {
            intent: intent(Vec::new()),
            devices: BTreeMap::from([("vol-root".to_owned(), device(GIB))]),
            attempts: BTreeMap::new(),
            epoch: 1,
        };
        for event in &events {
            model.happen(event);
        }
        // A guest that does what it is asked for, and time.
        for _ in 0..10 {
            while model.step(false) {}
            model.happen(&Happens::GuestLetsGo);
            model.happen(&Happens::TimePasses);
        }
        let wanted = model.intent.volumes.iter().filter(|volume| !volume.detaching);
        let wanted: BTreeMap<String, Device> = wanted
            .map(|volume| {
                let status = DiskStatus {
                    size_bytes: volume.size_bytes,
                    rate_limit: rate_limit(volume),
                };
                (volume.volume_id.clone(), Device { leaving: false, status: Some(status) })
            })
            .collect();
        prop_assert_eq!(&model.devices, &wanted);
        let monitor = model.monitor();
        let seen = told(&model.intent, &monitor);
        let attached: BTreeSet<&str> = seen
            .iter()
            .filter(|it| it.state() == State::Attached && it.message.is_empty())
            .map(|it| it.volume_id.as_str())
            .collect();
        let expected: BTreeSet<&str> = wanted.keys().map(String::as_str).filter(|id| *id != "vol-root").collect();
        prop_assert_eq!(attached, expected);
    }
}
