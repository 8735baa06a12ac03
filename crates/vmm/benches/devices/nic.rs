//! A NIC on a socket that keeps packets apart, in the place of a TAP.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use criterion::Criterion;
use hearth_vmm::virtio::net::{Net, NetConfig};
use hearth_vmm::virtio::testing::{Driver, EVENT_IDX, HIGH_START, Ring, VERSION_1};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use crate::load::{Load, Traffic, measure};

const RX: usize = 0;
const TX: usize = 1;
/// `struct virtio_net_hdr_v1`.
const HEADER: usize = 12;
const BUFFER: u64 = 2048;

/// Frames behind headers that ask for nothing.
struct Frames {
    wire: File,
    /// One, as it is on the wire.
    packet: Vec<u8>,
    queue: usize,
}

impl Traffic for Frames {
    const CHAIN: u16 = 1;

    fn write(&self, ring: &Ring, slot: u16, _: &Driver) {
        let (len, writable) = match self.queue {
            RX => (BUFFER as u32, true),
            _ => (self.packet.len() as u32, false),
        };
        ring.chain(slot, &[(HIGH_START + BUFFER * u64::from(slot), len, writable)]);
    }

    /// The wire brings a packet for each that is to be received.
    fn begin(&mut self, _: u16, _: &Driver) {
        if self.queue == RX {
            self.wire.write_all(&self.packet).unwrap();
        }
    }

    /// And takes each that was sent.
    fn end(&mut self, _: u16, _: &Driver) {
        if self.queue == TX {
            let len = self.wire.read(&mut self.packet).unwrap();
            assert_eq!(len, self.packet.len());
        }
    }
}

pub fn nics(c: &mut Criterion) {
    for (queue, verb, spare) in [(TX, "sent", 0), (RX, "received", 128)] {
        for frame in [60, 1514] {
            for depth in [1, 32] {
                let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
                let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
                let (tap, wire): (OwnedFd, OwnedFd) = pair.unwrap();
                let config = NetConfig {
                    mac: [2, 0, 0, 0, 0, 1],
                    mtu: 1500,
                };
                let load = Load {
                    name: &format!("NIC: packets of {frame} bytes {verb}, depth {depth}"),
                    features: VERSION_1 | EVENT_IDX | 1 << VIRTIO_NET_F_MRG_RXBUF,
                    queue,
                    depth,
                    spare,
                    bytes: frame as u64,
                };
                let mut frames = Frames {
                    wire: wire.into(),
                    packet: vec![0; HEADER + frame],
                    queue,
                };
                measure(c, &load, Net::on_socket(tap.into(), config), &mut frames);
            }
        }
    }
}
