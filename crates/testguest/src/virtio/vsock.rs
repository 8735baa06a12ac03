//! Vsock packets as the device reads and writes them. Virtio 1.2, section 5.10.6.

use crate::cpu::{read, write};

pub const HEADER_LEN: u32 = 44;
pub const HOST_CID: u64 = 2;
pub const STREAM: u16 = 1;

/// Operations.
pub mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Header {
    pub fn put(&self, at: u64) {
        write(at, self.src_cid);
        write(at + 8, self.dst_cid);
        write(at + 16, self.src_port);
        write(at + 20, self.dst_port);
        write(at + 24, self.len);
        write(at + 28, self.kind);
        write(at + 30, self.op);
        write(at + 32, self.flags);
        write(at + 36, self.buf_alloc);
        write(at + 40, self.fwd_cnt);
    }

    pub fn get(at: u64) -> Self {
        Self {
            src_cid: read(at),
            dst_cid: read(at + 8),
            src_port: read(at + 16),
            dst_port: read(at + 20),
            len: read(at + 24),
            kind: read(at + 28),
            op: read(at + 30),
            flags: read(at + 32),
            buf_alloc: read(at + 36),
            fwd_cnt: read(at + 40),
        }
    }
}
