//! `grub.cfg`: what GRUB would boot by default.
//!
//! The configuration is a program. It is run here as GRUB runs it, with values and tests that may be unknown (the
//! screen, the network, the firmware's features): both ways of an unknown test are run, and what they leave
//! different is unknown from then on. As long as kernel, command line and initrds depend on nothing unknown, the
//! answer is certain; otherwise it names what it depends on.
//!
//! `save_env` writes to the disk, which the direct road does not: if the next boot would differ with what a boot
//! saves, the answer is not certain.

mod bls;
mod commands;
mod environment;
mod menu;
mod run;
mod search;
mod syntax;
mod test;
mod values;

use std::rc::Rc;

use super::{BootEntry, Undecided};
use crate::volumes::{Place, Volumes};
use run::{Machine, Stop};

/// Boots that are run to see whether what one saves changes the next.
const MAX_BOOTS: usize = 40;

/// Where GRUB begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// `pc` or `efi`.
    pub(crate) platform: &'static str,
    /// The device that GRUB was loaded from, and the directory of its configuration.
    pub(crate) root: usize,
    pub(crate) prefix: Place,
    /// What runs first: a configuration file of that directory, or a script.
    pub(crate) script: Script,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Script {
    /// `grub.cfg` in the directory.
    Configuration,
    /// A script that is embedded in GRUB, and then `grub.cfg` in `$prefix`.
    Embedded { image: String, text: String },
    /// No `grub.cfg` at all, but Boot Loader Specification entries and GRUB's environment block.
    EntriesAlone,
}

#[cfg(test)]
pub(crate) use commands::quoted;

/// What GRUB boots.
pub(crate) fn evaluate(volumes: &Volumes, start: &Start) -> Result<BootEntry, Undecided> {
    let mut steps = run::MAX_STEPS;
    let mut saved = environment::Saved::default();
    let mut first: Option<Rc<BootEntry>> = None;
    for _ in 0..MAX_BOOTS {
        let mut machine = Machine::new(volumes, start, saved.clone(), steps);
        let booted = match machine.boot(start) {
            Stop::Boot(booted) => booted,
            Stop::Undecided(undecided) => match first {
                // A first boot is certain, and one after it is not.
                Some(_) if matches!(undecided, Undecided::Because(_)) => {
                    return Err(Undecided::because(
                        "save_env",
                        format!("what it saves decides later boots ({})", undecided.text()),
                    ));
                }
                _ => return Err(undecided),
            },
        };
        steps = machine.steps_left();
        match &first {
            None => first = Some(Rc::clone(&booted)),
            Some(first) if **first != *booted => {
                let (first, next) = (&first.kernel, &booted.kernel);
                let what = if first == next {
                    format!(
                        "the next boot of {} has another command line or other initrds",
                        first.path
                    )
                } else {
                    format!("the next boot is of {}, not of {}", next.path, first.path)
                };
                return Err(Undecided::because("save_env", what));
            }
            Some(_) => {}
        }
        let next = machine.saved();
        if next == saved {
            return Ok((*booted).clone());
        }
        saved = next;
    }
    Err(Undecided::because(
        "save_env",
        "something that changes at each boot",
    ))
}

/// Runs a configuration and an environment block on a disk that has nothing else.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn fuzz(configuration: &[u8], environment: &[u8]) {
    use crate::fs::Volume;
    use crate::partitions::{Region, RegionKind};
    use crate::volumes::{Content, Part};

    let files = vec![
        ("/grub/grub.cfg".to_owned(), configuration.to_vec()),
        ("/grub/grubenv".to_owned(), environment.to_vec()),
        ("/k".to_owned(), Vec::new()),
    ];
    let region = Region {
        name: "the whole disk".to_owned(),
        device: "hd0".to_owned(),
        start: 0,
        len: 0,
        kind: RegionKind::Ordinary,
    };
    let volumes = Volumes {
        parts: vec![Part {
            region,
            content: Content::Open(Rc::new(Volume::of_files(
                files,
                "8f1b9a3e-0000-4000-8000-000000000001",
            ))),
        }],
        boot_sector: Vec::new(),
    };
    let start = Start {
        platform: "pc",
        root: 0,
        prefix: Place {
            part: 0,
            path: "/grub".to_owned(),
        },
        script: Script::Configuration,
    };
    let _ = evaluate(&volumes, &start);
}
