//! What the control socket's clients ask for, and their answers.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::devices::ChangeError;
use super::queue::Ask;
use super::{Lifecycle, chain};
use crate::control::{Event, Reply, Request, SnapshotRequest, SnapshotTaken, Status, VmState};
use crate::machine::Machine;
use crate::open::{Descriptors, Passed};
use crate::server::{Asked, ClientId};
use crate::snapshot::Writeback;
use crate::virtio::balloon;

impl Lifecycle {
    pub(super) fn next_request(&mut self) -> Option<Asked> {
        self.server.as_mut()?.next_request(&self.epoll)
    }

    /// Does what is done at once; what concerns the machine as a whole goes into the queue.
    pub(super) fn serve(&mut self, asked: Asked, machine: &mut Machine) {
        let client = asked.client;
        let reply = match asked.request {
            Request::Status => Reply::Status(self.status()),
            Request::Metrics => Reply::Metrics(self.plan.metrics.report()),
            Request::Devices => Reply::Devices(self.device_list(machine)),
            Request::AttachDisk(spec) => done(self.attach_disk(&spec, asked.descriptors, machine)),
            Request::AttachNic(spec) => done(self.attach_nic(&spec, asked.descriptors, machine)),
            Request::ReplaceTap { device, tap_fds } => {
                done(self.replace_tap(&device, &tap_fds, asked.descriptors, machine))
            }
            Request::Detach { device, force } => done(self.detach(&device, force, machine)),
            Request::Resize { device } => match self.resize(&device, machine) {
                Ok(bytes) => Reply::Resized { bytes },
                Err(error) => refused(&error),
            },
            Request::Pause => return self.queue.ask(Ask::Pause, client),
            Request::Resume => return self.queue.ask(Ask::Resume, client),
            Request::Balloon => self.with_balloon(|balloon| Reply::Balloon(balloon.status())),
            Request::SetBalloonTarget { mib } => self.with_balloon(|balloon| match balloon.set_target(mib) {
                Ok(()) => Reply::Ok,
                Err(error) => Reply::Error {
                    message: error.to_string(),
                },
            }),
            Request::RefreshBalloonStatistics => self.with_balloon(|balloon| {
                balloon.ask_for_statistics();
                Reply::Ok
            }),
            Request::Snapshot(what) => self.snapshot(machine, &what, asked.descriptors),
            Request::Freeze(disks) => match self.freeze(&disks, asked.descriptors, machine) {
                Ok(paused) => Reply::Frozen {
                    paused_micros: u64::try_from(paused.as_micros()).unwrap_or(u64::MAX),
                },
                Err(error) => refused(&error),
            },
            Request::Thaw { device, name } => done(self.thaw(&device, &name)),
            Request::SetRateLimit { device, limit } => {
                let set = self.plan.devices.set_rate_limit(&device, &limit);
                done(set.map_err(ChangeError::from))
            }
            Request::SetNicRateLimits {
                device,
                receive,
                transmit,
            } => {
                let set = self
                    .plan
                    .devices
                    .set_nic_rate_limits(&device, &receive, &transmit);
                done(set.map_err(ChangeError::from))
            }
            Request::PowerButton => return self.queue.ask(Ask::PowerButton, client),
            Request::Reset => return self.queue.ask(Ask::Reset, client),
            Request::Stop => return self.queue.ask(Ask::Stop, client),
        };
        self.reply(client, reply);
    }

    /// Answers those whose requests went through the queue.
    pub(super) fn send_answers(&mut self) {
        for (client, result) in self.queue.answers() {
            let reply = match result {
                Ok(()) => Reply::Ok,
                Err(refusal) => Reply::Error {
                    message: refusal.to_string(),
                },
            };
            self.reply(client, reply);
        }
    }

    pub(super) fn announce(&mut self, event: &Event) {
        if let Some(server) = &mut self.server {
            server.announce(event, &self.epoll);
        }
    }

    fn reply(&mut self, client: ClientId, reply: Reply) {
        if let Some(server) = &mut self.server {
            server.reply(client, reply, &self.epoll);
        }
    }

    /// A machine that runs is paused only as long as its state and memory are read: the files are synced while it
    /// runs again. This thread is not there for anyone else until all is done.
    fn snapshot(
        &mut self,
        machine: &mut Machine,
        what: &SnapshotRequest,
        descriptors: Vec<OwnedFd>,
    ) -> Reply {
        let runs = match self.queue.state() {
            VmState::Running => true,
            VmState::Paused => false,
            VmState::Starting | VmState::Ending => return refuse("the machine does not run"),
        };
        let mut descriptors = Passed::new(descriptors);
        let mut take = |place, name| descriptors.take(place, name).map(File::from);
        let (state, memory) = match (take(what.state, "state file"), take(what.memory, "memory file")) {
            (Ok(state), Ok(memory)) => (state, memory),
            (Err(error), _) | (_, Err(error)) => return refuse(&chain(&error)),
        };
        if let Some(pages) = &self.pages {
            pages.expect_all(self.plan.memory_mib);
        }
        let begun = Instant::now();
        if let Err(error) = machine.pause() {
            return refuse(&error.to_string());
        }
        // What the guest has let go until now is not in its slot any more.
        self.finish_leaves(machine);
        let writeback = if runs { Writeback::Late } else { Writeback::Early };
        let written = machine.snapshot(&self.plan, what.kind, &state, &memory, writeback);
        if runs {
            machine.resume();
        }
        let paused_micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let about = match written {
            Ok(about) => about,
            Err(error) => return refuse(&chain(&error)),
        };
        match memory.sync_all().and_then(|()| state.sync_all()) {
            Ok(()) => Reply::Snapshot(SnapshotTaken {
                id: about.id,
                base: about.base,
                paused_micros,
            }),
            Err(error) => {
                // What it has may be lost, and a diff to it would be a diff to nothing.
                machine.tracking = None;
                refuse(&format!("syncing the snapshot: {error}"))
            }
        }
    }

    fn with_balloon(&self, answer: impl FnOnce(&balloon::Handle) -> Reply) -> Reply {
        match self.plan.devices.balloon() {
            Some(balloon) => answer(balloon),
            None => Reply::Error {
                message: "the machine has no balloon".to_owned(),
            },
        }
    }

    fn status(&self) -> Status {
        Status {
            instance_id: self.plan.instance_id.clone(),
            state: self.queue.state(),
            boots: self.boots,
            first_entry_micros: self.first_entry_micros,
            by_firmware: self.by_firmware,
        }
    }
}

fn done(result: Result<(), ChangeError>) -> Reply {
    match result {
        Ok(()) => Reply::Ok,
        Err(error) => refused(&error),
    }
}

fn refused(error: &ChangeError) -> Reply {
    Reply::Error {
        message: chain(error),
    }
}

fn refuse(message: &str) -> Reply {
    Reply::Error {
        message: message.to_owned(),
    }
}
