//! On a TAP of the kernel, in a network namespace that ends with the test.

use std::fs::OpenOptions;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use zerocopy::{FromBytes, IntoBytes};

use super::features::{command, send_with};
use super::*;
use crate::virtio::net::offloads::Header;
use crate::virtio::testing::PATIENCE;

const HOST: [u8; 4] = [10, 0, 0, 1];
const GUEST: [u8; 4] = [10, 0, 0, 2];

nix::ioctl_write_ptr_bad!(tun_set_iff, 0x4004_54ca, libc::ifreq);

fn open_tap(name: &str) -> File {
    open_tap_as(name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)
}

fn open_tap_as(name: &str, flags: i32) -> File {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as i16;
    // SAFETY: the kernel reads and writes a live `ifreq`.
    unsafe { tun_set_iff(tap.as_raw_fd(), &request) }.unwrap();
    tap
}

/// A network namespace of this thread and those it starts. False, loudly, where there is none to be had.
fn enter_namespace(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if root {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
    } else {
        eprintln!("SKIPPED: {test}: needs root for a namespace and a TAP");
    }
    root
}

/// Gives the TAP its address, and the guest's to the kernel.
fn set_up(name: &str) {
    ip(&format!("addr add 10.0.0.1/24 dev {name}"));
    ip(&format!("link set {name} up"));
    ip(&format!(
        "neigh replace 10.0.0.2 lladdr 02:00:00:00:00:01 nud permanent dev {name}"
    ));
}

/// The TAP's own MAC address.
fn mac_of(name: &str) -> [u8; 6] {
    // Not from `/sys`, which shows another namespace's.
    let output = Command::new("ip")
        .args(["-o", "link", "show", name])
        .output()
        .unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    let text = line
        .split_whitespace()
        .skip_while(|&word| word != "link/ether")
        .nth(1)
        .unwrap();
    let octets: Vec<u8> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).unwrap())
        .collect();
    octets.try_into().unwrap()
}

/// UDP over IPv4 from the guest to the host, its UDP checksum that of the pseudo header alone.
fn udp_packet(to_mac: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let udp_len = 8 + payload.len() as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    ip.extend(GUEST);
    ip.extend(HOST);
    let sum = !sum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = [&GUEST[..], &HOST, &[0, 17], &udp_len.to_be_bytes()].concat();
    let partial = self::sum(&pseudo);
    let ports = [7000_u16.to_be_bytes(), 7001_u16.to_be_bytes()].concat();
    let udp = [&ports[..], &udp_len.to_be_bytes(), &partial.to_be_bytes()].concat();
    [&to_mac[..], &MAC, &[8, 0], &ip, &udp, payload].concat()
}

/// The Internet checksum's sum, not inverted.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Who has `HOST`, tell `GUEST`.
fn arp_request() -> Vec<u8> {
    let ethernet = [&[0xff; 6][..], &MAC, &[8, 6]].concat();
    let operation = [0, 1, 8, 0, 6, 4, 0, 1];
    [&ethernet[..], &operation, &MAC, &GUEST, &[0; 6], &HOST].concat()
}

fn is_arp_reply(frame: &[u8]) -> bool {
    frame[..6] == MAC && frame[12..14] == [8, 6] && frame[20..22] == [0, 2] && frame[28..32] == HOST
}

#[test]
fn packets_go_both_ways_until_the_tap_is_deleted() {
    if !enter_namespace("packets_go_both_ways_until_the_tap_is_deleted") {
        return;
    }
    let mut driver = Driver::probe(Net::new(vec![open_tap("hearth-t0")], CONFIG).unwrap());
    driver.initialise(PLAIN, 16);
    ip("addr add 10.0.0.1/24 dev hearth-t0");
    ip("link set hearth-t0 up");
    send(&driver, &arp_request());

    // The kernel also says what nobody asked for.
    let ring = driver.ring(RX);
    let answered = (0..100u16).any(|nth| {
        offer_buffer(&driver, 0, 1600);
        ring.wait_used(nth + 1);
        let (_, len) = ring.used_element(nth);
        let packet = buffer(&driver, 0, len);
        assert_eq!(packet[..HEADER_LEN], RX_HEADER);
        is_arp_reply(&packet[HEADER_LEN..])
    });
    assert!(answered);

    offer_buffer(&driver, 0, 1600);
    ip("link del hearth-t0");
    send(&driver, &arp_request()[..20]);
    assert_eq!(driver.status() & NEEDS_RESET, 0);
    driver.set_status(0);
    assert_eq!(driver.status(), 0);
}

#[test]
fn what_is_no_tap_is_refused() {
    let (socket, _peer) = wire();
    assert!(Net::new(vec![socket], CONFIG).is_err());
}

/// A header that leaves the UDP checksum, and cutting into datagrams of `gso_size`, to the other side.
fn offloaded(gso_size: u16) -> Header {
    Header {
        flags: 1,
        gso_type: if gso_size == 0 { 0 } else { 5 },
        hdr_len: 42.into(),
        gso_size: gso_size.into(),
        csum_start: 34.into(),
        csum_offset: 6.into(),
        num_buffers: 0.into(),
    }
}

#[test]
fn checksums_and_datagrams_are_left_to_the_other_side_both_ways() {
    const NAME: &str = "hearth-t2";
    const TEST: &str = "checksums_and_datagrams_are_left_to_the_other_side_both_ways";
    if !enter_namespace(TEST) {
        return;
    }
    let mut driver = Driver::probe(Net::new(vec![open_tap(NAME)], CONFIG).unwrap());
    if driver.offered() & 1 << 56 == 0 {
        eprintln!("SKIPPED: {TEST}: needs a kernel with UDP segmentation (Linux 6.2)");
        return;
    }
    driver.initialise(PLAIN | CSUM | SEGMENTATION | MERGEABLE, 16);
    set_up(NAME);
    let socket = UdpSocket::bind("10.0.0.1:7001").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut data = [0; 9000];

    let payload = frame(3500, 1);
    send_with(&driver, offloaded(0), &udp_packet(mac_of(NAME), &payload[..1000]));
    assert_eq!(socket.recv(&mut data).unwrap(), 1000);
    assert!(data[..1000] == payload[..1000]);
    send_with(&driver, offloaded(1000), &udp_packet(mac_of(NAME), &payload));
    for piece in payload.chunks(1000) {
        let len = socket.recv(&mut data).unwrap();
        assert!(data[..len] == *piece);
    }
    // A header that the kernel refuses, and that we do not understand.
    let broken = Header {
        csum_offset: 3000.into(),
        ..offloaded(1000)
    };
    send_with(&driver, broken, &udp_packet(mac_of(NAME), &payload));

    for segment in [0, 1000] {
        for head in [0, 2, 4] {
            offer_buffer(&driver, head, 1600);
        }
        let option = libc::c_int::from(segment);
        setsockopt(&socket, sockopt::UdpGsoSegment, &option).unwrap();
        let len = if segment == 0 { 1000 } else { 3500 };
        socket.send_to(&payload[..len], "10.0.0.2:7000").unwrap();
        let got = next_udp(&driver);
        let header = Header::read_from_bytes(&got[..HEADER_LEN]).unwrap();
        assert_eq!(header.flags, 1, "the checksum is left to us");
        assert_eq!(header.gso_size, segment as u16);
        assert!(got.ends_with(&payload[..len]));
        driver.initialise(PLAIN | CSUM | SEGMENTATION | MERGEABLE, 16);
    }

    // A driver that takes none of it gets whole frames, as many as it takes.
    driver.initialise(PLAIN, 16);
    for head in [0, 2, 4, 6, 8, 10] {
        offer_buffer(&driver, head, 1600);
    }
    socket.send_to(&payload, "10.0.0.2:7000").unwrap();
    let got = next_udp(&driver);
    assert_eq!(got[..12], RX_HEADER);
    let segment = &got[HEADER_LEN + 14 + 20..];
    let pseudo = [&HOST[..], &GUEST, &[0, 17], &(segment.len() as u16).to_be_bytes()].concat();
    assert_eq!(sum(&[&pseudo, segment].concat()), 0xffff, "the checksum is there");
}

/// The next UDP packet with its header; the kernel also says what nobody asked for.
fn next_udp(driver: &Driver) -> Vec<u8> {
    let ring = driver.ring(RX);
    let mut nth = 0;
    loop {
        driver
            .interrupts
            .wait_until("a packet", || ring.used_index() > nth);
        let (head, len) = ring.used_element(nth);
        let mut got = buffer(driver, head as u16, len);
        let buffers = u16::from_le_bytes([got[10], got[11]]);
        for more in 1..buffers {
            let (head, len) = ring.used_element(nth + more);
            got.extend(buffer(driver, head as u16, len));
        }
        if got[HEADER_LEN + 12..][..2] == [8, 0] && got[HEADER_LEN + 23] == 17 {
            return got;
        }
        // Its buffers are needed.
        for used in nth..nth + buffers {
            offer_buffer(driver, ring.used_element(used).0 as u16, 1600);
        }
        nth += buffers;
    }
}

#[test]
fn the_kernel_feeds_the_queues_that_the_driver_uses() {
    const NAME: &str = "hearth-t3";
    if !enter_namespace("the_kernel_feeds_the_queues_that_the_driver_uses") {
        return;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    let taps = (0..3).map(|_| open_tap_as(NAME, flags)).collect();
    let mut driver = Driver::probe(Net::new(taps, CONFIG).unwrap());
    driver.initialise(PLAIN | MULTI_QUEUE, 16);
    set_up(NAME);
    for pairs in [1, 3, 2, 2, 1, 3] {
        assert_eq!(command(&driver, 6, &[4, 0, pairs, 0]), 0, "{pairs}");
    }
    assert_eq!(command(&driver, 6, &[4, 0, 4, 0]), 1);
    driver.initialise(PLAIN | 1 << 17, 16);
    assert_eq!(command(&driver, 2, &[4, 0, 1, 0]), 0);
    // One queue again, and it gets everything.
    let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
    for port in 0..10_u16 {
        socket.send_to(b"hello", ("10.0.0.2", 8000 + port)).unwrap();
    }
    for nth in 0..10 {
        offer_buffer(&driver, 0, 1600);
        driver.ring(RX).wait_used(nth + 1);
    }
    ip(&format!("link del {NAME}"));
    driver.initialise(PLAIN | MULTI_QUEUE, 16);
    assert_eq!(driver.status() & NEEDS_RESET, 0);
}

#[test]
fn no_header_breaks_the_device_on_a_real_tap() {
    const NAME: &str = "hearth-t4";
    if !enter_namespace("no_header_breaks_the_device_on_a_real_tap") {
        return;
    }
    let mut driver = Driver::probe(Net::new(vec![open_tap(NAME)], CONFIG).unwrap());
    driver.initialise(PLAIN | CSUM | SEGMENTATION | MERGEABLE, 16);
    set_up(NAME);
    let mac = mac_of(NAME);
    let few = ProptestConfig::with_cases(500);
    let headers = (0_u8..2, 0_u8..6, any::<[u16; 4]>(), 0_u16..200, 0_usize..20_000);
    let outcome = TestRunner::new(few).run(&headers, |(flags, gso_type, wild, small, len)| {
        let pick = |bit: u16, wild: u16| if wild & bit == 0 { small } else { wild };
        let header = Header {
            flags,
            gso_type,
            hdr_len: pick(1, wild[0]).into(),
            gso_size: pick(2, wild[1]).into(),
            csum_start: pick(4, wild[2]).into(),
            csum_offset: pick(8, wild[3]).into(),
            num_buffers: 0.into(),
        };
        send_with(&driver, header, &udp_packet(mac, &frame(len, 1)));
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(driver.status() & NEEDS_RESET, 0);
    let socket = UdpSocket::bind("10.0.0.1:7001").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    send_with(&driver, offloaded(0), &udp_packet(mac, b"alive"));
    let mut data = [0; 9];
    assert_eq!(socket.recv(&mut data).unwrap(), 5);
}

#[path = "throughput.rs"]
mod throughput;
