//! The terminal's keyboard: standard input, typed into the serial port as fast as the guest reads it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::machine::Machine;
use crate::server::watch;

pub(super) struct Keyboard {
    stdin: RawFd,
    drained: RawFd,
}

impl Keyboard {
    /// `None` where standard input cannot be waited for: a plain file, or nothing.
    pub(super) fn attach(epoll: &Epoll, machine: &Machine) -> Option<Self> {
        let keyboard = Self {
            stdin: io::stdin().as_raw_fd(),
            drained: machine.serial.drained.as_raw_fd(),
        };
        // A boot after a reset finds it watched already, perhaps without events.
        watch(epoll, ControlOperation::Add, keyboard.stdin, EventSet::IN)
            .or_else(|_| watch(epoll, ControlOperation::Modify, keyboard.stdin, EventSet::IN))
            .ok()?;
        watch(epoll, ControlOperation::Add, keyboard.drained, EventSet::IN).ok()?;
        Some(keyboard)
    }

    pub(super) fn owns(&self, fd: RawFd) -> bool {
        fd == self.stdin || fd == self.drained
    }

    /// Reads no more than the guest's FIFO has room for; while that is full, only its draining is watched.
    pub(super) fn handle(&self, fd: RawFd, epoll: &Epoll, machine: &Machine) {
        if fd == self.drained {
            // Draining more than once since the last look is one event.
            let _ = machine.serial.drained.read();
        } else {
            let mut input = [0; 64];
            let room = machine.serial.room().min(input.len());
            // Not by `std::io::Stdin`, whose buffer would take more than there is room for.
            match rustix::io::read(io::stdin(), &mut input[..room]) {
                // End of input: never watched again, or it would be ready for ever.
                Ok(0) | Err(_) if room > 0 => {
                    let _ = epoll.ctl(ControlOperation::Delete, self.stdin, EpollEvent::default());
                    return;
                }
                Ok(len) => machine.serial.type_in(&input[..len]),
                Err(_) => {}
            }
        }
        let events = if machine.serial.room() > 0 {
            EventSet::IN
        } else {
            EventSet::empty()
        };
        // It is gone from the set after its end.
        let _ = watch(epoll, ControlOperation::Modify, self.stdin, events);
    }
}
