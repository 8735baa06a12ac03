//! Packets that go both ways.

use super::frames::{MAX_FRAME, PING_OVERHEAD, is_arp_reply, ping, pong};
use super::*;
use crate::tests::{Case, cases};
use crate::virtio::status::NEEDS_RESET;

pub const CASES: &[Case] = cases![
    says_address_and_mtu,
    answers_arp,
    carries_packets_of_all_lengths,
    gathers_and_scatters_pieces,
    drops_frames_beyond_the_mtu,
    drops_what_the_buffer_has_no_room_for,
    wraps_around_all_indices,
    survives_resets_under_load,
];

fn says_address_and_mtu(device: &Device) -> Outcome {
    let first: u8 = device.config(0);
    same!(first & 3, 2, "locally administered and unicast");
    same!(device.config::<u16>(6) & 1, 1, "link up");
    same!(device.config::<u16>(10), 1500, "MTU");
    Ok(())
}

fn answers_arp(device: &Device) -> Outcome {
    works(device)
}

fn carries_packets_of_all_lengths(device: &Device) -> Outcome {
    let (mut link, host) = acquainted(device)?;
    let mut frame = [0; MAX_FRAME];
    for (sequence, len) in (0..).zip([PING_OVERHEAD, 60, 61, 513, 1000, MAX_FRAME - 1, MAX_FRAME]) {
        ping(&mut frame[..len], &link.mac, &host, sequence);
        link.send(&frame[..len])?;
        let back = link.receive(|frame| pong(frame) == Some(sequence))?;
        same!(back, len, "bytes that came back");
    }
    Ok(())
}

/// Starts the link and learns the host's address.
fn acquainted(device: &Device) -> Outcome<(Link, [u8; 6])> {
    let mut link = Link::start(device)?;
    let host = link.host_address()?;
    Ok((link, host))
}

fn gathers_and_scatters_pieces(device: &Device) -> Outcome {
    let mut link = Link::start_deaf(device)?;
    let pieces: [Buffer; 9] = in_pieces(link.rx_buffers, BUFFER_LEN, into);
    link.rx.chain(0, &pieces);
    link.rx.offer(0);
    link.rx.kick();
    let request = frames::arp_request(&link.mac);
    copy_in(link.tx_buffer + u64::from(HEADER_LEN), &request);
    let pieces: [Buffer; 7] = in_pieces(link.tx_buffer, HEADER_LEN + request.len() as u32, out);
    link.tx.request("sending in pieces", &pieces)?;
    let mac = link.mac;
    // The one buffer is contiguous, and `take` offers its chain again.
    link.receive(|frame| is_arp_reply(frame, &mac))?;
    Ok(())
}

fn drops_frames_beyond_the_mtu(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    for len in [1519, 4000, 65535, 0x1_ffff - HEADER_LEN] {
        let whole = out(link.tx_buffer, HEADER_LEN + len);
        link.tx.request("sending too much", &[whole])?;
    }
    for len in [0, 1, 13] {
        let whole = out(link.tx_buffer, HEADER_LEN + len);
        link.tx.request("sending too little", &[whole])?;
    }
    same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET");
    link.exchange_arp()
}

fn drops_what_the_buffer_has_no_room_for(device: &Device) -> Outcome {
    const ROOM: u32 = HEADER_LEN + 20;
    let mut link = Link::start_deaf(device)?;
    crate::memory::fill(link.rx_buffers, 4096, 0xcc);
    link.rx.chain(0, &[into(link.rx_buffers, ROOM)]);
    link.rx.offer(0);
    link.rx.kick();
    let request = frames::arp_request(&link.mac);
    link.send(&request)?;
    cpu::sleep(2);
    same!(link.rx.used_index(), 0, "used index");
    for at in u64::from(ROOM)..4096 {
        same!(
            read::<u8>(link.rx_buffers + at),
            0xcc,
            "byte {at}, behind the buffer"
        );
    }
    works(device)
}

fn wraps_around_all_indices(device: &Device) -> Outcome {
    const PACKETS: u32 = 66_000;
    const BATCH: u16 = 32;
    let (mut link, host) = acquainted(device)?;
    let mut frame = [0; 60];
    let (mut sent, mut back) = (0u32, 0u32);
    while sent < PACKETS {
        let before = link.tx.available_index();
        for nth in 0..BATCH {
            let at = link.tx_buffer + 128 * u64::from(nth);
            ping(&mut frame, &link.mac, &host, sent as u16);
            copy_in(at + u64::from(HEADER_LEN), &frame);
            link.tx.chain(nth, &[out(at, HEADER_LEN + frame.len() as u32)]);
            link.tx.offer(nth);
            sent += 1;
        }
        link.tx.kick_if_wanted(before);
        for nth in 0..BATCH {
            same!(link.tx.wait("a batch")?, (u32::from(nth), 0), "used element");
        }
        // Each is answered, in order.
        while back < sent {
            let expected = back as u16;
            link.receive(|frame| pong(frame) == Some(expected))?;
            back += 1;
        }
    }
    Ok(())
}

fn survives_resets_under_load(device: &Device) -> Outcome {
    for round in 0..20u64 {
        crate::memory::free_all();
        let link = Link::start(device)?;
        let request = frames::arp_request(&link.mac);
        copy_in(link.tx_buffer + u64::from(HEADER_LEN), &request);
        for nth in 0..32 {
            link.tx
                .chain(nth, &[out(link.tx_buffer, HEADER_LEN + request.len() as u32)]);
            link.tx.offer(nth);
        }
        link.tx.kick();
        for _ in 0..round * 1_000 {
            core::hint::spin_loop();
        }
        device.reset()?;
        let (rx, tx) = (link.rx.used_index(), link.tx.used_index());
        cpu::sleep(1);
        same!(
            (link.rx.used_index(), link.tx.used_index()),
            (rx, tx),
            "used indices after the reset"
        );
    }
    works(device)
}
