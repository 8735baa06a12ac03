//! The life of an instance's process: boots, resets in place, the control socket, the outcome.
//!
//! One thread does all of it. It waits for its clients and for the machine, tells the [`queue`] what they want,
//! and takes the steps that the queue hands out.

mod devices;
mod freeze;
mod pages;
pub mod queue;
mod serve;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::time::Instant;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::console::Console;
use crate::control::Event;
use crate::machine::{Machine, Plan};
use crate::notices::Notice;
use crate::server::{ClientId, Server, watch};
use crate::snapshot::MemorySource;
use crate::spec::Outcome;
use hearth_log::chain;
use pages::PageWatch;
use queue::{RequestQueue, Step};

pub use pages::Abandon;

/// How the process is driven and where its output goes.
pub struct Surroundings {
    /// When the process started.
    pub started: Instant,
    pub control: Option<UnixListener>,
    /// It ends, with all output in it, before the outcome is told.
    pub console: Console,
    /// Ends the process at once, where that is all that is left to do.
    pub abandon: Abandon,
}

/// Runs the machine through all its boots.
#[must_use]
pub fn run(plan: Plan, surroundings: Surroundings) -> Outcome {
    match Lifecycle::new(plan, surroundings).and_then(|mut lifecycle| lifecycle.run()) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::StartFailed {
            message: chain(&error),
        },
    }
}

struct Lifecycle {
    plan: Plan,
    started: Instant,
    console: Console,
    epoll: Epoll,
    server: Option<Server>,
    queue: RequestQueue<ClientId>,
    /// Boots of this process.
    boots: u64,
    /// Of the first boot.
    first_entry_micros: u64,
    /// Whether the last boot was by firmware.
    by_firmware: Option<bool>,
    abandon: Abandon,
    /// As long as a restored guest's memory comes from a page server.
    pages: Option<PageWatch>,
}

impl Lifecycle {
    fn new(plan: Plan, surroundings: Surroundings) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let server = match surroundings.control {
            Some(listener) => Some(Server::new(listener, &epoll)?),
            None => None,
        };
        Ok(Self {
            plan,
            started: surroundings.started,
            console: surroundings.console,
            epoll,
            server,
            queue: RequestQueue::new(),
            boots: 0,
            first_entry_micros: 0,
            by_firmware: None,
            abandon: surroundings.abandon,
            pages: None,
        })
    }

    fn run(&mut self) -> io::Result<Outcome> {
        let mut machine = match self.boot()? {
            Ok(machine) => machine,
            Err(outcome) => return Ok(outcome),
        };
        loop {
            self.wait(&mut machine)?;
            self.expect_pages();
            while let Some(asked) = self.next_request() {
                self.serve(asked, &mut machine);
            }
            self.send_answers();
            while let Some(step) = self.queue.next_step() {
                let result = match step {
                    Step::Pause => machine.pause().map_err(io::Error::other),
                    Step::Resume => {
                        machine.resume();
                        Ok(())
                    }
                    Step::PressPowerButton => machine.press_power_button(),
                    Step::Restart => {
                        machine.stop();
                        // The boots to come have memory of their own.
                        self.pages = None;
                        self.finish_all_leaves();
                        let boots = self.boots + 1;
                        self.announce(&Event::Reset { boots });
                        machine = match self.boot()? {
                            Ok(machine) => machine,
                            Err(outcome) => {
                                self.flush_disks();
                                return Ok(outcome);
                            }
                        };
                        Ok(())
                    }
                    Step::End(outcome) => {
                        if let Some(pages) = &self.pages {
                            pages.expect_end(&outcome);
                        }
                        // Requests that wait for a base would keep the disks from stopping.
                        self.plan.bases.close();
                        machine.stop();
                        self.pages = None;
                        self.flush_disks();
                        return Ok(outcome);
                    }
                };
                self.queue.finished(result.map_err(|error| chain(&error)));
                self.send_answers();
            }
            if let Some(pages) = &self.pages {
                pages.rest();
            }
        }
    }

    /// What comes may have this thread wait for somebody who waits for a page.
    fn expect_pages(&self) {
        if let Some(pages) = &self.pages {
            pages.expect();
        }
    }

    /// Builds the next boot and starts it; the inner error is the outcome of a machine that cannot be built.
    fn boot(&mut self) -> io::Result<Result<Machine, Outcome>> {
        self.boots += 1;
        let line = self.console.line();
        let restore = self.plan.restore.take();
        if let Some(MemorySource::Userfault { socket, .. }) = restore.as_ref().map(|restore| &restore.memory)
        {
            self.pages = Some(PageWatch::start(socket.try_clone()?, self.abandon)?);
            self.expect_pages();
        }
        let machine = match restore {
            Some(restore) => Machine::restore(&self.plan, &line, &restore),
            None => Machine::start(&self.plan, &line),
        };
        let machine = match machine {
            Ok(machine) => machine,
            Err(error) => {
                return Ok(Err(Outcome::StartFailed {
                    message: chain(&error),
                }));
            }
        };
        self.by_firmware = Some(machine.by_firmware);
        self.console.attach(&machine.serial);
        // Closing the descriptors of the boot before took them out of the epoll set.
        let notices = machine.notices.as_raw_fd();
        watch(&self.epoll, ControlOperation::Add, notices, EventSet::IN)?;
        if let Some(pages) = &self.pages {
            pages.rest();
        }
        Ok(Ok(machine))
    }

    /// Waits until something happens, and takes note of it.
    fn wait(&mut self, machine: &mut Machine) -> io::Result<()> {
        let mut ready = [EpollEvent::default(); 16];
        let count = match self.epoll.wait(-1, &mut ready) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for event in &ready[..count] {
            let fd = event.data() as RawFd;
            if fd == machine.notices.as_raw_fd() {
                self.read_notices(machine);
            } else if let Some(server) = &mut self.server {
                server.handle(event, &self.epoll);
            }
        }
        Ok(())
    }

    fn read_notices(&mut self, machine: &mut Machine) {
        for notice in machine.notices.take() {
            match notice {
                Notice::Entered(at) => {
                    if self.boots == 1 {
                        let micros = at.duration_since(self.started).as_micros();
                        self.first_entry_micros = u64::try_from(micros).unwrap_or(u64::MAX);
                    }
                    self.queue.entered();
                    let (boots, first_entry_micros) = (self.boots, self.first_entry_micros);
                    tracing::info!(boots, first_entry_micros, "guest entered");
                    self.announce(&Event::Entered {
                        boots,
                        first_entry_micros,
                        by_firmware: self.by_firmware,
                    });
                }
                Notice::BalloonStatistics => {
                    if let Some(balloon) = self.plan.devices.balloon() {
                        self.announce(&Event::BalloonStatistics(balloon.status()));
                    }
                }
                Notice::Ejected => self.finish_leaves(machine),
                Notice::Ending(ending) => self.queue.end(ending),
            }
        }
    }

    fn flush_disks(&self) {
        for (_, entry) in self.plan.devices.iter() {
            entry.flush();
        }
    }
}
