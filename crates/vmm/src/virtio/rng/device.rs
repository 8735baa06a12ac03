//! What the device is: one queue, and nothing else.

use std::io;
use std::sync::Arc;

use super::worker::RngHandler;
use crate::jail::Role;
use crate::limits::{Limiter, RateLimit, Throttle};
use crate::metrics::Device;
use crate::virtio::queue::Virtqueue;
use crate::virtio::worker::{Stop, Worker, serve};
use crate::virtio::{Activation, DeviceType, VirtioDevice};

const QUEUE_SIZE: u16 = 64;

/// Random bytes of the host's kernel to the guest.
pub struct Rng {
    limiter: Arc<Limiter>,
    metrics: Arc<Device>,
    worker: Option<Worker<Virtqueue>>,
}

impl Rng {
    #[must_use]
    pub fn new() -> Self {
        Self {
            limiter: Limiter::new(&RateLimit::default()),
            metrics: Arc::default(),
            worker: None,
        }
    }

    /// Gives as much as `limiter` lets pass.
    #[must_use]
    pub fn limited_by(self, limiter: Arc<Limiter>) -> Self {
        Self { limiter, ..self }
    }

    /// Counts in `metrics`.
    #[must_use]
    pub fn counted_in(self, metrics: Arc<Device>) -> Self {
        Self { metrics, ..self }
    }
}

impl Default for Rng {
    fn default() -> Self {
        Self::new()
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config_read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, mut activation: Activation) -> io::Result<()> {
        let Some(mut queue) = activation.take_queue(0) else {
            return Ok(());
        };
        let stop = Stop::new()?;
        let doorbell = stop.waiter(&queue)?;
        let config_interrupt = activation.config_interrupt;
        let throttle = Throttle::new(Arc::clone(&self.limiter))?;
        let mut handler = RngHandler::new(throttle, &stop, self.metrics.queue(0))?;
        self.worker = Some(Worker::spawn(Role::Rng, "virtio-rng", stop, move |stop| {
            serve(&mut queue, stop, &doorbell, &config_interrupt, &mut handler);
            queue
        })?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Virtqueue> {
        self.worker.take().and_then(Worker::stop).into_iter().collect()
    }
}
