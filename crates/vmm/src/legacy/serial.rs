//! COM1: a 16550 whose output goes to the console.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_superio::Trigger;
use vm_superio::serial::SerialEvents;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub const BASE: u16 = 0x3f8;
pub const PORTS: u16 = 8;

/// The serial port's interrupt: one edge for each event.
struct Edge(EventFd);

impl Trigger for Edge {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Tells whoever types that the receive FIFO has room again.
struct Drained(EventFd);

impl SerialEvents for Drained {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // A full counter has told it already.
        let _ = self.0.write(1);
    }
}

type Uart = vm_superio::Serial<Edge, Drained, Box<dyn Write + Send>>;

/// The first serial port.
pub struct Serial {
    uart: Mutex<Uart>,
    /// Readable once the guest has read all of its input; non-blocking.
    pub drained: EventFd,
}

impl Serial {
    /// # Errors
    /// The process is out of descriptors.
    pub fn new(interrupt: EventFd, output: Box<dyn Write + Send>) -> io::Result<Self> {
        let drained = EventFd::new(EFD_NONBLOCK)?;
        let events = Drained(drained.try_clone()?);
        let uart = vm_superio::Serial::with_events(Edge(interrupt), events, output);
        Ok(Self {
            uart: Mutex::new(uart),
            drained,
        })
    }

    pub fn read(&self, offset: u8) -> u8 {
        self.uart().read(offset)
    }

    /// A byte that the console could not take is lost, as on a loose cable.
    pub fn write(&self, offset: u8, value: u8) {
        if let Err(error) = self.uart().write(offset, value) {
            tracing::debug!(?error, "serial port");
        }
    }

    /// How many bytes [`Self::type_in`] takes now.
    pub fn room(&self) -> usize {
        self.uart().fifo_capacity()
    }

    /// Types `input` into the guest; what its FIFO has no room for is lost, as on a real line.
    pub fn type_in(&self, input: &[u8]) {
        if let Err(error) = self.uart().enqueue_raw_bytes(input) {
            tracing::debug!(?error, "serial input");
        }
    }

    fn uart(&self) -> MutexGuard<'_, Uart> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
