//! The worker of a queue pair: one thread for both directions, asleep until something comes from either side.
//!
//! One and not two, because what goes one way mostly answers what came the other way: while the thread is at one
//! direction, neither the guest nor the host's kernel has to wake anybody for the other.

use std::io;

use super::rx::Receiver;
use super::tx::Transmitter;
use crate::virtio::interrupt::ConfigInterrupt;
use crate::virtio::queue::{QueueError, Virtqueue};
use crate::virtio::worker::{Stop, Waiter};

pub(super) struct Exchange {
    receiver: Option<Receiver>,
    transmitter: Option<Transmitter>,
    /// Doorbells, packets and rate limits; on edges, for each turn looks at all of them.
    events: Waiter,
}

impl Exchange {
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(
        receiver: Option<Receiver>,
        transmitter: Option<Transmitter>,
        stop: &Stop,
    ) -> io::Result<Self> {
        let events = stop.bare_waiter()?;
        if let Some(receiver) = &receiver {
            receiver.watch(&events)?;
        }
        if let Some(transmitter) = &transmitter {
            transmitter.watch(&events)?;
        }
        Ok(Self {
            receiver,
            transmitter,
            events,
        })
    }

    pub(super) fn run(mut self, stop: &Stop, config_interrupt: &ConfigInterrupt) -> Vec<Virtqueue> {
        if let Err(error) = self.serve(stop) {
            config_interrupt.needs_reset(&error);
        }
        let received = self.receiver.map(Receiver::end);
        let sent = self.transmitter.map(Transmitter::end);
        received.into_iter().chain(sent).collect()
    }

    fn serve(&mut self, stop: &Stop) -> Result<(), QueueError> {
        while !stop.requested() {
            // Both before either's error ends the worker: what was offered before a broken chain is served.
            let received = self.receiver.as_mut().map_or(Ok(false), Receiver::turn);
            let sent = self.transmitter.as_mut().map_or(Ok(false), Transmitter::turn);
            if !(received? | sent?) && !self.prepare_to_wait()? && !self.events.wait() {
                break;
            }
        }
        Ok(())
    }

    /// True: something has come meanwhile.
    fn prepare_to_wait(&mut self) -> Result<bool, QueueError> {
        let receiver = self.receiver.as_mut();
        let receive = receiver.map_or(Ok(false), Receiver::prepare_to_wait)?;
        let transmitter = self.transmitter.as_mut();
        let send = transmitter.map_or(Ok(false), Transmitter::prepare_to_wait)?;
        Ok(receive | send)
    }
}
