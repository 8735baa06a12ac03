//! One TCP connection at a time, as its server: enough of RFC 9293 and RFC 7323 for a wire that loses and reorders next to nothing.
//!
//! It acknowledges what comes in order, sends as far as the peer's window allows, and begins anew at the first byte
//! that is not acknowledged when nothing has come for a while. There is no congestion control.

use crate::cpu;
use crate::virtio::net::{Checksum, Nic, Packet, Segments};

const ETHERNET: u64 = 14;
const IP: u64 = 20;
const TCP: u64 = 20;
/// Behind Ethernet, IP and TCP headers without options.
const HEADERS: u64 = ETHERNET + IP + TCP;
const CHECKSUM: Checksum = Checksum {
    start: (ETHERNET + IP) as u16,
    offset: 16,
};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// The interface's MTU is 1500.
const SEGMENT: u32 = 1460;
/// Whole segments in an IP packet.
const LARGE: u32 = 44 * SEGMENT;
/// What we take at once, in units of `1 << SCALE`: less than the 1000 packets that a TAP keeps.
const WINDOW: u16 = u16::MAX;
const SCALE: u8 = 4;
/// Bytes that are acknowledged at once, if the rest does not come at once.
const DELAYED: u32 = 1 << 17;
const DELAY_TICKS: u64 = 100_000;
/// Hundredths of a second without an answer after which we send again.
const PATIENCE: u64 = 5;
const FIRST_SEQUENCE: u32 = 0x1000;
const SCALE_OPTION: u8 = 3;
const END_OPTION: u8 = 0;
const NO_OPTION: u8 = 1;

/// What a connection is for: by the well-known ports of RFC 863, 862 and 864.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Discard,
    Echo,
    Generate,
}

impl Service {
    fn at(port: u16) -> Option<Self> {
        match port {
            9 => Some(Self::Discard),
            7 => Some(Self::Echo),
            19 => Some(Self::Generate),
            _ => None,
        }
    }
}

/// What has been moved.
#[derive(Default, Clone, Copy)]
pub struct Counts {
    pub received: u64,
    pub sent: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    pub repeated: u64,
}

pub struct Connection {
    pub service: Service,
    pub counts: Counts,
    /// The first 12 bytes of what we send, and addresses and ports as they stand in it.
    ethernet: [u8; 12],
    addresses: [u8; 8],
    ports: [u8; 4],
    /// The next byte that we await, and how many of them the peer does not know that we have.
    awaited: u32,
    unacknowledged: u32,
    received_at: u64,
    /// The peer wants to hear from us now.
    answer: bool,
    open: bool,
    /// The first byte that the peer has not acknowledged, the next to send, and the last that it takes.
    first: u32,
    next: u32,
    window: u32,
    scale: u8,
    progress_at: u64,
    /// Bytes that came and go back.
    echo: u32,
    finished: bool,
    finish_sent: bool,
    pub closed: bool,
}

struct Segment {
    from: u64,
    ports: (u16, u16),
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    window: u16,
    options: u64,
    len: u32,
}

fn big16(at: u64) -> u16 {
    u16::from_be(cpu::read(at))
}

fn big32(at: u64) -> u32 {
    u32::from_be(cpu::read(at))
}

impl Segment {
    /// `None`: it is something else.
    fn parse(packet: &Packet) -> Option<Self> {
        let ip = packet.address + ETHERNET;
        let is_tcp = packet.len >= HEADERS
            && big16(packet.address + 12) == 0x0800
            && cpu::read::<u8>(ip) == 0x45
            && cpu::read::<u8>(ip + 9) == 6;
        if !is_tcp {
            return None;
        }
        let tcp = ip + IP;
        let options = u64::from(cpu::read::<u8>(tcp + 12) >> 4) * 4;
        let len = u64::from(big16(ip + 2)).checked_sub(IP + options)?;
        Some(Self {
            from: packet.address,
            ports: (big16(tcp), big16(tcp + 2)),
            sequence: big32(tcp + 4),
            acknowledged: big32(tcp + 8),
            flags: cpu::read(tcp + 13),
            window: big16(tcp + 14),
            options,
            len: len as u32,
        })
    }

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// By how many bits the peer's windows are shifted.
    fn scale(&self) -> u8 {
        let (mut at, end) = (self.from + HEADERS, self.from + HEADERS - TCP + self.options);
        while at + 2 < end {
            match cpu::read::<u8>(at) {
                END_OPTION => break,
                NO_OPTION => at += 1,
                SCALE_OPTION => return cpu::read::<u8>(at + 2).min(14),
                _ => at += u64::from(cpu::read::<u8>(at + 1)).max(2),
            }
        }
        0
    }
}

impl Connection {
    /// A peer that opens a connection to a service of ours.
    pub fn accept(packet: &Packet) -> Option<Self> {
        let segment = Segment::parse(packet)?;
        if !segment.is(SYN) || segment.is(ACK) {
            return None;
        }
        let from = packet.address;
        let byte = |at: u64| cpu::read::<u8>(from + at);
        let swapped = |at: u64, len: u64, nth: usize| byte(at + (nth as u64 + len) % (2 * len));
        Some(Self {
            service: Service::at(segment.ports.1)?,
            counts: Counts::default(),
            ethernet: core::array::from_fn(|nth| swapped(0, 6, nth)),
            addresses: core::array::from_fn(|nth| swapped(ETHERNET + 12, 4, nth)),
            ports: core::array::from_fn(|nth| swapped(ETHERNET + IP, 2, nth)),
            awaited: segment.sequence.wrapping_add(1),
            unacknowledged: 0,
            received_at: 0,
            answer: true,
            open: false,
            first: FIRST_SEQUENCE,
            next: FIRST_SEQUENCE,
            window: segment.window.into(),
            scale: segment.scale(),
            progress_at: cpu::hundredths(),
            echo: 0,
            finished: false,
            finish_sent: false,
            closed: false,
        })
    }

    pub fn input(&mut self, packet: &Packet) {
        let Some(segment) = Segment::parse(packet) else {
            return;
        };
        if segment.ports.0.to_be_bytes() != self.ports[2..]
            || segment.ports.1.to_be_bytes() != self.ports[..2]
        {
            return;
        }
        self.counts.packets_received += 1;
        if segment.is(RST) {
            self.closed = true;
            return;
        }
        if segment.is(SYN) {
            self.answer = true;
            return;
        }
        self.acknowledge(&segment);
        if segment.sequence != self.awaited {
            // Seen before, or a gap: the peer learns where we are.
            self.answer |= segment.len > 0 || segment.is(FIN);
            return;
        }
        if segment.len > 0 {
            self.awaited = self.awaited.wrapping_add(segment.len);
            self.counts.received += u64::from(segment.len);
            self.unacknowledged += segment.len;
            self.received_at = cpu::ticks();
            if self.service == Service::Echo {
                self.echo += segment.len;
            }
        }
        if segment.is(FIN) && !self.finished {
            self.awaited = self.awaited.wrapping_add(1);
            self.finished = true;
            self.answer = true;
        }
    }

    fn acknowledge(&mut self, segment: &Segment) {
        if !segment.is(ACK) {
            return;
        }
        let flight = self.next.wrapping_sub(self.first);
        let acknowledged = segment.acknowledged.wrapping_sub(self.first);
        if acknowledged > 0 && acknowledged <= flight {
            self.first = segment.acknowledged;
            self.progress_at = cpu::hundredths();
            self.open = true;
            self.closed = self.finish_sent && self.first == self.next;
        }
        self.window = u32::from(segment.window) << self.scale;
    }

    /// Sends what is to be sent now. `data` is where as much as [`LARGE`] can be sent from.
    pub fn output(&mut self, nic: &mut Nic, data: u64) {
        if !self.open {
            if self.answer && nic.can_send() {
                self.next = FIRST_SEQUENCE;
                self.send(nic, SYN | ACK, 0, 0);
                self.next = FIRST_SEQUENCE.wrapping_add(1);
            }
            return;
        }
        self.repeat_if_lost();
        let largest = if nic.segments { LARGE } else { SEGMENT };
        while !self.finish_sent && nic.can_send() {
            let flight = self.next.wrapping_sub(self.first);
            let allowed = self.window.saturating_sub(flight);
            let len = match self.service {
                Service::Discard => 0,
                Service::Echo => self.echo.min(largest).min(allowed),
                // A window that opens by a few bytes is not worth a packet, unless nothing else will open it.
                Service::Generate if allowed < largest && flight > 0 => 0,
                Service::Generate => largest.min(allowed),
            };
            if len == 0 {
                break;
            }
            self.send(nic, ACK | PSH, data, len);
            self.next = self.next.wrapping_add(len);
            self.echo = self.echo.saturating_sub(len);
            self.counts.sent += u64::from(len);
        }
        if self.finished && !self.finish_sent && self.echo == 0 && nic.can_send() {
            self.send(nic, ACK | FIN, 0, 0);
            self.next = self.next.wrapping_add(1);
            self.finish_sent = true;
        }
        let late = self.unacknowledged > 0 && cpu::ticks() - self.received_at > DELAY_TICKS;
        if (self.answer || late || self.unacknowledged >= DELAYED) && nic.can_send() {
            self.send(nic, ACK, 0, 0);
        }
    }

    /// Whether [`Self::output`] will have something to say though nothing comes in.
    pub fn is_due(&self) -> bool {
        self.unacknowledged > 0
    }

    fn repeat_if_lost(&mut self) {
        if self.first != self.next && cpu::hundredths() > self.progress_at + PATIENCE {
            self.progress_at = cpu::hundredths();
            self.counts.repeated += 1;
            if self.service == Service::Echo {
                self.echo += self.next.wrapping_sub(self.first) - u32::from(self.finish_sent);
            }
            self.next = self.first;
            self.finish_sent = false;
        }
    }

    fn send(&mut self, nic: &mut Nic, flags: u8, data: u64, len: u32) {
        /// Largest segment, and scale of the window.
        const OPTIONS: [u8; 8] = [
            2,
            4,
            (SEGMENT >> 8) as u8,
            SEGMENT as u8,
            NO_OPTION,
            SCALE_OPTION,
            3,
            SCALE,
        ];
        let options: &[u8] = if flags & SYN != 0 { &OPTIONS } else { &[] };
        let tcp_len = TCP as u16 + options.len() as u16 + len as u16;
        let mut bytes = [0; HEADERS as usize + OPTIONS.len()];
        let (ethernet, rest) = bytes.split_at_mut(ETHERNET as usize);
        let (ip, tcp) = rest.split_at_mut(IP as usize);
        ethernet[..12].copy_from_slice(&self.ethernet);
        ethernet[12] = 0x08;
        ip[..2].copy_from_slice(&[0x45, 0]);
        ip[2..4].copy_from_slice(&(IP as u16 + tcp_len).to_be_bytes());
        ip[6..10].copy_from_slice(&[0x40, 0, 64, 6]);
        ip[12..20].copy_from_slice(&self.addresses);
        let checksum = !sum(0, ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        tcp[..4].copy_from_slice(&self.ports);
        tcp[4..8].copy_from_slice(&self.next.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.awaited.to_be_bytes());
        tcp[12] = ((TCP as usize + options.len()) / 4 << 4) as u8;
        tcp[13] = flags;
        tcp[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        // The host adds the rest up: this is the pseudo header's part.
        let pseudo = sum(6 + u32::from(tcp_len), &self.addresses);
        tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
        tcp[20..20 + options.len()].copy_from_slice(options);
        let segments = (len > SEGMENT).then_some(Segments {
            headers: HEADERS as u16,
            size: SEGMENT as u16,
        });
        let headers = &bytes[..HEADERS as usize + options.len()];
        nic.send(headers, data, len.into(), CHECKSUM, segments);
        self.counts.packets_sent += 1;
        self.unacknowledged = 0;
        self.answer = false;
    }
}

/// The Internet checksum's sum, not inverted.
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = start + words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
