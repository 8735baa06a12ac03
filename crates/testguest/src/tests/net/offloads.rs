//! Checksums and segments that are left to the host, and headers that make no sense. Virtio 1.2, section 5.1.6.2.

use super::frames::{
    ICMP_CHECKSUM, PING_OVERHEAD, TCP_CHECKSUM, TCP_HEADERS, TRANSPORT, is_tcp_reset, ping, pong, tcp,
};
use super::*;
use crate::cpu::write;
use crate::report::End;
use crate::tests::{Case, cases};
use crate::virtio::status::NEEDS_RESET;

pub const CASES: &[Case] = cases![
    checksums_may_be_left_to_the_host,
    large_segments_may_be_left_to_the_host,
    headers_count_only_if_they_were_agreed_upon,
    senseless_headers_are_refused,
    odd_headers_harm_nobody,
    random_headers_harm_nobody,
];

const CSUM: u64 = 1;
/// Also segmentation of TCP over IPv4 and IPv6, with ECN, and of UDP.
const OFFLOADS: u64 = CSUM | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 56;

const NEEDS_CSUM: u8 = 1;
const TCPV4: u8 = 1;
const ECN: u8 = 0x80;

/// What stands before a frame.
#[derive(Debug, Clone, Copy, Default)]
struct Header {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl Header {
    fn put(self, at: u64) {
        write(at, self.flags);
        write(at + 1, self.gso_type);
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (nth, word) in (1..).zip(words) {
            write(at + 2 * nth, word);
        }
    }
}

/// As Linux would send a large segment of [`tcp`].
const SEGMENT: Header = Header {
    flags: NEEDS_CSUM,
    gso_type: TCPV4,
    hdr_len: TCP_HEADERS as u16,
    gso_size: 1448,
    csum_start: TRANSPORT,
    csum_offset: TCP_CHECKSUM,
};

fn acquainted(device: &Device) -> Outcome<(Link, [u8; 6])> {
    if device.offered() & OFFLOADS != OFFLOADS {
        return Err(End::Absent("the host's kernel is too old"));
    }
    let mut link = Link::start_with(device, PLAIN | OFFLOADS)?;
    let host = link.host_address()?;
    Ok((link, host))
}

/// Sends a frame with its header; nothing is written back.
fn send(link: &mut Link, header: Header, frame: &[u8]) -> Outcome {
    header.put(link.tx_buffer);
    link.send(frame)
}

/// A ping that is answered, and no other before it.
fn only_this_is_answered(link: &mut Link, host: &[u8; 6], sequence: u16) -> Outcome {
    let mut frame = [0; PING_OVERHEAD];
    ping(&mut frame, &link.mac, host, sequence);
    send(link, Header::default(), &frame)?;
    let first = Cell::new(0);
    link.receive(|frame| {
        let answer = pong(frame);
        first.set(answer.unwrap_or(0));
        answer.is_some()
    })?;
    same!(first.get(), sequence, "the ping that was answered");
    Ok(())
}

fn checksums_may_be_left_to_the_host(device: &Device) -> Outcome {
    let (mut link, host) = acquainted(device)?;
    let mut frame = [0; 500];
    let partial = Header {
        flags: NEEDS_CSUM,
        csum_start: TRANSPORT,
        csum_offset: ICMP_CHECKSUM,
        ..Header::default()
    };
    for (header, sequence) in [(Header::default(), 1), (partial, 2)] {
        ping(&mut frame, &link.mac, &host, sequence);
        frame[usize::from(TRANSPORT + ICMP_CHECKSUM)] ^= 0xff;
        send(&mut link, header, &frame)?;
    }
    // The first was wrong; the second was to be made right.
    let came = Cell::new(0);
    link.receive(|frame| {
        came.set(pong(frame).unwrap_or(0));
        came.get() != 0
    })?;
    same!(came.get(), 2, "the ping that was answered");
    Ok(())
}

fn large_segments_may_be_left_to_the_host(device: &Device) -> Outcome {
    let (mut link, host) = acquainted(device)?;
    let mut frame = [0; 9000];
    for len in [TCP_HEADERS + 1449, 9000] {
        tcp(&mut frame[..len], &link.mac, &host);
        send(&mut link, SEGMENT, &frame[..len])?;
        link.receive(is_tcp_reset)?;
    }
    Ok(())
}

fn headers_count_only_if_they_were_agreed_upon(device: &Device) -> Outcome {
    let mut link = Link::start(device)?;
    let host = link.host_address()?;
    let mut frame = [0; 100];
    ping(&mut frame, &link.mac, &host, 7);
    let wild = Header {
        flags: 0xff,
        gso_type: 0xff,
        hdr_len: 0xffff,
        gso_size: 0xffff,
        csum_start: 0xffff,
        csum_offset: 0xffff,
    };
    send(&mut link, wild, &frame)?;
    link.receive(|frame| pong(frame) == Some(7))?;
    Ok(())
}

fn senseless_headers_are_refused(device: &Device) -> Outcome {
    const LEN: u16 = 100;
    let (mut link, host) = acquainted(device)?;
    let mut frame = [0; LEN as usize];
    for (sequence, header) in (1..).zip([
        Header {
            csum_start: LEN - 1,
            csum_offset: 0,
            gso_type: 0,
            ..SEGMENT
        },
        Header {
            csum_start: LEN,
            csum_offset: 0,
            gso_type: 0,
            ..SEGMENT
        },
        Header {
            csum_start: 0xffff,
            csum_offset: 0xffff,
            gso_type: 0,
            ..SEGMENT
        },
        Header {
            csum_offset: LEN,
            ..SEGMENT
        },
        Header {
            gso_size: 0,
            ..SEGMENT
        },
        Header { flags: 0, ..SEGMENT },
        Header {
            hdr_len: LEN + 1,
            ..SEGMENT
        },
        Header {
            hdr_len: 0xffff,
            ..SEGMENT
        },
        Header {
            gso_type: 2,
            ..SEGMENT
        },
        Header {
            gso_type: 0x7f,
            ..SEGMENT
        },
        Header {
            gso_type: ECN | 6,
            ..SEGMENT
        },
    ]) {
        ping(&mut frame, &link.mac, &host, sequence);
        send(&mut link, header, &frame)?;
        same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET for {header:?}");
    }
    only_this_is_answered(&mut link, &host, 100)
}

/// They are as agreed upon, and the host's kernel makes of them what it can.
fn odd_headers_harm_nobody(device: &Device) -> Outcome {
    let (mut link, host) = acquainted(device)?;
    let mut frame = [0; 3000];
    tcp(&mut frame, &link.mac, &host);
    for header in [
        Header {
            csum_start: 0,
            csum_offset: 0,
            ..SEGMENT
        },
        Header {
            csum_start: 2998,
            csum_offset: 0,
            ..SEGMENT
        },
        Header {
            hdr_len: 0,
            ..SEGMENT
        },
        Header {
            hdr_len: 13,
            ..SEGMENT
        },
        Header {
            hdr_len: 3000,
            ..SEGMENT
        },
        Header {
            gso_size: 1,
            ..SEGMENT
        },
        Header {
            gso_size: 0xffff,
            ..SEGMENT
        },
        Header {
            gso_type: ECN | TCPV4,
            ..SEGMENT
        },
        Header {
            gso_type: 3,
            ..SEGMENT
        },
        Header {
            gso_type: 4,
            ..SEGMENT
        },
        Header {
            gso_type: 5,
            ..SEGMENT
        },
    ] {
        send(&mut link, header, &frame)?;
        same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET for {header:?}");
    }
    Header::default().put(link.tx_buffer);
    link.exchange_arp()
}

fn random_headers_harm_nobody(device: &Device) -> Outcome {
    const BATCH: u16 = 32;
    const BATCHES: u32 = 60;
    let (mut link, host) = acquainted(device)?;
    let mut frame = [0; 1600];
    tcp(&mut frame, &link.mac, &host);
    for nth in 0..u64::from(BATCH) {
        copy_in(link.tx_buffer + 2048 * nth + u64::from(HEADER_LEN), &frame);
    }
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..BATCHES {
        for nth in 0..BATCH {
            let at = link.tx_buffer + 2048 * u64::from(nth);
            for word in 0..2 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                write(at + 4 * word, random as u32);
            }
            // Often enough what is asked for is possible.
            write(at, read::<u16>(at) & 0x0701);
            write(at + 4, read::<u32>(at + 4) & 0x03ff_03ff);
            link.tx.chain(nth, &[out(at, HEADER_LEN + frame.len() as u32)]);
            link.tx.offer(nth);
        }
        link.tx.kick();
        for nth in 0..BATCH {
            same!(link.tx.wait("a batch")?, (u32::from(nth), 0), "used element");
        }
        // What the host has to say to it.
        while link.take(&|_| true)?.is_some() {}
    }
    same!(device.status() & NEEDS_RESET, 0, "NEEDS_RESET");
    Header::default().put(link.tx_buffer);
    link.exchange_arp()
}
