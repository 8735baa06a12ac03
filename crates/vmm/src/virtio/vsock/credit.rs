//! How much each side of a connection may send before the other has made room. Virtio 1.2, section 5.10.6.3.
//!
//! All counters run freely and wrap around.

use super::packet::Header;

/// Bytes that we hold for a host program that does not read.
pub(super) const BUFFER: u32 = 128 * 1024;

#[derive(Debug, Default)]
pub(super) struct Credit {
    /// What the guest says: its buffer, and how much of what we sent has left it.
    guest_buffer: u32,
    guest_forwarded: u32,
    sent: u32,
    received: u32,
    forwarded: u32,
    /// `forwarded` as the guest knows it.
    told: u32,
}

impl Credit {
    /// Takes over what the guest says in each packet.
    pub(super) fn hear(&mut self, header: &Header) {
        self.guest_buffer = header.buf_alloc.get();
        self.guest_forwarded = header.fwd_cnt.get();
    }

    /// Says in each packet how it stands with us.
    pub(super) fn tell(&mut self, header: &mut Header) {
        header.buf_alloc = BUFFER.into();
        header.fwd_cnt = self.forwarded.into();
        self.told = self.forwarded;
    }

    /// Bytes that may be sent to the guest now.
    pub(super) fn may_send(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_buffer.saturating_sub(in_flight)
    }

    pub(super) fn sent(&mut self, len: u32) {
        self.sent = self.sent.wrapping_add(len);
    }

    /// Whether the guest may send `len` bytes now; if so they count as received.
    pub(super) fn receive(&mut self, len: u32) -> bool {
        let held = self.received.wrapping_sub(self.forwarded);
        let may = held.checked_add(len).is_some_and(|sum| sum <= BUFFER);
        if may {
            self.received = self.received.wrapping_add(len);
        }
        may
    }

    /// `len` bytes have gone to the host program.
    pub(super) fn forwarded(&mut self, len: u32) {
        self.forwarded = self.forwarded.wrapping_add(len);
    }

    /// Whether the guest might wait for news of room: it knows of less than half.
    pub(super) fn is_stale(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= BUFFER / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(buf_alloc: u32, fwd_cnt: u32) -> Header {
        Header {
            buf_alloc: buf_alloc.into(),
            fwd_cnt: fwd_cnt.into(),
            ..Header::default()
        }
    }

    #[test]
    fn credit_is_spent_and_comes_back() {
        let mut credit = Credit::default();
        assert_eq!(credit.may_send(), 0);
        credit.hear(&said(1000, 0));
        credit.sent(600);
        assert_eq!(credit.may_send(), 400);
        credit.hear(&said(1000, 600));
        assert_eq!(credit.may_send(), 1000);
        // A buffer that shrank, and a guest that forwarded what it never got.
        credit.hear(&said(10, 500));
        assert_eq!(credit.may_send(), 0);
        credit.hear(&said(1000, 601));
        assert_eq!(credit.may_send(), 0);
        assert!(credit.receive(BUFFER) && !credit.receive(1) && !credit.receive(u32::MAX));
        credit.forwarded(BUFFER / 2 - 1);
        assert!(!credit.is_stale());
        credit.forwarded(1);
        assert!(credit.is_stale() && credit.receive(BUFFER / 2));
        credit.tell(&mut said(0, 0));
        assert!(!credit.is_stale());
    }

    proptest! {
        #[test]
        fn the_guest_never_has_more_than_a_buffer_in_flight(steps in prop::collection::vec(any::<(u32, bool)>(), 0..200)) {
            let mut credit = Credit::default();
            let mut held = 0_u64;
            for (len, forward) in steps {
                if forward {
                    let part = u64::from(len).min(held) as u32;
                    credit.forwarded(part);
                    held -= u64::from(part);
                } else if credit.receive(len % BUFFER) {
                    held += u64::from(len % BUFFER);
                }
                prop_assert!(held <= u64::from(BUFFER));
            }
        }
    }
}
