//! The serial console and the shell on it, on a processor of the oldest model.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hearth_vmm::console::CAPACITY;
use hearth_vmm::control::{Reply, Request, VmState};
use hearth_vmm::cpu::Model;

use super::cpu::values;
use super::harness::Linux;

const PATIENCE: Duration = Duration::from_secs(200);

/// Reads a connection until `end` has come.
fn read_to(mut console: &UnixStream, end: &str) -> String {
    console.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    while !all.windows(end.len()).any(|window| window == end.as_bytes()) {
        let len = console.read(&mut chunk).unwrap();
        assert_ne!(len, 0, "no {end:?} in {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&chunk[..len]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn the_console_has_many_readers_one_writer_and_bears_a_flood() {
    let Some(mut linux) = Linux::boot("the_console_has_many_readers", |spec, _| {
        spec.cpu.model = Model::V1
    }) else {
        return;
    };
    assert_eq!(linux.run("echo hello"), (0, "hello\n".into()));
    assert_eq!(linux.run("sh -c 'exit 3'").0, 3);
    linux.until("[ -c /dev/ttyS0 ]");

    // The shell's connection is the writer; another one reads the same, and its keys go nowhere.
    let mut other = linux.control().connect_console();
    assert!(
        read_to(&other, "hello").contains("ready"),
        "the history comes first"
    );
    other.write_all(b"reboot -f\n").unwrap();
    read_to(&other, "another connection types here]");
    linux.ok("echo from the writer");
    read_to(&other, "from the writer");

    // A flood of more than the history; the control socket answers while it goes on.
    let deaf = linux.control().connect_console();
    linux.ok(r"(head -c 70000 /dev/zero | tr '\0' x; echo the flood is over) > /dev/ttyS0 &");
    for _ in 0..20 {
        let Reply::Status(status) = linux.control().request(&Request::Status) else {
            panic!("no status");
        };
        assert_eq!(status.state, VmState::Running);
    }
    linux.ok("wait");
    read_to(&deaf, "the flood is over");
    let history = linux.control().console();
    assert!(history.len() <= CAPACITY && history.contains("the flood is over"));

    let cpuinfo = linux.ok("cat /proc/cpuinfo");
    assert_eq!(values(&cpuinfo, "processor"), ["0"]);
    let flags: Vec<&str> = values(&cpuinfo, "flags")[0].split(' ').collect();
    assert!(flags.contains(&"sse2") && flags.contains(&"x2apic"), "{flags:?}");
    for hidden in ["avx", "avx2", "mmxext", "misalignsse", "rdtscp"] {
        assert!(!flags.contains(&hidden), "{hidden} in {flags:?}");
    }
    assert!(linux.memory_kib("Rss") > 10_000);
}
