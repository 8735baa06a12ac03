//! The serial console and the shell on it.

use hearth_vmm::control::{Reply, Request, VmState};

use super::harness::Linux;

#[test]
fn the_shell_on_the_serial_console_runs_commands() {
    let Some(mut linux) = Linux::boot("the_shell_on_the_serial_console", |_, _| {}) else {
        return;
    };
    assert_eq!(linux.run("echo hello"), (0, "hello\n".into()));
    assert_eq!(linux.run("sh -c 'exit 3'").0, 3);
    assert_eq!(linux.ok("grep -c processor /proc/cpuinfo"), "1");
    linux.until("[ -c /dev/ttyS0 ]");
    let Reply::Status(status) = linux.control().request(&Request::Status) else {
        panic!("no status");
    };
    assert_eq!(status.state, VmState::Running);
    assert!(linux.memory_kib("Rss") > 10_000);
}
