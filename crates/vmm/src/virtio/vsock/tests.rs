use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromBytes, IntoBytes};

use super::Vsock;
use super::credit::BUFFER;
use super::packet::{HEADER_LEN, Header, Ports, STREAM, op};
use crate::metrics::{Operation, Registry};
use crate::pci::PciFunction as _;
use crate::snapshot::Saved;
use crate::virtio::VirtioDevice as _;
use crate::virtio::testing::{BREAKAGES, DATA, Driver, EVENT_IDX, HIGH_START, NEEDS_RESET, PATIENCE, Ring};

const RX: usize = 0;
const TX: usize = 1;
const EVENT: usize = 2;
const CID: u32 = 77;
/// Bytes of a receive buffer, and how many there are.
const RX_BUFFER: u32 = 0x4000;
const RING: u16 = 16;
const GUEST_BUFFER: u32 = 100_000;

/// A driver with a socket layer as simple as can be, and the host's side of it.
struct Guest {
    driver: Driver,
    directory: TempDir,
    received: u16,
    /// That the guest says.
    forwarded: u32,
    buffer: u32,
}

fn device(directory: &TempDir) -> Vsock {
    let path = directory.path().join("v.sock");
    Vsock::new(CID, UnixListener::bind(&path).unwrap(), path).unwrap()
}

fn start() -> Guest {
    start_with(|device| device)
}

fn start_with(change: impl FnOnce(Vsock) -> Vsock) -> Guest {
    let directory = TempDir::new().unwrap();
    let driver = Driver::probe(change(device(&directory)));
    let mut guest = Guest {
        driver,
        directory,
        received: 0,
        forwarded: 0,
        buffer: GUEST_BUFFER,
    };
    guest.initialise();
    guest
}

fn rx_buffer(head: u16) -> u64 {
    HIGH_START + u64::from(RX_BUFFER) * u64::from(head)
}

impl Guest {
    fn initialise(&mut self) {
        self.driver.initialise(!EVENT_IDX, RING);
        self.received = 0;
        (0..RING).for_each(|head| self.post(head));
    }

    fn post(&self, head: u16) {
        let ring = self.driver.ring(RX);
        let address = rx_buffer(head);
        ring.descriptor(head, address, RX_BUFFER, 2, 0);
        ring.offer(head);
        ring.kick(&self.driver);
    }

    fn path(&self, port: u32) -> PathBuf {
        self.directory.path().join(format!("v.sock_{port}"))
    }

    fn header(&self, ports: Ports, op: u16) -> Header {
        Header {
            src_cid: u64::from(CID).into(),
            dst_cid: 2.into(),
            src_port: ports.guest.into(),
            dst_port: ports.host.into(),
            kind: STREAM.into(),
            op: op.into(),
            buf_alloc: self.buffer.into(),
            fwd_cnt: self.forwarded.into(),
            ..Header::default()
        }
    }

    fn send(&self, ports: Ports, op: u16) {
        self.send_packet(self.header(ports, op), &[]);
    }

    fn send_data(&self, ports: Ports, data: &[u8]) {
        let header = Header {
            len: (data.len() as u32).into(),
            ..self.header(ports, op::RW)
        };
        self.send_packet(header, data);
    }

    fn shut_down(&self, ports: Ports, flags: u32) {
        let header = Header {
            flags: flags.into(),
            ..self.header(ports, op::SHUTDOWN)
        };
        self.send_packet(header, &[]);
    }

    fn send_packet(&self, header: Header, data: &[u8]) {
        let ring = self.driver.ring(TX);
        let nth = ring.used_index();
        let memory = &self.driver.memory;
        memory.write_slice(header.as_bytes(), GuestAddress(DATA)).unwrap();
        memory.write_slice(data, GuestAddress(DATA + 0x1000)).unwrap();
        let mut buffers = vec![(DATA, HEADER_LEN as u32, false)];
        if !data.is_empty() {
            buffers.push((DATA + 0x1000, data.len() as u32, false));
        }
        ring.chain(0, &buffers);
        ring.offer(0);
        ring.kick(&self.driver);
        ring.wait_used(nth.wrapping_add(1));
    }

    /// The next packet from the device.
    fn receive(&mut self) -> (Header, Vec<u8>) {
        let ring = self.driver.ring(RX);
        let nth = self.received;
        self.driver
            .interrupts
            .wait_until("a packet", || ring.used_index() != nth);
        let (head, len) = ring.used_element(nth);
        let mut bytes = vec![0; len as usize];
        let address = GuestAddress(rx_buffer(head as u16));
        self.driver.memory.read_slice(&mut bytes, address).unwrap();
        self.received = nth.wrapping_add(1);
        self.post(head as u16);
        let (header, data) = Header::read_from_prefix(&bytes).unwrap();
        assert_eq!(header.len.get() as usize, data.len());
        assert_eq!((header.src_cid.get(), header.dst_cid.get()), (2, CID.into()));
        (header, data.to_vec())
    }

    fn expect(&mut self, op: u16) -> (Header, Vec<u8>) {
        let (header, data) = self.receive();
        assert_eq!(header.op, op, "{header:?}");
        (header, data)
    }

    /// Connects to a program of the host, which is the caller.
    fn connect(&mut self, ports: Ports) -> UnixStream {
        let listener = UnixListener::bind(self.path(ports.host)).unwrap();
        self.send(ports, op::REQUEST);
        let (response, _) = self.expect(op::RESPONSE);
        assert_eq!(ends(&response), ports);
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        std::fs::remove_file(self.path(ports.host)).unwrap();
        stream
    }

    fn dial(&self, greeting: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(self.directory.path().join("v.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(greeting).unwrap();
        stream
    }

    /// The device does as it should, with a new connection.
    fn assert_works(&mut self) {
        let ports = Ports {
            guest: 4000,
            host: 4001,
        };
        let mut stream = self.connect(ports);
        self.send_data(ports, b"ping");
        assert_eq!(read(&mut stream, 4), b"ping");
        stream.write_all(b"pong").unwrap();
        assert_eq!(self.expect(op::RW).1, b"pong");
        self.send(ports, op::RST);
        assert!(ends_soon(&mut stream));
    }
}

/// Of a packet to the guest.
fn ends(header: &Header) -> Ports {
    Ports {
        guest: header.dst_port.get(),
        host: header.src_port.get(),
    }
}

fn read(stream: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    stream.read_exact(&mut data).unwrap();
    data
}

fn ends_soon(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at) as u8).collect()
}

const PORTS: Ports = Ports {
    guest: 1024,
    host: 52,
};

#[test]
fn says_what_it_is() {
    let guest = start();
    assert_eq!(guest.driver.offered() & 0xff_ffff, 1);
    assert_eq!(guest.driver.device_config(9), [77, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_guest_connects_to_the_host_and_both_close_in_turn() {
    let mut guest = start();
    let mut stream = guest.connect(PORTS);
    guest.send_data(PORTS, b"hello");
    assert_eq!(read(&mut stream, 5), b"hello");
    stream.write_all(b"welcome").unwrap();
    assert_eq!(guest.expect(op::RW).1, b"welcome");
    // The host program has said all; the guest has not.
    stream.shutdown(Shutdown::Write).unwrap();
    let (shutdown, _) = guest.expect(op::SHUTDOWN);
    assert_eq!(shutdown.flags, 2);
    guest.send_data(PORTS, b"still here");
    assert_eq!(read(&mut stream, 10), b"still here");
    guest.shut_down(PORTS, 3);
    assert!(ends_soon(&mut stream));
    // It may say once more that the host takes nothing, before it says that all is over.
    while guest.receive().0.op != op::RST {}
    guest.assert_works();
}

#[test]
fn a_host_program_connects_to_the_guest_and_is_told_when_it_is_accepted() {
    let mut guest = start();
    let mut stream = guest.dial(b"CONNECT 1234\nand more at once");
    let (request, _) = guest.expect(op::REQUEST);
    let ports = ends(&request);
    assert_eq!(ports.guest, 1234);
    assert!(ports.host >= 1 << 30);
    guest.send(ports, op::RESPONSE);
    let ok = format!("OK {}\n", ports.host);
    assert_eq!(read(&mut stream, ok.len()), ok.as_bytes());
    assert_eq!(guest.expect(op::RW).1, b"and more at once");
    guest.send_data(ports, b"thanks");
    assert_eq!(read(&mut stream, 6), b"thanks");
    drop(stream);
    let (shutdown, _) = guest.expect(op::SHUTDOWN);
    assert_ne!(shutdown.flags, 0);
    guest.send(ports, op::RST);
    guest.assert_works();
}

#[test]
fn nobody_who_listens_is_a_reset_on_either_side() {
    let mut guest = start();
    guest.send(PORTS, op::REQUEST);
    assert_eq!(ends(&guest.expect(op::RST).0), PORTS);
    let mut stream = guest.dial(b"CONNECT 1\n");
    let (request, _) = guest.expect(op::REQUEST);
    guest.send(ends(&request), op::RST);
    assert!(ends_soon(&mut stream));
    // A host program that does not wait for the answer.
    drop(guest.dial(b"CONNECT 1\n"));
    guest.expect(op::REQUEST);
    guest.expect(op::RST);
    guest.assert_works();
}

#[test]
fn a_greeting_that_is_none_is_hung_up_upon() {
    let mut guest = start();
    for wrong in [
        "\n",
        "CONNECT\n",
        "CONNECT x\n",
        "CONNECT 4294967295\n",
        "CONNECT -1\n",
        "GET / HTTP/1.1\r\nHost: a.b.c.d.e.f\r\n\r\n",
    ] {
        assert!(ends_soon(&mut guest.dial(wrong.as_bytes())), "{wrong}");
    }
    let mut slow = guest.dial(b"CONN");
    guest.assert_works();
    slow.write_all(b"ECT 5").unwrap();
    guest.assert_works();
    slow.write_all(b"\n").unwrap();
    guest.expect(op::REQUEST);
}

#[test]
fn much_data_flows_to_the_guest_as_it_makes_room() {
    let mut guest = start();
    let mut stream = guest.connect(PORTS);
    let sent = pattern(1 << 20);
    let expected = sent.clone();
    let writer = std::thread::spawn(move || stream.write_all(&sent).map(|()| stream).unwrap());
    let mut got: Vec<u8> = Vec::new();
    while got.len() < expected.len() {
        let (header, data) = guest.receive();
        got.extend(&data);
        let in_flight = got.len() as u32 - guest.forwarded;
        assert!(in_flight <= GUEST_BUFFER, "sent more than there was room for");
        if header.op == op::CREDIT_REQUEST || in_flight > GUEST_BUFFER / 2 {
            guest.forwarded = got.len() as u32;
            guest.send(PORTS, op::CREDIT_UPDATE);
        }
    }
    assert!(got == expected);
    drop(writer.join().unwrap());
}

#[test]
fn much_data_flows_from_the_guest_as_the_host_makes_room() {
    let mut guest = start();
    let mut stream = guest.connect(PORTS);
    let data = pattern(1 << 20);
    let len = data.len();
    let reader = std::thread::spawn(move || read(&mut stream, len));
    let mut credit = BUFFER;
    let mut forwarded = 0;
    for (nth, piece) in data.chunks(10_000).enumerate() {
        while credit < piece.len() as u32 {
            let (header, _) = guest.receive();
            forwarded = header.fwd_cnt.get();
            assert_eq!(header.buf_alloc, BUFFER);
            credit = BUFFER - ((nth * 10_000) as u32 - forwarded);
        }
        guest.send_data(PORTS, piece);
        credit -= piece.len() as u32;
    }
    assert!(reader.join().unwrap() == data);
    assert!(forwarded > 0);
}

#[test]
fn a_guest_that_sends_more_than_its_credit_is_reset_and_what_waits_is_bounded() {
    let mut guest = start();
    let stream = guest.connect(PORTS);
    // Nobody reads: the socket takes some, then we hold a buffer, then it is too much.
    let mut sent = 0;
    while guest.driver.ring(RX).used_index() == guest.received {
        guest.send_data(PORTS, &[7; 0x8000]);
        sent += 0x8000;
        assert!(sent < 64 << 20, "credit without end");
    }
    loop {
        // What the socket took is news of room.
        let (header, _) = guest.receive();
        if header.op == op::RST {
            break;
        }
        assert_eq!(header.op, op::CREDIT_UPDATE);
        while guest.driver.ring(RX).used_index() == guest.received {
            guest.send_data(PORTS, &[7; 0x8000]);
        }
    }
    drop(stream);
    // What it sent after that was for no connection, and was told so.
    guest.initialise();
    guest.assert_works();
}

#[test]
fn a_host_program_that_goes_away_is_a_shutdown_of_both_directions() {
    let mut guest = start();
    let mut stream = guest.connect(PORTS);
    stream.write_all(b"last words").unwrap();
    drop(stream);
    let mut flags = 0;
    let mut data = Vec::new();
    while flags != 3 {
        let (header, bytes) = guest.receive();
        data.extend(bytes);
        flags |= header.flags.get();
    }
    assert_eq!(data, b"last words");
    guest.shut_down(PORTS, 3);
    while guest.receive().0.op != op::RST {}
    guest.assert_works();
}

#[test]
fn packets_that_break_the_protocol_reset_their_connection_alone() {
    let mut guest = start();
    let other = Ports { guest: 9, host: 9 };
    let mut stream = guest.connect(other);
    for op in [op::RESPONSE, op::REQUEST, 0, 8, 0xffff] {
        let mut broken = guest.connect(PORTS);
        guest.send(PORTS, op);
        guest.expect(op::RST);
        assert!(ends_soon(&mut broken));
    }
    // Of no connection: answered by a reset, but not a reset itself, nor what is not from here or for the host.
    guest.send_data(PORTS, b"lost");
    assert_eq!(ends(&guest.expect(op::RST).0), PORTS);
    guest.send(PORTS, op::RST);
    let header = guest.header(PORTS, op::REQUEST);
    guest.send_packet(
        Header {
            dst_cid: 3.into(),
            ..header
        },
        &[],
    );
    guest.send_packet(
        Header {
            src_cid: 3.into(),
            ..header
        },
        &[],
    );
    // SEQPACKET was not offered.
    guest.send_packet(
        Header {
            kind: 2.into(),
            ..header
        },
        &[],
    );
    let (reset, _) = guest.expect(op::RST);
    assert_eq!(reset.kind, 2);
    guest.send_data(other, b"untouched");
    assert_eq!(read(&mut stream, 9), b"untouched");
}

#[test]
fn connections_and_resets_are_bounded() {
    let mut guest = start();
    let _listener = UnixListener::bind(guest.path(1)).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for port in 0..1200 {
        guest.send(Ports { guest: port, host: 1 }, op::REQUEST);
        match guest.receive().0.op.get() {
            op::RESPONSE => accepted += 1,
            op::RST => refused += 1,
            other => panic!("{other}"),
        }
    }
    // The listener's backlog is shorter than our limit.
    assert!(accepted <= 512 && refused >= 688, "{accepted} {refused}");
    guest.driver.set_status(0);
    guest.initialise();
    guest.assert_works();
}

#[test]
fn without_receive_buffers_the_guest_waits_and_nothing_is_lost() {
    let mut guest = start();
    guest.driver.initialise(!EVENT_IDX, RING);
    guest.received = 0;
    let ring = guest.driver.ring(TX);
    let header = guest.header(PORTS, op::RW);
    guest
        .driver
        .memory
        .write_slice(header.as_bytes(), GuestAddress(DATA))
        .unwrap();
    for nth in 0..300u16 {
        ring.chain(nth % RING, &[(DATA, HEADER_LEN as u32, false)]);
        ring.offer(nth % RING);
        ring.kick(&guest.driver);
        if nth < 256 {
            ring.wait_used(nth + 1);
        } else if nth == 256 + RING - 1 {
            break;
        }
    }
    assert_eq!(
        ring.used_index(),
        256,
        "256 resets are owed, and the guest has room for none"
    );
    (0..RING).for_each(|head| guest.post(head));
    for _ in 0..256 + RING {
        guest.expect(op::RST);
    }
    guest.assert_works();
}

#[test]
fn each_breakage_of_either_queue_needs_a_reset_and_the_device_works_after_it() {
    let mut guest = start();
    let wrong_way: (&str, fn(&Ring)) = ("a buffer in the wrong direction", |ring| {
        let writable = ring.descriptors != 0x1_0000;
        ring.chain(0, &[(DATA, 64, writable)]);
        ring.offer(0);
    });
    let short: (&str, fn(&Ring)) = ("no room for a header", |ring| {
        let writable = ring.descriptors == 0x1_0000;
        ring.chain(0, &[(DATA, 43, writable)]);
        ring.offer(0);
    });
    for queue in [RX, TX] {
        for (name, break_it) in BREAKAGES.iter().chain(&[wrong_way, short]) {
            eprintln!("queue {queue}: {name}");
            guest.driver.initialise(!EVENT_IDX, RING);
            break_it(guest.driver.ring(queue));
            guest.driver.ring(queue).kick(&guest.driver);
            if queue == RX {
                // It is not looked at before there is something to say.
                let stream = guest.dial(b"CONNECT 5\n");
                guest.driver.wait_needs_reset();
                drop(stream);
            } else {
                guest.driver.wait_needs_reset();
            }
            guest.initialise();
            assert_eq!(guest.driver.status() & NEEDS_RESET, 0);
            guest.assert_works();
        }
    }
}

#[test]
fn connections_outlive_a_pause_and_end_with_a_reset() {
    let mut guest = start();
    let mut stream = guest.connect(PORTS);
    guest.driver.function.pause();
    stream.write_all(b"while you slept").unwrap();
    guest.driver.function.resume();
    assert_eq!(guest.expect(op::RW).1, b"while you slept");
    guest.driver.set_status(0);
    assert!(ends_soon(&mut stream));
    guest.initialise();
    guest.assert_works();
}

#[test]
fn a_restored_guest_is_told_that_its_connections_are_over() {
    let mut guest = start_with(|mut device| {
        device.restore(&Saved::default()).unwrap();
        device
    });
    // A driver that starts afresh has none.
    let ring = guest.driver.ring(EVENT);
    ring.chain(0, &[(DATA + 0x8000, 8, true)]);
    ring.offer(0);
    ring.kick(&guest.driver);
    guest.assert_works();
    assert_eq!(guest.driver.ring(EVENT).used_index(), 0);

    let saved = {
        guest.driver.function.pause();
        guest.driver.function.save().unwrap()
    };
    let directory = TempDir::new().unwrap();
    let mut new = Driver::probe(device(&directory));
    let mut low = vec![0; crate::virtio::testing::LOW_END as usize];
    guest.driver.memory.read_slice(&mut low, GuestAddress(0)).unwrap();
    new.memory.write_slice(&low, GuestAddress(0)).unwrap();
    new.function.restore(&saved).unwrap();
    new.rings = guest.driver.rings.iter().map(|ring| ring.of(&new)).collect();
    new.function.resume();
    new.ring(EVENT).wait_used(1);
    assert_eq!(new.ring(EVENT).used_element(0), (0, 4));
}

#[test]
fn counts_packets_and_bytes() {
    let registry = Registry::default();
    let metrics = registry.device("vsock", "");
    let mut guest = start_with(|device| device.counted_in(metrics));
    let mut stream = guest.connect(PORTS);
    guest.send_data(PORTS, &[1; 1000]);
    stream.write_all(&[2; 500]).unwrap();
    guest.expect(op::RW);
    let report = registry.report();
    let operations = &report.devices[0].operations;
    let of = |operation| (operations[&operation].operations, operations[&operation].bytes);
    assert_eq!(of(Operation::Transmit), (2, 1000));
    assert_eq!(of(Operation::Receive), (2, 500));
}

fn packets() -> impl Strategy<Value = Vec<(Header, usize)>> {
    let small = || prop_oneof![4 => 0_u32..4, 1 => any::<u32>()];
    let cid = |usual: u64| prop_oneof![8 => Just(usual), 1 => any::<u64>()];
    let kind = prop_oneof![8 => Just(STREAM), 1 => any::<u16>()];
    let ports = (small(), small());
    let numbers = (small(), small(), small(), 0_usize..3000);
    let packet = (cid(CID.into()), cid(2), ports, kind, 0_u16..9, numbers).prop_map(
        |(src_cid, dst_cid, (src_port, dst_port), kind, op, (flags, buf_alloc, fwd_cnt, len))| {
            let header = Header {
                src_cid: src_cid.into(),
                dst_cid: dst_cid.into(),
                src_port: src_port.into(),
                dst_port: dst_port.into(),
                len: (len as u32).into(),
                kind: kind.into(),
                op: op.into(),
                flags: flags.into(),
                buf_alloc: buf_alloc.into(),
                fwd_cnt: fwd_cnt.into(),
            };
            (header, len)
        },
    );
    prop::collection::vec(packet, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_sequence_of_packets_breaks_the_device(packets in packets()) {
        let mut guest = start();
        // Programs of all kinds: one that echoes nothing, one that hangs up, one that connects.
        let keeps = UnixListener::bind(guest.path(1)).unwrap();
        let _full = UnixListener::bind(guest.path(2)).unwrap();
        keeps.set_nonblocking(true).unwrap();
        let _caller = guest.dial(b"CONNECT 3\n");
        // The device hears of the caller in its own time: not after the reset below.
        guest.expect(op::REQUEST);
        for (nth, (header, len)) in packets.into_iter().enumerate() {
            guest.send_packet(header, &vec![nth as u8; len]);
            if let Ok((mut stream, _)) = keeps.accept()
                && nth % 2 == 0
            {
                stream.write_all(b"bye").unwrap();
            }
            // Take what has come, so that neither side waits for the other.
            while guest.driver.ring(RX).used_index() != guest.received {
                guest.receive();
            }
        }
        prop_assert_eq!(guest.driver.status() & NEEDS_RESET, 0);
        guest.initialise();
        let ports = Ports { guest: 70, host: 71 };
        let mut stream = guest.connect(ports);
        guest.send_data(ports, b"fine");
        prop_assert_eq!(read(&mut stream, 4), b"fine");
    }
}
