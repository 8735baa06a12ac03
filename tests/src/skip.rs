//! Tests that cannot run here say so, and are counted by `scripts/test`.

use nix::unistd::{AccessFlags, Uid, access};

/// Whether a whole cloud can run here; see [`skipped`] for when it cannot.
pub fn can_run(test: &str) -> bool {
    let why = if !Uid::effective().is_root() {
        "not root"
    } else if access("/dev/kvm", AccessFlags::R_OK | AccessFlags::W_OK).is_err() {
        "/dev/kvm cannot be opened"
    } else if std::env::var_os("HEARTH_TINY_AMI").is_none() {
        "HEARTH_TINY_AMI is not set (scripts/test sets it)"
    } else {
        return true;
    };
    skipped(test, why);
    false
}

/// Says on stderr that a test could not run, and why; `scripts/test` counts these lines.
pub fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED: {test}: {why}");
}
