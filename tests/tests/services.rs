//! What `scripts/up` knows of the daemons, where no systemd keeps them.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// Whether `script`, which has the functions of `scripts/services.sh` and `run` for its pid files, succeeds.
fn succeeds(run: &Path, script: &str) -> bool {
    let script = format!(
        "set -euo pipefail; . {}/../scripts/services.sh; has_systemd() {{ false; }}; {script}",
        env!("CARGO_MANIFEST_DIR")
    );
    let status = Command::new("bash")
        .args(["-c", &script])
        .env("HEARTH_RUN", run)
        .status();
    status.unwrap().success()
}

#[test]
fn a_killed_daemon_does_not_run_even_if_nobody_has_reaped_it() {
    let run = tempfile::tempdir().unwrap();
    let mut daemon = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = daemon.id();
    let note = format!(r#"echo "{pid} $(service_birth {pid})" >"$HEARTH_RUN/it.pid""#);
    assert!(succeeds(run.path(), &format!("{note}; service_running it")));

    daemon.kill().unwrap();
    let id = Id::Pid(Pid::from_raw(pid.try_into().unwrap()));
    waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    assert!(!succeeds(run.path(), "service_running it"), "a zombie");
    daemon.wait().unwrap();
    assert!(!succeeds(run.path(), "service_running it"), "no process");
}
