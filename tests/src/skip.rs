//! Tests that cannot run here say so, and are counted by `scripts/test`.

use std::io::Write;

use nix::unistd::{AccessFlags, Uid, access};

/// Whether a whole cloud can run here. When it cannot, says why on stderr and in `$HEARTH_SKIPS`.
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
    let line = format!("SKIPPED: {test}: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("HEARTH_SKIPS") {
        let written = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut f| f.write_all(line.as_bytes()));
        if let Err(error) = written {
            eprintln!("cannot count the skipped test: {error}");
        }
    }
    false
}
