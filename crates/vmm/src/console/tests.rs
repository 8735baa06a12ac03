use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::legacy::serial::FIFO_SIZE;

const DATA: u8 = 0;
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    console: Console,
    ring: File,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.sock");
        let ring = tempfile::tempfile().unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let console = Console::start(ring.try_clone().unwrap(), Some(listener), None).unwrap();
        Self {
            console,
            ring,
            path,
            _dir: dir,
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn plug(&self) -> Arc<Serial> {
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let serial = Arc::new(Serial::new(interrupt, &self.console.line()));
        self.console.attach(&serial);
        serial
    }
}

/// Prints as the guest does, a byte at a time.
fn print(serial: &Serial, text: &[u8]) {
    for &byte in text {
        serial.write(DATA, byte);
    }
}

/// Reads until `end` has come.
fn until(mut stream: &UnixStream, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    while !all.ends_with(end) {
        let len = stream.read(&mut chunk).unwrap();
        assert_ne!(
            len,
            0,
            "the console closed after {:?}",
            String::from_utf8_lossy(&all)
        );
        all.extend_from_slice(&chunk[..len]);
    }
    all
}

/// Reads as the guest does, until `len` bytes have come.
fn typed(serial: &Serial, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while all.len() < len {
        match FIFO_SIZE - serial.room() {
            0 => std::thread::yield_now(),
            waiting => all.extend((0..waiting).map(|_| serial.read(DATA))),
        }
        assert!(std::time::Instant::now() < deadline, "{} of {len}", all.len());
    }
    all
}

#[test]
fn readers_get_the_history_and_then_what_comes() {
    let bench = Bench::new();
    let serial = bench.plug();
    print(&serial, b"booting\n");
    let early = bench.connect();
    assert_eq!(until(&early, b"booting\n"), b"booting\n");
    let late = bench.connect();
    assert_eq!(until(&late, b"booting\n"), b"booting\n");
    print(&serial, b"login: ");
    assert_eq!(until(&early, b"login: "), b"login: ");
    assert_eq!(until(&late, b"login: "), b"login: ");
    drop(bench.console);
    assert_eq!(read(&bench.ring).unwrap(), b"booting\nlogin: ");
    assert_eq!((&early).read(&mut [0; 1]).unwrap(), 0, "it closes at the end");
}

#[test]
fn a_flood_neither_waits_nor_grows_and_a_slow_reader_skips() {
    const FLOOD: usize = 3_000_000;
    let bench = Bench::new();
    let serial = bench.plug();
    let deaf = bench.connect();
    let reader = bench.connect();
    let counted = std::thread::spawn(move || until(&reader, b"the end\n").len());
    for n in 0..FLOOD {
        serial.write(DATA, b'a' + (n % 26) as u8);
    }
    print(&serial, b"the end\n");
    assert!(counted.join().unwrap() <= FLOOD + 100_000);
    let heard = until(&deaf, b"the end\n");
    assert!(String::from_utf8_lossy(&heard).contains(" bytes of output skipped]"));
    assert!(heard.len() < FLOOD / 2);
    drop(bench.console);
    let history = read(&bench.ring).unwrap();
    assert_eq!(history.len(), CAPACITY);
    assert!(history.ends_with(b"the end\n"));
    assert!(bench.ring.metadata().unwrap().len() <= 66_000);
}

#[test]
fn one_types_at_a_time_and_the_others_are_told() {
    let bench = Bench::new();
    let serial = bench.plug();
    let mut writer = bench.connect();
    writer.write_all(b"ls\n").unwrap();
    assert_eq!(typed(&serial, 3), b"ls\n");
    let mut other = bench.connect();
    other.write_all(b"rm\n").unwrap();
    let refusal = b"\r\n[hearth: another connection types here]\r\n";
    assert_eq!(until(&other, b"here]\r\n"), refusal);
    writer.write_all(b"pwd\n").unwrap();
    assert_eq!(typed(&serial, 4), b"pwd\n");
    // To stop typing is enough: it still reads.
    writer.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    while all.is_empty() {
        other.write_all(b"x").unwrap();
        std::thread::yield_now();
        all.extend((0..FIFO_SIZE - serial.room()).map(|_| serial.read(DATA)));
    }
    print(&serial, b"$ ");
    assert_eq!(until(&writer, b"$ "), b"$ ");
    assert!(until(&other, b"$ ").len() <= 2 + 2 * refusal.len());
}

#[test]
fn input_waits_for_the_guest_without_loss() {
    let bench = Bench::new();
    let text: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
    let mut writer = bench.connect();
    // Before there is a machine, more than fits a FIFO, and the connection closes behind it.
    let (sent, rest) = text.split_at(1000);
    writer.write_all(sent).unwrap();
    let serial = bench.plug();
    assert_eq!(typed(&serial, sent.len()), sent);
    writer.write_all(rest).unwrap();
    drop(writer);
    assert_eq!(typed(&serial, rest.len()), rest);
    let mut next = bench.connect();
    next.write_all(b"next").unwrap();
    assert_eq!(typed(&serial, 4), b"next");
}

#[test]
fn input_goes_to_the_machine_that_is_there() {
    let bench = Bench::new();
    let mut writer = bench.connect();
    for boot in [b"first", b"again"] {
        let serial = bench.plug();
        writer.write_all(boot).unwrap();
        assert_eq!(typed(&serial, boot.len()), boot);
    }
}

#[test]
fn closed_connections_make_room_for_others() {
    let bench = Bench::new();
    // No machine: input waits, and nobody looks whether these are still there.
    for _ in 0..100 {
        bench.connect().write_all(b"x").unwrap();
    }
    let serial = bench.plug();
    print(&serial, b"hello");
    assert_eq!(until(&bench.connect(), b"hello"), b"hello");
}
