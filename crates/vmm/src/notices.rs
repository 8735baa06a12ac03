//! What the threads of one boot tell the lifecycle thread: that a vCPU was entered, and why the boot ends.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Why a boot ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// ACPI S5.
    PowerOff,
    /// The reset register, the keyboard controller, a triple fault, or the control socket.
    Reset,
    /// The control socket asked for an end.
    Stop,
    /// The firmware has found nothing on the disks that it can start.
    NothingBootable,
    /// What cannot be continued, in words.
    Crash(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The boot processor is about to run guest code for the first time.
    Entered(Instant),
    Ending(Ending),
    /// The guest has let a device go, which was asked of it.
    Ejected,
    /// The statistics that someone asked for have come.
    BalloonStatistics,
}

/// The letter box of one boot. The first [`Ending`] counts; later ones are echoes of it.
pub struct Notices {
    queue: Mutex<Vec<Notice>>,
    ending: AtomicBool,
    event: EventFd,
}

impl Notices {
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::default(),
            ending: AtomicBool::new(false),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    pub fn entered(&self) {
        self.post(Notice::Entered(Instant::now()));
    }

    pub fn end(&self, ending: Ending) {
        if !self.ending.swap(true, Ordering::AcqRel) {
            self.post(Notice::Ending(ending));
        }
    }

    /// Whether the boot ends: vCPUs do not enter the guest again.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// What has come in since the last call; also quiets the descriptor.
    pub fn take(&self) -> Vec<Notice> {
        // An empty counter is no news.
        let _ = self.event.read();
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn post(&self, notice: Notice) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(notice);
        // Only an overflowing counter can fail, and then the reader is awake already.
        let _ = self.event.write(1);
    }
}

impl AsRawFd for Notices {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
