//! One worker for both directions: neither keeps the other waiting, and an error of one comes after what the other was
//! offered.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::time::{TimeVal, TimeValLike};

use super::*;
use crate::virtio::testing::{NEXT, WRITE};

const ROUNDS: u16 = 300;
const RING: u16 = 16;
const LEN: u32 = 1600;

/// Gives all buffers back that were filled, and returns how many.
fn refill(driver: &Driver, seen: &mut u16) -> u16 {
    let ring = driver.ring(RX);
    let used = ring.used_index();
    let filled = used.wrapping_sub(*seen);
    for nth in 0..filled {
        let (head, _) = ring.used_element(seen.wrapping_add(nth));
        offer_buffer(driver, head as u16, LEN);
    }
    *seen = used;
    filled
}

#[test]
fn a_flood_from_the_host_does_not_hold_up_what_the_guest_sends() {
    let (driver, peer) = start();
    // Of two descriptors each.
    for head in (0..RING).step_by(2) {
        offer_buffer(&driver, head, LEN);
    }
    // Of a device that stands still the test fails, and does not wait for ever.
    setsockopt(&peer, SendTimeout, &TimeVal::seconds(20)).unwrap();
    let (enough, mut seen, mut came) = (AtomicBool::new(false), 0, 0_u32);
    thread::scope(|scope| {
        let mut host = peer.try_clone().unwrap();
        let flood = scope.spawn(|| {
            let packet = packet(&frame(1000, 3));
            let mut peer = &peer;
            while peer.write_all(&packet).is_ok() {
                if enough.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for nth in 0..ROUNDS {
            let sent = frame(60, nth as u8);
            send(&driver, &sent);
            assert_eq!(received(&mut host)[HEADER_LEN..], sent);
            came += u32::from(refill(&driver, &mut seen));
        }
        enough.store(true, Ordering::Relaxed);
        // It may be waiting for room on the wire.
        while !flood.is_finished() {
            refill(&driver, &mut seen);
            thread::yield_now();
        }
    });
    assert!(came > 0, "nothing of the flood came in");
}

#[test]
fn a_flood_from_the_guest_does_not_hold_up_what_the_host_sends() {
    let (driver, mut peer) = start();
    let ring = driver.ring(TX);
    let mut host = peer.try_clone().unwrap();
    let (enough, drained) = (AtomicBool::new(false), AtomicU32::new(0));
    for head in 0..RING {
        ring.chain(head, &[(DATA, HEADER_LEN as u32 + 60, false)]);
    }
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut offered = 0_u16;
            while !enough.load(Ordering::Relaxed) {
                let free = RING - offered.wrapping_sub(ring.used_index());
                for _ in 0..free {
                    ring.offer(offered % RING);
                    offered = offered.wrapping_add(1);
                }
                ring.kick(&driver);
                thread::yield_now();
            }
            offered
        });
        let drain = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                drained.fetch_add(u32::from(!received(&mut host).is_empty()), Ordering::Relaxed);
            }
        });
        // On a busy machine all rounds may be over before the flood has begun.
        while drained.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        for _ in 0..ROUNDS {
            assert_receives(&driver, &mut peer);
        }
        enough.store(true, Ordering::Relaxed);
        let mut offered = flood.join().unwrap();
        // Something more to read, for who waits for it. More than there is room for would be a broken ring.
        while !drain.is_finished() {
            if offered.wrapping_sub(ring.used_index()) < RING {
                ring.offer(offered % RING);
                offered = offered.wrapping_add(1);
                ring.kick(&driver);
            }
            thread::yield_now();
        }
    });
}

#[test]
fn a_guest_without_receive_buffers_still_sends() {
    let (driver, mut peer) = start();
    for nth in 0..20 {
        peer.write_all(&packet(&frame(60, nth))).unwrap();
    }
    for nth in 0..ROUNDS {
        let sent = frame(60, nth as u8);
        send(&driver, &sent);
        assert_eq!(received(&mut peer)[HEADER_LEN..], sent);
    }
    offer_buffer(&driver, 0, LEN);
    driver.ring(RX).wait_used(1);
    assert_eq!(buffer(&driver, 0, 72)[HEADER_LEN..], frame(60, 0));
}

#[test]
fn what_was_offered_to_send_leaves_before_a_broken_receive_queue_ends_both() {
    let (driver, mut peer) = start();
    peer.write_all(&packet(&frame(60, 1))).unwrap();
    let sent = frame(60, 2);
    driver
        .memory
        .write_slice(&sent, GuestAddress(DATA + HEADER_LEN as u64))
        .unwrap();
    let (rx, tx) = (driver.ring(RX), driver.ring(TX));
    tx.chain(0, &[(DATA, HEADER_LEN as u32 + 60, false)]);
    tx.offer(0);
    rx.descriptor(0, HIGH_START, LEN, WRITE | NEXT, 0);
    rx.offer(0);
    rx.kick(&driver);
    driver.wait_needs_reset();
    assert_eq!(received(&mut peer)[HEADER_LEN..], sent);
    assert_eq!(tx.used_element(0), (0, 0));
}
