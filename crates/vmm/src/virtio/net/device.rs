//! What the device is: features and configuration space; it starts and stops its workers.

use std::fs::File;
use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_STATUS,
};

use super::control;
use super::exchange::Exchange;
use super::offloads;
use super::pairs::Pairs;
use super::rx::Receiver;
use super::state::{State, config_space};
use super::tap::Tap;
use super::tx::Transmitter;
use crate::jail::Role;
use crate::limits::{Limiter, RateLimit, Throttle};
use crate::metrics::{self, QueueMeter};
use crate::snapshot::{Saved, StateError};
use crate::virtio::queue::Virtqueue;
use crate::virtio::worker::{Stop, Worker};
use crate::virtio::{Activation, DeviceType, VirtioDevice, feature, read_config};

pub(super) const QUEUE_SIZE: u16 = 256;
/// Queue pairs of one interface: each has a thread.
pub const MAX_PAIRS: usize = 8;

/// What a network interface is to its guest.
#[derive(Debug, Clone, Copy)]
pub struct NetConfig {
    pub mac: [u8; 6],
    /// Bytes of IP packet.
    pub mtu: u16,
}

/// The rate limits of a network interface, an operation being a frame on the wire. They can be changed at any time.
#[derive(Debug, Clone)]
pub struct NetLimits {
    /// To the guest.
    pub receive: Arc<Limiter>,
    /// From the guest.
    pub transmit: Arc<Limiter>,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            receive: Limiter::new(&RateLimit::default()),
            transmit: Limiter::new(&RateLimit::default()),
        }
    }
}

/// A network interface to the guest.
pub struct Net {
    pairs: Arc<Pairs>,
    config: NetConfig,
    queue_sizes: Vec<u16>,
    limits: NetLimits,
    metrics: Arc<metrics::Device>,
    /// One for each queue pair.
    workers: Vec<Worker<Vec<Virtqueue>>>,
    control: Option<Worker<Virtqueue>>,
}

/// What a worker of a queue pair works with.
pub(super) struct Activated {
    pub(super) tap: Arc<Tap>,
    /// That the driver accepted.
    pub(super) features: u64,
    pub(super) mtu: u16,
    pub(super) throttle: Throttle,
    pub(super) meter: QueueMeter,
}

impl Activated {
    pub(super) fn has(&self, bit: u32) -> bool {
        self.features & feature(bit) != 0
    }
}

impl Net {
    /// Each of `taps` is a queue of the same interface, opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, and with
    /// `IFF_MULTI_QUEUE` if they are several.
    ///
    /// # Errors
    /// `taps` are no such TAP, or none, or more than [`MAX_PAIRS`].
    pub fn new(taps: Vec<File>, config: NetConfig) -> io::Result<Self> {
        if !(1..=MAX_PAIRS).contains(&taps.len()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a network interface has 1 to 8 queues",
            ));
        }
        let taps = taps.into_iter().map(Tap::new).collect::<io::Result<_>>()?;
        Ok(Self::on(taps, config))
    }

    pub(super) fn on(taps: Vec<Tap>, config: NetConfig) -> Self {
        let pairs = Pairs::new(taps);
        Self {
            queue_sizes: queue_sizes(pairs.len()),
            pairs: Arc::new(pairs),
            config,
            limits: NetLimits::default(),
            metrics: Arc::default(),
            workers: Vec::new(),
            control: None,
        }
    }

    /// On a socket that keeps packets apart, with all offloads.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn on_socket(socket: File, config: NetConfig) -> Self {
        const OFFLOADS: u32 = 0x7f;
        Self::on(vec![Tap::on(socket, OFFLOADS)], config)
    }

    #[must_use]
    pub fn limited_by(self, limits: NetLimits) -> Self {
        Self { limits, ..self }
    }

    /// Counts in `metrics`; its errors are frames that were dropped.
    #[must_use]
    pub fn counted_in(self, metrics: Arc<metrics::Device>) -> Self {
        Self { metrics, ..self }
    }

    fn activated(
        &self,
        tap: &Arc<Tap>,
        features: u64,
        limiter: &Arc<Limiter>,
        queue: u16,
    ) -> io::Result<Activated> {
        Ok(Activated {
            tap: Arc::clone(tap),
            features,
            mtu: self.config.mtu,
            throttle: Throttle::new(Arc::clone(limiter))?,
            meter: self.metrics.queue(queue),
        })
    }

    /// Starts the worker of a queue pair, if the driver enabled a queue of it.
    fn start_pair(&mut self, pair: u16, tap: &Arc<Tap>, activation: &mut Activation) -> io::Result<()> {
        let (rx, tx) = (2 * pair, 2 * pair + 1);
        let receiver = match activation.take_queue(rx.into()) {
            Some(queue) => {
                let with = self.activated(tap, activation.features, &self.limits.receive, rx)?;
                Some(Receiver::new(queue, with))
            }
            None => None,
        };
        let transmitter = match activation.take_queue(tx.into()) {
            Some(queue) => {
                let with = self.activated(tap, activation.features, &self.limits.transmit, tx)?;
                Some(Transmitter::new(queue, with))
            }
            None => None,
        };
        if receiver.is_none() && transmitter.is_none() {
            return Ok(());
        }
        let stop = Stop::new()?;
        let exchange = Exchange::new(receiver, transmitter, &stop)?;
        let config_interrupt = activation.config_interrupt.clone();
        let run = move |stop: &Stop| exchange.run(stop, &config_interrupt);
        self.workers
            .push(Worker::spawn(Role::Net, &format!("net-pair{pair}"), stop, run)?);
        Ok(())
    }

    fn start(&mut self, mut activation: Activation) -> io::Result<()> {
        let pairs = if activation.has(VIRTIO_NET_F_MQ) {
            self.pairs.len()
        } else {
            1
        };
        // A TAP that was deleted refuses; its workers will see it.
        let set = self
            .pairs
            .set_offloads(offloads::received(activation.features))
            .and_then(|()| self.pairs.set(self.pairs.in_use()));
        if let Err(error) = set {
            tracing::debug!(%error, "a TAP could not be set up");
        }
        let taps: Vec<_> = self.pairs.taps().to_vec();
        for (pair, tap) in (0..pairs).zip(&taps) {
            self.start_pair(pair, tap, &mut activation)?;
        }
        if activation.has(VIRTIO_NET_F_CTRL_VQ) {
            self.control = control::start(Arc::clone(&self.pairs), pairs, &mut activation)?;
        }
        Ok(())
    }
}

/// Of an interface with so many queue pairs: several have a control queue behind them.
pub(super) fn queue_sizes(pairs: u16) -> Vec<u16> {
    let control = usize::from(pairs > 1);
    vec![QUEUE_SIZE; 2 * usize::from(pairs) + control]
}

impl VirtioDevice for Net {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }

    fn features(&self) -> u64 {
        let multi_queue = if self.pairs.len() > 1 {
            feature(VIRTIO_NET_F_CTRL_VQ) | feature(VIRTIO_NET_F_MQ)
        } else {
            0
        };
        feature(VIRTIO_NET_F_MAC)
            | feature(VIRTIO_NET_F_MTU)
            | feature(VIRTIO_NET_F_STATUS)
            | feature(VIRTIO_NET_F_MRG_RXBUF)
            | offloads::features(self.pairs.offloads())
            | multi_queue
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        read_config(&config_space(&self.config, self.pairs.len()), offset, data);
    }

    fn reset(&mut self) {
        self.pairs.note(1);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let started = self.start(activation);
        if started.is_err() {
            self.workers.clear();
            self.control = None;
        }
        started
    }

    fn stop(&mut self) -> Vec<Virtqueue> {
        let pairs = self.workers.drain(..).filter_map(Worker::stop).flatten();
        let queues = pairs.chain(self.control.take().and_then(Worker::stop)).collect();
        // Nobody reads until the next activation, which may accept less.
        if let Err(error) = self.pairs.set_offloads(0) {
            tracing::debug!(%error, "a TAP could not be set back");
        }
        queues
    }

    fn save(&self) -> Result<Saved, StateError> {
        let state = State {
            config: config_space(&self.config, self.pairs.len()),
            features: self.features(),
            pairs_in_use: self.pairs.in_use(),
        };
        state.save()
    }

    fn restore(&mut self, state: &Saved) -> Result<(), StateError> {
        let state = State::read(state)?;
        if state.pairs() != self.pairs.len() {
            let fault = format!("a network interface had {} queue pairs", state.pairs());
            return Err(StateError::Unfit(fault));
        }
        self.pairs.note(state.pairs_in_use);
        Ok(())
    }
}
