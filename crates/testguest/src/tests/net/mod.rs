//! The network device. Virtio 1.2, section 5.1.
//!
//! The other end of the wire is a Linux with the address 10.0.0.1/24. It answers ARP and ICMP echo requests of
//! 10.0.0.2, which is us.

pub mod frames;
pub mod malformed;
pub mod mergeable;
pub mod offloads;
pub mod packets;
pub mod pairs;

use core::cell::Cell;

use crate::cpu::{self, read};
use crate::memory::{allocate, copy_in};
use crate::report::Outcome;
use crate::virtio::ring::{Buffer, Ring, into, out};
use crate::virtio::{Device, PATIENCE, feature};
use crate::{ensure, same};

const RX: u16 = 0;
/// `struct virtio_net_hdr_v1`.
const HEADER_LEN: u32 = 12;
/// In configuration space.
const STATUS: u64 = 6;
const LINK_UP: u16 = 1;
const BUFFER_LEN: u32 = 2048;
const RX_BUFFERS: u16 = 64;

/// Features without which packets are plain: address, MTU, link status.
const PLAIN: u64 = 1 << 5 | 1 << 3 | 1 << 16 | feature::VERSION_1 | feature::INDIRECT;

/// Both queues, with buffers offered for reception.
struct Link {
    mac: [u8; 6],
    rx: Ring,
    tx: Ring,
    rx_buffers: u64,
    tx_buffer: u64,
}

impl Link {
    fn start(device: &Device) -> Outcome<Self> {
        Self::start_with(device, PLAIN)
    }

    fn start_with(device: &Device, features: u64) -> Outcome<Self> {
        let [rx, tx] = device.start(features, RX_BUFFERS)?;
        let link = Self::on(device, rx, tx);
        link.listen();
        Ok(link)
    }

    /// Offers buffers to receive into.
    fn listen(&self) {
        for nth in 0..RX_BUFFERS {
            self.rx.chain(nth, &[into(self.rx_buffer(nth), BUFFER_LEN)]);
            self.rx.offer(nth);
        }
        self.rx.kick();
    }

    /// Without buffers to receive into.
    fn start_deaf(device: &Device) -> Outcome<Self> {
        let [rx, tx] = device.start(PLAIN, RX_BUFFERS)?;
        Ok(Self::on(device, rx, tx))
    }

    fn on(device: &Device, rx: Ring, tx: Ring) -> Self {
        Self {
            mac: mac(device),
            rx,
            tx,
            rx_buffers: allocate(u64::from(BUFFER_LEN) * u64::from(RX_BUFFERS)),
            tx_buffer: allocate(0x2_0000),
        }
    }

    fn rx_buffer(&self, nth: u16) -> u64 {
        self.rx_buffers + u64::from(BUFFER_LEN) * u64::from(nth)
    }

    /// Sends a frame in one buffer with its header.
    fn send(&mut self, frame: &[u8]) -> Outcome {
        copy_in(self.tx_buffer + u64::from(HEADER_LEN), frame);
        let whole = out(self.tx_buffer, HEADER_LEN + frame.len() as u32);
        same!(
            self.tx.request("sending", &[whole])?,
            0,
            "bytes written by sending"
        );
        Ok(())
    }

    /// Waits for a frame that `is_it`, and gives all buffers back. Hosts also say what nobody asked for.
    fn receive(&mut self, is_it: impl Fn(&[u8]) -> bool) -> Outcome<usize> {
        loop {
            let came = cpu::wait_for(PATIENCE, || self.rx.is_used());
            ensure!(came, "the expected packet does not come");
            if let Some(len) = self.take(&is_it)? {
                return Ok(len);
            }
        }
    }

    /// The length of the next frame, if it came and is the one.
    fn take(&mut self, is_it: &impl Fn(&[u8]) -> bool) -> Outcome<Option<usize>> {
        let Some((head, len)) = self.rx.take() else {
            return Ok(None);
        };
        ensure!(
            (HEADER_LEN..=BUFFER_LEN).contains(&len),
            "{len} bytes were received"
        );
        let at = self.rx_buffer(head as u16);
        same!(read::<u16>(at + 10), 1, "num_buffers");
        let mut frame = [0; BUFFER_LEN as usize];
        let frame = &mut frame[..(len - HEADER_LEN) as usize];
        crate::memory::copy_out(at + u64::from(HEADER_LEN), frame);
        self.rx.offer(head as u16);
        self.rx.kick();
        Ok(is_it(frame).then_some(frame.len()))
    }

    /// Asks who has the host's address, and waits for the answer.
    fn exchange_arp(&mut self) -> Outcome {
        self.host_address().map(drop)
    }

    /// The host's MAC address, which it is asked for.
    fn host_address(&mut self) -> Outcome<[u8; 6]> {
        let request = frames::arp_request(&self.mac);
        self.send(&request)?;
        let (mac, host) = (self.mac, Cell::new([0; 6]));
        self.receive(|frame| {
            let is_it = frames::is_arp_reply(frame, &mac);
            if is_it {
                host.set(core::array::from_fn(|nth| frame[6 + nth]));
            }
            is_it
        })?;
        Ok(host.get())
    }
}

pub fn mac(device: &Device) -> [u8; 6] {
    core::array::from_fn(|nth| device.config(nth as u64))
}

pub fn link_is_up(device: &Device) -> bool {
    device.config::<u16>(STATUS) & LINK_UP != 0
}

pub fn works(device: &Device) -> Outcome {
    Link::start(device)?.exchange_arp()
}

/// The frame that the request's buffers hold, cut into pieces of odd lengths.
fn in_pieces<const N: usize>(start: u64, len: u32, make: fn(u64, u32) -> Buffer) -> [Buffer; N] {
    let mut at = 0;
    core::array::from_fn(|nth| {
        let left = len - at;
        let piece = if nth == N - 1 {
            left
        } else {
            left.min(2 * nth as u32 + 1)
        };
        at += piece;
        make(start + u64::from(at - piece), piece)
    })
}
