//! One program for all fuzz targets: `HEARTH_FUZZ` names the one to run. `scripts/fuzz` builds and runs it.
//!
//! The targets are functions of the crates that they test (`fuzz` modules), whose unit tests run them on the corpus.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fuzz_target!(
    init: {
        let _ = TARGET.set(named(&std::env::var("HEARTH_FUZZ").unwrap_or_default()));
    },
    |input: &[u8]| {
        if let Some(target) = TARGET.get() {
            target(input);
        }
    }
);

/// Ends the process where there is no such target, after saying which there are.
fn named(wanted: &str) -> fn(&[u8]) {
    let targets = [
        hearth_block::fuzz::TARGETS,
        hearth_ec2::fuzz::TARGETS,
        hearth_iam::fuzz::TARGETS,
        hearth_image::fuzz::TARGETS,
        hearth_network::fuzz::TARGETS,
        hearth_vmm::fuzz::TARGETS,
    ]
    .concat();
    for (name, target) in &targets {
        if *name == wanted {
            return *target;
        }
    }
    for (name, _) in &targets {
        println!("{name}");
    }
    std::process::exit(2);
}
