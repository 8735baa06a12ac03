use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use vm_memory::{Bytes, GuestAddress};

use super::offloads::HEADER_LEN;
use super::tap::Tap;
use super::{Net, NetConfig};
use crate::virtio::testing::{BREAKAGES, DATA, Driver, EVENT_IDX, HIGH_START, NEEDS_RESET, Ring, VERSION_1};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MTU: u16 = 1500;
const CONFIG: NetConfig = NetConfig { mac: MAC, mtu: MTU };
/// All `TUN_F_*` of a new kernel.
const OFFLOADS: u32 = 0x7f;
/// What a simple driver accepts: no offloads, no mergeable buffers, no EVENT_IDX.
const PLAIN: u64 = VERSION_1 | 1 << 3 | 1 << 5 | 1 << 16;
/// Checksums, segmentation, mergeable buffers; several queues.
const CSUM: u64 = 0b11;
const SEGMENTATION: u64 = 0b111 << 7 | 0b1111 << 11 | 0b111 << 54;
const MERGEABLE: u64 = 1 << 15;
const MULTI_QUEUE: u64 = 1 << 17 | 1 << 22;
/// A received packet's header without offloads, in one buffer.
const RX_HEADER: [u8; HEADER_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const RX: usize = 0;
const TX: usize = 1;

/// A socket that keeps packets apart, as a TAP does, and the other end of it.
fn wire() -> (File, File) {
    let pair = |flags| socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let (ours, theirs): (OwnedFd, OwnedFd) = pair(SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC);
    let flags = nix::fcntl::OFlag::empty();
    nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    (File::from(ours), File::from(theirs))
}

fn start() -> (Driver, File) {
    let (tap, peer) = wire();
    let mut driver = Driver::probe(Net::on(vec![Tap::on(tap, OFFLOADS)], CONFIG));
    driver.initialise(PLAIN, 16);
    (driver, peer)
}

/// What the peer puts on the wire: a header, and a frame.
fn packet(frame: &[u8]) -> Vec<u8> {
    [&[0xee; HEADER_LEN], frame].concat()
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

fn send(driver: &Driver, frame: &[u8]) {
    let ring = driver.ring(TX);
    let nth = ring.used_index();
    // A header full of offloads that were never agreed upon.
    driver
        .memory
        .write_slice(&[0xff; HEADER_LEN], GuestAddress(DATA))
        .unwrap();
    driver
        .memory
        .write_slice(frame, GuestAddress(HIGH_START))
        .unwrap();
    ring.chain(
        0,
        &[
            (DATA, HEADER_LEN as u32, false),
            (HIGH_START, frame.len() as u32, false),
        ],
    );
    ring.offer(0);
    ring.kick(driver);
    ring.wait_used(nth.wrapping_add(1));
    assert_eq!(ring.used_element(nth), (0, 0));
}

fn received(peer: &mut File) -> Vec<u8> {
    let mut data = vec![0; 70_000];
    let len = peer.read(&mut data).unwrap();
    data.truncate(len);
    data
}

fn offer_buffer(driver: &Driver, head: u16, len: u32) {
    let ring = driver.ring(RX);
    let address = HIGH_START + 0x1_0000 * u64::from(head + 1);
    ring.chain(head, &[(address, 20, true), (address + 20, len - 20, true)]);
    ring.offer(head);
    ring.kick(driver);
}

fn buffer(driver: &Driver, head: u16, len: u32) -> Vec<u8> {
    let mut data = vec![0; len as usize];
    let address = HIGH_START + 0x1_0000 * u64::from(head + 1);
    driver
        .memory
        .read_slice(&mut data, GuestAddress(address))
        .unwrap();
    data
}

fn assert_receives(driver: &Driver, peer: &mut File) {
    let ring = driver.ring(RX);
    let nth = ring.used_index();
    let sent = frame(90, nth as u8);
    offer_buffer(driver, 0, 1600);
    peer.write_all(&packet(&sent)).unwrap();
    ring.wait_used(nth.wrapping_add(1));
    assert_eq!(ring.used_element(nth), (0, 102));
    assert_eq!(buffer(driver, 0, 102), [&RX_HEADER[..], &sent].concat());
}

#[test]
fn says_what_it_is() {
    let (driver, _peer) = start();
    assert_eq!(
        driver.device_config(12),
        [2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 0x05]
    );
    let offloads = 0b11 | 0b111 << 7 | 0b1111 << 11 | 0b111 << 54;
    let (mac, mtu, status, mergeable) = (1 << 5, 1 << 3, 1 << 16, 1 << 15);
    let transport = 0b11 << 28 | 1 << 32;
    assert_eq!(
        driver.offered(),
        mac | mtu | status | mergeable | offloads | transport
    );
}

#[test]
fn sends_frames_behind_a_header_of_its_own() {
    let (driver, mut peer) = start();
    for len in [14, 60, 1514, 1518] {
        let sent = frame(len, 1);
        send(&driver, &sent);
        assert_eq!(received(&mut peer), [&[0; HEADER_LEN][..], &sent].concat());
    }
    send(&driver, &frame(1519, 2));
    send(&driver, &frame(20, 3));
    assert_eq!(received(&mut peer).len(), 32, "the oversize frame was dropped");
}

#[test]
fn receives_into_buffers_offered_before_and_after() {
    let (driver, mut peer) = start();
    assert_receives(&driver, &mut peer);
    // Packets first, buffers later.
    let ring = driver.ring(RX);
    for seed in 0..3 {
        peer.write_all(&packet(&frame(60 + usize::from(seed), seed)))
            .unwrap();
    }
    for head in [2, 4, 6] {
        offer_buffer(&driver, head, 1600);
    }
    ring.wait_used(4);
    for (nth, head) in [(1, 2), (2, 4), (3, 6)] {
        let len = 60 + u32::from(nth) - 1 + 12;
        assert_eq!(ring.used_element(nth), (head, len));
        assert_eq!(
            buffer(&driver, head as u16, len)[12..],
            frame(60 + usize::from(nth) - 1, nth as u8 - 1)
        );
    }
    for _ in 0..50 {
        assert_receives(&driver, &mut peer);
    }
}

#[test]
fn a_packet_that_exactly_fits_is_kept_and_a_longer_one_dropped() {
    let (driver, mut peer) = start();
    offer_buffer(&driver, 0, 112);
    peer.write_all(&packet(&frame(101, 1))).unwrap();
    peer.write_all(&packet(&frame(5000, 2))).unwrap();
    peer.write_all(&packet(&frame(100, 3))).unwrap();
    driver.ring(RX).wait_used(1);
    assert_eq!(driver.ring(RX).used_element(0), (0, 112));
    assert_eq!(buffer(&driver, 0, 112)[12..], frame(100, 3));
}

#[test]
fn a_wire_that_is_full_drops_and_does_not_block() {
    let (driver, mut peer) = start();
    for _ in 0..2000 {
        send(&driver, &frame(1500, 1));
    }
    assert_eq!(received(&mut peer).len(), 1512);
}

#[test]
fn each_breakage_of_either_queue_needs_a_reset_and_the_device_works_after_it() {
    let (mut driver, mut peer) = start();
    let readable: (&str, fn(&Ring)) = ("a readable buffer", |ring| {
        ring.chain(0, &[(DATA, 12, false), (DATA, 1600, true)]);
        ring.offer(0);
    });
    let short: (&str, fn(&Ring)) = ("no room for a header", |ring| {
        let writable = ring.descriptors == 0x1_0000;
        ring.chain(0, &[(DATA, 11, writable)]);
        ring.offer(0);
    });
    for queue in [RX, TX] {
        for (name, break_it) in BREAKAGES.iter().chain(&[readable, short]) {
            eprintln!("queue {queue}: {name}");
            break_it(driver.ring(queue));
            driver.ring(queue).kick(&driver);
            driver.wait_needs_reset();
            driver.initialise(PLAIN, 16);
            assert_eq!(driver.status() & NEEDS_RESET, 0);
            assert_receives(&driver, &mut peer);
            send(&driver, &frame(60, 4));
            assert_eq!(received(&mut peer).len(), 72);
        }
    }
}

#[test]
fn a_reset_stops_a_receiver_that_waits_for_packets_or_buffers() {
    let (mut driver, mut peer) = start();
    driver.initialise(PLAIN | EVENT_IDX, 16);
    offer_buffer(&driver, 0, 1600);
    driver.initialise(PLAIN | EVENT_IDX, 16);
    peer.write_all(&packet(&frame(60, 1))).unwrap();
    driver.initialise(PLAIN, 16);
    // The packet that was waiting comes first.
    offer_buffer(&driver, 0, 1600);
    driver.ring(RX).wait_used(1);
    assert_receives(&driver, &mut peer);
}

#[test]
fn a_wire_that_goes_away_ends_the_workers_quietly() {
    let (driver, mut peer) = start();
    assert_receives(&driver, &mut peer);
    offer_buffer(&driver, 0, 1600);
    drop(peer);
    send(&driver, &frame(60, 1));
    assert_eq!(driver.status() & NEEDS_RESET, 0);
    driver.set_status(0);
    assert_eq!(driver.status(), 0);
}

mod exchange;
mod features;
mod real_tap;
mod unplugged;
