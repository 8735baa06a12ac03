//! A network interface as its driver sees it: packets behind headers, mergeable receive buffers. Virtio 1.2, section 5.1.

use core::array::from_fn;

use super::ring::{Ring, into, out};
use super::{Device, feature};
use crate::cpu::{read, write};
use crate::memory::{allocate, copy_in};
use crate::report::Outcome;
use crate::{ensure, same};

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const HOST_TSO4: u64 = 1 << 11;
const MERGEABLE: u64 = 1 << 15;
const BASE: u64 = CSUM | GUEST_CSUM | MERGEABLE | feature::EVENT_IDX | feature::VERSION_1;

/// `struct virtio_net_hdr_v1`.
pub const HEADER_LEN: u64 = 12;
const NUM_BUFFERS_AT: u64 = 10;
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;

const RING: u16 = 256;
/// What Linux posts for a stream of large packets, nearly.
const BUFFER: u64 = 4096;
/// Descriptors of a sent packet: its headers, and what follows them.
const CHAIN: u16 = 2;
const SLOTS: u16 = RING / CHAIN;
/// Room for the headers of a sent packet.
const SLOT: u64 = 128;

/// Where the checksum of what is sent begins, and where in it it belongs.
#[derive(Clone, Copy)]
pub struct Checksum {
    pub start: u16,
    pub offset: u16,
}

/// How the host shall cut a packet up.
#[derive(Clone, Copy)]
pub struct Segments {
    pub headers: u16,
    /// Bytes of payload of each.
    pub size: u16,
}

pub struct Nic {
    /// Packets of up to 64 KiB are the host's to cut up or to put together.
    pub segments: bool,
    receive: Ring,
    send: Ring,
    buffers: u64,
    headers: u64,
    free: [u16; SLOTS as usize],
    free_count: usize,
    /// The available indices that the device was told of.
    posted: u16,
    sent: u16,
    /// Buffers of the packet in hand.
    held: [u16; RING as usize],
    held_count: usize,
}

/// A packet in its first buffer.
pub struct Packet {
    /// Of the Ethernet header.
    pub address: u64,
    /// Bytes of the frame, in this and further buffers.
    pub len: u64,
}

impl Nic {
    /// `sleeps`: interrupts shall tell of packets that come in; nobody waits for those that go out.
    pub fn start(device: &Device, segments: bool, sleeps: bool) -> Outcome<Self> {
        let wanted = BASE | if segments { GUEST_TSO4 | HOST_TSO4 } else { 0 };
        let [mut receive, mut send] = device.start(wanted, RING)?;
        send.poll();
        if !sleeps {
            receive.poll();
        }
        same!((receive.size, send.size), (RING, RING), "sizes of the rings");
        let features = device.offered();
        ensure!(
            features & wanted == wanted,
            "of {wanted:#x} only {features:#x} is offered"
        );
        let nic = Self {
            segments,
            receive,
            send,
            buffers: allocate(BUFFER * u64::from(RING)),
            headers: allocate(SLOT * u64::from(SLOTS)),
            free: from_fn(|slot| slot as u16),
            free_count: SLOTS.into(),
            posted: 0,
            sent: 0,
            held: [0; RING as usize],
            held_count: 0,
        };
        for buffer in 0..RING {
            nic.post(buffer);
        }
        nic.receive.kick();
        Ok(Self { posted: RING, ..nic })
    }

    fn post(&self, buffer: u16) {
        self.receive
            .chain(buffer, &[into(self.buffer(buffer), BUFFER as u32)]);
        self.receive.offer(buffer);
    }

    fn buffer(&self, buffer: u16) -> u64 {
        self.buffers + BUFFER * u64::from(buffer)
    }

    pub fn has_received(&self) -> bool {
        self.receive.is_used()
    }

    /// The next packet, which stays where it is until [`Self::release`].
    pub fn receive(&mut self) -> Option<Packet> {
        let (first, len) = self.receive.take()?;
        let first = first as u16;
        self.held[0] = first;
        self.held_count = 1;
        let mut len = u64::from(len);
        let buffers: u16 = read(self.buffer(first) + NUM_BUFFERS_AT);
        // They are used all at once (5.1.6.4.1).
        for _ in 1..buffers {
            let (buffer, part) = self.receive.take()?;
            self.held[self.held_count] = buffer as u16;
            self.held_count += 1;
            len += u64::from(part);
        }
        Some(Packet {
            address: self.buffer(first) + HEADER_LEN,
            len: len.saturating_sub(HEADER_LEN),
        })
    }

    /// Gives the buffers of the last packet back.
    pub fn release(&mut self) {
        for &buffer in &self.held[..self.held_count] {
            self.receive.offer(buffer);
        }
        self.held_count = 0;
    }

    /// There is room for another packet.
    pub fn can_send(&mut self) -> bool {
        self.take_back();
        self.free_count > 0
    }

    /// The device has nothing to send any more.
    pub fn has_sent_all(&mut self) -> bool {
        self.take_back();
        self.free_count == SLOTS.into()
    }

    fn take_back(&mut self) {
        while let Some((head, _)) = self.send.take() {
            self.free[self.free_count] = head as u16 / CHAIN;
            self.free_count += 1;
        }
    }

    /// Sends `headers` and behind them `len` bytes from `data`, once [`Self::can_send`]; [`Self::kick`] tells the device.
    pub fn send(
        &mut self,
        headers: &[u8],
        data: u64,
        len: u64,
        checksum: Checksum,
        segments: Option<Segments>,
    ) {
        self.free_count -= 1;
        let slot = self.free[self.free_count];
        let at = self.headers + SLOT * u64::from(slot);
        write(at, NEEDS_CSUM);
        write(at + 1, if segments.is_some() { GSO_TCPV4 } else { 0 });
        write(at + 2, segments.map_or(0, |segments| segments.headers));
        write(at + 4, segments.map_or(0, |segments| segments.size));
        write(at + 6, checksum.start);
        write(at + 8, checksum.offset);
        write(at + 10, 0u16);
        copy_in(at + HEADER_LEN, headers);
        let headers = out(at, HEADER_LEN as u32 + headers.len() as u32);
        let head = CHAIN * slot;
        if len > 0 {
            self.send.chain(head, &[headers, out(data, len as u32)]);
        } else {
            self.send.chain(head, &[headers]);
        }
        self.send.offer(head);
    }

    /// Tells the device, if it wants to know, of buffers and packets since the last time.
    pub fn kick(&mut self) {
        for (ring, told) in [(&self.receive, &mut self.posted), (&self.send, &mut self.sent)] {
            let now = ring.available_index();
            if now != *told {
                ring.kick_if_wanted(*told);
                *told = now;
            }
        }
    }
}
