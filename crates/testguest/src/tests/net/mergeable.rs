//! Packets that take as many receive buffers as they need. Virtio 1.2, sections 5.1.6.3.1 and 5.1.6.4.

use super::frames::{ping, pong};
use super::*;
use crate::tests::{Case, cases};
use crate::virtio::CONFIG_INTERRUPT;

pub const CASES: &[Case] = cases![
    packets_spread_over_buffers,
    a_packet_waits_until_it_has_room,
    what_the_whole_ring_has_no_room_for_is_dropped,
    a_mergeable_buffer_without_room_for_a_header,
    a_wrong_buffer_for_the_rest_of_a_packet,
];

const MERGEABLE: u64 = PLAIN | 1 << 15;
/// Bytes of a buffer.
const PIECE: u32 = 128;
const FRAME: usize = 1000;
/// Buffers for it.
const PIECES: u16 = (HEADER_LEN as u16 + FRAME as u16).div_ceil(PIECE as u16);

/// A link with `buffers` receive buffers in a ring of `size`, and the host's address.
fn start(device: &Device, size: u16, buffers: u16) -> Outcome<(Link, [u8; 6])> {
    // With room for what is on its way from earlier tests.
    works(device)?;
    crate::memory::free_all();
    let [rx, tx] = device.start(MERGEABLE, size)?;
    let mut link = Link::on(device, rx, tx);
    post(&link, 0..buffers);
    let host = link.host_address()?;
    Ok((link, host))
}

fn post(link: &Link, buffers: core::ops::Range<u16>) {
    for nth in buffers {
        link.rx.chain(nth, &[into(link.rx_buffer(nth), PIECE)]);
        link.rx.offer(nth);
    }
    link.rx.kick();
}

fn send_ping(link: &mut Link, host: &[u8; 6], sequence: u16, len: usize) -> Outcome {
    let mut frame = [0; FRAME];
    ping(&mut frame[..len], &link.mac, host, sequence);
    link.send(&frame[..len])
}

/// Puts the packets that come together, until the answer to a ping comes: how many buffers that took.
fn receive_pong(link: &mut Link, sequence: u16, len: usize) -> Outcome<u16> {
    loop {
        let mut frame = [0; FRAME + PIECE as usize];
        let (head, first) = link.rx.wait("a packet")?;
        let start = link.rx_buffer(head as u16);
        let buffers: u16 = read(start + 10);
        ensure!((1..=link.rx.size).contains(&buffers), "{buffers} buffers");
        let mut end = (first - HEADER_LEN) as usize;
        crate::memory::copy_out(start + u64::from(HEADER_LEN), &mut frame[..end]);
        link.rx.offer(head as u16);
        for _ in 1..buffers {
            let Some((head, more)) = link.rx.take() else {
                ensure!(false, "a packet came in part only");
                break;
            };
            let to = end + more as usize;
            ensure!(more <= PIECE && to <= frame.len(), "{more} bytes in a buffer");
            crate::memory::copy_out(link.rx_buffer(head as u16), &mut frame[end..to]);
            end = to;
            link.rx.offer(head as u16);
        }
        link.rx.kick();
        if pong(&frame[..end]) == Some(sequence) {
            same!(end, len, "bytes that came back");
            ensure!(frame[50..end].iter().all(|&byte| byte == 0x5a), "they are others");
            return Ok(buffers);
        }
    }
}

fn packets_spread_over_buffers(device: &Device) -> Outcome {
    let (mut link, host) = start(device, RX_BUFFERS, RX_BUFFERS)?;
    let one = (PIECE - HEADER_LEN) as usize;
    for (sequence, len, buffers) in [
        (1, FRAME, PIECES),
        (2, one, 1),
        (3, one + 1, 2),
        (4, one + PIECE as usize, 2),
    ] {
        send_ping(&mut link, &host, sequence, len)?;
        same!(
            receive_pong(&mut link, sequence, len)?,
            buffers,
            "buffers for {len} bytes"
        );
    }
    Ok(())
}

fn a_packet_waits_until_it_has_room(device: &Device) -> Outcome {
    let (mut link, host) = start(device, RX_BUFFERS, 2)?;
    send_ping(&mut link, &host, 1, FRAME)?;
    cpu::sleep(1);
    while let Some((head, len)) = link.rx.take() {
        // What else the host may say is short.
        same!(
            read::<u16>(link.rx_buffer(head as u16) + 10),
            1,
            "buffers of a packet of {len} bytes"
        );
        link.rx.offer(head as u16);
    }
    post(&link, 2..PIECES + 1);
    same!(receive_pong(&mut link, 1, FRAME)?, PIECES, "buffers");
    Ok(())
}

fn what_the_whole_ring_has_no_room_for_is_dropped(device: &Device) -> Outcome {
    let (mut link, host) = start(device, 4, 4)?;
    send_ping(&mut link, &host, 1, FRAME)?;
    send_ping(&mut link, &host, 2, 300)?;
    same!(receive_pong(&mut link, 2, 300)?, 3, "buffers");
    Ok(())
}

fn a_mergeable_buffer_without_room_for_a_header(device: &Device) -> Outcome {
    let [rx, tx] = device.start(MERGEABLE, RX_BUFFERS)?;
    let link = Link::on(device, rx, tx);
    let before = device.interrupts(CONFIG_INTERRUPT);
    link.rx.chain(0, &[into(link.rx_buffers, HEADER_LEN - 1)]);
    link.rx.offer(0);
    link.rx.kick();
    device.wait_needs_reset(before)?;
    works(device)
}

fn a_wrong_buffer_for_the_rest_of_a_packet(device: &Device) -> Outcome {
    let wrong: [fn(u64) -> Buffer; 3] = [
        |at| out(at, PIECE),
        |at| into(at, HEADER_LEN - 1),
        |_| into(cpu::LOCAL_APIC, PIECE),
    ];
    for wrong in wrong {
        crate::memory::free_all();
        let (mut link, host) = start(device, RX_BUFFERS, 2)?;
        let before = device.interrupts(CONFIG_INTERRUPT);
        send_ping(&mut link, &host, 1, FRAME)?;
        link.rx.chain(2, &[wrong(link.rx_buffer(2))]);
        link.rx.offer(2);
        link.rx.kick();
        device.wait_needs_reset(before)?;
        while let Some((head, _)) = link.rx.take() {
            ensure!(head < 2, "the wrong buffer is used");
        }
    }
    works(device)
}
