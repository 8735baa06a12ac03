//! The serial console: the guest's output for whoever reads, and one writer's keys for the guest.
//!
//! ```text
//! vCPU ─▶ Serial ─▶ Line ─▶ console thread ─▶ ring file (64 KiB, outlives the monitor)
//!            ▲                   │  ▲   └────▶ readers, each at its own place in the ring
//!            └── keys ───────────┘  └── the writer
//! ```
//!
//! A vCPU leaves its output in the [`line`], in memory, and goes on; the thread of [`worker`] takes it from
//! there, at most every few milliseconds while there is much. So a guest that floods its console pays for
//! its exits only, and costs the host one write of a bounded size at each look.
//!
//! # The socket
//! Whoever connects gets the history, then what comes, as raw bytes. A reader that is too slow loses what the
//! ring no longer holds and is told how much. The first connection that sends something is the writer until
//! it closes (its sending direction is enough); what others send meanwhile is thrown away, and they are told.
//! The writer's bytes are taken as fast as the guest reads them: the rest waits in the socket, whose buffer
//! is the bound.

mod client;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
mod line;
mod ring;
mod worker;

use std::fs::File;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};

pub use line::Line;
pub use ring::{CAPACITY, read};

use crate::jail::{self, Role};
use crate::legacy::serial::Serial;
use ring::Ring;
use worker::{Message, Worker};

/// It has a small loop and a buffer of one page.
const STACK_SIZE: usize = 128 << 10;

/// The running console of a monitor; it stays while machines come and go. Ends when dropped, with the last
/// output in the ring.
pub struct Console {
    line: Line,
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl Console {
    /// Keeps history in `ring`, a file, and serves those who connect to `listener`, and `first`, who is
    /// connected already.
    ///
    /// # Errors
    /// The ring cannot be read or written, or the host is out of descriptors or threads.
    pub fn start(ring: File, listener: Option<UnixListener>, first: Option<UnixStream>) -> io::Result<Self> {
        let line = Line::new()?;
        let (messages, inbox) = channel();
        let mut worker = Worker::new(Ring::open(ring)?, line.clone(), inbox, listener)?;
        if let Some(stream) = first {
            worker.welcome(stream)?;
        }
        let builder = Builder::new().name("console".into()).stack_size(STACK_SIZE);
        let thread = jail::spawn(Role::Console, builder, move || worker.run())?;
        Ok(Self {
            line,
            messages,
            thread: Some(thread),
        })
    }

    /// Where a machine's serial port leads.
    #[must_use]
    pub fn line(&self) -> Line {
        self.line.clone()
    }

    /// From now on keys go to `serial`; while no such port lives, they wait.
    pub fn attach(&self, serial: &Arc<Serial>) {
        self.tell(Message::Attach(Arc::downgrade(serial)));
    }

    fn tell(&self, message: Message) {
        // Its thread lives as long as we do: a panic there is the end of the process.
        let _ = self.messages.send(message);
        self.line.wake();
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.tell(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The port that keys go to.
type Port = Weak<Serial>;

#[cfg(test)]
mod tests;
