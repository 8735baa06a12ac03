//! What a driver may accept beyond the plain device, and what a hostile one makes of it.

use std::sync::Arc;

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::limits::{Limiter, Rate, RateLimit};
use crate::metrics::{Operation, Registry};
use crate::pci::PciFunction as _;
use crate::virtio::net::NetLimits;
use crate::virtio::net::offloads::Header;

fn start_with(wanted: u64) -> (Driver, File, Registry) {
    let registry = Registry::default();
    let (tap, peer) = wire();
    let net = Net::on(vec![Tap::on(tap, OFFLOADS)], CONFIG).counted_in(registry.device("net", ""));
    let mut driver = Driver::probe(net);
    driver.initialise(PLAIN | wanted, 16);
    (driver, peer, registry)
}

/// (operations, errors).
fn counted(registry: &Registry, operation: Operation) -> (u64, u64) {
    let report = registry.report();
    let operations = report.devices[0].operations.get(&operation);
    operations.map_or((0, 0), |report| (report.operations, report.errors))
}

/// The packet in `buffers` buffers from the used element that came `nth`, each of `len` bytes or the rest.
fn gather(driver: &Driver, nth: u16, buffers: u16) -> Vec<u8> {
    let elements = (nth..nth + buffers).map(|nth| driver.ring(RX).used_element(nth));
    elements
        .flat_map(|(head, len)| buffer(driver, head as u16, len))
        .collect()
}

pub(super) fn send_with(driver: &Driver, header: Header, frame: &[u8]) {
    let ring = driver.ring(TX);
    let nth = ring.used_index();
    driver
        .memory
        .write_slice(header.as_bytes(), GuestAddress(DATA))
        .unwrap();
    driver
        .memory
        .write_slice(frame, GuestAddress(HIGH_START))
        .unwrap();
    ring.chain(0, &[(DATA, 12, false), (HIGH_START, frame.len() as u32, false)]);
    ring.offer(0);
    ring.kick(driver);
    ring.wait_used(nth.wrapping_add(1));
}

#[test]
fn a_packet_takes_as_many_mergeable_buffers_as_it_needs() {
    let (driver, mut peer, registry) = start_with(MERGEABLE);
    for head in [0, 2, 4, 6, 8] {
        offer_buffer(&driver, head, 1600);
    }
    let sent = frame(5000, 1);
    peer.write_all(&packet(&sent)).unwrap();
    peer.write_all(&packet(&frame(60, 2))).unwrap();
    driver.ring(RX).wait_used(5);
    let got = gather(&driver, 0, 4);
    assert_eq!(got[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0]);
    assert!(got[12..] == sent);
    assert_eq!(gather(&driver, 4, 1), [&RX_HEADER[..], &frame(60, 2)].concat());
    assert_eq!(counted(&registry, Operation::Receive), (2, 0));
}

#[test]
fn a_packet_waits_for_the_buffers_that_it_still_needs() {
    let (driver, mut peer, _) = start_with(MERGEABLE | EVENT_IDX);
    offer_buffer(&driver, 0, 1600);
    let sent = frame(6000, 1);
    peer.write_all(&packet(&sent)).unwrap();
    for head in [2, 4, 6] {
        assert_eq!(driver.ring(RX).used_index(), 0, "all or nothing");
        offer_buffer(&driver, head, 1600);
    }
    driver.ring(RX).wait_used(4);
    assert!(gather(&driver, 0, 4)[12..] == sent);
}

#[test]
fn a_packet_that_the_whole_ring_cannot_hold_is_dropped() {
    let (driver, mut peer, registry) = start_with(MERGEABLE);
    let ring = driver.ring(RX);
    for head in 0..16 {
        ring.chain(head, &[(HIGH_START + 0x1_0000 * u64::from(head + 1), 100, true)]);
        ring.offer(head);
    }
    ring.kick(&driver);
    peer.write_all(&packet(&frame(1589, 1))).unwrap();
    peer.write_all(&packet(&frame(60, 2))).unwrap();
    ring.wait_used(1);
    assert_eq!(gather(&driver, 0, 1)[12..], frame(60, 2));
    assert_eq!(counted(&registry, Operation::Receive), (2, 1));
    // What fits exactly is kept.
    ring.offer(ring.used_element(0).0 as u16);
    ring.kick(&driver);
    peer.write_all(&packet(&frame(1588, 3))).unwrap();
    ring.wait_used(17);
    assert!(gather(&driver, 1, 16)[12..] == frame(1588, 3));
}

#[test]
fn a_reset_forgets_half_a_packet() {
    let (mut driver, mut peer, _) = start_with(MERGEABLE);
    offer_buffer(&driver, 0, 1600);
    peer.write_all(&packet(&frame(9000, 1))).unwrap();
    offer_buffer(&driver, 2, 1600);
    driver.initialise(PLAIN | MERGEABLE, 16);
    peer.write_all(&packet(&frame(70, 2))).unwrap();
    // The first may have been taken by neither or the one before.
    for head in [0, 2, 4, 6, 8, 10, 12] {
        offer_buffer(&driver, head, 1600);
    }
    driver.interrupts.wait_until("the small packet", || {
        let used = driver.ring(RX).used_index();
        used > 0 && driver.ring(RX).used_element(used - 1).1 == 82
    });
}

#[test]
fn the_hosts_header_reaches_a_guest_that_accepted_checksum_offload() {
    for (wanted, kept) in [(CSUM | SEGMENTATION, true), (0, false)] {
        let (driver, mut peer, _) = start_with(wanted);
        let header = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0];
        offer_buffer(&driver, 0, 9000);
        peer.write_all(&[&header[..], &[0xee; 2], &frame(6000, 1)].concat())
            .unwrap();
        driver.ring(RX).wait_used(1);
        let got = gather(&driver, 0, 1);
        let expected = if kept { header } else { [0; 10] };
        assert_eq!(got[..12], [&expected[..], &[1, 0]].concat());
        assert!(got[12..] == frame(6000, 1));
    }
}

#[test]
fn large_packets_leave_with_their_header_and_bad_ones_are_dropped() {
    let (driver, mut peer, registry) = start_with(CSUM | SEGMENTATION);
    let good = Header {
        flags: 1,
        gso_type: 1,
        hdr_len: 54.into(),
        gso_size: 1448.into(),
        csum_start: 34.into(),
        csum_offset: 16.into(),
        num_buffers: 77.into(),
    };
    let sent = frame(40_000, 1);
    send_with(&driver, good, &sent);
    let got = received(&mut peer);
    assert_eq!(got[..10], good.as_bytes()[..10]);
    assert!(got[10..12] == [0, 0] && got[12..] == sent);
    send_with(
        &driver,
        Header {
            gso_size: 0.into(),
            ..good
        },
        &sent,
    );
    send_with(&driver, Header { gso_type: 0, ..good }, &sent);
    send_with(
        &driver,
        Header {
            csum_start: 40_000.into(),
            ..good
        },
        &sent,
    );
    send_with(&driver, Header { gso_type: 9, ..good }, &sent);
    send_with(&driver, good, &frame(65_554, 1));
    send_with(&driver, Header::default(), &frame(60, 2));
    assert_eq!(received(&mut peer).len(), 72, "none of the bad ones came through");
    assert_eq!(counted(&registry, Operation::Transmit), (7, 5));
    assert_eq!(driver.status() & NEEDS_RESET, 0);
}

proptest! {
    #[test]
    fn no_header_breaks_the_device(
        packets in prop::collection::vec((any::<[u8; HEADER_LEN]>(), 0_usize..3000), 1..20),
        wanted in prop::sample::select(vec![0, CSUM, CSUM | SEGMENTATION]),
    ) {
        let (driver, mut peer, registry) = start_with(wanted);
        let count = packets.len() as u64;
        for (header, len) in packets {
            send_with(&driver, Header::read_from_bytes(&header).unwrap(), &frame(len.max(1), 1));
        }
        prop_assert_eq!(driver.status() & NEEDS_RESET, 0);
        let (sent, dropped) = counted(&registry, Operation::Transmit);
        prop_assert_eq!(sent, count);
        for _ in dropped..sent {
            let got = received(&mut peer);
            prop_assert!(wanted != 0 || got[..12] == [0; 12]);
        }
        send_with(&driver, Header::default(), &frame(99, 2));
        prop_assert_eq!(received(&mut peer).len(), 111);
    }
}

fn start_pairs() -> (Driver, [File; 2]) {
    let ((tap0, peer0), (tap1, peer1)) = (wire(), wire());
    let taps = vec![Tap::on(tap0, OFFLOADS), Tap::on(tap1, OFFLOADS)];
    let mut driver = Driver::probe(Net::on(taps, CONFIG));
    driver.initialise(PLAIN | MULTI_QUEUE, 16);
    (driver, [peer0, peer1])
}

/// The control queue's answer.
pub(super) fn command(driver: &Driver, queue: usize, command: &[u8]) -> u8 {
    let ring = driver.ring(queue);
    let nth = ring.used_index();
    driver.memory.write_slice(command, GuestAddress(DATA)).unwrap();
    driver
        .memory
        .write_slice(&[0xee], GuestAddress(DATA + 0x100))
        .unwrap();
    ring.chain(0, &[(DATA, command.len() as u32, false), (DATA + 0x100, 1, true)]);
    ring.offer(0);
    ring.kick(driver);
    ring.wait_used(nth + 1);
    assert_eq!(ring.used_element(nth), (0, 1));
    let mut ack = [0];
    driver
        .memory
        .read_slice(&mut ack, GuestAddress(DATA + 0x100))
        .unwrap();
    ack[0]
}

#[test]
fn each_pair_has_a_wire_of_its_own() {
    let (driver, [mut peer0, mut peer1]) = start_pairs();
    assert_eq!(driver.rings.len(), 5);
    assert_eq!(driver.device_config(12)[8..10], [2, 0]);
    for (rx, peer) in [(0, &mut peer0), (2, &mut peer1)] {
        let sent = frame(90 + rx, 1);
        let address = HIGH_START + 0x4_0000;
        let ring = driver.ring(rx);
        ring.chain(0, &[(address, 1600, true)]);
        ring.offer(0);
        ring.kick(&driver);
        peer.write_all(&packet(&sent)).unwrap();
        ring.wait_used(1);
        let ring = driver.ring(rx + 1);
        ring.chain(0, &[(address, 102 + rx as u32, false)]);
        ring.offer(0);
        ring.kick(&driver);
        ring.wait_used(1);
        assert_eq!(received(peer), [&[0; 12][..], &sent].concat());
    }
}

#[test]
fn the_driver_says_how_many_pairs_it_uses() {
    let (mut driver, _peers) = start_pairs();
    for (ack, bytes) in [
        (0, [4, 0, 2, 0]),
        (1, [4, 0, 0, 0]),
        (1, [4, 0, 3, 0]),
        (1, [4, 0, 0, 0x80]),
        (1, [4, 1, 1, 0]),
        (1, [0, 0, 1, 0]),
    ] {
        assert_eq!(command(&driver, 4, &bytes), ack, "{bytes:?}");
    }
    driver
        .ring(4)
        .chain(0, &[(DATA, 3, false), (DATA + 0x100, 1, true)]);
    driver.memory.write_slice(&[4, 0, 1], GuestAddress(DATA)).unwrap();
    driver.ring(4).offer(0);
    driver.ring(4).kick(&driver);
    driver.wait_needs_reset();
    // Without several queues the third is the control queue (5.1.2).
    driver.initialise(PLAIN | 1 << 17, 16);
    assert_eq!(command(&driver, 2, &[4, 0, 2, 0]), 1);
}

#[test]
fn pairs_in_use_outlive_a_pause_and_a_snapshot_but_no_reset() {
    let (driver, _peers) = start_pairs();
    assert_eq!(command(&driver, 4, &[4, 0, 2, 0]), 0);
    driver.function.pause();
    let two = driver.function.save().unwrap();
    driver.function.resume();
    driver.function.pause();
    assert!(driver.function.save().unwrap() == two);
    let taps = || vec![Tap::on(wire().0, OFFLOADS), Tap::on(wire().0, OFFLOADS)];
    let clone = Driver::probe(Net::on(taps(), CONFIG));
    clone.function.restore(&two).unwrap();
    assert!(clone.function.save().unwrap() == two);
    let other = Driver::probe(Net::on(vec![Tap::on(wire().0, OFFLOADS)], CONFIG));
    assert!(other.function.restore(&two).is_err());
    clone.function.resume();
    clone.set_status(0);
    let mut driver = clone;
    driver.initialise(PLAIN | MULTI_QUEUE, 16);
    driver.function.pause();
    assert!(driver.function.save().unwrap() != two);
}

/// A rate at which a second packet would wait for minutes.
fn trickle() -> RateLimit {
    let rate = Rate {
        per_second: 1.try_into().unwrap(),
        burst: 0,
    };
    RateLimit {
        operations: None,
        bytes: Some(rate),
    }
}

#[test]
fn limits_hold_packets_back_in_each_direction_and_are_lifted_at_once() {
    let (tap, mut peer) = wire();
    let limits = NetLimits {
        receive: Limiter::new(&trickle()),
        transmit: Limiter::new(&trickle()),
    };
    let net = Net::on(vec![Tap::on(tap, OFFLOADS)], CONFIG).limited_by(limits.clone());
    let mut driver = Driver::probe(net);
    driver.initialise(PLAIN, 16);
    assert_receives(&driver, &mut peer);
    send(&driver, &frame(1000, 1));

    offer_buffer(&driver, 2, 1600);
    peer.write_all(&packet(&frame(60, 2))).unwrap();
    let ring = driver.ring(TX);
    ring.chain(4, &[(DATA, 100, false)]);
    ring.offer(4);
    ring.kick(&driver);
    // It says so by the time that it takes them to come: nothing else happens to look at.
    limits.receive.set(&RateLimit::default());
    driver.ring(RX).wait_used(2);
    assert_eq!(ring.used_index(), 1);
    limits.transmit.set(&RateLimit::default());
    ring.wait_used(2);
    assert_eq!(received(&mut peer).len(), 1012);
    assert_eq!(received(&mut peer).len(), 100);

    // Nor do packets that are held back keep a reset waiting.
    limits.receive.set(&trickle());
    limits.transmit.set(&trickle());
    for _ in 0..2 {
        offer_buffer(&driver, 6, 1600);
        peer.write_all(&packet(&frame(60, 2))).unwrap();
        driver.ring(TX).offer(4);
        driver.ring(TX).kick(&driver);
    }
    driver.initialise(PLAIN, 16);
    assert_eq!(driver.status() & NEEDS_RESET, 0);
    assert!(Arc::strong_count(&limits.receive) > 1);
}
