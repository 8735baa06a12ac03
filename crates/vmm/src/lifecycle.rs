//! The life of an instance's process: boots, resets in place, the control socket, the outcome.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::time::Instant;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::console::Ring;
use crate::control::{Event, Reply, Request, Status, VmState};
use crate::machine::{Machine, Plan};
use crate::notices::{Ending, Notice};
use crate::server::{Asked, Server, watch};
use crate::spec::Outcome;

/// How the process is driven and where its output goes.
pub struct Surroundings {
    /// When the process started.
    pub started: Instant,
    pub control: Option<UnixListener>,
    pub console: Console,
}

/// Where the serial port leads.
pub enum Console {
    /// The ring file.
    Ring(File),
    /// Standard output, with standard input typed into the guest.
    Terminal,
}

impl Console {
    fn output(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Self::Ring(file) => Box::new(Ring::open(file.try_clone()?)?),
            Self::Terminal => Box::new(io::stdout()),
        })
    }
}

/// Runs the machine through all its boots.
#[must_use]
pub fn run(plan: &Plan, surroundings: Surroundings) -> Outcome {
    match Lifecycle::new(plan, surroundings).and_then(|mut lifecycle| lifecycle.run()) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::StartFailed {
            message: chain(&error),
        },
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

struct Lifecycle<'a> {
    plan: &'a Plan,
    started: Instant,
    console: Console,
    epoll: Epoll,
    server: Option<Server>,
    status: Status,
}

impl<'a> Lifecycle<'a> {
    fn new(plan: &'a Plan, surroundings: Surroundings) -> io::Result<Self> {
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
            status: Status {
                instance_id: plan.instance_id.clone(),
                state: VmState::Starting,
                boots: 0,
                first_entry_micros: 0,
            },
        })
    }

    fn run(&mut self) -> io::Result<Outcome> {
        loop {
            self.status.boots += 1;
            self.status.state = VmState::Starting;
            let machine = match Machine::start(self.plan, self.console.output()?) {
                Ok(machine) => machine,
                Err(error) => {
                    return Ok(Outcome::StartFailed {
                        message: chain(&error),
                    });
                }
            };
            let ending = self.watch_over(&machine);
            self.status.state = VmState::Ending;
            machine.stop();
            let outcome = match ending? {
                Ending::Reset => {
                    let boots = self.status.boots + 1;
                    self.announce(&Event::Reset { boots });
                    continue;
                }
                Ending::PowerOff => Outcome::GuestPowerOff,
                Ending::Stop => Outcome::Stopped,
                Ending::Crash(message) => Outcome::Crashed { message },
            };
            for disk in &self.plan.disks {
                if let Err(error) = disk.disk.flush() {
                    tracing::error!(%error, serial = disk.serial, "last flush of a disk");
                }
            }
            return Ok(outcome);
        }
    }

    /// Serves everyone until the boot ends.
    fn watch_over(&mut self, machine: &Machine) -> io::Result<Ending> {
        let notices = machine.notices.as_raw_fd();
        watch(&self.epoll, ControlOperation::Add, notices, EventSet::IN)?;
        let keyboard = match self.console {
            Console::Terminal => Keyboard::attach(&self.epoll, machine),
            Console::Ring(_) => None,
        };
        let mut ready = [EpollEvent::default(); 16];
        loop {
            let count = match self.epoll.wait(-1, &mut ready) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in &ready[..count] {
                let fd = event.data() as RawFd;
                if fd == notices {
                    if let Some(ending) = self.read_notices(machine) {
                        // Closing the notices' descriptor takes it out of the epoll set.
                        return Ok(ending);
                    }
                } else if let Some(keyboard) = keyboard.as_ref().filter(|keyboard| keyboard.owns(fd)) {
                    keyboard.handle(fd, &self.epoll, machine);
                } else if let Some(server) = &mut self.server {
                    server.handle(event, &self.epoll);
                }
            }
            while let Some(asked) = self.next_request() {
                self.answer(asked, machine);
            }
        }
    }

    fn read_notices(&mut self, machine: &Machine) -> Option<Ending> {
        for notice in machine.notices.take() {
            match notice {
                Notice::Entered(at) => {
                    if self.status.boots == 1 {
                        let micros = at.duration_since(self.started).as_micros();
                        self.status.first_entry_micros = u64::try_from(micros).unwrap_or(u64::MAX);
                    }
                    self.status.state = VmState::Running;
                    let (boots, first_entry_micros) = (self.status.boots, self.status.first_entry_micros);
                    tracing::info!(boots, first_entry_micros, "guest entered");
                    self.announce(&Event::Entered {
                        boots,
                        first_entry_micros,
                    });
                }
                Notice::Ending(ending) => return Some(ending),
            }
        }
        None
    }

    fn next_request(&mut self) -> Option<Asked> {
        self.server.as_mut()?.next_request(&self.epoll)
    }

    fn answer(&mut self, asked: Asked, machine: &Machine) {
        let reply = match asked.request {
            Request::Status => Reply::Status(self.status.clone()),
            Request::Metrics => Reply::Metrics(self.plan.metrics.report()),
            Request::PowerButton => match machine.press_power_button() {
                Ok(()) => Reply::Ok,
                Err(error) => Reply::Error {
                    message: format!("pressing the power button: {error}"),
                },
            },
            Request::Reset => {
                machine.notices.end(Ending::Reset);
                Reply::Ok
            }
            Request::Stop => {
                machine.notices.end(Ending::Stop);
                Reply::Ok
            }
        };
        if let Some(server) = &mut self.server {
            server.reply(asked.client, reply, &self.epoll);
        }
    }

    fn announce(&mut self, event: &Event) {
        if let Some(server) = &mut self.server {
            server.announce(event, &self.epoll);
        }
    }
}

/// Standard input, typed into the serial port as fast as the guest reads it.
struct Keyboard {
    stdin: RawFd,
    drained: RawFd,
}

impl Keyboard {
    /// `None` where standard input cannot be waited for: a plain file, or nothing.
    fn attach(epoll: &Epoll, machine: &Machine) -> Option<Self> {
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

    fn owns(&self, fd: RawFd) -> bool {
        fd == self.stdin || fd == self.drained
    }

    /// Reads no more than the guest's FIFO has room for; while that is full, only its draining is watched.
    fn handle(&self, fd: RawFd, epoll: &Epoll, machine: &Machine) {
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
