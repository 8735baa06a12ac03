//! A watch over a machine whose memory pages come from somebody else ([`crate::memory::userfault`]).
//!
//! Whoever looks at a page that is not there waits for it in the kernel: vCPUs, devices' workers, and with them the
//! lifecycle thread when it waits for one of these or looks itself. If the server is gone, or does not answer while
//! the lifecycle thread has something to do, nobody who waits can be stopped in order. So this thread, which never
//! looks at a page, ends the process then, as if the machine's power were cut: what the guest has flushed is on its
//! disks. A server that is slow while the lifecycle thread has nothing to do only slows the guest.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::jail::{self, Role};
use crate::spec::Outcome;

/// For all pages that the lifecycle thread may wait for at once, but for a snapshot's.
const PATIENCE: Duration = Duration::from_secs(10);
/// A snapshot has all of memory brought: so much of it a second at least.
const MIB_PER_SECOND: u64 = 10;

/// Ends the process after the outcome is told.
pub type Abandon = fn(&Outcome) -> !;

/// Watches until it is dropped.
pub(super) struct PageWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Rung when the state has changed.
    bell: EventFd,
}

#[derive(Default)]
struct State {
    /// By when the lifecycle thread has done what it does now.
    deadline: Option<Instant>,
    /// How the machine ends, if it does already.
    ending: Option<Outcome>,
    released: bool,
}

impl PageWatch {
    /// `server` is the page server's connection.
    ///
    /// # Errors
    /// The process may not have another thread or descriptor.
    pub(super) fn start(server: UnixStream, abandon: Abandon) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            bell: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        });
        let epoll = Epoll::new()?;
        // A hang-up is always told; there is nothing to read ever.
        for (fd, events) in [
            (server.as_raw_fd(), EventSet::empty()),
            (shared.bell.as_raw_fd(), EventSet::IN),
        ] {
            let event = EpollEvent::new(events, fd as u64);
            epoll.ctl(ControlOperation::Add, fd, event)?;
        }
        let theirs = Arc::clone(&shared);
        let thread = jail::spawn(Role::Pages, Builder::new().name("pages".into()), move || {
            watch(&server, &theirs, &epoll, abandon);
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The lifecycle thread is about to do what may have it wait for pages.
    pub(super) fn expect(&self) {
        self.expect_within(PATIENCE);
    }

    /// It is about to have all of memory brought.
    pub(super) fn expect_all(&self, mib: u64) {
        self.expect_within(PATIENCE + Duration::from_secs(mib / MIB_PER_SECOND));
    }

    /// It is about to end the machine.
    pub(super) fn expect_end(&self, outcome: &Outcome) {
        self.shared.state().ending = Some(outcome.clone());
        self.expect();
    }

    /// It has done so, and waits for its clients.
    pub(super) fn rest(&self) {
        // The thread finds out when the deadline has passed.
        self.shared.state().deadline = None;
    }

    fn expect_within(&self, patience: Duration) {
        self.shared.state().deadline = Instant::now().checked_add(patience);
        self.shared.ring();
    }
}

impl Drop for PageWatch {
    fn drop(&mut self) {
        self.shared.state().released = true;
        self.shared.ring();
        if let Some(thread) = self.thread.take() {
            // Its panic has ended the process.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // A full counter has been rung anyway.
        let _ = self.bell.write(1);
    }
}

fn watch(server: &UnixStream, shared: &Shared, epoll: &Epoll, abandon: Abandon) {
    let mut gone = false;
    loop {
        // An empty counter is no news.
        let _ = shared.bell.read();
        let wait = {
            let state = shared.state();
            let left = state
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if state.released {
                return;
            }
            if gone || left.is_some_and(|left| left.is_zero()) {
                let what = if gone { "has gone" } else { "does not answer" };
                let message = format!("the server of the guest's memory pages {what}");
                let outcome = state.ending.clone();
                abandon(&outcome.unwrap_or(Outcome::Crashed { message }));
            }
            // Rounded up, or the last millisecond would be waited for in vain.
            left.map_or(-1, |left| i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX))
        };
        let mut ready = [EpollEvent::default(); 2];
        // An interrupted wait is one that ends early.
        let count = epoll.wait(wait, &mut ready).unwrap_or(0);
        gone = ready[..count]
            .iter()
            .any(|event| event.data() == server.as_raw_fd() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never(outcome: &Outcome) -> ! {
        panic!("abandoned: {outcome:?}");
    }

    #[test]
    fn a_watch_that_is_let_go_ends_and_hangs_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let watch = PageWatch::start(ours, never).unwrap();
        for _ in 0..100 {
            watch.expect();
            watch.rest();
        }
        watch.expect_all(u64::MAX);
        watch.expect_end(&Outcome::Stopped);
        drop(watch);
        // The server hears of it at once.
        assert_eq!(std::io::Read::read(&mut &theirs, &mut [0]).unwrap(), 0);
    }
}
