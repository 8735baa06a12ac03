//! Bases of disks that are there in part ([`hearth_block::base`]), and the way to whoever brings the rest of them.
//!
//! Whoever fills the bases connects to the Unix stream socket that the monitor listens on, and is asked for chunks by lines
//! of JSON: [`Ask`]s come, and each gets one [`Answer`], in any order. The connection that came last counts; it is asked
//! for all that the machine waits for, so that another process can go on where one was killed. While there is none, the
//! machine's reads wait.
//!
//! One thread serves the socket, and only where a disk has such a base. It does not wait for the machine, nor the machine's
//! control for it: a machine that is being booted waits for the chunks that its kernel is in.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use hearth_block::base::{Done, Fetch};
use rustix::event::{EventfdFlags, eventfd};
use serde::{Deserialize, Serialize};

use crate::jail::{self, Role};

#[cfg(test)]
mod tests;
mod worker;

/// Bytes of an answer's line.
pub const LINE_LIMIT: usize = 4 << 10;
/// Bytes of a base's name.
pub const NAME_LIMIT: usize = 64;
/// The thread copies a few lines.
const STACK: usize = 128 << 10;

/// What the monitor asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// As the disk's spec names it.
    pub base: String,
    /// Of [`hearth_block::base::CHUNK`] bytes each, from 0 on.
    pub chunk: u64,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub base: String,
    pub chunk: u64,
    /// Why the chunk will not come: the guest's read fails. Absent: it is in the base's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The bases of a machine's disks.
#[derive(Default)]
pub struct Bases {
    service: Mutex<Service>,
}

#[derive(Default)]
enum Service {
    /// Nobody brings anything.
    #[default]
    None,
    /// Nothing was asked for yet.
    Idle(UnixListener),
    Runs(Arc<Desk>),
}

impl Bases {
    /// Those that whoever connects to `listener` brings.
    #[must_use]
    pub fn new(listener: Option<UnixListener>) -> Self {
        Self {
            service: Mutex::new(listener.map_or(Service::None, Service::Idle)),
        }
    }

    /// How chunks of the base of this name are brought.
    ///
    /// # Errors
    /// Nobody brings any, the name is none, or a thread or descriptor is not to be had.
    pub fn fetch(&self, name: &str) -> io::Result<Arc<dyn Fetch>> {
        if name.is_empty() || name.len() > NAME_LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a base's name has 1 to {NAME_LIMIT} bytes"),
            ));
        }
        let mut service = lock(&self.service);
        if let Service::Idle(listener) = &*service {
            let desk = Arc::new(Desk {
                bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
                papers: Mutex::default(),
            });
            let worker = worker::Worker::new(Arc::clone(&desk), listener.try_clone()?);
            let builder = Builder::new().name("bases".into()).stack_size(STACK);
            jail::spawn(Role::Bases, builder, move || worker.run())?;
            *service = Service::Runs(desk);
        }
        match &*service {
            Service::Runs(desk) => Ok(Arc::new(Fetcher {
                desk: Arc::clone(desk),
                base: name.into(),
            })),
            _ => Err(io::Error::other(
                "the base is there in part, and the machine has no socket to ask for the rest",
            )),
        }
    }
}

impl Bases {
    /// Nobody waits any more, nor will: the machine ends.
    pub fn close(&self) {
        if let Service::Runs(desk) = &*lock(&self.service) {
            let waiting = {
                let mut papers = lock(&desk.papers);
                papers.closed = true;
                std::mem::take(&mut papers.waiting)
            };
            desk.ring();
            waiting.into_values().flatten().for_each(refuse);
        }
    }
}

impl Drop for Bases {
    fn drop(&mut self) {
        self.close();
    }
}

fn refuse(done: Done) {
    done(Err(io::Error::other("the machine ends")));
}

/// Where those who wait and the thread that asks meet.
struct Desk {
    /// Becomes readable when there is something new.
    bell: OwnedFd,
    papers: Mutex<Papers>,
}

#[derive(Default)]
struct Papers {
    waiting: BTreeMap<Key, Vec<Done>>,
    /// Of those, what has not been asked for.
    fresh: Vec<Key>,
    closed: bool,
}

/// A base's name and a chunk.
type Key = (Arc<str>, u64);

impl Desk {
    fn ring(&self) {
        // It could only fail after 2^64 times that nobody heard it.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

struct Fetcher {
    desk: Arc<Desk>,
    base: Arc<str>,
}

impl Fetch for Fetcher {
    fn fetch(&self, chunk: u64, done: Done) {
        let key = (Arc::clone(&self.base), chunk);
        let mut papers = lock(&self.desk.papers);
        if papers.closed {
            drop(papers);
            return refuse(done);
        }
        let waiting = papers.waiting.entry(key.clone()).or_default();
        waiting.push(done);
        // Whoever asks for it a second time is served with the first.
        if waiting.len() == 1 {
            papers.fresh.push(key);
            drop(papers);
            self.desk.ring();
        }
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
