//! On a TAP of the kernel, in a network namespace that ends with the test.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::*;

const HOST: [u8; 4] = [10, 0, 0, 1];
const GUEST: [u8; 4] = [10, 0, 0, 2];

nix::ioctl_write_ptr_bad!(tun_set_iff, 0x4004_54ca, libc::ifreq);

fn open_tap(name: &str) -> File {
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
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the kernel reads and writes a live `ifreq`.
    unsafe { tun_set_iff(tap.as_raw_fd(), &request) }.unwrap();
    tap
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
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "SKIPPED: packets_go_both_ways_until_the_tap_is_deleted: needs root for a namespace and a TAP"
        );
        return;
    }
    // Of this thread and those it starts.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
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
