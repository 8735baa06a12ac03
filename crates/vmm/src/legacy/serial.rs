//! COM1: a 16550 whose output goes to the console.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vm_superio::Trigger;
use vm_superio::serial::SerialState;
use vmm_sys_util::eventfd::EventFd;

use crate::console::Line;

use crate::snapshot::{Saved, StateError};

pub const BASE: u16 = 0x3f8;
pub const PORTS: u16 = 8;

/// Bytes that the receive FIFO holds.
pub const FIFO_SIZE: usize = 64;

/// The serial port's interrupt: one edge for each event.
struct Edge(EventFd);

impl Trigger for Edge {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

const PART: &str = "serial port";

/// The registers of a 16550 and what its receive FIFO holds.
#[derive(Serialize, Deserialize)]
struct State {
    baud_divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    received: Vec<u8>,
}

type Uart = vm_superio::Serial<Edge, Line, Line>;

/// The first serial port.
pub struct Serial {
    uart: Mutex<Uart>,
}

impl Serial {
    #[must_use]
    pub fn new(interrupt: EventFd, line: &Line) -> Self {
        let uart = vm_superio::Serial::with_events(Edge(interrupt), line.clone(), line.clone());
        Self {
            uart: Mutex::new(uart),
        }
    }

    /// A port that goes on from what [`Self::save`] gave.
    ///
    /// # Errors
    /// It is no state of a serial port.
    pub fn restored(saved: &Saved, interrupt: EventFd, line: &Line) -> Result<Self, StateError> {
        let state: State = saved.read(PART)?;
        let registers = SerialState {
            baud_divisor_low: state.baud_divisor[0],
            baud_divisor_high: state.baud_divisor[1],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.received,
        };
        let uart = vm_superio::Serial::from_state(&registers, Edge(interrupt), line.clone(), line.clone())
            .map_err(|error| StateError::Unfit(format!("a serial port's FIFO: {error:?}")))?;
        Ok(Self {
            uart: Mutex::new(uart),
        })
    }

    /// # Errors
    /// The state cannot be encoded.
    pub fn save(&self) -> Result<Saved, StateError> {
        let registers = self.uart().state();
        let state = State {
            baud_divisor: [registers.baud_divisor_low, registers.baud_divisor_high],
            interrupt_enable: registers.interrupt_enable,
            interrupt_identification: registers.interrupt_identification,
            line_control: registers.line_control,
            line_status: registers.line_status,
            modem_control: registers.modem_control,
            modem_status: registers.modem_status,
            scratch: registers.scratch,
            received: registers.in_buffer,
        };
        Saved::of(PART, &state)
    }

    pub fn read(&self, offset: u8) -> u8 {
        self.uart().read(offset)
    }

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

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    const DATA: u8 = 0;
    const INTERRUPT_ENABLE: u8 = 1;
    const RECEIVED_DATA: u8 = 1;

    #[test]
    fn input_from_before_the_interrupt_was_enabled_interrupts() {
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let serial = Serial::new(interrupt.try_clone().unwrap(), &Line::new().unwrap());
        serial.type_in(b"early");
        assert!(interrupt.read().is_err());
        serial.write(INTERRUPT_ENABLE, RECEIVED_DATA);
        assert_eq!(interrupt.read().unwrap(), 1);
        let input: Vec<u8> = (0..5).map(|_| serial.read(DATA)).collect();
        assert_eq!(input, b"early");
    }
}
