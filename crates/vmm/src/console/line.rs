//! What lies between the serial port, on a vCPU's thread, and the console's thread: a bounded buffer and a
//! bell. Nobody waits here for longer than it takes to copy a byte.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_superio::serial::SerialEvents;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::ring::CAPACITY;

/// One end or the other of the line.
#[derive(Clone)]
pub struct Line(Arc<Shared>);

struct Shared {
    output: Mutex<Output>,
    /// The console holds keys back until the guest has read those in its FIFO.
    starved: AtomicBool,
    bell: EventFd,
}

#[derive(Default)]
struct Output {
    /// No more than the ring holds: what is pushed out here would be overwritten there.
    bytes: VecDeque<u8>,
    /// Pushed out since the last [`Line::take`].
    lost: u64,
    /// The console looks again of its own accord, so the bell need not ring.
    watched: bool,
}

impl Line {
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            output: Mutex::default(),
            starved: AtomicBool::new(false),
            bell: EventFd::new(EFD_NONBLOCK)?,
        })))
    }

    /// Makes the console look.
    pub(super) fn wake(&self) {
        // A full counter has woken it already.
        let _ = self.0.bell.write(1);
    }

    /// Quiets the bell.
    pub fn quiet(&self) {
        // An empty counter is quiet.
        let _ = self.0.bell.read();
    }

    /// Takes all output by exchanging it for `empty`; says how many bytes before it are lost.
    pub fn take(&self, empty: &mut VecDeque<u8>) -> u64 {
        let mut output = self.output();
        std::mem::swap(&mut output.bytes, empty);
        std::mem::take(&mut output.lost)
    }

    /// Has the bell ring for the next output, unless there is some already, which it says.
    pub fn await_output(&self) -> bool {
        let mut output = self.output();
        output.watched = !output.bytes.is_empty();
        output.watched
    }

    /// Has the bell ring once the guest has read all of its input. The console looks for room once more after
    /// this: the guest may have been faster.
    pub(super) fn await_room(&self) {
        self.0.starved.store(true, Ordering::SeqCst);
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.0.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRawFd for Line {
    /// The bell: readable while it rings.
    fn as_raw_fd(&self) -> RawFd {
        self.0.bell.as_raw_fd()
    }
}

impl Write for Line {
    /// Takes everything at once; the oldest bytes make room.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut output = self.output();
        for &byte in bytes {
            if output.bytes.len() == CAPACITY {
                output.bytes.pop_front();
                output.lost += 1;
            }
            output.bytes.push_back(byte);
        }
        let unseen = !std::mem::replace(&mut output.watched, true);
        drop(output);
        if unseen {
            self.wake();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SerialEvents for Line {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        if self.0.starved.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }
}
