//! NICs and vsock: TCP both ways through every offload and two queue pairs; streams that either side begins.
//!
//! The host's ends are in a network namespace of the test's thread, and in a directory of its own.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;

use hearth_vmm::control::{Reply, Request};
use hearth_vmm::metrics::{Operation, OperationReport};
use hearth_vmm::spec::NicSpec;

use super::guest::{Inherited, vsock};
use super::harness::Linux;
use super::tap;

const BYTES: u64 = 512 << 10;

#[test]
fn tcp_goes_through_offloads_and_two_queues_both_ways() {
    const TEST: &str = "tcp_goes_through_offloads_and_two_queues_both_ways";
    let Some(taps) = tap::queues_in_a_namespace::<2>(TEST) else {
        return;
    };
    let Some(mut linux) = Linux::boot(TEST, |spec, fds| {
        spec.vcpus = 2;
        spec.nics.push(nic(taps, fds));
    }) else {
        return;
    };
    linux.ok("ip addr add 10.0.0.2/24 dev eth0");
    linux.ok("ip link set eth0 up");
    assert_eq!(
        linux.ok("ls /sys/class/net/eth0/queues | tr '\\n' ' '"),
        "rx-0 rx-1 tx-0 tx-1"
    );
    to_the_host(&mut linux);
    to_the_guest(&mut linux);
}

#[test]
fn either_side_begins_streams_over_vsock() {
    const TEST: &str = "either_side_begins_streams_over_vsock";
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: {TEST}: needs root for a clone of a mount");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let Some(mut linux) = Linux::boot(TEST, |spec, fds| {
        spec.vsock = Some(vsock::device(directory.path(), fds));
    }) else {
        return;
    };
    guest_calls_host(&mut linux, directory.path());
    host_calls_guest(&mut linux, directory.path());
}

/// What the guest sends in large pieces is not cut into frames before it leaves the guest.
fn to_the_host(linux: &mut Linux) {
    let listener = TcpListener::bind("10.0.0.1:5001").unwrap();
    let before = counted(linux, Operation::Transmit);
    let receiver = thread::spawn(move || io::copy(&mut listener.accept().unwrap().0, &mut io::sink()));
    // With few large writes, for each system call is dear where KVM interprets the guest's kernel.
    linux.ok(&format!(
        "nc 10.0.0.1 5001 -e dd if=/dev/zero bs=64k count={}",
        BYTES >> 16
    ));
    assert_eq!(receiver.join().unwrap().unwrap(), BYTES);
    let after = counted(linux, Operation::Transmit);
    assert_large(&before, &after);
}

/// Nor what the host sends, and it arrives in as many receive buffers as it needs.
fn to_the_guest(linux: &mut Linux) {
    let listener = TcpListener::bind("10.0.0.1:5002").unwrap();
    let before = counted(linux, Operation::Receive);
    let data: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &data).unwrap();
    let sender = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(&data)?;
        stream.shutdown(Shutdown::Write)?;
        io::read_to_string(stream)
    });
    linux.ok("nc 10.0.0.1 5002 -e md5sum");
    let output = Command::new("md5sum")
        .stdin(File::open(file.path()).unwrap())
        .output();
    assert_eq!(sender.join().unwrap().unwrap().as_bytes(), output.unwrap().stdout);
    let after = counted(linux, Operation::Receive);
    assert_large(&before, &after);
}

fn assert_large(before: &OperationReport, after: &OperationReport) {
    let bytes = after.bytes - before.bytes;
    let packets = after.operations - before.operations;
    assert!(bytes >= BYTES);
    // On average, acknowledgements included, more than one frame holds.
    assert!(bytes / packets > 1514, "{bytes} bytes in {packets} packets");
    assert_eq!(after.errors, before.errors);
}

fn guest_calls_host(linux: &mut Linux, directory: &Path) {
    let listener = vsock::bind(&directory.join("v_5000"));
    let echo = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut data = Vec::new();
        stream.read_to_end(&mut data)?;
        stream.write_all(b"the host heard: ")?;
        stream.write_all(&data)
    });
    assert_eq!(linux.ok("vsock call 2 5000 hello"), "the host heard: hello");
    echo.join().unwrap().unwrap();
    assert_eq!(linux.run("vsock call 2 5999 nobody").0, 2, "nobody listens there");
}

fn host_calls_guest(linux: &mut Linux, directory: &Path) {
    linux.ok("vsock serve 1234 &");
    let data: Vec<u8> = (0..300_000).map(|at| (at % 253) as u8).collect();
    // Until the guest's program listens.
    let mut stream = loop {
        let mut stream = UnixStream::connect(directory.join("v")).unwrap();
        stream.write_all(b"CONNECT 1234\n").unwrap();
        let mut line = [0; 3];
        if stream.read_exact(&mut line).is_ok() {
            assert_eq!(&line, b"OK ");
            break stream;
        }
    };
    while read_byte(&mut stream) != b'\n' {}
    let mut writer = stream.try_clone().unwrap();
    let sent = data.clone();
    let sender = thread::spawn(move || {
        writer.write_all(&sent)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).unwrap();
    sender.join().unwrap().unwrap();
    assert!(echoed == data);
    assert_eq!(linux.run("wait").0, 0);
}

fn read_byte(stream: &mut UnixStream) -> u8 {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    byte[0]
}

fn counted(linux: &mut Linux, operation: Operation) -> OperationReport {
    let Reply::Metrics(report) = linux.control().request(&Request::Metrics) else {
        panic!("no metrics");
    };
    let nic = report
        .devices
        .into_iter()
        .find(|device| device.kind == "net")
        .unwrap();
    nic.operations.get(&operation).cloned().unwrap_or_default()
}

fn nic(taps: [OwnedFd; 2], fds: &mut Inherited) -> NicSpec {
    NicSpec {
        id: "eni-0123456789abcdef0".into(),
        mac: "02:00:00:00:00:01".into(),
        tap_fds: taps.map(|tap| fds.give(tap)).to_vec(),
        mtu: 1500,
        receive_limit: Default::default(),
        transmit_limit: Default::default(),
    }
}
