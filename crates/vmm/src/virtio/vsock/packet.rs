//! What goes over the virtqueues: a header, and for `RW` the bytes behind it. Virtio 1.2, section 5.10.6.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct virtio_vsock_hdr`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) src_cid: U64,
    pub(super) dst_cid: U64,
    pub(super) src_port: U32,
    pub(super) dst_port: U32,
    /// Bytes behind the header.
    pub(super) len: U32,
    pub(super) kind: U16,
    pub(super) op: U16,
    pub(super) flags: U32,
    pub(super) buf_alloc: U32,
    pub(super) fwd_cnt: U32,
}

pub(super) const HEADER_LEN: usize = size_of::<Header>();

/// The context id of the host.
pub(super) const HOST_CID: u64 = 2;

/// `VIRTIO_VSOCK_TYPE_STREAM`, the one type that we offer.
pub(super) const STREAM: u16 = 1;

/// `VIRTIO_VSOCK_OP_*`.
pub(super) mod op {
    pub(in super::super) const REQUEST: u16 = 1;
    pub(in super::super) const RESPONSE: u16 = 2;
    pub(in super::super) const RST: u16 = 3;
    pub(in super::super) const SHUTDOWN: u16 = 4;
    pub(in super::super) const RW: u16 = 5;
    pub(in super::super) const CREDIT_UPDATE: u16 = 6;
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// `VIRTIO_VSOCK_SHUTDOWN_F_*`, of who sends them.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
pub(super) const SHUTDOWN_SEND: u32 = 2;

/// A connection's two ends: the device connects one guest with one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) guest: u32,
    pub(super) host: u32,
}

impl Header {
    /// The ends of a packet that came from the guest.
    pub(super) fn ports(&self) -> Ports {
        Ports {
            guest: self.src_port.get(),
            host: self.dst_port.get(),
        }
    }

    /// A packet without data to the guest.
    pub(super) fn to_guest(guest_cid: u64, ports: Ports, op: u16) -> Self {
        Self {
            src_cid: HOST_CID.into(),
            dst_cid: guest_cid.into(),
            src_port: ports.host.into(),
            dst_port: ports.guest.into(),
            kind: STREAM.into(),
            op: op.into(),
            ..Self::default()
        }
    }
}
