//! virtio 1.2 devices: what a device is, and how the transport and its workers deal with it.
//!
//! Three parties share a device. The **transport** ([`pci`]) owns the registers that vCPUs touch. The
//! **device** ([`block`], [`net`], [`rng`], [`balloon`], [`vsock`]) knows its features and configuration space. Its
//! **workers** ([`worker`], one thread per virtqueue) own the queues and the data path, from activation until they
//! are stopped; nobody else touches a queue in between, so the data path has no lock.
//!
//! What the guest wrote is hostile: [`chain`] checks every descriptor chain once, and a broken one ends in
//! `DEVICE_NEEDS_RESET`.

pub mod balloon;
pub mod block;
pub mod chain;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
pub mod interrupt;
pub mod net;
pub mod pci;
pub mod queue;
pub mod rng;
mod vectors;
pub mod vsock;
pub mod worker;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::io;

use interrupt::ConfigInterrupt;
pub use queue::QueueMemory;
use queue::Virtqueue;

pub use crate::memory::GuestMemory;
use crate::snapshot::{Saved, StateError};

/// Device types of virtio 1.2, section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum DeviceType {
    Net = 1,
    Block = 2,
    Entropy = 4,
    Balloon = 5,
    Vsock = 19,
}

/// A virtio device without its transport.
///
/// Its life: made, then any number of times activated and stopped. Between [`stop`](Self::stop) and the next
/// [`activate`](Self::activate) no worker runs and the backend (disk, TAP) rests with the device. A reset
/// forgets the queues that `stop` returns; a pause may keep them and activate with them again.
pub trait VirtioDevice: Send {
    fn device_type(&self) -> DeviceType;

    /// The device's own feature bits that it offers, as a mask; the transport adds those of ring and transport.
    fn features(&self) -> u64;

    /// The largest size of each virtqueue, a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// Reads configuration space; bytes beyond its end read as zeroes.
    fn config_read(&self, offset: u64, data: &mut [u8]);

    /// Writes configuration space. Most devices have nothing in it that a driver may write.
    fn config_write(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Forgets what belongs to a driver that has reset the device; called while it is stopped.
    fn reset(&mut self) {}

    /// Starts the workers.
    ///
    /// # Errors
    /// A thread or descriptor could not be made; no worker runs then.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;

    /// Stops the workers, waits until their last request has ended and is in the used ring, and returns their
    /// queues as they left them. Without workers it returns none; a queue that nobody served may be missing.
    fn stop(&mut self) -> Vec<Virtqueue>;

    /// What a snapshot keeps of the device beside its registers and queues; called while it is stopped. Most
    /// devices have nothing: their configuration space is what they are made with.
    ///
    /// # Errors
    /// The state cannot be encoded ([`Saved::of`]).
    fn save(&self) -> Result<Saved, StateError> {
        Ok(Saved::default())
    }

    /// Takes over what [`Self::save`] gave, perhaps in another process, for another disk or TAP; called before
    /// the first activation. The bytes may be a stranger's.
    ///
    /// # Errors
    /// It is not the state of such a device.
    fn restore(&mut self, state: &Saved) -> Result<(), StateError> {
        let _ = state;
        Ok(())
    }
}

/// What a driver and the transport have agreed upon when the driver sets `DRIVER_OK`.
pub struct Activation {
    pub memory: GuestMemory,
    /// The feature bits that the driver accepted.
    pub features: u64,
    /// The queues that the driver enabled, by number; each has its doorbell and interrupt.
    pub queues: Vec<Option<Virtqueue>>,
    pub config_interrupt: ConfigInterrupt,
}

impl Activation {
    /// Whether feature bit `bit` was agreed upon.
    #[must_use]
    pub fn has(&self, bit: u32) -> bool {
        self.features & feature(bit) != 0
    }

    /// Takes queue `index`, if the driver enabled it.
    pub fn take_queue(&mut self, index: usize) -> Option<Virtqueue> {
        self.queues.get_mut(index)?.take()
    }
}

/// The mask of a feature bit number.
#[must_use]
pub const fn feature(bit: u32) -> u64 {
    1 << bit
}

/// Reads from a configuration space that is `bytes`, with zeroes behind them.
fn read_config(bytes: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
    for (i, byte) in data.iter_mut().enumerate() {
        *byte = rest.and_then(|rest| rest.get(i)).copied().unwrap_or(0);
    }
}
