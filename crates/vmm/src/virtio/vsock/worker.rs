//! The device's one thread: moves packets between the virtqueues and the connections.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::device::QUEUE_SIZE;
use super::mux::Mux;
use super::packet::HEADER_LEN;
use crate::metrics::{self, Operation, QueueMeter};
use crate::virtio::chain::Chain;
use crate::virtio::interrupt::ConfigInterrupt;
use crate::virtio::queue::{QueueError, Virtqueue};
use crate::virtio::worker::Stop;

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`: all connections are over, and the context id may have changed (5.10.6.7).
const TRANSPORT_RESET: [u8; 4] = [0; 4];

const STOP: u64 = 0;
const RX: u64 = 1;
const TX: u64 = 2;
const EVENT: u64 = 3;
const SOCKETS: u64 = 4;

/// The queues of 5.10.2.
pub(super) struct Queues {
    pub(super) rx: Virtqueue,
    pub(super) tx: Virtqueue,
    pub(super) event: Option<Virtqueue>,
}

impl Queues {
    pub(super) fn into_vec(self) -> Vec<Virtqueue> {
        [self.rx, self.tx].into_iter().chain(self.event).collect()
    }
}

pub(super) struct VsockWorker {
    queues: Queues,
    mux: Mux,
    /// The guest has to be told of a transport reset.
    transport_reset: bool,
    rx_meter: QueueMeter,
    tx_meter: QueueMeter,
    epoll: Epoll,
    chain: Chain,
}

/// What is left when the worker has stopped.
pub(super) struct Rest {
    pub(super) queues: Queues,
    pub(super) mux: Mux,
    pub(super) transport_reset: bool,
}

impl VsockWorker {
    pub(super) fn new(rest: Rest, metrics: &Arc<metrics::Device>, stop: &Stop) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let add = |token, fd| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token));
        add(STOP, stop.as_raw_fd())?;
        add(RX, rest.queues.rx.as_raw_fd())?;
        add(TX, rest.queues.tx.as_raw_fd())?;
        add(SOCKETS, rest.mux.as_raw_fd())?;
        if let Some(event) = &rest.queues.event {
            add(EVENT, event.as_raw_fd())?;
        }
        Ok(Self {
            queues: rest.queues,
            mux: rest.mux,
            transport_reset: rest.transport_reset,
            rx_meter: metrics.queue(0),
            tx_meter: metrics.queue(1),
            epoll,
            chain: Chain::default(),
        })
    }

    pub(super) fn run(mut self, stop: &Stop, config_interrupt: &ConfigInterrupt) -> Rest {
        if let Err(error) = self.serve(stop) {
            config_interrupt.needs_reset(&error);
        }
        Rest {
            queues: self.queues,
            mux: self.mux,
            transport_reset: self.transport_reset,
        }
    }

    fn serve(&mut self, stop: &Stop) -> Result<(), QueueError> {
        while !stop.requested() {
            self.mux.poll();
            let sent = self.take_packets();
            self.queues.tx.notify()?;
            let received = self.give_packets();
            self.queues.rx.notify()?;
            self.give_event()?;
            // Neither before the other is done, so that a broken chain leaves no packet behind it unanswered.
            if !(sent? | received?) && !self.enable_doorbells()? && !self.wait() {
                break;
            }
        }
        Ok(())
    }

    /// Takes at most a ring's worth of the guest's packets; true: there were some.
    fn take_packets(&mut self) -> Result<bool, QueueError> {
        let Queues { tx, .. } = &mut self.queues;
        tx.disable_doorbell()?;
        let mut any = false;
        for _ in 0..tx.size() {
            if self.mux.is_full() || !tx.pop(&mut self.chain, QUEUE_SIZE.into())? {
                break;
            }
            let begin = Instant::now();
            let len = self.mux.on_packet(&self.chain, tx.memory());
            let len = len.map_err(|source| tx.malformed(source))?;
            self.tx_meter
                .completed(Operation::Transmit, len.into(), begin.elapsed());
            tx.complete(&self.chain, 0)?;
            any = true;
        }
        Ok(any)
    }

    /// Gives the guest at most a ring's worth of packets; true: there were some.
    fn give_packets(&mut self) -> Result<bool, QueueError> {
        let Queues { rx, .. } = &mut self.queues;
        rx.disable_doorbell()?;
        let mut any = false;
        for _ in 0..rx.size() {
            if !self.mux.has_news() || !rx.pop(&mut self.chain, QUEUE_SIZE.into())? {
                break;
            }
            let begin = Instant::now();
            let len = self.mux.next_packet(&self.chain, rx.memory());
            let Some(len) = len.map_err(|source| rx.malformed(source))? else {
                rx.undo_pop();
                break;
            };
            let data = u64::from(len).saturating_sub(HEADER_LEN as u64);
            self.rx_meter.completed(Operation::Receive, data, begin.elapsed());
            rx.complete(&self.chain, len)?;
            any = true;
        }
        Ok(any)
    }

    fn give_event(&mut self) -> Result<(), QueueError> {
        let Some(event) = self.queues.event.as_mut().filter(|_| self.transport_reset) else {
            return Ok(());
        };
        if event.pop(&mut self.chain, QUEUE_SIZE.into())? {
            let written = self.chain.writable.write(event.memory(), 0, &TRANSPORT_RESET);
            written.map_err(|source| event.malformed(source))?;
            event.complete(&self.chain, TRANSPORT_RESET.len() as u32)?;
            self.transport_reset = false;
        }
        event.notify()
    }

    /// Asks to be told of chains that are waited for; true: some have come already.
    fn enable_doorbells(&mut self) -> Result<bool, QueueError> {
        let Queues { rx, tx, event } = &mut self.queues;
        // Each is asked, also when another has news.
        let mut come = !self.mux.is_full() && tx.enable_doorbell()?;
        come |= self.mux.has_news() && rx.enable_doorbell()?;
        if let Some(event) = event.as_mut().filter(|_| self.transport_reset) {
            come |= event.enable_doorbell()?;
        }
        Ok(come)
    }

    /// Sleeps until there is something to do; false: the worker ends.
    fn wait(&self) -> bool {
        let mut events = [EpollEvent::default(); 5];
        let count = match self.epoll.wait(-1, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => {
                tracing::error!(%error, "the vsock worker cannot wait and ends");
                return false;
            }
        };
        for event in events.iter().take(count) {
            match event.data() {
                STOP => return false,
                RX => self.queues.rx.silence_doorbell(),
                TX => self.queues.tx.silence_doorbell(),
                EVENT => self.queues.event.iter().for_each(Virtqueue::silence_doorbell),
                _ => {}
            }
        }
        true
    }
}
