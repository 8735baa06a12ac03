//! What guest and host leave undone for each other: checksums and segmentation. Virtio 1.2, sections 5.1.3,
//! 5.1.6.2 (sending) and 5.1.6.4 (receiving).
//!
//! Each side says what it can take. The TAP's kernel is told what the guest can take (`TUNSETOFFLOAD`); of the
//! guest's packets the header is checked against what was agreed upon, for behind it waits the kernel.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO,
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP, VIRTIO_NET_HDR_GSO_UDP_L4,
};
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::virtio::feature;

/// `struct virtio_net_hdr_v1`, before each packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) flags: u8,
    pub(super) gso_type: u8,
    pub(super) hdr_len: U16,
    pub(super) gso_size: U16,
    pub(super) csum_start: U16,
    pub(super) csum_offset: U16,
    pub(super) num_buffers: U16,
}

pub(super) const HEADER_LEN: usize = size_of::<Header>();

/// Ethernet header and one VLAN tag.
const FRAME_OVERHEAD: u64 = 14 + 4;
/// The longest IP packet, before it is segmented.
const MAX_PACKET: u64 = 0xffff;
/// Bytes that the longest packet takes in receive buffers, header included.
pub(super) const MAX_RECEIVED: u64 = HEADER_LEN as u64 + FRAME_OVERHEAD + MAX_PACKET + 1;

/// `TUN_F_*` of `TUNSETOFFLOAD`, and the feature by which a guest says that it can take them.
const RECEIVED: [(u32, u32); 6] = [
    (VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
    (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
    (VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    (VIRTIO_NET_F_GUEST_USO4, libc::TUN_F_USO4),
    (VIRTIO_NET_F_GUEST_USO6, libc::TUN_F_USO6),
];

/// What the guest may leave to the host, and the `TUN_F_*` by which its kernel says that it knows the matter.
const SENT: [(u32, u32); 6] = [
    (VIRTIO_NET_F_CSUM, libc::TUN_F_CSUM),
    (VIRTIO_NET_F_HOST_TSO4, libc::TUN_F_TSO4),
    (VIRTIO_NET_F_HOST_TSO6, libc::TUN_F_TSO6),
    (VIRTIO_NET_F_HOST_ECN, libc::TUN_F_TSO_ECN),
    (VIRTIO_NET_F_HOST_UFO, libc::TUN_F_UFO),
    (VIRTIO_NET_F_HOST_USO, libc::TUN_F_USO4),
];

/// The features to offer on a TAP whose kernel knows the offloads `known`, a mask of `TUN_F_*`.
pub(super) fn features(known: u32) -> u64 {
    let offered = |(bit, tun)| if known & tun != 0 { feature(bit) } else { 0 };
    RECEIVED
        .into_iter()
        .chain(SENT)
        .map(offered)
        .fold(0, |all, one| all | one)
}

/// What a TAP may leave to a guest that accepted `features`, as a mask of `TUN_F_*`.
pub(super) fn received(features: u64) -> u32 {
    let accepted = |bit| features & feature(bit) != 0;
    // The kernel refuses the others without it, and the pair in halves.
    if !accepted(VIRTIO_NET_F_GUEST_CSUM) {
        return 0;
    }
    let uso = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let mask = RECEIVED
        .into_iter()
        .filter(|&(bit, _)| accepted(bit))
        .fold(0, |mask, (_, tun)| mask | tun);
    if mask & uso == uso { mask } else { mask & !uso }
}

/// Bytes of receive buffers, headers included, that the packets need which a guest that accepted `features` gets. The
/// interface may have been set to a larger MTU than the guest was told.
pub(super) fn largest_received(features: u64, mtu: u16) -> u64 {
    match received(features) & !libc::TUN_F_CSUM {
        0 => HEADER_LEN as u64 + FRAME_OVERHEAD + u64::from(mtu),
        _ => MAX_RECEIVED,
    }
}

/// Why a packet of the guest is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is longer than the interface's MTU, or than any packet.
    Oversize,
    /// Its header asks for what was not agreed upon, or contradicts the packet.
    Header,
}

/// What may stand in the header of the guest's packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending {
    features: u64,
    mtu: u16,
}

impl Sending {
    pub(super) fn new(features: u64, mtu: u16) -> Self {
        Self { features, mtu }
    }

    /// The header to hand to the kernel with a frame of `len` bytes, behind which `header` stood.
    pub(super) fn check(&self, header: Header, len: u64) -> Result<Header, Refused> {
        let mut checked = Header::default();
        if !self.accepted(VIRTIO_NET_F_CSUM) {
            // Whatever it says: nothing was agreed upon.
            return self.whole(len).map(|()| checked);
        }
        let needs_checksum = u32::from(header.flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
        if needs_checksum {
            let end = u64::from(header.csum_start) + u64::from(header.csum_offset) + 2;
            if end > len {
                return Err(Refused::Header);
            }
            checked.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
            checked.csum_start = header.csum_start;
            checked.csum_offset = header.csum_offset;
        }
        let kind = u32::from(header.gso_type) & !VIRTIO_NET_HDR_GSO_ECN;
        if kind == VIRTIO_NET_HDR_GSO_NONE {
            return self.whole(len).map(|()| checked);
        }
        if len > MAX_PACKET + FRAME_OVERHEAD {
            return Err(Refused::Oversize);
        }
        let ecn = u32::from(header.gso_type) & VIRTIO_NET_HDR_GSO_ECN != 0;
        let agreed = self.may_segment(kind) && (!ecn || self.accepted(VIRTIO_NET_F_HOST_ECN));
        let sensible = needs_checksum && header.gso_size != 0 && u64::from(header.hdr_len) <= len;
        if !agreed || !sensible {
            return Err(Refused::Header);
        }
        checked.gso_type = header.gso_type;
        checked.gso_size = header.gso_size;
        checked.hdr_len = header.hdr_len;
        Ok(checked)
    }

    /// A frame that is not segmented must fit the wire.
    fn whole(&self, len: u64) -> Result<(), Refused> {
        if len > u64::from(self.mtu) + FRAME_OVERHEAD {
            return Err(Refused::Oversize);
        }
        Ok(())
    }

    fn may_segment(&self, kind: u32) -> bool {
        match kind {
            VIRTIO_NET_HDR_GSO_TCPV4 => self.accepted(VIRTIO_NET_F_HOST_TSO4),
            VIRTIO_NET_HDR_GSO_TCPV6 => self.accepted(VIRTIO_NET_F_HOST_TSO6),
            VIRTIO_NET_HDR_GSO_UDP => self.accepted(VIRTIO_NET_F_HOST_UFO),
            VIRTIO_NET_HDR_GSO_UDP_L4 => self.accepted(VIRTIO_NET_F_HOST_USO),
            _ => false,
        }
    }

    fn accepted(&self, bit: u32) -> bool {
        self.features & feature(bit) != 0
    }
}

/// Frames on the wire that a sent frame of `len` bytes becomes.
pub(super) fn segments(header: &Header, len: u64) -> u64 {
    match u64::from(header.gso_size) {
        0 => 1,
        size => len.saturating_sub(header.hdr_len.into()).div_ceil(size).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: u32 = 0x7f;
    const TCP: Header = Header {
        flags: 1,
        gso_type: 1,
        hdr_len: U16::new(54),
        gso_size: U16::new(1448),
        csum_start: U16::new(34),
        csum_offset: U16::new(16),
        num_buffers: U16::new(0),
    };

    #[test]
    fn a_kernel_is_asked_for_nothing_that_it_would_refuse() {
        let bits = |bits: &[u32]| bits.iter().fold(0, |mask, &bit| mask | feature(bit));
        assert_eq!(received(0), 0);
        assert_eq!(
            received(bits(&[VIRTIO_NET_F_GUEST_TSO4])),
            0,
            "it needs checksums"
        );
        assert_eq!(
            received(bits(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4])),
            3
        );
        assert_eq!(
            received(bits(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_USO4])),
            1
        );
        assert_eq!(received(features(ALL)), ALL & !libc::TUN_F_UFO);
        assert_eq!(features(0), 0);
    }

    #[test]
    fn large_packets_pass_only_as_agreed_upon() {
        let sending = Sending::new(features(ALL), 1500);
        let refused = |change: &dyn Fn(&mut Header)| {
            let mut header = TCP;
            change(&mut header);
            sending.check(header, 40_000).err()
        };
        assert_eq!(sending.check(TCP, 40_000), Ok(TCP));
        assert_eq!(segments(&TCP, 54 + 1448 * 3 + 1), 4);
        assert_eq!(sending.check(TCP, 70_000), Err(Refused::Oversize));
        assert_eq!(refused(&|h| h.gso_size = U16::ZERO), Some(Refused::Header));
        assert_eq!(refused(&|h| h.flags = 0), Some(Refused::Header));
        assert_eq!(refused(&|h| h.gso_type = 2), Some(Refused::Header));
        assert_eq!(
            refused(&|h| h.csum_start = U16::new(39_999)),
            Some(Refused::Header)
        );
        assert_eq!(
            refused(&|h| h.csum_offset = U16::new(u16::MAX)),
            Some(Refused::Header)
        );
        assert_eq!(refused(&|h| h.hdr_len = U16::new(40_001)), Some(Refused::Header));
        assert_eq!(refused(&|h| h.gso_type = 0), Some(Refused::Oversize));
        let only_checksums = Sending::new(feature(VIRTIO_NET_F_CSUM), 1500);
        assert_eq!(only_checksums.check(TCP, 1500), Err(Refused::Header));
        let nothing = Sending::new(0, 1500);
        assert_eq!(nothing.check(TCP, 1500), Ok(Header::default()));
    }

    proptest! {
        #[test]
        fn what_passes_lies_within_the_frame_and_what_was_agreed_upon(
            bytes in any::<[u8; HEADER_LEN]>(), len in 0_u64..70_000, known in 0_u32..=ALL,
        ) {
            let sending = Sending::new(features(known), 1500);
            let header = Header::read_from_bytes(&bytes).unwrap();
            if let Ok(checked) = sending.check(header, len) {
                prop_assert!(checked.flags & !1 == 0);
                let end = u64::from(checked.csum_start) + u64::from(checked.csum_offset) + 2;
                prop_assert!(checked.flags == 0 || end <= len);
                prop_assert!(checked.gso_type == 0 || checked.gso_size != 0);
                prop_assert!(checked.gso_type != 0 || len <= 1518);
                prop_assert!((1..=65_553).contains(&segments(&checked, len)));
            }
        }
    }
}
