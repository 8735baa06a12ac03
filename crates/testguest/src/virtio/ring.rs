//! A split virtqueue as its driver sees it. Virtio 1.2, section 2.7.

use core::sync::atomic::{Ordering, fence};

use super::{Device, PATIENCE, feature, register};
use crate::cpu::{self, read, write};
use crate::memory;
use crate::report::Outcome;
use crate::{ensure, same};

/// Flags of a descriptor.
pub mod descriptor_flag {
    pub const NEXT: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const INDIRECT: u16 = 4;
}
use descriptor_flag::*;

const DESCRIPTOR_LEN: u64 = 16;

/// A part of a request.
#[derive(Clone, Copy)]
pub struct Buffer {
    pub address: u64,
    pub len: u32,
    pub writable: bool,
}

/// What the device reads.
pub fn out(address: u64, len: u32) -> Buffer {
    Buffer {
        address,
        len,
        writable: false,
    }
}

/// What the device fills.
pub fn into(address: u64, len: u32) -> Buffer {
    Buffer {
        address,
        len,
        writable: true,
    }
}

pub struct Ring {
    pub queue: u16,
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    event_idx: bool,
    doorbell: u64,
    /// The next used element to look at.
    next_used: u16,
    polls: bool,
}

impl Ring {
    pub fn new(device: &Device, queue: u16, size: u16, features: u64) -> Self {
        let entries = u64::from(size);
        Self {
            queue,
            size,
            descriptors: memory::allocate(DESCRIPTOR_LEN * entries),
            available: memory::allocate(6 + 2 * entries),
            used: memory::allocate(6 + 8 * entries),
            event_idx: features & feature::EVENT_IDX != 0,
            doorbell: device.doorbell(queue),
            next_used: 0,
            polls: false,
        }
    }

    /// Writes the queue's registers, and enables it.
    pub fn enable(&self, device: &Device) {
        device.set(register::QUEUE_SELECT, self.queue);
        device.set(register::QUEUE_SIZE, self.size);
        device.set(register::QUEUE_VECTOR, device.vector_of(self.queue));
        for (at, address) in [
            (register::QUEUE_DESCRIPTORS, self.descriptors),
            (register::QUEUE_AVAILABLE, self.available),
            (register::QUEUE_USED, self.used),
        ] {
            device.set(at, address as u32);
            device.set(at + 4, (address >> 32) as u32);
        }
        device.set(register::QUEUE_ENABLE, 1u16);
    }

    pub fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        table_entry(self.descriptors, index, address, len, flags, next);
    }

    /// Writes a well-linked chain from descriptor `first` on.
    pub fn chain(&self, first: u16, buffers: &[Buffer]) {
        table(self.descriptors, first, buffers);
    }

    /// Makes descriptor `at` an indirect chain whose table is at `address`.
    pub fn indirect(&self, at: u16, address: u64, buffers: &[Buffer]) {
        table(address, 0, buffers);
        self.descriptor(
            at,
            address,
            DESCRIPTOR_LEN as u32 * buffers.len() as u32,
            INDIRECT,
            0,
        );
    }

    /// Makes the chain at `head` available.
    pub fn offer(&self, head: u16) {
        let index = self.available_index();
        write(self.available + 4 + 2 * u64::from(index % self.size), head);
        fence(Ordering::SeqCst);
        self.set_available_index(index.wrapping_add(1));
    }

    pub fn available_index(&self) -> u16 {
        read(self.available + 2)
    }

    pub fn set_available_index(&self, index: u16) {
        write(self.available + 2, index);
    }

    pub fn used_index(&self) -> u16 {
        read(self.used + 2)
    }

    /// The flag that asks the device not to interrupt.
    pub fn silence(&self, silent: bool) {
        write(self.available, u16::from(silent));
    }

    /// Asks for an interrupt once the used index has passed `index`.
    pub fn set_used_event(&self, index: u16) {
        write(self.available + 4 + 2 * u64::from(self.size), index);
    }

    /// For a driver that polls: until [`Self::take`] asks for the next one again.
    pub fn want_no_interrupt(&self) {
        if self.event_idx {
            // Passed only after another 65,535 completions.
            self.set_used_event(self.next_used.wrapping_sub(1));
        } else {
            self.silence(true);
        }
    }

    /// No interrupts from now on.
    pub fn poll(&mut self) {
        self.polls = true;
        self.want_no_interrupt();
    }

    /// Rings the doorbell, whether or not the device wants it.
    pub fn kick(&self) {
        fence(Ordering::SeqCst);
        write(self.doorbell, self.queue);
    }

    /// Rings the doorbell unless the device said that it will look anyway; `before` is the available index before
    /// the latest offers.
    pub fn kick_if_wanted(&self, before: u16) {
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event: u16 = read(self.used + 4 + 8 * u64::from(self.size));
            let now = self.available_index();
            now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
        } else {
            read::<u16>(self.used) & 1 == 0
        };
        if wanted {
            self.kick();
        }
    }

    pub fn is_used(&self) -> bool {
        self.used_index() != self.next_used
    }

    /// The next used element, (head, bytes written), if there is one.
    pub fn take(&mut self) -> Option<(u32, u32)> {
        if !self.is_used() {
            return None;
        }
        fence(Ordering::SeqCst);
        let at = self.used + 4 + 8 * u64::from(self.next_used % self.size);
        self.next_used = self.next_used.wrapping_add(1);
        if self.event_idx {
            self.set_used_event(self.next_used.wrapping_sub(u16::from(self.polls)));
        }
        Some((read(at), read(at + 4)))
    }

    /// Waits for the next used element.
    pub fn wait(&mut self, what: &str) -> Outcome<(u32, u32)> {
        let came = cpu::wait_for(PATIENCE, || self.is_used());
        ensure!(came, "{what}: the device does not answer");
        match self.take() {
            Some(element) => Ok(element),
            None => unreachable!(),
        }
    }

    /// Offers a request at descriptor 0, alone, and waits until it is done. Returns the bytes written.
    pub fn request(&mut self, what: &str, buffers: &[Buffer]) -> Outcome<u32> {
        self.chain(0, buffers);
        self.offer(0);
        self.kick();
        let (head, written) = self.wait(what)?;
        same!(head, 0, "{what}: used head");
        Ok(written)
    }
}

/// Writes a chain into a table of descriptors, direct or indirect.
fn table(table: u64, first: u16, buffers: &[Buffer]) {
    for (nth, buffer) in (1..).zip(buffers) {
        let index = first + nth - 1;
        let last = usize::from(nth) == buffers.len();
        let flags = if buffer.writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
        table_entry(table, index, buffer.address, buffer.len, flags, index + 1);
    }
}

pub fn table_entry(table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
    let at = table + DESCRIPTOR_LEN * u64::from(index);
    write(at, address);
    write(at + 8, len);
    write(at + 12, flags);
    write(at + 14, next);
}
