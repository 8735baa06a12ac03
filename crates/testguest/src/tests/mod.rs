//! The suite: which tests there are, and running those that the command line selects.
//!
//! Each test starts from a reset device and free memory, so none depends on another.

mod balloon;
mod block;
mod broken;
mod clone;
mod hotplug;
mod msix;
mod net;
mod pci;
mod queue;
mod rng;
mod transport;
mod vsock;

use crate::report::{End, Outcome};
use crate::virtio::{self, Device};
use crate::{Machine, memory, println};

/// A test of a device.
pub struct Case {
    name: &'static str,
    run: fn(&Device) -> Outcome,
}

/// Names tests as their functions are named.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        &[$($crate::tests::Case { name: stringify!($case), run: $case }),*]
    };
}
use cases;

/// Tests that every device must pass.
const FOR_ALL: &[(&str, &[Case])] = &[
    ("pci", pci::CASES),
    ("transport", transport::CASES),
    ("msix", msix::CASES),
    ("queue", queue::CASES),
];

/// What there is to know of a kind of device.
struct Kind {
    name: &'static str,
    id: u16,
    /// Which of the devices of this type it is.
    nth: usize,
    cases: &'static [&'static [Case]],
    /// What does a whole request, to see that the device works.
    works: fn(&Device) -> Outcome,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "block",
        id: virtio::BLOCK,
        nth: 0,
        cases: &[
            block::requests::CASES,
            block::malformed::CASES,
            block::space::CASES,
            block::stress::CASES,
        ],
        works: block::works,
    },
    Kind {
        name: "read_only_block",
        id: virtio::BLOCK,
        nth: 1,
        cases: &[block::read_only::CASES],
        works: block::works,
    },
    Kind {
        name: "net",
        id: virtio::NET,
        nth: 0,
        cases: &[
            net::packets::CASES,
            net::malformed::CASES,
            net::offloads::CASES,
            net::mergeable::CASES,
            net::pairs::CASES,
        ],
        works: net::works,
    },
    Kind {
        name: "rng",
        id: virtio::RNG,
        nth: 0,
        cases: &[rng::CASES],
        works: rng::works,
    },
    Kind {
        name: "balloon",
        id: virtio::BALLOON,
        nth: 0,
        cases: &[balloon::CASES],
        works: balloon::works,
    },
    Kind {
        name: "vsock",
        id: virtio::VSOCK,
        nth: 0,
        cases: &[vsock::streams::CASES, vsock::malformed::CASES],
        works: vsock::works,
    },
];

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    absent: u32,
}

/// Runs what `only=` selects, by comma-separated beginnings of names; without it, everything.
pub fn run(machine: &Machine) {
    let only = machine.boot.option("only=").unwrap_or("");
    let mut suite = Suite {
        only,
        low_ram_end: machine.boot.low_ram_end,
        tally: Tally::default(),
    };
    suite.test(&["root"], "enumerates", || pci::enumerates(machine));
    for kind in KINDS {
        let device = machine.device(kind.id, kind.nth);
        suite.kind(kind, device);
    }
    // These need a host that plays along.
    if let Some(rounds) = machine.boot.option("statistics=") {
        suite.test(&["statistics"], "are_told_when_asked_for", || {
            match machine.device(virtio::BALLOON, 0) {
                Some(device) => balloon::tells_statistics(&device, rounds.parse().unwrap_or(1)),
                None => Err(End::Absent("no such device")),
            }
        });
    }
    if let Some(rounds) = machine.boot.option("hotplug=") {
        suite.test(&["hotplug"], "disks_come_and_go", || {
            hotplug::disks_come_and_go(machine, rounds.parse().unwrap_or(1))
        });
    }
    if let Some(rounds) = machine.boot.option("tap=") {
        suite.test(&["tap"], "is_replaced", || match machine.device(virtio::NET, 0) {
            Some(device) => net::pairs::go_on_with_another_tap(&device, rounds.parse().unwrap_or(1)),
            None => Err(End::Absent("no such device")),
        });
    }
    if machine.boot.option("clone=").is_some() {
        suite.test(&["clone"], "gets_a_nic_of_its_own", || {
            clone::gets_a_nic_of_its_own(machine)
        });
    }
    let Tally {
        passed,
        failed,
        absent,
    } = suite.tally;
    println!("suite: {passed} passed, {failed} failed, {absent} absent");
}

struct Suite<'a> {
    only: &'a str,
    low_ram_end: u64,
    tally: Tally,
}

impl Suite<'_> {
    fn kind(&mut self, kind: &Kind, device: Option<Device>) {
        let with = |run: fn(&Device) -> Outcome| {
            move || match &device {
                Some(device) => run(device).and_then(|()| device.reset()),
                None => Err(End::Absent("no such device")),
            }
        };
        for case in kind.cases.iter().copied().flatten() {
            self.test(&[kind.name], case.name, with(case.run));
        }
        for (group, cases) in FOR_ALL {
            for case in *cases {
                self.test(&[kind.name, group], case.name, || {
                    with(case.run)()?;
                    with(kind.works)()
                });
            }
        }
        let low_ram_end = self.low_ram_end;
        for breakage in broken::BREAKAGES {
            self.test(&[kind.name, "broken"], breakage.name, || match &device {
                Some(device) => broken::check(device, kind.works, breakage, low_ram_end),
                None => Err(End::Absent("no such device")),
            });
        }
    }

    fn test(&mut self, path: &[&str], name: &str, run: impl FnOnce() -> Outcome) {
        let name = Name { path, name };
        if !self.is_selected(&name) {
            return;
        }
        memory::free_all();
        match run() {
            Ok(()) => {
                self.tally.passed += 1;
                println!("test {name} ... ok");
            }
            Err(End::Failed(why)) => {
                self.tally.failed += 1;
                println!("test {name} ... FAILED: {why}");
            }
            Err(End::Absent(what)) => {
                self.tally.absent += 1;
                println!("test {name} ... absent: {what}");
            }
        }
    }

    fn is_selected(&self, name: &Name<'_>) -> bool {
        let text: crate::console::Text<120> = crate::console::Text::format(format_args!("{name}"));
        self.only
            .split(',')
            .any(|start| text.bytes().starts_with(start.as_bytes()))
    }
}

/// A test's name with its groups, as Rust writes paths.
struct Name<'a> {
    path: &'a [&'a str],
    name: &'a str,
}

impl core::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for part in self.path {
            write!(f, "{part}::")?;
        }
        f.write_str(self.name)
    }
}
